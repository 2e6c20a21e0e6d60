"""The cases of a dataset with its classes and channels, and the checks that all layouts share."""

import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path, PureWindowsPath
from typing import Literal
from unicodedata import normalize

from spleen.data.cases import Case
from spleen.errors import InputError
from spleen.imaging.classes import parse_label_values
from spleen.imaging.files import is_there, is_volume, told_apart
from spleen.system.text import bullets

Modality = Literal["ct", "mr"]


# Outputs are named after the case plus a suffix; file systems allow 255 bytes in total.
_MAX_ID_BYTES = 200


# Control characters and lone surrogates, which JSON can contain but UTF-8 cannot.
_NOT_IN_A_PATH = re.compile(r"[\x00-\x1f\x7f\ud800-\udfff]")


_WORD = re.compile(r"[a-z0-9]+")


# T1, T2w, T1gd, T1ce, … and the contrasts that are MR by definition.
_MR_WORD = re.compile(r"mr|mri|mra|t[12][a-z]*|flair|adc|dwi|dti|swi|pd|pdw|dce")


def modality_of(channels: Sequence[str]) -> Modality | None:
    """The modality that all channel names agree on.

    A channel is CT if its name is exactly "CT", ignoring case (nnU-Net's rule). It is MR if its name contains one of
    the words MR, MRI, MRA, FLAIR, ADC, DWI, DTI, SWI, PD, PDw, DCE, or T1 or T2 optionally followed by letters (T1w,
    T1gd, …), and not the word CT. None for any other name, such as PET, for mixed modalities, and without channels.
    """
    found = {_modality_of_one(name) for name in channels}
    return found.pop() if len(found) == 1 else None


@dataclass(frozen=True)
class Dataset:
    """Labelled cases, sorted by case_id, with absolute paths."""

    cases: tuple[Case, ...]
    label_values: dict[str, tuple[int, ...]] | None
    """Label values of each foreground class by name, in order of value; None if no file defines them."""
    channels: tuple[str, ...]
    """Names of the channels in order; empty if no file names them."""
    modality: Modality | None
    """The modality from `modality_of` the channels."""
    known_values: frozenset[int] | None = None
    """All label values that a file defines, also those of classes that are not used; None if no file defines any."""
    ignore_value: int | None = None
    """The label value of voxels of unknown class, where a file defines one."""
    regions_class_order: tuple[int, ...] | None = None
    """Of overlapping classes, the value of each in a mask; the classes then are in the file's own order."""


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
    regions_class_order: Sequence[int] | None = None,
) -> Dataset:
    """Sort and check the cases listed by `source`, a file or folder, without checking that their files exist.

    Raises InputError if there are no cases, if case_ids are not unique or not valid file names, if cases differ in
    their number of images, if a file is not NIfTI or is used twice, and for classes that `parse_label_values` rejects.
    """
    ordered = tuple(sorted(cases, key=lambda case: case.case_id))
    if not ordered:
        raise InputError(f"{source} contains no cases: no image with a label")
    _check_ids(source, ordered)
    _check_files(source, ordered, len(channels))
    classes = None if label_values is None else checked_classes(source, label_values, regions_class_order)
    order = None if regions_class_order is None or classes is None else tuple(regions_class_order)
    return Dataset(ordered, classes, channels, modality_of(channels), regions_class_order=order)


def _check_ids(source: Path, cases: Sequence[Case]) -> None:
    for case, following in pairwise(cases):
        if case.case_id == following.case_id:
            files = "\n".join(f"  {', '.join(str(image) for image in one.images)}" for one in (case, following))
            raise InputError(f"{source} contains case '{case.case_id}' twice; each case needs a unique name:\n{files}")
    alike: dict[str, str] = {}
    for case in cases:
        name = case.case_id
        if (other := alike.setdefault(normalize("NFC", name), name)) != name:
            raise InputError(f"{source}: {told_apart(other, name)}")
        if problem := _problem_with_id(name):
            raise InputError(
                f"{source}: the case_id {name!r} {problem}; outputs are named after it, so rename the case"
            )


def _problem_with_id(case_id: str) -> str | None:
    if not case_id:
        return "is empty"
    if case_id.startswith(".") or case_id != case_id.strip():
        return "starts with a dot, or starts or ends with a space"
    if "/" in case_id or "\\" in case_id or _NOT_IN_A_PATH.search(case_id):
        return "contains a slash, a backslash, a control character or an invalid character"
    if len(case_id.encode()) > _MAX_ID_BYTES:
        return f"is longer than {_MAX_ID_BYTES} bytes"
    return None


def _check_files(source: Path, cases: Sequence[Case], n_channels: int) -> None:
    owner: dict[Path, str] = {}
    for case in cases:
        for path in (*case.images, case.label):
            if not is_volume(path):
                raise InputError(
                    f"{source}, case '{case.case_id}': {path.name} is neither a .nii or .nii.gz file nor a DICOM "
                    "series; convert it to NIfTI"
                )
            if path in owner:
                raise InputError(
                    f"{source}: {path} is used twice, for case '{owner[path]}' and case '{case.case_id}'; "
                    "each file must belong to one case, as image or as label"
                )
            owner[path] = case.case_id
    first, count = cases[0], len(cases[0].images)
    for case in cases:
        if len(case.images) != count:
            raise InputError(
                f"{source}: case '{first.case_id}' has {count} image(s), case '{case.case_id}' has {len(case.images)}; "
                "every case needs the same channels in the same order"
            )
    if n_channels and count not in (1, n_channels):  # one file may contain all channels in its fourth dimension
        raise InputError(f"{source} names {n_channels} channels, but its cases have {count} images each")


def checked_classes(
    source: Path, label_values: Mapping[str, Sequence[int]], regions_class_order: Sequence[int] | None = None
) -> dict[str, tuple[int, ...]]:
    """The foreground classes defined by `source`, in order of value; with `regions_class_order`, as they come.

    Raises InputError if there are none, and for classes that `parse_label_values` rejects.
    """
    classes = {name: tuple(sorted(set(values))) for name, values in label_values.items()}
    if not classes:
        raise InputError(f'the "labels" of {source} define no class besides the background')
    try:
        parse_label_values({name: list(values) for name, values in classes.items()}, "", regions_class_order)
    except InputError as error:
        raise InputError(
            f'the "labels" of {source}: {error}. Rename the class there, or set classes with data.label_values={{…}}'
        ) from error
    return classes if regions_class_order is not None else dict(sorted(classes.items(), key=lambda item: item[1]))


_WINDOWS = re.compile(r"^[A-Za-z]:|\\")


def file_path(folder: Path, text: object, where: str) -> Path:
    """The absolute path of `text`, resolved against `folder`; InputError, prefixed by `where`, if it is not a path."""
    if not isinstance(text, str) or not text.strip() or _NOT_IN_A_PATH.search(text):
        raise InputError(f"{where} must be a file path; got {text!r}")
    if os.name != "nt" and _WINDOWS.search(text) and not (folder / text).exists():
        name = PureWindowsPath(text)
        tail = name.parts[-2:] if name.anchor else name.parts
        raise InputError(
            f"{where}: {text} is a path of Windows; write it relative to {folder}, with /, such as {'/'.join(tail)}"
        )
    return folder.absolute() / text


def file_names(folder: Path) -> list[str]:
    """The sorted names of the non-hidden files in a folder; InputError if it cannot be listed."""
    try:
        return sorted(name for name in _listed(folder) if not name.startswith("."))
    except (FileNotFoundError, NotADirectoryError) as error:
        raise InputError(f"{folder}: no such folder (relative to {Path.cwd()})") from error
    except OSError as error:
        raise InputError(f"{folder} cannot be read: {error.strerror}") from error


def missing_files(paths: Iterable[Path]) -> list[Path]:
    """The paths that are not files; each folder is listed once, because thousands of look-ups may be slow."""
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
    """Raise an InputError with the number of missing files of the cases, the first few of them, and the advice."""
    missing = missing_files(path for case in cases for path in (*case.images, case.label))
    if missing:
        raise InputError(f"{len(missing)} file(s) listed in {source} do not exist:{bullets(missing)}{advice}")


def _listed(folder: Path) -> set[str]:
    with os.scandir(folder) as entries:
        return {entry.name for entry in entries if entry.is_file()}


def _is_file(path: Path) -> bool:
    """Ask the file system, which may ignore case or refuse to list a folder whose files are readable."""
    try:
        return is_there(path)
    except OSError:  # for example a name that is too long
        return False
