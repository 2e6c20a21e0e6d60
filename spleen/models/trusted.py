"""The network classes that a checkpoint may name, so that an untrusted checkpoint cannot run code."""

from collections.abc import Iterable, Iterator, Mapping
from importlib import import_module
from typing import Any

from torch import nn

from spleen.errors import InputError

TRUSTED_PACKAGES = ("spleen.models", "monai.networks", "torch.nn", "segmentation_models_pytorch")
# Parts of argument names by which library networks download or unpickle files.
_LOADING_WORDS = ("pretrain", "url", "path", "file", "download", "checkpoint")
# Characters of a path, URL or repository in a value, such as encoder_name=tu-hf-hub:someone/something.
_PATH_CHARACTERS = ("/", "\\", ":")


def check_network_setting(network: Mapping[str, Any], allow_custom_code: bool) -> None:
    """Raise InputError unless every `_target_` in a network setting is a network class of a trusted package.

    The class must subclass torch.nn.Module and be defined inside such a package: a path through a package's own
    imports (monai.networks.nets.os.system) is refused. `allow_custom_code` disables the check.
    """
    if allow_custom_code:
        return
    for key, value in _walk(network):
        if key == "_target_":
            _check_target(str(value))
        elif (value and _any_in(_LOADING_WORDS, key.lower())) or (
            isinstance(value, str) and _any_in(_PATH_CHARACTERS, value)
        ):
            raise InputError(
                f"its network is built with {key}={value!r}, which may load files; if you trust this run, "
                "add --allow-custom-code"
            )


def _any_in(parts: Iterable[str], text: str) -> bool:
    return any(part in text for part in parts)


def _walk(setting: object, key: str = "") -> Iterator[tuple[str, object]]:
    if isinstance(setting, Mapping):
        for name, value in setting.items():
            yield from _walk(value, str(name))
    elif isinstance(setting, list | tuple):
        for value in setting:
            yield from _walk(value, key)
    else:
        yield key, setting


def _check_target(target: str) -> None:
    module_name, _, class_name = target.rpartition(".")
    if _inside(module_name) and _is_network(module_name, class_name):
        return
    raise InputError(
        f"its network is '{target}', and only network classes of {', '.join(TRUSTED_PACKAGES)} are built by default, "
        "since building a class runs its code; if you trust this run, add --allow-custom-code"
    )


def _inside(module_name: str) -> bool:
    return any(module_name == package or module_name.startswith(f"{package}.") for package in TRUSTED_PACKAGES)


def _is_network(module_name: str, class_name: str) -> bool:
    try:
        found = getattr(import_module(module_name), class_name, None)
    except ImportError as error:
        raise InputError(f"its network needs the module '{module_name}', which is not installed ({error})") from error
    return isinstance(found, type) and issubclass(found, nn.Module) and _inside(found.__module__)
