"""How long epochs take, and from that how long the rest of a training will take."""

from collections.abc import Sequence
from dataclasses import dataclass

import pytorch_lightning as pl


@dataclass(frozen=True)
class EpochTime:
    """Seconds of one epoch: all but its validation, and its validation if it had one."""

    training: float
    validation: float | None


def seconds_left(times: Sequence[EpochTime], epochs: int, validations: int) -> float | None:
    """Seconds that further `epochs`, of which so many have a validation, take at the mean pace of those measured.

    None where nothing is measured: before the first epoch, and before the first validation if there will be any.
    """
    validated = [time.validation for time in times if time.validation is not None]
    if not epochs:
        return 0.0
    if not times or (validations and not validated):
        return None
    per_validation = sum(validated) / len(validated) if validations else 0.0
    return epochs * sum(time.training for time in times) / len(times) + validations * per_validation


def epoch_text(trainer: pl.Trainer, of: str) -> str:
    """The number of the current epoch from 1, and behind `of` how many there will be, where that is known."""
    return f"{trainer.current_epoch + 1}{'' if trainer.max_epochs == -1 else f'{of}{trainer.max_epochs}'}"


def without_warm_up(seconds: float, first_step: float, other_steps: Sequence[float]) -> float:
    """The seconds of a first epoch as if its first step, which may compile, had taken as long as the others."""
    if not other_steps:
        return seconds
    return seconds - max(0.0, first_step - sum(other_steps) / len(other_steps))
