"""Batches of slices: one read from the store per case and batch, without per-slice loading or collating."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Float16, Int64, Integer, UInt8
from torch import Tensor
from torch.utils.data import Dataset, Sampler

from spleen.data.store.entry import PlaneIndex, StoredArray, StoredCase
from spleen.errors import InputError
from spleen.imaging.labels import IGNORED
from spleen.imaging.slicing import context_indices
from spleen.types import ImageBatch, LabelBatch


class SliceBatch(NamedTuple):
    """Slices, or patches of slices, on the network's grid, for a training step."""

    image: ImageBatch
    label: LabelBatch
    origin: Int64[Tensor, "b 2"]
    """Case index and slice index of each slice."""

    @property
    def n_slices(self) -> int:
        """Number of slices, in patches those of each."""
        return self.label.shape[0] * self.label.shape[1]

    @property
    def n_steps(self) -> int:
        """A batch is one step."""
        return 1


class ScoredBatch(NamedTuple):
    """Slices of one case with the reference on its native planes, for scoring."""

    image: Float[Tensor, "slices c h w"]
    label: LabelBatch
    reference: Integer[Tensor, "b H W"]
    case_index: int
    slice_index: Int64[Tensor, " b"]
    scored: Int64[Tensor, " b"] | None = None
    """Which of the images are scored, if these are all slices of a volume: those that the rest describes."""


@dataclass(frozen=True)
class CaseSlices:
    """The slices of one stored case that are in one split."""

    case: StoredCase
    indices: Int64[np.ndarray, " m"]


@dataclass(frozen=True)
class SliceTable:
    """The training slices of all cases, numbered consecutively."""

    parts: tuple[CaseSlices, ...]
    context_slices: int

    @cached_property
    def case_of(self) -> Int64[np.ndarray, " n"]:
        """Case index of each slice."""
        return np.repeat(np.arange(len(self.parts)), [len(part.indices) for part in self.parts])

    @cached_property
    def slice_of(self) -> Int64[np.ndarray, " n"]:
        """Slice index in its case."""
        return np.concatenate([part.indices for part in self.parts])

    @cached_property
    def sides(self) -> Int64[np.ndarray, "case 2"]:
        """Height and width of the slices of each case."""
        return np.array([part.case.images.shape[2:] for part in self.parts])

    @property
    def foreground(self) -> Bool[np.ndarray, " n"]:
        """Which of the slices contain foreground."""
        return np.concatenate([part.case.foreground[part.indices] for part in self.parts])

    @property
    def n_channels(self) -> int:
        """Channels of a batch: those of the images, of each slice and its neighbours."""
        return self.parts[0].case.n_channels * (1 + 2 * self.context_slices)

    @cached_property
    def is_uniform(self) -> bool:
        """Whether all slices have the same size."""
        return len(np.unique(self.sides, axis=0)) == 1

    @property
    def n_bytes(self) -> int:
        """Bytes of all cases' images and labels."""
        return sum(
            int(np.prod(part.case.images.shape)) * 2 + int(np.prod(part.case.labels.shape)) for part in self.parts
        )

    def sorted(self, numbers: Int64[np.ndarray, " b"]) -> Int64[np.ndarray, " b"]:
        """The slice numbers of a batch in the order in which they are served: case by case."""
        return numbers[np.argsort(self.case_of[numbers], kind="stable")]

    def origin(self, numbers: Int64[np.ndarray, " b"]) -> Int64[Tensor, "b 2"]:
        """Case and slice index of each slice of a batch."""
        numbers = self.sorted(numbers)
        return torch.from_numpy(np.stack([self.case_of[numbers], self.slice_of[numbers]], axis=1))

    def batch_size(self, numbers: Int64[np.ndarray, " b"], step_px: int) -> tuple[int, int]:
        """Height and width of a batch; with slices of several sizes the next multiple of `step_px`."""
        largest = self.sides[self.case_of[numbers]].max(axis=0)
        if not self.is_uniform:
            largest = -(-largest // step_px) * step_px
        return int(largest[0]), int(largest[1])


def load_images(case: StoredCase, index: Int64[np.ndarray, " b"], context_slices: int) -> Float[np.ndarray, "b c h w"]:
    """Normalised slices with their neighbours as channels, float32; channels are ordered slice by slice."""
    images: Float[np.ndarray, "b c h w"] = _stored_images(case, index, context_slices).astype(np.float32)
    return images


def _stored_images(
    case: StoredCase, index: Int64[np.ndarray, " b"], context_slices: int
) -> Float16[np.ndarray, "b c h w"]:
    planes = case.images[context_indices(index, case.n_slices, context_slices)]
    return planes.reshape(len(index), -1, *planes.shape[-2:])


class TrainingSlices(Dataset[SliceBatch]):
    """Training slices of all cases, numbered consecutively; an item is a whole batch, given by its slice numbers.

    A batch is sorted by case. Smaller slices are padded at the bottom and right to the largest slice of the batch: the
    image with the smallest intensity of its case's slices in the batch, the label with background.
    """

    def __init__(self, parts: Sequence[CaseSlices], context_slices: int) -> None:
        self.table = SliceTable(tuple(parts), context_slices)

    def __len__(self) -> int:
        return len(self.table.slice_of)

    def __getitem__(self, numbers: Int64[np.ndarray, " b"]) -> SliceBatch:
        table = self.table
        numbers = table.sorted(numbers)
        case_of, slice_of = table.case_of[numbers], table.slice_of[numbers]
        of_batch, starts = np.unique(case_of, return_index=True)
        cases = [table.parts[number].case for number in of_batch]
        sides = [max(case.images.shape[side] for case in cases) for side in (2, 3)]
        # NumPy only: the arrays are so small that PyTorch's threads would cost more than they save.
        image = np.empty((len(numbers), table.n_channels, *sides), np.float32)
        label = np.zeros((len(numbers), 1, *sides), np.uint8)
        for case, start, index in zip(cases, starts, np.split(slice_of, starts[1:]), strict=True):
            rows = slice(start, start + len(index))
            planes = _stored_images(case, index, table.context_slices)
            height, width = planes.shape[2:]
            if [height, width] != sides:
                image[rows] = planes.min()
            image[rows, :, :height, :width] = planes
            label[rows, 0, :height, :width] = training_labels(case, index)
        origin = np.stack([case_of, slice_of], axis=1)
        return SliceBatch(torch.from_numpy(image), torch.from_numpy(label), torch.from_numpy(origin))


class ScoredSlices(Dataset[ScoredBatch]):
    """Validation or test slices in order, batch by batch; a batch never mixes cases.

    Each of `n_ranks` processes gets the same number of batches, and each slice goes to exactly one process.
    Raises InputError for fewer slices than processes.
    """

    def __init__(
        self, parts: Sequence[CaseSlices], context_slices: int, batch_size: int, rank: int = 0, n_ranks: int = 1
    ) -> None:
        self._context_slices = context_slices
        self._cases = [part.case for part in parts]
        batches = [
            (number, part.indices[start : start + batch_size])
            for number, part in enumerate(parts)
            for start in range(0, len(part.indices), batch_size)
        ]
        self._batches = _divisible(batches, n_ranks)[rank::n_ranks]

    def __len__(self) -> int:
        return len(self._batches)

    def __getitem__(self, number: int) -> ScoredBatch:
        case_index, index = self._batches[number]
        case = self._cases[case_index]
        return ScoredBatch(
            torch.from_numpy(load_images(case, index, self._context_slices)),
            torch.from_numpy(training_labels(case, index)[:, None]),
            torch.from_numpy(native_reference(case, index)),
            case_index,
            torch.from_numpy(index),
        )


def training_labels(case: StoredCase, index: Int64[np.ndarray, " b"] | slice) -> UInt8[np.ndarray, "b h w"]:
    """Label maps of the loss: class indices, `IGNORED`, and the code of a background with unlabelled classes.

    Raises InputError as `native_reference` does.
    """
    labels = _checked(case, case.labels, index)
    if case.background_code:
        labels = np.where(labels == 0, np.uint8(case.background_code), labels)
    return labels


def native_reference(case: StoredCase, index: Int64[np.ndarray, " b"]) -> UInt8[np.ndarray, "b H W"]:
    """Native planes of class indices and `IGNORED`; raises InputError for an index that stands for no class."""
    return _checked(case, case.reference, case.in_volume(index))


def _checked(
    case: StoredCase, planes: StoredArray, index: PlaneIndex | tuple[PlaneIndex, slice, slice]
) -> UInt8[np.ndarray, "b h w"]:
    read = planes[index]
    largest = int(read.max(initial=0))
    if largest == IGNORED and case.ignored_volume_mm3:
        largest = int(read.max(initial=0, where=read != IGNORED))
    if largest > case.n_indices:
        raise InputError(f"{planes.path} is damaged: it holds the class index {largest}; verify=true rebuilds it")
    return read


class BalancedBatches(Sampler[Int64[np.ndarray, " b"]]):
    """Slice numbers of each batch of an epoch; at least a fraction `foreground_fraction` of a batch has foreground.

    Slices are drawn without replacement until all have been seen, then again. The draw depends only on the seed and the
    epoch, so an epoch can be repeated after a restart. Each of `n_ranks` processes gets an equal part of every global
    batch. Raises InputError if the global batch size is not divisible by the number of processes.
    """

    def __init__(
        self,
        foreground: Bool[np.ndarray, " n"],
        batch_size: int,
        slices_per_epoch: int | None,
        foreground_fraction: float,
        seed: int,
        rank: int = 0,
        n_ranks: int = 1,
    ) -> None:
        self._all = np.arange(len(foreground))
        self._with_organ = np.flatnonzero(foreground)
        self.batch_size = min(batch_size, slices_per_epoch or len(foreground))
        """Of all processes together."""
        self._n_batches = max(1, (slices_per_epoch or len(foreground)) // self.batch_size)
        self._n_foreground = math.ceil(foreground_fraction * self.batch_size - 1e-9) if len(self._with_organ) else 0
        self._seed = seed
        self._share = slice(rank, None, n_ranks)
        self._epoch = 0
        if self.batch_size % n_ranks:
            raise InputError(
                f"a global batch of {self.batch_size} slices cannot be divided evenly among {n_ranks} processes; "
                f"there are {len(foreground)} training slices"
            )

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch whose batches are drawn next (called by the trainer)."""
        self._epoch = epoch

    def __len__(self) -> int:
        return self._n_batches

    def __iter__(self) -> Iterator[Int64[np.ndarray, " b"]]:
        random = np.random.default_rng((self._seed, self._epoch))
        organ = _shuffled(self._with_organ, self._n_batches * self._n_foreground, random)
        other = _shuffled(self._all, self._n_batches * (self.batch_size - self._n_foreground), random)
        for organ_part, other_part in zip(
            np.split(organ, self._n_batches), np.split(other, self._n_batches), strict=True
        ):
            yield np.concatenate([organ_part, other_part])[self._share]


def _divisible(
    batches: list[tuple[int, Int64[np.ndarray, " _"]]], n_ranks: int
) -> list[tuple[int, Int64[np.ndarray, " _"]]]:
    """Halve the longest batches until their number is divisible by `n_ranks`: the processes wait for each other."""
    batches = list(batches)
    while len(batches) % n_ranks:
        longest = max(range(len(batches)), key=lambda number: len(batches[number][1]))
        case, indices = batches[longest]
        if len(indices) < 2:
            raise InputError(f"{len(batches)} slices to score are too few for {n_ranks} processes; use fewer processes")
        half = len(indices) // 2
        batches[longest : longest + 1] = [(case, indices[:half]), (case, indices[half:])]
    return batches


def _shuffled(pool: np.ndarray, count: int, random: np.random.Generator) -> np.ndarray:
    """`count` draws from the pool: whole shuffled passes, the last one cut short."""
    passes = [random.permutation(pool) for _ in range(math.ceil(count / max(1, len(pool))))]
    return np.concatenate([*passes, np.empty(0, dtype=np.int64)])[:count].astype(np.int64)
