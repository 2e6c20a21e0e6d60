"""Slices of a run as they are drawn."""

from pathlib import Path

import numpy as np
import torch

from spleen.data.loading.batches import CaseSlices
from spleen.data.store.entry import StoredCase
from spleen.training.preview import SliceScore, show
from tests.training.test_ignored_voxels import stored

__all__ = ["stored"]  # a fixture


def test_a_slice_tells_which_pixels_are_not_labelled(stored: StoredCase, tmp_path: Path) -> None:
    part = CaseSlices(stored, np.array(stored.labelled_slices))

    def everything_is_organ(images: torch.Tensor) -> torch.Tensor:
        return torch.stack([torch.zeros_like(images[:, 0]), torch.ones_like(images[:, 0])], dim=1)

    second, third = (show(SliceScore(0, index, 0.5), part, 0, False, everything_is_organ) for index in (1, 2))
    # In the second slice, the label is 255 where i is 3 and j is 2 or 3; rows are j, columns i.
    assert second.unlabelled is not None
    assert np.argwhere(second.unlabelled).tolist() == [[2, 3], [3, 3]]
    assert not second.prediction[second.unlabelled].any()
    assert not second.reference[second.unlabelled].any()
    assert second.prediction.sum() == second.prediction.size - 2
    assert third.unlabelled is None
