"""The arms of a study: runs that differ in seed and fold alone, and their scores."""

import math
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from spleen.results_cases import CaseRow, Metric, Stage, case_means, read_cases
from spleen.results_columns import (
    SettingColumn,
    choose_columns,
    differing_keys,
    is_fold,
    keys_named,
    learning_rate_text,
    setting_text,
    settings_that_matter,
)
from spleen.results_folders import BrokenRunError, FinishedRun, OtherRun, Setting
from spleen.results_statistics import Score, mean_of_known, score_over_cases, score_over_runs

Repeat = tuple[Setting, ...]
_Key = tuple[Stage, Metric]


@dataclass(frozen=True)
class Arm:
    """Runs that were to be the same but for seed and fold.

    `settings` are by the keys of the table's columns; `runs` are by what tells them apart within the arm, the values of
    `Arms.repeat_keys`. A score is a mean over the runs, or over the cases of all folds; `minutes` are those of one run.
    """

    settings: Mapping[str, Setting]
    label: str
    runs: Mapping[Repeat, FinishedRun]
    val_dice: Score
    test_dice: Score
    test_jaccard: Score
    minutes: float

    @property
    def n_runs(self) -> int:
        """How many runs were averaged."""
        return len(self.runs)


@dataclass(frozen=True)
class Arms:
    """The arms of a study, best validation Dice first.

    `repeat_keys` are the settings in which the runs of an arm differ: at most the seed and the fold, unless the user
    asked for larger groups. Scores are means over "cases" where there are folds, so that every case counts once.
    """

    arms: tuple[Arm, ...]
    columns: tuple[SettingColumn, ...]
    repeat_keys: tuple[str, ...]
    over: Literal["runs", "cases"]
    left_out: tuple[OtherRun, ...]


@dataclass(frozen=True)
class _Member:
    """A run with the settings that may change its result."""

    run: FinishedRun
    settings: Mapping[str, Setting]

    def at(self, keys: Sequence[str]) -> Repeat:
        return tuple(self.settings.get(key) for key in keys)


def group_runs(runs: Sequence[FinishedRun], group_by: Sequence[str] = ()) -> Arms:
    """Group runs into arms and score those.

    `group_by` names the settings that make an arm; by default all but the seed, a split that follows it, and the fold.
    Of several runs with equal settings and seed the newest counts. Raises InputError for a name that no run knows.
    """
    if not runs:
        return Arms((), (), (), "runs", ())
    members = [_Member(run, settings) for run, settings in zip(runs, settings_that_matter(runs), strict=True)]
    differing = differing_keys([member.settings for member in members])
    groups = _groups(members, differing, group_by)
    varying = {key for group in groups for key in differing_keys([member.settings for member in group])}
    repeat_keys = tuple(key for key in differing if key in varying)
    by_case = any(is_fold(key) for key in repeat_keys)
    left_out: list[OtherRun] = []
    newest = [_newest(group, repeat_keys, left_out) for group in groups]
    scored = [(group, _scores(group, by_case, left_out)) for group in newest]
    arms, columns = _name([(group, scores) for group, scores in scored if group], varying)
    arms.sort(key=lambda arm: best_first(arm.val_dice.mean))
    return Arms(tuple(arms), columns, repeat_keys, "cases" if by_case else "runs", tuple(left_out))


def _groups(members: Sequence[_Member], differing: Sequence[str], group_by: Sequence[str]) -> list[list[_Member]]:
    """The members of each arm."""
    if group_by:
        arm_keys = keys_named(group_by, [member.settings for member in members])
    else:
        arm_keys = [key for key in differing if key != "seed" and not is_fold(key)]
    groups: dict[Repeat, list[_Member]] = defaultdict(list)
    for member in members:
        groups[member.at(arm_keys)].append(member)
    return list(groups.values())


def _name(
    scored: Sequence[tuple[dict[Repeat, _Member], dict[_Key, Score]]], varying: Collection[str]
) -> tuple[list[Arm], tuple[SettingColumn, ...]]:
    """Give each arm the settings and the words by which it is told from the others."""
    columns, values = choose_columns([next(iter(group.values())).settings for group, _ in scored], varying)
    arms = [
        Arm(
            settings=settings,
            label=label,
            runs={repeat: member.run for repeat, member in group.items()},
            val_dice=scores["val", "dice"],
            test_dice=scores["test", "dice"],
            test_jaccard=scores["test", "jaccard"],
            minutes=mean_of_known([member.run.wall_seconds / 60 for member in group.values()]),
        )
        for (group, scores), settings, label in zip(scored, values, _labels(columns, values), strict=True)
    ]
    return arms, tuple(columns)


def best_first(score: float) -> float:
    """A sorting key: the highest score first, NaN last."""
    return math.inf if math.isnan(score) else -score


def _newest(group: Sequence[_Member], repeat_keys: Sequence[str], left_out: list[OtherRun]) -> dict[Repeat, _Member]:
    """The runs of an arm by what tells them apart, in its order; of equal ones the newest, the others are left out."""
    kept: dict[Repeat, _Member] = {}
    for member in sorted(group, key=lambda member: member.run.finished_at, reverse=True):
        newer = kept.setdefault(member.at(repeat_keys), member)
        if newer is not member:
            left_out.append(OtherRun(member.run.folder, "repeated", f"{newer.run.folder} is the same run, and newer"))
    return dict(sorted(kept.items(), key=lambda item: [(str(type(value)), value) for value in item[0]]))


def _scores(group: dict[Repeat, _Member], by_case: bool, left_out: list[OtherRun]) -> dict[_Key, Score]:
    """The scores of an arm. Runs without the cases that are needed are left out, also of `group`."""
    wanted: list[_Key] = [("val", "dice"), ("test", "dice"), ("test", "jaccard")]
    if not by_case:
        return {key: score_over_runs([_mean(member.run, *key) for member in group.values()]) for key in wanted}
    cases: list[tuple[CaseRow, ...]] = []
    for repeat, member in list(group.items()):
        try:
            cases.append(read_cases(member.run.folder))
        except BrokenRunError as error:
            left_out.append(OtherRun(member.run.folder, "broken", str(error)))
            del group[repeat]
    means = {(stage, metric): case_means(cases, stage, metric) for stage, metric in wanted}
    return {key: score_over_cases(list(of_case.values())) for key, of_case in means.items()}


def _mean(run: FinishedRun, stage: Stage, metric: Metric) -> float:
    means = run.val if stage == "val" else run.test
    return means.dice if metric == "dice" else means.jaccard


def _labels(columns: Sequence[SettingColumn], values: Sequence[Mapping[str, Setting]]) -> list[str]:
    """Each arm in a few words: the values in which it differs from others, or the usual four where it is alone."""
    differing = differing_keys(values) or [column.key for column in columns]
    return [", ".join(_words(key, each.get(key)) for key in differing) or "all runs" for each in values]


def _words(key: str, value: Setting) -> str:
    text = learning_rate_text(value) if key == "lr" else setting_text(value)
    if key in ("model.name", "axis"):
        return text
    if key == "img_size":
        return f"{text} px"
    return f"{key.rsplit('.', 1)[-1]} {text}"
