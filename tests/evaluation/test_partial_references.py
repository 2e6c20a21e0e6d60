"""Evaluation of predictions against references in which only some of the classes are labelled."""

import math
from pathlib import Path

import numpy as np
import pytest

from spleen.errors import InputError
from spleen.evaluation.compare import compare
from spleen.evaluation.evaluate import Evaluation, evaluate
from spleen.evaluation.report.agreement import agreement_figure
from spleen.evaluation.report.files import to_csv, to_json
from tests._helpers.nifti import ras_affine, save

CLASSES = {1: "spleen", 2: "liver"}
LABELLED = {"a": ["spleen"], "b": ["spleen", "liver"], "c": ["liver"]}


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    """Every case has a liver of 4 voxels and a spleen of 6; each prediction lacks 2 voxels of both."""
    for number, name in enumerate(LABELLED):
        whole = np.zeros((6, 5, 4), np.uint8)
        whole[1:4, 1:3, number], whole[1:3, 3:5, number] = 1, 2
        prediction, reference = whole.copy(), whole.copy()
        prediction[1], reference[~np.isin(whole, [v for v, n in CLASSES.items() if n in LABELLED[name]])] = 0, 0
        for folder, array in (("predictions", prediction), ("references", reference)):
            (tmp_path / folder).mkdir(exist_ok=True)
            save(tmp_path / folder / f"{name}.nii.gz", array, ras_affine())
    return tmp_path / "predictions", tmp_path / "references"


def table(folder: Path, *lines: str) -> Path:
    path = folder / "cases.csv"
    path.write_text("\n".join(["case_id,labelled", *lines]))
    return path


def check(evaluation: Evaluation) -> None:
    dice = {(score.case_id, score.class_name): score.dice for score in evaluation.scores}
    assert {key for key, value in dice.items() if math.isnan(value)} == {("a", "liver"), ("c", "spleen")}
    assert dice["a", "spleen"] == dice["b", "spleen"] == pytest.approx(2 * 4 / (4 + 6))
    assert dice["b", "liver"] == dice["c", "liver"] == pytest.approx(2 * 2 / (2 + 4))
    summary = evaluation.summary("liver")
    assert (summary.n_cases, summary.n_empty, summary.n_false_positive) == (2, 0, 0)
    assert summary.metrics["dice"].n_undefined == 0
    assert summary.metrics["dice"].mean == pytest.approx(2 / 3)
    assert evaluation.summary().n_cases == 3


def test_unlabelled_classes_are_not_scored(folders: tuple[Path, Path], tmp_path: Path) -> None:
    naive = evaluate(*folders, CLASSES)
    assert naive.summary("liver").n_false_positive == 1
    check(evaluate(*folders, CLASSES, labelled=LABELLED))
    check(evaluate(*folders, CLASSES, labelled=table(tmp_path, "a,spleen", "b,spleen;liver", "c,liver", "d,spleen")))


def test_texts_files_and_figures_say_what_is_not_labelled(folders: tuple[Path, Path]) -> None:
    evaluation = evaluate(*folders, CLASSES, labelled=LABELLED)
    assert "not labelled in the reference, not scored: a liver, c spleen" in str(evaluation)
    lines = to_csv(evaluation).splitlines()
    assert lines[0].endswith(",reference")
    assert [line.split(",")[-1] for line in lines[1:]] == [
        "labelled",
        "not labelled",
        "labelled",
        "labelled",
        "not labelled",
        "labelled",
    ]
    assert '"n_cases": 2' in to_json(evaluation)
    assert len(agreement_figure(evaluation).axes) == 4
    assert "reference" not in to_csv(evaluate(*folders, CLASSES)).splitlines()[0].split(",")


def test_a_comparison_leaves_unlabelled_classes_out(folders: tuple[Path, Path]) -> None:
    comparison = compare(*folders, folders[1], classes=CLASSES, labelled=LABELLED)
    by_class = {summary.class_name: summary for summary in comparison.summaries}
    assert (by_class["liver"].n_pairs, by_class["spleen"].n_pairs) == (2, 2)


def test_a_class_that_is_there_but_not_said_to_be_labelled_is_a_failure(folders: tuple[Path, Path]) -> None:
    evaluation = evaluate(*folders, CLASSES, labelled={**LABELLED, "b": ["liver"]})
    (failure,) = evaluation.failures
    assert failure.case_id == "b"
    assert "the reference contains spleen, which is not said to be labelled" in failure.reason


def test_a_case_of_which_nothing_is_said_is_a_failure(folders: tuple[Path, Path]) -> None:
    (failure,) = evaluate(*folders, CLASSES, labelled={"a": ["spleen"], "b": ["spleen", "liver"]}).failures
    assert "nothing says which classes are labelled in 'c'; known are a, b" in failure.reason


@pytest.mark.parametrize(
    ("classes", "lines", "expected"),
    [
        (CLASSES, ["a,tail"], "'a' is said to be labelled for 'tail', but the classes are spleen, liver"),
        (None, ["a,spleen"], "which classes are labelled needs their names"),
        (CLASSES, ["a,spleen", "b,"], "line 3: labelled must not be empty"),
        (CLASSES, [",spleen"], "line 2 does not say which case it is; give it a case_id"),
        (CLASSES, ["a,spleen", "a,liver"], "1 case.* more than once"),
    ],
)
def test_wrong_tables_are_errors(
    folders: tuple[Path, Path], tmp_path: Path, classes: dict[int, str] | None, lines: list[str], expected: str
) -> None:
    with pytest.raises(InputError, match=expected):
        evaluate(*folders, classes, labelled=table(tmp_path, *lines))
