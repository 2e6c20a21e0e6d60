"""Grids with a sheared affine (tilted gantry), and pairs of files rotated by nearly 45°."""

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from spleen.data.cases import Case
from spleen.data.store.store import open_case
from spleen.evaluation.evaluate import evaluate
from spleen.exploration.explore import explore
from spleen.imaging.classes import ClassMap
from spleen.imaging.geometry import (
    distance_axes_mm,
    plane_distances_mm,
    reorient_to_ras,
    shear_degrees,
    voxel_volume_mm3,
)
from spleen.imaging.intensity import CtWindow
from spleen.imaging.native import read_native
from spleen.imaging.preprocessing import Preprocessing
from spleen.inference.model import load_model
from spleen.inference.predict import predict
from tests._helpers.nifti import save, stored_as
from tests._helpers.small_run import SPACING_MM, small_ct
from tests._helpers.trained_runs import BRIGHT, trained, voxels

DEGREES = 20.0
# Columns (0.8, 0, 0), (0, 0.9, 0) and (0, 5 tan 20°, 5): parallel planes every 5 mm, shifted along the second axis.
SHEARED = np.diag([0.8, 0.9, 5.0, 1.0])
SHEARED[1, 2] = 5.0 * np.tan(np.radians(DEGREES))
VOLUME_MM3 = 0.8 * 0.9 * 5.0  # shear does not change a volume


def preprocessing(axis: str = "axial") -> Preprocessing:
    return Preprocessing(axis, 16, "keep_aspect", 4, CtWindow(50, 400), ClassMap(("organ",), ((1,),)), 0.1)


def files(folder: Path, affine: np.ndarray = SHEARED) -> tuple[Path, Path, np.ndarray]:
    """An image, its label of 4 × 3 × 2 voxels, and the label's array."""
    label = np.zeros((12, 10, 6), np.uint8)
    label[3:7, 4:7, 2:4] = 1
    hu = np.where(label, 100.0, -50.0).astype(np.float32)
    hu[0, 0, 0] = -1000
    return save(folder / "image.nii.gz", hu, affine), save(folder / "label.nii.gz", label, affine), label


def test_the_voxel_volume_is_the_determinant_and_plane_distances_are_perpendicular() -> None:
    assert voxel_volume_mm3(SHEARED) == pytest.approx(VOLUME_MM3)
    assert shear_degrees(SHEARED) == pytest.approx(DEGREES)
    assert plane_distances_mm(SHEARED) == pytest.approx((0.8, 0.9 * np.cos(np.radians(DEGREES)), 5.0))
    rotated = nib.affines.from_matvec(nib.eulerangles.euler2mat(0.3, 0.2, -0.4)) @ SHEARED
    assert voxel_volume_mm3(rotated) == pytest.approx(VOLUME_MM3)
    assert plane_distances_mm(rotated) == pytest.approx(plane_distances_mm(SHEARED))
    unsheared = nib.affines.from_matvec(nib.eulerangles.euler2mat(0.3, 0.2, -0.4)) @ np.diag([0.8, 0.9, 5.0, 1.0])
    np.testing.assert_allclose(distance_axes_mm(unsheared), np.diag([0.8, 0.9, 5.0]), atol=1e-12)


def test_training_prediction_and_exploration_agree_on_the_volume(tmp_path: Path) -> None:
    image, label, array = files(tmp_path)
    expected_mm3 = np.count_nonzero(array) * VOLUME_MM3
    case = open_case(Case("c", (image,), label), preprocessing(), tmp_path / "cache")
    assert case.volumes_mm3 == pytest.approx((expected_mm3,), rel=1e-5)
    assert case.voxel_volume_mm3 == pytest.approx(VOLUME_MM3, rel=1e-5)
    assert case.spacing_mm[0] == pytest.approx(5.0, rel=1e-5)  # between the planes, not along the tilted axis
    assert read_native(image).voxel_volume_mm3 == pytest.approx(VOLUME_MM3, rel=1e-5)
    (facts,) = explore(image, label).cases
    assert facts.organ_volume_mm3 == pytest.approx(expected_mm3, rel=1e-5)
    assert [plane.spacing_mm for plane in facts.image_header.geometry.planes][2] == pytest.approx(5.0, rel=1e-5)
    (score,) = evaluate(label, label).scores
    assert score.volume_reference_mm3 == pytest.approx(expected_mm3, rel=1e-5)


def test_a_predicted_volume_uses_the_sheared_voxel_volume(tmp_path_factory, tmp_path: Path, caplog) -> None:
    run = trained(tmp_path_factory, "axial", *BRIGHT, "axis=axial", "split.guard_mm=1")
    ct = small_ct(tmp_path)
    affine = np.diag([*SPACING_MM, 1.0])
    affine[1, 2] = SPACING_MM[2] * np.tan(np.radians(DEGREES))
    image = save(tmp_path / "tilted.nii.gz", ct.hu, affine)
    report = predict(run, image, tmp_path / "mask.nii.gz")
    expected_mm3 = np.count_nonzero(voxels(tmp_path / "mask.nii.gz")) * np.prod(SPACING_MM)
    assert expected_mm3 > 0
    assert report.cases[0].confidence[0].volume_mm3 == pytest.approx(expected_mm3, rel=1e-5)
    assert "two array axes are 20.0° from perpendicular" in caplog.text
    in_memory = load_model(run).predict(ct.hu, affine)
    assert in_memory.volumes_mm3 == {"bright": pytest.approx(expected_mm3, rel=1e-5)}


def test_surface_distances_are_measured_in_world_coordinates(tmp_path: Path) -> None:
    _, label, array = files(tmp_path)
    moved = save(tmp_path / "moved.nii.gz", np.roll(array, (0, 0, 1), (0, 1, 2)), SHEARED)
    (score,) = evaluate(moved, label).scores
    # Brute force over all pairs of surface voxels (every voxel of so thin a block), in world coordinates.
    points = [nib.affines.apply_affine(SHEARED, np.argwhere(a)) for a in (np.roll(array, 1, 2), array)]
    distances = np.linalg.norm(points[0][:, None] - points[1][None], axis=2)
    nearest = np.concatenate([distances.min(1), distances.min(0)])
    assert score.hausdorff_mm == pytest.approx(nearest.max(), rel=1e-5)
    assert score.average_surface_distance_mm == pytest.approx(nearest.mean(), rel=1e-5)
    assert nearest.max() == pytest.approx(5 / np.cos(np.radians(DEGREES)), rel=1e-4)  # only the voxel directly below
    assert np.median(nearest[nearest > 0]) < 5.1  # other distances are nearly perpendicular


@pytest.mark.parametrize("axis", ["sagittal", "coronal", "axial"])
def test_nearly_equal_affines_at_45_degrees_are_the_same_grid(axis: str, tmp_path: Path) -> None:
    def rotated(degrees: float) -> np.ndarray:
        return nib.affines.from_matvec(nib.eulerangles.euler2mat(np.radians(degrees), 0, 0)) @ np.diag([0.8, 0.9, 1, 1])

    below, above = rotated(45 - 1e-3), rotated(45 + 1e-3)
    assert nib.aff2axcodes(below) != nib.aff2axcodes(above)  # so each file alone would be reoriented differently
    array = np.arange(12 * 10 * 6, dtype=np.float32).reshape(12, 10, 6)
    _, _, label = files(tmp_path)
    image = save(tmp_path / "image.nii.gz", array, below)
    same, other = save(tmp_path / "same.nii.gz", label, below), save(tmp_path / "other.nii.gz", label, above)
    expected = open_case(Case("c", (image,), same), preprocessing(axis), tmp_path / "cache")
    found = open_case(Case("c", (image,), other), preprocessing(axis), tmp_path / "cache")
    np.testing.assert_array_equal(found.reference, expected.reference)
    (score,) = evaluate(other, same).scores
    assert score.dice == 1
    assert explore(image, other).cases[0].is_sound
    two = read_native(image, save(tmp_path / "second.nii.gz", array, above), n_channels=2)
    np.testing.assert_array_equal(two.channels[0], two.channels[1])


def test_image_and_label_in_different_orientations_are_aligned(tmp_path: Path) -> None:
    image, _, label = files(tmp_path)
    array, affine = stored_as("PIL", label, SHEARED)
    other = save(tmp_path / "other.nii.gz", array, affine)
    case = open_case(Case("c", (image,), other), preprocessing(), tmp_path / "cache")
    ras, _ = reorient_to_ras(label, SHEARED)
    np.testing.assert_array_equal(np.asarray(case.reference), ras.transpose(2, 1, 0))
