"""Facts about one case, each checked against a hand-computed value or another library."""

import math

import nibabel as nib
import numpy as np
import pytest

from spleen.data.modality import guess_modality
from spleen.exploration.facts.case import explore_case
from spleen.exploration.facts.header import NOT_SET
from spleen.exploration.facts.intensity import (
    bin_edges,
    clip_level,
    full_edges,
    histogram,
    intensity_facts,
    spread_of,
)
from spleen.exploration.inputs import CaseFiles
from tests._helpers.nifti import ORIENTATIONS, SHAPE, SPACING_MM, box, counting, ras_affine, save, save_stored_as


def facts_of(image, label=None, organ=()):
    return explore_case(CaseFiles("case", image, label), organ)


def topics(case, severity):
    return [finding.topic for finding in case.findings if finding.severity == severity]


@pytest.mark.parametrize("dtype", [np.int16, np.float32])
def test_swapped_image_and_label_are_an_error(tmp_path, dtype):
    random = np.random.default_rng(0)
    intensities = save(tmp_path / "ct.nii", random.normal(-200, 400, (20, 22, 18)).astype(dtype), ras_affine())
    label = save(tmp_path / "label.nii", box((20, 22, 18)).astype(np.uint8), ras_affine())
    assert "image and label swapped" in topics(facts_of(label, intensities), "error")
    assert "image and label swapped" not in topics(facts_of(intensities, label), "error")


# Header -------------------------------------------------------------------------------------------------------------


def test_type_bits_scaling_units_and_shape_are_read_from_the_header(tmp_path):
    nifti = nib.Nifti1Image(counting(dtype=np.int16), ras_affine())
    nifti.header.set_slope_inter(2.5, -1000)
    nifti.header.set_xyzt_units("mm", "msec")
    nib.save(nifti, tmp_path / "ct.nii")
    header = facts_of(tmp_path / "ct.nii").image_header
    assert (header.format, header.shape, header.data_type, header.bits_per_voxel) == ("NIfTI-1", SHAPE, "int16", 16)
    assert (header.scl_slope, header.scl_inter) == (2.5, -1000)
    assert (header.spatial_unit, header.temporal_unit) == ("mm", "msec")
    assert header.file_bytes == 352 + 2 * 5 * 7 * 3


def test_missing_units_are_shown_as_not_set_with_a_warning(tmp_path):
    case = facts_of(save(tmp_path / "ct.nii", counting(dtype=np.int16), ras_affine()))
    assert (case.image_header.spatial_unit, case.image_header.temporal_unit) == (NOT_SET, NOT_SET)
    assert "spatial unit not set" in topics(case, "warning")


def test_a_code_for_units_without_a_meaning_is_a_warning_as_in_a_training(tmp_path):
    nifti = nib.Nifti1Image(counting(dtype=np.int16), ras_affine())
    nifti.header["xyzt_units"] = 7
    nib.save(nifti, tmp_path / "ct.nii")
    case = facts_of(tmp_path / "ct.nii")
    assert case.image_header.spatial_unit == "unknown code 7"
    assert topics(case, "error") == []
    assert "spatial unit not set" in topics(case, "warning")


@pytest.mark.parametrize("orientation", ORIENTATIONS)
def test_planes_are_found_from_the_affine_in_every_orientation(tmp_path, orientation):
    case = facts_of(save_stored_as(tmp_path / "ct.nii", orientation, counting()))
    geometry = case.image_header.geometry
    assert geometry.orientation == orientation
    for plane, size, spacing, letters in zip(geometry.planes, SHAPE, SPACING_MM, ("RL", "AP", "SI"), strict=True):
        assert orientation[plane.array_axis] in letters
        assert (plane.n_slices, plane.spacing_mm) == (size, pytest.approx(spacing))
    assert geometry.plane("coronal").pixel_mm == pytest.approx((5.0, 0.8))
    assert geometry.plane("axial").pixel_mm == pytest.approx((0.8, 0.8))


def test_metres_are_converted_to_millimetres(tmp_path):
    nifti = nib.Nifti1Image(counting(), np.diag([0.002, 0.003, 0.004, 1.0]))
    nifti.header.set_xyzt_units("meter")
    nib.save(nifti, tmp_path / "ct.nii")
    case = facts_of(tmp_path / "ct.nii")
    assert case.image_header.geometry.spacing_mm == pytest.approx((2, 3, 4))
    assert "unit other than mm" in topics(case, "warning")


def test_the_angle_of_an_oblique_grid_is_reported(tmp_path):
    angle = math.radians(20)
    turn = np.array([[math.cos(angle), -math.sin(angle), 0], [math.sin(angle), math.cos(angle), 0], [0, 0, 1]])
    affine = np.eye(4)
    affine[:3, :3] = turn @ np.diag(SPACING_MM)
    case = facts_of(save(tmp_path / "ct.nii", counting(), affine))
    assert case.image_header.geometry.oblique_degrees == pytest.approx(20, abs=1e-3)
    assert case.image_header.geometry.shear_degrees == pytest.approx(0, abs=1e-3)
    assert "oblique grid" in topics(case, "warning")


def test_the_angle_of_a_sheared_grid_is_reported(tmp_path):
    affine = np.eye(4)
    affine[1, 2] = math.tan(math.radians(10))  # the third axis leans by ten degrees, as with a tilted gantry
    nifti = nib.Nifti1Image(counting(), affine)
    nib.save(nifti, tmp_path / "ct.nii")
    case = facts_of(tmp_path / "ct.nii")
    assert case.image_header.geometry.shear_degrees == pytest.approx(10, abs=1e-3)
    assert "sheared grid" in topics(case, "warning")


def test_the_distance_between_sform_and_qform_is_measured_at_the_farthest_corner(tmp_path):
    nifti = nib.Nifti1Image(counting(), None)
    nifti.set_sform(np.diag([1.0, 1.0, 1.0, 1.0]), 1)
    nifti.set_qform(np.diag([1.0, 1.0, 1.5, 1.0]), 2)
    nib.save(nifti, tmp_path / "ct.nii")
    case = facts_of(tmp_path / "ct.nii")
    geometry = case.image_header.geometry
    assert (geometry.sform_code, geometry.qform_code) == (1, 2)
    assert geometry.form_distance_mm == pytest.approx(0.5 * 2)  # 0.5 mm per plane, at the last of three planes
    assert "sform and qform disagree" in topics(case, "warning")
    assert "pixdim disagrees with the affine" in topics(case, "warning")


def test_a_file_without_sform_and_qform_gives_a_warning(tmp_path):
    nib.save(nib.Nifti1Image(counting(), None), tmp_path / "ct.nii")
    case = facts_of(tmp_path / "ct.nii")
    assert case.image_header.geometry.form_distance_mm is None
    assert "neither sform nor qform set" in topics(case, "warning")


def test_a_singular_affine_is_an_error_and_other_facts_are_kept(tmp_path):
    affine = np.diag([1.0, 1.0, 0.0, 1.0])
    nifti = nib.Nifti1Image(counting(), None)
    nifti.set_sform(affine, 1)
    nib.save(nifti, tmp_path / "ct.nii")
    case = facts_of(tmp_path / "ct.nii")
    assert topics(case, "error") == ["damaged affine"]
    assert case.image_header.shape == SHAPE
    assert case.image_header.geometry is None


def test_a_4d_file_is_an_error_and_its_header_is_still_reported(tmp_path):
    nib.save(nib.Nifti1Image(np.zeros((5, 7, 3, 2), np.int16), ras_affine()), tmp_path / "ct.nii")
    case = facts_of(tmp_path / "ct.nii")
    assert topics(case, "error") == ["image cannot be used"]
    assert case.image_header.shape == (5, 7, 3, 2)
    assert case.image_header.geometry.plane("axial").n_slices == 3


# Intensities --------------------------------------------------------------------------------------------------------


def test_percentiles_mean_and_standard_deviation_match_numpy():
    values = np.sort(np.random.default_rng(1).normal(40, 15, 3_000_001).astype(np.float32))
    spread = spread_of(values)
    expected = np.percentile(values.astype(np.float64), [0, 0.5, 5, 25, 50, 75, 95, 99.5, 100])
    found = [spread.minimum, spread.p0_5, spread.p5, spread.p25, spread.median]
    found += [spread.p75, spread.p95, spread.p99_5, spread.maximum]
    assert found == pytest.approx(expected.tolist(), rel=1e-6)
    assert spread.mean == pytest.approx(values.mean(dtype=np.float64))
    assert spread.standard_deviation == pytest.approx(values.std(dtype=np.float64))


@pytest.mark.parametrize("whole", [True, False])
def test_the_histogram_matches_numpy(whole):
    values = np.random.default_rng(2).normal(0, 300, 20_001)
    values = np.sort(np.rint(values) if whole else values).astype(np.float32)
    edges = bin_edges(values, float(values[100]), float(values[-100]))
    counts, _ = np.histogram(values, edges)
    assert list(histogram(values, edges).counts) == counts.tolist()
    assert len(counts) <= 64
    assert edges[0] <= values[100]
    assert edges[-1] >= values[-100]


def test_each_bin_of_integers_covers_the_same_number_of_values():
    values = np.sort(np.tile(np.arange(100, 200, dtype=np.float32), 5))  # flat: every number five times
    found = histogram(values, bin_edges(values, 100, 199))
    assert (found.low, found.high) == (99.5, 199.5)
    assert set(found.counts) == {10}  # two numbers each


@pytest.mark.parametrize("outlier", [None, 500_000.0, -3e38, 3.4e38])
def test_the_histogram_of_the_whole_image_holds_every_voxel(outlier):
    values = np.random.default_rng(2).normal(0, 300, 20_001)
    values = np.sort(np.append(values, [] if outlier is None else [outlier])).astype(np.float32)
    edges = full_edges(values, bin_edges(values, float(values[100]), float(values[-100])))
    found = histogram(values, edges)
    assert sum(found.counts) == len(values)
    assert len(found.counts) <= 64
    assert list(found.counts) == np.histogram(values.astype(np.float64), edges)[0].tolist()


def test_bins_of_the_whole_image_hold_the_same_count_of_whole_numbers():
    values = np.sort(np.tile(np.arange(-300, 300, dtype=np.float32), 3))
    found = histogram(values, full_edges(values, bin_edges(values, 0, 99)))
    assert set(found.counts[1:-1]) == {3 * found.bin_width}


def test_a_constant_image_has_one_bin_with_all_of_it():
    facts = intensity_facts(np.full((2, 3, 4), 7, np.int16), None)
    assert sum(facts.whole_histogram.counts) == 24


def test_nan_and_inf_are_counted_and_excluded(tmp_path):
    array = counting()
    array[0, 0, 0], array[1, 1, 1], array[2, 2, 2] = np.nan, np.inf, -np.inf
    case = facts_of(save(tmp_path / "ct.nii", array, ras_affine()))
    assert case.intensity.n_not_finite == 3
    assert case.intensity.whole.n_voxels == array.size - 3
    assert case.intensity.whole.maximum == array.size - 1
    assert topics(case, "error") == ["NaN or Inf"]


def test_an_image_of_only_nan_has_no_intensities(tmp_path):
    case = facts_of(save(tmp_path / "ct.nii", np.full(SHAPE, np.nan, np.float32), ras_affine()))
    assert case.intensity is None
    assert topics(case, "error") == ["NaN or Inf"]


def test_a_constant_image_is_an_error(tmp_path):
    case = facts_of(save(tmp_path / "ct.nii", np.full(SHAPE, 7, np.int16), ras_affine()))
    assert topics(case, "error") == ["constant image"]
    assert case.intensity.body.n_voxels == 105


def test_the_clip_level_is_half_the_median_of_the_values_above_it():
    # 60 voxels of air at 0 … 5, 40 of tissue at 100: the median above is 100, half of it 50.
    values = np.sort(np.concatenate([np.tile(np.arange(6.0), 10), np.full(40, 100.0)]))
    assert clip_level(values) == 50.0
    # Relative to the smallest value: the same image, shifted by −10 (0 → −10, 100 → 90).
    assert clip_level(values - 10) == 40.0


def test_the_body_of_a_ct_is_everything_above_minus_500_hu(tmp_path):
    hu = np.full((6, 7, 8), -1000, np.int16)
    hu[:3] = np.arange(-20, 148).reshape(3, 7, 8)
    hu[0, 0, 0] = -500
    facts = facts_of(save(tmp_path / "ct.nii", hu, ras_affine())).intensity
    assert facts.modality == "CT"
    assert facts.body.n_voxels == 3 * 7 * 8 - 1
    assert facts.body_rule == "> −500 HU"


def test_organ_intensities_are_read_under_a_label_stored_in_another_orientation(tmp_path):
    label = box()
    image = save_stored_as(tmp_path / "ct.nii", "LPS", counting())
    case = facts_of(image, save_stored_as(tmp_path / "label.nii", "SAR", label))
    inside = counting()[label == 1].astype(np.float64)
    organ = case.intensity.organ
    assert (organ.n_voxels, organ.minimum, organ.maximum) == (len(inside), inside.min(), inside.max())
    assert (organ.mean, organ.median) == (pytest.approx(inside.mean()), pytest.approx(np.median(inside)))


def _with_air(tissue, air=-1000.0, air_fraction=0.6):
    rng = np.random.default_rng(4)
    count = int(air_fraction / (1 - air_fraction) * len(tissue))
    return np.sort(np.concatenate([tissue, rng.normal(air, 10, count)]))


TISSUE = np.random.default_rng(5).normal(40, 40, 2000)


@pytest.mark.parametrize(
    ("values", "modality"),
    [
        (_with_air(TISSUE), "CT"),
        (np.clip(_with_air(TISSUE), -160, 240), "CT"),  # clipped to a window
        (np.abs(_with_air(TISSUE * 10, air=5.0)), "MR"),
        (np.sort(TISSUE - TISSUE.mean()) / TISSUE.std(), "unknown"),  # z-scored
        (np.linspace(0, 1, 500), "unknown"),  # scaled to 0 … 1
        (np.sort(np.append(_with_air(TISSUE, air=-1000.0) + 1024, 2500.0)).clip(0), "unknown"),  # CT stored too high
        (np.full(9, 3.0), "unknown"),
    ],
)
def test_the_modality_is_guessed_only_from_conclusive_values(values, modality):
    guess, reason = guess_modality(values)
    assert guess == modality
    assert reason


def test_a_ct_stored_1024_too_high_is_recognised():
    values = np.sort(np.append(_with_air(TISSUE) + 1024, 2500.0)).clip(0)
    assert "CT stored 1,024 too high" in guess_modality(values)[1]


def test_intensity_facts_of_a_single_voxel():
    facts = intensity_facts(np.full((1, 1, 1), 5, np.float32), np.array([5], np.float32))
    assert facts.organ.median == 5
