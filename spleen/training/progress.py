"""What a training shows of itself while it runs, on the terminal, in the log and in progress.json."""
# ruff: noqa: ARG002  (Lightning gives the hooks their arguments)

import math
import time
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytorch_lightning as pl
from pytorch_lightning.callbacks import Callback
from pytorch_lightning.utilities.types import STEP_OUTPUT

from spleen.data.loading.batches import SliceBatch
from spleen.data.loading.on_device import StepNumbers
from spleen.records.progress import ProgressFile
from spleen.reporting.sparkline import sparkline
from spleen.system.progress import StatusLine
from spleen.system.text import duration_text
from spleen.training.callbacks import Clock, EpochRecord, EpochRow
from spleen.training.on_device.counts import total_steps
from spleen.training.timing.deadline import Deadline, deadline_of
from spleen.training.timing.pace import EpochTime, epoch_text, seconds_left, without_warm_up

_SECONDS_BETWEEN_LOSSES = 0.3
_CURVE_WIDTH = 20
_SHORT_CURVE_WIDTH = 8


class Progress(Callback):
    """A status line with epoch, step, rate, time left, loss and scores; without a terminal, one line per epoch.

    `shown` switches both off; progress.json is kept up to date in any case.
    """

    def __init__(
        self, epochs: EpochRecord, clock: Clock, file: ProgressFile | None, shown: bool, compiles: bool
    ) -> None:
        self._epochs, self._clock, self._file = epochs, clock, file
        self._shown, self._compiles = shown, compiles
        self._line: StatusLine | None = None
        self._shown_at = 0.0
        self._loss = math.nan
        self._steps: int | None = 0
        self._pace = _Pace()
        self._deadline: Deadline | None = None

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Start the clock, and say what the first step may take long for."""
        self._line = StatusLine() if self._shown else None
        self._pace, self._steps, self._deadline = _Pace(), total_steps(trainer), deadline_of(trainer)
        if self._compiles and self._shown:
            print("compiling the network: the first steps take longer …", flush=True)
        self._update(trainer, "compiling" if self._compiles else "training")
        if self._line is not None:
            self._show(trainer)

    def on_train_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: STEP_OUTPUT,
        batch: SliceBatch | StepNumbers,
        batch_idx: int,
    ) -> None:
        """Advance; the loss is read only a few times per second, because that waits for a GPU."""
        self._pace.step(batch.n_steps)
        self._update(trainer, "training")
        is_visible = self._line is not None and self._line.is_visible
        if is_visible and isinstance(outputs, Mapping) and self._is_time():
            self._loss = float(outputs["loss"])
            self._show(trainer)

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Start the clock of the validation."""
        self._pace.begin_validation()

    def on_validation_batch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule, *_: Any) -> None:
        """Keep the time left up to date."""
        self._update(trainer, "validating")
        if self._line is not None and self._is_time():
            self._show(trainer, "validating")

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Stop the clock of the validation."""
        self._pace.end_validation()

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Add the epoch to the measured ones, and print it if there is no terminal."""
        seconds = self._pace.end_epoch(*_to_do(trainer, trainer.current_epoch + 1))
        row = self._epochs.rows[-1]
        self._update(trainer, "training")
        self._loss = row["train/loss"]
        if self._line is not None and self._line.is_visible:
            self._show(trainer)
        elif self._line is not None:
            print(_epoch_text(trainer, row, self._best(), seconds, self._seconds_left()), flush=True)

    def teardown(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Leave the status line, also after an error."""
        if self._line is not None:
            self._line.close()
            self._line = None

    def _is_time(self) -> bool:
        now = time.perf_counter()
        if now - self._shown_at < _SECONDS_BETWEEN_LOSSES:
            return False
        self._shown_at = now
        return True

    def _update(self, trainer: pl.Trainer, doing: str) -> None:
        if self._file is not None:
            rate = self._clock.slices_per_second or None
            self._file.update(doing, trainer.global_step, self._steps, rate, self._seconds_left())

    def _seconds_left(self) -> float | None:
        return self._pace.seconds_left() if self._deadline is None else self._deadline.seconds_left()

    def _scores(self) -> list[float]:
        return [row.get("val/dice", math.nan) for row in self._epochs.rows]

    def _best(self) -> float:
        return float(np.fmax.reduce(self._scores(), initial=np.nan))  # skips NaN: an epoch without validation

    def _show(self, trainer: pl.Trainer, doing: str = "") -> None:
        assert self._line is not None
        known = [score for score in self._scores() if not math.isnan(score)]
        self._line.show(
            status_texts(
                epoch=epoch_text(trainer, "/"),
                step=f"{trainer.global_step}" if self._steps is None else f"{trainer.global_step}/{self._steps}",
                doing=doing,
                slices_per_second=self._clock.slices_per_second,
                left=_left_text(trainer, self._seconds_left()),
                loss=self._loss,
                scores=known,
            )
        )


def status_texts(
    epoch: str, step: str, doing: str, slices_per_second: float, left: str, loss: float, scores: list[float]
) -> list[str]:
    """The status line in several lengths, longest first; `scores` are the validation Dice of the epochs so far."""
    step = f"step {step}" if not doing else f"step {step}, {doing}"
    rate = f"{slices_per_second:.3g}" if slices_per_second else ""
    curve, short_curve = sparkline(scores, _CURVE_WIDTH), sparkline(scores, _SHORT_CURVE_WIDTH)
    long_loss, short_loss = (f"loss {loss:.4f}", f"loss {loss:.3f}") if not math.isnan(loss) else ("", "")
    score = f"val dice {scores[-1]:.4f}, best val dice {max(scores):.4f}" if scores else "best val dice -"
    short_score = f"val {scores[-1]:.3f} best {max(scores):.3f}" if scores else ""
    start, bare_step = f"epoch {epoch}", doing or step.removeprefix("step ")
    parts = (
        (start, step, rate and f"{rate} slices/s", left, long_loss, score, curve),
        (start, bare_step, rate and f"{rate}/s", left, short_loss, short_score, short_curve),
        (start, bare_step, left, short_loss, short_score),
        (start, left, short_loss, short_score),
        (start, left, short_loss),
        (start, left),
        (start,),
    )
    return ["  ".join(part for part in version if part) for version in parts]


def _epoch_text(trainer: pl.Trainer, row: EpochRow, best: float, seconds: float, left: float | None) -> str:
    parts = [f"epoch {epoch_text(trainer, '/')}", f"loss {row['train/loss']:.4f}"]
    if "val/dice" in row:
        parts.append(f"val dice {row['val/dice']:.4f}")
    if not math.isnan(best):
        parts.append(f"best {best:.4f}")
    took = f"{seconds:.1f} s" if seconds < 100 else duration_text(seconds)
    parts.append(", ".join(part for part in (took, _left_text(trainer, left)) if part))
    return "  ".join(parts)


def _left_text(trainer: pl.Trainer, left: float | None) -> str:
    """The time left; with early stopping it is a limit. Empty at the end, and before it can be estimated."""
    if left is None or left < 0.5:
        return ""
    return f"{'at most ' if trainer.early_stopping_callbacks else ''}{duration_text(left)} left"


def _to_do(trainer: pl.Trainer, epochs_done: int) -> tuple[int, int]:
    """The epochs and the validations that are still to come; none where their number is not known."""
    assert trainer.max_epochs is not None
    if trainer.max_epochs == -1:
        return 0, 0
    every = trainer.check_val_every_n_epoch or 1
    validations = trainer.max_epochs // every - epochs_done // every if trainer.limit_val_batches else 0
    return trainer.max_epochs - epochs_done, validations


class _Pace:
    """Takes the time of the epochs of this process. An epoch lasts from the end of the one before it to its own end."""

    def __init__(self) -> None:
        self._times: list[EpochTime] = []
        self._epoch_since = self._step_since = self._validation_since = time.perf_counter()
        self._validation: float | None = None
        self._steps: list[float] = []
        self._left_then: float | None = None

    def step(self, count: int) -> None:
        now = time.perf_counter()
        if not self._times:
            self._steps += [(now - self._step_since) / count] * count
        self._step_since = now

    def begin_validation(self) -> None:
        self._validation_since = time.perf_counter()

    def end_validation(self) -> None:
        self._validation = time.perf_counter() - self._validation_since

    def end_epoch(self, epochs_to_do: int, validations_to_do: int) -> float:
        """Count an epoch that has just ended; returns its seconds."""
        now = time.perf_counter()
        seconds = now - self._epoch_since
        training = seconds - (self._validation or 0.0)
        if not self._times and self._steps:
            training = without_warm_up(training, self._steps[0], self._steps[1:])
        self._times.append(EpochTime(training, self._validation))
        self._left_then = seconds_left(self._times, epochs_to_do, validations_to_do)
        self._epoch_since, self._validation = now, None
        return seconds

    def seconds_left(self) -> float | None:
        """Seconds to the end of the training; None before they can be estimated."""
        if self._left_then is None:
            return None
        usual = sum(each.training + (each.validation or 0.0) for each in self._times) / len(self._times)
        return max(0.0, self._left_then - min(time.perf_counter() - self._epoch_since, usual))
