"""The settings of several runs side by side: which matter, which differ, and which runs are of one arm."""

from collections.abc import Mapping, Sequence

import numpy as np

from spleen.records.effect import ADDED, has_effect
from spleen.records.reading import FinishedRun, Setting

Settings = Mapping[str, Setting]

_FOLLOWING = "${seed}"


def settings_that_matter(runs: Sequence[FinishedRun]) -> list[dict[str, Setting]]:
    """The settings of each run that may change its result, also those that an earlier version did not have.

    A split.seed equal to the seed becomes "${seed}".
    """
    kept = [{k: v for k, v in _with_added(run.settings).items() if has_effect(k)} for run in runs]
    following = [each.get("split.seed") in (each.get("seed"), _FOLLOWING) for each in kept]
    alike: dict[frozenset[tuple[str, Setting]], list[int]] = {}
    for number, each in enumerate(kept):
        rest = frozenset(
            item for item in each.items() if item[0] not in ("seed", "split.seed") and not is_fold(item[0])
        )
        alike.setdefault(rest, []).append(number)
    for numbers in alike.values():
        # With a single seed this is ambiguous, so it is treated as in the other runs.
        several = len({kept[number].get("seed") for number in numbers}) > 1
        if all(following) or (several and all(following[number] for number in numbers)):
            for number in numbers:
                kept[number]["split.seed"] = _FOLLOWING
    return kept


def _with_added(settings: Settings) -> Settings:
    return {**settings, **{key: value for key, value in ADDED.items() if key not in settings}}


def differing_keys(settings: Sequence[Settings]) -> list[str]:
    """The keys whose values differ, in the order of the configuration."""
    keys = dict.fromkeys(key for each in settings for key in each)
    return [key for key in keys if len({_distinct(each.get(key)) for each in settings}) > 1]


def _distinct(value: Setting) -> tuple[bool, Setting]:
    return isinstance(value, bool), value  # otherwise True would equal 1


def is_fold(key: str) -> bool:
    """Whether a key is the fold of a cross-validation."""
    return key.rsplit(".", 1)[-1] == "fold"


def fold_of(settings: Settings) -> Setting:
    """The number of the fold in a cross-validation; "all" or None for a run that is not part of one."""
    return next((value for key, value in settings.items() if is_fold(key) and value is not None), None)


def runs_by(settings: Sequence[Settings], keys: Sequence[str]) -> list[list[int]]:
    """The numbers of the runs that have equal values of `keys`, group by group.

    A run without a numbered fold ("all", or none) never joins those of a cross-validation.
    """
    groups: dict[tuple[Setting, ...], list[int]] = {}
    for number, each in enumerate(settings):
        of_fold = "numbered" if isinstance(fold_of(each), int) else fold_of(each)
        groups.setdefault((of_fold, *(each.get(key) for key in keys)), []).append(number)
    return list(groups.values())


def setting_text(value: Setting) -> str:
    """A setting as in the configuration."""
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "true" if value else "false"
    return f"{value:g}" if isinstance(value, float) else str(value)


def learning_rate_text(value: Setting) -> str:
    """A learning rate as in the tables: 1e-04."""
    if isinstance(value, bool | str) or value is None:
        return setting_text(value)
    return np.format_float_scientific(value, precision=3, trim="-", exp_digits=2)
