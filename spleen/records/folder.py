"""The run folder: the names of its files, and the state of the run."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from spleen.system.locks import is_claimed

State = Literal["finished", "pruned", "failed", "unfinished", "running", "new"]

CHECKPOINTS, BEST, LAST = "checkpoints", "best.ckpt", "last.ckpt"
CASES, WANDB = "cases.csv", "wandb"
_CONFIG, _SUMMARY, _FAILURE = "config.yaml", "summary.json", "failed.json"
MARKERS = (_CONFIG, _SUMMARY, _FAILURE)
"""Any of these files makes a folder a run folder."""


@dataclass(frozen=True)
class RunFolder:
    """The paths of the files in the folder of one run."""

    path: Path

    @property
    def config(self) -> Path:
        """The complete configuration; written first."""
        return self.path / _CONFIG

    @property
    def split(self) -> Path:
        """The slices or cases of the train, val and test splits."""
        return self.path / "split.json"

    @property
    def folds(self) -> Path:
        """The folds of a cross-validation, in nnU-Net's format."""
        return self.path / "splits_final.json"

    @property
    def metrics(self) -> Path:
        """One row per epoch."""
        return self.path / "metrics.csv"

    @property
    def cases(self) -> Path:
        """The scores of each case."""
        return self.path / CASES

    @property
    def summary(self) -> Path:
        """Scores, cost and versions; written last, so its presence means finished or pruned."""
        return self.path / _SUMMARY

    @property
    def failure(self) -> Path:
        """Error message of a failed job."""
        return self.path / _FAILURE

    @property
    def traceback(self) -> Path:
        """The traceback of a bug."""
        return self.path / "traceback.txt"

    @property
    def figures(self) -> Path:
        """The folder of the figures."""
        return self.path / "figures"

    @property
    def checkpoints(self) -> Path:
        """The folder of the checkpoints."""
        return self.path / CHECKPOINTS

    @property
    def best_checkpoint(self) -> Path:
        """The checkpoint of the epoch with the best validation score."""
        return self.checkpoints / BEST

    @property
    def last_checkpoint(self) -> Path:
        """The checkpoint that an interrupted run resumes from."""
        return self.checkpoints / LAST

    @property
    def wandb(self) -> Path:
        """The folder of wandb's files."""
        return self.path / WANDB

    @property
    def wandb_id(self) -> Path:
        """The id of the run in wandb, shared by all segments of a resumed run."""
        return self.wandb / "id"

    def drop_failure(self) -> None:
        """Remove the failure records of an earlier attempt."""
        for path in (self.failure, self.traceback):
            path.unlink(missing_ok=True)

    def drop_results(self) -> None:
        """Remove the results of an earlier run, so that they are not mistaken for those of a new one."""
        for path in (self.summary, self.last_checkpoint, self.best_checkpoint, self.metrics, self.cases):
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
