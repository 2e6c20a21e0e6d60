"""Patches of consecutive slices for 3D networks, read from the same store as the slices of a 2D network.

A patch is a batch item whose slices are its channels (all channels of one slice, then of the next) and whose label has
one map for each of them, so that augmentation and cropping treat it as they treat a slice with its neighbours.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Int64
from torch.utils.data import Dataset, Sampler

from spleen.data.loading.batches import (
    BalancedBatches,
    CaseSlices,
    ScoredBatch,
    SliceBatch,
    SliceTable,
    load_images,
    native_reference,
    training_labels,
)
from spleen.errors import InputError
from spleen.imaging.labels import IGNORED


@dataclass(frozen=True)
class Run:
    """Consecutive slices of a case, from `start` to before `stop`, of which none is in another split."""

    start: int
    stop: int


def runs(part: CaseSlices) -> list[Run]:
    """The runs of the slices of a split, with the unlabelled slices between and beside them."""
    usable = np.zeros(part.case.n_slices, dtype=bool)
    usable[part.indices] = usable[list(part.case.ignored_slices)] = True
    edges = np.flatnonzero(np.diff(usable, prepend=False, append=False))
    found = [Run(int(start), int(stop)) for start, stop in edges.reshape(-1, 2)]
    return [run for run in found if ((part.indices >= run.start) & (part.indices < run.stop)).any()]


class PatchBatches(Sampler[Int64[np.ndarray, "b 2"]]):
    """For each slice number that `slices` draws, also its place in the patch, from 0 to `depth` - 1, drawn uniformly.

    Like the slices, the places depend only on the seed, the epoch and the rank.
    """

    def __init__(self, slices: BalancedBatches, depth: int, seed: int, rank: int = 0) -> None:
        self._slices = slices
        self._depth = depth
        self._seed = (seed, rank)
        self._epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch whose batches are drawn next (called by the trainer)."""
        self._epoch = epoch
        self._slices.set_epoch(epoch)

    def __len__(self) -> int:
        return len(self._slices)

    def __iter__(self) -> Iterator[Int64[np.ndarray, "b 2"]]:
        random = np.random.default_rng((*self._seed, self._epoch))
        for numbers in self._slices:
            yield np.stack([numbers, random.integers(0, self._depth, len(numbers))], axis=1)


class TrainingPatches(Dataset[SliceBatch]):
    """Patches of `depth` slices around training slices; an item is a whole batch, given by slice numbers and places.

    A patch lies within the run of its slice. Where that is shorter than the patch, its last slice is repeated, without
    a label. Smaller slices are padded at the bottom and right to the largest of the batch, as in `TrainingSlices`.
    """

    def __init__(self, parts: Sequence[CaseSlices], depth: int) -> None:
        self.table = SliceTable(tuple(parts), context_slices=0)
        self._depth = depth
        self._runs = [runs(part) for part in parts]

    def __len__(self) -> int:
        return len(self.table.slice_of)

    def __getitem__(self, drawn: Int64[np.ndarray, "b 2"]) -> SliceBatch:
        table, count = self.table, len(drawn)
        case_of, slice_of = table.case_of[drawn[:, 0]], table.slice_of[drawn[:, 0]]
        sides = table.sides[case_of].max(axis=0)
        n_channels = table.parts[0].case.n_channels
        image = np.empty((count, self._depth, n_channels, *sides), np.float32)
        label = np.zeros((count, self._depth, *sides), np.uint8)
        for row, (number, index, place) in enumerate(zip(case_of, slice_of, drawn[:, 1], strict=True)):
            case = table.parts[number].case
            run = next(run for run in self._runs[number] if run.start <= index < run.stop)
            start = int(np.clip(index - place, run.start, max(run.start, run.stop - self._depth)))
            planes = np.minimum(np.arange(start, start + self._depth), run.stop - 1)
            pixels = case.images[planes]
            height, width = pixels.shape[2:]
            image[row] = pixels.min()
            image[row, :, :, :height, :width] = pixels
            label[row, :, :height, :width] = training_labels(case, planes)
            label[row, run.stop - start :] = IGNORED
        origin = np.stack([case_of, slice_of], axis=1)
        return SliceBatch(
            torch.from_numpy(image.reshape(count, -1, *sides)), torch.from_numpy(label), torch.from_numpy(origin)
        )


def check_divisible(parts: Sequence[CaseSlices], n_ranks: int) -> None:
    """Raise InputError if each of so many processes could not score the same number of runs."""
    count = sum(len(runs(part)) for part in parts)
    if count % n_ranks:
        raise InputError(
            f"3D networks score whole volumes, and {count} of them cannot be divided equally among {n_ranks} "
            f"processes; use a number of processes that divides {count}"
        )


class ScoredVolumes(Dataset[ScoredBatch]):
    """Validation or test slices, run by run: a batch has all slices of a run, of which the labelled ones are scored.

    Each of `n_ranks` processes gets the same number of runs. Raises InputError for runs that cannot be divided so.
    """

    def __init__(self, parts: Sequence[CaseSlices], rank: int = 0, n_ranks: int = 1) -> None:
        self._cases = [part.case for part in parts]
        check_divisible(parts, n_ranks)
        batches = [(number, run, part.indices) for number, part in enumerate(parts) for run in runs(part)]
        self._batches = batches[rank::n_ranks]

    def __len__(self) -> int:
        return len(self._batches)

    def __getitem__(self, number: int) -> ScoredBatch:
        case_index, run, indices = self._batches[number]
        case = self._cases[case_index]
        index = indices[(indices >= run.start) & (indices < run.stop)]
        return ScoredBatch(
            torch.from_numpy(load_images(case, np.arange(run.start, run.stop), context_slices=0)),
            torch.from_numpy(training_labels(case, index)[:, None]),
            torch.from_numpy(native_reference(case, index)),
            case_index,
            torch.from_numpy(index),
            torch.from_numpy(index - run.start),
        )
