"""The arms of a study: groups of runs that differ only in seed and fold, and their scores."""

import math
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from spleen.records.cases import CaseRow, Metric, ScoredSplit, case_means, count_folds, mean_of_known, read_cases
from spleen.records.reading import BrokenRunError, FinishedRun, OtherRun, Setting
from spleen.records.settings import (
    differing_keys,
    fold_of,
    is_fold,
    learning_rate_text,
    runs_by,
    setting_text,
    settings_that_matter,
)
from spleen.runs.results.columns import SettingColumn, choose_columns, keys_named
from spleen.runs.results.statistics import Score, score_over_cases, score_over_runs

Repeat = tuple[Setting, ...]
_Key = tuple[ScoredSplit, Metric]


@dataclass(frozen=True)
class Folds:
    """Number of folds of a cross-validation, and those without a finished run for at least one seed."""

    n: int
    missing: tuple[int, ...]


@dataclass(frozen=True)
class Arm:
    """Runs with the same settings except seed and fold.

    `settings` are keyed by the table's columns, and `runs` by their values of `Arms.repeat_keys`. A score is a mean
    over the runs, or over the cases of all folds; `minutes` is the mean per run. `test_dice_by_class` is empty unless
    there are several classes. `folds` is None if the number of folds is unknown.
    """

    settings: Mapping[str, Setting]
    label: str
    runs: Mapping[Repeat, FinishedRun]
    val_dice: Score
    test_dice: Score
    test_jaccard: Score
    minutes: float
    test_dice_by_class: Mapping[str, Score]
    folds: Folds | None

    @property
    def n_runs(self) -> int:
        """Number of averaged runs."""
        return len(self.runs)


@dataclass(frozen=True)
class Arms:
    """The arms of a study, best validation Dice first.

    `repeat_keys` are the settings in which the runs of an arm differ: at most seed and fold, unless the user requested
    larger groups. With folds, scores are means over "cases", so that every case counts once.
    A run without a numbered fold ("all", or none) is not part of a cross-validation and never joins its arm.
    """

    arms: tuple[Arm, ...]
    columns: tuple[SettingColumn, ...]
    repeat_keys: tuple[str, ...]
    over: Literal["runs", "cases"]
    left_out: tuple[OtherRun, ...]


@dataclass(frozen=True)
class _Scores:
    """The scores of an arm."""

    means: Mapping[_Key, Score]
    test_dice_by_class: Mapping[str, Score]


@dataclass(frozen=True)
class _Member:
    """A run with the settings that may change its result."""

    run: FinishedRun
    settings: Mapping[str, Setting]

    @property
    def fold(self) -> Setting:
        """The number of its fold in a cross-validation; "all" or None if it is not part of one."""
        return fold_of(self.settings)

    def at(self, keys: Sequence[str]) -> Repeat:
        return tuple(self.settings.get(key) for key in keys)


def group_runs(runs: Sequence[FinishedRun], group_by: Sequence[str] = ()) -> Arms:
    """Group runs into arms and score these.

    `group_by` names the settings that define an arm; by default all but the seed, a split seed equal to it, and the
    fold. Of several runs with equal settings and seed the newest counts. Raises InputError for an unknown name.
    """
    if not runs:
        return Arms((), (), (), "runs", ())
    members = [_Member(run, settings) for run, settings in zip(runs, settings_that_matter(runs), strict=True)]
    differing = differing_keys([member.settings for member in members])
    groups = _groups(members, differing, group_by)
    varying = {key for group in groups for key in differing_keys([member.settings for member in group])}
    by_case = any(isinstance(member.fold, int) for member in members)
    if by_case:  # even a single fold is part of a cross-validation
        varying |= {key for member in members for key in member.settings if is_fold(key)}
    repeat_keys = tuple(dict.fromkeys(key for member in members for key in member.settings if key in varying))
    left_out: list[OtherRun] = []
    newest = [_newest(group, repeat_keys, left_out) for group in groups]
    scored = [(group, _scored(group, by_case, left_out)) for group in newest]
    arms, columns = _name([(group, scores) for group, scores in scored if group], varying)
    arms.sort(key=lambda arm: best_first(arm.val_dice.mean))
    return Arms(tuple(arms), columns, repeat_keys, "cases" if by_case else "runs", tuple(left_out))


def _groups(members: Sequence[_Member], differing: Sequence[str], group_by: Sequence[str]) -> list[list[_Member]]:
    """The members of each arm."""
    if group_by:
        arm_keys = keys_named(group_by, [member.settings for member in members])
    else:
        arm_keys = [key for key in differing if key != "seed" and not is_fold(key)]
    groups = runs_by([member.settings for member in members], arm_keys)
    return [[members[number] for number in group] for group in groups]


def _name(
    scored: Sequence[tuple[dict[Repeat, _Member], _Scores]], varying: Collection[str]
) -> tuple[list[Arm], tuple[SettingColumn, ...]]:
    """The arms with the settings and the label that distinguish them, and the columns."""
    settings_of = [next(iter(group.values())).settings for group, _ in scored]
    if len({isinstance(next(iter(group.values())).fold, int) for group, _ in scored}) > 1:
        varying = {key for key in varying if not is_fold(key)}
        settings_of = [_with_folds(group) for group, _ in scored]
    columns, values = choose_columns(settings_of, varying)
    arms = [
        Arm(
            settings=settings,
            label=label,
            runs={repeat: member.run for repeat, member in group.items()},
            val_dice=scores.means["val", "dice"],
            test_dice=scores.means["test", "dice"],
            test_jaccard=scores.means["test", "jaccard"],
            minutes=mean_of_known([member.run.wall_seconds / 60 for member in group.values()]),
            test_dice_by_class=scores.test_dice_by_class,
            folds=_folds(list(group.values())),
        )
        for (group, scores), settings, label in zip(scored, values, _labels(columns, values), strict=True)
    ]
    return arms, tuple(columns)


def _with_folds(group: Mapping[Repeat, _Member]) -> dict[str, Setting]:
    """The settings of an arm, with all of its folds listed."""
    settings = dict(next(iter(group.values())).settings)
    folds = sorted({member.fold for member in group.values() if isinstance(member.fold, int)})
    return {key: ",".join(map(str, folds)) if folds and is_fold(key) else value for key, value in settings.items()}


def _folds(members: Sequence[_Member]) -> Folds | None:
    having: dict[Repeat, set[int]] = defaultdict(set)
    known: list[int] = []
    for member in members:
        if isinstance(member.fold, int):
            having[tuple(value for key, value in member.settings.items() if not is_fold(key))].add(member.fold)
            count = count_folds(member.run.folder) or member.settings.get("split.folds")
            known += [count] if isinstance(count, int) else []
    if not known:
        return None
    missing = {fold for folds in having.values() for fold in set(range(max(known))) - folds}
    return Folds(max(known), tuple(sorted(missing)))


def best_first(score: float) -> float:
    """A sorting key: the highest score first, NaN last."""
    return math.inf if math.isnan(score) else -score


def _newest(group: Sequence[_Member], repeat_keys: Sequence[str], left_out: list[OtherRun]) -> dict[Repeat, _Member]:
    """The runs of an arm, sorted by the values of `repeat_keys`; of equal ones only the newest."""
    kept: dict[Repeat, _Member] = {}
    for member in sorted(group, key=lambda member: member.run.finished_at, reverse=True):
        newer = kept.setdefault(member.at(repeat_keys), member)
        if newer is not member:
            left_out.append(
                OtherRun(member.run.folder, "repeated", f"{newer.run.folder} is a newer run with the same settings")
            )
    return dict(sorted(kept.items(), key=lambda item: [(str(type(value)), value) for value in item[0]]))


def _scored(group: dict[Repeat, _Member], by_case: bool, left_out: list[OtherRun]) -> _Scores:
    """The scores of an arm. Runs with unreadable cases are left out, and removed from `group`."""
    keys: list[_Key] = [("val", "dice"), ("test", "dice"), ("test", "jaccard")]
    if not by_case:
        means = {key: score_over_runs([_mean(member.run, *key) for member in group.values()]) for key in keys}
        of_runs = [member.run.test.dice_by_class for member in group.values()]
        names = _several(name for of_run in of_runs for name in of_run)
        nan = math.nan
        return _Scores(means, {name: score_over_runs([of_run.get(name, nan) for of_run in of_runs]) for name in names})
    cases: list[tuple[CaseRow, ...]] = []
    for repeat, member in list(group.items()):
        try:
            cases.append(read_cases(member.run.folder))
        except BrokenRunError as error:
            left_out.append(OtherRun(member.run.folder, "broken", str(error)))
            del group[repeat]
    means = {key: score_over_cases(list(case_means(cases, *key).values())) for key in keys}
    names = _several(row.class_name for rows in cases for row in rows if row.split == "test")
    of_class = {name: case_means(cases, "test", "dice", name) for name in names}
    return _Scores(means, {name: score_over_cases(list(of_case.values())) for name, of_case in of_class.items()})


def _several(names: Iterable[str]) -> list[str]:
    """The distinct names in order; empty if there is only one."""
    different = list(dict.fromkeys(names))
    return different if len(different) > 1 else []


def _mean(run: FinishedRun, split: ScoredSplit, metric: Metric) -> float:
    means = run.val if split == "val" else run.test
    return means.dice if metric == "dice" else means.jaccard


def _labels(columns: Sequence[SettingColumn], values: Sequence[Mapping[str, Setting]]) -> list[str]:
    """A short label for each arm: the values in which it differs, or the usual four if it is the only one."""
    differing = differing_keys(values) or [column.key for column in columns]
    return [", ".join(_words(key, each.get(key)) for key in differing) or "all runs" for each in values]


def _words(key: str, value: Setting) -> str:
    text = learning_rate_text(value) if key == "lr" else setting_text(value)
    if key in ("model.name", "axis"):
        return text
    if key == "img_size":
        return "native grid" if text == "native" else f"{text} px"
    return f"{key.rsplit('.', 1)[-1]} {text}"
