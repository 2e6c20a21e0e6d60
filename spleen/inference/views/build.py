"""The views of an ensemble from its networks and the settings of a prediction."""

from collections.abc import Collection, Sequence

import numpy as np

from spleen.errors import InputError
from spleen.imaging.classes import swapped_classes
from spleen.imaging.slicing import flips_in_plane
from spleen.inference.loading import TrainedModel
from spleen.inference.settings import PredictSettings
from spleen.inference.views.tta import Variant, check_flips, variants
from spleen.inference.views.view import View
from spleen.system.hardware import Device, choose_hardware


def make_views(models: Sequence[TrainedModel], settings: PredictSettings) -> list[View]:
    """Give each model its weight, its variants and its hardware.

    Raises InputError for invalid weights and flips, or hardware that is not available.
    """
    check_flips(settings.flips)  # also where nothing is mirrored
    weights = _normalised(settings.weights, len(models))
    return [
        View(model, weight, _variants(model, settings), _hardware(model, settings), _coarse(model, settings))
        for model, weight in zip(models, weights, strict=True)
    ]


def _coarse(model: TrainedModel, settings: PredictSettings) -> View | None:
    """The view that finds the box of a cascade: without augmentation, as in the training of the second network."""
    if model.coarse is None:
        return None
    return View(model.coarse, 1.0, (Variant(),), _hardware(model.coarse, settings))


def _hardware(model: TrainedModel, settings: PredictSettings) -> Device:
    return choose_hardware(settings.device, _precision(model, settings))


def _variants(model: TrainedModel, settings: PredictSettings) -> tuple[Variant, ...]:
    if not settings.tta:
        return (Variant(),)
    axis, flips = model.preprocessing.axis, (*model.spec.trained_flips, *settings.flips)
    return variants(axis, flips, _swapped(model, flips_in_plane(axis, flips)))


def _swapped(model: TrainedModel, flips: Collection[str]) -> tuple[int, ...]:
    try:
        return swapped_classes(model.trained_names, flips)
    except InputError as error:
        if all(direction in model.spec.trained_flips for direction in flips):
            return ()  # an earlier version trained it like this, with the labels as they were
        raise InputError(f"{model.name} cannot be mirrored: {error}; leave the flip out") from error


def _precision(model: TrainedModel, settings: PredictSettings) -> str:
    """The requested precision, or that of the training; auto if that is 16, which needs a GPU, and there is none."""
    if settings.precision is not None:
        return settings.precision
    on_gpu = choose_hardware(settings.device, "32").device.type == "cuda"
    return "auto" if model.spec.precision == "16" and not on_gpu else model.spec.precision


def _normalised(weights: Sequence[float] | None, count: int) -> list[float]:
    if weights is None:
        return [1 / count] * count
    if len(weights) != count:
        raise InputError(f"{len(weights)} weights were given for {count} runs; give one for each, in their order")
    if not all(0 <= weight < np.inf for weight in weights) or not sum(weights) > 0:
        raise InputError(f"weights must be 0 or more and not all 0; got {', '.join(f'{w:g}' for w in weights)}")
    return [weight / sum(weights) for weight in weights]
