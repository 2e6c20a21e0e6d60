"""Training that ends by the clock, so that the whole run with its scoring and report takes a given time."""
# ruff: noqa: ARG002  (Lightning gives the hooks their arguments)

import logging
import math
from collections.abc import Callable
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback
from pytorch_lightning.utilities.types import STEP_OUTPUT

from spleen.data.loading.batches import SliceBatch
from spleen.data.loading.on_device import StepNumbers
from spleen.errors import InputError

log = logging.getLogger(__name__)

_WARM_UP_BATCHES = 8
REPORT_SECONDS = 6.0
"""For figures, tables and the page of a run: two to three times what they take on a current processor."""
_SCORING_MARGIN = 1.1
"""Times the fastest validation, for the scoring of the best checkpoint; others wait now and then."""
_FORWARD_SHARE = 1 / 3
"""Of a training step; the backward pass computes two products for each one of the forward pass."""


def reserved_seconds(per_pass: float, val_passes: int, test_passes: int) -> float:
    """Seconds between the last training step and the end of the run, of `per_pass` seconds for each pass.

    There is one more validation after the last step; then the best checkpoint is scored on the validation and the test
    split, and the report is written. The passes are those of `scored_passes`.
    """
    return per_pass * (val_passes + _SCORING_MARGIN * (val_passes + test_passes)) + REPORT_SECONDS


def training_progress(elapsed: float, start: float, end: float) -> float:
    """How much of the time for training is over, 0 to 1, `elapsed` seconds after the start of the run.

    Training lasts from second `start` to second `end`; where none is left between them, it is over.
    """
    return 1.0 if end <= start else min(1.0, max(0.0, (elapsed - start) / (end - start)))


class Deadline(Callback):
    """Ends the training in time for the run to take `seconds`, and says how much of it is over.

    `elapsed` gives the seconds of the run so far, including those of earlier processes. What follows the last step is
    estimated from the fastest validation, as others may have waited for other programs or for compilation, and before
    the first one, or without any, from the fastest training step: this estimate may end the epoch, but if the
    validation that follows turns out faster, training goes on. With several processes, the clock of rank 0 decides.
    Training makes at least one step; where no time is left for it, raises InputError.

    `val_passes` and `test_passes` tell how much work the scoring of the two splits is: see `scored_passes`.
    """

    def __init__(self, seconds: float, elapsed: Callable[[], float], val_passes: int, test_passes: int) -> None:
        self._seconds, self._elapsed = seconds, elapsed
        self._val_passes, self._test_passes = val_passes, test_passes
        self._start: float | None = None
        self._progress = 0.0
        self._is_over = False
        self._val_every_epochs: int | None = None
        """Set while a stop on the first estimate may still be taken back."""
        self._measured_at_step = -1
        self._validation: float | None = None
        """Seconds of the fastest validation."""
        self._since = 0.0
        """Start of the present validation, or end of the last step."""
        self._steps_timed = 0
        self._seconds_per_slice = math.inf
        """Of the fastest training step."""

    @property
    def state_key(self) -> str:
        """The name of its state in checkpoints, whatever the class is called."""
        return "Deadline"

    def state_dict(self) -> dict[str, Any]:
        """Start and progress of the training, and the fastest validation."""
        return {
            "start": self._start,
            "progress": self._progress,
            "is_over": self._is_over,
            "validation": self._validation,
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue with what remains."""
        self._start, self._progress = state_dict["start"], state_dict["progress"]
        self._is_over, self._validation = state_dict["is_over"], state_dict["validation"]

    def progress_at(self, step: int, trainer: pl.Trainer) -> float:
        """The progress at an optimiser step, 0 to 1.

        It never falls where the time reserved grows, only after the first validation if that took less than estimated.
        """
        if step != self._measured_at_step and self._start is not None:
            self._measured_at_step = step
            self._measure(trainer)
        return self._progress

    def seconds_left(self) -> float:
        """Seconds until training ends, as far as it is known."""
        return max(0.0, self._end() - self._elapsed())

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Start the schedule; go straight to the scoring if a resumed run has no time left."""
        now = _of_rank_0(self._elapsed(), trainer)
        if self._start is None:
            self._start = now
            if now >= self._end():
                raise InputError(
                    f"max_minutes={self._seconds / 60:g} leaves no time for training: it took {now:.0f} s to get the "
                    f"data ready, and {self._reserved():.0f} s are needed at the end. "
                    f"Use at least {_least_minutes(now + self._reserved()):g}"
                )
        self._since = self._elapsed()
        self._stop_if_over(trainer)

    def on_train_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: STEP_OUTPUT,
        batch: SliceBatch | StepNumbers,
        batch_idx: int,
    ) -> None:
        """Stop after this step if the time for training is over."""
        now = self._elapsed()
        self._steps_timed += 1
        self._seconds_per_slice = min(self._seconds_per_slice, (now - self._since) / batch.n_slices)
        self._since = now
        if not self._val_passes and self._steps_timed == _WARM_UP_BATCHES and trainer.is_global_zero:
            self._tell()
        self._stop_if_over(trainer)

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Start timing the validation."""
        self._since = self._elapsed()

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Reserve as much as the fastest validation suggests; say so after the first."""
        first, now = self._validation is None, self._elapsed()
        self._validation = now - self._since if self._validation is None else min(self._validation, now - self._since)
        self._since = now
        if first:
            self._progress = 0.0  # what it was by the estimate counts no longer
            self._measure(trainer)
            if trainer.is_global_zero:
                self._tell()

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Begin no further epoch if the validation has taken the rest of the time, and one if it left some."""
        self._measure(trainer)
        if self._val_every_epochs is not None and not self._is_over:
            trainer.should_stop, trainer.check_val_every_n_epoch = False, self._val_every_epochs
        self._val_every_epochs = None
        self._stop_if_over(trainer)

    def _measure(self, trainer: pl.Trainer) -> None:
        assert self._start is not None
        now = training_progress(self._elapsed(), self._start, self._end())
        now = _of_rank_0(now, trainer)
        self._is_over = now >= 1
        self._progress = max(self._progress, now)

    def _stop_if_over(self, trainer: pl.Trainer) -> None:
        if self._is_over:
            if self._validation is None:
                self._val_every_epochs = self._val_every_epochs or trainer.check_val_every_n_epoch
            trainer.should_stop = True
            trainer.check_val_every_n_epoch = 1  # the last epoch is validated, whichever it is

    def _end(self) -> float:
        return self._seconds - self._reserved()

    def _reserved(self) -> float:
        if self._validation is not None:
            per_pass = self._validation / self._val_passes
        else:
            known = self._steps_timed >= _WARM_UP_BATCHES
            per_pass = _FORWARD_SHARE * self._seconds_per_slice if known else 0.0
        return reserved_seconds(per_pass, self._val_passes, self._test_passes)

    def _tell(self) -> None:
        log.info(
            "max_minutes=%g: training ends by the clock, not by epochs; %.0f s at the end are reserved for %sscoring "
            "and the report",
            self._seconds / 60,
            self._reserved(),
            "the last validation, " if self._val_passes else "",
        )


def deadline_of(trainer: pl.Trainer) -> Deadline | None:
    """The deadline of a trainer, if it has one."""
    callbacks: list[pl.Callback] = trainer.callbacks  # type: ignore[attr-defined]
    return next((each for each in callbacks if isinstance(each, Deadline)), None)


def _least_minutes(seconds: float) -> float:
    """Minutes, in tenths, with half as much again for the training."""
    return max(1, -(-seconds * 1.5 // 6)) / 10


def _of_rank_0(value: float, trainer: pl.Trainer) -> float:
    """The value that rank 0 has, in every process."""
    if trainer.world_size == 1:
        return value
    shared = torch.tensor([value], dtype=torch.float32, device=trainer.strategy.root_device)
    torch.distributed.broadcast(shared, src=0)
    return float(shared)
