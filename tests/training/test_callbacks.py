"""Progress display during training; the recorded values are tested on whole runs."""

import math
import re
from pathlib import Path

import pytest

from spleen.training.progress import status_texts
from tests._helpers.small_run import SmallCt, rows, small_ct, train
from tests._helpers.terminal import on_terminal


@pytest.fixture(scope="module")
def ct(tmp_path_factory: pytest.TempPathFactory) -> SmallCt:
    return small_ct(tmp_path_factory.mktemp("ct"))


def train_with_progress(ct: SmallCt, folder: Path, *overrides: str) -> list[dict[str, str]]:
    """Train with progress display; returns the rows of metrics.csv."""
    settings = ("data.label_values=[3,4]", "trainer.progress=true", *overrides)
    return rows(train(folder, *ct.overrides, *settings) / "metrics.csv")


def test_without_a_terminal_each_epoch_prints_one_line_with_loss_and_best_score(
    ct: SmallCt, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    metrics = train_with_progress(ct, tmp_path, "trainer.val_every_epochs=2")
    printed = capsys.readouterr()
    lines = [line for line in printed.out.splitlines() if line.startswith("epoch ")]
    assert len(lines) == 3
    for number, (line, row) in enumerate(zip(lines, metrics, strict=True), start=1):
        assert line.startswith(f"epoch {number}/3")
        assert f"loss {float(row['train/loss']):.4f}" in line
    dice = f"{float(metrics[1]['val/dice']):.4f}"
    assert f"val dice {dice}" in lines[1]
    assert f"best {dice}" in lines[1]
    assert f"best {dice}" in lines[2]  # still known after an epoch without validation
    assert "step" not in printed.err
    assert re.search(r" {2}\d+\.\d s(, \d+ s left)?$", lines[1])  # the validation has been measured
    assert re.search(r" {2}\d+\.\d s$", lines[0])  # but not before
    assert re.search(r" {2}\d+\.\d s$", lines[2])


def test_progress_json_is_gone_at_the_end(ct: SmallCt, tmp_path: Path) -> None:
    train_with_progress(ct, tmp_path)
    assert not list(tmp_path.rglob("progress.json"))


def test_on_a_terminal_a_progress_bar_shows_steps_loss_and_best_score(
    ct: SmallCt, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = "epochs=2", "loader.slices_per_epoch=16"
    text = on_terminal(monkeypatch, lambda: train_with_progress(ct, tmp_path, *arguments), 160)
    assert "8/8" in text  # 2 epochs of 16 slices in batches of 4
    assert "epoch 1/2" in text
    assert "loss 0." in text or "loss 1." in text
    assert "best val dice" in text
    assert "epoch 1/2" not in capsys.readouterr().out


def test_the_status_line_drops_what_a_narrow_terminal_has_no_room_for() -> None:
    texts = status_texts("3/10", "31/100", "", 112.3, "47 s left", 0.41234, [0.5, 0.9, 0.8])
    assert texts[0] == (
        "epoch 3/10  step 31/100  112 slices/s  47 s left  loss 0.4123  val dice 0.8000, best val dice 0.9000  ▁█▇"
    )
    assert texts[1] == "epoch 3/10  31/100  112/s  47 s left  loss 0.412  val 0.800 best 0.900  ▁█▇"
    assert texts[-1] == "epoch 3/10"
    assert [len(text) for text in texts] == sorted((len(text) for text in texts), reverse=True)


def test_the_status_line_before_anything_is_known() -> None:
    assert status_texts("1/10", "0/100", "", 0.0, "", math.nan, [])[0] == "epoch 1/10  step 0/100  best val dice -"


@pytest.mark.parametrize("columns", [120, 80, 40, 12])
def test_the_status_line_never_wraps_and_is_not_erased_in_between(
    ct: SmallCt, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, columns: int
) -> None:
    text = on_terminal(
        monkeypatch, lambda: train_with_progress(ct, tmp_path, "epochs=2", "loader.slices_per_epoch=16"), columns
    )
    drawn = [part for part in re.split(r"[\r\n]+", text) if part.startswith("epoch")]
    assert drawn
    assert max(map(len, drawn)) < columns
    assert "\x1b[2K" not in text
