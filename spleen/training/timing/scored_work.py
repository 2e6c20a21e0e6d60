"""How much work a scoring is, compared with training."""

from collections.abc import Sequence
from math import prod

from torch import nn

from spleen.data.loading.batches import CaseSlices
from spleen.data.loading.patches import runs
from spleen.models.patches import PatchWindows
from spleen.models.windows import OverlappingWindows, window_starts


def scored_passes(network: nn.Module, parts: Sequence[CaseSlices]) -> int:
    """Forward passes for scoring the slices, each of as many pixels as a slice has in training.

    More than there are slices if the network was trained on windows of them, or on 3D patches: windows overlap.
    """
    if isinstance(network, PatchWindows):
        sizes = [(run.stop - run.start, *part.case.grid.padded) for part in parts for run in runs(part)]
        depth = network.patch_size[0]
        return sum(depth * _n_windows(size, network.patch_size, network.overlap) for size in sizes)
    if isinstance(network, OverlappingWindows):
        window = (network.crop_size, network.crop_size)
        return sum(len(part.indices) * _n_windows(part.case.grid.padded, window, network.overlap) for part in parts)
    return sum(len(part.indices) for part in parts)


def _n_windows(sides: Sequence[int], window: Sequence[int], overlap: float) -> int:
    pairs = zip(sides, window, strict=True)
    return prod(len(window_starts(side, min(side, part), overlap)) for side, part in pairs)
