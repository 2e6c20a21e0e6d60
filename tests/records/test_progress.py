"""progress.json, as a process keeps it and another one reads it."""

import json
from pathlib import Path

import pytest

from spleen.records.progress import ProgressFile, read_progress
from spleen.system.process import is_alive


def test_the_file_says_what_is_done_and_goes_at_the_end(tmp_path: Path) -> None:
    path = tmp_path / "progress.json"
    with ProgressFile(path) as file:
        first = read_progress(path)
        file.begin("scoring")
        second = read_progress(path)
    assert first is not None
    assert (first.doing, first.step, first.seconds_left) == ("starting", None, None)
    assert is_alive(first.process) is True
    assert second is not None
    assert second.doing == "scoring"
    assert not list(tmp_path.iterdir())


def test_what_changes_while_it_runs_is_written_within_seconds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("spleen.records.progress._SECONDS_BETWEEN_CHANGES", 0.02)
    path = tmp_path / "progress.json"
    with ProgressFile(path) as file:
        file.update("training", 3, 10, 12.5, 70.0)
        while (read := read_progress(path)) is None or read.doing != "training":
            pass
    assert (read.step, read.steps, read.slices_per_second, read.seconds_left) == (3, 10, 12.5, 70.0)


def test_a_folder_that_cannot_be_written_costs_nothing(tmp_path: Path) -> None:
    with ProgressFile(tmp_path / "gone" / "progress.json") as file:
        file.begin("training")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"doing": "a"}', '{"doing": 1, "process": 2, "moved_at": "x"}'])
def test_a_damaged_file_is_none(tmp_path: Path, content: str) -> None:
    path = tmp_path / "progress.json"
    path.write_text(content)
    assert read_progress(path) is None


def test_a_number_that_is_none_is_unknown(tmp_path: Path) -> None:
    path = tmp_path / "progress.json"
    path.write_text(
        json.dumps({"doing": "a", "process": "b", "moved_at": 1, "step": "x", "seconds_left": float("nan")})
    )
    read = read_progress(path)
    assert read is not None
    assert (read.step, read.seconds_left) == (None, None)


@pytest.mark.parametrize(("process", "alive"), [("elsewhere 1 2.0", None), ("", None), ("a b", None), ("x y z", None)])
def test_a_process_of_another_machine_is_neither_alive_nor_dead(process: str, alive: bool | None) -> None:
    assert is_alive(process) is alive
