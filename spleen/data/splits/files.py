"""Files of folds (nnU-Net's splits_final.json) and of case lists."""

import json
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from spleen.data.layouts.dataset_json import read_json
from spleen.errors import InputError
from spleen.system.files import write_text
from spleen.system.text import shortened

_COMMENT = re.compile(r"(^|\s)#.*")
_EXAMPLE = '[{"train": ["case_1", "case_2"], "val": ["case_3"]}, …]'


@dataclass(frozen=True)
class FoldCases:
    """The case_ids of one fold: training cases and held-out cases."""

    train: tuple[str, ...]
    held_out: tuple[str, ...]


def read_splits(path: Path) -> tuple[FoldCases, ...]:
    """Read the folds of a splits_final.json, in the file's order.

    Raises InputError if it is missing or malformed, or if a fold is empty or contains a case twice.
    """
    content = read_json(path)
    if not isinstance(content, list) or not content:
        raise InputError(f"{path} must be a list of folds, {_EXAMPLE}; got {content!r:.200}")
    folds = tuple(_fold(path, number, entry) for number, entry in enumerate(content))
    for number, fold in enumerate(folds):
        _check(f"{path}, fold {number}", fold)
    return folds


def write_splits(path: Path, folds: Sequence[FoldCases], may_be_empty: bool = False) -> None:
    """Write folds as splits_final.json, atomically.

    Raises InputError if there are no folds, or if one is empty, unless it `may_be_empty` as its cases were skipped, or
    contains a case twice; OSError if writing fails.
    """
    if not folds:
        raise InputError(f"{path}: there are no folds to write")
    for number, fold in enumerate(folds):
        _check(f"{path}, fold {number}", fold, may_be_empty)
    content = [{"train": list(fold.train), "val": list(fold.held_out)} for fold in folds]
    write_text(path, json.dumps(content, indent=4) + "\n")


def read_case_list(path: Path) -> tuple[str, ...]:
    """Read case_ids from a text file, one per line, or from a JSON list, in the file's order.

    Blank lines are skipped, and so are comments: text after a # at the start of a line or after a space. Raises
    InputError if the file is missing, empty or not text, or lists a case twice.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror} (relative to {Path.cwd()})") from error
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not UTF-8 text ({error.reason}); write one case_id per line") from error
    if text.lstrip().startswith(("[", "{")):
        case_ids = _names(f"{path}", read_json(path))
    else:
        lines = (_COMMENT.sub("", line).strip() for line in text.splitlines())
        case_ids = tuple(line for line in lines if line)
    if not case_ids:
        raise InputError(f"{path} lists no cases; write one case_id per line, or a JSON list")
    if duplicates := _duplicates(case_ids):
        raise InputError(f"{path} lists {shortened(map(repr, duplicates))} more than once")
    return case_ids


def _fold(path: Path, number: int, entry: object) -> FoldCases:
    where = f"{path}, fold {number}"
    if not isinstance(entry, dict) or not {"train", "val"} <= set(entry):
        raise InputError(f'{where} must have the lists "train" and "val", as in {_EXAMPLE}; got {entry!r:.200}')
    return FoldCases(_names(f'{where}, "train"', entry["train"]), _names(f'{where}, "val"', entry["val"]))


def _names(where: str, entry: object) -> tuple[str, ...]:
    if not isinstance(entry, list) or not all(isinstance(name, str) and name.strip() for name in entry):
        raise InputError(f"{where} must be a list of quoted case_ids; got {entry!r:.200}")
    return tuple(entry)


def _check(where: str, fold: FoldCases, may_be_empty: bool = False) -> None:
    if not may_be_empty and not (fold.train and fold.held_out):
        raise InputError(f'{where}: "train" and "val" must each list at least one case')
    for key, case_ids in (("train", fold.train), ("val", fold.held_out)):
        if duplicates := _duplicates(case_ids):
            raise InputError(f'{where}: "{key}" lists {shortened(map(repr, duplicates))} more than once')
    if both := sorted(set(fold.train) & set(fold.held_out)):
        raise InputError(
            f'{where}: {shortened(map(repr, both))} is in both "train" and "val"; a training case cannot be held out'
        )


def _duplicates(case_ids: Sequence[str]) -> list[str]:
    return [case_id for case_id, count in Counter(case_ids).items() if count > 1]
