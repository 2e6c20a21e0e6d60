"""The run folder: the names of its files, and the state of the run."""

import json
from pathlib import Path
from typing import Any, Literal

from spleen.system.locks import is_claimed

State = Literal["finished", "pruned", "failed", "unfinished", "running", "new"]

CHECKPOINTS, BEST, LAST, ROI = "checkpoints", "best.ckpt", "last.ckpt", "roi.ckpt"
CASES, WANDB = "cases.csv", "wandb"
_CONFIG, _SUMMARY, _FAILURE = "config.yaml", "summary.json", "failed.json"
MARKERS = (_CONFIG, _SUMMARY, _FAILURE)
"""Any of these files makes a folder a run folder."""


class RunFolder:
    """The paths of the files in the folder of one run, whether they exist or not."""

    def __init__(self, path: Path) -> None:
        self.config = path / _CONFIG  # the complete configuration; written first
        self.split = path / "split.json"  # which slices, or which cases, train, validate and test
        self.folds = path / "splits_final.json"  # the folds of a cross-validation, in nnU-Net's form
        self.progress = path / "progress.json"  # what the running process is doing; removed at its end
        self.warm_start = path / "warm_start.json"  # what a run with init_from began with
        self.roi = path / "roi.json"  # the boxes of a run with roi_from
        self.metrics = path / "metrics.csv"  # one row per epoch
        self.cases = path / CASES  # the scores of each case
        self.slices = path / "slices.csv"  # voxel counts of each scored slice
        self.surfaces = path / "surface.csv"  # surface scores of the test cases, where they cost little
        self.data = path / "data.json"  # geometry of the cases, and a histogram of the first training case
        self.summary = path / _SUMMARY  # scores, cost and versions; written last, of finished and pruned runs only
        self.failure = path / _FAILURE  # why the job failed, in words
        self.traceback = path / "traceback.txt"  # of a bug
        self.figures = path / "figures"
        self.report = path / "report.html"  # all of the run on one page
        self.checkpoints = path / CHECKPOINTS
        self.best_checkpoint = self.checkpoints / BEST  # of the epoch with the best validation score
        self.last_checkpoint = self.checkpoints / LAST  # what an interrupted run resumes from
        self.roi_checkpoint = self.checkpoints / ROI  # of the coarse run of roi_from
        self.wandb = path / WANDB
        self.wandb_id = self.wandb / "id"  # of the run in wandb, which all parts of a resumed run share

    def drop_failure(self) -> None:
        """Remove the failure records of an earlier attempt."""
        for path in (self.failure, self.traceback):
            path.unlink(missing_ok=True)

    def drop_results(self) -> None:
        """Remove the results of an earlier run, so that they are not mistaken for those of a new one."""
        checkpoints = self.last_checkpoint, self.best_checkpoint, self.roi_checkpoint
        tables = self.metrics, self.cases, self.slices, self.surfaces
        for path in (self.summary, *checkpoints, *tables, self.data, self.report, self.warm_start, self.roi):
            path.unlink(missing_ok=True)


def run_folder_of(checkpoint: Path) -> Path | None:
    """The run folder of a checkpoint; None if it is not in one."""
    return checkpoint.parents[1] if checkpoint.parent.name == CHECKPOINTS else None


def read_summary(folder: Path) -> dict[str, Any]:
    """The content of summary.json; empty if it is missing or damaged."""
    try:
        summary = json.loads(RunFolder(folder).summary.read_bytes())
    except (OSError, ValueError):
        return {}
    return summary if isinstance(summary, dict) else {}


def is_finished(folder: Path, identity: str | None = None) -> bool:
    """Whether the folder contains a finished run, with this identity if given."""
    summary = read_summary(folder)
    return summary.get("status") == "finished" and identity in (None, summary.get("identity"))


def state_of(folder: Path, identity: str | None = None) -> State:
    """State of a job: "unfinished" means started, but its process is gone; "pruned" means stopped by a search."""
    if is_finished(folder, identity):
        return "finished"
    if read_summary(folder).get("status") == "pruned":
        return "pruned"
    if is_claimed(folder):
        return "running"
    run_folder = RunFolder(folder)
    if run_folder.failure.exists():
        return "failed"
    return "unfinished" if run_folder.config.exists() else "new"
