"""Voxels of unknown class on their way from a label file to a slice of the network's size."""

import numpy as np
import pytest
import torch

from spleen.errors import InputError
from spleen.imaging.classes import parse_label_values
from spleen.imaging.labels import IGNORED, resolve, to_class_indices
from spleen.imaging.slicing import InPlaneGrid, resample_labels


@pytest.mark.parametrize("ignore_value", [255, -1, 9])
def test_the_ignored_value_is_neither_a_class_nor_background(ignore_value: int) -> None:
    label = np.array([[[0, 4, ignore_value], [ignore_value, 0, 4]]], np.int16)
    classes = resolve(label, parse_label_values(None, "spleen"), ignore_value=ignore_value)
    assert classes.values == ((4,),)
    expected = [[[0, 1, IGNORED], [IGNORED, 0, 1]]]
    assert to_class_indices(label, classes, ignore_value).tolist() == expected


def test_a_label_without_a_known_voxel_is_an_error() -> None:
    label = np.full((3, 4, 2), 255, np.int16)
    with pytest.raises(InputError, match=r"every voxel of the label is 255 \(data.ignore_value\)"):
        resolve(label, parse_label_values([1], "spleen"), allow_empty_label=True, ignore_value=255)


def test_resampling_neither_spreads_nor_shrinks_the_ignored_part() -> None:
    """Twice as large: every pixel becomes four, and between organ and ignored none becomes background."""
    plane = torch.tensor([[0, 2, 2, IGNORED, IGNORED], [0, 2, 2, IGNORED, 0]], dtype=torch.uint8)
    grid = InPlaneGrid((2, 5), (4, 10), (4, 12))
    enlarged = resample_labels(plane[None], grid, n_classes=3)[0]
    assert torch.equal(enlarged[:, 6:8], torch.full((4, 2), IGNORED, dtype=torch.uint8))
    assert torch.equal(enlarged[:, 2:6], torch.full((4, 4), 2, dtype=torch.uint8))
    assert enlarged[:, 8:10].tolist() == [[255, 255], [255, 255], [0, 0], [0, 0]]
    assert not enlarged[:, 10:].any()  # the padding is background


def test_a_smaller_slice_takes_known_pixels_alone_to_decide() -> None:
    """Columns 0 to 3 become one pixel around column 1.5, whose nearest source is column 2.

    Over four columns to either side, a linear filter gives the organ 0.875 + 0.625, the known background 0.375 + 0.125,
    and the ignored columns 0.625 + 0.875, which would decide if they were background.
    """
    grid = InPlaneGrid((1, 8), (1, 2), (1, 2))
    plane = torch.tensor([[[IGNORED, IGNORED, 1, 1, 0, 0, IGNORED, IGNORED]]], dtype=torch.uint8)
    assert resample_labels(plane, grid, n_classes=2)[0].tolist() == [[1, IGNORED]]


@pytest.mark.parametrize("size", [(5, 9), (20, 28), (11, 13)])
def test_slices_without_ignored_pixels_are_resampled_as_beside_slices_with_some(size: tuple[int, int]) -> None:
    planes = torch.from_numpy(np.random.default_rng(2).integers(0, 4, (2, 10, 14)).astype(np.uint8))
    grid = InPlaneGrid((10, 14), size, size)
    alone = resample_labels(planes, grid, 4)[0]
    planes[1, :4] = IGNORED
    assert torch.equal(resample_labels(planes, grid, 4)[0], alone)


def test_more_classes_than_a_byte_can_number_are_an_error() -> None:
    with pytest.raises(InputError, match="at most 254 classes; got 255"):
        parse_label_values({f"class {value}": value for value in range(1, 256)}, "organ")
