"""Voxels that are ignored are not scored, in training and by `evaluate`."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.metrics import confusion_matrix, f1_score, jaccard_score

from spleen.errors import InputError
from spleen.evaluation.compare import compare
from spleen.evaluation.evaluate import evaluate
from spleen.evaluation.metrics.overlap import ConfusionCounts, count_confusion, dice, specificity
from spleen.evaluation.metrics.surface import surface_distances
from spleen.evaluation.report.files import comparison_to_json, to_json
from spleen.imaging.labels import IGNORED
from spleen.training.preview import slice_dice
from spleen.training.slice_counts import SliceCount, count_slices
from tests._helpers.nifti import ras_affine, save
from tests.evaluation.test_class_names import write_record

SHAPE = (9, 8, 6)
SPACING_MM = (0.8, 0.5, 5.0)


def test_counts_of_a_slice_with_three_ignored_pixels_match_those_counted_by_hand() -> None:
    reference = torch.tensor([[0, 1, 1, IGNORED], [0, 1, IGNORED, IGNORED]], dtype=torch.uint8)
    prediction = torch.tensor([[1, 1, 0, 1], [0, 1, 1, 0]], dtype=torch.uint8)
    table = count_confusion(prediction, reference, n_classes=2)
    assert table.tolist() == [[2, 1, 1, 1]]
    counts = ConfusionCounts(*table[None].unbind(-1))
    assert dice(counts).item() == pytest.approx(2 * 2 / (2 * 2 + 1 + 1))
    assert specificity(counts).item() == pytest.approx(1 / 2)
    assert slice_dice(prediction[None], reference[None]) == [pytest.approx(2 / 3)]
    found = count_slices(prediction[None], reference[None], 2, 0, torch.tensor([4]))
    assert found == [SliceCount(0, 4, 1, reference_voxels=3, prediction_voxels=3, overlap_voxels=2)]


def test_a_surface_towards_ignored_voxels_does_not_count() -> None:
    """On one labelled plane, the surface is the outline in the plane and not the whole area."""
    reference, prediction = np.zeros((7, 7, 3), bool), np.zeros((7, 7, 3), bool)
    reference[1:6, 1:6], prediction[2:6, 1:6] = True, True
    ignored = np.ones((7, 7, 3), bool)
    ignored[:, :, 1] = False
    distances = surface_distances(prediction, reference, SPACING_MM, ignored)
    # Outlines of 5 × 5 and 4 × 5 pixels. Of the first, the row that the prediction lacks is 0.8 mm away. Of the second,
    # the first row has three pixels inside the other outline: 0.5 mm from its sides, and in the middle 0.8 mm from it.
    assert sorted(distances.reference_to_prediction_mm) == pytest.approx([0] * 11 + [0.8] * 5)
    assert sorted(distances.prediction_to_reference_mm) == pytest.approx([0] * 11 + [0.5, 0.5, 0.8])


def pair(folder: Path) -> tuple[Path, Path, np.ndarray, np.ndarray]:
    """A prediction and a reference file with classes 1 and 2, and unknown voxels in the reference; and both arrays."""
    random = np.random.default_rng(8)
    reference, prediction = (random.integers(0, 3, SHAPE).astype(np.int16) for _ in range(2))
    reference[:, 2:4], reference[5:, :, 1] = -1, -1
    for name, array in (("reference", reference), ("prediction", prediction)):
        (folder / name).mkdir()
        save(folder / name / "c1.nii.gz", array, ras_affine(SPACING_MM))
    return folder / "prediction", folder / "reference", prediction, reference


@pytest.mark.parametrize("classes", [None, {1: "1", 2: "2"}])
def test_scores_are_those_of_scikit_learn_on_the_remaining_voxels(tmp_path: Path, classes: dict | None) -> None:
    *folders, prediction, reference = pair(tmp_path)
    evaluation = evaluate(*folders, classes, ignore_value=-1)
    known = reference != -1
    assert evaluation.class_names == ["1", "2"]
    for score, value in zip(evaluation.scores, (1, 2), strict=True):
        expected, predicted = reference[known] == value, prediction[known] == value
        assert score.dice == pytest.approx(f1_score(expected, predicted))
        assert score.jaccard == pytest.approx(jaccard_score(expected, predicted))
        (tn, fp), (fn, tp) = confusion_matrix(expected, predicted)
        assert score.specificity == pytest.approx(tn / (tn + fp))
        assert score.accuracy == pytest.approx((tp + tn) / known.sum())
        assert score.volume_reference_mm3 == pytest.approx((tp + fn) * 2.0)
        assert score.volume_prediction_mm3 == pytest.approx((tp + fp) * 2.0)
    assert "without voxels of value -1 in the reference" in str(evaluation)


def test_ignored_voxels_of_a_case_without_a_class_are_not_true_negatives(tmp_path: Path) -> None:
    for name in ("prediction", "reference"):
        (tmp_path / name).mkdir()
    organ, nothing = np.zeros(SHAPE, np.uint8), np.zeros(SHAPE, np.uint8)
    organ[2:4, 2:4, 2:4] = 1
    ignored = organ.copy()
    ignored[5:] = 255
    for name, arrays in (("prediction", (organ, nothing)), ("reference", (ignored, nothing))):
        for number, array in enumerate(arrays):
            save(tmp_path / name / f"c{number}.nii.gz", array, ras_affine(SPACING_MM))
    scores = evaluate(tmp_path / "prediction", tmp_path / "reference", ignore_value=255).scores
    assert [score.class_name for score in scores] == ["1", "1"]
    assert scores[0].dice == 1.0
    assert scores[0].hausdorff_mm == 0.0
    assert np.isnan(scores[1].dice)


@pytest.mark.parametrize(
    ("value", "classes", "expected"),
    [(2, {1: "spleen", 2: "liver"}, "2 cannot be ignored: it is the class liver"), (0, None, "it is the background")],
)
def test_a_value_with_another_meaning_cannot_be_ignored(
    tmp_path: Path, value: int, classes: dict | None, expected: str
) -> None:
    with pytest.raises(InputError, match=expected):
        evaluate(*pair(tmp_path)[:2], classes, ignore_value=value)


def test_a_value_that_never_occurs_is_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    evaluate(*pair(tmp_path)[:2], {1: "spleen"}, ignore_value=255)
    assert "no reference contains the ignored value 255" in caplog.text


def test_a_reference_without_a_voxel_to_score_is_a_failure(tmp_path: Path) -> None:
    prediction, reference, *_ = pair(tmp_path)
    save(reference / "c2.nii.gz", np.full(SHAPE, 255, np.uint8), ras_affine(SPACING_MM))
    save(prediction / "c2.nii.gz", np.ones(SHAPE, np.uint8), ras_affine(SPACING_MM))
    (failure,) = evaluate(prediction, reference, {1: "spleen"}, ignore_value=255).failures
    assert failure.case_id == "c2"
    assert "every voxel is 255 and ignored" in failure.reason


def test_compare_leaves_ignored_voxels_out(tmp_path: Path) -> None:
    folder, reference, prediction, expected = pair(tmp_path)
    (tmp_path / "perfect").mkdir()
    save(tmp_path / "perfect" / "c1.nii.gz", np.where(expected == -1, 2, expected), ras_affine(SPACING_MM))
    comparison = compare(folder, tmp_path / "perfect", reference, classes={1: "spleen"}, ignore_value=-1)
    known = expected != -1
    dice_before = f1_score(expected[known] == 1, prediction[known] == 1)
    assert [(each.a, each.b) for each in comparison.pairs] == [(pytest.approx(dice_before), 1.0)]


# nnU-Net's ignore label ---------------------------------------------------------------------------------------------


@pytest.fixture
def nnunet(tmp_path: Path) -> tuple[Path, Path]:
    """A prediction, and its reference in labelsTr of a dataset whose ignore label is 2: ten voxels along one line.

    Among the eight known ones, the class 1 has 4 in the reference and 3 in the prediction, of which 2 are shared.
    """
    reference, prediction = np.zeros((12, 3, 2), np.uint8), np.zeros((12, 3, 2), np.uint8)
    reference[:10, 1, 1] = [1, 1, 1, 1, 0, 0, 0, 0, 2, 2]
    prediction[:10, 1, 1] = [1, 1, 0, 0, 1, 0, 0, 0, 1, 1]
    for name, array in (("masks", prediction), ("labelsTr", reference)):
        (tmp_path / name).mkdir()
        save(tmp_path / name / "c1.nii.gz", array, ras_affine(SPACING_MM))
    write_dataset(tmp_path)
    return tmp_path / "masks", tmp_path / "labelsTr"


def write_dataset(folder: Path, **labels: object) -> None:
    names = labels or {"background": 0, "spleen": 1, "ignore": 2}
    (folder / "dataset.json").write_text(json.dumps({"channel_names": {"0": "CT"}, "labels": names}))


@pytest.mark.parametrize("single", [False, True])
def test_the_ignore_label_of_the_dataset_of_the_reference_is_not_scored(
    nnunet: tuple[Path, Path], single: bool
) -> None:
    masks, labels = nnunet
    evaluation = evaluate(masks / "c1.nii.gz", labels / "c1.nii.gz") if single else evaluate(masks, labels)
    (score,) = evaluation.scores
    assert (score.class_name, score.dice) == ("spleen", pytest.approx(2 * 2 / (4 + 3)))
    assert "without voxels of value 2 in the reference (ignore in dataset.json)" in str(evaluation)
    assert json.loads(to_json(evaluation))["settings"]["ignore_value"] == 2


def test_the_dataset_may_lie_in_the_folder_of_the_references(nnunet: tuple[Path, Path]) -> None:
    masks, labels = nnunet
    write_dataset(labels.parent, background=0, liver=1)
    write_dataset(labels)
    (score,) = evaluate(masks, labels).scores
    assert (score.class_name, score.dice) == ("spleen", pytest.approx(2 * 2 / (4 + 3)))


def test_an_explicit_ignored_value_takes_precedence_over_the_dataset(nnunet: tuple[Path, Path]) -> None:
    masks, labels = nnunet
    write_dataset(labels.parent, background=0, spleen=1, ignore=255)
    (score,) = evaluate(masks, labels, ignore_value=2).scores
    assert score.dice == pytest.approx(2 * 2 / (4 + 3))
    (score,) = evaluate(masks, labels).scores  # nothing is 255, so the two predicted voxels are wrong
    assert score.dice == pytest.approx(2 * 2 / (4 + 5))
    assert "(ignore in" not in str(evaluate(masks, labels, ignore_value=2))


def test_a_class_that_was_asked_for_is_scored_though_the_dataset_ignores_its_value(nnunet: tuple[Path, Path]) -> None:
    evaluation = evaluate(*nnunet, {1: "spleen", 2: "unsure"})
    assert [(score.class_name, score.volume_reference_mm3) for score in evaluation.scores] == [
        ("spleen", pytest.approx(4 * 2.0)),
        ("unsure", pytest.approx(2 * 2.0)),
    ]
    assert "without voxels" not in str(evaluation)


def test_a_dataset_that_only_declares_an_ignore_label_leaves_every_other_value_a_class(
    nnunet: tuple[Path, Path],
) -> None:
    write_dataset(nnunet[1].parent, background=0, ignore=2)
    assert evaluate(*nnunet).class_names == ["1"]


def test_an_unclear_ignore_label_of_the_dataset_is_rejected_unless_a_value_is_given(nnunet: tuple[Path, Path]) -> None:
    write_dataset(nnunet[1].parent, background=0, spleen=1, ignore=[2, 3])
    with pytest.raises(InputError, match=r'"ignore" must be one value .*--ignore-value'):
        evaluate(*nnunet)
    assert evaluate(*nnunet, ignore_value=2).class_names == ["spleen"]


def test_an_ignore_label_that_this_reference_does_not_use_is_no_warning(
    nnunet: tuple[Path, Path], caplog: pytest.LogCaptureFixture
) -> None:
    masks, labels = nnunet
    save(labels / "c1.nii.gz", np.ones((12, 3, 2), np.uint8), ras_affine(SPACING_MM))
    evaluate(masks, labels)
    assert caplog.text == ""


def test_compare_takes_the_ignore_label_of_the_dataset(nnunet: tuple[Path, Path], tmp_path: Path) -> None:
    masks, labels = nnunet
    (tmp_path / "perfect").mkdir()
    perfect = np.zeros((12, 3, 2), np.uint8)
    perfect[:4, 1, 1] = 1
    save(tmp_path / "perfect" / "c1.nii.gz", perfect, ras_affine(SPACING_MM))
    comparison = compare(masks, tmp_path / "perfect", labels)
    assert [(each.class_name, each.a, each.b) for each in comparison.pairs] == [("spleen", pytest.approx(4 / 7), 1.0)]
    assert "without voxels of value 2 in the reference (ignore in dataset.json)" in str(comparison)
    assert json.loads(comparison_to_json(comparison))["ignore_value"] == 2
    explicit = compare(masks, tmp_path / "perfect", labels, ignore_value=2)
    assert "without voxels of value 2 in the reference\n" in str(explicit)


def test_a_class_of_the_predictions_that_the_dataset_ignores_is_a_contradiction(nnunet: tuple[Path, Path]) -> None:
    write_record(nnunet[0] / "c1.nii.gz", ("spleen", (1,)), ("unsure", (2,)))
    with pytest.raises(InputError, match=r"2 is both the ignore label .* the class unsure; say .* --classes"):
        evaluate(*nnunet)
    assert len(evaluate(*nnunet, ignore_value=255).scores) == 2
