"""How much work a scoring is, compared with training."""

from collections.abc import Sequence

from torch import nn

from spleen.data.loading.batches import CaseSlices
from spleen.data.loading.patches import runs
from spleen.models.patches import PatchWindows
from spleen.models.windows import OverlappingWindows, window_places


def scored_passes(network: nn.Module, parts: Sequence[CaseSlices]) -> int:
    """Forward passes for scoring the slices, each of as many pixels as a slice has in training.

    More than there are slices if the network was trained on windows of them, or on 3D patches: windows overlap.
    """
    if isinstance(network, PatchWindows):
        sizes = [(run.stop - run.start, *part.case.grid.padded) for part in parts for run in runs(part)]
        windows = [window_places(size, network.patch_size, network.overlap) for size in sizes]
        return network.patch_size[0] * sum(map(len, windows))
    if isinstance(network, OverlappingWindows):
        side, overlap = network.crop_size, network.overlap
        return sum(
            len(part.indices) * len(window_places(part.case.grid.padded, (side, side), overlap)) for part in parts
        )
    return sum(len(part.indices) for part in parts)
