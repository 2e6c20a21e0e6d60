"""A case: an image, of one or several channels, with its label."""

from dataclasses import dataclass
from pathlib import Path

_NAMELESS = {"image", "img", "ct", "mr", "mri", "scan", "volume", "imaging"}


@dataclass(frozen=True)
class Case:
    """One labelled volume: the paths of its files."""

    case_id: str
    images: tuple[Path, ...]
    """One file for each channel, or one whose fourth dimension holds them."""
    label: Path
    group: str | None = None
    """What must not be torn apart by a split, such as the patient; None is the case alone."""


def case_from_files(image: Path, label: Path) -> Case:
    """Make a case of one image and one label file.

    Its case_id is the image's name without .nii.gz, or the folder's name where the file is only called "image".
    """
    name = image.name.removesuffix(".gz").removesuffix(".nii")
    if name.lower() in _NAMELESS and image.absolute().parent.name:
        name = image.absolute().parent.name
    return Case(name, (image.absolute(),), label.absolute())
