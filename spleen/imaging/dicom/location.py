"""Paths that stand for a DICOM series: a folder, a DICOMDIR or a multi-frame file, with #SERIES where one is chosen."""

import os
from collections.abc import Iterator
from pathlib import Path

from spleen.errors import InputError
from spleen.system.text import shortened

DICOMDIR = "DICOMDIR"
SERIES_MARK = "#"
"""Between a folder and the series chosen in it: FOLDER#3, FOLDER#3:2 or FOLDER#UID."""
# A folder without DICOM is not searched to its end.
_FILES_LOOKED_AT = 50
_PREAMBLE = 128
_MOST_PARTS = 16
"""Folders and name of a file on a medium, generously: PS3.10 8.2 allows eight."""


def split_selector(path: Path) -> tuple[Path, str | None]:
    """The folder or file, and the series that is chosen in it: FOLDER#3 gives FOLDER and "3"."""
    name, mark, selector = path.name.rpartition(SERIES_MARK)
    if not mark or not name or not selector or path.exists():
        return path, None
    return path.with_name(name), selector


def with_selector(path: Path, selector: str) -> Path:
    """The path of one series of a folder."""
    return path.with_name(f"{path.name}{SERIES_MARK}{selector}")


def is_series(path: Path) -> bool:
    """Whether a path stands for a DICOM series: it is a DICOM file or a folder that has some, at whatever depth.

    A file that is called NIfTI is none, whatever it holds.
    """
    place, _ = split_selector(path)
    if place.name.lower().endswith((".nii", ".nii.gz")):
        return False
    return holds_dicom(place) if place.is_dir() else is_dicom_file(place)


def holds_dicom(folder: Path) -> bool:
    """Whether one of the first files of a folder, or of the folders in it, is DICOM."""
    for number, path in enumerate(_files_below(folder)):
        if is_dicom_file(path):
            return True
        if number >= _FILES_LOOKED_AT:
            return False
    return False


def is_dicom_file(path: Path) -> bool:
    """Whether a file begins as DICOM files do, or is at least called .dcm."""
    try:
        if not path.is_file():
            return False
        with path.open("rb") as file:
            return file.read(_PREAMBLE + 4)[_PREAMBLE:] == b"DICM" or path.suffix.lower() == ".dcm"
    except OSError:
        return False


def dicom_files(place: Path) -> list[Path]:
    """The DICOM files that a folder, a DICOMDIR or a single file stands for, sorted by path.

    Raises InputError if there are none, and for a DICOMDIR that refers to files outside its folder or that are missing.
    """
    if place.is_dir():
        listed = next((path for path in place.iterdir() if path.name.upper() == DICOMDIR and path.is_file()), None)
        if listed is None:
            found = [path for path in _files_below(place) if is_dicom_file(path)]
            if not found:
                raise InputError(f"{place} contains no DICOM file")
            return found
        place = listed
    elif not place.is_file():
        raise InputError(f"{place}: no such file or folder (relative to {Path.cwd()})")
    return _listed_by(place) if place.name.upper() == DICOMDIR else [place]


def _files_below(folder: Path) -> Iterator[Path]:
    """The files of a folder and of those in it, sorted; hidden ones and DICOMDIR are left out."""
    for parent, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        yield from (
            Path(parent, name) for name in sorted(names) if not name.startswith(".") and name.upper() != DICOMDIR
        )


def _listed_by(dicomdir: Path) -> list[Path]:
    """The files of a DICOMDIR (PS3.3 F.3). Its records are taken in their order; their offsets are not followed."""
    from spleen.imaging.dicom.header import read_header, text

    records = read_header(dicomdir, ("DirectoryRecordSequence",)).dataset.get("DirectoryRecordSequence") or ()
    if isinstance(records, str | bytes) or not all(hasattr(record, "get") for record in records):
        raise InputError(f"{dicomdir} is damaged: its records are none; copy it again")
    images = [record for record in records if text([record], "DirectoryRecordType") == "IMAGE"]
    names = [text([record], "ReferencedFileID") for record in images]
    parts = [name.split("\\") for name in names if name]
    for each in parts:
        if len(each) > _MOST_PARTS or any(part in ("", ".", "..") or set(part) & set("/\0") for part in each):
            raise InputError(f"{dicomdir} refers to a file outside its folder: {'/'.join(each)[:80]!r}; it is damaged")
    files = sorted({dicomdir.parent.joinpath(*each) for each in parts})
    if missing := [path for path in files if not _is_file(path)]:
        raise InputError(
            f"{dicomdir} lists {len(missing)} file(s) that do not exist: {shortened(missing)}; copy the whole medium"
        )
    if not files:
        raise InputError(f"{dicomdir} lists no image")
    return files


def _is_file(path: Path) -> bool:
    """Whether a file exists; none can have a name that the system does not take."""
    try:
        return path.is_file()
    except OSError:
        return False
