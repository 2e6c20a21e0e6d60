"""Where the voxels of a DICOM series lie: against SimpleITK, against NIfTI, and by hand where both give up."""

import logging
import shutil
from itertools import permutations, product
from pathlib import Path

import nibabel as nib
import numpy as np
import pydicom
import pytest
import SimpleITK as sitk  # noqa: N813

from spleen.errors import InputError
from spleen.imaging.dicom.series import read_series
from spleen.imaging.geometry import reorient_to_ras
from spleen.imaging.native import read_native
from spleen.imaging.nifti import read_image, read_shape
from tests._helpers.dicom import AXIAL, SHAPE, edit, ramp, write

LPS = np.diag([-1.0, -1.0, 1.0, 1.0])


def oblique() -> np.ndarray:
    rotation = nib.eulerangles.euler2mat(0.3, -0.5, 0.2)
    affine = np.eye(4)
    affine[:3, :3] = rotation @ np.diag([0.7, 0.9, 3.0])
    affine[:3, 3] = (12.5, -40.25, 7.125)
    return affine


def orientations() -> list[np.ndarray]:
    """The 48 ways to permute and flip three axes of different spacing."""
    found = []
    for order, signs in product(permutations(range(3)), product((1, -1), repeat=3)):
        affine = np.eye(4)
        affine[:3, :3] = 0
        for axis, (world, sign) in enumerate(zip(order, signs, strict=True)):
            affine[world, axis] = sign * (0.8, 0.9, 2.5)[axis]
        affine[:3, 3] = (10, -20, 30)
        found.append(affine)
    return found


def by_simpleitk(folder: Path) -> tuple[np.ndarray, np.ndarray]:
    """Voxels (column, row, slice) and affine in RAS."""
    reader = sitk.ImageSeriesReader()
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(folder)))
    image = reader.Execute()
    affine = np.eye(4)
    affine[:3, :3] = np.array(image.GetDirection()).reshape(3, 3) @ np.diag(image.GetSpacing())
    affine[:3, 3] = image.GetOrigin()
    return sitk.GetArrayFromImage(image).transpose(2, 1, 0), LPS @ affine


@pytest.mark.parametrize("affine", [*orientations(), oblique()])
def test_a_regular_series_has_the_grid_of_simpleitk_and_of_its_nifti(tmp_path: Path, affine: np.ndarray) -> None:
    folder = write(tmp_path / "series", affine=affine)
    voxels, expected = by_simpleitk(folder)
    series = read_native(folder)
    np.testing.assert_allclose(series.file_affine, expected, rtol=0, atol=1e-9)
    np.testing.assert_array_equal(np.asarray(series.channels[0]), reorient_to_ras(voxels, expected)[0])

    nib.save(nib.Nifti1Image(ramp(), affine), tmp_path / "phantom.nii.gz")
    nifti = read_image(tmp_path / "phantom.nii.gz")
    dicom = read_image(folder, nifti.affine)
    np.testing.assert_array_equal(dicom.array, nifti.array)
    np.testing.assert_allclose(dicom.affine, nifti.affine, rtol=0, atol=1e-5)  # NIfTI stores float32
    shape, _ = read_shape(folder)
    assert shape == nifti.array.shape


def test_files_are_ordered_by_position_not_by_name_or_number(tmp_path: Path) -> None:
    folder = write(tmp_path / "series")
    expected = read_image(folder)
    for number, path in enumerate(sorted(folder.iterdir())):
        dataset = pydicom.dcmread(path)
        dataset.InstanceNumber = (number * 5) % 7
        dataset.save_as(folder / f"x{(number * 4) % 11}")
        path.unlink()
    shuffled = read_image(folder)
    np.testing.assert_array_equal(shuffled.array, expected.array)
    np.testing.assert_array_equal(shuffled.affine, expected.affine)


def test_a_tilted_gantry_shears_the_grid(tmp_path: Path) -> None:
    """Slices 2.5 mm apart along z, each 0.7 mm further to the front: as written, so read."""
    tilted = AXIAL.copy()
    tilted[1, 2] = 0.7
    image = read_native(write(tmp_path / "series", affine=tilted))
    np.testing.assert_allclose(image.file_affine, tilted, atol=1e-6)
    assert image.voxel_volume_mm3 == pytest.approx(0.8 * 0.9 * 2.5)


PLACES = [0, 1, 2, 3.4, 5, 7]  # of slices 2.5 mm apart: 2.5, 2.5, 3.5, 4, 5 mm between them
SLABS_MM = [2.5, 2.5, 3.0, 3.75, 4.5, 5.0]  # half of the way to either neighbour; at the ends as to the only one


def test_uneven_slices_count_with_their_own_share(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = write(tmp_path / "series", places=PLACES)
    with caplog.at_level(logging.WARNING):
        image = read_native(folder)
    assert "unevenly spaced, 2.5 to 5 mm apart" in caplog.text
    assert image.uneven_axis == "axial"
    assert image.series is not None
    assert image.series.stack.slab_mm == pytest.approx(SLABS_MM)
    mask = np.zeros(image.shape, bool)
    mask[:2, :3, 0] = mask[0, 0, 5] = True  # RAS runs as the slices do
    assert image.volume_mm3(mask) == pytest.approx((6 * 2.5 + 1 * 5.0) * 0.8 * 0.9)
    with pytest.raises(InputError, match=r"unevenly spaced, which no regular grid can hold.*--format dicom-seg"):
        read_image(folder)


def test_a_missing_slice_is_never_closed_up(tmp_path: Path) -> None:
    folder = write(tmp_path / "series")
    (folder / "IM0003.dcm").unlink()
    with pytest.raises(
        InputError, match=r"1 slice\(s\) are missing: .* 2\.5 mm apart, but 5 mm between IM0002.dcm and"
    ):
        read_native(folder)


def test_a_wider_distance_that_the_thickness_explains_is_no_gap(tmp_path: Path) -> None:
    """Thin slices at the base of the skull and thick ones above: 2.5 mm, then 5 mm."""
    folder = write(tmp_path / "series", places=[0, 1, 2, 3, 5, 7])

    def thicken(dataset: pydicom.Dataset, number: int) -> None:
        dataset.SliceThickness = 2.5 if number < 4 else 5

    edit(folder, thicken)
    assert read_native(folder).uneven_axis == "axial"


def test_rounded_positions_are_still_even(tmp_path: Path) -> None:
    folder = write(tmp_path / "series")

    def jitter(dataset: pydicom.Dataset, number: int) -> None:
        dataset.ImagePositionPatient[2] = round(float(dataset.ImagePositionPatient[2]) + (-1) ** number * 0.04, 2)

    edit(folder, jitter)
    image = read_native(folder)
    assert image.uneven_axis is None
    assert image.file_affine[2, 2] == pytest.approx(2.5, abs=0.02)


def test_a_thickness_that_contradicts_the_positions_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = write(tmp_path / "series", thickness_mm=5)
    with caplog.at_level(logging.WARNING):
        image = read_native(folder)
    assert "Slice Thickness is 5 mm, but slices are 2.5 mm apart; their positions count" in caplog.text
    assert image.file_affine[2, 2] == pytest.approx(2.5)


def test_a_single_slice_needs_its_thickness(tmp_path: Path) -> None:
    folder = write(tmp_path / "series", ramp((5, 7, 1)), thickness_mm=4)
    assert read_native(folder).voxel_volume_mm3 == pytest.approx(0.8 * 0.9 * 4)
    edit(folder, lambda dataset, _: delattr(dataset, "SliceThickness"))
    with pytest.raises(InputError, match="single slice without Slice Thickness"):
        read_native(folder)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda d, n: setattr(d, "PixelSpacing", [0.9, 0.8 + 0.1 * (n == 2)]),
            r"different pixel spacings: 5 of 0\.9 × 0\.8 mm, 1 of 0\.9 × 0\.9 mm",
        ),
        (lambda d, _: delattr(d, "PixelSpacing"), "Pixel Spacing is missing.*export it again"),
        (lambda d, _: delattr(d, "ImagePositionPatient"), r"Image Position \(Patient\) missing"),
        (lambda d, _: delattr(d, "ImageOrientationPatient"), r"Image Orientation \(Patient\) missing"),
        (lambda d, _: setattr(d, "ImageOrientationPatient", [1, 0, 0, 0.5, 1, 0]), "two perpendicular directions"),
        (lambda d, _: setattr(d, "ImageOrientationPatient", [2, 0, 0, 0, 2, 0]), "of length 1"),
        (
            lambda d, n: setattr(d, "ImagePositionPatient", [-10 + 3 * (n == 2), 20, -30 + 2.5 * n]),
            "do not lie on one line: one is 3 mm beside it",
        ),
        (
            lambda d, n: setattr(d, "ImagePositionPatient", [-10, 20, -30 + 2.5 * (n // 2)]),
            "6 images are at one place, and no element tells the volumes apart",
        ),
        (lambda d, _: setattr(d, "SeriesInstanceUID", ""), "SeriesInstanceUID missing"),
    ],
)  # fmt: skip
def test_slices_that_are_no_volume_are_refused(tmp_path: Path, change: object, message: str) -> None:
    folder = write(tmp_path / "series")
    edit(folder, change)  # type: ignore[arg-type]
    with pytest.raises(InputError, match=message) as caught:
        read_native(folder)
    assert str(folder) in str(caught.value)


def test_slices_of_several_sizes_or_orientations_are_refused(tmp_path: Path) -> None:
    folder = write(tmp_path / "series")
    write(tmp_path / "other", ramp((6, 7, 1)), thickness_mm=2.5)
    shutil.move(tmp_path / "other" / "IM0001.dcm", folder / "odd.dcm")
    series_uid = pydicom.dcmread(folder / "IM0001.dcm").SeriesInstanceUID

    def join(dataset: pydicom.Dataset, number: int) -> None:
        dataset.SeriesInstanceUID = series_uid
        if dataset.Columns == 6:
            dataset.SOPInstanceUID = "1.2.3"
            dataset.ImagePositionPatient = [-10, 20, 100]

    edit(folder, join)
    with pytest.raises(InputError, match=r"different sizes: 6 of 7 × 5, 1 of 7 × 6; keep those of one volume"):
        read_native(folder)

    (folder / "odd.dcm").unlink()
    edit(
        folder,
        lambda d, n: setattr(d, "ImageOrientationPatient", [1, 0, 0, 0, 0, -1] if n == 0 else [1, 0, 0, 0, 1, 0]),
    )
    with pytest.raises(InputError, match=r"different orientations: .*1 of \[1.0, 0.0, 0.0, 0.0, 0.0, -1.0\]"):
        read_native(folder)


def test_a_localiser_in_the_series_is_a_volume_of_its_own(tmp_path: Path) -> None:
    folder = write(tmp_path / "series")

    def localiser(dataset: pydicom.Dataset, number: int) -> None:
        if number == 0:
            dataset.ImageType = ["ORIGINAL", "PRIMARY", "LOCALIZER"]
            dataset.ImageOrientationPatient = [0, 1, 0, 0, 0, -1]

    edit(folder, localiser)
    with pytest.raises(InputError, match=r"choose one with --series(.|\n)*1: CT phantom, 5 slices(.|\n)*1:localiser"):
        read_series(folder)
    chosen = read_series(folder.with_name("series#1"))
    assert chosen.shape == (SHAPE[0], SHAPE[1], SHAPE[2] - 1)
