"""Slices of a subject's scans in the same place, with what is unchanged, gained and lost in colour."""

from collections.abc import Mapping

import numpy as np
from jaxtyping import UInt8

from spleen.evaluation.scan.colours import ClassColours
from spleen.evaluation.scan.pictures import Picture, fullest_slice, slice_picture
from spleen.followup.alignment import LOSS, UNCHANGED, AlignedScan, box_around
from spleen.imaging.geometry import spacing_mm
from spleen.registration.pictures import default_window
from spleen.reporting.figures import OKABE_ITO
from spleen.types import Affine, AxisName, MaskVolume

PLANES: tuple[AxisName, ...] = ("axial", "coronal")
COLOURS = {"unchanged": OKABE_ITO["sky blue"], "gain": OKABE_ITO["bluish green"], "loss": OKABE_ITO["vermillion"]}
_MARGIN_MM = 30.0
_PIXELS = 280


def draw_scan(first: AlignedScan, scan: AlignedScan) -> Mapping[str, tuple[Picture, ...]]:
    """By class, the slices in which the scan that stays, `first`, has most of it; both scans lie on one grid."""
    return {name: _draw(first.changes[name], scan, name) for name in scan.changes}


def _draw(before: UInt8[np.ndarray, "i j k"], scan: AlignedScan, name: str) -> tuple[Picture, ...]:
    organ = np.isin(before, (LOSS, UNCHANGED)) if before.any() else scan.changes[name] > 0
    box = _box(organ, scan.affine)
    image, changes, organ = scan.image[box], scan.changes[name][box], organ[box]
    colours = [ClassColours(colour, colour) for colour in COLOURS.values()]
    window = default_window(scan.image)
    return tuple(
        slice_picture(
            image,
            {name: changes},
            scan.affine,
            (plane, fullest_slice(organ.astype(np.uint8), organ.shape, plane)),
            window.ends,
            colours,
            _PIXELS,
        )
        for plane in PLANES
    )


def _box(organ: MaskVolume, affine: Affine) -> tuple[slice, slice, slice]:
    """Around the organ with a margin; everything where there is none."""
    if not organ.any():
        return slice(None), slice(None), slice(None)
    return box_around(organ, spacing_mm(affine), _MARGIN_MM)
