"""Lightning callbacks that stop training early: on a signal, a non-finite loss, or no further improvement."""
# ruff: noqa: ARG002  (Lightning defines the hooks' arguments)

import math
import signal
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import FrameType
from typing import Any

import pytorch_lightning as pl
import torch
from jaxtyping import Int64
from pytorch_lightning.callbacks import Callback, EarlyStopping
from pytorch_lightning.callbacks.early_stopping import EarlyStoppingReason
from pytorch_lightning.utilities.types import STEP_OUTPUT
from torch import Tensor

from spleen.data.loading.batches import SliceBatch
from spleen.errors import InputError
from spleen.system.signals import StopRequest

_Handler = Callable[[int, FrameType | None], object] | int | None


class StopOnSignal(Callback):
    """Updates the position of the run in the stop request, and checks for a stop after each batch."""

    def __init__(self, request: StopRequest) -> None:
        self._request = request
        self._sigterm: _Handler = signal.SIG_DFL

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Remember the SIGTERM handler, because Lightning will soon install its own."""
        self._sigterm = signal.getsignal(signal.SIGTERM)

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """See `_restore_sigterm`."""
        self._restore_sigterm(trainer)

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """See `_restore_sigterm`."""
        self._restore_sigterm(trainer)

    def on_test_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """See `_restore_sigterm`."""
        self._restore_sigterm(trainer)

    def _restore_sigterm(self, trainer: pl.Trainer) -> None:
        """With several processes, Lightning's handler would send messages in the middle of a collective operation."""
        if trainer.world_size > 1 and threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, self._sigterm)

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Update the position to this epoch."""
        self._request.position = f"in epoch {trainer.current_epoch + 1} of {trainer.max_epochs}"

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule, *_: Any) -> None:
        """Check for a stop after a step."""
        self._request.check()

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Update the position: Lightning itself may exit on SIGTERM here, once the checkpoint is written."""
        self._request.position = f"after epoch {trainer.current_epoch + 1} of {trainer.max_epochs}"

    def on_validation_batch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule, *_: Any) -> None:
        """Check for a stop between validation batches; the epoch is then repeated on resume."""
        self._request.check()

    def on_test_batch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule, *_: Any) -> None:
        """Check for a stop between test batches."""
        self._request.check()


class ResumableEarlyStopping(EarlyStopping):
    """Lightning's early stopping, except that a run it has stopped does not continue when resumed."""

    @property
    def state_key(self) -> str:
        """The name of its state in checkpoints, whatever the class is called."""
        return f"StopAtBestScore{ {'monitor': self.monitor, 'mode': self.mode} }"

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Called after the state is restored and before the first step."""
        trainer.should_stop = self.stopping_reason is not EarlyStoppingReason.NOT_STOPPED


@dataclass(frozen=True)
class _Step:
    """A training step whose loss has not been checked yet."""

    loss: Tensor
    """On the CPU; valid once `copied` has completed."""
    copied: torch.cuda.Event | None
    origin: Int64[Tensor, "b 2"]
    number: int
    lr: float

    def loss_value(self) -> float:
        if self.copied is not None:
            self.copied.synchronize()
        return float(self.loss)


class StopOnNonFiniteLoss(Callback):
    """Stops training on a non-finite loss, before the next checkpoint is written, and reports the slices.

    On a GPU, the loss is checked after the next step has been queued, so that the GPU never waits.
    Raises InputError.
    """

    def __init__(self, case_ids: Sequence[str]) -> None:
        self._case_ids = tuple(case_ids)
        self._pending: _Step | None = None

    def on_train_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: STEP_OUTPUT,
        batch: SliceBatch,
        batch_idx: int,
    ) -> None:
        """Check the loss of the previous step; on a CPU also of this step."""
        self._check_pending(trainer)
        if not isinstance(outputs, Mapping):
            return
        loss, copied = outputs["loss"].detach(), None
        if loss.is_cuda:
            loss, copied = loss.to("cpu", non_blocking=True), torch.cuda.Event()
            copied.record()
        lr = float(trainer.optimizers[0].param_groups[0]["lr"])
        self._pending = _Step(loss, copied, batch.origin, trainer.global_step, lr)
        if copied is None:
            self._check_pending(trainer)

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Check the last step of the epoch."""
        self._check_pending(trainer)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Check the last step of an epoch without validation."""
        self._check_pending(trainer)

    def _check_pending(self, trainer: pl.Trainer) -> None:
        step, self._pending = self._pending, None
        if step is None or math.isfinite(loss := step.loss_value()):
            return
        raise InputError(
            f"the loss became {loss} in step {step.number} (epoch {trainer.current_epoch + 1} of {trainer.max_epochs}) "
            f"on {self._slices(step.origin)}, so training was stopped. "
            f"Try a lower lr (it was {step.lr:.3g}), precision=32 (it was {trainer.precision}), or check these slices"
        )

    def _slices(self, origin: Int64[Tensor, "b 2"]) -> str:
        """Description of the slices of a batch, case by case."""
        indices: dict[str, list[int]] = {}
        for case, index in sorted(set(map(tuple, origin.tolist()))):
            indices.setdefault(self._case_ids[case], []).append(index)
        return " and ".join(f"case {case_id}, slices {', '.join(map(str, n))}" for case_id, n in indices.items())
