"""The results of a study: its arms, the best one, its comparison with the next, and the runs without results.

    import spleen
    study = spleen.results("outputs/size_and_rate")
    study.selected.test_dice.mean, study.comparison.verdict

Reads only run folders: no account, no network, no torch.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from spleen.errors import InputError
from spleen.records.reading import FinishedRun, OtherRun, find_runs, read_run
from spleen.records.settings import setting_text
from spleen.reporting.tables import Cell, to_html
from spleen.runs.results.arms import Arm, best_first, group_runs
from spleen.runs.results.columns import SettingColumn
from spleen.runs.results.comparison import ArmComparison, compare_arms

Sort = Literal["val", "test"]


@dataclass(frozen=True, repr=False)
class StudyResults:
    """The arms of the runs in `folder`, in the requested order, and in `others` the runs without results.

    `selected` is the best arm by validation Dice, independent of the order; report its `test_dice`. It is None without
    validation, because selecting by test Dice would bias it upwards.
    `comparison` is with the next arm by validation, None if there is no other. `repeat_keys` are the settings in which
    the runs of an arm differ; `over` is what scores and intervals are computed over.
    """

    folder: Path
    sort: Sort
    columns: tuple[SettingColumn, ...]
    arms: tuple[Arm, ...]
    repeat_keys: tuple[str, ...]
    over: Literal["runs", "cases"]
    selected: Arm | None
    comparison: ArmComparison | None
    others: tuple[OtherRun, ...]

    @property
    def n_finished(self) -> int:
        """Number of finished runs in all arms."""
        return sum(arm.n_runs for arm in self.arms)

    def __repr__(self) -> str:
        best = "" if self.selected is None else f"; best {self.selected.label}"
        return f"StudyResults({self.folder}, {len(self.arms)} arm(s), {self.n_finished} finished run(s){best})"

    def _repr_html_(self) -> str:
        headings = [*(column.title for column in self.columns), "runs", "val Dice", "test Dice", "test Jaccard"]
        rows: list[list[Cell]] = []
        for arm in self.arms:
            settings = [setting_text(arm.settings.get(column.key)) for column in self.columns]
            scores = arm.val_dice.mean, arm.test_dice.mean, arm.test_jaccard.mean
            rows.append([*settings, arm.n_runs, *scores])
        return to_html(headings, rows)


def results(folder: Path | str, sort: Sort = "val", group_by: Sequence[str] = ()) -> StudyResults:
    """Read the run folders at `folder` and up to three levels below it.

    `sort` orders the arms by validation or test Dice. `group_by` names the settings that define an arm, such as
    ["axis"] or ["lr", "augment"]; by default all but seed and fold. Unfinished, failed and broken runs are listed in
    `others`. Raises InputError for a folder that does not exist or contains no run, and for an invalid option.
    """
    if sort not in ("val", "test"):
        raise InputError(f"sort must be val or test; got {sort!r}")
    folder = Path(folder)
    runs = [read_run(found) for found in find_runs(folder)]
    if not runs:
        raise InputError(
            f"{folder} and the folders up to three levels below it contain no run; a run folder contains config.yaml, "
            "and summary.json once it is finished"
        )
    others = [run for run in runs if isinstance(run, OtherRun)]
    grouped = group_runs([run for run in runs if isinstance(run, FinishedRun)], group_by)
    arms = grouped.arms
    validated = [arm for arm in arms if not math.isnan(arm.val_dice.mean)]
    return StudyResults(
        folder=folder,
        sort=sort,
        columns=grouped.columns,
        arms=arms if sort == "val" else tuple(sorted(arms, key=lambda arm: best_first(arm.test_dice.mean))),
        repeat_keys=grouped.repeat_keys,
        over=grouped.over,
        selected=validated[0] if validated else None,
        comparison=compare_arms(*validated[:2]) if len(validated) > 1 else None,
        others=tuple(sorted([*others, *grouped.left_out], key=lambda run: (run.state, run.folder))),
    )
