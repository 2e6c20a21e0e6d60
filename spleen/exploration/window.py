"""The option of the window through which slices are shown."""

from spleen.errors import InputError
from spleen.imaging.intensity import CT_PRESETS, DisplayWindow


def parse_window(text: str) -> DisplayWindow:
    """The window of "abdomen", "lung", "bone", "brain", or "LEVEL,WIDTH" in the image's own units.

    Raises InputError for anything else, and for a width that is not above 0.
    """
    if preset := CT_PRESETS.get(text.strip().lower()):
        return preset
    try:
        level, width = (float(part) for part in text.split(","))
    except ValueError:
        level, width = 0.0, 0.0
    if not (0 < width < 1e30 and abs(level) < 1e30):
        raise InputError(
            f"--window must be {', '.join(CT_PRESETS)}, or LEVEL,WIDTH with a width above 0, such as 40,400; "
            f"got {text!r}"
        )
    return DisplayWindow(level, width)
