"""How sure a prediction is of each slice, and which slices to label next because of it."""

import math
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float32, Float64, UInt8

from spleen.imaging.files import ImageFiles, case_name
from spleen.imaging.geometry import plane_distances_mm, voxel_volume_mm3
from spleen.imaging.native import NativeImage
from spleen.imaging.slicing import AXES, to_slices
from spleen.inference.ensemble import predict_volume, read_for
from spleen.inference.loading import load_ensemble
from spleen.inference.settings import PredictSettings
from spleen.inference.views.build import make_views
from spleen.types import Affine, AxisName

# Probabilities below this are noise; summed over a whole slice they would outweigh the organ.
_NOISE_FLOOR = 0.05
_BYTES_PER_VOXEL_AND_CLASS = 12


@dataclass(frozen=True, eq=False)
class SlicedPrediction:
    """A prediction of one image on its RAS grid."""

    image: NativeImage
    mask: UInt8[np.ndarray, "i j k"]
    """Class indices."""
    probabilities: Float32[np.ndarray, "organ i j k"]
    label_values: tuple[tuple[int, ...], ...]
    """For each class, its values in the training's labels."""


def predict_slices(
    runs: Sequence[Path],
    image: Path,
    advance: Callable[[int], None] = lambda _: None,
    *,
    allow_custom_code: bool = False,
) -> SlicedPrediction:
    """Predict an image with one run, or with several whose probabilities are averaged.

    `advance` receives the number of slices just done; `allow_custom_code` builds networks of any class. Raises
    InputError as `predict` does.
    """
    models = load_ensemble(list(runs), allow_custom_code)
    views = make_views(models, PredictSettings())
    n_classes = len(models[0].classes.names)
    native = read_for(views, ImageFiles(case_name(image), (image,)), _BYTES_PER_VOXEL_AND_CLASS * n_classes)
    predicted = predict_volume(views, native, str(image), PredictSettings().batch_size, True, advance)
    assert predicted.probabilities is not None
    return SlicedPrediction(native, predicted.mask, predicted.probabilities, models[0].classes.values)


def slice_entropy_mm2(
    probabilities: Float32[np.ndarray, "organ i j k"], affine: Affine, axis: AxisName
) -> Float64[np.ndarray, " n"]:
    """Predictive entropy of each slice: that of its pixels in nats times their area, so mm² of total uncertainty.

    Probabilities averaged over several networks have the disagreement between them in it (Gal, Islam and Ghahramani,
    "Deep Bayesian active learning with image data", ICML 2017).
    """
    pixel_mm2 = voxel_volume_mm3(affine) / plane_distances_mm(affine)[AXES.index(axis)]
    sliced = [to_slices(of_class, axis) for of_class in probabilities]
    entropies = []
    for index in range(len(sliced[0])):
        foreground = np.stack([of_class[index] for of_class in sliced]).astype(np.float64)
        every = np.clip(np.concatenate([1 - foreground.sum(0, keepdims=True), foreground]), 1e-12, 1)
        entropies.append(-float((every * np.log(every)).sum()) * pixel_mm2)
    return np.array(entropies)


def slice_confidence(
    probabilities: Float32[np.ndarray, "organ i j k"], mask: UInt8[np.ndarray, "i j k"], axis: AxisName
) -> Float64[np.ndarray, " n"]:
    """Soft Dice between the probabilities and the mask of each slice, all classes together; NaN without either."""
    inside, soft, hard = (np.zeros(len(to_slices(mask, axis))) for _ in range(3))
    for number, of_class in enumerate(probabilities, start=1):
        for index, (plane, decided) in enumerate(zip(to_slices(of_class, axis), to_slices(mask, axis), strict=True)):
            chosen = decided == number
            inside[index] += plane[chosen].sum(dtype=np.float64)
            soft[index] += plane[plane > _NOISE_FLOOR].sum(dtype=np.float64)
            hard[index] += np.count_nonzero(chosen)
    with np.errstate(invalid="ignore"):
        confidence: Float64[np.ndarray, " n"] = 2 * inside / (soft + hard)
    return confidence


@dataclass(frozen=True)
class UncertainSlice:
    """A slice chosen because of its uncertainty and its distance from what is known."""

    index: int
    entropy_mm2: float
    distance: float
    """Slices to the nearest one that is labelled or was chosen before; inf without any."""


def uncertain_slices(
    entropy_mm2: Float64[np.ndarray, " n"], n_slices: int, taken: Collection[int]
) -> tuple[UncertainSlice, ...]:
    """Choose slices one after the other: the highest product of entropy and distance to those labelled and chosen.

    Uncertainty times a measure of how much new ground a sample covers is the information density of Settles and Craven,
    "An analysis of active learning strategies for sequence labeling tasks" (EMNLP 2008); the distance is that of the
    core sets of Sener and Savarese (ICLR 2018). Where no slice that is left is uncertain, the distance decides.
    """
    known, chosen = set(taken), list[UncertainSlice]()
    indices = np.arange(len(entropy_mm2))
    for _ in range(min(n_slices, len(indices) - len(known))):
        distance = (
            np.abs(indices[:, None] - np.array(sorted(known))).min(axis=1).astype(float)
            if known
            else np.full(len(indices), math.inf)
        )
        weight = np.where(np.isinf(distance), 1.0, distance)
        score = entropy_mm2 * weight
        if not score[distance > 0].any():
            score = weight
        score = np.where(distance > 0, score, -1.0)
        best = int(score.argmax())
        chosen.append(UncertainSlice(best, float(entropy_mm2[best]), float(distance[best])))
        known.add(best)
    return tuple(chosen)
