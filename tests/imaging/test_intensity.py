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
    """A volume that starts with `values` and goes on with the last one."""
    image = np.full(SHAPE, values[-1], dtype=np.float32)
    image.flat[: len(values)] = values
    return image


def _mr():
    """Four voxels of background and 101 of signal, 1 … 101: their percentiles 1 and 99 are 2 and 100."""
    return np.concatenate([np.zeros(4), np.arange(1, 102)]).astype(np.float32).reshape(SHAPE)


def test_a_ct_window_by_hand():
    hu = _volume(-1000, -160, -60, 40, 140, 240, 3000)
    shown = normalise(hu, ABDOMEN, "ct")
    np.testing.assert_allclose(shown.flat[:7], [-1, -1, -0.5, 0, 0.5, 1, 1], atol=1e-6)
    assert shown.dtype == np.float32
    assert hu.flat[0] == -1000  # the caller's array is left alone


def test_mr_percentiles_leave_out_the_background_by_hand():
    shown = normalise(_mr(), MrPercentiles(1, 99), "mr")
    expected = np.clip((_mr() - 51) / 49, -1, 1)
    np.testing.assert_allclose(shown, expected, atol=1e-6)


def test_a_bright_artefact_does_not_dim_the_mr_image():
    bright = _mr()
    bright[bright == 101] = 1e6
    np.testing.assert_array_equal(
        normalise(bright, MrPercentiles(1, 99), "mr"), normalise(_mr(), MrPercentiles(1, 99), "mr")
    )


def test_an_mr_of_two_values_still_has_a_range():
    """Nearly all the signal is one value, so that both percentiles fall on it."""
    shown = normalise(_volume(0, 0, 7), MrPercentiles(1, 99), "mr")
    np.testing.assert_array_equal(np.unique(shown), [-1, 1])


def test_zscore_is_that_of_scipy_and_clipped():
    image = np.random.default_rng(0).normal(500, 80, SHAPE).astype(np.float32)
    expected = zscore(image.astype(np.float64), axis=None)
    assert np.abs(expected).max() > 2
    np.testing.assert_allclose(normalise(image, ZScore(clip=2.0), "mr"), np.clip(expected, -2, 2), atol=1e-5)


KINDS = pytest.mark.parametrize("intensity", [ABDOMEN, MrPercentiles(1, 99), ZScore(5)], ids=["ct", "mr", "zscore"])


@KINDS
def test_a_constant_volume_is_refused(intensity):
    with pytest.raises(InputError, match=r"ct\.nii\.gz: every voxel has the intensity -7"):
        normalise(_volume(-7), intensity, "ct.nii.gz")


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ((0, 1024, 4095), "from 0 to 4095 cannot be Hounsfield units"),
        ((0, 0.5, 1), "from 0 to 1 cannot be Hounsfield units"),
        ((-1, 0, 1), "from -1 to 1 cannot be Hounsfield units"),
        ((-5, 0, 1.7e6), r"from -5 to 1.7e+06 cannot be Hounsfield units"),
    ],
)
def test_a_ct_that_cannot_be_one_is_doubted_with_its_range(values, said):
    assert implausible_units([_volume(*values)], ABDOMEN).startswith(f"intensities {said} (")


def test_a_real_ct_is_not_doubted_nor_what_has_no_units(spleen_ct):
    assert implausible_units([read_image(spleen_ct / "image.nii.gz").array], ABDOMEN) is None
    assert implausible_units([_mr()], MrPercentiles(1, 99)) is None
    assert implausible_units([_mr()], ZScore(5)) is None


def test_the_first_doubtful_channel_is_told_by_its_number():
    ct, no_ct = _volume(-1000, 0, 400), _volume(0, 1024, 4095)
    assert implausible_units([ct, ct], ABDOMEN) is None
    assert implausible_units([ct, no_ct, no_ct], ABDOMEN).startswith("channel 1: intensities from 0 to 4095 ")


def test_a_map_by_hand_on_planes_of_any_shape():
    shown = IntensityMap(centre=100, scale=0.5, limit=3)(np.array([[90, 100], [104, 200]], dtype=np.int16))
    np.testing.assert_array_equal(shown, [[-3, 0], [2, 3]])  # -5 and 50 are clipped
    assert shown.dtype == np.float32


@KINDS
@pytest.mark.parametrize("dtype", [np.uint8, np.int16, ">i2", np.uint16, np.int32, np.float64])
def test_integers_give_what_the_same_intensities_give_as_floats(intensity, dtype):
    """Also those that a narrow integer could not hold: 200 - (-160) leaves uint8."""
    image = np.random.default_rng(1).integers(0, 250, SHAPE)
    shown = normalise(image.astype(dtype), intensity, "ct")
    assert shown.dtype == np.float32
    np.testing.assert_allclose(shown, normalise(image.astype(np.float32), intensity, "ct"), atol=1e-6)


@KINDS
def test_the_map_of_a_volume_does_not_hang_on_how_its_axes_lie_in_memory(intensity):
    image = np.random.default_rng(2).normal(40, 300, (23, 31, 17)).astype(np.float32)
    turned = np.asfortranarray(image[::-1, :, ::-1])[::-1, :, ::-1]
    first, second = (fit_intensity(volume, intensity, "ct") for volume in (image, turned))
    assert (first.centre, first.scale) == pytest.approx((second.centre, second.scale), rel=1e-12)


@KINDS
def test_a_part_is_mapped_as_in_its_volume(intensity):
    image = np.random.default_rng(3).normal(40, 300, SHAPE).astype(np.float32)
    part = fit_intensity(image, intensity, "ct")(image[1:3])
    np.testing.assert_array_equal(part, normalise(image, intensity, "ct")[1:3])
