"""A run's configuration beside the shipped defaults, and the command that runs it again."""

import re
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from spleen.config.override_values import as_overrides
from spleen.config.overrides import parse_override
from spleen.records.effect import COUNTING_BY_CONTENT, has_effect
from spleen.system.nested import flatten
from spleen.system.resources import conf_folder, train_command

_EXPONENT = re.compile(r"[-+]?\d+\.?\d*[eE][-+]?\d+")  # PyYAML reads 1e-4, without a dot, as a string
_REFERENCE = re.compile(r"\$\{([\w.]+)\}")
_ABSENT = object()
HIDDEN = "(path not shown)"


@dataclass(frozen=True)
class ShownSetting:
    """One setting as text; `default` is None where the shipped defaults have no such key."""

    key: str
    value: str
    default: str | None
    differs: bool


def compare_with_defaults(config: Mapping[str, Any], identifying: bool) -> tuple[ShownSetting, ...]:
    """Every setting beside its default: for a group first its option, then the values beside those of this option.

    Where the run's outputs and caches lie never counts as different. Unless `identifying`, paths are left out.
    """
    shown: list[ShownSetting] = []
    values, choices = _train_values(), _default_choices()
    for name, recorded in config.items():
        if name in choices and isinstance(recorded, dict):
            chosen = _closest(name, config)
            shown.append(ShownSetting(name, chosen, choices[name], chosen != choices[name]))
            defaults = flatten(_option(name, chosen), f"{name}.")
        else:
            defaults = flatten({name: values[name]}) if name in values else {}
        keys = flatten({name: recorded})
        shown += [_shown(key, value, _default_of(key, defaults), config, identifying) for key, value in keys.items()]
    return tuple(shown)


def _default_of(key: str, defaults: Mapping[str, object]) -> object:
    """The default of a key, or of the key that holds it: a mapping may stand where the default is null."""
    if key in defaults:
        return defaults[key]
    parent = key.rpartition(".")[0]
    return defaults.get(parent, _ABSENT)


def _shown(key: str, value: object, default: object, config: Mapping[str, Any], identifying: bool) -> ShownSetting:
    default = _resolved(default, config)
    is_location = isinstance(default, str) and "${" in default
    text = HIDDEN if not identifying and is_path(key, value) else _text(value)
    shown_default = None if default is _ABSENT else "in the work folder" if is_location else _text(default)
    return ShownSetting(key, text, shown_default, not is_location and not _is_same(value, default))


def is_path(key: str, value: object) -> bool:
    """Whether a setting is the path of a file, or may contain one."""
    if isinstance(value, Mapping):
        return any(is_path(key, each) for each in value.values())
    if isinstance(value, list):
        return any(is_path(key, each) for each in value)
    if not isinstance(value, str):
        return False
    return key in COUNTING_BY_CONTENT or "/" in value or "\\" in value or value.startswith("~")


def command(config: Mapping[str, Any], identifying: bool) -> str:
    """The command that trains with these settings, quoted for a POSIX shell.

    Only what has an effect on the result is given, and only where it differs from the option's defaults. Unless
    `identifying`, a word in capitals stands for each path.
    """
    return " ".join([train_command(), *map(shlex.quote, _overrides(config, identifying))])


def _overrides(config: Mapping[str, Any], identifying: bool) -> Iterator[str]:
    chosen = {group: _closest(group, config) for group in _default_choices() if isinstance(config.get(group), dict)}
    follows_data = "override /intensity" in _option_text("data", chosen.get("data", ""))
    for group in sorted(chosen, key=lambda name: name != "data"):  # data first: it may choose other options
        if has_effect(group) and (
            chosen[group] != _default_choices()[group] or (group == "intensity" and follows_data)
        ):
            yield f"{group}={chosen[group]}"
        yield from _differences(f"{group}.", config[group], _option(group, chosen[group]), config, identifying)
    own = {key: value for key, value in config.items() if key not in chosen}
    yield from _differences("", own, _train_values(), config, identifying)


def _differences(
    prefix: str, values: Mapping[str, Any], defaults: Mapping[str, Any], config: Mapping[str, Any], identifying: bool
) -> Iterator[str]:
    for name, value in values.items():
        key, default = f"{prefix}{name}", _resolved(defaults.get(name, _ABSENT), config)
        if not has_effect(key) or _is_same(value, default):
            continue
        if isinstance(value, Mapping) and isinstance(default, Mapping) and default:
            yield from _differences(f"{key}.", value, default, config, identifying)
            continue
        if not identifying and is_path(key, value):
            value = name.upper()
        yield f"{'+' if default is _ABSENT else ''}{key}={_override_value(value)}"


def _override_value(value: object) -> str:
    if isinstance(value, str) and (plain := parse_override(f"key={value}")) and plain.value() == value:
        return value  # readable without quotes
    (override,) = as_overrides({"key.": value})
    return override.removeprefix("key.=")


def _resolved(default: object, config: Mapping[str, Any]) -> object:
    """A default that follows another setting, such as ${seed}, has that setting's value."""
    match = _REFERENCE.fullmatch(default) if isinstance(default, str) else None
    return flatten(config).get(match[1]) if match else default


def _is_same(value: object, default: object) -> bool:
    if isinstance(value, bool) or isinstance(default, bool):
        return value is default
    return _as_number(value) == _as_number(default)


def _as_number(value: object) -> object:
    return float(value) if isinstance(value, str) and _EXPONENT.fullmatch(value) else value


def _text(value: object) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return f"{value:.9g}"
    if isinstance(value, list | dict):
        return yaml.safe_dump(value, default_flow_style=True, width=1000, allow_unicode=True).strip()
    return str(value)


# The shipped configuration ------------------------------------------------------------------------------------------


def _closest(group: str, config: Mapping[str, Any]) -> str:
    """The option of a group from which the recorded values differ least; of equals the default, then by name."""
    recorded, default = flatten(config[group]), _default_choices()[group]

    def distance(name: str) -> tuple[bool, int, bool]:
        option = flatten(_option(group, name))
        keys = recorded.keys() | option.keys()
        n_different = sum(
            not _is_same(recorded.get(key, _ABSENT), _resolved(option.get(key, _ABSENT), config)) for key in keys
        )
        return option.get("kind") != recorded.get("kind"), n_different, name != default

    return min(sorted(path.stem for path in (conf_folder() / group).glob("*.yaml")), key=distance)


def _default_choices() -> dict[str, str]:
    """The default option of each group of conf/."""
    chosen: dict[str, str] = {}
    for entry in _read("train.yaml")["defaults"]:
        if isinstance(entry, dict):
            chosen |= {group: name for group, name in entry.items() if name and (conf_folder() / group).is_dir()}
    return chosen


def _train_values() -> dict[str, Any]:
    return {key: value for key, value in _read("train.yaml").items() if key not in ("defaults", "hydra")}


def _option(group: str, name: str) -> dict[str, Any]:
    return {key: value for key, value in _read(f"{group}/{name}.yaml").items() if key != "defaults"}


def _option_text(group: str, name: str) -> str:
    path = conf_folder() / group / f"{name}.yaml"
    return path.read_text(encoding="utf-8") if path.is_file() else ""


@cache
def _read(name: str) -> dict[str, Any]:
    content = yaml.safe_load(Path(conf_folder() / name).read_text(encoding="utf-8"))
    return content if isinstance(content, dict) else {}
