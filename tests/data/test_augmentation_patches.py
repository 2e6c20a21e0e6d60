"""Augmentation across the slices of a patch."""

from dataclasses import replace
from math import radians

import numpy as np
import pytest
import scipy.ndimage
import torch
from scipy.spatial.transform import Rotation

from spleen.data.augmentation.augment import augment_batch
from spleen.data.augmentation.draws import Draws
from spleen.data.augmentation.patches import Turn, augment_patches, deform_patches, draw_turn
from spleen.data.augmentation.settings import AugmentSettings
from spleen.errors import InputError

ROTATION = AugmentSettings(affine_probability=1.0, rotation_deg=25.0, voxel_depth=2.0)
NOTHING = (None,) * 15


def _generator(seed=0):
    return torch.Generator().manual_seed(seed)


def _ellipsoid(count, shape, radii_mm, spacing_mm):
    """``count`` copies of a centred ellipsoid as image (count, d, h, w) and label."""
    axes = [(np.arange(n) - (n - 1) / 2) * mm for n, mm in zip(shape, spacing_mm, strict=True)]
    grid = np.meshgrid(*axes, indexing="ij")
    inside = sum((each / radius) ** 2 for each, radius in zip(grid, radii_mm, strict=True)) <= 1
    label = torch.from_numpy(inside.astype(np.uint8)).repeat(count, 1, 1, 1)
    return label.float(), label


def _principal_variances_mm2(label, spacing_mm):
    points = label.nonzero().double() * torch.tensor(spacing_mm, dtype=torch.float64)
    return torch.linalg.eigvalsh(points.T.cov())


def _deformed(image, label, in_plane, rotation, shift, settings):
    """A single patch deformed by given matrices; shift in pixels (w, h) and slices."""
    yes = torch.tensor([True])
    draws = replace(Draws(*NOTHING), deformed=yes, matrix=torch.tensor([in_plane]), shift=torch.tensor([shift[:2]]))
    return deform_patches(image, label, draws, Turn(yes, rotation[None], torch.tensor(shift[2:])), settings)


def test_a_rotation_is_rigid_in_mm_though_slices_are_thicker_than_pixels():
    spacing_mm = (2.0, 1.0, 1.0)
    image, label = _ellipsoid(6, (24, 48, 48), (19, 12, 7), spacing_mm)
    _, labels = augment_patches(image, label, ROTATION, "axial", _generator())
    expected = _principal_variances_mm2(label[0], spacing_mm)
    assert expected.tolist() == pytest.approx([7**2 / 5, 12**2 / 5, 19**2 / 5], rel=0.02)
    for turned in labels:
        assert not torch.equal(turned, label[0])
        assert _principal_variances_mm2(turned, spacing_mm).tolist() == pytest.approx(expected.tolist(), rel=0.03)
        assert int(turned.sum()) == pytest.approx(int(label[0].sum()), rel=0.02)


def test_patches_are_the_same_in_a_training_in_bf16() -> None:
    image = torch.rand(4, 8, 12, 12, generator=torch.Generator().manual_seed(0))
    label = (image > 0.5).to(torch.int64)
    alone = augment_patches(image, label, ROTATION, "axial", _generator())
    with torch.autocast("cpu", torch.bfloat16):
        trained = augment_patches(image, label, ROTATION, "axial", _generator())
    for expected, found in zip(alone, trained, strict=True):
        torch.testing.assert_close(found, expected, rtol=0, atol=0)
    assert not torch.equal(alone[0], image)


def test_rotations_out_of_the_plane_are_rotations_within_the_angle():
    turn = draw_turn(200, (8, 8, 8), ROTATION, _generator())
    assert turn is not None
    matrices = turn.rotation.double().numpy()
    assert np.allclose(matrices @ matrices.transpose(0, 2, 1), np.eye(3), atol=1e-6)
    assert np.allclose(np.linalg.det(matrices), 1, atol=1e-6)
    tilt = np.degrees(np.arccos(matrices[:, 2, 2]))  # of the depth axis, by two angles of up to 25°
    assert 20 < tilt.max() <= np.degrees(np.arccos(np.cos(radians(25)) ** 2)) + 1e-3


def test_a_wide_thin_patch_is_turned_so_little_that_it_keeps_its_slices():
    # 8 slices of 2 pixels reach 16; a quarter of that, 4 pixels, at 50 from the centre is asin(4 / 50) = 4.59°.
    turn = draw_turn(200, (8, 60, 100), ROTATION, _generator())
    assert turn is not None
    angle = np.degrees(np.arcsin(np.abs(turn.rotation.double().numpy()[:, 2, :2]).max()))
    assert 4 < angle <= 4.59


def test_the_organ_grows_alike_in_all_three_directions():
    image, label = _ellipsoid(1, (20, 40, 40), (14, 14, 14), (2, 1, 1))
    settings = AugmentSettings(voxel_depth=2.0)
    _, larger = _deformed(image, label, [[0.75, 0.0], [0.0, 0.75]], torch.eye(3), [0.0, 0.0, 0.0], settings)
    assert int(larger.sum()) / int(label.sum()) == pytest.approx(1 / 0.75**3, rel=0.03)
    extent = [int(larger[0].any(dim=others).sum()) for others in ((1, 2), (0, 2), (0, 1))]
    assert extent == [18, 38, 38]  # of 14 slices and 28 pixels


def test_the_resampling_is_that_of_scipy():
    depth = 2.0
    image = torch.randn(1, 2 * 7, 12, 10, generator=_generator())  # 7 slices of 2 channels
    label = torch.randint(0, 4, (1, 7, 12, 10), generator=_generator(), dtype=torch.uint8)
    rotation = Rotation.from_euler("xy", [20, -15], degrees=True).as_matrix()
    in_plane, shift = np.array([[0.9, -0.2], [0.1, 1.1]]), np.array([0.7, -1.2, 0.4])
    moved, labels = _deformed(
        image, label, in_plane.astype(np.float32).tolist(), torch.from_numpy(rotation).float(), shift.tolist(),
        AugmentSettings(voxel_depth=depth),
    )  # fmt: skip
    full = np.zeros((3, 3))
    full[:2, :2], full[2, 2] = in_plane, np.linalg.det(in_plane) ** 0.5
    pixels = np.diag([1, 1, depth])
    in_voxels = np.linalg.inv(pixels) @ full @ rotation @ pixels  # in the order (w, h, d)
    matrix, offset = in_voxels[::-1, ::-1], shift[::-1]
    centre = (np.array([7, 12, 10]) - 1) / 2
    offset = centre + offset - matrix @ centre
    for channel in range(2):
        source = image.view(7, 2, 12, 10)[:, channel].double().numpy()
        expected = scipy.ndimage.affine_transform(source, matrix, offset, order=1, mode="nearest")
        assert np.allclose(moved.view(7, 2, 12, 10)[:, channel].numpy(), expected, atol=1e-4)
    nearest = scipy.ndimage.affine_transform(label[0].numpy(), matrix, offset, order=0, mode="nearest")
    assert (labels[0].numpy() == nearest).mean() > 0.995  # ties are rounded differently


@pytest.mark.parametrize("voxel_depth", [None, 3.0])
def test_coarse_slices_are_moved_alike_as_in_two_dimensions(voxel_depth):
    image, label = torch.randn(4, 6, 16, 20, generator=_generator()), torch.ones(4, 6, 16, 20, dtype=torch.uint8)
    settings = AugmentSettings(
        affine_probability=1.0,
        rotation_deg=20,
        scale=0.2,
        noise_probability=0.5,
        noise_std=0.1,
        voxel_depth=voxel_depth,
    )
    patches = augment_patches(image, label, settings, "axial", _generator(3))
    slices = augment_batch(image, label, settings, "axial", _generator(3))
    assert torch.equal(patches[0], slices[0])
    assert torch.equal(patches[1], slices[1])


def test_a_direction_across_the_slices_reverses_them_and_exchanges_the_sides():
    image = torch.arange(2 * 3 * 2).float().view(2, 6, 1, 1).expand(2, 6, 4, 4)  # 3 slices of 2 channels
    label = torch.tensor([1, 0, 2], dtype=torch.uint8).view(1, 3, 1, 1).expand(2, 3, 4, 4)
    settings = AugmentSettings(flips=("left_right",), flip_probability=1.0)
    mirrored, labels = augment_patches(image, label, settings, "sagittal", _generator(), swapped=(0, 2, 1))
    assert mirrored[:, :, 0, 0].tolist() == [[4, 5, 2, 3, 0, 1], [10, 11, 8, 9, 6, 7]]
    assert labels[:, :, 0, 0].tolist() == [[1, 0, 2], [1, 0, 2]]  # reversed 2 0 1, then exchanged
    with_order_kept, _ = augment_patches(image, label, settings, "coronal", _generator())
    assert with_order_kept[:, :, 0, 0].tolist() == image[:, :, 0, 0].tolist()


def test_a_voxel_without_depth_is_refused():
    with pytest.raises(InputError, match=r"augment\.voxel_depth must be above 0, null .* got 0"):
        AugmentSettings(voxel_depth=0)
