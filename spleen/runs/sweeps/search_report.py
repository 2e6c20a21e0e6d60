"""The table at the end of a search: its best trials, and what the choice among them hides."""

from collections.abc import Sequence
from pathlib import Path

from optuna.trial import FrozenTrial, TrialState

from spleen.records.folder import read_summary
from spleen.reporting.tables import Cell, Column, print_table, scientific
from spleen.runs.sweeps.search import trial_folder

# More rows than this are not read on a terminal; `spleen results` shows all.
_SHOWN = 15


def print_search(trials: Sequence[FrozenTrial], folder: Path) -> None:
    """Print the best trials, the counts, and the gap between the validation and the test score of the best one.

    `trials` come best first.
    """
    names = list(dict.fromkeys(name for trial in trials for name in trial.params))
    columns: list[str | Column] = [
        "trial",
        "state",
        *(Column(name, _setting) for name in names),
        "val Dice",
        "test Dice",
    ]
    rows: list[list[Cell]] = [
        [
            str(trial.number),
            trial.state.name.lower(),
            *(trial.params.get(name) for name in names),
            trial.value if trial.state == TrialState.COMPLETE else _last_report(trial),
            _test_dice(trial),
        ]
        for trial in trials[:_SHOWN]
    ]
    counts = {state: sum(trial.state == state for trial in trials) for state in TrialState}
    print_table(f"\nSearch in {folder}, best validation Dice first", columns, rows)
    print(
        f"{counts[TrialState.COMPLETE]} complete, {counts[TrialState.PRUNED]} pruned, {counts[TrialState.FAIL]} failed"
        + (f"; the first {_SHOWN} of {len(trials)} are shown" if len(trials) > _SHOWN else "")
    )
    best = trials[0] if trials else None
    if best is None or best.state != TrialState.COMPLETE or best.value is None:
        return
    test = _test_dice(best)
    if test is not None:
        print(
            f"best by validation: trial {best.number}, validation Dice {best.value:.4f}, test Dice {test:.4f}, "
            f"gap {best.value - test:+.4f}\n"
            "The validation score is the highest of many, and too good by that choice; report the test score."
        )


def _setting(value: float) -> str:
    return scientific(value) if abs(value) < 0.01 and value else f"{value:.4g}"


def _last_report(trial: FrozenTrial) -> float | None:
    return trial.intermediate_values[max(trial.intermediate_values)] if trial.intermediate_values else None


def _test_dice(trial: FrozenTrial) -> float | None:
    folder = trial_folder(trial)
    if folder is None:
        return None
    dice = read_summary(folder).get("test", {}).get("dice")
    return None if dice is None else float(dice)
