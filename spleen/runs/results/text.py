"""The table of a study, its conclusions, and the list of runs that are not in it."""

import math
import shutil
import textwrap
from collections.abc import Sequence
from pathlib import Path

from spleen.evaluation.metrics.statistics import FEWEST_PAIRS, Interval
from spleen.records.reading import OtherRun, Setting
from spleen.records.settings import is_fold, learning_rate_text, setting_text
from spleen.reporting.tables import Cell, Column, print_table, render_table, scientific
from spleen.runs.results.arms import Arm, Folds
from spleen.runs.results.columns import ALWAYS_SHOWN, SettingColumn
from spleen.runs.results.comparison import ArmComparison
from spleen.runs.results.results import StudyResults
from spleen.runs.results.statistics import Score

SELECTED = "*"

_NO_FOLD = (None, "all")  # trained on all cases, or split by fraction
_MOST_EXTRA_COLUMNS = 6
_MOST_LISTED = 20
_WORDS = {
    "unfinished": "unfinished; to resume, run the same command again, or `spleen train resume=RUN`",
    "pruned": "pruned: stopped early by the search",
    "failed": "failed",
    "broken": "broken and not counted",
    "repeated": "repeated; only the newest counts",
}


def title(study: StudyResults) -> str:
    """The title of the table."""
    order = "best validation Dice first" if study.sort == "val" else "best test Dice first (exploratory)"
    if study.sort == "val" and study.selected is None:
        order = "nothing validated"
    runs, arms = _count(study.n_finished, "finished run"), _count(len(study.arms), "arm")
    return f"{study.folder}: {runs} in {arms}, {order}"


def shown_columns(study: StudyResults) -> tuple[list[SettingColumn], list[SettingColumn]]:
    """The columns of settings that fit into a readable table, and those left out."""
    usual = [column for column in study.columns if column.key in ALWAYS_SHOWN]
    extra = [column for column in study.columns if column.key not in ALWAYS_SHOWN]
    return [*usual, *extra[:_MOST_EXTRA_COLUMNS]], extra[_MOST_EXTRA_COLUMNS:]


def table(
    study: StudyResults, shown: Sequence[SettingColumn] | None = None
) -> tuple[list[str | Column], list[list[Cell]]]:
    """Columns and rows for the terminal and for Markdown; the arm selected by validation is marked."""
    shown = shown_columns(study)[0] if shown is None else shown
    columns: list[str | Column] = [
        "",
        *(_setting_column(column) for column in shown),
        *(Column(name, "d") for name in count_names(study)),
        "val Dice",
        "test Dice",
        "± 95 %" if study.over == "runs" else "95 % interval",
        "test Jaccard",
        Column("minutes", ".1f"),
    ]
    rows: list[list[Cell]] = [
        [
            SELECTED if arm is study.selected else "",
            *(_cell(arm.settings.get(column.key)) for column in shown),
            *counts(study, arm),
            arm.val_dice.mean,
            arm.test_dice.mean,
            half_width(arm.test_dice) if study.over == "runs" else _low_high(arm.test_dice.interval),
            arm.test_jaccard.mean,
            arm.minutes,
        ]
        for arm in study.arms
    ]
    return columns, rows


def class_table(study: StudyResults) -> tuple[list[str | Column], list[list[Cell]]]:
    """Columns and rows of the test Dice by class, for arms with several classes; no rows if there are none."""
    columns: list[str | Column] = [
        "", "arm", "class", "test Dice", "± 95 %" if study.over == "runs" else "95 % interval", Column(study.over, "d")
    ]  # fmt: skip
    rows: list[list[Cell]] = [
        [
            SELECTED if arm is study.selected else "",
            arm.label,
            name,
            score.mean,
            half_width(score) if study.over == "runs" else _low_high(score.interval),
            score.n,
        ]
        for arm in study.arms
        for name, score in arm.test_dice_by_class.items()
    ]
    return columns, rows


def _setting_column(column: SettingColumn) -> Column:
    return Column(column.title, scientific if column.key == "lr" else setting_text)


def _cell(value: Setting) -> Cell:
    return setting_text(value) if isinstance(value, bool) else value


def count_names(study: StudyResults) -> list[str]:
    """Names of the counts of an arm: seeds or runs, and also folds and cases if scores are means over cases."""
    only_seeds = all(key == "seed" or is_fold(key) for key in study.repeat_keys)
    return ["seeds" if only_seeds else "runs", *(["folds", "cases"] if study.over == "cases" else [])]


def counts(study: StudyResults, arm: Arm) -> list[int]:
    """The counts named by `count_names`."""
    of_name = {
        "runs": arm.n_runs,
        "seeds": len({_at(study, repeat, fold=False) for repeat in arm.runs}),
        "folds": len(
            {value for repeat in arm.runs for value in _at(study, repeat, fold=True) if value not in _NO_FOLD}
        ),
        "cases": arm.test_dice.n,
    }
    return [of_name[name] for name in count_names(study)]


def _at(study: StudyResults, repeat: Sequence[Setting], fold: bool) -> tuple[Setting, ...]:
    return tuple(value for key, value in zip(study.repeat_keys, repeat, strict=True) if is_fold(key) == fold)


def half_width(score: Score) -> float | None:
    """Half the width of a symmetric interval, for ±."""
    return None if score.interval is None else score.interval.high - score.mean


def _low_high(interval: Interval | None) -> str:
    return "-" if interval is None else f"{interval.low:.4f} to {interval.high:.4f}"


def conclusions(study: StudyResults) -> list[str]:
    """The conclusions, one or two sentences each: the selected arm, its gap, the next arm, how to read the table."""
    if not study.arms:
        return []
    lines = [_unselected(study) if study.selected is None else _selection(study, study.selected)]
    lines += _incomplete(study)
    if study.comparison is not None:
        lines.append(_comparison(study.comparison))
    lines.append(_reading(study))
    _, hidden = shown_columns(study)
    if hidden:
        lines.append(f"Also differing, and in the CSV file: {', '.join(column.title for column in hidden)}.")
    return lines


def _selection(study: StudyResults, arm: Arm) -> str:
    gap = arm.val_dice.mean - arm.test_dice.mean
    text = (
        f"Chosen by validation ({SELECTED}): {arm.label}. Validation Dice {arm.val_dice.mean:.4f}, "
        f"test Dice {_with_interval(study, arm.test_dice)}; gap validation − test {_signed(gap)}."
    )
    most = max(each.n_runs for each in study.arms)
    if arm.n_runs < most:
        text += f" It has {_count(arm.n_runs, 'run')} where others have {most}."
    return text


def _unselected(study: StudyResults) -> str:
    if len(study.arms) == 1:
        return f"Nothing was validated. Test Dice {_with_interval(study, study.arms[0].test_dice)}."
    return (
        "Nothing was validated, so no arm is chosen: the highest of several test Dice is too high, for having been "
        "picked. To choose one, train with split.val_fraction above 0."
    )


def _incomplete(study: StudyResults) -> list[str]:
    """The arms with missing folds; arms with the same missing folds share a sentence."""
    lacking: dict[Folds, list[str]] = {}
    for arm in study.arms:
        if arm.folds is not None and arm.folds.missing:
            lacking.setdefault(arm.folds, []).append(arm.label)
    lines = []
    for folds, labels in lacking.items():
        whose = "" if len(labels) == len(study.arms) else f"{'; '.join(labels)}: "
        missing = ", ".join(map(str, folds.missing))
        text = f"{whose}{folds.n - len(folds.missing)} of {folds.n} folds are complete; missing: {missing}."
        lines.append(text + " The cases of a missing fold are in no score.")
    return lines


def _with_interval(study: StudyResults, score: Score) -> str:
    if math.isnan(score.mean):
        return "n/a"
    if score.interval is None:
        return f"{score.mean:.4f}"
    if study.over == "runs":
        return f"{score.mean:.4f} ± {score.interval.high - score.mean:.4f}"
    return f"{score.mean:.4f} ({_low_high(score.interval)})"


def _comparison(comparison: ArmComparison) -> str:
    start = f"Against the next, {comparison.following.label}: "
    pairs = _count(comparison.n_pairs, f"pair of {comparison.unit}s", f"pairs of {comparison.unit}s")
    if comparison.verdict == "no pairs":
        return start + "not compared, as no run of one has a partner in the other with the same seed and test cases."
    difference = f"test Dice {_signed(comparison.difference)}"
    if comparison.interval is not None:
        low, high = _signed(comparison.interval.low), _signed(comparison.interval.high)
        difference += f", 95 % interval {low} to {high}"
    if comparison.verdict == "too few pairs":
        text = f"{difference}, from {pairs}: too few to tell them apart, {FEWEST_PAIRS} are needed."
    else:
        assert comparison.p_value is not None
        text = f"{difference}, {pairs}, signed-rank p = {comparison.p_value:.2g}: {comparison.verdict}."
    if not comparison.same_slices:
        text += " They were tested on different slices, so part of the difference is where, not how well."
    return start + text


def _reading(study: StudyResults) -> str:
    text = "Arms are chosen by validation Dice; the number to report is the test Dice beside it."
    if study.selected is None:
        text = "Test Dice is over cases that no run was trained on."
    if study.over == "cases":
        return text + " Each case counts once, averaged over its runs; the intervals are bootstrapped over cases."
    if any(arm.test_dice.interval is not None for arm in study.arms):
        counted = count_names(study)[0]
        return text + f" ± is half the 95 % t-interval of the mean over {counted}: the spread of repeated training."
    return text + " One run each: no interval; seed=0,1,2 gives one."


def listing(study: StudyResults, most: int = _MOST_LISTED) -> list[tuple[str, list[str]]]:
    """The runs that are not in the table: a heading for each state, and a line for each run, at most `most`."""
    parts = []
    for state, words in _WORDS.items():
        runs = [run for run in study.others if run.state == state]
        if runs:
            lines = [f"{name_of(study.folder, run)}: {run.reason}" for run in runs[:most]]
            lines += [f"and {len(runs) - most} more"] if len(runs) > most else []
            parts.append((f"{_count(len(runs), 'run')} {words}", lines))
    return parts


def name_of(folder: Path, run: OtherRun) -> str:
    """The run's folder relative to the study's."""
    return str(run.folder.relative_to(folder)) if run.folder != folder else folder.resolve().name


def print_results(study: StudyResults) -> None:
    """Print the table with its conclusions, then the runs that are not in it."""
    if study.arms:
        _print_table(study)
        for line in conclusions(study):
            print(_folded(line))
    else:
        print(f"{study.folder}: no finished run")
    for heading, lines in listing(study):
        print("\n" + _folded(f"{heading}:"))
        for line in lines:
            print(f"  {line}")


def _print_table(study: StudyResults) -> None:
    """Print the table; on a narrow terminal, settings common to all arms are printed above it instead."""
    shown, _ = shown_columns(study)
    alike = [column for column in shown if len({arm.settings.get(column.key) for arm in study.arms}) == 1]
    print(_folded(title(study)))
    widest = max(map(len, render_table("", *table(study)).splitlines()))
    if widest > shutil.get_terminal_size().columns and alike:
        shown = [column for column in shown if column not in alike]
        words = (f"{column.title} {_text(column.key, study.arms[0].settings.get(column.key))}" for column in alike)
        print(_folded(f"all: {', '.join(words)}"))
    print_table("", *table(study, shown))
    columns, rows = class_table(study)
    if rows:
        print_table("", columns, rows)


def _text(key: str, value: Setting) -> str:
    return learning_rate_text(value) if key == "lr" else setting_text(value)


def _folded(text: str) -> str:
    return textwrap.fill(text, shutil.get_terminal_size().columns, subsequent_indent="  ", break_long_words=False)


def _signed(value: float) -> str:
    return "n/a" if math.isnan(value) else f"{value:+.4f}".replace("-", "−")


def _count(number: int, one: str, several: str | None = None) -> str:
    return f"{number} {one if number == 1 else several or one + 's'}"
