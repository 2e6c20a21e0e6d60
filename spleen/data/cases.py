"""A case: an image with one or more channels, and its label."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from spleen.imaging.files import case_name

if TYPE_CHECKING:  # it imports PyTorch, and the plan of a sweep must be instant
    from spleen.imaging.geometry import Box

_NAMELESS = {"image", "img", "ct", "mr", "mri", "scan", "volume", "imaging"}


@dataclass(frozen=True)
class Case:
    """One labelled volume, as file paths."""

    case_id: str
    images: tuple[Path, ...]
    """One file or DICOM series per channel, or a single file with the channels in its fourth dimension."""
    label: Path
    group: str | None = None
    """The unit that must stay in one split, such as the patient; None: the case is its own group."""
    labelled: tuple[str, ...] | None = None
    """The classes that are labelled in this case; None: all of them."""
    box: "Box | None" = None
    """The part of its RAS grid that is trained on and predicted; None: all of it."""


def case_from_files(image: Path, label: Path) -> Case:
    """Make a case of one image and one label file.

    Its case_id is the image's name without .nii.gz, or the folder's name if the file is just called "image".
    """
    name = re.sub(r"\.gz$", "", case_name(image), flags=re.IGNORECASE)
    if name.lower() in _NAMELESS and image.absolute().parent.name:
        name = image.absolute().parent.name
    return Case(name, (image.absolute(),), label.absolute())
