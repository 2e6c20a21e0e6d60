"""Packages that a run does not use may be missing, and a failure to record never loses a finished training."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import spleen.records.writing
import spleen.runs.report.write
import spleen.runs.train
from tests._helpers.small_run import REPOSITORY, SmallCt, small, small_ct, summary, train

# Runs train.py with some packages hidden: they cannot be imported and have no metadata.
WITHOUT = """
import importlib.machinery, runpy, sys

HIDDEN = {
    "wandb", "monai", "optuna", "SimpleITK", "statsmodels", "highdicom", "pynetdicom", "dicomweb_client", "onnx",
    "onnxruntime", "onnxscript", "submitit", "segmentation_models_pytorch",
}

find_distributions = importlib.machinery.PathFinder.find_distributions
importlib.machinery.PathFinder.find_distributions = staticmethod(
    lambda context: () if context.name in HIDDEN else find_distributions(context)
)
sys.modules.update(dict.fromkeys(HIDDEN))
runpy.run_path("train.py", run_name="__main__")
"""


@pytest.fixture(scope="module")
def ct(tmp_path_factory: pytest.TempPathFactory) -> SmallCt:
    return small_ct(tmp_path_factory.mktemp("ct"))


def train_without(ct: SmallCt, folder: Path, *overrides: str) -> subprocess.CompletedProcess[str]:
    folders = f"output_dir={folder}", f"cache_dir={folder / 'cache'}"
    settings = small("epochs=1", "loader.slices_per_epoch=8", "data.label_values=[3,4]", *ct.overrides, *folders)
    command = [sys.executable, "-c", WITHOUT, *settings, *overrides]
    return subprocess.run(command, cwd=REPOSITORY, env=os.environ, capture_output=True, text=True)


@pytest.mark.slow
def test_a_run_without_logger_needs_neither_wandb_nor_monai(ct: SmallCt, tmp_path: Path) -> None:
    run_folder = tmp_path / "run"
    done = train_without(ct, tmp_path, f"hydra.run.dir={run_folder}")
    assert done.returncode == 0, done.stderr
    content = json.loads((run_folder / "summary.json").read_text())
    assert content["status"] == "finished"
    assert "torch" in content["versions"]
    assert not {"wandb", "monai"} & set(content["versions"])


@pytest.mark.slow
def test_a_sweep_needs_no_extra(ct: SmallCt, tmp_path: Path) -> None:
    done = train_without(ct, tmp_path, "-m", "axis=coronal,axial", "study=sweep", "report=true")
    assert done.returncode == 0, done.stderr
    assert "2 finished job(s)" in done.stdout
    assert len(list((tmp_path / "sweep").glob("*/report.html"))) == 1


@pytest.mark.parametrize(
    ("owner", "name", "topic"),
    [
        (spleen.runs.report.write, "draw", "figures"),
        (spleen.runs.report.write, "show", "figures"),
        (spleen.runs.train, "mirror", "wandb"),
        (spleen.runs.report.write, "describe_hardware", "hardware"),
    ],
)
def test_a_failure_to_record_does_not_fail_the_training(
    ct: SmallCt, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture,
    owner: object, name: str, topic: str,
) -> None:  # fmt: skip
    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("no such font")

    monkeypatch.setattr(owner, name, fail)
    run_folder = train(tmp_path, "epochs=1", "loader.slices_per_epoch=8", "data.label_values=[3,4]", *ct.overrides)
    assert summary(run_folder)["status"] == "finished"
    assert (run_folder / "cases.csv").exists()
    assert any(topic in message and "no such font" in message for message in caplog.messages)
