"""Patches and levels of a 3D network that follow from the data; expected values by hand."""

import pytest

from spleen.config.checking.checks import check
from spleen.config.datasets import find_dataset
from spleen.config.patches import complete_patches, plan_levels, plan_patch
from spleen.errors import InputError
from tests._helpers.many_cases import many_cases
from tests._helpers.small_run import compose_config


def test_axes_of_fine_voxels_are_halved_first_and_coarse_ones_not_convolved() -> None:
    # mm: 5 0.8 0.8 → 5 1.6 1.6 → 5 3.2 3.2, now all within a factor of 2 → 10 6.4 6.4 → 20 12.8 12.8
    levels = plan_levels((5.0, 0.8, 0.8), (20, 160, 160))
    assert levels.kernels == ((1, 3, 3), (1, 3, 3), (3, 3, 3), (3, 3, 3), (3, 3, 3))
    assert levels.strides == ((1, 1, 1), (1, 2, 2), (1, 2, 2), (2, 2, 2), (2, 2, 2))
    assert levels.multiple == (4, 16, 16)


def test_isotropic_voxels_are_halved_while_eight_are_left() -> None:
    # 40 56 40 → 20 28 20 → 10 14 10 → 5 7 5
    levels = plan_levels((1.0, 1.0, 1.0), (40, 56, 40))
    assert levels.kernels == ((3, 3, 3),) * 4
    assert levels.strides == ((1, 1, 1), (2, 2, 2), (2, 2, 2), (2, 2, 2))


def test_a_short_axis_stops_alone() -> None:
    # 8 32 32 → 4 16 16 → 4 8 8 → 4 4 4
    levels = plan_levels((1.0, 1.0, 1.0), (8, 32, 32))
    assert levels.strides == ((1, 1, 1), (2, 2, 2), (1, 2, 2), (1, 2, 2))


def test_a_tiny_patch_has_one_level() -> None:
    assert plan_levels((1.0, 1.0, 1.0), (4, 7, 7)).strides == ((1, 1, 1),)


def test_a_small_grid_is_one_patch_and_a_large_one_is_cut_to_a_cube_in_mm() -> None:
    assert plan_patch((35, 50, 36), (1.0, 1.0, 1.0)) == (35, 50, 36)
    assert plan_patch((200, 300, 400), (1.0, 1.0, 1.0), 40**3) == (40, 40, 40)
    # 90 slices of 4 mm are 360 mm; a cube of 160 mm has 40 × 80 × 80 voxels.
    assert plan_patch((90, 200, 200), (4.0, 2.0, 2.0), 40 * 80 * 80) == (40, 80, 80)
    # A thin slab stays whole, and the other sides get what it leaves.
    assert plan_patch((10, 200, 200), (1.0, 1.0, 1.0), 10 * 50 * 50) == (10, 50, 50)


@pytest.fixture(scope="module")
def cases(tmp_path_factory: pytest.TempPathFactory):
    """Cases of 24 × 20 × 8 voxels of 1.5 × 1.25 × 3 mm."""
    return many_cases(tmp_path_factory.mktemp("cases"), 3)


def _completed(cases, *overrides: str):
    config = compose_config(*cases.decathlon, "axis=axial", "img_size=native", "intensity=ct", *overrides)
    check(config)
    return complete_patches(config, find_dataset(config).cases)


def test_what_is_left_open_is_written_into_the_configuration(cases) -> None:
    config = _completed(cases, "model=unet3d")
    # mm: 3 1.25 1.5 → the slices are coarse; 8 20 24 → 8 10 12 with 3 2.5 3 mm → 4 5 6.
    network = config.model.network
    assert network["kernel_size"] == [[1, 3, 3], [3, 3, 3], [3, 3, 3]]
    assert network["strides"] == [[1, 1, 1], [1, 2, 2], [2, 2, 2]]
    assert network["filters"] == [16, 32, 64]
    assert config.crop_size == [8, 20, 24]
    assert config.context_slices == 0
    assert config.augment["voxel_depth"] == pytest.approx(3 / 1.375, abs=1e-4)  # pixels of 1.25 × 1.5 mm
    assert complete_patches(config, ()) == config  # as read from a record, without looking at the files again


def test_dynunet_gets_the_same_levels(cases) -> None:
    network = _completed(cases, "model=monai_dynunet3d", "model.network.filters=[4,8,8]").model.network
    assert network["strides"] == [[1, 1, 1], [1, 2, 2], [2, 2, 2]]
    assert network["upsample_kernel_size"] == [[1, 2, 2], [2, 2, 2]]
    assert network["filters"] == [4, 8, 8]


def test_given_strides_decide_what_a_patch_is_a_multiple_of(cases) -> None:
    strides = "model.network.strides=[1,[1,2,2],[1,2,2],[2,2,2]]"
    config = _completed(cases, "model=monai_dynunet3d", strides)
    assert config.crop_size == [8, 24, 24]
    assert config.model.network["kernel_size"] == [[1, 3, 3], [3, 3, 3], [3, 3, 3], [3, 3, 3]]
    assert config.model.network["upsample_kernel_size"] == [[1, 2, 2], [1, 2, 2], [2, 2, 2]]
    assert config.model.network["filters"] == [16, 32, 64, 128]
    for model in ("unet3d", "monai_dynunet3d"):
        with pytest.raises(InputError, match=r"multiples of \[2, 8, 8\], such as \[8, 24, 24\]"):
            _completed(cases, f"model={model}", strides, "crop_size=[8,20,24]")


def test_a_2d_network_stays_as_it_is(cases) -> None:
    config = compose_config(*cases.decathlon)
    assert complete_patches(config, ()) is config


def test_a_patch_that_cannot_be_halved_is_refused_with_one_that_can(cases) -> None:
    with pytest.raises(InputError, match=r"crop_size=\[8, 18, 24\] .* multiples of \[2, 4, 4\], such as \[8, 20, 24\]"):
        _completed(cases, "model=unet3d", "crop_size=[8,18,24]")


def test_pixels_in_a_box_that_is_not_known_yet_are_asked_for(cases) -> None:
    given = ("model=unet3d", "roi_from=coarse", "img_size=32", "crop_size=[8,16,16]")
    with pytest.raises(InputError, match=r"use img_size=native, or give crop_size and model\.network\.kernel_size, "):
        _completed(cases, *given)
    levels = "model.network.kernel_size=[[3,3,3]]", "model.network.strides=[1]", "model.network.filters=[4]"
    assert _completed(cases, *given, *levels).crop_size == [8, 16, 16]


def test_slices_much_finer_than_pixels_are_advised_against(cases, caplog: pytest.LogCaptureFixture) -> None:
    _completed(cases, "model=unet3d", "axis=coronal", "img_size=16", "resize=stretch")
    assert not caplog.text
    # 20 slices of 1.25 mm, with planes of 36 × 24 mm on 16 × 16 pixels at least 1.5 mm; on 8 pixels they would be 3 mm.
    config = compose_config(
        *cases.decathlon, "axis=coronal", "model=unet3d", "resize=stretch", "img_size=8", "intensity=ct"
    )
    complete_patches(config, find_dataset(config).cases)
    assert "the coronal slices are 1.25 mm apart, but their pixels are 3 mm" in caplog.text


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (("model=unet3d", "crop_size=32"), r"three whole numbers \[slices,height,width\].*; got 32"),
        (("model=unet3d", "crop_size=[8,16]"), r"three whole numbers .*; got \[8, 16\]"),
        (("model=unet3d", "crop_size=[8,16,0]"), r"three whole numbers .*; got \[8, 16, 0\]"),
        (("model=unet3d", "crop_size=[8,16,1.5]"), r"three whole numbers .*; got \[8, 16, 1.5\]"),
        (("crop_size=[8,16,16]",), r"patches of several slices need a 3D network, such as model=unet3d"),
        (("model=unet3d", "model.dimensions=4"), "model.dimensions must be one of 2, 3; got '4'"),
    ],
)
def test_wrong_patches_are_refused(overrides: tuple[str, ...], message: str) -> None:
    with pytest.raises(InputError, match=message):
        check(compose_config(*overrides))
