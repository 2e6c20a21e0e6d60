"""Which slices are shown, and each as an image with layers, large enough to be looked at."""

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from spleen.imaging.labels import IGNORED
from spleen.reporting.overlays import SliceView, display_overlay
from spleen.runs.tracking.media import Overlay
from spleen.training.preview import SliceScore

_LEAST_PIXELS = 256  # of the longer side: wandb shows pixels as they are


def overlay_of(name: str, view: SliceView, class_names: Sequence[str]) -> Overlay:
    """A slice in radiological orientation, on square pixels, large enough to be seen."""
    names = dict(enumerate(class_names, start=1))
    if view.unlabelled is not None:
        view = replace(view, reference=np.where(view.unlabelled, np.uint8(IGNORED), view.reference))
        names[IGNORED] = "not labelled"
    image, prediction, reference = display_overlay(view, _LEAST_PIXELS)
    dice = "n/a" if math.isnan(view.dice) else f"{view.dice:.4f}"
    return Overlay(
        caption=f"{name}: {view.case_id}, {view.axis} slice {view.slice_index}, Dice {dice}",
        image=image,
        prediction=prediction,
        reference=reference,
        class_names=names,
    )


def worst_slices(scores: Sequence[SliceScore], count: int) -> list[SliceScore]:
    """The `count` worst slices by Dice: first the worst one of each case, worst case first, then the next of each."""
    rank_of_case: dict[int, int] = {}
    ranked: list[tuple[int, float, SliceScore]] = []
    for score in sorted((score for score in scores if not math.isnan(score.dice)), key=lambda score: score.dice):
        rank = rank_of_case.get(score.case_index, 0)
        rank_of_case[score.case_index] = rank + 1
        ranked.append((rank, score.dice, score))
    return [score for *_, score in sorted(ranked, key=lambda entry: entry[:2])[:count]]
