"""Which settings tell the arms of a study apart, and by what name."""

import os
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np

from spleen.config.effect import has_effect
from spleen.errors import InputError
from spleen.records.reading import BrokenRunError, FinishedRun, Setting, read_settings
from spleen.records.renamed_keys import current_key
from spleen.system.resources import conf_folder

Settings = Mapping[str, Setting]

ALWAYS_SHOWN = {"model.name": "model", "axis": "axis", "img_size": "image size", "lr": "learning rate"}

_NAMING = ("name", "kind", "_target_", "image")  # In a group, the other keys may merely follow from one of these.
_FOLLOWING = "${seed}"


@dataclass(frozen=True)
class SettingColumn:
    """A column of the table: the key, or the group whose options differ, and its heading."""

    key: str
    title: str


def settings_that_matter(runs: Sequence[FinishedRun]) -> list[dict[str, Setting]]:
    """Of each run the settings that may change its result. A split.seed that follows the seed reads "${seed}"."""
    kept = [{k: v for k, v in run.settings.items() if has_effect(k)} for run in runs]
    following = [each.get("split.seed") in (each.get("seed"), _FOLLOWING) for each in kept]
    alike: dict[frozenset[tuple[str, Setting]], list[int]] = {}
    for number, each in enumerate(kept):
        rest = frozenset(
            item for item in each.items() if item[0] not in ("seed", "split.seed") and not is_fold(item[0])
        )
        alike.setdefault(rest, []).append(number)
    for numbers in alike.values():
        # With one seed alone nobody can tell, so it is read as the other runs are.
        several = len({kept[number].get("seed") for number in numbers}) > 1
        if all(following) or (several and all(following[number] for number in numbers)):
            for number in numbers:
                kept[number]["split.seed"] = _FOLLOWING
    return kept


def differing_keys(settings: Sequence[Settings]) -> list[str]:
    """The keys whose value is not the same everywhere, in the order of the configuration."""
    keys = dict.fromkeys(key for each in settings for key in each)
    return [key for key in keys if len({_distinct(each.get(key)) for each in settings}) > 1]


def _distinct(value: Setting) -> tuple[bool, Setting]:
    return isinstance(value, bool), value  # else True would be 1


def is_fold(key: str) -> bool:
    """Whether a key numbers the folds of a cross-validation."""
    return key.rsplit(".", 1)[-1] == "fold"


def keys_named(names: Sequence[str], settings: Sequence[Settings]) -> list[str]:
    """The keys that the names stand for: a key itself, a group with all that is in it, or a heading of the table.

    Raises InputError for a name that no run knows.
    """
    known = dict.fromkeys(key for each in settings for key in each)
    by_title = {title: key for key, title in ALWAYS_SHOWN.items() if title not in known}
    chosen: dict[str, None] = {}
    for name in names:
        key = by_title.get(name, current_key(name))
        matching = [other for other in known if other == key or other.startswith(f"{name}.")]
        if not matching:
            differing = ", ".join(differing_keys(settings)) or "none"
            raise InputError(f"--group-by {name}: no run has such a setting; those that differ here: {differing}")
        chosen.update(dict.fromkeys(matching))
    return list(chosen)


def choose_columns(
    arms: Sequence[Settings], varying: Collection[str]
) -> tuple[list[SettingColumn], list[dict[str, Setting]]]:
    """The columns that tell the arms apart, and each arm's values in them.

    `arms` holds the settings of one run of each arm, `varying` the keys in which runs of the same arm differ.
    Model, axis, image size and learning rate always come first. Of the other keys those are shown that differ; but
    where every arm has one of the shipped options of a group (augment=none|light|strong), the name of the option
    stands for all its keys, and what merely follows from a name (the network of model.name) is left out.
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
    """Absolute paths as seen from the folder that they share; other values as they are."""
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
    """For each arm the shipped option that its group of settings equals; None where an arm's group equals none."""
    options = {_items(group, settings): name for name, settings in _shipped_options(group)}
    chosen = [options.get(_items(group, arm)) for arm in arms]
    return None if None in chosen else list(chosen)


def _items(group: str, settings: Settings) -> frozenset[tuple[str, Setting]]:
    return frozenset((key, value) for key, value in settings.items() if key.startswith(f"{group}."))


@cache
def _shipped_options(group: str) -> list[tuple[str, dict[str, Setting]]]:
    options = []
    for path in sorted((conf_folder() / group).glob("*.yaml")):
        try:
            settings = read_settings(path)
        except (BrokenRunError, OSError):
            continue
        options.append((path.stem, {f"{group}.{key}": value for key, value in settings.items()}))
    return options


def _not_following(group: str, keys: Sequence[str], arms: Sequence[Settings]) -> list[str]:
    """The keys of a group without those that are a function of what names the group's content."""
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


def setting_text(value: Setting) -> str:
    """A setting as the configuration would write it."""
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "true" if value else "false"
    return f"{value:g}" if isinstance(value, float) else str(value)


def learning_rate_text(value: Setting) -> str:
    """A learning rate as 1e-04, the way the tables write it."""
    if isinstance(value, bool | str) or value is None:
        return setting_text(value)
    return np.format_float_scientific(value, precision=3, trim="-", exp_digits=2)
