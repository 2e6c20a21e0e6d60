"""Voxels above a value, counted by SciPy and placed by nibabel's affine."""

import nibabel as nib
import numpy as np
import pytest
from nibabel.affines import apply_affine
from scipy import ndimage

from spleen.exploration.facts.above import AboveFacts
from spleen.exploration.facts.case import explore_case
from spleen.exploration.inputs import CaseFiles
from tests._helpers.nifti import ORIENTATIONS, ras_affine, save, save_stored_as


def above(path, value: float) -> AboveFacts:
    facts = explore_case(CaseFiles("case", path, None), (), value).above
    assert facts is not None
    return facts


def test_an_outlier_is_found_where_it_was_put(tmp_path):
    """One voxel of 500,001 and two of 600,000 that touch by a corner, in a grid of 0.8 × 0.8 × 5 mm."""
    array = np.zeros((5, 7, 3), np.float32)
    array[4, 6, 2] = 500_001
    array[0, 1, 0] = array[1, 2, 1] = 600_000
    array[3, 3, 1] = 500_000  # not above
    facts = above(save(tmp_path / "a.nii", array, ras_affine()), 500_000)
    assert (facts.n_voxels, facts.n_components) == (3, 2)
    assert facts.largest is not None
    assert (facts.largest.n_voxels, facts.largest.first, facts.largest.last) == (2, (0, 1, 0), (1, 2, 1))
    assert facts.largest.centre_mm == pytest.approx((-31 + 0.4, 12.5 + 1.2, 40 + 2.5))
    assert [(place.value, place.voxel) for place in facts.highest] == [
        (600_000, (0, 1, 0)), (600_000, (1, 2, 1)), (500_001, (4, 6, 2)),
    ]  # fmt: skip
    assert facts.highest[2].position_mm == pytest.approx((-31 + 3.2, 12.5 + 4.8, 50))


@pytest.mark.parametrize("orientation", ORIENTATIONS[::5])
def test_numbers_and_places_agree_with_scipy_and_nibabel_in_any_orientation(tmp_path, orientation):
    array = np.random.default_rng(2).normal(0, 100, (11, 13, 7)).astype(np.float32)
    path = save_stored_as(tmp_path / "a.nii", orientation, array, ras_affine((1.5, 2.0, 4.0)))
    facts = above(path, 120)
    stored = nib.load(path)
    values = np.asarray(stored.dataobj)
    labels, n_components = ndimage.label(values > 120, np.ones((3, 3, 3)))
    sizes = np.bincount(labels.ravel())[1:]
    assert (facts.n_voxels, facts.n_components) == ((values > 120).sum(), n_components)
    assert facts.largest is not None
    assert facts.largest.n_voxels == sizes.max()
    if (sizes == sizes.max()).sum() == 1:
        component = np.argwhere(labels == 1 + sizes.argmax())
        assert (facts.largest.first, facts.largest.last) == (tuple(component.min(0)), tuple(component.max(0)))
        centre = apply_affine(stored.affine, component.mean(0))
        assert facts.largest.centre_mm == pytest.approx(centre, abs=1e-3)
    highest = np.sort(values, axis=None)[: -len(facts.highest) - 1 : -1]
    assert [place.value for place in facts.highest] == highest.tolist()
    assert len(facts.highest) == 5
    for place in facts.highest:
        assert values[place.voxel] == place.value
        assert place.position_mm == pytest.approx(apply_affine(stored.affine, place.voxel), abs=1e-3)


@pytest.mark.parametrize("value", [7.0, 1e30, 1e300])
def test_nothing_above(tmp_path, value):
    facts = above(save(tmp_path / "a.nii", np.arange(8.0).reshape(2, 2, 2), ras_affine()), value)
    assert facts == AboveFacts(value, 0, 0, None, ())


def test_nan_and_infinity_are_not_counted(tmp_path):
    array = np.array([np.nan, np.inf, -np.inf, 5, 9, 1, 2, 3]).reshape(2, 2, 2)
    facts = above(save(tmp_path / "a.nii", array, ras_affine()), 4)
    assert [place.value for place in facts.highest] == [9, 5]


def test_of_a_saturated_image_five_voxels_are_listed(tmp_path):
    facts = above(save(tmp_path / "a.nii", np.full((4, 5, 6), 3071.0), ras_affine()), 3000)
    assert (facts.n_voxels, facts.n_components, len(facts.highest)) == (120, 1, 5)


def test_without_a_value_nothing_is_looked_for(tmp_path):
    path = save(tmp_path / "a.nii", np.arange(8.0).reshape(2, 2, 2), ras_affine())
    assert explore_case(CaseFiles("case", path, None)).above is None
