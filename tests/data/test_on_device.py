"""Batches gathered on the device are those that the loader reads from the store."""

import numpy as np
import pytest
import torch

from spleen.data.loading.batches import BalancedBatches, ScoredSlices, SliceTable, TrainingSlices
from spleen.data.loading.on_device import CachedOnDevice, DeviceSlices, StagedSlices, SteppedBatches, gather
from tests._helpers.stored_slices import SHAPES, case_slices

CPU = torch.device("cpu")


@pytest.fixture(params=[1, 2], ids=["one_channel", "two_channels"])
def parts(request, tmp_path):
    return case_slices(tmp_path, request.param)


@pytest.mark.parametrize("context_slices", [0, 2])
@pytest.mark.parametrize("staged", [False, True], ids=["all_on_device", "batch_by_batch"])
def test_a_gathered_batch_equals_the_one_read_from_the_store(parts, context_slices, staged):
    table, loader = SliceTable(parts, context_slices), TrainingSlices(parts, context_slices)
    slices = StagedSlices(table, 6, CPU) if staged else DeviceSlices(table, CPU)
    random = np.random.default_rng(0)
    for _ in range(10):
        numbers = random.permutation(len(loader))[:6]
        expected = loader[numbers]
        size = table.batch_size(numbers, step_px=1)
        image, label = gather(slices.pixels, slices.labels, slices.rows(numbers), size, table.is_uniform)
        assert torch.equal(image, expected.image)
        assert torch.equal(label, expected.label)
        assert torch.equal(table.origin(numbers), expected.origin)
    assert not table.is_uniform


def test_slices_of_one_size_are_gathered_whole(parts):
    table, loader = SliceTable(parts[:1], 1), TrainingSlices(parts[:1], 1)
    slices, numbers = DeviceSlices(table, CPU), np.array([4, 0, 9])
    size = table.batch_size(numbers, step_px=16)
    image, label = gather(slices.pixels, slices.labels, slices.rows(numbers), size, table.is_uniform)
    assert size == (7, 5)  # not rounded up: every batch has it
    assert torch.equal(image, loader[numbers].image)
    assert torch.equal(label, loader[numbers].label)


def test_a_batch_is_extended_to_a_common_size_by_its_edge(parts):
    table, loader = SliceTable(parts, 1), TrainingSlices(parts, 1)
    slices, numbers = DeviceSlices(table, CPU), np.array([0, 12, 20])
    expected = loader[numbers]
    height, width = expected.image.shape[2:]
    size = table.batch_size(numbers, step_px=16)
    image, label = gather(slices.pixels, slices.labels, slices.rows(numbers), size, table.is_uniform)
    assert size == (16, 16)
    assert torch.equal(image[..., :height, :width], expected.image)
    padding = (0, 16 - width, 0, 16 - height)
    assert torch.equal(image, torch.nn.functional.pad(expected.image, padding, mode="replicate"))
    extended = torch.nn.functional.pad(expected.label.float(), padding, mode="replicate")
    assert torch.equal(label.float(), extended)


def test_the_bytes_are_those_of_images_and_labels(parts):
    voxels = [int(np.prod(shape)) for shape in SHAPES]
    n_channels = parts[0].case.n_channels
    assert SliceTable(parts, 1).n_bytes == sum(2 * n_channels * count + count for count in voxels)


def test_an_epoch_begins_with_one_step_and_keeps_the_order_of_its_batches(parts):
    table = SliceTable(parts, 0)
    sampler = BalancedBatches(table.foreground, 2, 46, 0.5, seed=3)
    batches = list(loader := SteppedBatches(table, sampler, steps_at_once=8))
    assert [batch.n_steps for batch in batches] == [1, 2, 4, 8, 8]
    assert len(loader) == 5
    assert sum(batch.n_slices for batch in batches) == 46
    for found, expected in zip([step for batch in batches for step in batch.steps], sampler, strict=True):
        assert np.array_equal(found, expected)


def test_scored_batches_stay_on_the_device_only_while_it_has_room(parts):
    dataset = ScoredSlices(parts, context_slices=0, batch_size=4)
    room = iter([True, False, False])
    cached = CachedOnDevice(dataset, CPU, lambda: next(room))
    first, second = cached[0], cached[1]
    assert cached[0] is first
    assert cached[1] is not second
    for found, expected in zip(cached[0][:3], dataset[0][:3], strict=True):
        assert torch.equal(found, expected)
