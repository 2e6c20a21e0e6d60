"""Weights of the views in a fused prediction, fitted on labelled cases that no view was trained on."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from math import comb
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Bool, Float32, Float64, UInt8

from spleen.errors import InputError
from spleen.evaluation.labelled import Labelled, unlabelled_of
from spleen.imaging.classes import ClassMap, Regions, in_class
from spleen.imaging.files import ImageFiles
from spleen.imaging.geometry import GRID_TOLERANCE_MM, check_same_grid
from spleen.imaging.labels import IGNORED, to_class_indices
from spleen.imaging.nifti import read_label
from spleen.imaging.probabilities import most_probable_class
from spleen.inference.calibration.ignored import ignored_value
from spleen.inference.ensemble import predict_volume, read_for
from spleen.inference.leakage import views_that_saw, warn_of_same_images
from spleen.inference.views.view import View

# Grid search over weights in steps of 1/n, with the first n that needs at most _MOST_TRIALS trials: steps of 0.05 for
# two or three views, 0.1 for four.
_PARTS = (20, 10, 5, 4, 3, 2, 1)
_MOST_TRIALS = 300
# Hill climbing: weight moved from one view to another in a trial; the next step once this one gains nothing.
_STEPS = (0.1, 0.05, 0.025)


@dataclass(frozen=True)
class FittedWeights:
    """The best weights found, and their scores on the cases that they were fitted on."""

    weights: tuple[float, ...]
    dice: float
    """Mean Dice over cases and classes with these weights."""
    dice_equal: float
    """The same with equal weights."""


@dataclass(frozen=True)
class _Case:
    """One case: the voxels on which the views disagree, and counts of all others, without those that are ignored.

    Where all views choose the same class, so does every weighted average of them.
    """

    probabilities: Float32[np.ndarray, "view organ m"]
    reference: UInt8[np.ndarray, " m"]
    agreed: Float64[np.ndarray, "organ 3"]
    """Counts of the other voxels: true positives, predicted, expected."""
    is_seen: bool
    """Whether a view was trained on the image, which makes it look better than it is."""
    is_labelled: Bool[np.ndarray, " organ"]
    """Whether the reference labels the class; the Dice of others is not known."""
    regions: Regions | None
    """How the classes overlap; None if they do not."""


def fit_weights(
    views: Sequence[View],
    cases: Mapping[str, tuple[ImageFiles, Path]],
    batch_size: int,
    advance: Callable[[str, int, int], None],
    *,
    of_validation: bool = False,
    labelled: Labelled | None = None,
) -> FittedWeights:
    """Find the weights with the highest mean Dice over `cases` (name → image, label).

    A grid search, whose ties go to the weights nearest to equal ones, then hill climbing that moves weight between two
    views as long as the score rises. A warning names cases that a view has seen, unless they are known to be the
    validation split of every view, which chose no more than its epoch (`of_validation`). Memory: 4 bytes per voxel,
    view and class, one case at a time.
    Voxels whose label has the runs' ignore value do not count, nor do classes that a case does not label (`labelled`;
    by default each case labels all).
    Raises InputError for fewer than two views, an image and a label on different grids, runs that ignore different
    values, or a class that is there but not said to be labelled.
    """
    if len(views) < 2:
        raise InputError(f"fitting weights needs at least two runs; got {len(views)}")
    ignored = ignored_value([view.model for view in views])
    fitted_on = [
        _predict_case(views, name, *files, ignored, labelled, batch_size, advance) for name, files in cases.items()
    ]
    seen = [name for name, case in zip(cases, fitted_on, strict=True) if case.is_seen]
    if not of_validation:
        warn_of_same_images(seen, len(cases), "Weights fitted on them favour the runs that were trained on them")
    equal = np.full(len(views), 1 / len(views))
    dice_equal = _mean_dice(fitted_on, equal)
    weights, dice = _better(fitted_on, equal, dice_equal, _grid(len(views)))
    for step in _STEPS:
        before = -1.0
        while dice > before:
            before = dice
            weights, dice = _better(fitted_on, weights, dice, _moved(weights, step))
    return FittedWeights(tuple(round(float(weight), 6) for weight in weights), dice, dice_equal)


def _better(
    cases: Sequence[_Case],
    weights: Float64[np.ndarray, " view"],
    dice: float,
    trials: Iterable[Float64[np.ndarray, " view"]],
) -> tuple[Float64[np.ndarray, " view"], float]:
    """The best trial and its mean Dice; `weights` and `dice` unless one is better by more than rounding."""
    for trial in trials:
        score = _mean_dice(cases, trial)
        if score > dice + 1e-9:
            weights, dice = trial, score
    return weights, dice


def _grid(n_views: int) -> list[Float64[np.ndarray, " view"]]:
    """Evenly spaced weights that add up to 1, those nearest to equal weights first."""
    parts = next((parts for parts in _PARTS if comb(parts + n_views - 1, n_views - 1) <= _MOST_TRIALS), 1)
    ends = parts + n_views - 1
    # Stars and bars: n_views - 1 bars divide the parts in a row among the views.
    bars = combinations(range(ends), n_views - 1)
    grid = [(np.diff([-1, *between, ends]) - 1) / parts for between in bars]
    return sorted(grid, key=lambda weights: float(np.square(weights).sum()))


def _moved(weights: Float64[np.ndarray, " view"], step: float) -> Iterable[Float64[np.ndarray, " view"]]:
    """All weights one move away: `step` of the total, or all that is left, moves from one view to another."""
    for source in range(len(weights)):
        for destination in range(len(weights)):
            amount = min(step, float(weights[source]))
            if source != destination and amount > 0:
                trial = weights.copy()
                trial[source] -= amount
                trial[destination] += amount
                yield trial


def _predict_case(
    views: Sequence[View],
    name: str,
    files: ImageFiles,
    label_path: Path,
    ignored: int | None,
    labelled: Labelled | None,
    batch_size: int,
    advance: Callable[[str, int, int], None],
) -> _Case:
    classes = views[0].model.classes
    image, image_path = read_for(views, files, len(views) * (4 * len(classes.names) + 1)), files.paths[0]
    reference = _reference(label_path, image_path, image.shape, image.affine, classes, ignored)
    organs = range(1, len(classes.names) + 1)
    present = (classes.names[organ - 1] for organ in organs if in_class(reference, organ, classes.regions).any())
    unlabelled = unlabelled_of(name, labelled, classes.names, present)
    probabilities, masks = [], []
    for view in views:
        alone = predict_volume([replace(view, weight=1.0)], image, str(image_path), batch_size, True, lambda _: None)
        assert alone.probabilities is not None  # requested above
        probabilities.append(alone.probabilities)
        masks.append(alone.mask)
        advance(name, 1, len(views))
    differ, known = np.any([mask != masks[0] for mask in masks[1:]], axis=0), reference != IGNORED
    agree, differ, regions = ~differ & known, differ & known, classes.regions
    predicted, expected = masks[0][agree], reference[agree]
    agreed = [_counts(in_class(predicted, organ, regions), in_class(expected, organ, regions)) for organ in organs]
    disputed = np.stack([of_view[:, differ] for of_view in probabilities])
    return _Case(
        probabilities=disputed,
        reference=reference[differ],
        agreed=np.array(agreed, dtype=np.float64),
        is_seen=bool(views_that_saw(views, image)),
        is_labelled=np.array([class_name not in unlabelled for class_name in classes.names]),
        regions=regions,
    )


def _reference(
    label_path: Path,
    image_path: Path,
    shape: tuple[int, ...],
    affine: np.ndarray,
    classes: ClassMap,
    ignored: int | None,
) -> UInt8[np.ndarray, "i j k"]:
    label = read_label(label_path, affine)
    names = str(image_path), str(label_path)
    check_same_grid((shape, label.array.shape), (affine, label.affine), GRID_TOLERANCE_MM, names)
    return to_class_indices(label.array, classes, ignored)


def _mean_dice(cases: Sequence[_Case], weights: Float64[np.ndarray, " view"]) -> float:
    """Mean over all cases and the classes they label; a class that is empty in both mask and reference is excluded."""
    scores = np.concatenate([_dice(case, weights) for case in cases])
    if np.isnan(scores).all():
        raise InputError("no case contains any class, neither predicted nor expected; weights cannot be fitted")
    return float(np.nanmean(scores))


def _counts(predicted: Bool[np.ndarray, " n"], expected: Bool[np.ndarray, " n"]) -> list[int]:
    """Voxels of both masks, of the prediction and of the reference."""
    return [int(np.count_nonzero(mask)) for mask in (predicted & expected, predicted, expected)]


def _dice(case: _Case, weights: Float64[np.ndarray, " view"]) -> Float64[np.ndarray, " organ"]:
    fused = np.tensordot(weights.astype(np.float32), case.probabilities, axes=1)
    decision = most_probable_class(torch.from_numpy(fused)[None], case.regions)[0].numpy()
    disputed = [
        _counts(in_class(decision, organ, case.regions), in_class(case.reference, organ, case.regions))
        for organ in range(1, len(case.agreed) + 1)
    ]
    counts = case.agreed + np.array(disputed)
    with np.errstate(invalid="ignore"):
        dice: Float64[np.ndarray, " organ"] = 2 * counts[:, 0] / (counts[:, 1] + counts[:, 2])
    return np.where(case.is_labelled, dice, np.nan)
