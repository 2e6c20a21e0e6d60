"""Which runs of a study folder are averaged: those of one arm, unless asked otherwise."""

import logging
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Literal

from spleen.errors import InputError
from spleen.records.effect import has_effect
from spleen.records.folder import RunFolder, run_folder_of
from spleen.records.reading import BrokenRunError, FinishedRun, Setting, read_run, read_settings
from spleen.system.text import shortened

log = logging.getLogger(__name__)

StudyChoice = Literal["one_arm", "best", "all"]
"""Of a folder with several arms: refuse it, take the arm with the highest validation Dice, or average all runs."""

# Runs of one arm may differ in these: their average is one model, seen from several sides.
_MEMBERS = ("axis", "fold", "seed", "split.seed")

Arm = dict[Path, Mapping[str, Setting]]
"""The checkpoints of the runs that agree in every setting but `_MEMBERS`, with their settings."""


def choose_runs(folder: Path, checkpoints: Sequence[Path], choice: StudyChoice) -> list[Path]:
    """The checkpoints in a folder to average; a message says which and why.

    Raises InputError if the runs are several arms of a study and `choice` is one_arm.
    """
    if choice == "all":
        _tell(folder, checkpoints, "all runs, as requested")
        return list(checkpoints)
    arms = _arms(checkpoints)
    if arms is None:
        _tell(folder, checkpoints, "their settings are unknown")
        return list(checkpoints)
    if len(arms) == 1:
        (arm,) = arms
        varied = [key for key in _MEMBERS if len({settings.get(key) for settings in arm.values()}) > 1]
        _tell(folder, list(arm), f"one arm, with different {' and '.join(varied)}" if varied else "repeated runs")
        return list(arm)
    differing = _differing(arms)
    if choice == "one_arm":
        raise InputError(
            f"{folder} contains {len(checkpoints)} runs of {len(arms)} arms with different "
            f'{"; ".join(differing)}. Add --best to take the arm with the highest validation Dice (study="best" in '
            "Python), --all to average all runs, or give the runs by name"
        )
    best = max(arms, key=_val_dice)
    _tell(folder, list(best), f"the arm with the highest validation Dice, {_val_dice(best):.4f}")
    return list(best)


def _arms(checkpoints: Sequence[Path]) -> list[Arm] | None:
    """The runs by their settings; None if those of a run cannot be read."""
    arms: dict[tuple[tuple[str, str], ...], Arm] = {}
    for checkpoint in checkpoints:
        run_folder = run_folder_of(checkpoint)
        try:
            settings = read_settings(RunFolder(run_folder or checkpoint.parent).config)
        except (BrokenRunError, OSError):
            return None
        key = tuple(sorted((name, repr(value)) for name, value in settings.items() if _separates(name)))
        arms.setdefault(key, {})[checkpoint] = settings
    return list(arms.values())


def _separates(key: str) -> bool:
    return has_effect(key) and key not in _MEMBERS


def _differing(arms: Sequence[Arm]) -> list[str]:
    """The settings in which the arms differ, each with its values."""
    each = [next(iter(arm.values())) for arm in arms]
    keys = [key for key in dict.fromkeys(key for settings in each for key in settings) if _separates(key)]
    values = {key: list(dict.fromkeys(str(settings.get(key)) for settings in each)) for key in keys}
    return [f"{key} ({shortened(found)})" for key, found in values.items() if len(found) > 1]


def _val_dice(arm: Arm) -> float:
    """Mean validation Dice of the runs of an arm; -inf without any."""
    runs = [read_run(folder) for checkpoint in arm if (folder := run_folder_of(checkpoint)) is not None]
    scores = [run.val.dice for run in runs if isinstance(run, FinishedRun) and not math.isnan(run.val.dice)]
    return fmean(scores) if scores else -math.inf


def _tell(folder: Path, checkpoints: Sequence[Path], reason: str) -> None:
    names = shortened((checkpoint.parents[1].name for checkpoint in checkpoints), 12)
    log.info("averaging %d runs of %s: %s (%s)", len(checkpoints), folder, names, reason)
