"""Surface scores of test cases while they are scored slice by slice, with distances worked by hand."""

from pathlib import Path

import numpy as np
import pytest
import torch

from spleen.data.loading.batches import ScoredBatch
from spleen.data.store.entry import StoredArray, StoredCase
from spleen.imaging.slicing import InPlaneGrid
from spleen.records.surfaces import SurfaceScore, read_surfaces, write_surfaces
from spleen.training import surface_scores
from spleen.training.surface_scores import SurfaceAccumulator


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


@pytest.fixture
def box(tmp_path: Path) -> StoredCase:
    reference = np.zeros((20, 9, 30), np.uint8)
    reference[1:19, 3:6, 10:14] = 1
    return stored_case(tmp_path, reference)


def add_shifted_by_two_columns(scores: SurfaceAccumulator, case: StoredCase, case_index: int, n_slices: int) -> None:
    """Predict the first slices of the case, seven at once."""
    reference = torch.from_numpy(np.asarray(case.reference).copy())
    for index in torch.arange(n_slices).split(7):
        images = reference[index][:, None].float()
        batch = ScoredBatch(images, images.long(), reference[index], case_index, index)
        scores.add(torch.roll(reference[index], 2, dims=2), batch)


def test_surface_distances_of_a_box_that_is_predicted_two_columns_to_the_side(box: StoredCase) -> None:
    scores = SurfaceAccumulator([box], ("spleen",))
    add_shifted_by_two_columns(scores, box, 0, 20)
    (found,) = scores.scores
    assert (found.case_id, found.class_name) == ("a", "spleen")
    # The columns are 0.5 mm apart, so the face that is farthest from the other box is 2 × 0.5 mm from it.
    assert found.hausdorff95_mm == pytest.approx(1.0)
    assert 0 < found.average_surface_distance_mm < 1.0
    assert found.surface_dice == 1.0  # within the tolerance of 1 mm


def test_there_are_no_surface_distances_for_blocks_of_slices_or_beyond_the_time(
    box: StoredCase, monkeypatch: pytest.MonkeyPatch
) -> None:
    block = SurfaceAccumulator([box], ("spleen",))
    add_shifted_by_two_columns(block, box, 0, 19)
    assert block.scores == ()
    monkeypatch.setattr(surface_scores, "_MOST_SECONDS", 0.0)
    two = SurfaceAccumulator([box, box], ("spleen",))
    for case_index in (0, 1):
        add_shifted_by_two_columns(two, box, case_index, 20)
    assert two.scores == ()
    assert SurfaceAccumulator([], ("spleen",)).scores == ()


def test_the_scores_are_read_as_they_were_written_and_gone_when_there_are_none(tmp_path: Path) -> None:
    path = tmp_path / "surface.csv"
    scores = (
        SurfaceScore("=a", "liver, left", 2.0, 0.1, 0.75),
        SurfaceScore("b", "x", float("inf"), float("inf"), 0.0),
    )
    write_surfaces(path, scores)
    assert read_surfaces(path) == scores
    write_surfaces(path, ())
    assert read_surfaces(path) == ()
