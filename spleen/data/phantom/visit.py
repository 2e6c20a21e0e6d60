"""What differs between two scans of one patient: size of the spleen, breath, position, noise."""

from dataclasses import dataclass

import numpy as np

from spleen.data.phantom.shapes import Vector
from spleen.errors import InputError

# How much two visits of one patient differ, at most.
_BREATH_MM = 10.0
_SHIFT_MM = 12.0
_NOISE_FACTORS = (0.8, 1.4)


@dataclass(frozen=True)
class Visit:
    """One scan of a patient; the default is the first one."""

    number: int = 0
    """Each has its own noise."""
    spleen_factor: float = 1.0
    """Volume of the spleen in multiples of that at the first visit."""
    breath_mm: float = 0.0
    """How much lower the diaphragm and all organs below it lie; spine, ribs and walls stay."""
    shift_mm: Vector = (0.0, 0.0, 0.0)
    """Position on the table relative to the first visit, RAS+."""
    noise_factor: float = 1.0


def later_visit(seed: int, number: int, change: float) -> Visit:
    """Visit `number` of patient `seed`, from 1: another breath, position and noise, and a spleen larger by `change`.

    Raises InputError for a negative seed, and for a change outside −0.5 to 1.
    """
    check_seed(seed)
    if not -0.5 <= change <= 1:
        raise InputError(f"the spleen of a phantom can change by −50 % to +100 %; got {100 * change:+g} %")
    rng = np.random.default_rng([seed, 4, number])
    breath_mm = float(rng.uniform(-_BREATH_MM, _BREATH_MM))
    dx, dy, dz = (float(each) for each in rng.uniform(-_SHIFT_MM, _SHIFT_MM, 3))
    return Visit(number, 1 + change, breath_mm, (dx, dy, dz), float(rng.uniform(*_NOISE_FACTORS)))


def check_seed(seed: int) -> None:
    """Raise InputError for a negative seed."""
    if seed < 0:
        raise InputError(f"phantom seed must be zero or a positive integer; got {seed}.")
