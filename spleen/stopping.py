"""Lightning callbacks that end a training before its time: a signal, a loss that is no number, no better score."""
# ruff: noqa: ARG002  (Lightning gives the hooks their arguments)

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

from spleen.dataset import SliceBatch
from spleen.errors import InputError
from spleen.signals import StopRequest

_Handler = Callable[[int, FrameType | None], object] | int | None


class StopBetweenSteps(Callback):
    """Tells the request to stop where the run is, and lets it interrupt after each batch."""

    def __init__(self, request: StopRequest) -> None:
        self._request = request
        self._sigterm: _Handler = signal.SIG_DFL

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Remember who handles SIGTERM; Lightning puts a handler of its own before that one soon."""
        self._sigterm = signal.getsignal(signal.SIGTERM)

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """See `_take_sigterm_back`."""
        self._take_sigterm_back(trainer)

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """See `_take_sigterm_back`."""
        self._take_sigterm_back(trainer)

    def on_test_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """See `_take_sigterm_back`."""
        self._take_sigterm_back(trainer)

    def _take_sigterm_back(self, trainer: pl.Trainer) -> None:
        """Where several processes train: Lightning's handler sends to the others in the midst of what they exchange."""
        if trainer.world_size > 1 and threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, self._sigterm)

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Name the epoch."""
        self._request.where = f"in epoch {trainer.current_epoch + 1} of {trainer.max_epochs}"

    def on_train_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: STEP_OUTPUT,
        batch: SliceBatch,
        batch_idx: int,
    ) -> None:
        """Stop after a step."""
        self._request.check()

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Name the place between two epochs: once the checkpoint is written, Lightning itself leaves after SIGTERM."""
        self._request.where = f"after epoch {trainer.current_epoch + 1} of {trainer.max_epochs}"

    def on_validation_batch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule, *_: Any) -> None:
        """Stop between two validation batches; their epoch is then repeated."""
        self._request.check()

    def on_test_batch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule, *_: Any) -> None:
        """Stop between two test batches."""
        self._request.check()


class StopAtBestScore(EarlyStopping):
    """Lightning's early stopping, which when resumed after it has stopped a training does not let it go on."""

    @property
    def state_key(self) -> str:
        """The name of its state in checkpoints, whatever the class is called."""
        return f"StopAtBestScore{ {'monitor': self.monitor, 'mode': self.mode} }"

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Called once the state is back, and before the first step."""
        trainer.should_stop = self.stopping_reason is not EarlyStoppingReason.NOT_STOPPED


@dataclass(frozen=True)
class _Step:
    """One training step whose loss has not been looked at yet."""

    loss: Tensor
    """On the processor; valid once `copied` has happened."""
    copied: torch.cuda.Event | None
    origin: Int64[Tensor, "b 2"]
    number: int
    lr: float

    def loss_value(self) -> float:
        if self.copied is not None:
            self.copied.synchronize()
        return float(self.loss)


class StopAtBadLoss(Callback):
    """Ends a training whose loss is NaN or infinite, and names the slices, before another checkpoint is written.

    On a GPU a step's loss is looked at when the next step has been sent, so that the GPU never waits for it.
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
        """Look at the loss of the step before, on a processor also at this step's."""
        self._look(trainer)
        if not isinstance(outputs, Mapping):
            return
        loss, copied = outputs["loss"].detach(), None
        if loss.is_cuda:
            loss, copied = loss.to("cpu", non_blocking=True), torch.cuda.Event()
            copied.record()
        lr = float(trainer.optimizers[0].param_groups[0]["lr"])
        self._pending = _Step(loss, copied, batch.origin, trainer.global_step, lr)
        if copied is None:
            self._look(trainer)

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Look at the last step of the epoch."""
        self._look(trainer)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Look at the last step of an epoch without validation."""
        self._look(trainer)

    def _look(self, trainer: pl.Trainer) -> None:
        step, self._pending = self._pending, None
        if step is None or math.isfinite(loss := step.loss_value()):
            return
        raise InputError(
            f"the loss became {loss} in step {step.number} (epoch {trainer.current_epoch + 1} of {trainer.max_epochs}) "
            f"on {self._slices(step.origin)}, and the training ends there. "
            f"Try a lower lr (it was {step.lr:.3g}), precision=32 (it was {trainer.precision}), or look at these slices"
        )

    def _slices(self, origin: Int64[Tensor, "b 2"]) -> str:
        """The slices of a batch in words, case by case."""
        indices: dict[str, list[int]] = {}
        for case, index in sorted(set(map(tuple, origin.tolist()))):
            indices.setdefault(self._case_ids[case], []).append(index)
        return " and ".join(f"case {case_id}, slices {', '.join(map(str, n))}" for case_id, n in indices.items())
