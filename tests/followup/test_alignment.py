"""Where an organ has grown and shrunk, once a scan lies on the first one."""

from datetime import date
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from spleen.followup.alignment import AlignedScan, Failed, aligned_scans, change_map
from spleen.followup.pictures import draw_scan
from spleen.followup.protocol import protocol_warnings
from spleen.followup.scans import Scan
from spleen.imaging.nifti import write_volume
from tests._helpers.two_scans import AFFINE, SPACING_MM, body

pytest.importorskip("SimpleITK")
VOXEL_ML = np.prod(SPACING_MM) / 1000


def save(
    folder: Path, day: str, image: np.ndarray, label: np.ndarray, affine: np.ndarray = AFFINE
) -> tuple[Scan, Path]:
    image_path, mask_path = folder / f"{day}.nii.gz", folder / f"{day}_mask.nii.gz"
    write_volume(image_path, image, affine)
    write_volume(mask_path, label, affine)
    return Scan("a", date.fromisoformat(day), (image_path,)), mask_path


def test_the_map_of_changes_by_hand() -> None:
    before = np.array([[[True, True, False, False]]])
    after = np.array([[[True, False, True, False]]])
    assert change_map(before, after).tolist() == [[[1, 3, 2, 0]]]


def test_a_moved_patient_has_not_changed_and_a_bitten_organ_has(tmp_path: Path) -> None:
    (image, label), (moved, moved_label) = body(), body((9.0, -6.0, 5.0))
    bitten = moved_label.copy()
    bitten[:, :, : np.flatnonzero(moved_label.any(axis=(0, 1)))[3]] = 0  # the lowest three slices
    scans = dict(
        [
            save(tmp_path, "2024-01-01", image, label),
            save(tmp_path, "2024-02-01", moved, moved_label),
            save(tmp_path, "2024-03-01", moved, bitten),
        ]
    )
    baseline = next(iter(scans))
    first, same, shrunk = aligned_scans(list(scans), scans, {"organ": (1,)}, {"organ": baseline}, tmp_path)
    assert isinstance(first, AlignedScan)
    assert isinstance(same, AlignedScan)
    assert isinstance(shrunk, AlignedScan)
    assert (first.motion, first.gain_ml, first.loss_ml) == (None, {}, {})
    organ_ml = label.sum() * VOXEL_ML
    assert same.motion is not None
    assert same.motion.shift_mm == pytest.approx((9, -6, 5), abs=0.7)
    assert same.gain_ml["organ"] + same.loss_ml["organ"] < 0.2 * organ_ml  # voxels of 4 × 4 × 6 mm at the surface
    lost_ml = (moved_label.sum() - bitten.sum()) * VOXEL_ML
    assert shrunk.loss_ml["organ"] - same.loss_ml["organ"] == pytest.approx(lost_ml, abs=0.05 * organ_ml)
    changes = nib.load(tmp_path / "changes" / "a_2024-03-01_organ.nii.gz")
    assert np.allclose(changes.affine, AFFINE)
    assert (np.asarray(changes.dataobj) == 3).sum() * VOXEL_ML == pytest.approx(shrunk.loss_ml["organ"])
    assert (tmp_path / "transforms" / "a_2024-03-01.tfm").exists()
    pictures = draw_scan(first, shrunk)["organ"]
    assert [picture.title.split()[0] for picture in pictures] == ["axial", "coronal"]


def test_what_a_class_gains_counts_all_of_its_label_values(tmp_path: Path) -> None:
    """A core appears in the organ, whose value it covers: the organ loses nothing."""
    image, label = body()
    whole = label.astype(bool)
    core = label.copy()
    core[whole & (np.indices(label.shape)[2] % 2 == 0)] = 2
    scans = dict([save(tmp_path, "2024-01-01", image, label), save(tmp_path, "2024-02-01", image, core)])
    baselines = dict.fromkeys(("whole", "core"), next(iter(scans)))
    _, second = aligned_scans(list(scans), scans, {"whole": (1, 2), "core": (2,)}, baselines, tmp_path)
    assert isinstance(second, AlignedScan)
    assert (second.gain_ml["whole"], second.loss_ml["whole"]) == (0, 0)
    assert second.gain_ml["core"] == pytest.approx((core == 2).sum() * VOXEL_ML)
    assert second.loss_ml["core"] == 0


def test_gain_and_loss_are_since_the_first_scan_that_counts(tmp_path: Path) -> None:
    """In the first scan nothing was found; then the organ loses its lowest three slices."""
    image, label = body()
    bitten = label.copy()
    bitten[:, :, : np.flatnonzero(label.any(axis=(0, 1)))[3]] = 0
    labels = {"2024-01-01": np.zeros_like(label), "2024-02-01": label, "2024-03-01": bitten}
    scans = dict([save(tmp_path, day, image, mask) for day, mask in labels.items()])
    missed, counted, _ = scans
    found = {
        result.scan: result
        for result in aligned_scans(list(scans), scans, {"organ": (1,)}, {"organ": counted}, tmp_path / "report")
        if isinstance(result, AlignedScan)
    }
    assert [scan.day.month for scan in found] == [2, 1, 3]  # what stays comes first
    assert found[counted].motion is None
    assert [dict(found[scan].gain_ml) for scan in (missed, counted)] == [{}, {}]
    shrunk = next(result for scan, result in found.items() if scan.day.month == 3)
    lost_ml = (label.sum() - bitten.sum()) * VOXEL_ML
    assert shrunk.loss_ml["organ"] == pytest.approx(lost_ml, rel=0.05)
    assert shrunk.gain_ml["organ"] == pytest.approx(0, abs=0.05 * lost_ml)
    assert [path.name for path in (tmp_path / "report" / "changes").iterdir()] == ["a_2024-03-01_organ.nii.gz"]


def test_each_class_is_compared_with_its_own_first_counted_scan(tmp_path: Path) -> None:
    """The core doubles from the second scan to the third, and does not count in the first."""
    image, label = body()
    whole = np.argwhere(label)
    labels = {}
    for day, size in {"2024-01-01": 10, "2024-02-01": 100, "2024-03-01": 200}.items():
        labels[day] = label.copy()
        labels[day][tuple(whole[:size].T)] = 2
    scans = dict([save(tmp_path, day, image, each) for day, each in labels.items()])
    first, second, _ = scans
    values, baselines = {"whole": (1, 2), "core": (2,)}, {"whole": first, "core": second}
    results = list(aligned_scans(list(scans), scans, values, baselines, tmp_path))
    assert [dict(result.gain_ml) for result in results if isinstance(result, AlignedScan)] == [
        {},
        {"whole": 0},
        {"whole": 0, "core": pytest.approx(100 * VOXEL_ML)},
    ]


def test_where_no_scan_counts_nothing_is_gained_or_lost(tmp_path: Path) -> None:
    image, label = body()
    scans = dict(
        [save(tmp_path, "2024-01-01", image, np.zeros_like(label)), save(tmp_path, "2024-02-01", image, label)]
    )
    results = list(aligned_scans(list(scans), scans, {"organ": (1,)}, {}, tmp_path))
    assert [(result.gain_ml, result.loss_ml) for result in results if isinstance(result, AlignedScan)] == [({}, {})] * 2


def test_a_scan_that_cannot_be_aligned_leaves_the_others(tmp_path: Path) -> None:
    image, label = body()
    flat = np.full_like(image, 40)
    scans = dict(
        [
            save(tmp_path, "2024-01-01", image, label),
            save(tmp_path, "2024-02-01", flat, label),
            save(tmp_path, "2024-03-01", image, label),
        ]
    )
    results = list(aligned_scans(list(scans), scans, {"organ": (1,)}, {"organ": next(iter(scans))}, tmp_path))
    assert [type(result) for result in results] == [AlignedScan, Failed, AlignedScan]


def test_what_differs_in_the_protocol_is_told(tmp_path: Path) -> None:
    image, label = body()
    finer = AFFINE.copy()
    finer[:3, 2] /= 2
    scans = [
        save(tmp_path, day, image, label, affine)[0] for day, affine in (("2024-01-01", AFFINE), ("2024-02-01", finer))
    ]
    assert protocol_warnings(scans) == {scans[1]: ["axial spacing 3 mm instead of 6 mm"]}
    told = [
        Scan("a", date(2024, 1, day), (scans[0].images[0],), None, protocol)
        for day, protocol in (
            (1, {"kernel": "B30f", "tube voltage (kV)": "120", "scanner": "X"}),
            (2, {"kernel": "b30F", "tube voltage (kV)": "121", "scanner": "X"}),
            (3, {"kernel": "B70f", "tube voltage (kV)": "100"}),
        )
    ]
    assert protocol_warnings(told) == {
        told[2]: [
            "scanner not told instead of X",
            "tube voltage (kV) 100 instead of 120",
            "kernel B70f instead of B30f",
        ]
    }
