"""Masks from `spleen predict` are scored with the label values and class names of their run."""

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
from spleen.evaluation.class_names import classes_to_score
from spleen.evaluation.compare import compare
from spleen.evaluation.evaluate import evaluate
from spleen.imaging.files import ImageFiles
from spleen.inference.record import record
from tests._helpers.nifti import ras_affine, save
from tests.inference.test_outputs import SCORE


def write_record(mask: Path, *classes: tuple[str, tuple[int, ...]]) -> None:
    """Write the record that `spleen predict` keeps of a mask."""
    image = ImageFiles(mask.name.split(".")[0], (Path("image.nii.gz"),))
    record(image, mask, [replace(SCORE, class_name=name) for name, _ in classes], [values for _, values in classes])


@pytest.fixture
def pair(tmp_path: Path) -> tuple[Path, Path]:
    """A prediction with value 3, and a reference with values 3, 4 and 7 of 10 voxels each, along one line."""
    for name in ("masks", "labels"):
        (tmp_path / name).mkdir()
    prediction, reference = np.zeros((40, 3, 2), np.uint8), np.zeros((40, 3, 2), np.uint8)
    prediction[5:20, 1, 1] = 3
    reference[0:10, 1, 1], reference[10:20, 1, 1], reference[20:30, 1, 1] = 3, 4, 7
    save(tmp_path / "masks" / "a.nii.gz", prediction, ras_affine())
    save(tmp_path / "labels" / "a.nii.gz", reference, ras_affine())
    return tmp_path / "masks", tmp_path / "labels"


@pytest.mark.parametrize("single", [False, True])
def test_a_merged_class_is_scored_as_trained_and_untrained_organs_are_ignored(
    pair: tuple[Path, Path], single: bool
) -> None:
    masks, labels = pair
    write_record(masks / "a.nii.gz", ("kidneys", (3, 4)))
    given = (masks / "a.nii.gz", labels / "a.nii.gz") if single else pair
    evaluation = evaluate(*given)
    (score,) = evaluation.scores
    assert score.class_name == "kidneys"
    assert score.dice == pytest.approx(2 * 15 / (15 + 20))
    assert "1 case, 1 class (kidneys = 3 + 4); " in str(evaluation)


def test_explicit_classes_take_precedence_over_recorded_ones(pair: tuple[Path, Path]) -> None:
    write_record(pair[0] / "a.nii.gz", ("kidneys", (3, 4)))
    (score,) = evaluate(*pair, classes={3: "left"}).scores
    assert (score.class_name, score.dice) == ("left", pytest.approx(2 * 5 / (15 + 10)))


@pytest.mark.parametrize(
    "content",
    [
        {"training": [], "labels": {"0": "background", "3": "left kidney", "4": "right kidney", "7": "liver"}},
        {"channel_names": {}, "labels": {"background": 0, "left kidney": 3, "right kidney": 4, "liver": 7}},
    ],
)
def test_masks_without_a_record_use_the_class_names_of_the_reference_dataset(
    pair: tuple[Path, Path], content: dict[str, object]
) -> None:
    (pair[1].parent / "dataset.json").write_text(json.dumps(content))
    single = pair[0] / "a.nii.gz", pair[1] / "a.nii.gz"
    for given in (pair, single):
        dice = {score.class_name: score.dice for score in evaluate(*given).scores}
        assert dice == {"left kidney": pytest.approx(2 * 5 / (15 + 10)), "right kidney": 0, "liver": 0}
    compared = compare(*(str(pair[0]),) * 2, reference=str(pair[1]), metrics=["dice"])
    assert {pair.class_name for pair in compared.pairs} == set(dice)


def test_recorded_classes_take_precedence_over_the_dataset(pair: tuple[Path, Path]) -> None:
    (pair[1].parent / "dataset.json").write_text('{"labels": {"3": "left", "4": "right", "7": "liver"}}')
    write_record(pair[0] / "a.nii.gz", ("kidneys", (3, 4)))
    assert [score.class_name for score in evaluate(*pair).scores] == ["kidneys"]


@pytest.mark.parametrize(
    "content",
    ["no JSON", "[]", "{}", '{"labels": {"background": 0}}', '{"labels": {"a": "b"}}', '{"labels": {"3": ""}}'],
)
def test_without_class_names_in_the_dataset_each_value_is_a_class(pair: tuple[Path, Path], content: str) -> None:
    (pair[1].parent / "dataset.json").write_text(content)
    assert [score.class_name for score in evaluate(*pair).scores] == ["3", "4", "7"]


def test_class_names_recorded_on_one_side_apply_to_both_sides_of_a_comparison(
    pair: tuple[Path, Path], tmp_path: Path
) -> None:
    masks, labels = pair
    write_record(masks / "a.nii.gz", ("kidneys", (3, 4)))
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "a.nii.gz").write_bytes((labels / "a.nii.gz").read_bytes())
    (found,) = compare(masks, elsewhere, labels).pairs
    assert (found.class_name, found.b, found.difference) == ("kidneys", 1.0, pytest.approx(1 - 30 / 35))


def test_sides_with_conflicting_class_names_are_scored_by_value(pair: tuple[Path, Path], tmp_path: Path) -> None:
    masks, labels = pair
    write_record(masks / "a.nii.gz", ("kidneys", (3, 4)))
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "a.nii.gz").write_bytes((masks / "a.nii.gz").read_bytes())
    write_record(elsewhere / "a.nii.gz", ("left", (3,)))
    assert {pair.class_name for pair in compare(masks, elsewhere, labels).pairs} == {"3", "4", "7"}


def test_masks_of_different_runs_in_one_folder_give_no_class_names(tmp_path: Path) -> None:
    write_record(tmp_path / "a.nii.gz", ("front", (1,)), ("back", (2,)))

    def told(predictions: Path) -> dict[str, tuple[int, ...]] | None:
        return classes_to_score(None, None, [predictions], tmp_path / "elsewhere" / "a.nii.gz")

    assert told(tmp_path) == {"front": (1,), "back": (2,)}
    write_record(tmp_path / "b.nii.gz", ("spleen", (1,)))
    assert told(tmp_path) is None
    assert told(tmp_path / "b.nii.gz") == {"spleen": (1,)}
    assert told(tmp_path / "c.nii.gz") is None


@pytest.mark.parametrize(
    "content",
    [b"", b"patient,age\nx,70\n", b"prediction,class_name,label_values\na.nii.gz,x\n", b"\xff\xfe\x00", b'"a\n'],
)
def test_an_unrelated_predictions_csv_is_ignored(pair: tuple[Path, Path], content: bytes) -> None:
    (pair[0] / "predictions.csv").write_bytes(content)
    assert {score.class_name for score in evaluate(*pair).scores} == {"3", "4", "7"}


# Renaming -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def two_names(pair: tuple[Path, Path]) -> tuple[Path, Path, Path]:
    """Two folders of the same mask, with value 3 named organ in one and spleen in the other, and the references."""
    masks, labels = pair
    other = masks.with_name("others")
    shutil.copytree(masks, other)
    write_record(masks / "a.nii.gz", ("organ", (3,)))
    write_record(other / "a.nii.gz", ("spleen", (3,)))
    return masks, other, labels


def test_predictions_with_different_class_names_are_compared_under_one_name(
    two_names: tuple[Path, Path, Path],
) -> None:
    (case,) = compare(*two_names, rename_classes={"organ": "spleen"}).pairs
    assert (case.class_name, case.a, case.b) == ("spleen", pytest.approx(2 * 5 / (15 + 10)), case.a)


def test_a_class_is_evaluated_under_its_new_name(two_names: tuple[Path, Path, Path]) -> None:
    (score,) = evaluate(two_names[0], two_names[2], rename_classes={"organ": "spleen"}).scores
    assert (score.class_name, score.dice) == ("spleen", pytest.approx(2 * 5 / (15 + 10)))
    given = evaluate(two_names[0], two_names[2], {3: "a", 4: "b"}, rename_classes={"a": "kidneys", "b": "kidneys"})
    assert [(score.class_name, score.dice) for score in given.scores] == [("kidneys", pytest.approx(2 * 15 / 35))]


def test_score_files_with_different_class_names_are_compared(tmp_path: Path) -> None:
    for name, class_name in (("a", "organ"), ("b", "spleen")):
        (tmp_path / f"{name}.csv").write_text(f"case_id,class_name,dice\none,{class_name},0.5\n")
    files = tmp_path / "a.csv", tmp_path / "b.csv"
    with pytest.raises(InputError, match="one organ"):
        compare(*files)
    done = CliRunner().invoke(app, ["compare", *map(str, files), "--class", "organ=spleen"])
    assert (done.exit_code, done.stderr) == (0, "")
    (pair,) = compare(*files, rename_classes={"organ": "spleen"}).pairs
    assert pair.class_name == "spleen"


def test_renaming_an_unknown_class_or_to_a_name_in_use_is_rejected(
    two_names: tuple[Path, Path, Path], tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=r"no class 'liver' to rename: the classes are organ"):
        evaluate(two_names[0], two_names[2], rename_classes={"liver": "spleen"})
    table = tmp_path / "a.csv"
    table.write_text("case_id,class_name,dice\none,organ,0.5\none,spleen,0.4\n")
    with pytest.raises(InputError, match="two would both be called 'spleen'"):
        compare(table, table, rename_classes={"organ": "spleen"})


@pytest.mark.parametrize("wrong", [["organ"], ["=spleen"], ["organ="], ["a=b", "a=c"]])
def test_an_invalid_renaming_is_rejected(wrong: list[str]) -> None:
    with pytest.raises(InputError, match=r"--class must be the old and the new name of a class"):
        parse_renames(wrong)
