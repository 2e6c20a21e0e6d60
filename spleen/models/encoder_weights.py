"""Weights of an encoder from a local file, such as those of a classifier that was trained on ImageNet."""

import pickle
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from spleen.errors import InputError
from spleen.imaging.intensity import Intensity, ZScore
from spleen.system.text import shortened

IMAGENET_STD = (0.229, 0.224, 0.225)
"""Of red, green and blue between 0 and 1, by which the images of such networks are divided
(https://docs.pytorch.org/vision/stable/models.html)."""
_WRAPPERS = ("state_dict", "model")
_PREFIXES = ("module.", "encoder.", "model.")


@dataclass(frozen=True)
class EncoderStart:
    """An encoder's state from a file."""

    state: Mapping[str, Tensor]
    """For the encoder's `load_state_dict`."""
    first_layer: str
    """The convolution at the image, whose weights were adapted to the number of input channels."""
    unused: tuple[str, ...]
    """Tensors of the file that the encoder does not have, such as the classifier's."""


def read_encoder_weights(path: Path) -> dict[str, Tensor]:
    """The tensors of a state dict in a .pth or .safetensors file, on the CPU; no code in it is run.

    Raises InputError for a file that cannot be read, or contains anything else.
    """
    try:
        content = _read(path)
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror or error}") from error
    except pickle.UnpicklingError as error:
        raise InputError(
            f"{path} is refused: a file of weights may contain tensors and plain values only. Save the state dict of "
            "the network, torch.save(network.state_dict(), FILE), not the network itself"
        ) from error
    except Exception as error:  # the unpickler may raise anything for a damaged file
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise InputError(f"{path} cannot be read as a file of weights (.pth, .safetensors): {reason}") from error
    for key in _WRAPPERS:
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            content = content[key]
    tensors = content.items() if isinstance(content, Mapping) else ()
    weights = {str(name): value for name, value in tensors if isinstance(value, Tensor)}
    if not weights:
        raise InputError(f"{path} contains no tensors by name; give the state dict of a network")
    return weights


def _read(path: Path) -> Any:
    if path.suffix == ".safetensors":
        from safetensors.torch import load_file

        return load_file(path)
    return torch.load(path, map_location="cpu", weights_only=True)


def start_encoder(
    encoder: nn.Module, weights: Mapping[str, Tensor], channels: int, intensity: Intensity
) -> EncoderStart:
    """The state of an encoder of `channels` input channels with the weights of one of colour images.

    The names may differ in dots and underscores, as those of torchvision, timm and their encoders do. Raises
    InputError if a tensor is missing or of another shape, or not finite.
    """
    fresh = encoder.state_dict()
    named = {_plain(name): (name, value) for name, value in weights.items()}
    found = {name: named[_plain(name)] for name in fresh if _plain(name) in named}
    missing = [name for name in fresh if name not in found and not name.endswith("num_batches_tracked")]
    if missing:
        raise InputError(
            f"{len(missing)} of the encoder's {len(fresh)} tensors are not in it ({shortened(missing, 3)}); the file "
            f"has {len(weights)} ({shortened(weights, 3)})"
        )
    first = _first_convolution(fresh, found, channels)
    state = {name: value.to(fresh[name].dtype) for name, (_, value) in found.items()}
    if first is not None:
        state[first] = adapted_to_grey(state[first], channels, intensity)
    wrong = [name for name, value in state.items() if value.shape != fresh[name].shape]
    if wrong:
        sizes = f"{wrong[0]} is {_shape(found[wrong[0]][1])} in it and {_shape(fresh[wrong[0]])} in the encoder"
        raise InputError(f"{len(wrong)} of the encoder's {len(fresh)} tensors have another shape: {sizes}")
    if first is None:
        raise InputError("its first convolution is not one of colour images, with 3 input channels")
    broken = [name for name, value in state.items() if value.is_floating_point() and not value.isfinite().all()]
    if broken:
        raise InputError(f"it contains NaN or Inf ({shortened(broken, 3)})")
    used = {name for name, _ in found.values()}
    return EncoderStart({**fresh, **state}, first, tuple(name for name in weights if name not in used))


def adapted_to_grey(weight: Tensor, channels: int, intensity: Intensity) -> Tensor:
    """A first convolution's weights (out, 3, h, w) for `channels` grey channels instead of red, green and blue.

    As in segmentation_models_pytorch (`encoders/_utils.py`): one channel has the sum of the colours; of several, each
    has those of one colour in turn, times 3 / channels. Intensities of -1 … 1 are mapped to 0 … 1 and divided by
    ImageNet's standard deviation within the weights; those of a z-score are as large already. The subtracted mean is
    left to the normalisation after the convolution.
    """
    if not isinstance(intensity, ZScore):
        weight = weight / (2 * torch.tensor(IMAGENET_STD, dtype=weight.dtype).view(1, 3, 1, 1))
    if channels == 1:
        return weight.sum(1, keepdim=True)
    return weight[:, [number % 3 for number in range(channels)]] * (3 / channels)


def _first_convolution(
    fresh: Mapping[str, Tensor], found: Mapping[str, tuple[str, Tensor]], channels: int
) -> str | None:
    for name, value in fresh.items():
        if value.ndim == 4 and value.shape[1] == channels and name in found:
            source = found[name][1]
            if source.ndim == 4 and source.shape[1] == 3:
                return name
    return None


def _plain(name: str) -> str:
    for prefix in _PREFIXES:
        name = name.removeprefix(prefix)
    return name.replace(".", "").replace("_", "")


def _shape(value: Tensor) -> str:
    return " × ".join(map(str, value.shape)) or "1"
