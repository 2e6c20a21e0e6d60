"""The cases of a dataset with what its files say about classes and channels, and what every layout checks."""

import json
import logging
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Literal

from spleen.cases import Case
from spleen.class_map import parse_label_values
from spleen.errors import InputError
from spleen.listing import in_lines
from spleen.pairing import SUFFIXES

log = logging.getLogger(__name__)

DATASET_JSON = "dataset.json"
Modality = Literal["ct", "mr"]

# Outputs are named after the case, with endings of their own; file systems allow 255 bytes in all.
_MAX_ID_BYTES = 200
# Control characters, and halves of characters, which JSON can hold but no text in UTF-8.
_NOT_IN_A_PATH = re.compile(r"[\x00-\x1f\x7f\ud800-\udfff]")
_WORD = re.compile(r"[a-z0-9]+")
# T1, T2w, T1gd, T1ce, … and the contrasts that are MR by definition.
_MR_WORD = re.compile(r"mr|mri|mra|t[12][a-z]*|flair|adc|dwi|dti|swi|pd|pdw|dce")


@dataclass(frozen=True)
class Dataset:
    """Labelled cases, sorted by case_id, with absolute paths."""

    cases: tuple[Case, ...]
    label_values: dict[str, tuple[int, ...]] | None
    """Name of each foreground class and its values in the label files, in order of value; None where no file tells."""
    channels: tuple[str, ...]
    """Names of the channels in order; empty where no file says them."""
    modality: Modality | None
    """What `modality_of` makes of the channels."""


def modality_of(channels: Sequence[str]) -> Modality | None:
    """The modality that all channel names agree on.

    A channel is CT if it is called exactly so, in any case, which is nnU-Net's rule. It is MR if its name holds one of
    the words MR, MRI, MRA, FLAIR, ADC, DWI, DTI, SWI, PD, PDw, DCE, or T1 or T2 with or without letters behind it (T1w,
    T1gd, …), and not the word CT. None for any other name, such as PET, for a mixture, and without channels.
    """
    found = {_modality_of_one(name) for name in channels}
    return found.pop() if len(found) == 1 else None


def _modality_of_one(name: str) -> Modality | None:
    words = _WORD.findall(name.lower())
    if name.strip().lower() == "ct":
        return "ct"
    return "mr" if "ct" not in words and any(_MR_WORD.fullmatch(word) for word in words) else None


def make_dataset(
    source: Path,
    cases: Iterable[Case],
    label_values: Mapping[str, Sequence[int]] | None = None,
    channels: tuple[str, ...] = (),
) -> Dataset:
    """Sort and check the cases that `source`, a file or folder, names; that their files exist is not looked at.

    Raises InputError if there is no case, if case_ids are not unique or cannot be file names, if cases differ in their
    number of images, if a file is no NIfTI or is used twice, and for classes that `parse_label_values` refuses.
    """
    ordered = tuple(sorted(cases, key=lambda case: case.case_id))
    if not ordered:
        raise InputError(f"{source} holds no case: no image with a label")
    _check_ids(source, ordered)
    _check_files(source, ordered, len(channels))
    classes = None if label_values is None else checked_classes(source, label_values)
    return Dataset(ordered, classes, channels, modality_of(channels))


def _check_ids(source: Path, cases: Sequence[Case]) -> None:
    for case, following in pairwise(cases):
        if case.case_id == following.case_id:
            files = "\n".join(f"  {', '.join(str(image) for image in one.images)}" for one in (case, following))
            raise InputError(f"{source} holds case '{case.case_id}' twice; each case needs a name of its own:\n{files}")
    for case in cases:
        name = case.case_id
        if fault := _fault_of_id(name):
            raise InputError(f"{source}: the case_id {name!r} {fault}; outputs are named after it, so rename the case")


def _fault_of_id(case_id: str) -> str | None:
    if not case_id:
        return "is empty"
    if case_id.startswith(".") or case_id != case_id.strip():
        return "begins with a dot, or begins or ends with a space"
    if "/" in case_id or "\\" in case_id or _NOT_IN_A_PATH.search(case_id):
        return "holds a slash, a backslash, a control character or what is no character at all"
    if len(case_id.encode()) > _MAX_ID_BYTES:
        return f"is longer than {_MAX_ID_BYTES} bytes"
    return None


def _check_files(source: Path, cases: Sequence[Case], n_channels: int) -> None:
    owner: dict[Path, str] = {}
    for case in cases:
        for path in (*case.images, case.label):
            if not path.name.endswith(SUFFIXES):
                raise InputError(
                    f"{source}, case '{case.case_id}': {path.name} is no .nii or .nii.gz file; convert it to NIfTI"
                )
            if path in owner:
                raise InputError(
                    f"{source}: {path} is used twice, for case '{owner[path]}' and case '{case.case_id}'; "
                    "each file belongs to one case, as image or as label"
                )
            owner[path] = case.case_id
    first, count = cases[0], len(cases[0].images)
    for case in cases:
        if len(case.images) != count:
            raise InputError(
                f"{source}: case '{first.case_id}' has {count} image(s), case '{case.case_id}' has {len(case.images)}; "
                "every case needs the same channels in the same order"
            )
    if n_channels and count not in (1, n_channels):  # one file may hold all channels in its fourth dimension
        raise InputError(f"{source} names {n_channels} channels, but its cases have {count} images each")


def checked_classes(source: Path, label_values: Mapping[str, Sequence[int]]) -> dict[str, tuple[int, ...]]:
    """The foreground classes that `source` names, in order of value.

    Raises InputError for none at all, and for classes that `parse_label_values` refuses.
    """
    classes = {name: tuple(sorted(set(values))) for name, values in label_values.items()}
    if not classes:
        raise InputError(f'the "labels" of {source} name no class besides the background')
    try:
        parse_label_values({name: list(values) for name, values in classes.items()}, "")
    except InputError as error:
        raise InputError(
            f'the "labels" of {source}: {error}. Rename the class there, or give classes with data.label_values={{…}}'
        ) from error
    return dict(sorted(classes.items(), key=lambda item: item[1]))


# Files --------------------------------------------------------------------------------------------------------------


def file_path(folder: Path, text: object, where: str) -> Path:
    """The absolute path that `text` means, relative to `folder`; InputError, beginning with `where`, if it is none."""
    if not isinstance(text, str) or not text.strip() or _NOT_IN_A_PATH.search(text):
        raise InputError(f"{where}: the path of a file is wanted; got {text!r}")
    return folder.absolute() / text


def file_names(folder: Path) -> list[str]:
    """The names of the files of a folder, sorted, without hidden ones; InputError if it cannot be listed."""
    try:
        return sorted(name for name in _listed(folder) if not name.startswith("."))
    except (FileNotFoundError, NotADirectoryError) as error:
        raise InputError(f"{folder}: no such folder (looked from {Path.cwd()})") from error
    except OSError as error:
        raise InputError(f"{folder} cannot be read: {error.strerror}") from error


def missing_files(paths: Iterable[Path]) -> list[Path]:
    """Those of the paths that are no files; each folder is listed once, since thousands of look-ups may be slow."""
    names: dict[Path, set[str]] = {}
    missing = []
    for path in paths:
        if path.parent not in names:
            try:
                names[path.parent] = _listed(path.parent)
            except OSError:
                names[path.parent] = set()
        if path.name not in names[path.parent] and not _is_file(path):
            missing.append(path)
    return missing


def check_files_exist(source: Path, cases: Iterable[Case], advice: str = "") -> None:
    """Raise one InputError that says how many files of the cases are missing, with the first few and the advice."""
    missing = missing_files(path for case in cases for path in (*case.images, case.label))
    if missing:
        raise InputError(f"{len(missing)} file(s) that {source} lists do not exist:{in_lines(missing)}{advice}")


def _listed(folder: Path) -> set[str]:
    with os.scandir(folder) as entries:
        return {entry.name for entry in entries if entry.is_file()}


def _is_file(path: Path) -> bool:
    """Ask the file system itself, which may ignore case, or let a folder be entered but not listed."""
    try:
        return path.is_file()
    except OSError:  # for example a name that is too long
        return False


# JSON ---------------------------------------------------------------------------------------------------------------


def read_json(path: Path) -> object:
    """The content of a JSON file; InputError if there is none, or it is no valid JSON, or an object repeats a key."""
    try:
        text = path.read_text(encoding="utf-8-sig")
        content: object = json.loads(text, object_pairs_hook=_unique_keys)
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror} (looked from {Path.cwd()})") from error
    except (ValueError, RecursionError) as error:  # of the encoding, too
        raise InputError(f"{path} is no valid JSON: {error}") from error
    return content


def read_dataset_json(root: Path) -> dict[str, object]:
    """The object in the dataset.json of a folder; InputError if there is none."""
    if not root.is_dir():
        raise InputError(f"{root}: no such folder (looked from {Path.cwd()})")
    path = root / DATASET_JSON
    if not path.exists():
        raise InputError(f"{root} holds no {DATASET_JSON}; without one, pair two folders by name (data=folder)")
    content = read_json(path)
    if not isinstance(content, dict):
        raise InputError(f"{path} must hold an object, {{…}}; it holds a {type(content).__name__}")
    return content


def names_by_number(path: Path, key: str, entry: object) -> tuple[str, ...]:
    """The names in an object such as {"0": "T2", "1": "ADC"}, in order; InputError unless the numbers are 0, 1, ….

    `path` and `key` say where `entry` comes from.
    """
    names = entry if isinstance(entry, dict) else {}
    wanted = [str(number) for number in range(len(names))]
    if not names or sorted(names) != sorted(wanted) or not all(isinstance(name, str) for name in names.values()):
        example = '{"0": "CT"} or {"0": "T2", "1": "ADC"}'
        raise InputError(f'"{key}" in {path} must name the channels by number, such as {example}; got {entry!r:.200}')
    return tuple(names[number] for number in wanted)


def warn_of_count(path: Path, content: Mapping[str, object], n_cases: int) -> None:
    """Warn if dataset.json says another number of training cases; perhaps files are missing."""
    expected = content.get("numTraining")
    if isinstance(expected, int) and expected != n_cases:
        log.warning(
            "%s says numTraining %d, but there are %d training cases; is a part missing?", path, expected, n_cases
        )


def _unique_keys(pairs: list[tuple[str, object]]) -> dict[str, object]:
    content = dict(pairs)
    if len(content) < len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for key in keys if keys.count(key) > 1)
        raise ValueError(f'the key "{twice}" comes twice in one object')
    return content
