"""What the runs of a study say: the best arm, how sure that is, and which runs are missing.

    import spleen
    study = spleen.results("outputs/size_and_rate")
    study.selected.test_dice.mean, study.comparison.verdict

Run folders are all that is read: no account, no network, no torch.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from spleen.errors import InputError
from spleen.records.reading import FinishedRun, OtherRun, find_runs, read_run
from spleen.reporting.tables import Cell, to_html
from spleen.runs.results.arms import Arm, best_first, group_runs
from spleen.runs.results.columns import SettingColumn, setting_text
from spleen.runs.results.comparison import Comparison, compare_arms

Sort = Literal["val", "test"]


@dataclass(frozen=True, repr=False)
class StudyResults:
    """The arms of the runs in `folder`, in the wanted order, and the runs that add nothing, in `others`.

    `selected` is the best arm by validation Dice, whatever the order; the number to report is its `test_dice`. Where
    nothing was validated it is None: a choice by test Dice would make that Dice too high.
    `comparison` is with the next arm by validation, None where there is no other. `repeat_keys` are the settings in
    which the runs of an arm differ; `over` says what scores are means of and what their intervals are over.
    """

    folder: Path
    sort: Sort
    columns: tuple[SettingColumn, ...]
    arms: tuple[Arm, ...]
    repeat_keys: tuple[str, ...]
    over: Literal["runs", "cases"]
    selected: Arm | None
    comparison: Comparison | None
    others: tuple[OtherRun, ...]

    @property
    def n_finished(self) -> int:
        """How many finished runs the arms hold."""
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

    `sort` orders the arms by validation or test Dice. `group_by` names the settings that make an arm, such as
    ["axis"] or ["lr", "augment"]; by default all but seed and fold. Runs that are unfinished, failed or broken are
    listed, not fatal. Raises InputError for a folder that does not exist or holds no run, and for a wrong option.
    """
    if sort not in ("val", "test"):
        raise InputError(f"sort must be val or test; got {sort!r}")
    folder = Path(folder)
    runs = [read_run(found) for found in find_runs(folder)]
    if not runs:
        raise InputError(
            f"{folder} holds no run, nor do the folders up to three levels below it; a run folder holds config.yaml, "
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
