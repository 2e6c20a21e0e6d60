"""Scores of cases of which only a box is predicted: they count on the whole grid, as worked by hand."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from spleen.data.cases import Case
from spleen.data.loading.batches import CaseSlices, ScoredSlices
from spleen.data.store.entry import StoredCase
from spleen.data.store.store import open_case
from spleen.imaging.classes import ClassMap
from spleen.imaging.geometry import Box
from spleen.imaging.intensity import CtWindow
from spleen.imaging.preprocessing import Preprocessing
from spleen.training.scores import SplitScores, counts_outside
from spleen.training.surface_scores import SurfaceAccumulator
from tests._helpers.nifti import ras_affine, save

SHAPE = (12, 10, 8)
SETTINGS = Preprocessing(
    "axial", "native", "keep_aspect", 1, CtWindow(0.0, 200.0), ClassMap(("organ",), ((1,),)), grid_tolerance_mm=0.1
)


@pytest.fixture
def stored(tmp_path: Path) -> StoredCase:
    """The organ has 4 × 5 × 6 voxels; the box contains those with i from 4 to 6, and so lacks 1 × 5 × 6."""
    label = np.zeros(SHAPE, np.uint8)
    label[4:8, 2:7, 1:7] = 1
    hu = np.random.default_rng(0).integers(-90, 90, SHAPE).astype(np.int16)
    affine = ras_affine((2.0, 1.0, 1.0))
    files = save(tmp_path / "ct.nii", hu, affine), save(tmp_path / "seg.nii", label, affine)
    return open_case(Case("a", files[:1], files[1], box=Box((3, 1, 1), (7, 8, 7))), SETTINGS, tmp_path / "cache")


def logits_of(labels: Tensor) -> Tensor:
    """Logits of exactly these masks (b, 1, h, w)."""
    organ = 20.0 * labels.float() - 10
    return torch.cat([-organ, organ], dim=1)


def test_what_the_box_cuts_off_is_a_false_negative_and_all_else_beyond_it_a_true_negative(stored: StoredCase) -> None:
    """In the box the mask is perfect: TP 3 × 5 × 6 = 90, FN 30, and all others of the 960 voxels are true negatives."""
    part = CaseSlices(stored, np.arange(stored.n_slices))
    scores = SplitScores([stored], ("organ",), counts_outside([part], 1))
    for batch in ScoredSlices([part], 0, 4):
        scores.add(logits_of(batch.label), torch.tensor(0.0), batch)
    _, (score,) = scores.finish()
    assert score.dice == pytest.approx(2 * 90 / (2 * 90 + 30))
    assert score.sensitivity == pytest.approx(90 / 120)
    assert score.specificity == 1.0
    assert score.volume_reference_mm3 == pytest.approx(120 * 2)
    assert score.volume_prediction_mm3 == pytest.approx(90 * 2)


def test_the_counts_beyond_the_box_are_those_of_the_slices_of_the_split(stored: StoredCase) -> None:
    """The box has 4 × 7 × 6 voxels. Its first slice also has the slice before it, and the 5 missed voxels beside it."""
    every, first = np.arange(stored.n_slices), np.array([0])
    of_all, of_first = (counts_outside([CaseSlices(stored, slices)], 1).tolist() for slices in (every, first))
    assert of_all == [[[0, 0, 30, 960 - 4 * 7 * 6 - 30]]]
    assert of_first == [[[0, 0, 5, 12 * 10 + 12 * 10 - 4 * 7 - 5]]]
    whole = CaseSlices(replace(stored, box=None, outside=None), every)
    assert counts_outside([whole], 1).tolist() == [[[0, 0, 0, 0]]]


def test_surfaces_are_those_of_the_whole_organ(stored: StoredCase) -> None:
    """The face at i = 7 is predicted one voxel of 2 mm too early: that is the largest distance."""
    scores = SurfaceAccumulator([stored], ("organ",))
    for batch in ScoredSlices([CaseSlices(stored, np.arange(stored.n_slices))], 0, 4):
        scores.add(batch.reference, batch)
    (found,) = scores.scores
    assert found.hausdorff95_mm == pytest.approx(2.0)
    assert found.surface_dice < 1.0
