"""The settings in which the arms of a study differ, as columns of a table."""

import os
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from spleen.errors import InputError
from spleen.records.reading import BrokenRunError, Setting, read_settings
from spleen.records.renamed_keys import current_key
from spleen.records.settings import Settings, differing_keys
from spleen.system.resources import conf_folder

ALWAYS_SHOWN = {"model.name": "model", "axis": "axis", "img_size": "image size", "lr": "learning rate"}

_NAMING = ("name", "kind", "_target_", "image")  # in a group, the other keys may be determined by one of these


@dataclass(frozen=True)
class SettingColumn:
    """A column of the table: a key, or a group whose options differ, and its heading."""

    key: str
    title: str


def keys_named(names: Sequence[str], settings: Sequence[Settings]) -> list[str]:
    """The keys that the names refer to: a key, a whole group, or a heading of the table.

    Raises InputError for an unknown name.
    """
    known = dict.fromkeys(key for each in settings for key in each)
    by_title = {title: key for key, title in ALWAYS_SHOWN.items() if title not in known}
    chosen: dict[str, None] = {}
    for name in names:
        key = by_title.get(name, current_key(name))
        matching = [other for other in known if other == key or other.startswith(f"{name}.")]
        if not matching:
            differing = ", ".join(differing_keys(settings)) or "none"
            raise InputError(
                f"--group-by {name}: no run has such a setting; the settings that differ here are: {differing}"
            )
        chosen.update(dict.fromkeys(matching))
    return list(chosen)


def choose_columns(
    arms: Sequence[Settings], varying: Collection[str]
) -> tuple[list[SettingColumn], list[dict[str, Setting]]]:
    """The columns that distinguish the arms, and each arm's values in them.

    `arms` has the settings of one run of each arm, `varying` the keys in which runs of the same arm differ.
    Model, axis, image size and learning rate always come first, followed by the other keys that differ. If every arm
    has one of the shipped options of a group (augment=none|light|strong), the name of the option replaces its keys;
    keys that are determined by a name (the network by model.name) are left out.
    """
    columns = [SettingColumn(key, title) for key, title in ALWAYS_SHOWN.items() if key not in varying]
    values: list[dict[str, Setting]] = [{column.key: arm.get(column.key) for column in columns} for arm in arms]
    others = [key for key in differing_keys(arms) if key not in varying and key not in ALWAYS_SHOWN]
    for group, keys in _by_group(others).items():
        options = _options_chosen(group, arms) if len(keys) > 1 and group != "model" else None
        if options is not None:
            columns.append(SettingColumn(group, group))
            for value, option in zip(values, options, strict=True):
                value[group] = option
            continue
        for key in _not_following(group, keys, arms):
            columns.append(SettingColumn(key, key))
            for value, text in zip(values, _without_common_folder([arm.get(key) for arm in arms]), strict=True):
                value[key] = text
    return columns, values


def _without_common_folder(values: Sequence[Setting]) -> Sequence[Setting]:
    """Absolute paths relative to their common folder; other values unchanged."""
    paths = [value for value in values if isinstance(value, str) and Path(value).is_absolute()]
    if len(paths) < len(values):
        return values
    shared = os.path.commonpath([Path(path).parent for path in paths])
    return [os.path.relpath(path, shared) for path in paths]


def _by_group(keys: Iterable[str]) -> dict[str, list[str]]:
    groups: dict[str, list[str]] = {}
    for key in keys:
        groups.setdefault(key.split(".")[0], []).append(key)
    return groups


def _options_chosen(group: str, arms: Sequence[Settings]) -> list[Setting] | None:
    """The shipped option of a group that each arm has; None if an arm has other settings."""
    options = {_items(group, settings): name for name, settings in shipped_options(group)}
    chosen = [options.get(_items(group, arm)) for arm in arms]
    return None if None in chosen else list(chosen)


def _items(group: str, settings: Settings) -> frozenset[tuple[str, Setting]]:
    return frozenset((key, value) for key, value in settings.items() if key.startswith(f"{group}."))


@cache
def shipped_options(group: str) -> list[tuple[str, dict[str, Setting]]]:
    """The shipped options of a configuration group: the name of each, and its settings by dotted key."""
    options = []
    for path in sorted((conf_folder() / group).glob("*.yaml")):
        try:
            settings = read_settings(path)
        except (BrokenRunError, OSError):
            continue
        options.append((path.stem, {f"{group}.{key}": value for key, value in settings.items()}))
    return options


def _not_following(group: str, keys: Sequence[str], arms: Sequence[Settings]) -> list[str]:
    """The keys of a group without those that are determined by its naming keys."""
    names = [f"{group}.{name}" for name in _NAMING]
    naming = [name for name in names if name in ALWAYS_SHOWN]
    kept = []
    for key in sorted(keys, key=lambda key: names.index(key) if key in names else len(names)):
        if not any(_follows(key, name, arms) for name in naming):
            kept.append(key)
            naming += [key] if key in names else []
    return kept


def _follows(key: str, name: str, arms: Sequence[Settings]) -> bool:
    value_of: dict[Setting, Setting] = {}
    return all(value_of.setdefault(arm.get(name), arm.get(key)) == arm.get(key) for arm in arms)
