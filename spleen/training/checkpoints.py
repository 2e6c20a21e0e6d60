"""Checkpoints that survive kills: written whole, resumed exactly, read without running code."""
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


class WholeCheckpoints(TorchCheckpointIO):
    """Lightning's way to write a checkpoint, but onto the disk and whole, or not at all."""

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | Path, storage_options: object | None = None
    ) -> None:
        """Write the checkpoint; raises OSError with the path, and then the file that was there is still there."""
        _write(Path(path), checkpoint)


def _write(path: Path, checkpoint: dict[str, Any]) -> None:
    # Through memory: torch.save hides the reason when it cannot write to a file.
    content = io.BytesIO()
    torch.save(checkpoint, content)
    write_bytes(path, content.getbuffer())


class EpochCheckpoints(Checkpoint):
    """After every epoch last.ckpt, to go on from, and of the best epoch so far best.ckpt, the model alone.

    Without validation the last epoch is the best.

    Which epoch is the best follows from the rows of `epochs`, so there is no state or path of its own that a moved run
    folder could invalidate. `on_kept` gets the row of every epoch that is on the disk, first those of a resumed run.
    """

    def __init__(self, folder: Path, epochs: EpochRecord, spec: ModelSpec, on_kept: Callable[[EpochRow], None]) -> None:
        self._folder = folder
        self._spec = spec
        self._epochs = epochs
        self._on_kept = on_kept

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Hand on the rows that came with the checkpoint. Lightning calls this once the state is back."""
        if trainer.is_global_zero:
            for row in self._epochs.rows:
                self._on_kept(row)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Keep the epoch. Lightning calls this after the same hook of all other callbacks."""
        trainer.save_checkpoint(self._folder / LAST)  # on every process: a strategy may gather for it
        if trainer.is_global_zero:
            keep_best(self._folder, self._epochs.rows, self._spec)
            self._on_kept(self._epochs.rows[-1])
        trainer.strategy.barrier()  # the best one is read by all processes


def best_row(rows: Sequence[EpochRow]) -> EpochRow | None:
    """The first of the epochs with the highest validation score; NaN counts as the lowest.

    The last epoch while none was validated; None without an epoch.
    """
    validated = [row for row in rows if SELECTING_SCORE in row]
    return max(validated, key=_score) if validated else rows[-1] if rows else None


def _score(row: EpochRow) -> float:
    return -math.inf if math.isnan(row[SELECTING_SCORE]) else row[SELECTING_SCORE]


def keep_best(folder: Path, rows: Sequence[EpochRow], spec: ModelSpec) -> None:
    """Write best.ckpt from last.ckpt if its epoch, the last of the rows, is the best one and not there yet.

    Also after a kill between the writing of the one and the other. Where weights are averaged, Lightning has put the
    averaged ones in the place of the weights.
    """
    if rows and best_row(rows) is rows[-1] and _step_of(folder / BEST) != rows[-1]["step"]:
        write_best(folder, spec)


def write_best(folder: Path, spec: ModelSpec) -> None:
    """Write best.ckpt, the model in last.ckpt, whole or not at all."""
    _write(folder / BEST, model_content(spec.to_json(), read_checkpoint(folder / LAST)))


def _step_of(path: Path) -> float | None:
    """After how many steps a checkpoint was kept; None where there is none, or it is damaged."""
    try:
        return float(read_checkpoint(path)["global_step"]) if path.exists() else None
    except (InputError, KeyError, TypeError, ValueError):
        return None
