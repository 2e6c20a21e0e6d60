"""Which trained runs are averaged: those of one arm, unless the user chooses."""

import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from spleen.errors import InputError, check_choice
from spleen.records.cases import case_means, mean_of_known, read_cases
from spleen.records.folder import RunFolder, is_finished, run_folder_of
from spleen.records.reading import BrokenRunError, FinishedRun, OtherRun, Setting, read_run
from spleen.records.settings import (
    Settings,
    differing_keys,
    fold_of,
    is_fold,
    learning_rate_text,
    runs_by,
    setting_text,
    settings_that_matter,
)
from spleen.system.text import shortened

log = logging.getLogger(__name__)

Choice = Literal["best", "all"]
"""Of a folder of runs: those of the best arm by validation Dice, or all of them."""


@dataclass(frozen=True)
class ChosenRuns:
    """The checkpoints to predict with, and in a line for each folder, or for all given runs, why these."""

    checkpoints: tuple[Path, ...]
    reasons: tuple[str, ...]
    """Empty for a single run."""


@dataclass(frozen=True)
class _Run:
    """A finished run of a folder, with the settings that may change its result."""

    checkpoint: Path
    record: FinishedRun
    settings: Settings


def choose_runs(paths: Sequence[Path], choose: Choice | None = None) -> ChosenRuns:
    """The runs that `paths` stand for: run folders, checkpoints, and folders of runs.

    The runs of a folder are averaged if they are of one arm: they differ only in axis, fold and seed. For a sweep of
    settings, `choose` says what to do. Raises InputError for a sweep without it, for runs whose settings cannot be
    read, for an unknown `choose`, and where there is nothing to choose. A path without a run is returned as it is.
    """
    if choose is not None:
        check_choice("choose", choose, get_args(Choice))
    checkpoints: list[Path] = []
    reasons: list[str] = []
    given: list[Path] = []
    for path in paths:
        found = find_checkpoints(path) or [path]
        if len(found) > 1:
            found, reason = _of_folder(path, found, choose)
            reasons.append(reason)
        else:
            given += found
        checkpoints += found
    if choose == "best" and not any(_is_folder_of_runs(path) for path in paths):
        verb = "is" if len(paths) == 1 else "are each"
        raise InputError(f"--best chooses among the runs of a folder; {shortened(paths)} {verb} a single run")
    if given and len(checkpoints) > 1:
        names = shortened(map(run_name, given))
        reasons.append(f"averaging {len(given)} runs, as given: {names}" if not reasons else f"and with {names}")
    return ChosenRuns(tuple(checkpoints), tuple(reasons))


def find_checkpoints(path: Path) -> list[Path]:
    """The checkpoints of a RUN argument: the file itself, that of a run folder, or those of the finished runs in it.

    `path` may also contain one sweep with finished runs. Empty if there are none.
    Raises InputError if several sweeps contain finished runs.
    """
    if path.is_file():
        return [path] if path.suffix == ".ckpt" else []
    if (best := RunFolder(path).best_checkpoint).is_file():
        return [best]
    if runs := _finished_runs(path):
        return runs
    sweeps = {sweep: _finished_runs(sweep) for sweep in sorted(path.glob("*/"))}
    with_runs = [sweep for sweep, runs in sweeps.items() if runs]
    if len(with_runs) > 1:
        raise InputError(
            f"{path} contains the runs of {len(with_runs)} sweeps; give one of them: {', '.join(map(str, with_runs))}"
        )
    return sweeps[with_runs[0]] if with_runs else []


def one_checkpoint(key: str, path: Path, fold: Setting = None) -> Path:
    """The checkpoint that the setting `key` names by a run folder or a file, or by a folder with a run of each fold.

    Raises InputError if there is not exactly one, of several that of the `fold`.
    """
    found = find_checkpoints(path)
    if len(found) == 1:
        return found[0]
    if found:
        records = {checkpoint: read_run(checkpoint.parents[1]) for checkpoint in found} if fold is not None else {}
        same = [
            checkpoint
            for checkpoint, record in records.items()
            if isinstance(record, FinishedRun) and fold_of(record.settings) == fold
        ]
        if len(same) == 1:
            return same[0]
        which = "" if fold is None else f", {len(same) or 'none'} of them of fold {fold}"
        names = shortened(checkpoint.parents[1].name for checkpoint in found)
        raise InputError(f"{key}={path}: this folder contains {len(found)} runs ({names}){which}; give one of them")
    what = "it is not a run with a checkpoints/best.ckpt, or a .ckpt file" if path.exists() else "no such run folder"
    raise InputError(f"{key}={path}: {what}; give the folder of a finished run, or a checkpoint (.ckpt)")


def _finished_runs(folder: Path) -> list[Path]:
    """The best checkpoints of the finished runs directly in a folder."""
    best = sorted(path for run in folder.glob("*/") if (path := RunFolder(run).best_checkpoint).is_file())
    finished = [checkpoint for checkpoint in best if is_finished(checkpoint.parents[1])]
    for checkpoint in set(best) - set(finished):
        log.warning("%s is skipped: it is not finished", checkpoint.parents[1])
    return finished


def run_name(checkpoint: Path) -> str:
    """The name of the run folder, or of the file outside of one."""
    checkpoint = checkpoint.resolve()
    folder = run_folder_of(checkpoint)
    return checkpoint.stem if folder is None else folder.name


def _is_folder_of_runs(path: Path) -> bool:
    return path.is_dir() and not RunFolder(path).best_checkpoint.is_file()


def _of_folder(folder: Path, found: Sequence[Path], choose: Choice | None) -> tuple[list[Path], str]:
    """The chosen ones of several runs of a folder, and why."""
    if choose == "all":
        return list(found), f"averaging {len(found)} runs: all of {folder}"
    runs = _read(found, choose)
    settings = [run.settings for run in runs]
    differing = [key for key in differing_keys(settings) if not _is_repeated(key)]
    arms = [[runs[number] for number in arm] for arm in runs_by(settings, differing)]
    if len(arms) == 1:
        return [run.checkpoint for run in runs], f"{_averaging(runs)} of one arm"
    # Only whether they are part of a cross-validation tells such arms apart.
    differing = differing or [key for key in differing_keys(settings) if is_fold(key)]
    if choose is None:
        raise InputError(
            f"{folder} is a sweep of {len(arms)} arms, which differ in {_told(differing, settings)}, so its "
            f'{len(runs)} runs are not averaged unasked. Predict with the best arm by validation Dice (--best, choose="'
            'best" in Python), average all runs (--all, choose="all"), or name the runs'
        )
    scored = [(_validation_dice(arm), arm) for arm in arms]
    known = [(score, arm) for score, arm in scored if not math.isnan(score)]
    if not known:
        raise InputError(f"{folder}: no arm has a validation Dice to choose by; use --all, or name the runs")
    score, best = max(known, key=lambda pair: pair[0])
    values = ", ".join(f"{key} {_value(key, best[0].settings)}" for key in differing)
    why = f"{_averaging(best)} of the best of {len(arms)} arms by validation Dice ({score:.4f}): {values}"
    return [run.checkpoint for run in best], why


def _read(found: Sequence[Path], choose: Choice | None) -> list[_Run]:
    """The runs with their settings; of those that cannot be read, a warning if the best arm is to be chosen."""
    records: dict[Path, FinishedRun] = {}
    for checkpoint in found:
        record = read_run(checkpoint.parents[1])
        if isinstance(record, FinishedRun):
            records[checkpoint] = record
        elif choose is None:
            raise InputError(_unknown(record))
        else:
            log.warning("%s is skipped: %s", record.folder, record.reason)
    matter = settings_that_matter(list(records.values()))
    return [_Run(*each, settings) for each, settings in zip(records.items(), matter, strict=True)]


def _unknown(run: OtherRun) -> str:
    return (
        f"{run.folder}: {run.reason}, so it is unknown whether its settings are those of the other runs; average all "
        'runs of the folder with --all (choose="all" in Python), or name the runs'
    )


def _is_repeated(key: str) -> bool:
    """Whether runs of one arm may differ in this setting when they are averaged."""
    return key in ("axis", "seed") or is_fold(key)


def _averaging(runs: Sequence[_Run]) -> str:
    """How many runs, and the axes, folds and seeds that they repeat."""
    if len(runs) == 1:
        return f"predicting with {runs[0].record.folder.name}, the only run"
    repeated = {
        "": [run.settings.get("axis") for run in runs],
        "folds ": [fold_of(run.settings) for run in runs],
        "seeds ": [run.settings.get("seed") for run in runs],
    }
    several = {word: list(dict.fromkeys(values)) for word, values in repeated.items() if len(set(values)) > 1}
    parts = [word + ", ".join(sorted(map(setting_text, values), key=_by_number)) for word, values in several.items()]
    return f"averaging {len(runs)} runs: {'; '.join(parts) or shortened(run.record.folder.name for run in runs)}"


def _by_number(text: str) -> tuple[int, str]:
    return (int(text) if text.isdecimal() else -1), text


def _told(keys: Sequence[str], settings: Sequence[Settings]) -> str:
    """The settings that differ with some of their values."""
    values = {key: dict.fromkeys(_value(key, each) for each in settings) for key in keys}
    return shortened((f"{key} ({shortened(each, 4)})" for key, each in values.items()), 3)


def _value(key: str, settings: Settings) -> str:
    value = settings.get(key)
    return learning_rate_text(value) if key == "lr" else setting_text(value)


def _validation_dice(arm: Sequence[_Run]) -> float:
    """Mean over the runs, as in `spleen results`; with folds over their cases. NaN without validation."""
    if not any(isinstance(fold_of(run.settings), int) for run in arm):
        return mean_of_known([run.record.val.dice for run in arm])
    try:
        cases = [read_cases(run.record.folder) for run in arm]
    except BrokenRunError as error:
        raise InputError(f"the best arm cannot be chosen: {error}; use --all, or name the runs") from error
    return mean_of_known(list(case_means(cases, "val", "dice").values()))
