"""What the commands of this folder share: reading an image, and refusing to write over files."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from spleen.errors import InputError

if TYPE_CHECKING:
    from spleen.imaging.native import NativeImage
    from spleen.imaging.nifti import Volume


def read_scan(path: Path) -> "tuple[NativeImage, Volume]":
    """An image of one channel on a regular grid; raises InputError for anything else."""
    from spleen.imaging.dicom.volume import check_even
    from spleen.imaging.native import read_native
    from spleen.imaging.nifti import Volume
    from spleen.registration.grids import check_grid

    image = read_native(path)
    if image.series is not None:
        check_even(image.series, path)
    volume = Volume(image.channels[0], image.affine, image.file_affine)
    check_grid(volume, str(path))
    return image, volume


def read_label_on(path: Path, image_path: Path, image: "Volume") -> "Volume":
    """A label map on the grid of an image; raises InputError for another grid."""
    from spleen.imaging.geometry import GRID_TOLERANCE_MM, check_same_grid
    from spleen.imaging.nifti import read_label

    label = read_label(path, image.affine)
    check_same_grid(
        (image.array.shape, label.array.shape),
        (image.affine, label.affine),
        GRID_TOLERANCE_MM,
        (str(image_path), str(path)),
    )
    return label


def check_written(inputs: Mapping[str, Path | None], outputs: Mapping[str, Path | None], overwrite: bool) -> None:
    """Raise InputError where an output would replace an input, or a file that exists, unless `overwrite`."""
    from spleen.reporting.outputs import check_outputs

    read = {path.resolve(): name for name, path in inputs.items() if path is not None}
    for option, path in outputs.items():
        if path is None:
            continue
        if path.resolve() in read:
            raise InputError(f"{option}: {path} is {read[path.resolve()]}, which is read; give another name")
        if path.exists() and not path.is_dir() and not overwrite:
            raise InputError(f"{option}: {path} exists already; add --overwrite to replace it, or give another name")
    check_outputs(outputs)


def check_nifti_name(option: str, path: Path | None) -> None:
    """Raise InputError for a name that is not that of a NIfTI file."""
    from spleen.imaging.files import SUFFIXES, is_volume_name

    if path is not None and not is_volume_name(path.name):
        raise InputError(f"{option}: {path} must end in one of {', '.join(SUFFIXES)}")
