"""Slices on the device: gathered into training batches there by their numbers, or kept there once scored."""

import logging
from collections.abc import Callable, Iterator
from itertools import islice
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int64, Shaped, UInt8
from torch import Tensor
from torch.utils.data import Dataset

from spleen.data.loading.batches import BalancedBatches, ScoredBatch, ScoredSlices, SliceTable, training_labels
from spleen.imaging.slicing import context_indices
from spleen.types import ImageBatch, LabelBatch

log = logging.getLogger(__name__)

MEMORY_FRACTION = 0.5
"""Of a device's free memory, the most that the slices may take; the rest is for the network."""

_SIZE_STEP_PX = 16
"""Where slices differ in size, batches are extended to a multiple of this: a GPU repeats only what it has seen."""


class Rows(NamedTuple):
    """Where the slices of one batch lie in the flat arrays of pixels and labels, and how large they are."""

    plane_start: Int64[Tensor, "b c"]
    label_start: Int64[Tensor, " b"]
    side: Int64[Tensor, "b 2"]
    """Height and width."""
    batch_side: Int64[Tensor, " 2"]
    """Height and width of the largest; beyond them the batch is extended by its edge pixels."""
    fill: Float[Tensor, " b"]
    """Intensity between a slice's own size and the batch's."""


def gather(
    pixels: Shaped[Tensor, " p"], labels: UInt8[Tensor, " l"], rows: Rows, size: tuple[int, int], uniform: bool
) -> tuple[ImageBatch, LabelBatch]:
    """The batch (b, c, h, w) in 32 bits and its label maps (b, 1, h, w), of height and width `size`.

    With `uniform` all slices have exactly that size. Nothing depends on the content, so a GPU can repeat it.
    """
    height, width = size
    if uniform:
        area = height * width
        image = pixels.view(-1, height, width)[rows.plane_start // area]
        return image.float(), labels.view(-1, height, width)[rows.label_start // area].unsqueeze(1)
    row = torch.arange(height, device=pixels.device).minimum(rows.batch_side[0] - 1).view(1, -1, 1)
    column = torch.arange(width, device=pixels.device).minimum(rows.batch_side[1] - 1).view(1, 1, -1)
    own_height, own_width = rows.side.view(-1, 2, 1, 1).unbind(1)
    inside = (row < own_height) & (column < own_width)
    place = torch.where(inside, row * own_width + column, 0)
    image = pixels[rows.plane_start[:, :, None, None] + place.unsqueeze(1)].float()
    image = torch.where(inside.unsqueeze(1), image, rows.fill.view(-1, 1, 1, 1))
    label = torch.where(inside, labels[rows.label_start[:, None, None] + place], 0)
    return image, label.unsqueeze(1)


class StepNumbers(NamedTuple):
    """The slices of several steps, by number: a batch for the trainer, of which each step takes one array."""

    steps: tuple[Int64[np.ndarray, " _"], ...]

    @property
    def n_slices(self) -> int:
        """Slices of all steps."""
        return sum(map(len, self.steps))

    @property
    def n_steps(self) -> int:
        """Number of steps."""
        return len(self.steps)


class SteppedBatches:
    """A loader of `StepNumbers`: so many steps at a time that the trainer's own cost vanishes.

    An epoch starts with one step, then doubles their number up to `steps_at_once`: a device has work at once.
    """

    def __init__(self, table: SliceTable, sampler: BalancedBatches, steps_at_once: int) -> None:
        self.table = table
        self.sampler = sampler
        self._sizes: list[int] = []
        while (left := len(sampler) - sum(self._sizes)) > 0:
            self._sizes.append(min(left, 2 ** len(self._sizes), steps_at_once))

    def __len__(self) -> int:
        return len(self._sizes)

    def __iter__(self) -> Iterator[StepNumbers]:
        numbers = iter(self.sampler)
        for size in self._sizes:
            yield StepNumbers(tuple(islice(numbers, size)))


class DeviceSlices:
    """All training slices in the device's memory."""

    def __init__(self, table: SliceTable, device: torch.device) -> None:
        self.table = table
        shapes = [part.case.images.shape for part in table.parts]
        self._pixel_start = np.cumsum([0, *(int(np.prod(shape)) for shape in shapes)])
        self._label_start = np.cumsum([0, *(shape[0] * shape[2] * shape[3] for shape in shapes)])
        self.pixels = torch.empty(int(self._pixel_start[-1]), dtype=torch.float16, device=device)
        self.labels = torch.empty(int(self._label_start[-1]), dtype=torch.uint8, device=device)
        self._lowest: list[Float[np.ndarray, " n"]] = []
        for number, part in enumerate(table.parts):
            images, classes = part.case.images[:], training_labels(part.case, slice(None))
            self._lowest.append(images.reshape(len(images), -1).min(axis=1))
            _copy(images.reshape(-1), self.pixels[self._pixel_start[number] :])
            _copy(classes.reshape(-1), self.labels[self._label_start[number] :])

    def rows(self, numbers: Int64[np.ndarray, " b"]) -> Rows:
        """Where the slices of a batch lie."""
        table = self.table
        numbers = table.sorted(numbers)
        case_of, slice_of = table.case_of[numbers], table.slice_of[numbers]
        plane_start = np.empty((len(numbers), table.n_channels), np.int64)
        lowest = np.empty(len(numbers), np.float32)
        for case_index in np.unique(case_of):
            mine, case = case_of == case_index, table.parts[case_index].case
            neighbours = context_indices(slice_of[mine], case.n_slices, table.context_slices)
            planes = neighbours[:, :, None] * case.n_channels + np.arange(case.n_channels)
            area = int(np.prod(case.images.shape[2:]))
            plane_start[mine] = self._pixel_start[case_index] + planes.reshape(len(neighbours), -1) * area
            lowest[mine] = self._lowest[case_index][neighbours].min()
        side = table.sides[case_of]
        label_start = self._label_start[case_of] + slice_of * side.prod(axis=1)
        return _rows(plane_start, label_start, side, lowest)


class StagedSlices:
    """Training slices that do not fit on the device: each batch is copied there, from pinned memory, before its use."""

    def __init__(self, table: SliceTable, largest_batch: int, device: torch.device) -> None:
        self.table = table
        largest_plane = int(table.sides.prod(axis=1).max())
        self.pixels = torch.zeros(largest_batch * table.n_channels * largest_plane, dtype=torch.float16, device=device)
        self.labels = torch.zeros(largest_batch * largest_plane, dtype=torch.uint8, device=device)

    def rows(self, numbers: Int64[np.ndarray, " b"]) -> Rows:
        """Copy the slices of a batch to the device, and say where they lie there."""
        table = self.table
        numbers = table.sorted(numbers)
        case_of, slice_of = table.case_of[numbers], table.slice_of[numbers]
        images, labels, lowest = [], [], np.empty(len(numbers), np.float32)
        for case_index in np.unique(case_of):
            mine, case = case_of == case_index, table.parts[case_index].case
            planes = case.images[context_indices(slice_of[mine], case.n_slices, table.context_slices)]
            lowest[mine] = planes.min()
            images.append(planes.reshape(-1))
            labels.append(training_labels(case, slice_of[mine]).reshape(-1))
        _copy(np.concatenate(images), self.pixels)
        _copy(np.concatenate(labels), self.labels)
        side = table.sides[case_of]
        area = side.prod(axis=1)
        label_start = np.cumsum(area) - area
        plane_start = label_start[:, None] * table.n_channels + np.arange(table.n_channels) * area[:, None]
        return _rows(plane_start, label_start, side, lowest)


def _copy(content: Shaped[np.ndarray, " m"], to: Tensor) -> None:
    """Into the beginning of an array on the device, which works on while the copy is made."""
    source = torch.from_numpy(content)
    if to.is_cuda:
        source = source.pin_memory()
    to[: len(source)].copy_(source, non_blocking=True)


def _rows(
    plane_start: Int64[np.ndarray, "b c"],
    label_start: Int64[np.ndarray, " b"],
    side: Int64[np.ndarray, "b 2"],
    lowest: Float[np.ndarray, " b"],
) -> Rows:
    return Rows(
        torch.from_numpy(plane_start),
        torch.from_numpy(label_start),
        torch.from_numpy(side),
        torch.from_numpy(side.max(axis=0)),
        torch.from_numpy(lowest),
    )


def slices_for(table: SliceTable, largest_batch: int, device: torch.device) -> DeviceSlices | StagedSlices:
    """All slices on the device if they take at most `MEMORY_FRACTION` of its free memory, otherwise batch by batch."""
    if device.type != "cuda":
        return DeviceSlices(table, device)
    free = torch.cuda.mem_get_info(device)[0]
    fits = table.n_bytes <= MEMORY_FRACTION * free
    size = f"{table.n_bytes / 2**30:.2g} of {free / 2**30:.3g} GiB free"
    log.info(
        "training slices: %s",
        f"on the GPU ({size})" if fits else f"copied to the GPU batch by batch ({size} is too much)",
    )
    return DeviceSlices(table, device) if fits else StagedSlices(table, largest_batch, device)


class CachedOnDevice(Dataset[ScoredBatch]):
    """Scored batches that stay on the device once they have been there, as long as it has room for more."""

    def __init__(self, dataset: ScoredSlices, device: torch.device, has_room: Callable[[], bool]) -> None:
        self._dataset, self._device, self._has_room = dataset, device, has_room
        self._batches: dict[int, ScoredBatch] = {}

    def __len__(self) -> int:
        return len(self._dataset)

    def __getitem__(self, number: int) -> ScoredBatch:
        if number in self._batches:
            return self._batches[number]
        batch = self._dataset[number]
        image, label, reference = (part.to(self._device) for part in (batch.image, batch.label, batch.reference))
        batch = batch._replace(image=image, label=label, reference=reference)
        if self._has_room():
            self._batches[number] = batch
        return batch


def has_room(device: torch.device) -> bool:
    """Whether a GPU has more free memory than slices may leave; never on a CPU, where the store is as near."""
    if device.type != "cuda":
        return False
    free, total = torch.cuda.mem_get_info(device)
    return free > (1 - MEMORY_FRACTION) * total


def size_step_px(device: torch.device) -> int:
    """The step to which sizes of batches are rounded up: none on a CPU, which repeats nothing."""
    return _SIZE_STEP_PX if device.type == "cuda" else 1
