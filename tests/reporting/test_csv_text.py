"""Names in CSV files: safe in a spreadsheet, and unchanged after reading."""

import csv
import io
from dataclasses import asdict
from pathlib import Path

import pytest

from spleen.data.layouts.table import read_groups
from spleen.errors import InputError
from spleen.evaluation.metrics.per_case import CaseScore
from spleen.evaluation.score_tables import check_same_names, read_table
from spleen.inference.record import read_record, record
from spleen.records.cases import read_cases
from spleen.reporting.csv_text import CsvReader, as_cell, from_cell, to_csv
from spleen.reporting.numbers import csv_text
from spleen.runs.summary import write_cases
from tests.inference.test_outputs import SCORE, Target, image

FORMULAS = ['=HYPERLINK("http://x","y")', "+1+cmd|' /C calc'!A0", "-2+3", "@SUM(A1)", "\t=1", "\r=1", "\n=1", "=", "-"]
HARMLESS = ["case 1", "a=b", "'quoted'", "O'Neil", "", "'", "1-2", "é", 'a "b", c', "a\nb", "a\rb", "a\r\nb"]
NUMBERS = ["-1.5", "+3", "-inf", "-1e-3", "+nan", "-0"]


@pytest.mark.parametrize("name", FORMULAS)
def test_a_name_that_looks_like_a_formula_is_written_as_text(name: str) -> None:
    assert as_cell(name) == f"'{name}"


@pytest.mark.parametrize("value", [*HARMLESS, *NUMBERS, -1.5, -2, None, True])
def test_other_text_and_numbers_are_unchanged(value: object) -> None:
    assert as_cell(value) == value


@pytest.mark.parametrize("name", [*FORMULAS, *HARMLESS, *NUMBERS, *(f"'{name}" for name in FORMULAS), "''=1"])
def test_every_name_survives_a_round_trip(name: str) -> None:
    assert from_cell(str(as_cell(name))) == name
    text = to_csv([["name", "other"], [name, "x"], [name, None]])
    assert [row["name"] for row in CsvReader(io.StringIO(text, newline=""))] == [name, name]
    # Python's own reader, as an independent check: the same rows, with at most one extra apostrophe.
    _, first, second = csv.reader(io.StringIO(text, newline=""))
    assert (first[1], second[1]) == ("x", "")
    assert first[0] in (name, f"'{name}")


def test_a_file_without_formula_like_names_is_plain_csv() -> None:
    assert csv_text(["a", "b"], [["x, y", -1.5], [None, float("nan")]]) == 'a,b\n"x, y",-1.5\n,nan\n'


NAMES = ["=cmd", "-case", "a\rb", "a\nb", "'=x", "-1.5", "plain"]


def test_names_survive_predictions_csv(tmp_path: Path) -> None:
    for name in [*NAMES, "scan\udcff"]:
        target = Target(image(Path(f"{name}.nii")), tmp_path / f"{name}.nii.gz")
        for _ in range(2):  # the second replaces the first
            record(target.image, target.mask, [SCORE], [(1,)])
    rows = read_record(tmp_path / "predictions.csv")
    assert [row["case_id"] for row in rows] == [*NAMES, r"scan\xff"]
    assert [row["prediction"] for row in rows] == [f"{name}.nii.gz" for name in [*NAMES, r"scan\xff"]]
    (tmp_path / "predictions.csv").read_text(encoding="utf-8")


def test_names_survive_cases_csv_and_the_comparison_of_scores(tmp_path: Path) -> None:
    fields = dict.fromkeys(CaseScore.__dataclass_fields__, 0.5)
    scores = [CaseScore(**{**fields, "case_id": name, "class_name": "+organ"}) for name in NAMES]
    assert asdict(scores[0])["case_id"] == "=cmd"
    write_cases(tmp_path / "cases.csv", {"test": scores})
    assert [(row.case_id, row.class_name) for row in read_cases(tmp_path)] == [(name, "+organ") for name in NAMES]
    assert list(read_table(tmp_path / "cases.csv", "test", ["dice"])) == [(name, "+organ") for name in NAMES]


def test_case_names_that_only_look_alike_are_distinguished() -> None:
    with pytest.raises(InputError, match=r"only in a: 'caf\\xe9'\s+only in b: 'cafe\\u0301'"):
        check_same_names(("a", "b"), (["caf\u00e9", "x"], ["cafe\u0301", "x"]), "case")


def test_a_written_table_of_groups_can_be_read_back(tmp_path: Path) -> None:
    (tmp_path / "groups.csv").write_text(csv_text(["case_id", "group"], [["=a", "p1"], ["-b", "-1"]]))
    assert read_groups(tmp_path / "groups.csv") == {"=a": "p1", "-b": "-1"}
