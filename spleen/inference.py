"""One trained network over one volume: probabilities on the native planes, a few slices at a time."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float, Float16
from torch import Tensor
from torch.nn import functional as F

from spleen.assemble import foreground_probabilities
from spleen.augment import FLIP_DIRECTIONS, IN_PLANE_DIRECTIONS
from spleen.errors import InputError
from spleen.hardware import choose_accelerator, choose_precision
from spleen.imaging.preprocessing import network_planes
from spleen.intensity import fit_intensity
from spleen.native_image import NativeImage
from spleen.slicing import InPlaneGrid, context_indices, slice_shape
from spleen.trained import TrainedModel
from spleen.types import AxisName, ImageBatch

DeviceName = Literal["auto", "cpu", "gpu", "mps"]
# Shifts of the test-time augmentation. Odd, so that every level of a network that halves sees other pixels.
_SHIFT_PIXELS = 3
# Bounds the probabilities of one step on the native planes, float32.
_STEP_BYTES = 128 * 2**20


@dataclass(frozen=True)
class Variant:
    """One way of showing a slice to the network, undone on its output: mirrored axes, then a shift in pixels."""

    flipped_dims: tuple[int, ...] = ()
    shift: tuple[int, int] = (0, 0)

    def show(self, image: ImageBatch) -> ImageBatch:
        """The slices as the network is to see them; what a shift leaves open repeats the edge."""
        return _shift(image.flip(self.flipped_dims) if self.flipped_dims else image, self.shift)

    def undo(self, logits: Float[Tensor, "b classes h w"]) -> Float[Tensor, "b classes h w"]:
        """The network's answer, back in the place of the unchanged slices."""
        height, width = self.shift
        back = _shift(logits, (-height, -width))
        return back.flip(self.flipped_dims) if self.flipped_dims else back


def _shift(planes: Float[Tensor, "b c h w"], shift: tuple[int, int]) -> Float[Tensor, "b c h w"]:
    down, right = shift
    if (down, right) == (0, 0):
        return planes
    height, width = planes.shape[2:]
    padded = F.pad(planes, (max(right, 0), max(-right, 0), max(down, 0), max(-down, 0)), mode="replicate")
    return padded[:, :, max(-down, 0) :, max(-right, 0) :][:, :, :height, :width]


def variants(axis: AxisName, flips: Sequence[str]) -> tuple[Variant, ...]:
    """The variants of the test-time augmentation: unchanged, shifted four ways, and mirrored along each of `flips`.

    `flips` are anatomical directions; those that do not lie in the plane of this axis are left out.
    Raises InputError for a direction that does not exist.
    """
    for direction in flips:
        if direction not in FLIP_DIRECTIONS:
            raise InputError(f"a flip must be among {', '.join(FLIP_DIRECTIONS)}; got {direction!r}")
    shifts = ((_SHIFT_PIXELS, 0), (-_SHIFT_PIXELS, 0), (0, _SHIFT_PIXELS), (0, -_SHIFT_PIXELS))
    dims = [dim for dim, direction in zip((2, 3), IN_PLANE_DIRECTIONS[axis], strict=True) if direction in flips]
    mirrored = [*((dim,) for dim in dims), *([tuple(dims)] if len(dims) == 2 else [])]
    return (Variant(), *(Variant(shift=shift) for shift in shifts), *(Variant(dims) for dims in mirrored))


@dataclass(frozen=True)
class Device:
    """Where and with which floats a network is run."""

    device: torch.device
    autocast: torch.dtype | None
    """bfloat16 or float16; None is 32 bits throughout."""


def choose_hardware(device: DeviceName, precision: str) -> Device:
    """Resolve "auto"; raises InputError for hardware that is not there."""
    try:
        accelerator = choose_accelerator(device, 1)
    except InputError as error:  # its words are those of a training's settings
        raise InputError(f"--device {device}: this machine has no such device; use --device cpu") from error
    floats = {"bf16-mixed": torch.bfloat16, "16-mixed": torch.float16, "32-true": None}
    return Device(
        torch.device("cuda" if accelerator == "gpu" else accelerator), floats[choose_precision(precision, accelerator)]
    )


def n_slices(model: TrainedModel, image: NativeImage) -> int:
    """How many slices the model cuts this image into."""
    return slice_shape(image.shape, model.preprocessing.axis)[0]


def view_probabilities(
    model: TrainedModel,
    image: NativeImage,
    name: str,
    shown_as: Sequence[Variant],
    hardware: Device,
    batch_size: int,
) -> Iterator[tuple[slice, Float[Tensor, "variant b organ H W"]]]:
    """Foreground probabilities of all slices in order, on the native planes, one result per variant.

    Each item tells its slices along the model's axis. `name` stands in the messages.
    Raises InputError for an image that cannot be normalised.
    """
    settings = model.preprocessing
    count, height, width = slice_shape(image.shape, settings.axis)
    grid = settings.plan(image.shape, image.spacing_mm)
    planes = _normalised(model, image, grid, name)
    bytes_per_slice = 4 * len(shown_as) * (len(settings.classes.names) + 1) * height * width
    step = max(1, min(batch_size, _STEP_BYTES // bytes_per_slice))
    for start in range(0, count, step):
        index = np.arange(start, min(start + step, count))
        # All channels of one slice, then of the next, as dataset.load_images has them in training.
        stacks = planes[context_indices(index, count, model.spec.context_slices)].reshape(len(index), -1, *grid.padded)
        images = torch.from_numpy(stacks).to(hardware.device).float()
        answers = [variant.undo(_run(model, variant.show(images), hardware)) for variant in shown_as]
        yield (
            slice(start, start + len(index)),
            torch.stack([foreground_probabilities(answer, grid) for answer in answers]),
        )


def _normalised(
    model: TrainedModel, image: NativeImage, grid: InPlaneGrid, name: str
) -> Float16[np.ndarray, "n c h w"]:
    """All slices on the network's grid, each channel normalised by itself."""
    settings = model.preprocessing
    several = len(image.channels) > 1
    planes: np.ndarray | None = None
    for number, channel in enumerate(image.channels):
        named = f"{name}, channel {number}" if several else name
        of_channel = network_planes(channel, settings.axis, grid, fit_intensity(channel, settings.intensity, named))
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
