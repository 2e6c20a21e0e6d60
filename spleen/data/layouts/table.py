"""CSV files that list cases, or the groups of cases."""

import csv
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

from spleen.data.cases import Case, case_from_files
from spleen.data.layouts.dataset import Dataset, file_path, make_dataset, missing_files
from spleen.errors import InputError
from spleen.imaging.files import case_name, split_channel
from spleen.reporting.csv_text import from_cell
from spleen.system.text import bullets, shortened

_SEPARATOR = ";"
Row = Mapping[str, str]


def read_table(path: Path) -> Dataset:
    """Read cases from a CSV file with the columns image and label, and optionally case_id, group and labelled.

    The paths of several channels in `image` are separated by semicolons, as the classes in `labelled`, which are those
    that the case labels. Paths are relative to the folder of the CSV
    file. Without case_id, a case is named after its image file, or after its folder if the file is just called "image".
    Other columns are ignored. Raises InputError with the line number for empty cells, missing files, duplicate
    case_ids, and an empty group or labelled if other lines have one.
    """
    rows = read_rows(path, ("image", "label"))
    cases = {line: _case(path, line, row) for line, row in rows.items()}
    _check_unique(path, {line: case.case_id for line, case in cases.items()})
    _check_groups(path, cases)
    _check_labelled(path, cases)
    lines = {file: line for line, case in cases.items() for file in (*case.images, case.label)}
    if missing := missing_files(lines):
        shown = bullets([f"line {lines[file]}: {file}" for file in missing])
        raise InputError(f"{len(missing)} file(s) listed in {path} do not exist:{shown}")
    return make_dataset(path, cases.values())


def read_groups(path: Path) -> dict[str, str]:
    """Read the group of each case, such as the patient, from a CSV file with the columns case_id and group.

    Raises InputError with the line number for empty cells and duplicate cases.
    """
    rows = read_rows(path, ("case_id", "group"))
    _check_unique(path, {line: row["case_id"] for line, row in rows.items()})
    return {row["case_id"]: row["group"] for row in rows.values()}


def read_labelled(path: Path) -> dict[str, tuple[str, ...]]:
    """Read the classes that each case labels from a CSV file with the columns labelled and case_id.

    In place of case_id there may be image and label, as in a table of cases. Raises InputError with the line number for
    empty cells and duplicate cases.
    """
    rows = read_rows(path, ("labelled",))
    case_ids = {}
    for line, row in rows.items():
        if not row.get("case_id") and not (row.get("image") and row.get("label")):
            raise InputError(f"{path}, line {line} does not say which case it is; give it a case_id")
        case_ids[line] = row.get("case_id") or _case(path, line, row).case_id
    _check_unique(path, case_ids)
    return {case_ids[line]: _labelled(row) or () for line, row in rows.items()}


def _case(path: Path, line: int, row: Row) -> Case:
    where = f"{path}, line {line}"
    texts = [text.strip() for text in row["image"].split(_SEPARATOR)]
    images = tuple(file_path(path.parent, text, f"{where}, image") for text in texts)
    label = file_path(path.parent, row["label"], f"{where}, label")
    case_id = row.get("case_id") or _default_id(images, label)
    return Case(case_id, images, label, group=row.get("group") or None, labelled=_labelled(row))


def _labelled(row: Row) -> tuple[str, ...] | None:
    names = [name.strip() for name in row.get("labelled", "").split(_SEPARATOR)]
    return tuple(dict.fromkeys(name for name in names if name)) or None


def _default_id(images: Sequence[Path], label: Path) -> str:
    """The name of the first image, without nnU-Net's channel number unless the label's name has one too."""
    channel = split_channel(case_name(images[0]))
    if channel and channel[1] == 0 and (len(images) > 1 or channel[0] == case_name(label)):
        return channel[0]
    return case_from_files(images[0], label).case_id


def _check_groups(path: Path, cases: Mapping[int, Case]) -> None:
    """A forgotten group could put the same patient into training and test."""
    empty = [line for line, case in cases.items() if case.group is None]
    if empty and len(empty) < len(cases):
        raise InputError(
            f"{path}: {len(empty)} line(s) have no group while others do (line {shortened(empty, 10)}); fill in the "
            "column for every case, using the case_id for a case without a group, or leave it empty for all"
        )


def _check_labelled(path: Path, cases: Mapping[int, Case]) -> None:
    """A forgotten cell would teach that an organ which nobody has labelled is background."""
    empty = [line for line, case in cases.items() if case.labelled is None]
    if empty and len(empty) < len(cases):
        raise InputError(
            f"{path}: {len(empty)} line(s) do not say which classes are labelled while others do (line "
            f"{shortened(empty, 10)}); fill in the column labelled for every case, with all classes where all are"
        )


def _check_unique(path: Path, case_ids: Mapping[int, str]) -> None:
    lines = defaultdict(list)
    for line, case_id in case_ids.items():
        lines[case_id].append(line)
    duplicates = [f"'{case_id}' on lines {', '.join(map(str, on))}" for case_id, on in lines.items() if len(on) > 1]
    if duplicates:
        raise InputError(
            f"{path}: {len(duplicates)} case(s) appear more than once; give each line a unique case_id in the column "
            "case_id:" + bullets(duplicates)
        )


def read_rows(path: Path, needed: Sequence[str]) -> dict[int, Row]:
    """The rows by line number, as column name to stripped cell; the `needed` cells are not empty."""
    lines = _read_lines(path)
    if not lines:
        raise InputError(f"{path} is empty; it must be a CSV file with the columns {', '.join(needed)}")
    header = [name.lower() for name in lines.pop(min(lines))]
    _check_header(path, header, needed)
    rows: dict[int, Row] = {}
    for line, cells in lines.items():
        if len(cells) > len(header):
            raise InputError(
                f"{path}, line {line} has {len(cells)} cells, the header {len(header)}; put cells that contain a comma "
                'in "quotes"'
            )
        row = dict(zip(header, cells + [""] * (len(header) - len(cells)), strict=True))
        if empty := [name for name in needed if not row[name]]:
            raise InputError(f"{path}, line {line}: {' and '.join(empty)} must not be empty")
        rows[line] = row
    if not rows:
        raise InputError(f"{path} contains no cases, only the header")
    return rows


def _check_header(path: Path, header: Sequence[str], needed: Sequence[str]) -> None:
    if missing := [name for name in needed if name not in header]:
        hint = ""
        if len(header) == 1 and any(separator in header[0] for separator in ";\t"):
            hint = "; it seems to use semicolons or tabs as separators: save it with commas"
        raise InputError(f"{path} has no column {' and no '.join(missing)}; it has {', '.join(header)}{hint}")
    if duplicates := [name for name in dict.fromkeys(header) if name and header.count(name) > 1]:
        raise InputError(f"{path} has the column {', '.join(duplicates)} more than once; keep one of each")


def _read_lines(path: Path) -> dict[int, list[str]]:
    """The cells of each non-blank record, by the number of its last line in the file."""
    lines = {}
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:  # Excel writes a byte-order mark
            reader = csv.reader(file, strict=True)
            for cells in reader:
                if any(cell.strip() for cell in cells):
                    lines[reader.line_num] = [from_cell(cell.strip()) for cell in cells]
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror} (relative to {Path.cwd()})") from error
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not UTF-8 text ({error.reason}); save it as CSV in UTF-8") from error
    except csv.Error as error:
        raise InputError(f"{path}, line {reader.line_num}: {error}; is there an unclosed quote?") from error
    return lines
