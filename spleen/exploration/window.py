"""The window through which slices are shown: what is black and what is white."""

from dataclasses import dataclass

from spleen.errors import InputError

PRESETS = {"abdomen": (50.0, 400.0), "lung": (-600.0, 1500.0), "bone": (400.0, 1800.0), "brain": (40.0, 80.0)}
"""Level and width in HU (https://radiopaedia.org/articles/windowing-ct)."""


@dataclass(frozen=True)
class Window:
    """Level ± half the width is shown from black to white."""

    level: float
    width: float
    preset: str | None = None
    """Name of the preset, which is in HU and is therefore used for CT alone."""


def parse_window(text: str) -> Window:
    """The window of "abdomen", "lung", "bone", "brain", or "LEVEL,WIDTH" in the image's own units.

    Raises InputError for anything else, and for a width that is not above 0.
    """
    name = text.strip().lower()
    if name in PRESETS:
        return Window(*PRESETS[name], name)
    try:
        level, width = (float(part) for part in text.split(","))
    except ValueError:
        level, width = 0.0, 0.0
    if not (0 < width < 1e30 and abs(level) < 1e30):
        raise InputError(
            f"--window must be {', '.join(PRESETS)}, or LEVEL,WIDTH with a width above 0, such as 40,400; got {text!r}"
        )
    return Window(level, width)
