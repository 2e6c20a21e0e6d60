"""What calibrating cases say of the next prediction: intervals of volume and Dice, and the gate.

calibration.of("spleen").volume_interval(212_000)   # (204_000.0, 221_000.0), mm³, 95 %
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from jaxtyping import Bool, Float64

from spleen.errors import InputError
from spleen.inference.calibration.conformal import (
    controlled_threshold,
    fewest_cases,
    fit_line,
    jackknife_plus,
    upper_quantile,
)

LEVEL = 0.95
"""Of the intervals that predictions report."""
MIN_DICE, ERROR_RATE = 0.8, 0.05
"""Defaults of the gate."""


@dataclass(frozen=True)
class CalibratingCase:
    """One class of one labelled case that the predicting runs were not trained on."""

    predicted_mm3: float
    """Of the whole mask."""
    reference_mm3: float | None
    """None where only part of the case is labelled, so that the volume is not known."""
    confidence_score: float
    dice: float
    """Of the labelled voxels; NaN where neither mask has one of them."""

    @property
    def is_empty(self) -> bool:
        """Neither mask has a voxel, as far as the case is labelled."""
        return math.isnan(self.dice)


@dataclass(frozen=True)
class ExpectedDice:
    """The Dice that a prediction of some confidence score is expected to have, with its interval."""

    dice: float
    low: float
    high: float


@dataclass(frozen=True)
class ClassCalibration:
    """The calibrating cases of one class, and what follows from them."""

    class_name: str
    label_values: tuple[int, ...]
    """Those of the class in the training files."""
    cases: tuple[CalibratingCase, ...]
    min_dice: float = MIN_DICE
    """A prediction with a lower Dice is bad."""
    error_rate: float = ERROR_RATE
    """The wanted probability that a prediction is bad and passes the gate."""

    @property
    def n_empty(self) -> int:
        """Cases left out, since neither mask has a voxel."""
        return len(self.cases) - len(self._counted)

    @property
    def n_partial(self) -> int:
        """Cases of which only part is labelled: they count for the Dice and the gate, not for the volume."""
        return sum(case.reference_mm3 is None for case in self.cases)

    @cached_property
    def log_errors(self) -> Float64[np.ndarray, " n"]:
        """log(reference volume / predicted volume) of each case that is not empty; ±inf where one mask is.

        Without cases that are labelled in part: what is labelled is not the volume of the organ.
        """
        errors: Float64[np.ndarray, " n"] = self._log_errors[self._is_whole]
        return errors

    def volume_factor(self, level: float = LEVEL) -> float:
        """The true volume is from 1/factor to factor times the predicted one; inf for too few cases.

        Conformal on |log(reference / predicted)|, so that the interval is as wide in per cent for every volume.
        """
        bound = upper_quantile(np.abs(self.log_errors), level)
        return math.exp(bound) if bound < math.log(_MOST_FACTOR) else math.inf

    def volume_interval(self, volume_mm3: float, level: float = LEVEL) -> tuple[float, float] | None:
        """Where the true volume lies with this probability, mm³.

        None where nothing can be said: an empty prediction, fewer cases than `fewest_cases`, or too many with one
        empty mask.
        """
        factor = self.volume_factor(level)
        return (volume_mm3 / factor, volume_mm3 * factor) if volume_mm3 > 0 and math.isfinite(factor) else None

    def expected_dice(self, score: float, level: float = LEVEL) -> ExpectedDice | None:
        """The Dice to expect at a confidence score: least squares, with the jackknife+ interval, both from 0 to 1.

        The interval covers the Dice of a new case with this probability. None for fewer cases than `fewest_cases`.
        Cases whose predicted mask is empty, which certainly have no Dice, are left out.
        """
        found = self._values("predicted_mm3") > 0
        x, y = self._values("confidence_score")[found], self._values("dice")[found]
        interval = jackknife_plus(x, y, score, level)
        if interval is None or math.isnan(score):
            return None
        intercept, slope = fit_line(x, y)
        dice, low, high = (min(max(value, 0.0), 1.0) for value in (intercept + slope * score, *interval))
        return ExpectedDice(min(max(dice, low), high), low, high)

    @cached_property
    def gate(self) -> float | None:
        """A mask passes without review if its confidence score is above this.

        The lowest threshold at which P(passes, and Dice < min_dice) ≤ error_rate; None where no mask may pass, since
        there are too few cases.
        """
        return controlled_threshold(self._values("confidence_score"), self._is_bad, self.error_rate)

    @property
    def passing_fraction(self) -> float:
        """Fraction of the calibrating cases that pass the gate; NaN without any."""
        scores = self._values("confidence_score")
        if not len(scores):
            return math.nan
        return 0.0 if self.gate is None else float(np.mean(scores > self.gate))

    @property
    def passing_log_errors(self) -> Float64[np.ndarray, " n"]:
        """`log_errors` of the cases that pass the gate; of all without a gate."""
        if self.gate is None:
            return self.log_errors
        passes = self._values("confidence_score") > self.gate
        passing: Float64[np.ndarray, " n"] = self._log_errors[self._is_whole & passes]
        return passing

    def shortage(self, level: float = LEVEL) -> str | None:
        """What cannot be said with so few cases, in words; None if everything can."""
        n = len(self._counted)
        missing = []
        if n < (needed := fewest_cases(level)):
            missing.append(f"no {level:.0%} interval ({needed} cases needed)")
        elif (n_whole := len(self.log_errors)) < needed:
            missing.append(
                f"no {level:.0%} interval of the volume ({needed} fully labelled cases needed, and {n_whole} are)"
            )
        elif math.isinf(self.volume_factor(level)):
            missing.append(f"no {level:.0%} interval of the volume (too many masks are empty, or their references)")
        if self.gate is None:
            needed = fewest_cases(1 - self.error_rate)
            missing.append(f"no gate, so that every mask needs a review ({needed} cases needed)")
        return f"{self.class_name}: {n} cases: {', and '.join(missing)}" if missing else None

    @cached_property
    def _counted(self) -> tuple[CalibratingCase, ...]:
        return tuple(case for case in self.cases if not case.is_empty)

    @cached_property
    def _log_errors(self) -> Float64[np.ndarray, " n"]:
        """Of each counted case; NaN where the volume is not known."""
        with np.errstate(divide="ignore"):
            reference, predicted = (np.log(self._values(name)) for name in ("reference_mm3", "predicted_mm3"))
        errors: Float64[np.ndarray, " n"] = reference - predicted
        return errors

    @cached_property
    def _is_whole(self) -> Bool[np.ndarray, " n"]:
        return np.array([case.reference_mm3 is not None for case in self._counted], dtype=bool)

    @property
    def _is_bad(self) -> Bool[np.ndarray, " n"]:
        bad: Bool[np.ndarray, " n"] = self._values("dice") < self.min_dice
        return bad

    def _values(self, name: str) -> Float64[np.ndarray, " n"]:
        return np.array([getattr(case, name) for case in self._counted], dtype=np.float64)  # None becomes NaN


# A wider interval says nothing: some masks, or their references, are empty.
_MOST_FACTOR = 1e6


@dataclass(frozen=True)
class Conditions:
    """How the calibrating cases were predicted; a calibration says nothing of other predictions."""

    checkpoints: tuple[str, ...]
    """SHA-256 of each. Not held out: in the order of `axes`, and all were averaged for every case."""
    axes: tuple[str, ...]
    """Slice axis of each run averaged in one prediction, sorted."""
    weights: tuple[float, ...]
    """Weight of each of these runs; they add up to 1."""
    tta: bool
    flips: tuple[str, ...]
    """Directions mirrored beyond those of the training, sorted."""
    held_out: bool
    """Each case was predicted only by the runs of a cross-validation that held it out."""


@dataclass(frozen=True)
class Calibration:
    """The calibration of one or several runs that predict together."""

    conditions: Conditions
    classes: tuple[ClassCalibration, ...]
    has_scores: bool = True
    """False where it holds for the volumes of a prediction, but not for its confidence scores: no Dice, no gate."""

    def of(self, class_name: str) -> ClassCalibration:
        """The calibration of one class. Raises InputError for a class that it does not have."""
        found = {each.class_name: each for each in self.classes}
        if class_name not in found:
            raise InputError(f"no class '{class_name}' is calibrated; there are {', '.join(found)}")
        return found[class_name]

    def renamed(self, names: Sequence[str]) -> "Calibration":
        """The same with other names of its classes, in their order."""
        pairs = zip(self.classes, names, strict=True)
        return replace(self, classes=tuple(replace(each, class_name=name) for each, name in pairs))
