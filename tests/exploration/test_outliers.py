"""Outliers and duplicates, in datasets where they are known."""

from collections import Counter

import nibabel as nib
import numpy as np
import pytest
from scipy import stats

from spleen.exploration.explore import explore
from spleen.exploration.outliers import robust_scores
from tests._helpers.nifti import ras_affine, save, stored_as

SHAPE = (12, 11, 9)


def write_case(folder, name, seed, side=4, spacing_mm=(1.0, 1.0, 3.0), orientation="RAS", value=1, offset=0.0):
    """Write a CT-like image with a cube as its organ; every seed is a different patient."""
    rng = np.random.default_rng(seed)
    hu = np.full(SHAPE, -1000.0)
    hu[1:-1, 1:-1] = 40 + offset
    hu = np.rint(hu + rng.normal(0, 12, SHAPE)).astype(np.int16)
    label = np.zeros(SHAPE, np.uint8)
    label[3 : 3 + side, 3 : 3 + side, 2 : 2 + side] = value
    label[3, 3, 2] = 0 if seed % 2 else value  # so that the volumes are not all the same
    label[4, 3, 2] = 0 if seed % 3 else value
    for what, array in (("images", hu), ("labels", label)):
        (folder / what).mkdir(exist_ok=True)
        save(folder / what / f"{name}.nii.gz", *stored_as(orientation, array, ras_affine(spacing_mm)))


def explored(folder):
    return explore(folder / "images", folder / "labels")


def found_outliers(exploration):
    return {(outlier.case_id, outlier.quantity) for outlier in exploration.outliers}


def test_the_robust_z_score_matches_scipy_despite_an_extreme_value():
    values = np.array([10.0, 11, 9, 12, 10, 8, 11, 500])
    scores, rule = robust_scores(values, is_ratio=False)
    mad = stats.median_abs_deviation(values, scale="normal")
    assert rule == "z-score"
    assert scores == pytest.approx((values - np.median(values)) / mad, rel=1e-4)  # 0.6745 is 0.67449 rounded


def test_ratios_are_scored_on_a_log_scale():
    scores, _ = robust_scores(np.array([25.0, 50, 100, 200, 400]), is_ratio=True)
    assert scores == pytest.approx([-2 * 0.6745, -0.6745, 0, 0.6745, 2 * 0.6745])


def test_if_most_values_are_equal_the_limit_is_five_per_cent():
    scores, rule = robust_scores(np.array([1.0, 1, 1, 1.04, 1.06, np.nan, 0.9, 1, 1]), is_ratio=True)
    assert rule == "share one value"
    assert scores[[0, 3, 4, 6]].tolist() == [0, 0, np.inf, -np.inf]
    assert np.isnan(scores[5])


def test_the_rounding_of_headers_is_no_deviation():
    """Ten cases of 5 mm whose affines differ in the seventh digit, one of 5.001 mm and one of 6."""
    values = np.array([*(5 * (1 + 1e-6 * number) for number in range(-5, 5)), 5.001, 6.0])
    scores, rule = robust_scores(values, is_ratio=True)
    assert rule == "share one value"
    assert scores.tolist() == [0] * 11 + [np.inf]


def test_exactly_the_known_outliers_are_found(tmp_path):
    for number in range(14):
        write_case(tmp_path, f"case_{number:02}", number)
    write_case(tmp_path, "large", 20, side=7)
    write_case(tmp_path, "coarse", 21, spacing_mm=(1.0, 1.0, 5.0))
    write_case(tmp_path, "bright", 22, offset=300.0)
    write_case(tmp_path, "turned", 23, orientation="LPS")
    write_case(tmp_path, "other", 24, value=2)
    exploration = explored(tmp_path)
    marked = found_outliers(exploration)
    assert ("large", "label 1 volume") in marked
    assert ("coarse", "axial spacing") in marked
    assert ("bright", "body median") in marked
    assert ("turned", "orientation") in marked
    assert ("other", "label values") in marked
    assert {case_id for case_id, _ in marked} == {"large", "coarse", "bright", "turned", "other"}
    warning = next(finding for finding in exploration.verdict.findings if finding.topic == "outliers")
    assert "more" not in warning.message
    assert "large" in warning.message
    assert exploration.suggestion.case_id.startswith("case_")


def test_an_outlier_is_reported_with_its_value_and_the_usual_one(tmp_path):
    for number in range(6):
        write_case(tmp_path, f"case_{number}", number)
    write_case(tmp_path, "coarse", 21, spacing_mm=(1.0, 1.0, 5.0))
    (spacing,) = [outlier for outlier in explored(tmp_path).outliers if outlier.quantity == "axial spacing"]
    assert (spacing.case_id, spacing.value, spacing.robust_z) == ("coarse", 5.0, None)
    assert (spacing.shown, spacing.usual) == ("5 mm", "most: 3 mm")


def test_four_cases_are_too_few_for_outliers(tmp_path):
    for number in range(3):
        write_case(tmp_path, f"case_{number}", number)
    write_case(tmp_path, "large", 20, side=7)
    assert explored(tmp_path).outliers == ()


def test_distributions_match_numpy(tmp_path):
    for number in range(5):
        write_case(tmp_path, f"case_{number}", number)
    exploration = explored(tmp_path)
    volumes = [64 - (number % 2 > 0) - (number % 3 > 0) for number in range(5)]
    (volume,) = [each for each in exploration.distributions if each.name == "label 1 volume"]
    assert [value for _, value in volume.values] == pytest.approx([3.0 * count for count in volumes])
    expected = np.percentile(3.0 * np.array(volumes), [0, 25, 50, 75, 100])
    assert [volume.minimum, volume.p25, volume.median, volume.p75, volume.maximum] == pytest.approx(expected.tolist())


def test_duplicates_are_found_by_content_however_they_are_stored(tmp_path):
    for number in range(3):
        write_case(tmp_path, f"case_{number}", number)
    write_case(tmp_path, "renamed", 0)
    write_case(tmp_path, "reoriented", 0, orientation="PIR")
    image = nib.load(tmp_path / "images" / "case_0.nii.gz")
    as_float = nib.Nifti1Image(np.asarray(image.dataobj).astype(np.float32), image.affine)
    nib.save(as_float, tmp_path / "images" / "retyped.nii")
    write_case(tmp_path, "retyped", 0)
    (tmp_path / "images" / "retyped.nii.gz").unlink()
    groups = {group.what: set(group.case_ids) for group in explored(tmp_path).duplicates}
    assert groups == {"image": {"case_0", "renamed", "reoriented", "retyped"}}


def test_different_images_with_the_same_label_are_flagged(tmp_path):
    for number in range(3):
        write_case(tmp_path, f"case_{number}", number)
    label = (tmp_path / "labels" / "case_0.nii.gz").read_bytes()
    (tmp_path / "labels" / "case_2.nii.gz").write_bytes(label)
    exploration = explored(tmp_path)
    assert [(group.what, group.case_ids) for group in exploration.duplicates] == [("label", ("case_0", "case_2"))]
    assert exploration.verdict.n_errors == 0
    assert "duplicate label" in Counter(finding.topic for finding in exploration.verdict.findings)


def test_mr_outliers_depend_on_contrast_but_not_on_intensity_scale(tmp_path):
    rng = np.random.default_rng(7)
    for number in range(12):
        signal = rng.gamma(6, 60, SHAPE) * (1000 if number == 3 else 1)
        if number == 8:
            signal[0, :4] *= 9
        save(tmp_path / f"mr_{number:02}.nii.gz", signal.astype(np.float32), ras_affine())
    exploration = explore(tmp_path)
    assert found_outliers(exploration) == {("mr_08", "body 99.5 % ÷ median")}
    assert "intensity scale" in [finding.topic for finding in exploration.verdict.findings]
