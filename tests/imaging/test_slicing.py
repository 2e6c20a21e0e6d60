import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from scipy import ndimage

from spleen.imaging.slicing import (
    InPlaneGrid,
    context_indices,
    plan_in_plane,
    resample_images,
    resample_labels,
    restore_planes,
    slice_spacing_mm,
    to_slices,
)
from tests._helpers.nifti import counting


def _grid(native, resampled, padded=None):
    return InPlaneGrid(native, resampled, padded or resampled)


def _discs(size, n_classes, seed=0):
    """A label plane of overlapping discs."""
    random, rows, columns = np.random.default_rng(seed), *np.indices(size)
    label = np.zeros(size, dtype=np.uint8)
    for value in range(1, n_classes):
        (h, w), radius = random.uniform(0.3, 0.7, 2) * size, random.uniform(0.15, 0.3) * min(size)
        label[(rows - h) ** 2 + (columns - w) ** 2 < radius**2] = value
    return label


def _by_pillow(plane, size):
    """Pillow's triangle filter, which antialiases when downsampling and interpolates when upsampling."""
    return np.asarray(Image.fromarray(plane.astype(np.float32)).resize(size[::-1], Image.Resampling.BILINEAR))


@pytest.mark.parametrize(("axis", "i_j_k"), [("sagittal", (0, 2, 1)), ("coronal", (2, 0, 1)), ("axial", (2, 1, 0))])
def test_slices_can_be_reassembled_into_the_volume(axis, i_j_k):
    np.testing.assert_array_equal(to_slices(counting(), axis).transpose(i_j_k), counting())


@pytest.mark.parametrize(
    ("axis", "shape", "spacing"),
    [
        ("sagittal", (5, 3, 7), (0.8, 5.0, 0.9)),
        ("coronal", (7, 3, 5), (0.9, 5.0, 0.8)),
        ("axial", (3, 7, 5), (5.0, 0.9, 0.8)),
    ],
)
def test_the_spacing_of_a_slice_stack_follows_its_axes(axis, shape, spacing):
    """A volume of 5 × 7 × 3 voxels of 0.8 × 0.9 × 5 mm, left to right, posterior to anterior, inferior to superior."""
    assert to_slices(counting(), axis).shape == shape
    assert slice_spacing_mm(np.diag([0.8, 0.9, 5.0, 1.0]), axis) == spacing


@pytest.mark.parametrize(
    ("native", "spacing", "img_size", "resize", "resampled", "padded"),
    [
        # 450 × 409.6 mm; 450 / 128 = 3.516 mm per pixel; 409.6 / 3.516 = 116.5
        ((90, 512), (5.0, 0.8), 128, "keep_aspect", (128, 117), (128, 128)),
        ((512, 124), (1.0, 1.0), 128, "keep_aspect", (128, 31), (128, 32)),
        ((31, 128), (1.0, 1.0), 128, "keep_aspect", (31, 128), (32, 128)),
        # 60 × 300 mm upsampled to 0.5 mm per pixel
        ((12, 300), (5.0, 1.0), 600, "keep_aspect", (120, 600), (128, 608)),
        ((2, 500), (0.1, 1.0), 64, "keep_aspect", (1, 64), (16, 64)),
        ((90, 512), (5.0, 0.8), 96, "stretch", (96, 96), (96, 96)),
        ((90, 512), (5.0, 0.8), 100, "stretch", (100, 100), (112, 112)),
    ],
)
def test_the_network_grid_matches_hand_computed_values(native, spacing, img_size, resize, resampled, padded):
    assert plan_in_plane(native, spacing, img_size, resize, 16) == InPlaneGrid(native, resampled, padded)


@given(
    native=st.tuples(st.integers(2, 600), st.integers(2, 600)),
    spacing=st.tuples(st.floats(0.3, 6), st.floats(0.3, 6)),
    img_size=st.integers(8, 512),
    multiple=st.sampled_from([1, 8, 32]),
)
@settings(max_examples=100, deadline=None, derandomize=True)
def test_the_aspect_ratio_is_preserved_and_padding_is_minimal(native, spacing, img_size, multiple):
    grid = plan_in_plane(native, spacing, img_size, "keep_aspect", multiple)
    assert max(grid.resampled) == img_size
    size_mm = np.array(native) * spacing
    exact = size_mm / size_mm.max() * img_size
    assert np.all(np.abs(np.array(grid.resampled) - np.maximum(exact, 1)) <= 0.5 + 1e-6)
    for used, full in zip(grid.resampled, grid.padded, strict=True):
        assert full % multiple == 0
        assert 0 <= full - used < multiple


@pytest.mark.parametrize("size", [(13, 17), (40, 50), (20, 61)], ids=["downsampled", "upsampled", "one of each"])
def test_image_resampling_matches_pillow(size):
    planes = np.random.default_rng(0).normal(size=(2, 33, 41)).astype(np.float32)
    resampled = resample_images(torch.from_numpy(planes), _grid((33, 41), size), fill=0.0)
    for plane, ours in zip(planes, resampled.numpy(), strict=True):
        np.testing.assert_allclose(ours, _by_pillow(plane, size), atol=1e-4)


@pytest.mark.parametrize("size", [(15, 19), (50, 61), (20, 61)], ids=["downsampled", "upsampled", "one of each"])
def test_labels_are_resampled_per_class_and_the_largest_coverage_wins(size):
    plane = _discs((33, 41), n_classes=4)
    ours = resample_labels(torch.from_numpy(plane[None]), _grid((33, 41), size), 4)[0].numpy()
    coverage = np.stack([_by_pillow(plane == value, size) for value in range(4)])
    first, second = np.sort(coverage, axis=0)[[-1, -2]]
    clear = first - second > 1e-4
    assert clear.mean() > 0.95
    np.testing.assert_array_equal(ours[clear], coverage.argmax(0)[clear])
    assert set(np.unique(ours)) == {0, 1, 2, 3}


@pytest.mark.parametrize("size", [(30, 44), (90, 120)], ids=["downsampled", "upsampled"])
def test_a_resampled_label_is_in_place_within_one_boundary_pixel(size):
    plane = _discs((60, 80), n_classes=2, seed=3)
    ours = resample_labels(torch.from_numpy(plane[None]), _grid((60, 80), size), 2)[0].numpy()
    factor = (size[0] / 60, size[1] / 80)
    nearest = ndimage.zoom(plane, factor, order=0, grid_mode=True, mode="nearest")
    around = np.ones((3, 3))
    boundary = ndimage.binary_dilation(nearest, around) & ~ndimage.binary_erosion(nearest, around)
    assert nearest.any()
    np.testing.assert_array_equal(ours[~boundary], nearest[~boundary])


@pytest.mark.parametrize("size", [(41, 52), (120, 160)], ids=["downsampled", "upsampled"])
def test_a_smooth_plane_survives_resampling_to_the_network_grid_and_back(size):
    rows, columns = np.indices((60, 80))
    smooth = (np.sin(rows / 12) * np.cos(columns / 15)).astype(np.float32)
    grid = _grid((60, 80), size, padded=(128, 160))
    resampled = resample_images(torch.from_numpy(smooth[None]), grid, fill=9.0)
    restored = restore_planes(resampled[:, None], grid)[0, 0].numpy()
    np.testing.assert_allclose(restored[3:-3, 3:-3], smooth[3:-3, 3:-3], atol=0.02)
    np.testing.assert_allclose(restored, smooth, atol=0.06)  # the edge repeats the outermost pixel


def test_planes_of_the_right_size_are_only_padded_at_the_bottom_and_right():
    planes = torch.from_numpy(counting((2, 5, 7)))
    grid = _grid((5, 7), (5, 7), padded=(8, 8))
    images = resample_images(planes, grid, fill=-1.0)
    assert torch.equal(images[:, :5, :7], planes)
    assert (images[:, 5:] == -1).all()
    assert (images[:, :, 7:] == -1).all()
    labels = resample_labels(planes.to(torch.uint8) + 1, grid, 80)
    assert torch.equal(labels[:, :5, :7], planes.to(torch.uint8) + 1)
    assert labels[:, 5:].sum() + labels[:, :, 7:].sum() == 0
    assert torch.equal(restore_planes(images[:, None], grid)[:, 0], planes)


def test_context_repeats_the_first_and_last_slice():
    indices = context_indices(np.array([0, 3, 4]), n_slices=5, context_slices=2)
    assert indices.tolist() == [[0, 0, 0, 1, 2], [1, 2, 3, 4, 4], [2, 3, 4, 4, 4]]
    assert context_indices(np.array([0, 4]), 5, 0).tolist() == [[0], [4]]
