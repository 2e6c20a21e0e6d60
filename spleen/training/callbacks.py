"""Lightning callbacks: the record of epochs, timing, and checkpoint contents."""

import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback
from pytorch_lightning.utilities.types import STEP_OUTPUT
from torch import Tensor

from spleen.data.loading.batches import SliceBatch
from spleen.data.loading.on_device import StepNumbers
from spleen.models.checkpoint import SPEC_KEY
from spleen.models.spec import ModelSpec
from spleen.system.files import write_text

EpochRow = dict[str, float]

SETTINGS_KEY = "run_settings"
"""Key of the run's settings in last.ckpt, as JSON."""


class EpochRecord(Callback):
    """Writes metrics.csv, one row per epoch; the checkpoints contain the rows, so a resumed run has each once.

    The file contains no times: the same seed gives the same file. Without a path the rows are only kept in memory, as
    in the processes other than rank 0.
    """

    def __init__(self, path: Path | None) -> None:
        self.rows: list[EpochRow] = []
        self._path = path
        self._validated = False
        self._losses: list[Tensor] = []

    @property
    def state_key(self) -> str:
        """The name of its state in checkpoints, whatever the class is called."""
        return "EpochRecord"

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: STEP_OUTPUT, *_: Any
    ) -> None:
        """Store the losses on their device: reading them would wait for a GPU."""
        if isinstance(outputs, Mapping):
            self._losses.append(outputs["losses"] if "losses" in outputs else outputs["loss"].view(1))

    def on_validation_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Remember that this epoch has its own validation scores."""
        self._validated = True

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Add the row of this epoch."""
        validation = trainer.callback_metrics if self._validated else {}  # otherwise they are from an earlier epoch
        losses = torch.cat(self._losses)
        # Apple's GPUs know no 64-bit numbers.
        mean = losses.mean() if losses.device.type == "mps" else losses.double().mean()
        loss = trainer.strategy.reduce(mean, reduce_op="mean")
        metrics = {
            "lr": float(trainer.optimizers[0].param_groups[0]["lr"]),
            "train/loss": float(loss),
            **{name: float(value) for name, value in validation.items()},
        }
        self._losses.clear()
        self._validated = False
        self.rows.append({"epoch": float(trainer.current_epoch), "step": float(trainer.global_step), **metrics})
        self._write()

    def state_dict(self) -> dict[str, Any]:
        """The rows so far."""
        return {"rows": [dict(row) for row in self.rows]}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue after these rows; the file may contain one more, of an epoch that was not saved."""
        self.rows = state_dict["rows"]
        self._write()

    def _write(self) -> None:
        if self._path is None:
            return
        names = list(dict.fromkeys(name for row in self.rows for name in row))
        lines = [",".join(names)]
        lines += [",".join(_cell(row.get(name)) for name in names) for row in self.rows]
        write_text(self._path, "\n".join(lines) + "\n")


def _cell(value: float | None) -> str:
    return "" if value is None else f"{value:.9g}"


class Clock(Callback):
    """Measures the time to the first step, and the throughput of training without validation.

    In a resumed run it counts the whole last segment, and each earlier one up to the checkpoint that the next resumed
    from. `started` is the start of this segment in seconds since the epoch.
    """

    def __init__(self, started: float) -> None:
        self.seconds_to_first_step = 0.0
        """Of the first segment."""
        self.resumed = 0
        """Number of earlier processes that have trained epochs of this run."""
        self._started = started
        self._earlier_seconds = 0.0
        self._first_step_done = False
        self._slices = 0
        self._seconds = 0.0
        self._since: float | None = None

    @property
    def state_key(self) -> str:
        """The name of its state in checkpoints, whatever the class is called."""
        return "Clock"

    @property
    def wall_seconds(self) -> float:
        """Wall-clock seconds of all segments so far."""
        return self._earlier_seconds + time.time() - self._started

    @property
    def training_seconds(self) -> float:
        """Seconds of training steps over all segments, without the first step and validation."""
        return self._seconds

    @property
    def slices_per_second(self) -> float:
        """Training slices per second over all processes, including loading and augmentation, without the first step."""
        seconds = self._seconds + (time.perf_counter() - self._since if self._since is not None else 0.0)
        return self._slices / seconds if self._slices else 0.0

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Start timing the epoch, unless the first step of all is still to come."""
        self._since = time.perf_counter() if self._first_step_done else None

    def on_train_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: STEP_OUTPUT,
        batch: SliceBatch | StepNumbers,
        batch_idx: int,
    ) -> None:
        """Count a step, which may only have been handed to a GPU so far; the first one is waited for."""
        if self._first_step_done:
            self._slices += batch.n_slices * trainer.world_size
            return
        self._first_step_done = True
        _wait_for(trainer)
        self.seconds_to_first_step = self.seconds_to_first_step or time.time() - self._started
        self._since = time.perf_counter()

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Stop timing once the steps are done."""
        self._end_steps(trainer)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Stop timing, in an epoch without validation."""
        self._end_steps(trainer)

    def _end_steps(self, trainer: pl.Trainer) -> None:
        if self._since is not None:
            _wait_for(trainer)
            self._seconds += time.perf_counter() - self._since
            self._since = None

    def state_dict(self) -> dict[str, Any]:
        """The totals so far."""
        return {
            "resumed": self.resumed,
            "wall_seconds": self.wall_seconds,
            "seconds_to_first_step": self.seconds_to_first_step,
            "slices": self._slices,
            "seconds": self._seconds,
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue from these totals."""
        self.resumed = state_dict["resumed"] + 1
        self._earlier_seconds = state_dict["wall_seconds"]
        self.seconds_to_first_step = state_dict["seconds_to_first_step"]
        self._slices, self._seconds = state_dict["slices"], state_dict["seconds"]


def _wait_for(trainer: pl.Trainer) -> None:
    """Wait until a GPU has done what it was given."""
    if trainer.strategy.root_device.type == "cuda":
        torch.cuda.synchronize(trainer.strategy.root_device)


class SelfDescribing(Callback):
    """Adds the model specification and the run's settings to every checkpoint, so that it can be used on its own."""

    def __init__(self, spec: ModelSpec, settings: Mapping[str, Any]) -> None:
        self._spec = spec.to_json()
        self._settings = json.dumps(settings)

    def on_save_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Add both to the content that Lightning is about to write."""
        checkpoint[SPEC_KEY] = self._spec
        checkpoint[SETTINGS_KEY] = self._settings
