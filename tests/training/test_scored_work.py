"""How many forward passes a scoring takes: worked out by hand, and counted while the slices are predicted."""

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from spleen.data.loading.patches import ScoredVolumes
from spleen.models.patches import PatchWindows
from spleen.models.windows import OverlappingWindows
from spleen.training.timing.scored_work import scored_passes
from tests._helpers.stored_slices import case_slices


class Counting(nn.Module):
    """A network that counts the slices it is given, padded ones included."""

    slices = 0

    def forward(self, image: Tensor) -> Tensor:
        self.slices += len(image) if image.ndim == 4 else image.shape[2]
        return torch.cat([image, image], 1)


@pytest.mark.parametrize(
    ("build", "expected"),
    [
        (lambda network: network, 24),
        # Windows of 4 pixels begin every 2: 2 × 3 on 5 × 7 pixels, 3 × 2 on 7 × 6, 1 on 4 × 4.
        (lambda network: OverlappingWindows(network, 4), 11 * 6 + 8 * 6 + 5),
        # Patches of 8 slices begin every 4, so that 11 slices take two, 8 and 5 one.
        (lambda network: PatchWindows(network, (8, 4, 4)), 8 * (2 * 6 + 6 + 1)),
    ],
    ids=["whole_slices", "windows", "patches"],
)
def test_overlapping_windows_are_counted_as_they_are_predicted(tmp_path: Path, build, expected: int) -> None:
    parts = case_slices(tmp_path, n_channels=1)  # 11, 8 and 5 slices
    counting = Counting()
    network = build(counting).eval()
    for batch in ScoredVolumes(parts):
        network(batch.image.float())
    assert scored_passes(network, parts) == counting.slices == expected
