"""Python values in Hydra's override grammar."""

import re
from collections.abc import Mapping
from numbers import Integral, Real
from pathlib import Path

import numpy as np

from spleen.config.overrides import quoted
from spleen.errors import InputError


def as_overrides(settings: Mapping[str, object]) -> list[str]:
    """Settings as overrides in Hydra's grammar; the mapping of a section becomes one override for each of its keys.

    Raises InputError for a value that a configuration cannot hold.
    """
    overrides = []
    for key, value in settings.items():
        if isinstance(value, Mapping) and "." not in key:
            overrides += [f"{key}.{inner}={_as_value(each)}" for inner, each in value.items()]
        else:
            overrides.append(f"{key}={_as_value(value)}")
    return overrides


def _as_value(value: object) -> str:
    match value:
        case None:
            return "null"
        case bool() | np.bool_():
            return str(bool(value)).lower()
        case str() | Path():
            return quoted(value)
        case Integral():
            return str(int(value))
        case Real():
            return repr(float(value))
        case Mapping():
            return f"{{{','.join(f'{_as_key(key)}:{_as_value(inner)}' for key, inner in value.items())}}}"
        case list() | tuple():
            return f"[{','.join(map(_as_value, value))}]"
    raise InputError(
        f"a setting is a string, number, bool, None, path, list or mapping; got {value!r}, a {type(value).__name__}"
    )


def _as_key(key: object) -> str:
    """The key of a mapping, with the characters that end one escaped."""
    return re.sub(r"([\\()\[\]{}:=, \t])", r"\\\1", str(key))
