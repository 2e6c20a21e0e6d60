"""Build a network from its specification, for training, prediction and export alike."""

import functools
import importlib.util
import pkgutil
from collections.abc import Mapping
from typing import Any

from torch import nn

from spleen.errors import InputError
from spleen.models.padding import PadToMultiple
from spleen.models.spec import ModelSpec
from spleen.models.windows import OverlappingWindows

# Packages that only some of the shipped configurations need.
_OPTIONAL = {"monai": "monai>=1.5"}


def build_network(spec: ModelSpec) -> nn.Module:
    """The untrained network, accepting slices of any size.

    It maps (b, n_channels * (2 * context_slices + 1), h, w) to logits (b, 1 + classes, h, w).
    Raises InputError as `build_part` does.
    """
    padded = PadToMultiple(build_part("model.network", spec.network), spec.preprocessing.size_multiple)
    return padded if spec.crop_size is None else OverlappingWindows(padded, spec.crop_size)


def build_part(name: str, setting: Mapping[str, Any]) -> nn.Module:
    """Build the module of a `_target_` setting; `name` is used in messages.

    All other keys are arguments, which may be such settings themselves. `_args_` contains positional arguments; with
    `_partial_: true` the result is a functools.partial of the target.
    Raises InputError if its package is missing, if it cannot be built, or is not a torch.nn.Module.
    """
    package = str(setting["_target_"]).partition(".")[0]
    if importlib.util.find_spec(package) is None:
        install = f"; install it with: pip install '{_OPTIONAL[package]}'" if package in _OPTIONAL else ""
        raise InputError(
            f"{name}: {setting['_target_']} needs the package '{package}', which is not installed{install}"
        )
    try:
        built = _instantiate(setting)
    except InputError:
        raise
    except Exception as error:  # arbitrary code of a network, with arguments that may not fit
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise InputError(f"{name} cannot be built: {setting['_target_']}: {reason}") from error
    if not isinstance(built, nn.Module):
        raise InputError(f"{name}: {setting['_target_']} gives {type(built).__name__}, not a torch.nn.Module")
    return built


def _instantiate(setting: Any) -> Any:
    if isinstance(setting, list | tuple):
        return [_instantiate(item) for item in setting]
    if not isinstance(setting, Mapping):
        return setting
    values = {str(key): _instantiate(value) for key, value in setting.items()}
    if "_target_" not in values:
        return values
    target = pkgutil.resolve_name(values.pop("_target_"))
    values.pop("_convert_", None)  # Hydra's flag for plain containers, which these already are
    positional, partial = values.pop("_args_", ()), values.pop("_partial_", False)
    return functools.partial(target, *positional, **values) if partial else target(*positional, **values)
