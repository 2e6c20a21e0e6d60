"""Scores of a case with ignored voxels, added slice by slice, with counts worked by hand."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from spleen.data.cases import Case
from spleen.data.loading.batches import CaseSlices, ScoredSlices
from spleen.data.store.entry import StoredCase
from spleen.data.store.store import open_case
from spleen.imaging.classes import ClassMap
from spleen.imaging.intensity import CtWindow
from spleen.imaging.preprocessing import Preprocessing
from spleen.training.scores import SplitScores
from spleen.training.surface_scores import SurfaceAccumulator
from tests._helpers.nifti import SHAPE, SPACING_MM, counting, ras_affine, save

SETTINGS = Preprocessing(
    axis="axial",
    img_size="native",
    resize="keep_aspect",
    size_multiple=8,
    intensity=CtWindow(window_level=0.0, window_width=200.0),
    classes=ClassMap(("organ",), ((1,),)),
    grid_tolerance_mm=0.1,
    ignore_value=255,
)


@pytest.fixture
def stored(tmp_path: Path) -> StoredCase:
    """Of three axial slices of 5 × 7 voxels, the first is unknown; of the second, the organ is 2 × 3 voxels, beside 2
    unknown ones; of the third, nothing is organ.
    """
    label = np.zeros(SHAPE, np.uint8)
    label[:, :, 0] = 255
    label[1:3, 2:5, 1] = 1
    label[3, 2:4, 1] = 255
    image = save(tmp_path / "ct.nii.gz", (counting() - 60).astype(np.int16), ras_affine())
    return open_case(Case("a", (image,), save(tmp_path / "seg.nii.gz", label, ras_affine())), SETTINGS, tmp_path / "c")


def test_dice_volumes_and_surfaces_leave_ignored_voxels_out(stored: StoredCase) -> None:
    """Predicted is the organ with one more row along i, of which two of the three voxels are unknown."""
    predicted = np.zeros(SHAPE, np.uint8)
    predicted[:, :, 0] = 1
    predicted[1:4, 2:5, 1] = 1
    planes = torch.from_numpy(predicted.transpose(2, 1, 0).astype(np.int64))
    scores, surfaces = SplitScores([stored], ("organ",)), SurfaceAccumulator([stored], ("organ",))
    for batch in ScoredSlices([CaseSlices(stored, np.array(stored.labelled_slices))], context_slices=0, batch_size=1):
        height, width = stored.grid.padded
        padded = F.pad(planes[batch.slice_index], (0, width - SHAPE[0], 0, height - SHAPE[1]))
        logits = 40.0 * F.one_hot(padded, 2).movedim(-1, 1) - 20.0
        surfaces.add(scores.add(logits.float(), torch.tensor(0.0), batch), batch)
    (score,) = scores.finish()[1]
    assert score.dice == pytest.approx(2 * 6 / (6 + 7))
    assert score.sensitivity == 1.0
    # Of 35 voxels in each of the two slices, 2 are unknown, 6 organ, and one is a false positive.
    assert score.specificity == pytest.approx((70 - 2 - 6 - 1) / (70 - 2 - 6))
    voxel_mm3 = float(np.prod(SPACING_MM))
    assert score.volume_reference_mm3 == pytest.approx(6 * voxel_mm3)
    assert score.volume_prediction_mm3 == pytest.approx(7 * voxel_mm3)
    # Towards the third slice every voxel is on the surface. All of the prediction's coincide with those of the
    # reference but the voxel beside it, which is 0.8 mm away.
    (surface,) = surfaces.scores
    assert surface.average_surface_distance_mm == pytest.approx(0.8 / 13)
