"""The synthetic CT: its geometry, its spleen, and what makes it hard to segment."""

import nibabel as nib
import numpy as np
import pytest
from scipy import ndimage

from spleen.data.phantom.render import Phantom, filled_fraction, make_phantom
from spleen.errors import InputError

SPLEEN_MM3 = 96_672


@pytest.fixture(scope="module")
def phantom() -> Phantom:
    return make_phantom(matrix=128, seed=0)


@pytest.fixture(scope="module")
def noiseless() -> Phantom:
    return make_phantom(matrix=128, seed=0, noise_hu=0.0)


@pytest.fixture(scope="module")
def small() -> Phantom:
    return make_phantom(matrix=48, n_slices=30, seed=0)


def spleen_mm3(phantom: Phantom) -> float:
    i, j, k = np.diag(phantom.affine)[:3]
    return float(np.count_nonzero(phantom.label) * i * j * k)


def world_mm(phantom: Phantom, where: np.ndarray) -> np.ndarray:
    return nib.affines.apply_affine(phantom.affine, np.argwhere(where))


def test_geometry_matches_the_reference_scan(phantom: Phantom):
    assert phantom.hu.shape == phantom.label.shape == (128, 128, 90)
    assert phantom.hu.dtype == np.int16
    assert phantom.label.dtype == np.uint8
    # 512 · 0.794922 mm across 128 voxels, 450 mm across 90 slices.
    np.testing.assert_allclose(np.diag(phantom.affine), [3.179688, 3.179688, 5.0, 1.0])
    assert nib.aff2axcodes(phantom.affine) == ("R", "A", "S")
    assert phantom.affine[:3, :3].sum() == np.diag(phantom.affine)[:3].sum()


def test_fewer_slices_cover_the_same_field_of_view(small: Phantom):
    assert small.hu.shape == (48, 48, 30)
    np.testing.assert_allclose(small.affine[2, 2], 15.0)
    np.testing.assert_allclose(small.affine[0, 0] * 48, 0.794922 * 512)


def test_spleen_is_one_component_with_the_reference_volume(phantom: Phantom):
    assert spleen_mm3(phantom) == pytest.approx(SPLEEN_MM3, rel=0.04)
    assert ndimage.label(phantom.label, np.ones((3, 3, 3)))[1] == 1


@pytest.mark.slow
def test_full_matrix_spleen_volume():
    phantom = make_phantom(matrix=512)
    np.testing.assert_allclose(np.diag(phantom.affine)[:3], [0.794922, 0.794922, 5.0])
    assert spleen_mm3(phantom) == pytest.approx(SPLEEN_MM3, rel=0.03)


def test_the_same_seed_gives_identical_bytes(small: Phantom):
    again = make_phantom(matrix=48, n_slices=30, seed=0)
    assert again.hu.tobytes() == small.hu.tobytes()
    assert again.label.tobytes() == small.label.tobytes()


def test_another_seed_gives_another_patient_and_hu_stay_in_range(small: Phantom):
    other = make_phantom(matrix=48, n_slices=30, seed=7, noise_hu=200.0)
    assert (other.label != small.label).sum() > 0.1 * small.label.sum()
    assert spleen_mm3(other) == pytest.approx(SPLEEN_MM3, rel=0.15)
    # Noise this strong exceeds the HU range, where a scanner clips.
    assert other.hu.min() == -1024
    assert other.hu.max() <= 3071


def test_a_seed_gives_the_same_patient_at_every_matrix_size(phantom: Phantom, small: Phantom):
    assert spleen_mm3(small) == pytest.approx(spleen_mm3(phantom), rel=0.1)
    centres = [world_mm(p, p.label == 1).mean(axis=0) for p in (small, phantom)]
    np.testing.assert_allclose(centres[0], centres[1], atol=2.0)


def test_spleen_is_left_posterior_and_below_the_diaphragm(phantom: Phantom):
    body = ndimage.binary_opening(phantom.hu > -300, iterations=2)
    spleen, trunk = world_mm(phantom, phantom.label == 1), world_mm(phantom, body)
    middle = np.median(trunk, axis=0)
    # RAS+: x increases to the patient's right, y to anterior, z to superior.
    assert spleen[:, 0].max() < middle[0] - 40
    assert spleen[:, 1].mean() < middle[1]
    assert 60 < np.ptp(spleen[:, 2]) < 130
    # Lung extends above its upper pole, but no further than 80 mm below its lower pole.
    lung = ndimage.binary_opening((phantom.hu > -950) & (phantom.hu < -700), iterations=2)
    left_lung = world_mm(phantom, lung & (np.arange(128) < 58)[:, None, None])
    assert left_lung[:, 2].max() > spleen[:, 2].max() + 50
    assert left_lung[:, 2].min() > spleen[:, 2].min() - 80


def test_liver_is_on_the_right(phantom: Phantom):
    # The largest component in the liver's HU range, after smoothing the noise.
    smooth = ndimage.gaussian_filter(phantom.hu.astype(np.float32), 1.0)
    component_labels, _ = ndimage.label(ndimage.binary_opening((smooth > 92) & (smooth < 122), iterations=3))
    largest = np.bincount(component_labels.ravel())[1:].argmax() + 1
    liver = world_mm(phantom, component_labels == largest)
    assert liver[:, 0].mean() > 30
    assert 0.8e6 < len(liver) * np.prod(np.diag(phantom.affine)[:3]) < 2.2e6


def test_a_threshold_cannot_segment_the_spleen(phantom: Phantom):
    spleen = phantom.label == 1
    low, high = np.percentile(phantom.hu[spleen], [5, 95])
    within = (phantom.hu >= low) & (phantom.hu <= high)
    assert (within & ~spleen).sum() > 20 * (within & spleen).sum()
    # Nor can a narrow one around the median, which excludes fat and muscle.
    near = np.abs(phantom.hu - np.median(phantom.hu[spleen])) < 10
    assert (near & ~spleen).sum() > 10 * (near & spleen).sum()


def test_border_voxels_show_partial_volume_and_interior_voxels_do_not(noiseless: Phantom):
    spleen = noiseless.label == 1
    inside = ndimage.binary_erosion(spleen, iterations=2)
    rim = spleen & ~ndimage.binary_erosion(spleen)
    low, high = np.percentile(noiseless.hu[inside], [2, 98])
    assert 90 < low < high < 135
    # Partial-volume voxels, with values between fat and spleen.
    mixed = (noiseless.hu > -60) & (noiseless.hu < 70)
    assert (mixed & rim).sum() > 0.15 * rim.sum()


def test_filled_fraction_at_a_flat_border_is_the_fraction_below_it():
    # Slices of 5 mm, and a floor at 2.3 slices: slice 2 reaches from 1.5 to 2.5, so 0.8 of it lies below.
    k = np.arange(6, dtype=np.float32)
    distance = np.broadcast_to(5 * (k - 2.3), (7, 5, 6)).astype(np.float32)
    np.testing.assert_allclose(filled_fraction(distance)[3, 2], [1, 1, 0.8, 0, 0, 0], atol=1e-3)


def test_filled_fraction_of_a_ball_adds_up_to_its_volume():
    # Radius 22 mm on a 2 × 2 × 5 mm grid: 4/3 π 22³ = 44,602 mm³.
    x, y, z = np.meshgrid(np.arange(-30, 31, 2.0), np.arange(-28, 29, 2.0), np.arange(-35, 36, 5.0), indexing="ij")
    ball = (np.sqrt(x**2 + y**2 + z**2) - 22).astype(np.float32)
    assert filled_fraction(ball).sum() * 20 == pytest.approx(44_602, rel=0.02)


def test_noise_has_the_requested_standard_deviation_and_is_correlated_in_plane(phantom: Phantom, noiseless: Phantom):
    noise = (phantom.hu.astype(float) - noiseless.hu)[32:96, 40:88, :]
    assert noise.std() == pytest.approx(12, rel=0.25)

    def correlation(a: np.ndarray, b: np.ndarray) -> float:
        return float(np.corrcoef(a.ravel(), b.ravel())[0, 1])

    assert correlation(noise[1:], noise[:-1]) > 0.1
    assert correlation(noise[:, 1:], noise[:, :-1]) > 0.1
    assert abs(correlation(noise[..., 1:], noise[..., :-1])) < 0.02


@pytest.mark.parametrize(
    "invalid",
    [{"matrix": 31}, {"matrix": 513}, {"n_slices": 15}, {"seed": -1}, {"noise_hu": -1.0}, {"noise_hu": float("nan")}],
)
def test_invalid_arguments_are_named_in_the_message(invalid: dict[str, float]):
    ((name, _),) = invalid.items()
    with pytest.raises(InputError, match=name):
        make_phantom(**invalid)
