"""The final scores as wandb gets them, with expected values worked by hand."""

from pathlib import Path

import numpy as np
import pytest
import torch

from spleen.data.loading.batches import CaseSlices
from spleen.data.store.entry import StoredArray, StoredCase
from spleen.evaluation.metrics.per_case import CaseScore
from spleen.imaging.slicing import InPlaneGrid
from spleen.reporting.overlays import SliceView
from spleen.runs.tracking.content import ranges
from spleen.runs.tracking.predicted import surface_scores, worst_slices
from spleen.runs.tracking.scores import SurfaceScore, case_counts, case_rows, class_rows, mean_values
from spleen.runs.tracking.slices import overlay_of
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
    surfaces = {("a", "liver"): SurfaceScore(2.0, 1.0), ("b", "liver"): SurfaceScore(4.0, 2.0)}
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
    rows = case_rows(CASES, {("a", "liver"): SurfaceScore(2.0, 1.0)})
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


def stored_case(folder: Path, reference: np.ndarray) -> StoredCase:
    """A case whose image is its reference."""
    height, width = reference.shape[1:]
    for name, array in (("image", reference[:, None].astype(np.float16)), ("reference", reference)):
        np.save(folder / f"{name}.npy", array)
    labels = StoredArray.at(folder / "reference.npy")
    return StoredCase(
        "a", "axial", InPlaneGrid((height, width), (height, width), (height, width)), (5.0, 0.8, 0.5), 2.0,
        StoredArray.at(folder / "image.npy"), labels, labels, reference.any((1, 2)), ((1,),), (), (0.0,), "f",
    )  # fmt: skip


def shifted_by_two_columns(image: torch.Tensor) -> torch.Tensor:
    organ = torch.roll(image[:, :1], 2, dims=3)
    return torch.cat([1 - organ, organ], dim=1) * 20 - 10


def test_surface_distances_of_a_box_that_is_predicted_two_columns_to_the_side(tmp_path: Path) -> None:
    reference = np.zeros((20, 9, 30), np.uint8)  # more slices than are predicted at once
    reference[1:19, 3:6, 10:14] = 1
    part = CaseSlices(stored_case(tmp_path, reference), np.arange(20))
    (found,) = surface_scores([part], ["spleen"], 0, shifted_by_two_columns, 60).values()
    # The columns are 0.5 mm apart, so the face that is farthest from the other box is 2 × 0.5 mm from it.
    assert found.hausdorff95_mm == pytest.approx(1.0)
    assert 0 < found.average_surface_distance_mm < 1.0


def test_there_are_no_surface_distances_for_blocks_of_slices_or_beyond_the_time(tmp_path: Path) -> None:
    reference = np.zeros((20, 9, 30), np.uint8)
    reference[1:19, 3:6, 10:14] = 1
    case = stored_case(tmp_path, reference)
    assert surface_scores([CaseSlices(case, np.arange(19))], ["spleen"], 0, shifted_by_two_columns, 60) == {}
    two = [CaseSlices(case, np.arange(20))] * 2
    assert surface_scores(two, ["spleen"], 0, shifted_by_two_columns, 0.0) == {}
    assert surface_scores([], ["spleen"], 0, shifted_by_two_columns, 60) == {}
