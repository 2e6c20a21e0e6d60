"""The look of all figures: palette, resolution, scale bar, saving."""

import math
import os
from pathlib import Path

from matplotlib.figure import Figure
from matplotlib.typing import LineStyleType

from spleen.types import AxisName

DPI = 150


# Okabe and Ito's palette, distinct for every common form of colour blindness (https://jfly.uni-koeln.de/color/).
OKABE_ITO = {
    "orange": "#E69F00",
    "sky blue": "#56B4E9",
    "bluish green": "#009E73",
    "yellow": "#F0E442",
    "blue": "#0072B2",
    "vermillion": "#D55E00",
    "reddish purple": "#CC79A7",
}


DASHES: LineStyleType = (0.0, (2.6, 1.6))


def save_figure(figure: Figure, path: Path) -> None:
    """Write beside the final name, then rename, so that nobody ever reads half a picture."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.stem}.{os.getpid()}{path.suffix}")
    try:
        figure.savefig(temporary, dpi=DPI)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


COLOURS = tuple(
    OKABE_ITO[name] for name in ("orange", "sky blue", "bluish green", "yellow", "reddish purple", "vermillion")
)


# What lies at the left, right, top and bottom edge of a picture.
EDGES: dict[AxisName, str] = {"axial": "RLAP", "coronal": "RLSI", "sagittal": "APSI"}


def scale_bar_mm(width_mm: float) -> float:
    """A length of 1, 2 or 5 times a power of ten, at most a quarter of the width."""
    power: float = 10.0 ** math.floor(math.log10(width_mm / 4))
    return next(step * power for step in (5, 2, 1) if step * power <= width_mm / 4)
