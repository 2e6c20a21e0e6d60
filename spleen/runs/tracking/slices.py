"""Slices as images with layers, large enough to be looked at."""

import math
from collections.abc import Sequence

import numpy as np
from jaxtyping import UInt8
from scipy.ndimage import zoom

from spleen.reporting.overlays import SliceView, display_overlay
from spleen.runs.tracking.media import Overlay

_SMALLEST_SIDE = 256
"""Length of the longest side of an image at least, pixels."""


def overlay_of(name: str, view: SliceView, class_names: Sequence[str]) -> Overlay:
    """A slice in radiological orientation, on square pixels, large enough to be seen."""
    image, prediction, reference = display_overlay(view)
    factor = max(1, math.ceil(_SMALLEST_SIDE / max(image.shape)))
    dice = "n/a" if math.isnan(view.dice) else f"{view.dice:.4f}"
    return Overlay(
        caption=f"{name}: {view.case_id}, {view.axis} slice {view.slice_index}, Dice {dice}",
        image=zoom(image, factor, order=1, mode="nearest", grid_mode=True),
        prediction=_repeat(prediction, factor),
        reference=_repeat(reference, factor),
        class_names=dict(enumerate(class_names, start=1)),
    )


def _repeat(label_map: UInt8[np.ndarray, "h w"], factor: int) -> UInt8[np.ndarray, "H W"]:
    return label_map.repeat(factor, axis=0).repeat(factor, axis=1)
