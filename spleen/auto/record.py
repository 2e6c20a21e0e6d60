"""auto.json: what was asked for, found, decided and spent, so that a stopped search goes on where it was."""

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from spleen.errors import InputError
from spleen.system.files import write_text

FILE_NAME = "auto.json"
_VERSION = 1


@dataclass
class AutoRecord:
    """The state of a search; everything that a new process needs is in it and in the run folders."""

    minutes: float
    overrides: list[str]
    """Those of the command line, with the layout of the data."""
    settings: list[list[str]] = field(default_factory=list)
    """Overrides that the look at the data decided, for every run, each with its reason."""
    axes: list[str] = field(default_factory=list)
    """Along which views are worth training, the best first."""
    n_training_slices: int = 0
    n_val_slices: int = 0
    n_test_slices: int = 0
    slices_per_second: float = 0.0
    """Of the first candidate."""
    batch_size: int = 0
    candidates: dict[str, list[str]] = field(default_factory=dict)
    """Overrides by name, the most promising first."""
    rounds: list[list[float]] = field(default_factory=list)
    """Number of arms and minutes of each."""
    runs: dict[str, list[str]] = field(default_factory=dict)
    """Overrides of each run that was begun, by the name of its folder."""
    failed: dict[str, str] = field(default_factory=dict)
    """Runs that were refused, and why."""
    seconds: dict[str, float] = field(default_factory=dict)
    """What each finished stage took."""
    best_of_rounds: str | None = None
    """The run of the winner in the last round."""
    winner: str = ""
    """The candidate that is trained with the rest of the time."""
    n_views: int = 1
    ending_seconds: float = 0.0
    """Reserved for what follows the last training."""
    views: dict[str, float] = field(default_factory=dict)
    """The folders of the chosen runs and their weights, which add up to 1."""
    val_dice: float | None = None
    test_dice: dict[str, float | None] = field(default_factory=dict)
    """By class; of several, their mean as well."""
    test_intervals: dict[str, list[float]] = field(default_factory=dict)
    """95 %, over the test cases; empty for one volume."""
    notes: list[str] = field(default_factory=list)
    """What was decided, sentence by sentence."""

    def write(self, folder: Path) -> None:
        """Write auto.json, atomically."""
        write_text(folder / FILE_NAME, json.dumps({"version": _VERSION, **asdict(self)}, indent=1) + "\n")


def read_record(folder: Path) -> AutoRecord:
    """The record in a folder; raises InputError for a folder without one."""
    path = folder / FILE_NAME
    try:
        content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        if content.pop("version") != _VERSION:
            raise InputError(f"{path} was written by another version of spleen; start a new search")
        return AutoRecord(**content)
    except FileNotFoundError as error:
        raise InputError(f"{folder} has no {FILE_NAME}, so no search was started there") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{path} is damaged ({error}); start a new search") from error
