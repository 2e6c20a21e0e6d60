"""What a file is that is not the NIfTI volume it was given as, and how to make one of it."""

import gzip
import zlib
from pathlib import Path

import numpy as np
from jaxtyping import Num

from spleen.imaging.dicom.location import holds_dicom

# Begin of the file → what it is and what to do.
_BEGINNINGS = {
    b"version https://git-lfs": "it is a Git LFS pointer, not the file itself; fetch it with: git lfs pull",
    b"<!doctype html": "it is a web page, so the download went wrong; log in or take the direct link",
    b"<html": "it is a web page, so the download went wrong; log in or take the direct link",
    b"<?xml": "it is an XML document, perhaps the error message of a download; download it again",
    b"nrrd": "it is an NRRD file; convert it to .nii.gz, for example with 3D Slicer or SimpleITK",
    b"objecttype": "it is a MetaImage; convert it to .nii.gz, for example with 3D Slicer or SimpleITK",
    b"pk\x03\x04": "it is a ZIP archive; extract it first",
    b"\x89png": "it is a PNG picture; volumes must be NIfTI",
    b"\xff\xd8\xff": "it is a JPEG picture; volumes must be NIfTI",
    b"\x93numpy": "it is a NumPy array without spacing and orientation; write it as NIfTI with its affine",
}
_BYTES = 512
# An image of 8 bits has more values, and a label of a whole body not many more.
_MOST_LABEL_VALUES, _VOXELS_LOOKED_AT = 150, 1_000_000


def describe_file(path: Path) -> str | None:
    """What the file is instead of NIfTI, and what to do; None if it is not recognised."""
    try:
        with path.open("rb") as file:
            start = file.read(_BYTES)
    except OSError:
        return None
    if not start:
        return "it is empty; copy or download it again"
    gzipped, named_gz = start.startswith(b"\x1f\x8b"), path.suffix.lower() == ".gz"
    if gzipped and not named_gz:
        return f"it is compressed with gzip; rename it to {path.name}.gz"
    if _is_nifti(start) and named_gz:
        return f"it is not compressed, whatever its name says; rename it to {path.with_suffix('').name}"
    if gzipped:
        try:
            with gzip.open(path) as stream:
                start = stream.read(_BYTES)
        except (OSError, EOFError, zlib.error):
            return None
    if start[128:132] == b"DICM" or path.suffix.lower() == ".dcm":
        return f"it is a DICOM file, one slice of a series; give the folder of the series, {path.parent}"
    text = start.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if b"/annex/objects/" in text:
        return "it is a git-annex pointer, not the file itself; fetch it with: git annex get"
    return next((what for beginning, what in _BEGINNINGS.items() if text.startswith(beginning)), None)


def _is_nifti(start: bytes) -> bool:
    return start[344:347] in (b"n+1", b"ni1") or start[4:7] in (b"n+2", b"ni2")


def describe_folder(folder: Path) -> str:
    """What to do about a folder that was given in place of a volume."""
    entries = sorted(path for path in folder.iterdir() if not path.name.startswith("."))
    if volumes := [path.name for path in entries if path.name.lower().endswith((".nii", ".nii.gz"))]:
        return f"give one of its {len(volumes)} files, such as {folder / volumes[0]}"
    if holds_dicom(folder):
        return "it is a DICOM series, which does not fit here"
    return "it contains no .nii or .nii.gz file"


def looks_like_label(array: Num[np.ndarray, "..."]) -> bool:
    """Whether the voxels are few different whole numbers from 0, as a label's are."""
    sample = array.ravel()[:: max(1, array.size // _VOXELS_LOOKED_AT)]
    values = np.unique(sample)
    return len(values) <= _MOST_LABEL_VALUES and bool(values[0] >= 0) and bool((values == np.rint(values)).all())


def swapped(image: Path, label: Path) -> str:
    """The message for an image and a label that have changed places."""
    return (
        f"image and label seem to be swapped: {image} holds a few whole numbers, as a label does, and {label} "
        "intensities; exchange the two"
    )
