"""The final scores as wandb gets them, with expected values worked by hand."""

import numpy as np
import pytest

from spleen.evaluation.metrics.per_case import CaseScore
from spleen.records.surfaces import SurfaceScore
from spleen.reporting.overlays import SliceView
from spleen.runs.tracking.content import ranges
from spleen.runs.tracking.scores import case_counts, case_rows, class_rows, mean_values
from spleen.runs.tracking.slices import overlay_of, worst_slices
from spleen.training.preview import SliceScore

NAN = float("nan")


def score(case_id: str, name: str, dice: float, predicted: float, expected: float) -> CaseScore:
    return CaseScore(case_id, name, dice, dice / 2, 0.5, 1.0, 0.25, predicted, expected)


CASES = [
    score("a", "liver", 0.75, 3000.0, 2000.0),
    score("a", "spleen", 0.25, 500.0, 1000.0),
    score("b", "liver", 1.0, 4000.0, 4000.0),
    score("b", "spleen", NAN, 0.0, 0.0),  # in neither mask
]


def test_means_are_flat_with_volumes_in_ml_and_without_what_is_not_defined() -> None:
    surfaces = {
        ("a", "liver"): SurfaceScore("a", "liver", 2.0, 1.0, 0.5),
        ("b", "liver"): SurfaceScore("b", "liver", 4.0, 2.0, 0.5),
    }
    values = mean_values("test", CASES, surfaces)
    assert values["test/dice"] == pytest.approx(((0.75 + 0.25) / 2 + 1.0) / 2)
    assert values["test/liver/dice"] == pytest.approx(0.875)
    assert values["test/spleen/dice"] == pytest.approx(0.25)
    assert values["test/volume_prediction_ml"] == pytest.approx((3.5 + 4.0) / 2)
    assert values["test/volume_reference_ml"] == pytest.approx((3.0 + 4.0) / 2)
    assert values["test/volume_difference_ml"] == pytest.approx((0.5 + 0.0) / 2)
    assert values["test/liver/volume_difference_ml"] == pytest.approx(0.5)
    assert values["test/spleen/volume_difference_ml"] == pytest.approx(-0.25)
    assert (values["test/hausdorff95_mm"], values["test/liver/average_surface_distance_mm"]) == (3.0, 1.5)
    assert "test/spleen/hausdorff95_mm" not in values
    assert case_counts("test", CASES) == {"test/n_cases": 2, "test/n_empty": 1, "test/n_missed": 0}


def test_a_single_class_has_no_level_of_its_own_and_no_case_has_no_score() -> None:
    only = [case for case in CASES if case.class_name == "liver"]
    assert not any("liver" in name for name in mean_values("test", only))
    assert mean_values("test", []) == {}


def test_rows_of_cases_and_classes() -> None:
    rows = case_rows(CASES, {("a", "liver"): SurfaceScore("a", "liver", 2.0, 1.0, 0.5)})
    assert rows[0] == ["a", "liver", 0.75, 0.375, 0.5, 1.0, 0.25, 3.0, 2.0, 1.0, 2.0, 1.0]
    assert rows[3] == ["b", "spleen", None, None, 0.5, 1.0, 0.25, 0.0, 0.0, 0.0, None, None]
    assert class_rows("test", CASES)[1][:3] == ["test", "spleen", 0.25]


def test_the_worst_slices_are_of_different_cases_first() -> None:
    dice = {0: [0.5, 0.1, NAN], 1: [0.2, 0.3]}
    scores = [SliceScore(case, index, value) for case, values in dice.items() for index, value in enumerate(values)]
    chosen = [(each.case_index, each.slice_index) for each in worst_slices(scores, 3)]
    assert chosen == [(0, 1), (1, 0), (1, 1)]


def test_ranges_of_slices() -> None:
    assert ranges([3, 4, 5, 8, 10, 11]) == "3-5, 8, 10-11"
    assert ranges([0]) == "0"


def test_an_image_is_enlarged_to_256_pixels_and_keeps_its_labels() -> None:
    image = np.linspace(0, 1, 36 * 31, dtype=np.float32).reshape(36, 31)
    labels = np.zeros((36, 31), np.uint8)
    labels[10:20, 5:9] = 1
    view = SliceView("a", "axial", 7, image, labels * 2, labels, (36.0, 31.0), NAN)
    overlay = overlay_of("worst", view, ["liver", "spleen"])
    # 36 mm become 256 pixels, so 31 mm become 220.
    assert overlay.image.shape == overlay.prediction.shape == overlay.reference.shape == (256, 220)
    assert (overlay.image.dtype, int(overlay.image.max())) == (np.dtype(np.uint8), 255)
    n_pixels = np.count_nonzero(overlay.reference == 1)
    assert n_pixels == np.count_nonzero(overlay.prediction == 2) == pytest.approx(40 * (256 / 36) ** 2, rel=0.05)
    assert overlay.class_names == {1: "liver", 2: "spleen"}
    assert overlay.caption == "worst: a, axial slice 7, Dice n/a"


def test_pixels_that_nobody_has_labelled_are_a_layer_of_their_own_in_the_reference() -> None:
    labels, unlabelled = np.zeros((36, 36), np.uint8), np.zeros((36, 36), bool)
    labels[10:20, 5:9], unlabelled[30:] = 1, True
    view = SliceView("a", "axial", 7, np.zeros((36, 36), np.float32), labels, labels, (36.0, 36.0), NAN, unlabelled)
    overlay = overlay_of("worst", view, ["liver"])
    # The last 6 rows of 36 are anterior: the upper sixth of the picture.
    assert (overlay.reference == 255).mean() == pytest.approx(6 / 36, abs=0.01)
    assert (overlay.reference[:40] == 255).all()
    assert not (overlay.prediction == 255).any()
    assert overlay.class_names == {1: "liver", 255: "not labelled"}
