"""`spleen results` in a real process: exit codes and messages."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests._helpers.run_folders import write_config, write_run

HEAVY = {"torch", "pytorch_lightning", "monai", "wandb", "nibabel", "matplotlib"}


def spleen_results(*arguments: str | Path, python: tuple[str, ...] = ()) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *python, "-c", "from spleen.cli.main import main; main()", "results", *map(str, arguments)],
        env={**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "120"},
        capture_output=True,
        text=True,
        timeout=120,
    )


def test_a_study_is_printed_and_exported_without_heavy_imports(tmp_path: Path) -> None:
    for size, test in ((64, 0.6), (128, 0.7)):
        write_run(tmp_path / "study" / str(size), 0.8, test, img_size=size, cases=[("test", "a", "x", test)])
    write_config(tmp_path / "study" / "late")
    files = ["--markdown", tmp_path / "t.md", "--csv", tmp_path / "t.csv", "--latex", tmp_path / "t.tex"]
    done = spleen_results(tmp_path / "study", "--sort", "test", *files, python=("-X", "importtime"))
    assert done.returncode == 0, done.stderr
    rows = [line.split() for line in done.stdout.splitlines() if "unet" in line]
    assert [row[row.index("axial") + 1] for row in rows] == ["128", "64"]
    assert "late: 0 of 4 epochs" in done.stdout
    assert all(Path(path).stat().st_size for path in files[1::2])
    imported = {line.rsplit("|", 1)[1].strip().split(".")[0] for line in done.stderr.splitlines() if "|" in line}
    assert "yaml" in imported
    assert not imported & HEAVY


def test_group_by_accepts_several_settings(tmp_path: Path) -> None:
    for number, (axis, size) in enumerate([("axial", 64), ("axial", 128), ("coronal", 64), ("coronal", 128)]):
        write_run(tmp_path / str(number), axis=axis, img_size=size, lr=10.0**-number)
    for options in (["--group-by", "axis,img_size"], ["--group-by", "axis", "--group-by", "img_size"]):
        assert "4 finished runs in 4 arms" in spleen_results(tmp_path, *options).stdout
    assert "4 finished runs in 2 arms" in spleen_results(tmp_path, "--group-by", "axis").stdout


def test_a_study_without_finished_runs_exits_with_code_1(tmp_path: Path) -> None:
    write_config(tmp_path / "late")
    done = spleen_results(tmp_path)
    assert done.returncode == 1
    assert "no finished run" in done.stdout
    assert "late: 0 of 4 epochs" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere"], "nowhere is not a folder"),
        (["empty"], "contain no run"),
        (["study", "--group-by", "axes"], "no run has such a setting"),
        (["study", "--csv", "study/run/config.yaml/t.csv"], "--csv: study/run/config.yaml/t.csv cannot be written"),
        (["study", "--csv", "t", "--latex", "./t"], "--csv and --latex would both write t"),
        (["study", "--csv", "p/validation_curves.png", "--plots", "p"], "would both write p/validation_curves.png"),
        (["study", "--sort", "dice"], "'dice'"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_invalid_input_is_reported_with_exit_code_2(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], message: str
) -> None:
    write_run(tmp_path / "study" / "run")
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path)
    done = spleen_results(*arguments)
    assert done.returncode == 2, done.stderr
    assert message in done.stderr
    assert "Traceback" not in done.stderr
