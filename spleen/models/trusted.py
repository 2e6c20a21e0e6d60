"""The classes that a file from somebody else may name, so that an untrusted folder or checkpoint cannot run code.

Imports nothing heavy at the top: the studies of the current folder are checked at every start.
"""

import inspect
from collections.abc import Iterable, Iterator, Mapping
from importlib import import_module
from typing import Any

from spleen.errors import InputError

TRUSTED_PACKAGES = ("spleen.models", "monai.networks", "monai.losses", "torch.nn", "segmentation_models_pytorch")
# Inside of them, the classes that download code (torch.hub).
_LOADING_MODULES = ("monai.losses.perceptual",)
# Parts of argument names by which library networks download or unpickle files.
_LOADING_WORDS = ("pretrain", "url", "path", "file", "download", "checkpoint")
_ONLY_OWN = "a network of your own is taken where model.network is the same but for its numbers"
# Characters of a path, URL or repository in a value, such as encoder_name=tu-hf-hub:someone/something.
_PATH_CHARACTERS = ("/", "\\", ":")


def check_network_setting(
    network: Mapping[str, Any], allow_custom_code: bool, own: Mapping[str, Any] | None = None
) -> None:
    """Raise InputError unless the network of a checkpoint is built from classes of trusted packages only.

    `allow_custom_code` disables the check, which is `check_part`'s. `own` is the network of the training for which the
    checkpoint is loaded: one that differs from it in numbers only is built from classes that its user has named.
    """
    if own is None and not allow_custom_code:
        check_part("its network", network, "if you trust this run, add --allow-custom-code")
    elif own is not None and _without_numbers(network) != _without_numbers(own):
        check_part("its network", network, _ONLY_OWN)


def _without_numbers(setting: object) -> object:
    """The setting without its numbers and the lists and arguments that are nothing else; None if nothing is left."""
    if isinstance(setting, Mapping):
        return {key: left for key, value in setting.items() if (left := _without_numbers(value)) is not None} or None
    if isinstance(setting, list | tuple):
        left = [_without_numbers(value) for value in setting]
        return None if all(value is None for value in left) else left
    return None if isinstance(setting, int | float) and not isinstance(setting, bool) else setting


def check_part(what: str, setting: object, remedy: str) -> None:
    """Raise InputError unless every `_target_` in the setting of a network or loss is a class of a trusted package.

    The class must subclass torch.nn.Module and be defined inside such a package: a path through a package's own
    imports (monai.networks.nets.os.system) is refused, and so is an argument that makes it load files, or leaving such
    an argument at a default that does. `what` begins the message and `remedy` ends it.
    """
    for part in _mappings(setting):
        if "_target_" in part:
            loads = check_target(what, str(part["_target_"]), remedy)
            for name in loads - set(part):
                raise InputError(f"{what} is built with {name}, which may load files, unless it is false; {remedy}")
    for key, value in _walk(setting):
        if key != "_target_" and (
            (value and _any_in(_LOADING_WORDS, key.lower()))
            or (isinstance(value, str) and _any_in(_PATH_CHARACTERS, value))
        ):
            raise InputError(f"{what} is built with {key}={value!r}, which may load files; {remedy}")


def check_target(what: str, target: str, remedy: str) -> set[str]:
    """Raise InputError unless this is a class as `check_part` describes.

    Returns those of its arguments whose default makes it load files.
    """
    module_name, _, class_name = target.rpartition(".")
    found = _class(what, module_name, class_name) if _inside(module_name, TRUSTED_PACKAGES) else None
    if found is None:
        raise InputError(
            f"{what} is '{target}', and only classes of {', '.join(TRUSTED_PACKAGES)} are built by default, "
            f"since building a class runs its code; {remedy}"
        )
    parameters = inspect.signature(found.__init__).parameters.values()  # type: ignore[misc]
    return {each.name for each in parameters if each.default is True and _any_in(_LOADING_WORDS, each.name.lower())}


def _any_in(parts: Iterable[str], text: str) -> bool:
    return any(part in text for part in parts)


def _mappings(setting: object) -> Iterator[Mapping[str, Any]]:
    """Every mapping in a setting, at any depth."""
    if isinstance(setting, Mapping):
        yield setting
        setting = list(setting.values())
    if isinstance(setting, list | tuple):
        for value in setting:
            yield from _mappings(value)


def _walk(setting: object, key: str = "") -> Iterator[tuple[str, object]]:
    if isinstance(setting, Mapping):
        for name, value in setting.items():
            yield from _walk(value, str(name))
    elif isinstance(setting, list | tuple):
        for value in setting:
            yield from _walk(value, key)
    else:
        yield key, setting


def _inside(module_name: str, packages: Iterable[str]) -> bool:
    return any(module_name == package or module_name.startswith(f"{package}.") for package in packages)


def _class(what: str, module_name: str, class_name: str) -> type | None:
    """The class if it is a network or loss that is defined in a trusted package."""
    from torch import nn

    try:
        found = getattr(import_module(module_name), class_name, None)
    except ImportError as error:
        raise InputError(f"{what} needs the module '{module_name}', which is not installed ({error})") from error
    trusted = (
        isinstance(found, type)
        and issubclass(found, nn.Module)
        and _inside(found.__module__, TRUSTED_PACKAGES)
        and not _inside(found.__module__, _LOADING_MODULES)
    )
    return found if trusted else None
