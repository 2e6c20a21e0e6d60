"""Cases listed in a CSV file, and the groups of cases."""

import csv
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

from spleen.cases import Case, case_from_files
from spleen.errors import InputError
from spleen.layouts.dataset import Dataset, file_path, make_dataset, missing_files
from spleen.listing import few, in_lines
from spleen.pairing import case_name, split_channel

_CHANNEL_SEPARATOR = ";"
Row = Mapping[str, str]


def read_table(path: Path) -> Dataset:
    """Read cases from a CSV file with the columns image and label, and case_id and group where wanted.

    Several channels are several paths in `image`, separated by semicolons. Paths are relative to the folder of the CSV
    file. Without case_id, a case is named after its image, or the image's folder where the file is only called "image".
    Other columns are ignored. Raises InputError, which names the line, for empty cells, files that do not exist, a
    case_id that comes twice, and a group that is left empty while other lines have one.
    """
    rows = _read_rows(path, ("image", "label"))
    cases = {line: _case(path, line, row) for line, row in rows.items()}
    _check_unique(path, {line: case.case_id for line, case in cases.items()})
    _check_groups(path, cases)
    lines = {file: line for line, case in cases.items() for file in (*case.images, case.label)}
    if missing := missing_files(lines):
        told = in_lines([f"line {lines[file]}: {file}" for file in missing])
        raise InputError(f"{len(missing)} file(s) that {path} lists do not exist:{told}")
    return make_dataset(path, cases.values())


def read_groups(path: Path) -> dict[str, str]:
    """Read the group of each case, such as the patient, from a CSV file with the columns case_id and group.

    Raises InputError, which names the line, for empty cells and a case that comes twice.
    """
    rows = _read_rows(path, ("case_id", "group"))
    _check_unique(path, {line: row["case_id"] for line, row in rows.items()})
    return {row["case_id"]: row["group"] for row in rows.values()}


def _case(path: Path, line: int, row: Row) -> Case:
    where = f"{path}, line {line}"
    texts = [text.strip() for text in row["image"].split(_CHANNEL_SEPARATOR)]
    images = tuple(file_path(path.parent, text, f"{where}, image") for text in texts)
    label = file_path(path.parent, row["label"], f"{where}, label")
    case_id = row.get("case_id") or _default_id(images, label)
    return Case(case_id=case_id, images=images, label=label, group=row.get("group") or None)


def _default_id(images: Sequence[Path], label: Path) -> str:
    """The name of the first image, without nnU-Net's channel number where the name of the label has none either."""
    channel = split_channel(case_name(images[0]))
    if channel and channel[1] == 0 and (len(images) > 1 or channel[0] == case_name(label)):
        return channel[0]
    return case_from_files(images[0], label).case_id


def _check_groups(path: Path, cases: Mapping[int, Case]) -> None:
    """A group that someone forgot would let one patient train and test."""
    empty = [line for line, case in cases.items() if case.group is None]
    if empty and len(empty) < len(cases):
        raise InputError(
            f"{path}: {len(empty)} line(s) have no group while others have one (line {few(empty, 10)}); fill the "
            "column for every case, with the case's own name where it is alone, or for none"
        )


def _check_unique(path: Path, case_ids: Mapping[int, str]) -> None:
    lines = defaultdict(list)
    for line, case_id in case_ids.items():
        lines[case_id].append(line)
    twice = [f"'{case_id}' on lines {', '.join(map(str, on))}" for case_id, on in lines.items() if len(on) > 1]
    if twice:
        raise InputError(
            f"{path}: {len(twice)} case(s) come more than once; give each line a case_id of its own, in a column of "
            "that name:" + in_lines(twice)
        )


def _read_rows(path: Path, needed: Sequence[str]) -> dict[int, Row]:
    """The rows by their line, as column name to cell without spaces around it; the `needed` cells are not empty."""
    lines = _read_lines(path)
    if not lines:
        raise InputError(f"{path} is empty; a CSV file with the columns {', '.join(needed)} is wanted")
    header = [name.lower() for name in lines.pop(min(lines))]
    _check_header(path, header, needed)
    rows: dict[int, Row] = {}
    for line, cells in lines.items():
        if len(cells) > len(header):
            raise InputError(
                f"{path}, line {line} has {len(cells)} cells, its header {len(header)}; put a cell that holds a comma "
                'into "quotes"'
            )
        row = dict(zip(header, cells + [""] * (len(header) - len(cells)), strict=True))
        if empty := [name for name in needed if not row[name]]:
            raise InputError(f"{path}, line {line}: {' and '.join(empty)} must not be empty")
        rows[line] = row
    if not rows:
        raise InputError(f"{path} holds no case, only the header")
    return rows


def _check_header(path: Path, header: Sequence[str], needed: Sequence[str]) -> None:
    if missing := [name for name in needed if name not in header]:
        hint = ""
        if len(header) == 1 and any(separator in header[0] for separator in ";\t"):
            hint = "; it seems to be separated by semicolons or tabs: save it with commas"
        raise InputError(f"{path} has no column {' and no '.join(missing)}; it has {', '.join(header)}{hint}")
    if twice := [name for name in dict.fromkeys(header) if name and header.count(name) > 1]:
        raise InputError(f"{path} has the column {', '.join(twice)} more than once; keep one of each")


def _read_lines(path: Path) -> dict[int, list[str]]:
    """The cells of each line that is not blank, by its number, which is that of its last line in the file."""
    lines = {}
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:  # Excel begins a file with a byte-order mark
            reader = csv.reader(file, strict=True)
            for cells in reader:
                if any(cell.strip() for cell in cells):
                    lines[reader.line_num] = [cell.strip() for cell in cells]
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror} (looked from {Path.cwd()})") from error
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not text in UTF-8 ({error.reason}); save it as CSV in UTF-8") from error
    except csv.Error as error:
        raise InputError(f"{path}, line {reader.line_num}: {error}; is a quote left open?") from error
    return lines
