"""Folds and lists of cases on disk; folds in the form of nnU-Net's splits_final.json."""

import json
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from spleen.atomic import write_text
from spleen.errors import InputError
from spleen.layouts.dataset import read_json
from spleen.listing import few

_COMMENT = re.compile(r"(^|\s)#.*")
_EXAMPLE = '[{"train": ["case_1", "case_2"], "val": ["case_3"]}, …]'


@dataclass(frozen=True)
class FoldCases:
    """The case_ids of one fold: those that train, and those that are held out of it to validate."""

    train: tuple[str, ...]
    held_out: tuple[str, ...]


def read_splits(path: Path) -> tuple[FoldCases, ...]:
    """Read the folds of a splits_final.json, in the file's order.

    Raises InputError if it is missing or of another form, or a fold is empty or holds a case twice.
    """
    content = read_json(path)
    if not isinstance(content, list) or not content:
        raise InputError(f"{path} must be a list of folds, {_EXAMPLE}; it holds {content!r:.200}")
    folds = tuple(_fold(path, number, entry) for number, entry in enumerate(content))
    for number, fold in enumerate(folds):
        _check(f"{path}, fold {number}", fold)
    return folds


def write_splits(path: Path, folds: Sequence[FoldCases]) -> None:
    """Write folds as splits_final.json, whole or not at all.

    Raises InputError if there is no fold, or one is empty or holds a case twice, OSError if the file cannot be written.
    """
    if not folds:
        raise InputError(f"{path}: there is no fold to write")
    for number, fold in enumerate(folds):
        _check(f"{path}, fold {number}", fold)
    content = [{"train": list(fold.train), "val": list(fold.held_out)} for fold in folds]
    write_text(path, json.dumps(content, indent=4) + "\n")


def read_case_list(path: Path) -> tuple[str, ...]:
    """Read case_ids from a text file, one per line, or from a JSON list, in the file's order.

    Blank lines are skipped, and so is what follows a # at the beginning of a line or after a space. Raises InputError
    if the file is missing, empty or no text, or names a case twice.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror} (looked from {Path.cwd()})") from error
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not text in UTF-8 ({error.reason}); write one case_id per line") from error
    if text.lstrip().startswith(("[", "{")):
        case_ids = _names(f"{path}", read_json(path))
    else:
        lines = (_COMMENT.sub("", line).strip() for line in text.splitlines())
        case_ids = tuple(line for line in lines if line)
    if not case_ids:
        raise InputError(f"{path} names no case; write one case_id per line, or a JSON list")
    if twice := _twice(case_ids):
        raise InputError(f"{path} names {few(map(repr, twice))} more than once")
    return case_ids


def _fold(path: Path, number: int, entry: object) -> FoldCases:
    where = f"{path}, fold {number}"
    if not isinstance(entry, dict) or not {"train", "val"} <= set(entry):
        raise InputError(f'{where} must have the lists "train" and "val", as in {_EXAMPLE}; got {entry!r:.200}')
    return FoldCases(_names(f'{where}, "train"', entry["train"]), _names(f'{where}, "val"', entry["val"]))


def _names(where: str, entry: object) -> tuple[str, ...]:
    if not isinstance(entry, list) or not all(isinstance(name, str) and name.strip() for name in entry):
        raise InputError(f"{where} must be a list of case_ids in quotes; got {entry!r:.200}")
    return tuple(entry)


def _check(where: str, fold: FoldCases) -> None:
    if not fold.train or not fold.held_out:
        raise InputError(f'{where}: "train" and "val" must each name at least one case')
    for key, case_ids in (("train", fold.train), ("val", fold.held_out)):
        if twice := _twice(case_ids):
            raise InputError(f'{where}: "{key}" names {few(map(repr, twice))} more than once')
    if both := sorted(set(fold.train) & set(fold.held_out)):
        raise InputError(
            f'{where}: {few(map(repr, both))} is in "train" and in "val"; a case that trains cannot validate'
        )


def _twice(case_ids: Sequence[str]) -> list[str]:
    return [case_id for case_id, count in Counter(case_ids).items() if count > 1]
