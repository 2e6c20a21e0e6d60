import numpy as np
import pytest
from scipy.stats import zscore

from spleen.errors import InputError
from spleen.imaging.intensity import CtWindow, IntensityMap, MrPercentiles, ZScore, fit_intensity, implausible_units
from spleen.imaging.nifti import read_image
from tests._helpers.nifti import SHAPE

ABDOMEN = CtWindow(window_level=40, window_width=400)


def normalise(image, intensity, name):
    return fit_intensity(image, intensity, name)(image)


def _volume(*values):
    """A volume that starts with `values` and repeats the last one."""
    image = np.full(SHAPE, values[-1], dtype=np.float32)
    image.flat[: len(values)] = values
    return image


def _mr():
    """Four background voxels and 101 of signal, 1 … 101, whose percentiles 1 and 99 are 2 and 100."""
    return np.concatenate([np.zeros(4), np.arange(1, 102)]).astype(np.float32).reshape(SHAPE)


def test_a_ct_window_matches_hand_computed_values():
    hu = _volume(-1000, -160, -60, 40, 140, 240, 3000)
    mapped = normalise(hu, ABDOMEN, "ct")
    np.testing.assert_allclose(mapped.flat[:7], [-1, -1, -0.5, 0, 0.5, 1, 1], atol=1e-6)
    assert mapped.dtype == np.float32
    assert hu.flat[0] == -1000  # the caller's array is unchanged


def test_mr_percentiles_exclude_the_background():
    mapped = normalise(_mr(), MrPercentiles(1, 99), "mr")
    expected = np.clip((_mr() - 51) / 49, -1, 1)
    np.testing.assert_allclose(mapped, expected, atol=1e-6)


def test_a_bright_artefact_does_not_dim_the_mr_image():
    bright = _mr()
    bright[bright == 101] = 1e6
    np.testing.assert_array_equal(
        normalise(bright, MrPercentiles(1, 99), "mr"), normalise(_mr(), MrPercentiles(1, 99), "mr")
    )


def test_an_mr_image_with_two_values_is_still_scaled():
    """Nearly all the signal has one value, so both percentiles equal it."""
    mapped = normalise(_volume(0, 0, 7), MrPercentiles(1, 99), "mr")
    np.testing.assert_array_equal(np.unique(mapped), [-1, 1])


def test_zscore_matches_scipy_and_is_clipped():
    image = np.random.default_rng(0).normal(500, 80, SHAPE).astype(np.float32)
    expected = zscore(image.astype(np.float64), axis=None)
    assert np.abs(expected).max() > 2
    np.testing.assert_allclose(normalise(image, ZScore(clip=2.0), "mr"), np.clip(expected, -2, 2), atol=1e-5)


KINDS = pytest.mark.parametrize("intensity", [ABDOMEN, MrPercentiles(1, 99), ZScore(5)], ids=["ct", "mr", "zscore"])


@KINDS
def test_a_constant_volume_is_rejected(intensity):
    with pytest.raises(InputError, match=r"ct\.nii\.gz: every voxel has the intensity -7"):
        normalise(_volume(-7), intensity, "ct.nii.gz")


@pytest.mark.parametrize(
    ("values", "reported"),
    [
        ((0, 1024, 4095), "from 0 to 4095 cannot be Hounsfield units"),
        ((0, 0.5, 1), "from 0 to 1 cannot be Hounsfield units"),
        ((-1, 0, 1), "from -1 to 1 cannot be Hounsfield units"),
        ((-5, 0, 1.7e6), r"from -5 to 1.7e+06 cannot be Hounsfield units"),
    ],
)
def test_implausible_hu_are_reported_with_their_range(values, reported):
    assert implausible_units([_volume(*values)], ABDOMEN).startswith(f"intensities {reported} (")


def test_a_real_ct_and_unitless_images_are_plausible(spleen_ct):
    assert implausible_units([read_image(spleen_ct / "image.nii.gz").array], ABDOMEN) is None
    assert implausible_units([_mr()], MrPercentiles(1, 99)) is None
    assert implausible_units([_mr()], ZScore(5)) is None


def test_the_first_implausible_channel_is_reported_by_its_number():
    ct, not_ct = _volume(-1000, 0, 400), _volume(0, 1024, 4095)
    assert implausible_units([ct, ct], ABDOMEN) is None
    assert implausible_units([ct, not_ct, not_ct], ABDOMEN).startswith("channel 1: intensities from 0 to 4095 ")


def test_an_intensity_map_matches_hand_computed_values():
    mapped = IntensityMap(centre=100, scale=0.5, limit=3)(np.array([[90, 100], [104, 200]], dtype=np.int16))
    np.testing.assert_array_equal(mapped, [[-3, 0], [2, 3]])  # -5 and 50 are clipped
    assert mapped.dtype == np.float32


@KINDS
@pytest.mark.parametrize("dtype", [np.uint8, np.int16, ">i2", np.uint16, np.int32, np.float64])
def test_integer_and_float_voxels_are_mapped_equally(intensity, dtype):
    """Including differences that overflow a narrow integer: 200 - (-160) exceeds uint8."""
    image = np.random.default_rng(1).integers(0, 250, SHAPE)
    mapped = normalise(image.astype(dtype), intensity, "ct")
    assert mapped.dtype == np.float32
    np.testing.assert_allclose(mapped, normalise(image.astype(np.float32), intensity, "ct"), atol=1e-6)


@KINDS
def test_the_intensity_map_does_not_depend_on_the_memory_layout(intensity):
    image = np.random.default_rng(2).normal(40, 300, (23, 31, 17)).astype(np.float32)
    reordered = np.asfortranarray(image[::-1, :, ::-1])[::-1, :, ::-1]
    first, second = (fit_intensity(volume, intensity, "ct") for volume in (image, reordered))
    assert (first.centre, first.scale) == pytest.approx((second.centre, second.scale), rel=1e-12)


@KINDS
def test_a_subvolume_is_mapped_as_in_the_whole_volume(intensity):
    image = np.random.default_rng(3).normal(40, 300, SHAPE).astype(np.float32)
    part = fit_intensity(image, intensity, "ct")(image[1:3])
    np.testing.assert_array_equal(part, normalise(image, intensity, "ct")[1:3])
