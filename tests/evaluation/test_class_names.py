"""Masks of `spleen predict` are scored by the classes of their run, under their names."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from spleen.cli.main import app
from spleen.cli.options import parse_renames
from spleen.errors import InputError
from spleen.evaluation.class_names import recorded_classes
from spleen.evaluation.compare import compare
from spleen.evaluation.evaluate import evaluate
from spleen.imaging.files import ImageFiles
from spleen.inference.outputs import Target, record
from tests._helpers.nifti import ras_affine, save
from tests.inference.test_outputs import SCORE


def recorded(mask: Path, *classes: tuple[str, tuple[int, ...]]) -> None:
    """Write what `spleen predict` records of a mask."""
    target = Target(ImageFiles(mask.name.split(".")[0], (Path("image.nii.gz"),)), mask)
    record(target, [replace(SCORE, class_name=name) for name, _ in classes], [values for _, values in classes])


@pytest.fixture
def pair(tmp_path: Path) -> tuple[Path, Path]:
    """A prediction of value 3 beside a reference of the values 3, 4 and 7, 10 voxels each, along one line."""
    for name in ("masks", "labels"):
        (tmp_path / name).mkdir()
    prediction, reference = np.zeros((40, 3, 2), np.uint8), np.zeros((40, 3, 2), np.uint8)
    prediction[5:20, 1, 1] = 3
    reference[0:10, 1, 1], reference[10:20, 1, 1], reference[20:30, 1, 1] = 3, 4, 7
    save(tmp_path / "masks" / "a.nii.gz", prediction, ras_affine())
    save(tmp_path / "labels" / "a.nii.gz", reference, ras_affine())
    return tmp_path / "masks", tmp_path / "labels"


@pytest.mark.parametrize("single", [False, True])
def test_a_merged_class_is_scored_as_it_was_trained_and_organs_that_were_not_are_left_alone(
    pair: tuple[Path, Path], single: bool
) -> None:
    masks, labels = pair
    recorded(masks / "a.nii.gz", ("kidneys", (3, 4)))
    given = (masks / "a.nii.gz", labels / "a.nii.gz") if single else pair
    evaluation = evaluate(*given)
    (score,) = evaluation.scores
    assert score.class_name == "kidneys"
    assert score.dice == pytest.approx(2 * 15 / (15 + 20))
    assert "1 case, 1 class (kidneys = 3 + 4); " in str(evaluation)


def test_the_user_s_own_classes_come_first(pair: tuple[Path, Path]) -> None:
    recorded(pair[0] / "a.nii.gz", ("kidneys", (3, 4)))
    (score,) = evaluate(*pair, classes={3: "left"}).scores
    assert (score.class_name, score.dice) == ("left", pytest.approx(2 * 5 / (15 + 10)))


@pytest.mark.parametrize(
    "content",
    [
        {"training": [], "labels": {"0": "background", "3": "left kidney", "4": "right kidney", "7": "liver"}},
        {"channel_names": {}, "labels": {"background": 0, "left kidney": 3, "right kidney": 4, "liver": 7}},
    ],
)
def test_masks_of_another_program_get_the_names_of_the_reference_s_dataset(
    pair: tuple[Path, Path], content: dict[str, object]
) -> None:
    (pair[1].parent / "dataset.json").write_text(json.dumps(content))
    single = pair[0] / "a.nii.gz", pair[1] / "a.nii.gz"
    for given in (pair, single):
        dice = {score.class_name: score.dice for score in evaluate(*given).scores}
        assert dice == {"left kidney": pytest.approx(2 * 5 / (15 + 10)), "right kidney": 0, "liver": 0}
    compared = compare(*(str(pair[0]),) * 2, reference=str(pair[1]), metrics=["dice"])
    assert {pair.class_name for pair in compared.pairs} == set(dice)


def test_what_predict_recorded_comes_before_the_dataset(pair: tuple[Path, Path]) -> None:
    (pair[1].parent / "dataset.json").write_text('{"labels": {"3": "left", "4": "right", "7": "liver"}}')
    recorded(pair[0] / "a.nii.gz", ("kidneys", (3, 4)))
    assert [score.class_name for score in evaluate(*pair).scores] == ["kidneys"]


@pytest.mark.parametrize(
    "content",
    ["no JSON", "[]", "{}", '{"labels": {"background": 0}}', '{"labels": {"a": "b"}}', '{"labels": {"3": ""}}'],
)
def test_a_dataset_that_names_no_class_leaves_each_value_a_class(pair: tuple[Path, Path], content: str) -> None:
    (pair[1].parent / "dataset.json").write_text(content)
    assert [score.class_name for score in evaluate(*pair).scores] == ["3", "4", "7"]


def test_both_sides_of_a_comparison_get_the_names_that_one_of_them_has(pair: tuple[Path, Path], tmp_path: Path) -> None:
    masks, labels = pair
    recorded(masks / "a.nii.gz", ("kidneys", (3, 4)))
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "a.nii.gz").write_bytes((labels / "a.nii.gz").read_bytes())
    (found,) = compare(masks, elsewhere, labels).pairs
    assert (found.class_name, found.b, found.difference) == ("kidneys", 1.0, pytest.approx(1 - 30 / 35))


def test_sides_that_contradict_each_other_are_scored_by_value(pair: tuple[Path, Path], tmp_path: Path) -> None:
    masks, labels = pair
    recorded(masks / "a.nii.gz", ("kidneys", (3, 4)))
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "a.nii.gz").write_bytes((masks / "a.nii.gz").read_bytes())
    recorded(elsewhere / "a.nii.gz", ("left", (3,)))
    assert {pair.class_name for pair in compare(masks, elsewhere, labels).pairs} == {"3", "4", "7"}


def test_masks_of_several_classes_and_of_other_runs_in_one_folder_tell_nothing(tmp_path: Path) -> None:
    recorded(tmp_path / "a.nii.gz", ("front", (1,)), ("back", (2,)))
    assert recorded_classes(tmp_path) == {1: "front", 2: "back"}
    recorded(tmp_path / "b.nii.gz", ("spleen", (1,)))
    assert recorded_classes(tmp_path) is None
    assert recorded_classes(tmp_path / "b.nii.gz") == {1: "spleen"}
    assert recorded_classes(tmp_path / "c.nii.gz") is None


@pytest.mark.parametrize(
    "content",
    [b"", b"patient,age\nx,70\n", b"prediction,class_name,label_values\na.nii.gz,x\n", b"\xff\xfe\x00", b'"a\n'],
)
def test_a_foreign_predictions_csv_changes_nothing(pair: tuple[Path, Path], content: bytes) -> None:
    (pair[0] / "predictions.csv").write_bytes(content)
    assert {score.class_name for score in evaluate(*pair).scores} == {"3", "4", "7"}


# Renaming -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def two_names(pair: tuple[Path, Path]) -> tuple[Path, Path, Path]:
    """Two folders of the same mask, in which value 3 is called organ and spleen, and the references."""
    masks, labels = pair
    other = masks.with_name("others")
    shutil.copytree(masks, other)
    recorded(masks / "a.nii.gz", ("organ", (3,)))
    recorded(other / "a.nii.gz", ("spleen", (3,)))
    return masks, other, labels


def test_predictions_that_call_a_value_differently_are_compared_under_one_name(
    two_names: tuple[Path, Path, Path],
) -> None:
    (case,) = compare(*two_names, rename_classes={"organ": "spleen"}).pairs
    assert (case.class_name, case.a, case.b) == ("spleen", pytest.approx(2 * 5 / (15 + 10)), case.a)


def test_a_class_is_evaluated_under_its_new_name(two_names: tuple[Path, Path, Path]) -> None:
    (score,) = evaluate(two_names[0], two_names[2], rename_classes={"organ": "spleen"}).scores
    assert (score.class_name, score.dice) == ("spleen", pytest.approx(2 * 5 / (15 + 10)))
    given = evaluate(two_names[0], two_names[2], {3: "a", 4: "b"}, rename_classes={"a": "kidneys", "b": "kidneys"})
    assert [(score.class_name, score.dice) for score in given.scores] == [("kidneys", pytest.approx(2 * 15 / 35))]


def test_scores_under_different_names_are_compared(tmp_path: Path) -> None:
    for name, class_name in (("a", "organ"), ("b", "spleen")):
        (tmp_path / f"{name}.csv").write_text(f"case_id,class_name,dice\none,{class_name},0.5\n")
    files = tmp_path / "a.csv", tmp_path / "b.csv"
    with pytest.raises(InputError, match="one organ"):
        compare(*files)
    done = CliRunner().invoke(app, ["compare", *map(str, files), "--class", "organ=spleen"])
    assert (done.exit_code, done.stderr) == (0, "")
    (pair,) = compare(*files, rename_classes={"organ": "spleen"}).pairs
    assert pair.class_name == "spleen"


def test_a_class_that_nobody_has_and_names_that_collide_are_refused(
    two_names: tuple[Path, Path, Path], tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=r"no class 'liver' to rename: the classes are organ"):
        evaluate(two_names[0], two_names[2], rename_classes={"liver": "spleen"})
    table = tmp_path / "a.csv"
    table.write_text("case_id,class_name,dice\none,organ,0.5\none,spleen,0.4\n")
    with pytest.raises(InputError, match="two would both be called 'spleen'"):
        compare(table, table, rename_classes={"organ": "spleen"})


@pytest.mark.parametrize("wrong", [["organ"], ["=spleen"], ["organ="], ["a=b", "a=c"]])
def test_a_renaming_is_an_old_and_a_new_name(wrong: list[str]) -> None:
    with pytest.raises(InputError, match=r"--class must be the old and the new name of a class"):
        parse_renames(wrong)
