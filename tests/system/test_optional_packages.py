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
import importlib.abc, importlib.machinery, runpy, sys

HIDDEN = {"wandb", "monai"}

class Hide(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in HIDDEN:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

find_distributions = importlib.machinery.PathFinder.find_distributions
importlib.machinery.PathFinder.find_distributions = staticmethod(
    lambda context: () if context.name in HIDDEN else find_distributions(context)
)
sys.meta_path.insert(0, Hide())
runpy.run_path("train.py", run_name="__main__")
"""


@pytest.fixture(scope="module")
def ct(tmp_path_factory: pytest.TempPathFactory) -> SmallCt:
    return small_ct(tmp_path_factory.mktemp("ct"))


@pytest.mark.slow
def test_a_run_without_logger_needs_neither_wandb_nor_monai(ct: SmallCt, tmp_path: Path) -> None:
    run_folder = tmp_path / "run"
    folders = f"output_dir={tmp_path}", f"cache_dir={tmp_path / 'cache'}", f"hydra.run.dir={run_folder}"
    settings = small("epochs=1", "loader.slices_per_epoch=8", "data.label_values=[3,4]", *ct.overrides, *folders)
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT, *settings], cwd=REPOSITORY, env=os.environ, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    content = json.loads((run_folder / "summary.json").read_text())
    assert content["status"] == "finished"
    assert "torch" in content["versions"]
    assert not {"wandb", "monai"} & set(content["versions"])


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
