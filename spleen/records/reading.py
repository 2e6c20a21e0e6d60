"""Finding run folders, and reading their settings and scores.

Imports nothing heavy: a table of runs does not need torch.
"""

import csv
import json
import math
import os
import re
import time
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Literal

import yaml

from spleen.errors import InputError
from spleen.records.folder import MARKERS, RunFolder
from spleen.records.renamed_keys import RENAMED_TARGETS, current_key
from spleen.system.nested import flatten
from spleen.system.text import duration_text

Setting = str | int | float | bool | None

_DEEPEST = 3
_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # compiled: six times faster
_BLOCKS = re.compile(r"^(?=[A-Za-z_])", re.MULTILINE)  # start of each top-level key
_EXPONENT = re.compile(r"[-+]?\d+\.?\d*[eE][-+]?\d+")  # PyYAML reads 1e-4, without a dot, as a string


@dataclass(frozen=True)
class SplitMeans:
    """Mean scores of one run over the cases of one split; NaN if no case could be scored.

    `dice_by_class` is in the order of the classes.
    """

    dice: float
    jaccard: float
    dice_by_class: Mapping[str, float]


@dataclass(frozen=True)
class FinishedRun:
    """A run with its scores; `settings` are by dotted key, `finished_at` is in seconds since the epoch."""

    folder: Path
    settings: Mapping[str, Setting]
    val: SplitMeans
    test: SplitMeans
    wall_seconds: float
    finished_at: float


@dataclass(frozen=True)
class OtherRun:
    """A run without results, and why."""

    folder: Path
    state: Literal["unfinished", "pruned", "failed", "broken", "repeated"]
    reason: str


class BrokenRunError(InputError):
    """A file of a run folder cannot be read; the message states which and why."""


def find_runs(folder: Path) -> list[Path]:
    """The run folders at `folder` and up to three levels below it, without duplicates, sorted by path.

    Links to folders are followed, but a run is listed by its own path if possible. Hidden folders, and runs that
    were refused before they started, are skipped. Raises InputError if `folder` is not a folder.
    """
    if not folder.is_dir():
        raise InputError(
            f"{folder} is not a folder; expected a run folder, or a folder of runs such as outputs/size_and_rate"
        )
    found: list[Path] = []
    seen: set[str] = set()
    folders, links = deque([(folder, 0)]), deque[tuple[Path, int]]()
    while folders or links:
        place, depth = (folders or links).popleft()  # links last, so that a run is listed by its own path
        real = os.path.realpath(place)
        if real in seen:
            continue
        seen.add(real)
        try:
            with os.scandir(place) as entries:
                inside = list(entries)
        except OSError:  # reading the run reports why
            found.append(place)
            continue
        if markers := {entry.name for entry in inside} & set(MARKERS):
            if not _is_refusal(place, markers):
                found.append(place)
        elif depth < _DEEPEST:
            for entry in inside:
                if entry.is_dir() and not entry.name.startswith("."):
                    (links if entry.is_symlink() else folders).append((Path(entry.path), depth + 1))
    return sorted(found)


def _is_refusal(folder: Path, markers: set[str]) -> bool:
    """Whether a run was refused before it started: then its folder holds only the message, with exit code 2."""
    failure = RunFolder(folder).failure
    if markers != {failure.name}:
        return False
    try:
        return (_read_json(failure) or {}).get("exit_code") == 2
    except (BrokenRunError, OSError):
        return False


def read_run(folder: Path) -> FinishedRun | OtherRun:
    """Read a run folder. An unreadable file makes the run "broken"; nothing is raised."""
    try:
        summary = _read_json(RunFolder(folder).summary)
        if summary is not None and summary.get("status") == "finished":
            return _finished(folder, summary)
        return _not_finished(folder, summary)
    except BrokenRunError as error:
        return OtherRun(folder, "broken", str(error))
    except OSError as error:
        return OtherRun(folder, "broken", f"{Path(error.filename or folder).name}: {error.strerror}")


def _finished(folder: Path, summary: Mapping[str, object]) -> FinishedRun:
    return FinishedRun(
        folder=folder,
        settings=_read_settings(RunFolder(folder).config),
        val=_split_means(summary, "val"),
        test=_split_means(summary, "test"),
        wall_seconds=_number(summary.get("wall_seconds"), "wall_seconds"),
        finished_at=RunFolder(folder).summary.stat().st_mtime,
    )


def _split_means(summary: Mapping[str, object], split: str) -> SplitMeans:
    dice, jaccard = _score(summary, split, "dice"), _score(summary, split, "jaccard")
    means = summary[split]
    assert isinstance(means, dict)  # _score has checked it
    of_class = {name: entry["dice"] for name, entry in means.items() if isinstance(entry, dict) and "dice" in entry}
    return SplitMeans(dice, jaccard, {name: _number(value, f"{split}.{name}.dice") for name, value in of_class.items()})


def _score(summary: Mapping[str, object], split: str, name: str) -> float:
    means = summary.get(split)
    if not isinstance(means, dict) or name not in means:
        raise BrokenRunError(f"summary.json has no {split}.{name}")
    return _number(means[name], f"{split}.{name}")


def _number(value: object, name: str) -> float:
    """A number from summary.json, where null means NaN."""
    if value is None:
        return math.nan
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise BrokenRunError(f"summary.json: {name} is {value!r}, not a number")
    return float(value)


def _not_finished(folder: Path, summary: Mapping[str, object] | None) -> OtherRun:
    files = RunFolder(folder)
    metrics, failure = files.metrics, files.failure
    written = metrics.stat().st_mtime if metrics.is_file() else None
    if failure.is_file() and (written is None or failure.stat().st_mtime >= written):  # otherwise it was started again
        message = str((_read_json(failure) or {}).get("message") or f"{failure.name} contains no message")
        return OtherRun(folder, "failed", message.strip().splitlines()[0])
    epochs = 0 if written is None else _count_rows(metrics)
    settings = _read_settings(files.config)
    total = settings.get("epochs") if settings.get("max_minutes") is None else None
    parts = [f"{epochs} of {total} epochs" if total else f"{epochs} epochs"]
    is_pruned = summary is not None and summary.get("status") == "pruned"
    if summary is not None and not is_pruned:
        parts.insert(0, f"status {summary.get('status')!r} in summary.json")
    if written is not None:
        parts.append(f"last written {duration_text(time.time() - written)} ago")
    return OtherRun(folder, "pruned" if is_pruned else "unfinished", ", ".join(parts))


def _count_rows(path: Path) -> int:
    try:
        with path.open(newline="", encoding="utf-8") as file:
            return sum(1 for _ in csv.DictReader(file))
    except (ValueError, csv.Error) as error:
        raise BrokenRunError(f"{path.name} is not valid CSV: {error}") from error


def _read_json(path: Path) -> dict[str, object] | None:
    """The object in a JSON file; None if there is no file."""
    if not path.is_file():
        return None
    try:
        content = json.loads(path.read_bytes())
    except ValueError as error:  # includes an invalid encoding
        raise BrokenRunError(f"{path.name} is not valid JSON: {error}") from error
    if not isinstance(content, dict):
        raise BrokenRunError(f"{path.name} contains a {type(content).__name__}, not an object")
    return content


def _read_settings(path: Path) -> dict[str, Setting]:
    try:
        return read_settings(path)
    except FileNotFoundError as error:
        raise BrokenRunError(f"{path.name} is missing") from error


def read_settings(path: Path) -> dict[str, Setting]:
    """A configuration file by dotted key, in the file's order, under the current names; lists become strings.

    Raises BrokenRunError if it is not valid YAML or not a mapping, OSError if it cannot be read.
    """
    settings: dict[str, Setting] = {}
    try:
        text = path.read_text(encoding="utf-8")
        try:
            for block in _BLOCKS.split(text):
                settings.update(_parse(block))
        except yaml.YAMLError:  # such as a reference from one block to another
            settings = _parse(text)
    except (yaml.YAMLError, ValueError) as error:
        first_line = str(error).splitlines()[0]
        raise BrokenRunError(f"{path.name} is not valid YAML: {first_line}") from error
    if not settings:
        raise BrokenRunError(f"{path.name} contains no settings")
    return settings


@lru_cache(maxsize=4096)
def _parse(text: str) -> dict[str, Setting]:
    """The settings in YAML text; cached, because the runs of a study share most of their top-level blocks."""
    content = yaml.load(text, Loader=_LOADER)
    if not isinstance(content, dict):
        return {}
    return {current_key(key): _setting(value) for key, value in flatten(content).items()}


def _setting(value: object) -> Setting:
    if isinstance(value, str) and _EXPONENT.fullmatch(value):
        return float(value)
    if value is None or isinstance(value, bool | int | float):
        return value
    return RENAMED_TARGETS.get(str(value), str(value))
