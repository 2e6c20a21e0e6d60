"""Build a network from its specification, for training, prediction and export alike."""

import functools
import importlib.util
import inspect
import math
import pkgutil
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from spleen.errors import InputError
from spleen.models.padding import PadToMultiple
from spleen.models.patches import PatchWindows
from spleen.models.spec import ModelSpec
from spleen.models.windows import OverlappingWindows

# Packages that only some of the shipped configurations need.
_OPTIONAL = {"monai": "monai>=1.5", "segmentation_models_pytorch": "segmentation-models-pytorch>=0.5"}


def build_network(spec: ModelSpec) -> nn.Module:
    """The untrained network, accepting slices of any size.

    It maps (b, n_channels * (2 * context_slices + 1), h, w) to logits (b, 1 + classes, h, w); a 3D network takes the
    slices of one volume, or patches (b, n_channels, d, h, w).
    Raises InputError as `build_part` does.
    """
    if spec.patch_size is not None:
        return PatchWindows(build_part("model.network", spec.network), spec.patch_size)
    padded = PadToMultiple(build_part("model.network", spec.network), spec.preprocessing.size_multiple)
    return OverlappingWindows(padded, spec.crop_size) if isinstance(spec.crop_size, int) else padded


def channels_last(network: nn.Module) -> nn.Module:
    """The network itself, with the weights of its convolutions in the memory format in which these are fastest."""
    volumetric = [weight for weight in network.parameters() if weight.ndim == 5]
    if not volumetric:
        return network.to(memory_format=torch.channels_last)  # type: ignore[call-overload,no-any-return]
    for weight in volumetric:  # a network may have 2D parts, too, which `to` would refuse
        weight.data = weight.data.contiguous(memory_format=torch.channels_last_3d)
    return network


def check_weights_fit(spec: ModelSpec, weights: Mapping[str, Tensor]) -> None:
    """Raise RuntimeError, as load_state_dict does, for weights of another shape than the specification's network.

    The network is built without memory for its weights, so that a wrong specification costs nothing. One that cannot be
    built in this way is not checked.
    """
    try:
        with torch.device("meta"):
            network = build_network(spec)
    except InputError:
        return
    network.load_state_dict({name: value.to("meta") for name, value in weights.items()})


def build_part(name: str, setting: Mapping[str, Any]) -> nn.Module:
    """Build the module of a `_target_` setting; `name` is used in messages.

    All other keys are arguments, which may be such settings themselves. `_args_` contains positional arguments; with
    `_partial_: true` the result is a functools.partial of the target.
    Raises InputError if its package is missing, if it cannot be built, or is not a torch.nn.Module.
    """
    target = str(setting["_target_"])
    if not all(part.isidentifier() for part in target.split(".")) or "." not in target:
        raise InputError(f"{name}._target_ must be the dotted name of a class, such as torch.nn.Conv2d; got '{target}'")
    package = target.partition(".")[0]
    if importlib.util.find_spec(package) is None:
        raise InputError(_missing(name, target, package))
    try:
        built = _instantiate(name, setting)
    except InputError:
        raise
    except ModuleNotFoundError as error:
        if error.name not in _OPTIONAL:
            raise InputError(f"{name} cannot be built: {target}: {error}") from error
        raise InputError(_missing(name, target, error.name)) from error
    except Exception as error:  # arbitrary code of a network, with arguments that may not fit
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise InputError(f"{name} cannot be built: {setting['_target_']}: {reason}") from error
    if not isinstance(built, nn.Module):
        raise InputError(f"{name}: {setting['_target_']} gives {type(built).__name__}, not a torch.nn.Module")
    return built


def _missing(name: str, target: str, package: str) -> str:
    install = f"; install it with: pip install '{_OPTIONAL[package]}'" if package in _OPTIONAL else ""
    return f"{name}: {target} needs the package '{package}', which is not installed{install}"


def check_arguments(name: str, target: Callable[..., object], values: Mapping[str, Any]) -> None:
    """Raise InputError for a value of another type than its argument's; only plain types are checked.

    A wrong one would often be noticed by the first training step only. `name` is the setting's, for the message.
    """
    parameters = _arguments(target)
    for key in values.keys() & parameters.keys():
        value, parameter = values[key], parameters[key]
        annotation = getattr(parameter.annotation, "__name__", parameter.annotation)
        if annotation not in _PLAIN_TYPES or (value is None and parameter.default is None):
            continue
        words, accepted = _PLAIN_TYPES[annotation]
        if not accepted(value):
            raise InputError(f"{name}.{key} must be {words}; got '{value}'")


def _is_of_smp(target: object) -> bool:
    return str(getattr(target, "__module__", "")).startswith("segmentation_models_pytorch.")


def _arguments(target: Callable[..., object]) -> Mapping[str, inspect.Parameter]:
    try:
        return inspect.signature(target).parameters
    except (TypeError, ValueError):  # of a class written in C
        return {}


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


_PLAIN_TYPES: Mapping[str, tuple[str, Callable[[object], bool]]] = {
    "float": ("a number", _is_number),
    "int": ("a whole number", lambda value: isinstance(value, int) and not isinstance(value, bool)),
    "bool": ("true or false", lambda value: isinstance(value, bool)),
    "str": ("a text", lambda value: isinstance(value, str)),
}


def _instantiate(name: str, setting: Any) -> Any:
    if isinstance(setting, list | tuple):
        return [_instantiate(name, item) for item in setting]
    if not isinstance(setting, Mapping):
        return setting
    values = {str(key): _instantiate(f"{name}.{key}", value) for key, value in setting.items()}
    if "_target_" not in values:
        return values
    target = pkgutil.resolve_name(values.pop("_target_"))
    check_arguments(name, target, values)
    values.pop("_convert_", None)  # Hydra's flag for plain containers, which these already are
    if _is_of_smp(target) and "encoder_weights" in _arguments(target):
        values["encoder_weights"] = None  # its default is a download
    positional, partial = values.pop("_args_", ()), values.pop("_partial_", False)
    return functools.partial(target, *positional, **values) if partial else target(*positional, **values)
