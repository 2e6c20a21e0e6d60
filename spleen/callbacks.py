"""Lightning callbacks: the record of epochs, the clock, and what the terminal shows."""

import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Never

import numpy as np
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback
from pytorch_lightning.utilities.types import STEP_OUTPUT
from torch import Tensor
from tqdm import tqdm

from spleen.atomic import write_text
from spleen.dataset import SliceBatch
from spleen.recipe import RECIPE_KEY, Recipe

EpochRow = dict[str, float]

_SECONDS_BETWEEN_LOSSES = 0.3


class EpochRecord(Callback):
    """Writes metrics.csv, one row per epoch, and hands each row on.

    The file holds nothing that depends on the clock: the same seed gives the same file.
    """

    def __init__(self, path: Path, hand_on: Callable[[Mapping[str, float], int], None]) -> None:
        self.rows: list[EpochRow] = []
        self._path = path
        self._hand_on = hand_on
        self._validated = False
        self._losses: list[Tensor] = []

    def on_train_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: STEP_OUTPUT,
        batch: SliceBatch,
        batch_idx: int,
    ) -> None:
        """Keep the step's loss, on its device: reading it would wait for a GPU."""
        if isinstance(outputs, Mapping):
            self._losses.append(outputs["loss"])

    def on_validation_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Note that this epoch has validation scores of its own."""
        self._validated = True

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Add the row of the epoch that ends."""
        validation = trainer.callback_metrics if self._validated else {}  # else they are those of an earlier epoch
        metrics = {
            "lr": float(trainer.optimizers[0].param_groups[0]["lr"]),
            "train/loss": float(torch.stack(self._losses).double().mean()),
            **{name: float(value) for name, value in validation.items()},
        }
        self._losses.clear()
        self._validated = False
        epoch = trainer.current_epoch
        self.rows.append({"epoch": float(epoch), "step": float(trainer.global_step), **metrics})
        self._write()
        self._hand_on(metrics, epoch)

    def _write(self) -> None:
        names = list(dict.fromkeys(name for row in self.rows for name in row))
        lines = [",".join(names)]
        lines += [",".join(_cell(row.get(name)) for name in names) for row in self.rows]
        write_text(self._path, "\n".join(lines) + "\n")


def _cell(value: float | None) -> str:
    return "" if value is None else f"{value:.9g}"


class Clock(Callback):
    """Measures the time to the first step, and the throughput of training without validation."""

    def __init__(self, started: float) -> None:
        self.seconds_to_first_step = 0.0
        self._started = started
        self._first_step_done = False
        self._slices = 0
        self._seconds = 0.0
        self._since = 0.0

    @property
    def slices_per_second(self) -> float:
        """Slices trained on per second, loading and augmentation included, the very first step excluded."""
        return self._slices / self._seconds if self._seconds else 0.0

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Start of the epoch's clock."""
        self._since = time.perf_counter()

    def on_train_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: STEP_OUTPUT,
        batch: SliceBatch,
        batch_idx: int,
    ) -> None:
        """Count a step."""
        now = time.perf_counter()
        if self._first_step_done:
            self._slices += len(batch.image)
            self._seconds += now - self._since
        else:
            self._first_step_done = True
            self.seconds_to_first_step = time.time() - self._started
        self._since = now


class Progress(Callback):
    """One bar for the whole training with the current loss and the best score; one line per epoch off a terminal."""

    def __init__(self, epochs: EpochRecord) -> None:
        self._epochs = epochs
        self._best = float("nan")
        self._bar: tqdm[Never] | None = None
        self._shown = 0.0

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Open the bar, if someone can see it move."""
        if sys.stderr.isatty():
            total = int(trainer.estimated_stepping_batches)
            self._bar = tqdm(total=total, initial=trainer.global_step, unit="step", dynamic_ncols=True)

    def on_train_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: STEP_OUTPUT,
        batch: SliceBatch,
        batch_idx: int,
    ) -> None:
        """Move the bar; the loss is read only a few times per second, since that waits for a GPU."""
        if self._bar is None:
            return
        self._bar.update()
        if isinstance(outputs, Mapping) and time.perf_counter() - self._shown > _SECONDS_BETWEEN_LOSSES:
            self._shown = time.perf_counter()
            self._bar.set_description(f"epoch {trainer.current_epoch + 1}/{trainer.max_epochs}", refresh=False)
            self._bar.set_postfix_str(f"loss {float(outputs['loss']):.4f}, best val dice {self._best:.4f}")

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Remember the best score, and print the epoch where there is no bar."""
        row = self._epochs.rows[-1]
        dice = row.get("val/dice", float("nan"))
        self._best = float(np.fmax(self._best, dice))  # leaves out NaN: an epoch without validation
        if self._bar is None:
            print(
                f"epoch {trainer.current_epoch + 1}/{trainer.max_epochs}  loss {row['train/loss']:.4f}  "
                f"val dice {dice:.4f}  best {self._best:.4f}",
                flush=True,
            )

    def teardown(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Close the bar, also after an error."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None


class SelfDescribing(Callback):
    """Puts the run's recipe into every checkpoint, so that a checkpoint alone can be predicted with."""

    def __init__(self, recipe: Recipe) -> None:
        self._recipe = recipe.to_json()

    def on_save_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Add the recipe to what Lightning is about to write."""
        checkpoint[RECIPE_KEY] = self._recipe
