"""Trainings on cases in which only some of the classes are labelled."""

import csv
import math
from pathlib import Path

import numpy as np
import pytest

from spleen.config.identity import settings_with_effect
from spleen.errors import InputError
from spleen.records.cases import read_cases
from spleen.runs.report.record import read_record
from spleen.runs.report.score_facts import case_table, class_table
from tests._helpers.many_cases import ManyCases, many_cases, quick, quick_config, relabel
from tests._helpers.small_run import compose_config, small, summary

CASES = 12
PARTLY = 8
"""Of the first so many cases, every other one labels the front of the organ only, the others the back."""
_OF_CASES = ",".join(f"c{number}:[{['front', 'back'][number % 2]}]" for number in range(PARTLY))
LABELLED = f"data.labelled_classes={{{_OF_CASES}}}"
FULLY = [f"c{number}" for number in range(PARTLY, CASES)]


@pytest.fixture
def cases(tmp_path: Path) -> ManyCases:
    data = many_cases(tmp_path / "Task", CASES)
    for number in range(PARTLY):
        other = 2 - number % 2
        relabel(data, f"c{number}", lambda label, other=other: np.where(label == other, 0, label).astype(np.uint8))
    return data


def scored_on(folder: Path, *case_ids: str) -> str:
    """The setting for these test cases."""
    path = folder / "test.json"
    path.write_text("[" + ", ".join(f'"{case_id}"' for case_id in case_ids) + "]")
    return f"split.test_cases={path}"


@pytest.mark.slow
def test_scores_leave_unlabelled_classes_out(
    cases: ManyCases, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run = quick(tmp_path, *cases.decathlon, LABELLED, scored_on(tmp_path, "c0", "c1", "c2", "c8"))
    with (run / "cases.csv").open(newline="") as file:
        rows = {(row["case_id"], row["class_name"]): row for row in csv.DictReader(file) if row["split"] == "test"}
    unlabelled = {("c0", "back"), ("c1", "front"), ("c2", "back")}
    assert {key for key, row in rows.items() if row["reference"] == "not labelled"} == unlabelled
    for key, row in rows.items():
        assert math.isnan(float(row["dice"])) == math.isnan(float(row["volume_reference_mm3"])) == (key in unlabelled)
    test = summary(run)["test"]
    assert (test["n_cases"], test["n_empty"]) == (4, 0)
    assert (test["front"]["n_cases"], test["back"]["n_cases"]) == (3, 2)
    assert test["front"]["dice"] == pytest.approx(
        np.mean([float(rows[case, "front"]["dice"]) for case in ("c0", "c2", "c8")])
    )
    assert len(read_cases(run)) == 2 * (4 + 2)
    record = read_record(run)
    assert not record.missing
    table = class_table(record)
    assert table is not None
    headings, classes = table
    of_test = {row[1]: row[headings.index("cases")] for row in classes if row[0] == "test"}
    assert of_test == {"front": 3, "back": 2}
    assert sum("not labelled" in row for row in case_table(record)[1] if row[0] == "test") == 3
    assert "could not be" not in caplog.text  # of pictures and tables
    with (run / "slices.csv").open(newline="") as file:
        assert unlabelled.isdisjoint((row["case_id"], row["class_name"]) for row in csv.DictReader(file))


@pytest.mark.slow
def test_a_split_without_a_labelled_case_of_a_class_is_a_warning(
    cases: ManyCases, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run = quick(tmp_path, *cases.decathlon, LABELLED, scored_on(tmp_path, "c0", "c2"))
    assert "no case of the test split labels back: not scored there" in caplog.text
    back = summary(run)["test"]["back"]
    assert (back["n_cases"], back["dice"]) == (0, None)


def test_training_cases_that_all_lack_a_class_are_an_error(cases: ManyCases, tmp_path: Path) -> None:
    testing = scored_on(tmp_path, "c1", "c3", "c5", "c7", *FULLY)
    with pytest.raises(InputError, match="back: labelled in none of the 3 training cases"):
        quick(tmp_path, *cases.decathlon, LABELLED, testing)


@pytest.mark.parametrize(
    ("setting", "expected"),
    [
        ("{spleen_*:[front]}", r"'spleen_\*' matches no case; the cases are c0, c1"),
        ("{c1:[front],c?:[back]}", r"'c1' and 'c\?' both match case 'c1'; make one narrower"),
        ("{c1:[tail]}", "case 'c1' is said to be labelled for 'tail', but the classes are front, back"),
        ("{c8:[front]}", r"1 label\(s\) contain classes .*c8: back"),
        ("{c*:[front]}", "'back' is labelled in none of the 12 cases"),
    ],
)
def test_wrong_settings_are_errors(cases: ManyCases, tmp_path: Path, setting: str, expected: str) -> None:
    with pytest.raises(InputError, match=f"(?s){expected}"):
        quick(tmp_path, *cases.decathlon, f"data.labelled_classes={setting}")


def test_a_setting_of_another_form_is_an_error(cases: ManyCases, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"data\.labelled_classes must map patterns of case names to lists of classes"):
        quick_config(tmp_path, *cases.decathlon, "data.labelled_classes={c1:front}")


def test_labelled_classes_are_part_of_what_identifies_a_job(cases: ManyCases, tmp_path: Path) -> None:
    assert "data.labelled_classes" not in settings_with_effect(compose_config(*small("data=decathlon")))
    settings = settings_with_effect(quick_config(tmp_path, *cases.decathlon, LABELLED))
    assert settings["data.labelled_classes.c0"] == ["front"]


@pytest.mark.slow
def test_both_organs_are_learned_from_cases_that_label_one_each(cases: ManyCases, tmp_path: Path) -> None:
    """As background, an unlabelled organ would be unlearned in every other case."""
    learns = (
        "epochs=8",
        "loss.ce_weight=1",
        "loader.slices_per_epoch=48",
        "model.network.width=4",
        "lr=3e-2",
        "precision=32",
    )
    common = (*cases.decathlon, *learns, "axis=coronal", scored_on(tmp_path, *FULLY), "split.val_fraction=0.25")
    partial = summary(quick(tmp_path, *common, LABELLED, name="partial"))["test"]
    naive = summary(quick(tmp_path, *common, name="naive"))["test"]
    for name in ("front", "back"):
        assert partial[name]["dice"] > 0.8
        assert naive[name]["dice"] < partial[name]["dice"] - 0.3
