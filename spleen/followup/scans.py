"""Which scans belong together: subject, date and image of each, from a CSV file, DICOM headers or file names."""

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING

from spleen.data.layouts.dataset import file_path, missing_files
from spleen.data.layouts.table import read_rows
from spleen.errors import InputError
from spleen.imaging.dicom.header import read_header, text
from spleen.imaging.dicom.location import holds_dicom, is_series, split_selector, with_selector
from spleen.imaging.dicom.series import Series, assemble, candidates, read_series
from spleen.imaging.files import case_name, find_volumes
from spleen.system.text import bullets, shortened

if TYPE_CHECKING:
    from pydicom import Dataset

_DATED = re.compile(r"(?P<subject>.+?)[_.-](?P<day>\d{4}-\d{2}-\d{2}|\d{8})")
_DATE_KEYWORDS = ("AcquisitionDate", "SeriesDate", "StudyDate")
PROTOCOL = {
    "Manufacturer": "manufacturer",
    "ManufacturerModelName": "scanner",
    "KVP": "tube voltage (kV)",
    "ConvolutionKernel": "kernel",
    "SliceThickness": "slice thickness (mm)",
    "ContrastBolusAgent": "contrast agent",
    "MagneticFieldStrength": "field strength (T)",
    "EchoTime": "echo time (ms)",
    "RepetitionTime": "repetition time (ms)",
}
"""Elements of a DICOM header that change how large an organ looks, and their names."""


@dataclass(frozen=True, eq=False)
class Scan:
    """One scan of a subject."""

    subject: str
    day: date
    images: tuple[Path, ...]
    """One per channel, or a single file or series."""
    reference: Path | None = None
    """An expert's mask of it."""
    protocol: Mapping[str, str] = field(default_factory=dict)
    """How it was acquired, by the names in `PROTOCOL`; empty for NIfTI."""

    @property
    def name(self) -> str:
        """What its files are called."""
        return f"{re.sub(r'[^A-Za-z0-9._-]+', '_', self.subject).strip('._') or 'subject'}_{self.day.isoformat()}"


def read_scans(inputs: Sequence[Path], identifying: bool = False) -> list[Scan]:
    """The scans by subject and date, of which at least one subject has two.

    Each input is a CSV file with the columns subject, date, image (channels separated by ;) and optionally label; a
    DICOM folder, whose series are the scans; a NIfTI file called SUBJECT_DATE, or a folder of these. Patients of DICOM
    files are numbered, unless `identifying`. Raises InputError for anything else, an invalid date, a missing file, and
    for two scans of a subject on one day.
    """
    if not inputs:
        raise InputError("give a CSV file with the columns subject, date and image, or folders of dated scans")
    scans: list[Scan] = []
    patients: dict[str, str] = {}
    for path in inputs:
        scans += _read(path, patients, identifying)
    scans.sort(key=lambda scan: (scan.subject, scan.day))
    _check_days(scans)
    if not any(len(of_subject) > 1 for of_subject in by_subject(scans).values()):
        raise InputError(
            f"every subject has a single scan ({shortened(scan.subject for scan in scans)}), so there is nothing to "
            "compare; the scans of one patient must have the same subject"
        )
    _check_names(scans)
    return scans


def read_pairs(table: Path) -> list[tuple[Scan, Scan]]:
    """Test–retest pairs from a CSV file as for `read_scans`: two scans of each subject, on any days.

    They are called SUBJECT_a and SUBJECT_b, and have no reference. Raises InputError as `read_scans` does, and for a
    subject that has not exactly two scans.
    """
    grouped = by_subject(_of_table(table))
    if wrong := [f"{subject}: {len(scans)}" for subject, scans in grouped.items() if len(scans) != 2]:
        raise InputError(f"{table}: each subject of a test–retest study has two scans; found{bullets(wrong)}")
    pairs = [
        (
            replace(first, subject=f"{first.subject}_a", reference=None),
            replace(second, subject=f"{second.subject}_b", reference=None),
        )
        for first, second in grouped.values()
    ]
    _check_names([scan for pair in pairs for scan in pair])
    return pairs


def by_subject(scans: Iterable[Scan]) -> dict[str, list[Scan]]:
    """The scans of each subject in the order given."""
    grouped: dict[str, list[Scan]] = defaultdict(list)
    for scan in scans:
        grouped[scan.subject].append(scan)
    return dict(grouped)


def _read(path: Path, patients: dict[str, str], identifying: bool) -> Iterator[Scan]:
    if path.suffix.lower() == ".csv":
        yield from _of_table(path)
        return
    place, selector = split_selector(path)
    if selector is not None or (place.exists() and holds_dicom(place)):
        yield from _of_series(_all_series(path), patients, identifying)
        return
    for volume in find_volumes([path]):
        yield _of_name(volume)


def _of_table(path: Path) -> Iterator[Scan]:
    rows = read_rows(path, ("subject", "date", "image"))
    files: dict[Path, int] = {}
    for line, row in rows.items():
        where = f"{path}, line {line}"
        images = tuple(file_path(path.parent, each.strip(), f"{where}, image") for each in row["image"].split(";"))
        reference = file_path(path.parent, row["label"], f"{where}, label") if row.get("label") else None
        files |= dict.fromkeys([*images, *([reference] if reference else [])], line)
        yield Scan(row["subject"], _parse_day(row["date"], where), images, reference, _protocol_of(images[0]))
    nifti = {file for file in files if split_selector(file)[1] is None and not file.is_dir()}
    if missing := missing_files(nifti):
        shown = bullets([f"line {files[file]}: {file}" for file in missing])
        raise InputError(f"{len(missing)} file(s) listed in {path} do not exist:{shown}")


def _protocol_of(image: Path) -> dict[str, str]:
    """Of a DICOM series; empty for NIfTI, and for what cannot be read, as its prediction tells."""
    if not is_series(image):
        return {}
    try:
        return _protocol([read_header(read_series(image).frames[0].instance.path, list(PROTOCOL)).dataset])
    except (InputError, OSError):
        return {}


def _protocol(header: "Sequence[Dataset]") -> dict[str, str]:
    return {name: value for keyword, name in PROTOCOL.items() if (value := text(header, keyword))}


def _of_name(volume: Path) -> Scan:
    match = _DATED.fullmatch(case_name(volume))
    if match is None:
        raise InputError(
            f"{volume} does not tell subject and date; call it SUBJECT_2024-01-31.nii.gz, or give a CSV file with the "
            "columns subject, date and image"
        )
    return Scan(match["subject"], _parse_day(match["day"], str(volume)), (volume,))


def _all_series(path: Path) -> Iterator[tuple[Path, Series]]:
    """Every series of a folder that is a volume; localisers and the like are left out."""
    place, selector = split_selector(path)
    if selector is not None or place.is_file():
        yield path, read_series(path)
        return
    problems, found = [], False
    for each in candidates(place):
        try:
            series = assemble(each, place)
        except InputError as error:
            problems.append(str(error))
            continue
        found = True
        yield with_selector(place, each.selector), series
    if not found:
        raise InputError(f"{place} holds no series that is a volume:{bullets(problems)}")


def _of_series(volumes: Iterable[tuple[Path, Series]], patients: dict[str, str], identifying: bool) -> Iterator[Scan]:
    for path, series in volumes:
        header = [read_header(series.frames[0].instance.path, ["PatientID", *_DATE_KEYWORDS, *PROTOCOL]).dataset]
        patient = text(header, "PatientID")
        days = filter(None, (text(header, keyword) for keyword in _DATE_KEYWORDS))
        if (day := next(days, None)) is None:
            raise InputError(
                f"{path} has no date in its header; give a CSV file with the columns subject, date and image"
            )
        subject = patient if identifying and patient else patients.setdefault(patient, f"patient {len(patients) + 1}")
        yield Scan(subject, _parse_day(day, str(path)), (path,), None, _protocol(header))


def _parse_day(value: str, where: str) -> date:
    digits = value.strip()
    try:
        return date.fromisoformat(
            f"{digits[:4]}-{digits[4:6]}-{digits[6:]}" if re.fullmatch(r"\d{8}", digits) else digits
        )
    except ValueError:
        raise InputError(f"{where}: a date must be written like 2024-01-31 or 20240131; got '{value}'") from None


def _check_days(scans: Sequence[Scan]) -> None:
    places: dict[tuple[str, date], list[str]] = defaultdict(list)
    for scan in scans:
        places[scan.subject, scan.day].append(str(scan.images[0]))
    if twice := [f"{subject}, {day}: {' and '.join(where)}" for (subject, day), where in places.items() if where[1:]]:
        raise InputError(
            "several scans of one subject on one day; leave out all but one (of DICOM folders, name the series: "
            f"FOLDER#NUMBER), or give repeated scans to --test-retest:{bullets(twice)}"
        )


def _check_names(scans: Sequence[Scan]) -> None:
    names: dict[str, str] = {}
    for scan in scans:
        other = names.setdefault(scan.name, scan.subject)
        if other != scan.subject:
            raise InputError(
                f"the subjects '{other}' and '{scan.subject}' would have files of the same name, {scan.name}; use "
                "letters, digits, dots and dashes"
            )
