"""Slices as images with layers, large enough to be looked at."""

import math
from collections.abc import Sequence

from spleen.reporting.overlays import SliceView, display_overlay
from spleen.runs.tracking.media import Overlay

_LEAST_PIXELS = 256  # of the longer side: wandb shows pixels as they are


def overlay_of(name: str, view: SliceView, class_names: Sequence[str]) -> Overlay:
    """A slice in radiological orientation, on square pixels, large enough to be seen."""
    image, prediction, reference = display_overlay(view, _LEAST_PIXELS)
    dice = "n/a" if math.isnan(view.dice) else f"{view.dice:.4f}"
    return Overlay(
        caption=f"{name}: {view.case_id}, {view.axis} slice {view.slice_index}, Dice {dice}",
        image=image,
        prediction=prediction,
        reference=reference,
        class_names=dict(enumerate(class_names, start=1)),
    )
