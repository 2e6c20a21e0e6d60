"""Predict one volume with one trained network: probabilities on the native grid, a few slices at a time."""

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from jaxtyping import Float, Float16
from torch import Tensor

from spleen.imaging.geometry import Box
from spleen.imaging.intensity import fit_intensity
from spleen.imaging.native import NativeImage
from spleen.imaging.preprocessing import network_planes
from spleen.imaging.probabilities import foreground_probabilities
from spleen.imaging.slicing import InPlaneGrid, context_indices, slice_shape
from spleen.inference.loading import TrainedModel
from spleen.inference.views.tta import Variant
from spleen.system.hardware import Device
from spleen.types import ImageBatch

# Upper bound for the float32 probabilities of one step on the native grid.
_STEP_BYTES = 128 * 2**20


def n_slices(model: TrainedModel, image: NativeImage) -> int:
    """Number of slices of this image along the axis of the model."""
    return slice_shape(image.shape, model.preprocessing.axis)[0]


def view_probabilities(
    model: TrainedModel,
    image: NativeImage,
    name: str,
    variants: Sequence[Variant],
    hardware: Device,
    batch_size: int,
    box: Box | None = None,
) -> Iterator[tuple[slice, Float[Tensor, "variant b organ H W"]]]:
    """Foreground probabilities of all slices in order, on the native grid, for each variant.

    Each item starts with its range of slices along the axis of the model. With a `box`, the slices are those of the
    box, and count from its first one. `name` is used in messages.
    Raises InputError for an image that cannot be normalised.
    """
    settings, regions = model.preprocessing, model.preprocessing.classes.regions
    shape = image.shape if box is None else box.shape
    count, height, width = slice_shape(shape, settings.axis)
    grid = settings.plan(shape, image.affine)
    planes = _normalised(model, image, grid, name, box)
    of_volume = None if model.spec.patch_size is None else _volume_logits(model, planes, variants, hardware)
    bytes_per_slice = 4 * len(variants) * (len(settings.classes.names) + 1) * height * width
    step = max(1, min(batch_size, _STEP_BYTES // bytes_per_slice))
    for start in range(0, count, step):
        index = np.arange(start, min(start + step, count))
        if of_volume is not None:
            logits = [each[start : start + len(index)].to(hardware.device) for each in of_volume]
        else:
            # All channels of one slice, then of the next, in the same order as in training.
            neighbours = context_indices(index, count, model.spec.context_slices)
            stacks = planes[neighbours].reshape(len(index), -1, *grid.padded)
            images = torch.from_numpy(stacks).to(hardware.device).float()
            logits = [variant.undo(_run(model, variant.apply(images), hardware)) for variant in variants]
        yield (
            slice(start, start + len(index)),
            torch.stack([foreground_probabilities(of_variant, grid, regions) for of_variant in logits]),
        )


def _volume_logits(
    model: TrainedModel, planes: Float16[np.ndarray, "n c h w"], variants: Sequence[Variant], hardware: Device
) -> list[Float16[Tensor, "n classes h w"]]:
    """Logits of all slices for each variant, by a 3D network; in half precision in main memory, since they are many."""
    images = torch.from_numpy(planes).to(hardware.device).float()
    return [variant.undo(_run(model, variant.apply(images), hardware)).half().cpu() for variant in variants]


def _normalised(
    model: TrainedModel, image: NativeImage, grid: InPlaneGrid, name: str, box: Box | None
) -> Float16[np.ndarray, "n c h w"]:
    """All slices on the network's grid, each channel normalised separately, as the whole image requires."""
    settings = model.preprocessing
    shown = slice(None) if box is None else box.slices
    several = len(image.channels) > 1
    planes: np.ndarray | None = None
    for number, channel in enumerate(image.channels):
        named = f"{name}, channel {number}" if several else name
        intensity = fit_intensity(channel, settings.intensity, named)
        of_channel = network_planes(channel[shown], settings.axis, grid, intensity)
        if not several:
            return of_channel[:, None]
        if planes is None:
            planes = np.empty((len(of_channel), len(image.channels), *grid.padded), np.float16)
        planes[:, number] = of_channel
    assert planes is not None  # an image has channels
    return planes


def _run(model: TrainedModel, images: ImageBatch, hardware: Device) -> Float[Tensor, "b classes h w"]:
    autocast = torch.autocast(hardware.device.type, hardware.autocast, enabled=hardware.autocast is not None)
    with torch.inference_mode(), autocast:
        logits: Tensor = model.network(images.contiguous(memory_format=torch.channels_last))
    return logits.float()
