"""Checkpoints that survive kills: written atomically, resumed exactly, read without executing code."""
# ruff: noqa: ARG002  (Lightning gives the hooks their arguments)

import io
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from lightning_fabric.plugins.io.torch_io import TorchCheckpointIO
from pytorch_lightning.callbacks import Checkpoint

from spleen.errors import InputError
from spleen.models.checkpoint import model_content, read_checkpoint
from spleen.models.spec import ModelSpec
from spleen.records.folder import BEST, LAST
from spleen.system.files import write_bytes
from spleen.training.callbacks import EpochRecord, EpochRow

SELECTING_SCORE = "val/dice"
CHECKPOINTS_KEY = "EpochCheckpoints"
"""Key of the state of `EpochCheckpoints` among the callbacks in last.ckpt."""


class WholeCheckpoints(TorchCheckpointIO):
    """Lightning's checkpoint writer, but atomic and flushed to disk."""

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | Path, storage_options: object | None = None
    ) -> None:
        """Write the checkpoint; raises OSError with the path, and then leaves an existing file unchanged."""
        _write(Path(path), checkpoint)


def _write(path: Path, checkpoint: dict[str, Any]) -> None:
    # Through memory: torch.save hides the reason when it cannot write to a file.
    content = io.BytesIO()
    torch.save(checkpoint, content)
    write_bytes(path, content.getbuffer())


class EpochCheckpoints(Checkpoint):
    """After every epoch writes last.ckpt, to resume from, and if it is the best so far best.ckpt, only the model.

    Without validation, or with a validation split without the organ (`can_select`), the last epoch is the best. The
    best epoch is determined from the rows of `epochs`, so there is no separate state or path that a moved run folder
    could invalidate. `on_epoch` receives the row of every saved epoch, starting with those of a resumed run.
    """

    def __init__(
        self,
        folder: Path,
        epochs: EpochRecord,
        spec: ModelSpec,
        on_epoch: Callable[[EpochRow], None],
        can_select: bool = True,
    ) -> None:
        self._folder = folder
        self._spec = spec
        self._epochs = epochs
        self._on_epoch = on_epoch
        self._can_select = can_select

    @property
    def state_key(self) -> str:
        """The name of its state in checkpoints, whatever the class is called."""
        return CHECKPOINTS_KEY

    def state_dict(self) -> dict[str, Any]:
        """Whether the validation scores can select an epoch, for a resumed run."""
        return {"can_select": self._can_select}

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Pass on the rows from the checkpoint. Lightning calls this after restoring the state."""
        if trainer.is_global_zero:
            for row in self._epochs.rows:
                self._on_epoch(row)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Save the epoch. Lightning calls this after the same hook of all other callbacks."""
        trainer.save_checkpoint(self._folder / LAST)  # on every process: the strategy may gather weights
        if trainer.is_global_zero:
            keep_best(self._folder, self._epochs.rows, self._spec, self._can_select)
            self._on_epoch(self._epochs.rows[-1])
        trainer.strategy.barrier()  # all processes read the best one


def best_row(rows: Sequence[EpochRow], can_select: bool = True) -> EpochRow | None:
    """The first of the epochs with the highest validation score; NaN counts as the lowest.

    Without validated epochs, or if their scores cannot select, the last one; None without any epoch.
    """
    validated = [row for row in rows if SELECTING_SCORE in row and can_select]
    return max(validated, key=_score) if validated else rows[-1] if rows else None


def _score(row: EpochRow) -> float:
    return -math.inf if math.isnan(row[SELECTING_SCORE]) else row[SELECTING_SCORE]


def keep_best(folder: Path, rows: Sequence[EpochRow], spec: ModelSpec, can_select: bool = True) -> None:
    """Write best.ckpt from last.ckpt if its epoch, the last of the rows, is the best one and not yet written.

    This also repairs a kill between writing the two. With weight averaging, Lightning has stored the averaged weights
    as the model's.
    """
    if rows and best_row(rows, can_select) is rows[-1] and _step_of(folder / BEST) != rows[-1]["step"]:
        write_best(folder, spec)


def write_best(folder: Path, spec: ModelSpec) -> None:
    """Write the model in last.ckpt to best.ckpt, atomically."""
    _write(folder / BEST, model_content(spec.to_json(), read_checkpoint(folder / LAST)))


def _step_of(path: Path) -> float | None:
    """Number of steps at a checkpoint; None if it is missing or damaged."""
    try:
        return float(read_checkpoint(path)["global_step"]) if path.exists() else None
    except (InputError, KeyError, TypeError, ValueError):
        return None
