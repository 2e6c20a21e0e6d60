"""Lightning callbacks that stop training early: on a signal, a non-finite loss, or no further improvement."""
# ruff: noqa: ARG002  (Lightning defines the hooks' arguments)

import signal
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import FrameType
from typing import Any

import pytorch_lightning as pl
import torch
from jaxtyping import Float, Int64
from pytorch_lightning.callbacks import Callback, EarlyStopping
from pytorch_lightning.callbacks.early_stopping import EarlyStoppingReason
from pytorch_lightning.utilities.types import STEP_OUTPUT
from torch import Tensor

from spleen.data.loading.batches import SliceBatch
from spleen.data.loading.on_device import StepNumbers, SteppedBatches
from spleen.errors import InputError
from spleen.system.signals import StopRequest
from spleen.training.timing.pace import epoch_text

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
        self._request.position = f"in epoch {epoch_text(trainer, ' of ')}"

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule, *_: Any) -> None:
        """Check for a stop after a step."""
        self._request.check()

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Update the position: Lightning itself may exit on SIGTERM here, once the checkpoint is written."""
        self._request.position = f"after epoch {epoch_text(trainer, ' of ')}"

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
class _Unchecked:
    """Training steps whose losses have not been checked yet."""

    losses: Float[Tensor, " k"]
    """On the CPU; valid once `copied` has completed."""
    copied: torch.cuda.Event | None
    batch: SliceBatch | StepNumbers
    first_number: int
    """Of the steps, counted from 1."""
    rates: Sequence[float]
    """Learning rate of each step."""

    def first_non_finite(self) -> int | None:
        if self.copied is not None:
            self.copied.synchronize()
        wrong = ~self.losses.isfinite()
        return int(wrong.nonzero()[0]) if wrong.any() else None


class StopOnNonFiniteLoss(Callback):
    """Stops training on a non-finite loss, before the next checkpoint is written, and reports the slices.

    On a GPU, the loss is checked after the next step has been queued, so that the GPU never waits.
    Raises InputError.
    """

    def __init__(self, case_ids: Sequence[str]) -> None:
        self._case_ids = tuple(case_ids)
        self._pending: _Unchecked | None = None

    def on_train_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: STEP_OUTPUT,
        batch: SliceBatch | StepNumbers,
        batch_idx: int,
    ) -> None:
        """Check the losses of the previous batch; on a CPU also of this batch."""
        self._check_pending(trainer)
        if not isinstance(outputs, Mapping):
            return
        losses, copied = outputs["losses"] if "losses" in outputs else outputs["loss"].detach().view(1), None
        if losses.is_cuda:
            on_device, copied = losses, torch.cuda.Event()
            losses = torch.empty_like(on_device, device="cpu", pin_memory=True)  # other memory would be waited for
            losses.copy_(on_device, non_blocking=True)
            copied.record()
        rates = outputs["lrs"] if "lrs" in outputs else [float(trainer.optimizers[0].param_groups[0]["lr"])]
        first = trainer.global_step - batch.n_steps + 1
        self._pending = _Unchecked(losses, copied, batch, first, rates)
        if copied is None:
            self._check_pending(trainer)

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Check the last step of the epoch."""
        self._check_pending(trainer)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Check the last step of an epoch without validation."""
        self._check_pending(trainer)

    def _check_pending(self, trainer: pl.Trainer) -> None:
        steps, self._pending = self._pending, None
        if steps is None or (number := steps.first_non_finite()) is None:
            return
        batch, step = steps.batch, steps.first_number + number
        origin = batch.origin if isinstance(batch, SliceBatch) else _origin(trainer, batch, number)
        raise InputError(
            f"the loss became {float(steps.losses[number])} in step {step} "
            f"(epoch {epoch_text(trainer, ' of ')}) "
            f"on {self._slices(origin)}, so training was stopped. Try a lower lr (it was {steps.rates[number]:.3g}), "
            f"precision=32 (it was {trainer.precision}), or check these slices"
        )

    def _slices(self, origin: Int64[Tensor, "b 2"]) -> str:
        """Description of the slices of a batch, case by case."""
        indices: dict[str, list[int]] = {}
        for case, index in sorted(set(map(tuple, origin.tolist()))):
            indices.setdefault(self._case_ids[case], []).append(index)
        return " and ".join(f"case {case_id}, slices {', '.join(map(str, n))}" for case_id, n in indices.items())


def _origin(trainer: pl.Trainer, batch: StepNumbers, number: int) -> Int64[Tensor, "b 2"]:
    """Case and slice index of each slice of a step."""
    loader = trainer.train_dataloader
    assert isinstance(loader, SteppedBatches)
    return loader.table.origin(batch.steps[number])
