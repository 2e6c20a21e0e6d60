"""What differs between the scans of a subject and may pass for a change: spacing, field of view, acquisition."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from spleen.errors import InputError
from spleen.followup.scans import PROTOCOL, Scan
from spleen.imaging.geometry import spacing_mm
from spleen.imaging.nifti import read_shape
from spleen.imaging.slicing import AXES

_SPACING_FACTOR = 1.1
"""Spacings that differ by more are told."""
# Their small differences mean nothing.
_NUMERIC = {"tube voltage (kV)", "slice thickness (mm)", "field strength (T)", "echo time (ms)", "repetition time (ms)"}
_NUMERIC_FACTOR = 1.05


def protocol_warnings(scans: Sequence[Scan]) -> dict[Scan, list[str]]:
    """In words, what of each scan differs from the first one of its subject; scans that cannot be read are left out."""
    spacings = {scan: _ras_spacing(scan.images[0]) for scan in scans}
    found = {}
    for scan in scans[1:]:
        told = [*_spacing(spacings[scans[0]], spacings[scan]), *_acquisition(scans[0].protocol, scan.protocol)]
        if told:
            found[scan] = told
    return found


def _ras_spacing(image: Path) -> tuple[float, float, float] | None:
    try:
        return spacing_mm(read_shape(image)[1])
    except (InputError, OSError):
        return None


def _spacing(first: Sequence[float] | None, other: Sequence[float] | None) -> list[str]:
    if first is None or other is None:
        return []
    told = []
    for axis, before, after in zip(AXES, first, other, strict=True):
        if abs(np.log(after / before)) > np.log(_SPACING_FACTOR):
            told.append(f"{axis} spacing {after:.4g} mm instead of {before:.4g} mm")
    return told


def _acquisition(first: Mapping[str, str], other: Mapping[str, str]) -> list[str]:
    told = []
    for name in PROTOCOL.values():
        before, after = first.get(name, ""), other.get(name, "")
        if not _alike(name, before, after):
            told.append(f"{name} {after or 'not told'} instead of {before or 'not told'}")
    return told


def _alike(name: str, before: str, after: str) -> bool:
    if before.casefold() == after.casefold():
        return True
    try:
        ratio = float(after) / float(before)
    except (ValueError, ZeroDivisionError):
        return False
    return name in _NUMERIC and 1 / _NUMERIC_FACTOR <= ratio <= _NUMERIC_FACTOR
