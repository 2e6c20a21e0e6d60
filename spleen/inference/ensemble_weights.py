"""Weights of the views in a fused prediction, fitted on labelled cases that no view was trained on."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from math import comb
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float32, Float64, UInt8

from spleen.errors import InputError
from spleen.imaging.classes import ClassMap
from spleen.imaging.files import ImageFiles
from spleen.imaging.geometry import GRID_TOLERANCE_MM, check_same_grid
from spleen.imaging.labels import to_class_indices
from spleen.imaging.nifti import read_label
from spleen.imaging.probabilities import most_probable_class
from spleen.inference.ensemble import View, predict_volume, read_for
from spleen.inference.leakage import views_that_saw, warn_of_same_images

# The search begins with all weights that are multiples of one over a number of these, the first that asks for few
# enough trials: 0.05 for two or three views, 0.1 for four.
_PARTS = (20, 10, 5, 4, 3, 2, 1)
_MOST_TRIALS = 300
# Weight that moves from one view to another in a trial of the climb; halved when it gains nothing any more.
_STEPS = (0.1, 0.05, 0.025)


@dataclass(frozen=True)
class FittedWeights:
    """The best weights found, and what they bring on the cases that they were fitted on."""

    weights: tuple[float, ...]
    dice: float
    """Mean Dice over cases and classes with these weights."""
    dice_equal: float
    """The same with equal weights."""


@dataclass(frozen=True)
class _Contest:
    """One case: the voxels on which the views differ, and counts of all others.

    Where every view decides for the same class, every average of them does too.
    """

    probabilities: Float32[np.ndarray, "view organ m"]
    reference: UInt8[np.ndarray, " m"]
    settled: Float64[np.ndarray, "organ 3"]
    """Of the other voxels: hits, predicted, expected."""
    is_seen: bool
    """Whether a view learnt from the image, which would make it look better than it is."""


def fit_weights(
    views: Sequence[View],
    cases: Mapping[str, tuple[ImageFiles, Path]],
    batch_size: int,
    advance: Callable[[str, int, int], None],
) -> FittedWeights:
    """Find the weights with the highest mean Dice over `cases` (name → image, label).

    The best of a grid, of equally good ones the one nearest to equal weights; then a climb, in which weight moves from
    one view to another as long as that helps. Memory: 4 bytes per voxel, view and class of one case at a time.
    Raises InputError for files that do not fit together.
    """
    if len(views) < 2:
        raise InputError("fitting weights needs at least two runs; with one there is nothing to weigh")
    contests = [_contest(views, name, *files, batch_size, advance) for name, files in cases.items()]
    seen = [name for name, contest in zip(cases, contests, strict=True) if contest.is_seen]
    warn_of_same_images(seen, len(cases), "Weights fitted on them favour the runs that know them")
    equal = np.full(len(views), 1 / len(views))
    dice_equal = _mean_dice(contests, equal)
    weights, dice = _better(contests, equal, dice_equal, _grid(len(views)))
    for step in _STEPS:
        before = -1.0
        while dice > before:
            before = dice
            weights, dice = _better(contests, weights, dice, _moved(weights, step))
    return FittedWeights(tuple(round(float(weight), 6) for weight in weights), dice, dice_equal)


def _better(
    contests: Sequence[_Contest],
    weights: Float64[np.ndarray, " view"],
    dice: float,
    trials: Iterable[Float64[np.ndarray, " view"]],
) -> tuple[Float64[np.ndarray, " view"], float]:
    """The best of the trials and its mean Dice; `weights` and their `dice` where none is better beyond rounding."""
    for trial in trials:
        score = _mean_dice(contests, trial)
        if score > dice + 1e-9:
            weights, dice = trial, score
    return weights, dice


def _grid(n_views: int) -> list[Float64[np.ndarray, " view"]]:
    """Evenly spaced weights that add up to 1, those nearest to equal ones first."""
    parts = next((parts for parts in _PARTS if comb(parts + n_views - 1, n_views - 1) <= _MOST_TRIALS), 1)
    ends = parts + n_views - 1
    # The parts in a row, with a bar after those of each view but the last: every choice of bars is one of weights.
    bars = combinations(range(ends), n_views - 1)
    grid = [(np.diff([-1, *between, ends]) - 1) / parts for between in bars]
    return sorted(grid, key=lambda weights: float(np.square(weights).sum()))


def _moved(weights: Float64[np.ndarray, " view"], step: float) -> Iterable[Float64[np.ndarray, " view"]]:
    """All weights one move away: `step` of the total, or what there is, goes from one view to another."""
    for giver in range(len(weights)):
        for taker in range(len(weights)):
            amount = min(step, float(weights[giver]))
            if giver != taker and amount > 0:
                trial = weights.copy()
                trial[giver] -= amount
                trial[taker] += amount
                yield trial


def _contest(
    views: Sequence[View],
    name: str,
    files: ImageFiles,
    label_path: Path,
    batch_size: int,
    advance: Callable[[str, int, int], None],
) -> _Contest:
    classes = views[0].model.classes
    image, image_path = read_for(views, files, len(views) * (4 * len(classes.names) + 1)), files.paths[0]
    reference = _reference(label_path, image_path, image.shape, image.affine, classes)
    stack, decisions = [], []
    for view in views:
        alone = predict_volume([replace(view, weight=1.0)], image, str(image_path), batch_size, True, lambda _: None)
        assert alone.probabilities is not None  # they were asked for
        stack.append(alone.probabilities)
        decisions.append(alone.mask)
        advance(name, 1, len(views))
    differ = np.any([decision != decisions[0] for decision in decisions[1:]], axis=0)
    agreed, expected = decisions[0][~differ], reference[~differ]
    settled = [
        [np.sum((agreed == organ) & (expected == organ)), np.sum(agreed == organ), np.sum(expected == organ)]
        for organ in range(1, len(classes.names) + 1)
    ]
    contested = np.stack([probabilities[:, differ] for probabilities in stack])
    return _Contest(
        contested, reference[differ], np.array(settled, dtype=np.float64), bool(views_that_saw(views, image))
    )


def _reference(
    label_path: Path, image_path: Path, shape: tuple[int, ...], affine: np.ndarray, classes: ClassMap
) -> UInt8[np.ndarray, "i j k"]:
    label = read_label(label_path)
    names = str(image_path), str(label_path)
    check_same_grid((shape, label.array.shape), (affine, label.affine), GRID_TOLERANCE_MM, names)
    return to_class_indices(label.array, classes)


def _mean_dice(contests: Sequence[_Contest], weights: Float64[np.ndarray, " view"]) -> float:
    """Mean over all cases and classes; a class that is neither predicted nor expected is left out."""
    scores = np.concatenate([_dice(contest, weights) for contest in contests])
    if np.isnan(scores).all():
        raise InputError("no case holds any class, neither predicted nor expected; there is nothing to fit weights on")
    return float(np.nanmean(scores))


def _dice(contest: _Contest, weights: Float64[np.ndarray, " view"]) -> Float64[np.ndarray, " organ"]:
    fused = np.tensordot(weights.astype(np.float32), contest.probabilities, axes=1)
    decision = most_probable_class(torch.from_numpy(fused)[None])[0].numpy()
    organs = np.arange(1, len(contest.settled) + 1)[:, None]
    predicted, expected = decision == organs, contest.reference == organs
    counts = contest.settled + np.stack([(predicted & expected).sum(1), predicted.sum(1), expected.sum(1)], axis=1)
    with np.errstate(invalid="ignore"):
        dice: Float64[np.ndarray, " organ"] = 2 * counts[:, 0] / (counts[:, 1] + counts[:, 2])
    return dice
