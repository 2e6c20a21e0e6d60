from dataclasses import fields
from math import cos, sin
from pathlib import Path

import numpy as np
import pytest
import scipy.interpolate
import scipy.ndimage
import torch
import torch.nn.functional as F
from omegaconf import OmegaConf

from spleen.data.augmentation.augment import augment_batch
from spleen.data.augmentation.settings import AugmentSettings
from spleen.data.augmentation.spatial import sampling_grid, spline_displacement
from spleen.errors import InputError

AUGMENT_FILES = sorted((Path(__file__).parents[2] / "conf" / "augment").glob("*.yaml"))


def _generator(seed=0):
    return torch.Generator().manual_seed(seed)


def _preset(name):
    [file] = [file for file in AUGMENT_FILES if file.stem == name]
    values = OmegaConf.to_container(OmegaConf.load(file))
    return values | {"flips": tuple(values["flips"]), "voxel_depth": None}


def _bar(count, height, width, half_length, half_breadth):
    """``count`` copies of a centred bar, its long side along w, as an image and as its label map."""
    y = torch.arange(height).view(-1, 1) - (height - 1) / 2
    x = torch.arange(width) - (width - 1) / 2
    label = ((x.abs() <= half_length) & (y.abs() <= half_breadth)).to(torch.uint8)
    label = label.repeat(count, 1, 1, 1)
    return label.float(), label


def _moments(label):
    """Pixel count, centroid (h, w) and the two principal variances (pixels²) of one label map (h, w)."""
    points = label.nonzero().double()
    return len(points), points.mean(0), torch.linalg.eigvalsh(points.T.cov())


@pytest.mark.parametrize("file", AUGMENT_FILES, ids=lambda file: file.stem)
def test_every_shipped_preset_sets_every_field_and_runs(file):
    values = _preset(file.stem) | {"voxel_depth": 1.0}  # auto follows from the data
    assert list(values) == [field.name for field in fields(AugmentSettings)]
    image, label = _bar(4, 20, 32, 9, 4)
    changed, labels = augment_batch(image, label, AugmentSettings(**values), "coronal", _generator())
    assert changed.isfinite().all()
    assert (changed is image and labels is label) == (file.stem == "none")


def test_the_same_generator_state_gives_the_same_output_and_leaves_the_input_unchanged():
    image, label = _bar(6, 20, 32, 9, 4)
    before = image.clone(), label.clone()
    settings = AugmentSettings(**_preset("strong") | {"flips": ("left_right",)})
    first = augment_batch(image, label, settings, "axial", _generator(5))
    again = augment_batch(image, label, settings, "axial", _generator(5))
    other = augment_batch(image, label, settings, "axial", _generator(6))
    assert torch.equal(first[0], again[0])
    assert torch.equal(first[1], again[1])
    assert not torch.equal(first[0], other[0])
    assert torch.equal(image, before[0])
    assert torch.equal(label, before[1])
    assert first[1].dtype == torch.uint8


@pytest.mark.parametrize(
    ("axis", "direction", "flipped_dims"),
    [
        ("axial", "left_right", [3]),
        ("axial", "anterior_posterior", [2]),
        ("axial", "superior_inferior", []),
        ("coronal", "left_right", [3]),
        ("coronal", "superior_inferior", [2]),
        ("sagittal", "anterior_posterior", [3]),
        ("sagittal", "superior_inferior", [2]),
        ("sagittal", "left_right", []),
    ],
)
def test_a_flip_mirrors_only_its_anatomical_direction(axis, direction, flipped_dims):
    image = torch.arange(2 * 3 * 5 * 7.0).view(2, 3, 5, 7)
    label = torch.arange(2 * 5 * 7).view(2, 1, 5, 7)
    settings = AugmentSettings(flips=(direction,), flip_probability=1.0)
    changed, labels = augment_batch(image, label, settings, axis, _generator())
    assert torch.equal(changed, image.flip(flipped_dims))
    assert torch.equal(labels, label.flip(flipped_dims))


def test_each_sample_is_flipped_independently():
    image, label = _bar(40, 8, 12, 3, 2)
    image[:, :, 0, 0] = 9.0
    settings = AugmentSettings(flips=("left_right",), flip_probability=0.25)
    changed, _ = augment_batch(image, label, settings, "axial", _generator())
    flipped = int((changed[:, 0, 0, -1] == 9.0).sum())
    assert 3 <= flipped <= 18


def test_a_90_degree_rotation_of_a_non_square_image_matches_hand_computed_values():
    image = torch.zeros(1, 1, 5, 9)
    image[0, 0, 2, 3:7] = torch.tensor([1.0, 2.0, 3.0, 4.0])  # columns 3 to 6 of the centre row
    quarter = torch.tensor([[[0.0, -1.0], [1.0, 0.0]]])
    grid = sampling_grid(quarter, torch.zeros(1, 2), None, (5, 9))
    turned = F.grid_sample(image, grid, "bilinear", "border", align_corners=False)
    expected = torch.zeros(5, 9)
    # Output (row 2 + y, column 4 + x) reads input (row 2 + x, column 4 - y): the row ends up in column 4.
    expected[:, 4] = torch.tensor([4.0, 3.0, 2.0, 1.0, 0.0])
    torch.testing.assert_close(turned[0, 0], expected, atol=1e-5, rtol=0)


def test_an_integer_displacement_shifts_the_image_and_replicates_the_edge():
    image = torch.arange(3 * 5.0).view(1, 1, 3, 5)
    displacement = torch.stack([torch.full((3, 5), 2.0), torch.full((3, 5), 1.0)])[None]
    grid = sampling_grid(torch.eye(2)[None], torch.zeros(1, 2), displacement, (3, 5))
    moved = F.grid_sample(image, grid, "bilinear", "border", align_corners=False)
    expected = torch.tensor([[7.0, 8, 9, 9, 9], [12, 13, 14, 14, 14], [12, 13, 14, 14, 14]])
    torch.testing.assert_close(moved[0, 0], expected, atol=1e-4, rtol=0)


def test_affine_sampling_matches_scipy():
    generator = _generator(1)
    image = torch.randn(1, 1, 13, 22, generator=generator)
    angle, scale, shear, shift = 0.4, 1.2, 0.15, (2.5, -1.25)
    turn = np.array([[cos(angle), -sin(angle)], [sin(angle), cos(angle)]])
    matrix = turn @ np.array([[1, shear], [0, 1]]) / scale
    grid = sampling_grid(torch.tensor(matrix, dtype=torch.float32)[None], torch.tensor(shift)[None], None, (13, 22))
    ours = F.grid_sample(image, grid, "bilinear", "border", align_corners=False)[0, 0]
    # SciPy puts rows first and the origin at the first pixel.
    row_first = matrix[::-1, ::-1]
    centre = np.array([6.0, 10.5])
    offset = centre + np.array(shift[::-1]) - row_first @ centre
    expected = scipy.ndimage.affine_transform(image[0, 0].numpy(), row_first, offset, order=1, mode="nearest")
    np.testing.assert_allclose(ours.numpy(), expected, atol=1e-4)


def test_rotation_preserves_the_organ_shape_in_non_square_planes():
    image, label = _bar(24, 48, 72, 15, 6)
    settings = AugmentSettings(affine_probability=1.0, rotation_deg=90.0)
    _, labels = augment_batch(image, label, settings, "coronal", _generator())
    count, centre, variances = _moments(label[0, 0])
    for turned in labels[:, 0]:
        turned_count, turned_centre, turned_variances = _moments(turned)
        assert turned_count == pytest.approx(count, rel=0.04)
        torch.testing.assert_close(turned_centre, centre, atol=0.3, rtol=0)
        torch.testing.assert_close(turned_variances, variances, rtol=0.06, atol=0)
    upright = [len(turned.any(1).nonzero()) > 25 for turned in labels[:, 0]]
    assert any(upright)
    assert not all(upright)


def test_scale_and_translation_cover_their_range_without_exceeding_it():
    image, label = _bar(60, 60, 100, 10, 10)
    count, centre, _ = _moments(label[0, 0])
    settings = AugmentSettings(affine_probability=1.0, scale=0.5)
    _, scaled = augment_batch(image, label, settings, "axial", _generator())
    factors = torch.tensor([(_moments(sample)[0] / count) ** 0.5 for sample in scaled[:, 0]])
    assert 1 / 1.57 < factors.min() < 0.8
    assert 1.3 < factors.max() < 1.57
    settings = AugmentSettings(affine_probability=1.0, translation=0.2)
    _, moved = augment_batch(image, label, settings, "axial", _generator())
    shifts = torch.stack([(_moments(sample)[1] - centre).abs() for sample in moved[:, 0]]).amax(0)
    assert 9 < shifts[0] < 12.6
    assert 15 < shifts[1] < 20.6


def test_samples_not_selected_for_augmentation_stay_bit_identical():
    image, label = _bar(30, 20, 32, 9, 4)
    settings = AugmentSettings(affine_probability=0.5, rotation_deg=30.0)
    changed, labels = augment_batch(image, label, settings, "axial", _generator())
    image_same = (changed == image).flatten(1).all(1)
    label_same = (labels == label).flatten(1).all(1)
    assert 5 < image_same.sum() < 25
    assert label_same[image_same].all()


def test_an_organ_cut_off_by_the_edge_is_extended_equally_in_image_and_label():
    label = torch.zeros(20, 1, 24, 40, dtype=torch.int64)
    label[..., :13] = 1
    settings = AugmentSettings(affine_probability=1.0, translation=0.4, elastic_probability=0.5, elastic_amplitude=0.05)
    changed, labels = augment_batch(label.float(), label, settings, "axial", _generator())
    undecided = (changed - 0.5).abs() < 0.02
    assert torch.equal((changed > 0.5)[~undecided], labels.bool()[~undecided])
    # Only the border between organ and background has moved: every row that contains organ starts with it.
    assert (labels[..., 0] == labels.amax(-1)).all()


def test_no_new_label_values_appear_and_channels_are_transformed_together():
    label = torch.tensor([0, 3, 11]).repeat_interleave(10).expand(8, 1, 26, 30).contiguous()
    image = (label.float() / 11).repeat(1, 3, 1, 1).to(memory_format=torch.channels_last)
    settings = AugmentSettings(**_preset("strong") | {"elastic_probability": 1.0, "noise_probability": 0.0})
    changed, labels = augment_batch(image, label, settings, "axial", _generator())
    assert set(labels.unique().tolist()) == {0, 3, 11}
    assert not torch.equal(labels, label)
    assert torch.equal(changed[:, 0], changed[:, 1])
    assert torch.equal(changed[:, 0], changed[:, 2])
    assert changed.is_contiguous(memory_format=torch.channels_last)


def test_the_elastic_displacement_matches_scipys_cubic_spline():
    points = torch.randn(1, 2, 6, 8, generator=_generator(2))
    ours = spline_displacement(points, (17, 28), spacing_px=6.0)

    def spline(length, control):
        knots = 6.0 * (np.arange(len(control) + 4) - 3)
        return scipy.interpolate.BSpline(knots, control, 3)(np.arange(length))

    rows = spline(17, points[0].movedim(1, 0).double().numpy())
    expected = spline(28, np.moveaxis(rows, -1, 0))
    np.testing.assert_allclose(ours[0].numpy(), np.moveaxis(expected, 0, -1).swapaxes(0, 1), atol=1e-5)


def test_intensity_augmentations_do_what_their_names_say():
    image = torch.rand(40, 2, 9, 13, generator=_generator(9)) * 2 - 1
    label = torch.zeros(40, 1, 9, 13, dtype=torch.int64)

    def changed(**settings):
        result, labels = augment_batch(image, label, AugmentSettings(**settings), "axial", _generator())
        assert labels is label
        return result

    shift = changed(brightness_probability=1.0, brightness=0.3) - image
    torch.testing.assert_close(shift, shift[:, :1, :1, :1].expand_as(shift), atol=1e-6, rtol=0)
    assert 0.2 < shift.max() <= 0.3
    assert -0.3 <= shift.min() < -0.2

    stretched = changed(contrast_probability=1.0, contrast=0.5)
    torch.testing.assert_close(stretched.mean((1, 2, 3)), image.mean((1, 2, 3)), atol=1e-6, rtol=0)
    factor = stretched.std((1, 2, 3)) / image.std((1, 2, 3))
    assert 1 / 1.5001 < factor.min() < 0.8
    assert 1.3 < factor.max() < 1.5001

    curved = changed(gamma_probability=1.0, gamma=0.5)
    low, high = image.amin((1, 2, 3), keepdim=True), image.amax((1, 2, 3), keepdim=True)
    normalised, new_normalised = (image - low) / (high - low), (curved - low) / (high - low)
    inner = (normalised > 0.1) & (normalised < 0.9)
    exponent = new_normalised[inner].log() / normalised[inner].log()
    assert 1 / 1.51 < exponent.min() < 0.8
    assert 1.3 < exponent.max() < 1.51

    noise = changed(noise_probability=1.0, noise_std=0.1) - image
    assert noise.std((1, 2, 3)).max() < 0.12
    assert 0.04 < noise.std() < 0.075  # the root of the mean variance is 0.1 / √3 = 0.058


def test_low_resolution_blurs_detail_but_preserves_a_ramp():
    ramp = torch.linspace(-1, 1, 32).expand(12, 1, 24, 32)
    checkerboard = (torch.arange(24).view(-1, 1) + torch.arange(32)) % 2 * 2.0 - 1
    checkerboard = checkerboard.expand(12, 1, 24, 32)
    settings = AugmentSettings(low_resolution_probability=1.0, low_resolution_factor=3.0)
    label = torch.zeros(12, 1, 24, 32, dtype=torch.int64)
    smooth_ramp, _ = augment_batch(ramp, label, settings, "axial", _generator())
    smooth_checkerboard, _ = augment_batch(checkerboard, label, settings, "axial", _generator())
    assert (smooth_ramp - ramp)[..., 4:-4].abs().max() < 0.06
    assert smooth_checkerboard.abs().mean() < 0.4


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"flips": ("up",)}, "left_right, anterior_posterior, superior_inferior; got 'up'"),
        ({"noise_probability": 1.5}, "noise_probability must be between 0 and 1; got 1.5"),
        ({"rotation_deg": -5.0}, "rotation_deg must be at least 0; got -5.0"),
        ({"low_resolution_factor": 0.5}, "low_resolution_factor must be at least 1; got 0.5"),
        ({"elastic_amplitude": 0.2, "elastic_spacing": 0.25}, "may fold; got 0.2 and 0.25"),
    ],
)
def test_invalid_settings_are_rejected(settings, message):
    with pytest.raises(InputError, match=message):
        AugmentSettings(**settings)


@pytest.mark.parametrize("axis", ["axial", "coronal"])
def test_mirroring_swaps_left_and_right_classes(axis):
    """1 is the left organ, 2 the liver, 3 the right organ; columns run from the patient's left to right."""
    label = torch.tensor([[1, 1, 0, 2, 3], [0, 1, 0, 2, 2]], dtype=torch.uint8).view(1, 1, 2, 5)
    expected = torch.tensor([[1, 2, 0, 3, 3], [2, 2, 0, 3, 0]], dtype=torch.uint8).view(1, 1, 2, 5)
    settings = AugmentSettings(flips=("left_right",), flip_probability=1.0)
    changed, labels = augment_batch(label.float(), label, settings, axis, _generator(), (0, 3, 2, 1))
    assert torch.equal(changed, label.float().flip(3))
    assert torch.equal(labels, expected)
    assert labels.dtype == torch.uint8


@pytest.mark.parametrize(
    ("axis", "direction"),
    [("axial", "anterior_posterior"), ("coronal", "superior_inferior"), ("sagittal", "left_right")],
)
def test_a_flip_that_does_not_swap_left_and_right_keeps_the_classes(axis, direction):
    label = torch.tensor([[1, 1, 0, 2, 3], [0, 1, 0, 2, 2]], dtype=torch.uint8).view(1, 1, 2, 5)
    settings = AugmentSettings(flips=(direction,), flip_probability=1.0)
    _, labels = augment_batch(label.float(), label, settings, axis, _generator(), (0, 3, 2, 1))
    assert torch.equal(labels, label if axis == "sagittal" else label.flip(2))
