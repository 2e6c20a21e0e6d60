"""Networks whose output at every pixel is known, and views and images built from them."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from scipy.special import expit
from torch import Tensor, nn

from spleen.imaging.classes import ClassMap
from spleen.imaging.intensity import CtWindow
from spleen.imaging.native import NativeImage, read_native
from spleen.imaging.preprocessing import Preprocessing
from spleen.inference.loading import TrainedModel
from spleen.inference.views.tta import Variant
from spleen.inference.views.view import View
from spleen.models.spec import ModelSpec
from spleen.system.hardware import Device
from tests._helpers.nifti import save

CPU = Device(torch.device("cpu"), None)
PLAIN = (Variant(),)


class Pointwise(nn.Module):
    """Each pixel independently: class c gets the logit slope[c] × intensity + offset[c], the background 0.

    The intensity is read from one channel: the slice itself or a neighbour.
    """

    def __init__(self, slopes: Sequence[float], offsets: Sequence[float], channel: int = 0) -> None:
        super().__init__()
        self.slopes = torch.tensor(slopes)[:, None, None]
        self.offsets = torch.tensor(offsets)[:, None, None]
        self.channel = channel

    def forward(self, image: Tensor) -> Tensor:
        logits = image[:, self.channel, None] * self.slopes + self.offsets
        return torch.cat([torch.zeros_like(logits[:, :1]), logits], dim=1)


class Places(nn.Module):
    """Foreground logits from the in-plane position alone, whatever the image: rising along w, falling along h."""

    def forward(self, image: Tensor) -> Tensor:
        height, width = image.shape[2:]
        down, right = torch.meshgrid(torch.arange(height) * 1.0, torch.arange(width) * 1.0, indexing="ij")
        logits = (right - 2 * down)[None, None].expand(len(image), 1, -1, -1)
        return torch.cat([torch.zeros_like(logits), logits], dim=1)


def model(network: nn.Module, axis: str, img_size: int, names: Sequence[str] = ("organ",), context: int = 0):
    """A trained model around a network; intensities from -1 to 1 reach it unchanged."""
    classes = ClassMap(tuple(names), tuple((index,) for index in range(1, len(names) + 1)))
    preprocessing = Preprocessing(axis, img_size, "keep_aspect", 1, CtWindow(0, 2), classes, 0.1)
    volumes_mm3 = ((1.0, 1e6),) * len(names)
    spec = ModelSpec({}, preprocessing, context, None, "32", training_volumes_mm3=volumes_mm3)
    return TrainedModel(axis, Path(axis), network.eval(), spec)


def view(network: nn.Module, axis: str, img_size: int, weight: float = 1.0, variants: tuple[Variant, ...] = PLAIN):
    """A view of one organ on the CPU, in 32-bit precision."""
    return View(model(network, axis, img_size), weight, variants, CPU)


def image_of(path, array: np.ndarray, spacing_mm: float = 1.0) -> NativeImage:
    """The array written to a file with isotropic voxels and read back."""
    affine = np.diag([spacing_mm] * 3 + [1.0])
    return read_native(save(path, array.astype(np.float32), affine))


def intensities(shape: tuple[int, int, int], seed: int = 0) -> np.ndarray:
    """Random multiples of 1/64 from -1 to 1, which float16 represents exactly."""
    array = np.random.default_rng(seed).integers(-64, 65, shape) / 64
    array.flat[:2] = -1, 1
    return array


def probability(array: np.ndarray, slope: float, offset: float = 0.0) -> np.ndarray:
    """Foreground probability of a one-class `Pointwise`: the softmax of two logits is a sigmoid."""
    return expit(slope * array + offset)


def nothing(_: int) -> None:
    """Ignore the progress."""
