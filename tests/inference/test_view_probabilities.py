"""One network applied to one volume, with networks whose output is known."""

from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.ndimage import zoom
from torch import Tensor, nn

from spleen.errors import InputError
from spleen.imaging.slicing import FLIP_DIRECTIONS, to_slices
from spleen.inference.settings import PredictSettings
from spleen.inference.views import probabilities as inference
from spleen.inference.views.build import make_views
from spleen.inference.views.probabilities import n_slices, view_probabilities
from spleen.inference.views.tta import Variant, variants
from spleen.system.hardware import choose_hardware
from tests._helpers.handmade import CPU, PLAIN, Places, Pointwise, image_of, intensities, model, probability

SHAPE = (7, 9, 5)
# The longest side of the planes of SHAPE, so that slices are not resized.
SIZES = {"axial": 9, "coronal": 7, "sagittal": 9}
AXES = pytest.mark.parametrize("axis", SIZES)
# The array axis of a RAS volume along which a direction runs.
ALONG = {"left_right": 0, "anterior_posterior": 1, "superior_inferior": 2}
ACROSS = {"sagittal": "left_right", "coronal": "anterior_posterior", "axial": "superior_inferior"}


def batch(height: int = 11, width: int = 14) -> torch.Tensor:
    return torch.randn(2, 3, height, width, generator=torch.Generator().manual_seed(0))


def collect(trained, image, tta_variants=PLAIN, batch_size: int = 2) -> tuple[list[slice], np.ndarray]:
    """The slice range of each step, and all probabilities as (variant, class, i, j, k)."""
    parts, planes = zip(*view_probabilities(trained, image, "ct", tta_variants, CPU, batch_size), strict=True)
    stack = torch.cat(planes, dim=1).movedim(1, 2).numpy()  # variant, class, n, H, W
    back = np.argsort({"sagittal": (0, 2, 1), "coronal": (1, 2, 0), "axial": (2, 1, 0)}[trained.preprocessing.axis])
    return list(parts), stack.transpose(0, 1, *(2 + back))


# Variants -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("shift", "rows", "columns"),
    [
        ((3, 0), [0, 0, 0, 0, 1, 2, 3, 4], range(6)),
        ((-3, 0), [3, 4, 5, 6, 7, 7, 7, 7], range(6)),
        ((0, 2), range(8), [0, 0, 0, 1, 2, 3]),
        ((1, -2), [0, 0, 1, 2, 3, 4, 5, 6], [2, 3, 4, 5, 5, 5]),
    ],
)
def test_a_shift_moves_the_slice_and_repeats_its_edge(shift: tuple[int, int], rows, columns) -> None:
    planes = batch(8, 6)
    expected = planes[:, :, list(rows)][:, :, :, list(columns)]
    assert torch.equal(Variant(shift=shift).apply(planes), expected)


def test_a_flip_mirrors_the_given_axis() -> None:
    planes = batch()
    np.testing.assert_array_equal(Variant((2,)).apply(planes), planes.numpy()[:, :, ::-1])
    np.testing.assert_array_equal(Variant((3,)).apply(planes), planes.numpy()[:, :, :, ::-1])
    assert Variant().apply(planes) is planes


@AXES
def test_undoing_a_variant_restores_the_slice_away_from_its_edges(axis: str) -> None:
    planes = batch()
    margin = 3
    for variant in variants(axis, FLIP_DIRECTIONS):
        back = variant.undo(variant.apply(planes))
        inner = (..., slice(margin, -margin), slice(margin, -margin))
        assert torch.equal(back[inner], planes[inner]), variant
        if variant.shift == (0, 0):
            assert torch.equal(back, planes)


def test_a_combined_shift_and_flip_is_undone() -> None:
    planes = batch()
    variant = Variant((3,), (2, -1))
    inner = (..., slice(3, -3), slice(3, -3))
    assert torch.equal(variant.undo(variant.apply(planes))[inner], planes[inner])


@AXES
@pytest.mark.parametrize("direction", FLIP_DIRECTIONS)
def test_a_flip_direction_is_anatomical_and_mirrors_only_planes_that_contain_it(axis: str, direction: str) -> None:
    volume = np.arange(np.prod(SHAPE), dtype=np.float32).reshape(SHAPE)
    mirrored = [variant for variant in variants(axis, [direction]) if variant.flipped_dims]
    if ACROSS[axis] == direction:
        assert mirrored == []
        return
    (variant,) = mirrored
    shown = variant.apply(torch.from_numpy(np.ascontiguousarray(to_slices(volume, axis)))[:, None])[:, 0]
    np.testing.assert_array_equal(shown, to_slices(np.flip(volume, ALONG[direction]), axis))


@AXES
def test_variants_are_the_unchanged_slice_four_shifts_and_the_requested_flips(axis: str) -> None:
    plain = variants(axis, ())
    assert plain[0] == Variant()
    assert {variant.shift for variant in plain[1:]} == {(3, 0), (-3, 0), (0, 3), (0, -3)}
    assert all(not variant.flipped_dims for variant in plain)
    every = variants(axis, FLIP_DIRECTIONS)
    assert [variant.flipped_dims for variant in every[len(plain) :]] == [(2,), (3,), (2, 3)]
    assert variants(axis, [*FLIP_DIRECTIONS, "left_right"]) == every  # a direction given twice is used once


def test_an_unknown_flip_direction_is_reported() -> None:
    with pytest.raises(InputError, match="a flip must be among left_right, anterior_posterior, superior_inferior; got"):
        variants("axial", ["up_down"])


# Probabilities ------------------------------------------------------------------------------------------------------


@AXES
@pytest.mark.parametrize("batch_size", [1, 2, 5, 100])
def test_every_slice_is_predicted_once_and_in_order(tmp_path: Path, axis: str, batch_size: int) -> None:
    array = intensities(SHAPE)
    image = image_of(tmp_path / "ct.nii", array)
    trained = model(Pointwise([2.0, -1.0], [0.5, 0.0]), axis, SIZES[axis], ("a", "b"))
    parts, found = collect(trained, image, batch_size=batch_size)
    count = to_slices(array, axis).shape[0]
    assert n_slices(trained, image) == count
    assert [index for part in parts for index in range(part.start, part.stop)] == list(range(count))
    assert max(part.stop - part.start for part in parts) == min(batch_size, count)
    exponentials = np.exp([np.zeros(SHAPE), 2 * array + 0.5, -array])
    np.testing.assert_allclose(found[0], (exponentials / exponentials.sum(0))[1:], atol=1e-6)


@AXES
def test_context_slices_are_the_neighbours_and_repeat_the_last_slice_at_the_ends(tmp_path: Path, axis: str) -> None:
    array = intensities(SHAPE)
    image = image_of(tmp_path / "ct.nii", array)
    along = ALONG[ACROSS[axis]]
    for channel, offset in ((0, -1), (1, 0), (2, 1)):
        trained = model(Pointwise([3.0], [0.0], channel), axis, SIZES[axis], context=1)
        _, found = collect(trained, image)
        count = SHAPE[along]
        neighbour = np.take(array, np.clip(np.arange(count) + offset, 0, count - 1), axis=along)
        np.testing.assert_allclose(found[0, 0], probability(neighbour, 3.0), atol=1e-6)


@AXES
def test_rows_and_columns_of_a_slice_run_in_the_documented_directions(tmp_path: Path, axis: str) -> None:
    """The output depends on position only; `spleen.imaging.slicing` documents the directions."""
    image = image_of(tmp_path / "ct.nii", intensities(SHAPE))
    _, found = collect(model(Places(), axis, SIZES[axis]), image)
    i, j, k = np.indices(SHAPE)
    down, right = {"axial": (j, i), "coronal": (k, i), "sagittal": (k, j)}[axis]
    np.testing.assert_allclose(found[0, 0], probability(right - 2 * down, 1.0), atol=1e-6)


def test_the_output_of_each_variant_is_mapped_back_to_the_unchanged_slice(tmp_path: Path) -> None:
    """By hand, for an output that depends on position only: a mirrored ramp is reversed; a shift is undone."""
    image = image_of(tmp_path / "ct.nii", intensities(SHAPE))
    tta_variants = (Variant(), Variant((3,)), Variant(shift=(0, 3)), Variant(shift=(-3, 0)))
    _, found = collect(model(Places(), "axial", SIZES["axial"]), image, tta_variants)
    i, j, _ = np.indices(SHAPE)
    for mapped, (down, right) in zip(
        found[:, 0], [(j, i), (j, 6 - i), (j, np.minimum(i + 3, 6)), (np.maximum(j - 3, 0), i)], strict=True
    ):
        np.testing.assert_allclose(mapped, probability(right - 2 * down, 1.0), atol=1e-6)


def test_a_pointwise_network_predicts_the_same_for_every_variant(tmp_path: Path) -> None:
    image = image_of(tmp_path / "ct.nii", intensities(SHAPE))
    _, found = collect(model(Pointwise([4.0], [0.0]), "axial", 9), image, variants("axial", FLIP_DIRECTIONS))
    assert len(found) == 8
    for mirrored in found[5:]:
        np.testing.assert_allclose(mirrored, found[0], atol=1e-6)
    for shifted in found[1:5]:  # except for the three pixels that a shift pushes out
        np.testing.assert_allclose(shifted[:, 3:-3, 3:-3], found[0][:, 3:-3, 3:-3], atol=1e-6)
        assert np.abs(shifted - found[0]).max() > 0.1


class Side(nn.Module):
    """Bright pixels are an organ: class 1 (left) in the first half of the columns, class 2 (right) in the second."""

    def forward(self, image: Tensor) -> Tensor:
        bright = image[:, :1]
        first = torch.arange(image.shape[3]) < image.shape[3] / 2
        return torch.cat([torch.zeros_like(bright), *(bright.where(half, -9) * 20 for half in (first, ~first))], dim=1)


@pytest.mark.parametrize("axis", ["axial", "coronal"])
def test_flips_swap_left_and_right_classes(tmp_path: Path, axis: str) -> None:
    """For a network that tells sides by position alone, both variants give each organ its own side, voxel by voxel.

    The columns run along the first array axis; their first half is class 1.
    """
    organs = np.zeros(SHAPE, np.uint8)
    organs[1:3, 2:7, 1:4], organs[5, 3:6, 2] = 1, 2
    array = np.where(organs > 0, 1.0, -1.0)
    trained = model(Side(), axis, SIZES[axis], ("left_kidney", "right_kidney"))
    tta_variants = make_views([trained], PredictSettings(tta=True, flips=("left_right",)))[0].variants
    (mirrored,) = [variant for variant in tta_variants if variant.flipped_dims]
    for variant in (Variant(), mirrored):
        _, found = collect(trained, image_of(tmp_path / "ct.nii", array), [variant])
        for index in (1, 2):
            np.testing.assert_array_equal(found[0, index - 1] > 0.5, organs == index)


def test_left_right_flips_are_refused_for_a_class_without_a_counterpart() -> None:
    settings = PredictSettings(tta=True, flips=("left_right",))
    with pytest.raises(InputError, match=r"axial cannot be mirrored: left_right mirrors the class 'left_atrium'"):
        make_views([model(Side(), "axial", 9, ("left_atrium", "liver"))], settings)
    make_views([model(Side(), "sagittal", 9, ("left_atrium", "liver"))], settings)  # not in a sagittal plane
    trained = model(Side(), "axial", 9, ("left_atrium", "liver"))
    spec = replace(trained.spec, trained_flips=("left_right",))  # by an earlier version, without swapping
    (view,) = make_views([replace(trained, spec=spec)], PredictSettings(tta=True))
    assert [variant for variant in view.variants if variant.flipped_dims] == [Variant((3,))]


def test_what_is_left_and_right_is_told_by_the_names_of_the_training() -> None:
    """Renamed for a prediction, two kidneys are mirrored as before; what the training took for one thing stays one."""
    settings = PredictSettings(tta=True, flips=("left_right",))
    kidneys = model(Side(), "axial", 9, ("left_kidney", "right_kidney"))
    (expected,) = make_views([kidneys], settings)
    renamed = model(Side(), "axial", 9, ("Linke_Niere", "Rechte_Niere"))
    (view,) = make_views([replace(renamed, names_before=kidneys.classes.names)], settings)
    assert view.variants == expected.variants != make_views([renamed], settings)[0].variants


def test_slices_of_another_size_are_resampled_and_the_output_resampled_back(tmp_path: Path) -> None:
    """A ramp is upsampled by 2 for the network and its output downsampled; SciPy agrees away from the edges."""
    array = np.broadcast_to(np.linspace(-1, 1, 16)[:, None, None], (16, 12, 3))
    image = image_of(tmp_path / "ct.nii", array)
    _, found = collect(model(Pointwise([1.0], [0.0]), "axial", 32), image)
    fine = zoom(array[:, :, 0], 2, order=1, mode="nearest", grid_mode=True)
    expected = probability(fine, 1.0).reshape(16, 2, 12, 2).mean((1, 3))
    np.testing.assert_allclose(found[0, 0, 2:-2, 2:-2, 1], expected[2:-2, 2:-2], atol=2e-3)


def test_the_batch_size_is_limited_by_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two classes of 7 × 9 pixels in 4 bytes take 504 bytes per slice and variant."""
    image = image_of(tmp_path / "ct.nii", intensities((7, 9, 11)))
    trained = model(Pointwise([1.0], [0.0]), "axial", 9)
    for limit, variant_count, slices_at_once in ((504 * 5, 1, 5), (504 * 5, 2, 2), (1, 1, 1), (10**9, 1, 8)):
        monkeypatch.setattr(inference, "_STEP_BYTES", limit)
        parts, _ = collect(trained, image, PLAIN * variant_count, batch_size=8)
        assert parts[0] == slice(0, slices_at_once)
        assert all(first.stop == second.start for first, second in pairwise(parts))


def test_a_constant_image_is_reported(tmp_path: Path) -> None:
    image = image_of(tmp_path / "ct.nii", np.full(SHAPE, 0.5))
    with pytest.raises(InputError, match=r"ct: every voxel has the intensity 0\.5"):
        collect(model(Pointwise([1.0], [0.0]), "axial", 9), image)


# Hardware -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("precision", "autocast"), [("32", None), ("bf16", torch.bfloat16)])
def test_the_cpu_computes_in_fp32_or_bf16(precision: str, autocast: torch.dtype | None) -> None:
    hardware = choose_hardware("cpu", precision)
    assert (hardware.device.type, hardware.autocast) == ("cpu", autocast)


def test_unavailable_hardware_is_reported_with_the_options_of_the_command() -> None:
    with pytest.raises(InputError, match=r"precision=16 needs a CUDA GPU"):
        choose_hardware("cpu", "16")
    if not torch.backends.mps.is_available():
        with pytest.raises(InputError, match=r"^--device mps: .* use --device cpu$"):
            choose_hardware("mps", "32")
    if not torch.cuda.is_available():
        with pytest.raises(InputError, match=r"^--device gpu: .* use --device cpu$"):
            choose_hardware("gpu", "32")


def test_bf16_is_used_on_request(tmp_path: Path) -> None:
    """A convolution under autocast computes in bf16, which rounds 1 + 2⁻¹⁰ to 1."""
    layer = torch.nn.Conv2d(1, 2, 1)
    with torch.no_grad():
        layer.weight[:] = torch.tensor([0.0, 1 + 2**-10])[:, None, None, None]
        layer.bias.zero_()
    array = intensities(SHAPE)
    image = image_of(tmp_path / "ct.nii", array)
    trained = model(layer, "axial", 9)
    outputs = [
        next(view_probabilities(trained, image, "ct", PLAIN, choose_hardware("cpu", precision), 9))[1][0, 0, 0]
        for precision in ("32", "bf16")
    ]
    first = to_slices(array, "axial")[0]
    np.testing.assert_allclose(outputs[0], probability(first, 1 + 2**-10), atol=1e-7)
    np.testing.assert_allclose(outputs[1], probability(first, 1.0), atol=1e-7)
