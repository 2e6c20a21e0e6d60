"""`evaluate`: metrics against hand-computed values and other libraries, empty masks, classes, folders, summaries."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from monai.metrics import compute_average_surface_distance, compute_hausdorff_distance, compute_surface_dice
from sklearn.metrics import class_likelihood_ratios, f1_score, jaccard_score

from spleen.errors import InputError
from spleen.evaluation.case_scores import METRIC_NAMES, ClassScore
from spleen.evaluation.evaluate import Evaluation, evaluate
from spleen.evaluation.metrics.catalogue import METRICS
from spleen.evaluation.metrics.per_case import CaseScore, mean_scores
from spleen.evaluation.summary import ALL_CLASSES
from tests._helpers.nifti import ORIENTATIONS, SHAPE, SPACING_MM, box, ras_affine, save, save_stored_as

INF, NAN = math.inf, math.nan
VOXEL_MM3 = 0.8 * 0.8 * 5.0
EMPTY = np.zeros(SHAPE, dtype=np.int16)


def files(folder: Path, prediction, reference) -> tuple[Path, Path]:
    return save(folder / "prediction.nii.gz", prediction, ras_affine()), save(
        folder / "reference.nii.gz", reference, ras_affine()
    )


def folders(root: Path, cases) -> tuple[Path, Path]:
    """Write two folders of files from {case_id: (prediction, reference)} arrays."""
    for side, name in enumerate(("predictions", "references")):
        (root / name).mkdir()
        for case_id, pair in cases.items():
            save(root / name / f"{case_id}.nii.gz", pair[side], ras_affine())
    return root / "predictions", root / "references"


def only(evaluation: Evaluation) -> ClassScore:
    (score,) = evaluation.scores
    return score


def random_label(seed: int, n_classes=1, shape=(9, 12, 7)) -> np.ndarray:
    """Blobs: a coarse random pattern, upsampled by 2 along each axis."""
    coarse = np.random.default_rng(seed).integers(0, n_classes + 2, [-(-size // 2) for size in shape])
    coarse[coarse > n_classes] = 0
    fine = coarse.repeat(2, 0).repeat(2, 1).repeat(2, 2)[: shape[0], : shape[1], : shape[2]]
    return fine.astype(np.int16)


# One case -----------------------------------------------------------------------------------------------------------


def test_every_metric_of_two_boxes_matches_hand_computed_values(tmp_path):
    """Reference: 2 × 4 × 2 = 16 voxels. Prediction: 1 × 4 × 2 = 8 of them and 4 more along k, 12 voxels in all.

    TP 8, FP 4, FN 8, TN 85. Every voxel of both masks is surface, as none is thicker than two voxels along i.
    """
    reference = box(low=(1, 2, 0), high=(3, 6, 2))
    prediction = box(low=(1, 2, 0), high=(2, 6, 3))
    score = only(evaluate(*files(tmp_path, prediction, reference), tolerance_mm=0.8))
    # 8 voxels of the prediction lie on the reference, 4 are 5 mm from it; 8 of the reference are 0.8 mm away.
    expected = {
        "dice": 16 / 28,
        "jaccard": 8 / 20,
        "sensitivity": 0.5,
        "specificity": 85 / 89,
        "precision": 8 / 12,
        "negative_predictive_value": 85 / 93,
        "accuracy": 93 / 105,
        "likelihood_ratio_positive": 0.5 / (4 / 89),
        "likelihood_ratio_negative": 0.5 / (85 / 89),
        "post_test_probability_positive": 8 / 12,
        "post_test_probability_negative": 8 / 93,
        "hausdorff95_mm": 5.0,  # 4 of 12 distances, more than 5 %
        "hausdorff_mm": 5.0,
        "average_surface_distance_mm": (4 * 5.0 + 8 * 0.8) / 28,
        "surface_dice": 24 / 28,
        "volume_prediction_mm3": 12 * VOXEL_MM3,
        "volume_reference_mm3": 16 * VOXEL_MM3,
        "volume_prediction_ml": 12 * VOXEL_MM3 / 1000,
        "volume_reference_ml": 16 * VOXEL_MM3 / 1000,
        "volume_error_mm3": -4 * VOXEL_MM3,
        "volume_error_relative": -0.25,
    }
    assert {name: score.value(name) for name in METRIC_NAMES} == pytest.approx(expected)
    assert list(expected) == [metric.name for metric in METRICS]
    assert (score.case_id, score.class_name) == ("prediction", "1")


BOX = box(low=(0, 1, 0), high=(2, 3, 1))  # 4 voxels, at the border
MM3 = 4 * VOXEL_MM3
ML = MM3 / 1000


@pytest.mark.parametrize(
    ("prediction", "reference", "expected"),
    [
        # Dice Jaccard sens. spec. prec. | NPV accuracy LR+ LR- post+ post- | HD95 HD ASD NSD | volumes, errors
        (EMPTY, EMPTY, (NAN, NAN, NAN, 1, NAN, 1, 1, *[NAN] * 8, 0, 0, 0, 0, 0, NAN)),
        (
            EMPTY,
            BOX,
            (0, 0, 0, 1, 0, *[101 / 105] * 2, NAN, 1, NAN, 4 / 105, INF, INF, INF, 0, 0, MM3, 0, ML, -MM3, -1),
        ),
        (
            BOX,
            EMPTY,
            (0, 0, NAN, 101 / 105, 0, 1, 101 / 105, *[NAN] * 4, INF, INF, INF, 0, MM3, 0, ML, 0, MM3, INF),
        ),
        (BOX, BOX, (*[1] * 7, INF, 0, 1, 0, 0, 0, 0, 1, MM3, MM3, ML, ML, 0, 0)),
    ],
    ids=["both empty", "false negative", "false positive", "identical"],
)
def test_empty_masks_follow_the_policy_in_every_metric(tmp_path, prediction, reference, expected):
    score = only(evaluate(*files(tmp_path, prediction, reference), classes={1: "organ"}))
    values = [score.value(name) for name in METRIC_NAMES]
    assert values == pytest.approx(expected, nan_ok=True)
    assert (score.is_empty, score.is_false_negative, score.is_false_positive) == (
        prediction is reference is EMPTY,
        prediction is EMPTY and reference is BOX,
        prediction is BOX and reference is EMPTY,
    )


@pytest.mark.parametrize("seed", range(4))
def test_scores_of_random_masks_match_scikit_learn_and_monai(tmp_path, seed):
    prediction, reference = random_label(seed), random_label(seed + 100)
    score = only(evaluate(*files(tmp_path, prediction, reference), tolerance_mm=1.7))
    truth, predicted = reference.ravel(), prediction.ravel()
    assert score.dice == pytest.approx(f1_score(truth, predicted))
    assert score.jaccard == pytest.approx(jaccard_score(truth, predicted))
    ratios = score.likelihood_ratio_positive, score.likelihood_ratio_negative
    assert ratios == pytest.approx(class_likelihood_ratios(truth, predicted))
    masks = torch.from_numpy(prediction)[None, None], torch.from_numpy(reference)[None, None]
    kind = {"include_background": True, "spacing": SPACING_MM}
    assert score.hausdorff95_mm == pytest.approx(compute_hausdorff_distance(*masks, percentile=95, **kind).item())
    assert score.hausdorff_mm == pytest.approx(compute_hausdorff_distance(*masks, **kind).item())
    assert score.average_surface_distance_mm == pytest.approx(
        compute_average_surface_distance(*masks, symmetric=True, **kind).item()
    )
    assert score.surface_dice == pytest.approx(compute_surface_dice(*masks, class_thresholds=[1.7], **kind).item())


@pytest.mark.parametrize("orientation", ORIENTATIONS)
def test_a_prediction_stored_in_another_orientation_scores_the_same(tmp_path, orientation):
    prediction, reference = random_label(0, 2, (5, 7, 3)), random_label(1, 2, (5, 7, 3))
    expected = evaluate(*files(tmp_path, prediction, reference)).scores
    turned = save_stored_as(tmp_path / "turned.nii.gz", orientation, prediction)
    found = evaluate(turned, tmp_path / "reference.nii.gz").scores
    for one, other in zip(found, expected, strict=True):
        assert [one.value(name) for name in METRIC_NAMES] == pytest.approx([other.value(name) for name in METRIC_NAMES])


def test_a_given_prevalence_changes_only_the_post_test_probabilities(tmp_path):
    """LR+ = (8/16) / (4/89) = 11.125; at a prevalence of 0.2, the odds are 11.125 / 4."""
    pair = files(tmp_path, box(low=(1, 2, 0), high=(2, 6, 3)), box(low=(1, 2, 0), high=(3, 6, 2)))
    own, stated = only(evaluate(*pair)), only(evaluate(*pair, prevalence=0.2))
    assert stated.post_test_probability_positive == pytest.approx(11.125 / 4 / (1 + 11.125 / 4))
    changed = [name for name in METRIC_NAMES if own.value(name) != stated.value(name)]
    assert changed == ["post_test_probability_positive", "post_test_probability_negative"]


def test_surface_metrics_are_absent_when_disabled(tmp_path):
    evaluation = evaluate(*files(tmp_path, BOX, BOX), surface=False)
    assert not {"hausdorff95_mm", "hausdorff_mm", "average_surface_distance_mm", "surface_dice"} & set(
        evaluation.metrics
    )
    assert "surface" not in str(evaluation)


def test_a_real_label_matches_itself_perfectly_and_has_the_published_volume(spleen_ct):
    score = only(evaluate(spleen_ct / "label.nii.gz", spleen_ct / "label.nii.gz", classes={1: "spleen"}))
    assert (score.dice, score.hausdorff_mm, score.surface_dice) == (1.0, 0.0, 1.0)
    assert score.volume_reference_mm3 == pytest.approx(255_204)


# Classes ------------------------------------------------------------------------------------------------------------


def test_every_label_value_in_either_file_is_a_class(tmp_path):
    prediction, reference = EMPTY.copy(), EMPTY.copy()
    reference[0, :2], prediction[0, 1:3], prediction[4, 0] = 2, 2, 10
    evaluation = evaluate(*files(tmp_path, prediction, reference))
    assert [(s.class_name, s.dice) for s in evaluation.scores] == [("2", 0.5), ("10", 0.0)]
    assert [s.is_false_positive for s in evaluation.scores] == [False, True]


def test_only_named_values_are_scored_and_values_sharing_a_name_are_merged(tmp_path):
    prediction, reference = EMPTY.copy(), EMPTY.copy()
    reference[0], reference[1], reference[2] = 1, 5, 7
    prediction[0], prediction[1], prediction[3] = 5, 1, 7
    evaluation = evaluate(*files(tmp_path, prediction, reference), classes={5: "kidney", 1: "kidney", 3: "none"})
    assert evaluation.class_names == ["kidney", "none"]
    assert [score.dice for score in evaluation.scores] == pytest.approx([1.0, NAN], nan_ok=True)


def test_widely_spaced_label_values_give_the_same_scores(tmp_path):
    """For ranges beyond 65,536 values, the classes are looked up one by one."""
    prediction, reference = random_label(3, 2).astype(np.int32), random_label(4, 2).astype(np.int32)
    near = evaluate(*files(tmp_path, prediction, reference)).scores
    prediction[prediction == 2], reference[reference == 2] = 2_000_000, 2_000_000
    far = evaluate(*files(tmp_path, prediction, reference)).scores
    assert [s.class_name for s in far] == ["1", "2000000"]
    for one, other in zip(near, far, strict=True):
        assert [one.value(name) for name in METRIC_NAMES] == pytest.approx([other.value(name) for name in METRIC_NAMES])


def test_each_class_can_have_its_own_tolerance(tmp_path):
    """Both classes are shifted by 0.8 mm: at 0.5 mm, half of each surface is out of tolerance; at 0.8 mm, none is."""
    prediction, reference = EMPTY.copy(), EMPTY.copy()
    reference[0:2, 0:2, 0], prediction[1:3, 0:2, 0] = 1, 1
    reference[0:2, 5:7, 2], prediction[1:3, 5:7, 2] = 2, 2
    tolerances = {"strict": 0.5, "lax": 0.8}
    evaluation = evaluate(
        *files(tmp_path, prediction, reference), classes={1: "strict", 2: "lax"}, tolerance_mm=tolerances
    )
    assert [score.surface_dice for score in evaluation.scores] == [0.5, 1.0]


def test_two_empty_files_have_no_class_to_score(tmp_path):
    with pytest.raises(InputError, match="nothing to score"):
        evaluate(*files(tmp_path, EMPTY, EMPTY))


def test_an_image_in_place_of_a_label_map_is_rejected(tmp_path):
    image = np.arange(np.prod((9, 9, 9)), dtype=np.int16).reshape(9, 9, 9)
    with pytest.raises(InputError, match="728 different values"):
        evaluate(*files(tmp_path, image, image))
    with pytest.raises(InputError, match="is an image and not a label map"):
        evaluate(*files(tmp_path, image - 400, image % 2), classes={1: "organ"})


# Folders ------------------------------------------------------------------------------------------------------------


def test_bad_pairs_do_not_prevent_scoring_the_others(tmp_path):
    predictions, references = folders(tmp_path, dict.fromkeys("abcd", (BOX, BOX)))
    (predictions / "b.nii.gz").write_bytes((predictions / "b.nii.gz").read_bytes()[:60])
    save(predictions / "c.nii.gz", np.zeros((4, 7, 3), dtype=np.int16), ras_affine())
    save(predictions / "d.nii.gz", BOX, ras_affine(spacing_mm=(1.0, 1.0, 5.0)))
    evaluation = evaluate(predictions, references)
    assert evaluation.case_ids == ["a"]
    reasons = {failure.case_id: failure.reason for failure in evaluation.failures}
    assert "b.nii.gz" in reasons["b"]
    assert all(word in reasons["c"] for word in ("predictions/c.nii.gz", "references/c.nii.gz", "5 × 7 × 3"))
    assert "The spacings are 0.8 × 0.8 × 5 and 1 × 1 × 5 mm" in reasons["d"]


def test_a_single_bad_pair_raises_an_error(tmp_path):
    pair = files(tmp_path, np.zeros((4, 7, 3), dtype=np.int16), BOX)
    with pytest.raises(InputError, match="4 × 7 × 3"):
        evaluate(*pair)


def test_unpaired_files_are_listed_before_anything_is_scored(tmp_path):
    predictions, references = folders(tmp_path, {"a": (BOX, BOX), "b": (BOX, BOX)})
    (references / "b.nii.gz").rename(references / "c.nii.gz")
    called = []
    with pytest.raises(InputError, match=r"(?s)b\.nii\.gz.*c\.nii\.gz"):
        evaluate(predictions, references, progress=lambda *arguments: called.append(arguments))
    assert called == []


def test_a_class_present_in_one_case_is_empty_in_the_others(tmp_path):
    other = np.where(BOX, 2, 0).astype(np.int16)
    evaluation = evaluate(*folders(tmp_path, {"a": (BOX, BOX), "b": (other, other)}))
    found = {(s.case_id, s.class_name): (s.dice, s.specificity) for s in evaluation.scores}
    assert list(found) == [("a", "1"), ("a", "2"), ("b", "1"), ("b", "2")]
    assert list(found.values()) == [pytest.approx(v, nan_ok=True) for v in ((1, 1), (NAN, 1), (NAN, 1), (1, 1))]


def test_progress_is_reported_for_each_case(tmp_path):
    calls = []
    evaluate(*folders(tmp_path, {"a": (BOX, BOX), "b": (BOX, BOX)}), progress=lambda *a: calls.append(a))
    assert calls == [(0, 2, "a"), (1, 2, "b")]


# Summary ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def four_cases(tmp_path) -> Evaluation:
    """Dice 1, 0.5, 0 (missed) and NaN (empty)."""
    half, shifted = EMPTY.copy(), EMPTY.copy()
    half[0, 0:2, 0], shifted[0, 1:3, 0] = 1, 1
    cases = {"perfect": (BOX, BOX), "half": (shifted, half), "missed": (EMPTY, BOX), "empty": (EMPTY, EMPTY)}
    return evaluate(*folders(tmp_path, cases), classes={1: "organ"})


def test_a_summary_excludes_nan_and_counts_it(four_cases):
    summary = four_cases.summary("organ")
    assert (summary.n_cases, summary.n_empty, summary.n_false_negative, summary.n_false_positive) == (4, 1, 1, 0)
    dice = summary.metrics["dice"]
    assert (dice.mean, dice.median, dice.worst, dice.worst_case) == (0.5, 0.5, 0.0, "missed")
    assert (dice.n_values, dice.n_undefined, dice.n_infinite) == (3, 1, 0)
    assert dice.interval is not None
    assert 0 <= dice.interval.low < 0.5 < dice.interval.high <= 1


@pytest.mark.parametrize("name", ["Organ", "1"])
def test_the_summary_of_an_unknown_class_is_refused_with_the_known_ones(four_cases, name):
    with pytest.raises(InputError, match=f"class_name must be one of 'organ', 'all_classes'; got '{name}'"):
        four_cases.summary(name)


def test_an_infinite_distance_is_never_dropped(four_cases):
    distance = four_cases.summary("organ").metrics["hausdorff_mm"]
    assert (distance.mean, distance.worst, distance.worst_case) == (INF, INF, "missed")
    assert distance.median == pytest.approx(0.8)
    assert distance.interval is not None
    assert (distance.interval.high, distance.n_infinite, distance.n_undefined) == (INF, 1, 1)
    assert "infinite values make the mean inf" in str(four_cases)


def test_the_worst_volume_error_is_the_one_farthest_from_0(tmp_path):
    large = BOX.copy()
    large[0, 5, 0] = 1
    evaluation = evaluate(*folders(tmp_path, {"more": (large, BOX), "less": (EMPTY, BOX), "same": (BOX, BOX)}))
    metrics = evaluation.summary("1").metrics
    assert metrics["volume_error_mm3"].worst_case == "less"
    assert metrics["volume_error_mm3"].mean == pytest.approx((1 - 4) * VOXEL_MM3 / 3)
    assert metrics["volume_reference_ml"].worst_case is None


def test_a_single_case_has_no_confidence_interval(tmp_path):
    evaluation = evaluate(*files(tmp_path, BOX, BOX))
    assert evaluation.summary("1").metrics["dice"].interval is None
    assert "One case only: no confidence interval" in str(evaluation)


def test_the_mean_over_classes_matches_that_of_a_training_run(tmp_path):
    """Each case is first averaged over its classes."""
    cases = {f"c{seed}": (random_label(seed, 3), random_label(seed + 50, 3)) for seed in range(4)}
    cases["c0"] = tuple(np.where(label == 3, 0, label) for label in cases["c0"])
    evaluation = evaluate(*folders(tmp_path, cases))
    names = [field for field in CaseScore.__dataclass_fields__ if field not in ("case_id", "class_name")]
    theirs = mean_scores(
        [CaseScore(s.case_id, s.class_name, *(s.value(name) for name in names)) for s in evaluation.scores]
    )
    ours = evaluation.summary(ALL_CLASSES)
    for name in ("dice", "jaccard", "sensitivity", "specificity", "precision"):
        assert ours.metrics[name].mean == pytest.approx(getattr(theirs, name))
    assert (ours.n_cases, ours.n_empty, ours.n_false_negative) == (theirs.n_cases, theirs.n_empty, theirs.n_missed)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"classes": {0: "background"}}, "other than 0"),
        ({"classes": {1: ALL_CLASSES}}, "needs a label value"),
        ({"classes": {1: "organ"}, "tolerance_mm": {"other": 1.0}}, "tolerances for other"),
        ({"tolerance_mm": {"1": 1.0}}, "name every class"),
        ({"tolerance_mm": -1.0}, "0 mm or more"),
        ({"tolerance_mm": NAN}, "0 mm or more"),
        ({"prevalence": 1.0}, "prevalence"),
        ({"grid_tolerance_mm": -0.1}, "grid tolerance"),
    ],
)
def test_an_invalid_setting_is_reported_before_any_file_is_read(tmp_path, settings, message):
    with pytest.raises(InputError, match=message):
        evaluate(tmp_path / "missing.nii.gz", tmp_path / "missing.nii.gz", **settings)


def test_every_metric_is_documented():
    text = (Path(__file__).parents[2] / "docs" / "reference" / "metrics.md").read_text()
    assert [metric.name for metric in METRICS if f"`{metric.name}`" not in text] == []
