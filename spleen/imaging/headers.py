"""Checks of a NIfTI header against its file, before nibabel allocates what the header declares."""

import gzip
import math
import struct
from pathlib import Path
from typing import NamedTuple

import nibabel as nib

from spleen.errors import InputError

# The largest factor by which deflate can shrink data: RFC 1951 codes 258 bytes in 2 bits at best.
_DEFLATE_FACTOR = 1032
_LONGEST_HEADER = 540


class _Layout(NamedTuple):
    """Where a version of NIfTI stores its offset and its magic, and how long its header is with the extension flags."""

    offset_format: str
    offset_at: int
    magic_at: int
    shortest: int


# Keyed by sizeof_hdr. https://nifti.nimh.nih.gov/pub/dist/src/niftilib/nifti1.h and nifti2.h
_LAYOUTS = {348: _Layout("f", 108, 344, 352), 540: _Layout("q", 168, 4, 544)}


def check_offset(path: Path) -> None:
    """Raise InputError unless the voxels of a single-file NIfTI start behind its header.

    nibabel would take the header for voxels, or fail in one of many ways. Anything but NIfTI passes, for its reader.
    """
    with gzip.open(path) if path.suffix.lower() == ".gz" else path.open("rb") as file:
        header = file.read(_LONGEST_HEADER)
    for order in "<>":
        layout = _LAYOUTS.get(struct.unpack_from(order + "i", header)[0]) if len(header) >= 348 else None
        if layout is None or header[layout.magic_at : layout.magic_at + 2] != b"n+":
            continue
        (offset,) = struct.unpack_from(order + layout.offset_format, header, layout.offset_at)
        if not (math.isfinite(offset) and offset == int(offset) and offset >= layout.shortest):
            raise InputError(
                f"{path}: the header says that the voxels start at byte {offset:g} (vox_offset), but they can start at "
                f"byte {layout.shortest} at the earliest; the header is damaged. Write the file again, for example "
                "with ITK-SNAP or 3D Slicer"
            )


def check_size(nifti: nib.nifti1.Nifti1Pair, path: Path) -> None:
    """Raise InputError if the file is too short for the voxels that its header declares."""
    file = nifti.file_map["image"].filename
    stored = Path(file) if file is not None else path
    suffix = stored.suffix.lower()
    factor = {".gz": _DEFLATE_FACTOR, ".nii": 1, ".img": 1}.get(suffix)
    if factor is None or not stored.is_file():
        return
    offset = int(nifti.dataobj.offset) if isinstance(nifti.dataobj, nib.arrayproxy.ArrayProxy) else 0
    needed = math.prod(map(int, nifti.shape)) * nifti.get_data_dtype().itemsize + offset
    size = stored.stat().st_size
    if needed > size * factor:
        shape = " × ".join(map(str, nifti.shape))
        raise InputError(
            f"{path} is damaged or truncated: its header declares {shape} voxels of {nifti.get_data_dtype()}, "
            f"{needed:,} bytes, which a file of {size:,} bytes cannot hold. Copy or download it again"
        )
