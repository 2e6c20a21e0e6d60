"""The voxels of a DICOM series, however they are stored; expected values by hand or from SimpleITK."""

import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from pydicom.uid import ExplicitVRBigEndian, ImplicitVRLittleEndian, JPEG2000Lossless, JPEGLSLossless, RLELossless

from spleen.errors import InputError
from spleen.imaging.dicom.location import split_selector
from spleen.imaging.dicom.series import candidates, read_series
from spleen.imaging.dicom.volume import open_series
from spleen.imaging.native import read_native
from tests._helpers.dicom import AXIAL, SHAPE, edit, ramp, write
from tests.imaging.test_dicom_geometry import by_simpleitk


def voxels(folder: Path) -> np.ndarray:
    """In the order of the series: column, row, slice."""
    return np.asarray(open_series(folder).dataobj)


def store(folder: Path, stored: np.ndarray, **elements: Any) -> Path:
    """A series whose files hold these stored values (column, row, slice) as they are, with other elements changed."""
    write(folder, np.zeros(stored.shape, np.int16), modality="MR")

    def change(dataset: pydicom.Dataset, number: int) -> None:
        dataset.PixelData = np.ascontiguousarray(stored[:, :, number].T).tobytes()
        dataset.BitsAllocated = dataset.BitsStored = 8 * stored.dtype.itemsize
        dataset.HighBit = dataset.BitsStored - 1
        dataset.PixelRepresentation = int(stored.dtype.kind == "i")
        for keyword, value in elements.items():
            setattr(dataset, keyword, value[number] if isinstance(value, list) else value)

    edit(folder, change)
    return folder


def test_hu_are_those_of_simpleitk_in_a_small_integer_type(tmp_path: Path) -> None:
    folder = write(tmp_path / "series", ramp())
    assert voxels(folder).dtype == np.int16
    np.testing.assert_array_equal(voxels(folder), by_simpleitk(folder)[0])
    np.testing.assert_array_equal(voxels(folder), ramp())


@pytest.mark.parametrize("dtype", [np.uint8, np.int8, np.uint16, np.int16, np.int32, np.uint32])
def test_every_stored_type_is_read(tmp_path: Path, dtype: type) -> None:
    limits = np.iinfo(dtype)
    ends = [limits.min, limits.max if limits.max < 2**31 else 2**31 - 1, 1, 0, 5]
    stored = np.resize(np.array(ends, dtype), SHAPE)
    np.testing.assert_array_equal(voxels(store(tmp_path / "series", stored)), stored)


def test_only_the_stored_bits_count(tmp_path: Path) -> None:
    """12 bits of 16: 0x_7FF is 2047 and 0x_800 is 2048, or −2048 if signed; what is above is rubbish."""
    stored = np.resize(np.array([0xA7FF, 0x5800, 0xF001], np.uint16), SHAPE)
    twelve = {"BitsStored": 12, "HighBit": 11}
    unsigned = voxels(store(tmp_path / "unsigned", stored, **twelve, PixelRepresentation=0))
    signed = voxels(store(tmp_path / "signed", stored, **twelve, PixelRepresentation=1))
    assert unsigned.ravel()[:3].tolist() == [2047, 2048, 1]
    assert signed.ravel()[:3].tolist() == [2047, -2048, 1]
    np.testing.assert_array_equal(signed, by_simpleitk(tmp_path / "signed")[0])


def test_each_slice_has_its_own_rescale(tmp_path: Path) -> None:
    """As PET is stored: 10 × slope of the slice + intercept."""
    stored = np.full(SHAPE, 10, np.uint16)
    slopes = [1.0, 2.0, 0.5, 3.0, 4.0, 5.0]
    found = voxels(store(tmp_path / "series", stored, RescaleSlope=slopes, RescaleIntercept=[0, 1, 0, 0, -100, 0]))
    assert found.dtype == np.float32
    assert found[0, 0].tolist() == [10, 21, 5, 30, -60, 50]


def test_whole_slopes_stay_whole(tmp_path: Path) -> None:
    stored = np.full(SHAPE, 60000, np.uint16)
    found = voxels(store(tmp_path / "series", stored, RescaleSlope=2, RescaleIntercept=-1024))
    assert (found.dtype, int(found[0, 0, 0])) == (np.int32, 118976)


def test_a_slope_of_0_is_refused(tmp_path: Path) -> None:
    folder = store(tmp_path / "series", np.ones(SHAPE, np.uint16), RescaleSlope=0, RescaleIntercept=0)
    with pytest.raises(InputError, match="Rescale Slope is 0"):
        voxels(folder)


def test_monochrome1_is_turned_bright_side_up(tmp_path: Path) -> None:
    """Stored 0 is white: of 8 bits, 0 becomes 255; HU are HU however they are shown."""
    stored = np.resize(np.array([0, 10, 255], np.uint8), SHAPE)
    mr = voxels(store(tmp_path / "mr", stored, PhotometricInterpretation="MONOCHROME1"))
    assert mr.ravel()[:3].tolist() == [255, 245, 0]
    ct = write(tmp_path / "ct")
    edit(ct, lambda dataset, _: setattr(dataset, "PhotometricInterpretation", "MONOCHROME1"))
    np.testing.assert_array_equal(voxels(ct), ramp())


def test_padding_of_a_ct_is_air(tmp_path: Path) -> None:
    """−2000 stored, −1024 intercept: what lies outside the scanner's circle would be −3024 HU."""
    stored = np.resize(np.array([-2000, 1064, 24], np.int16), SHAPE)
    folder = store(tmp_path / "ct", stored, Modality="CT", RescaleSlope=1, RescaleIntercept=-1024)
    edit(folder, lambda dataset, _: dataset.add_new("PixelPaddingValue", "SS", -2000))
    assert voxels(folder).ravel()[:3].tolist() == [-1024, 40, -1000]


def test_padding_of_an_mr_is_its_darkest_voxel(tmp_path: Path) -> None:
    stored = np.resize(np.array([65535, 300, 7, 65530], np.uint16), SHAPE)
    folder = store(tmp_path / "mr", stored)

    def pad(dataset: pydicom.Dataset, _: int) -> None:
        dataset.add_new("PixelPaddingValue", "US", 65535)
        dataset.add_new("PixelPaddingRangeLimit", "US", 65530)

    edit(folder, pad)
    assert voxels(folder).ravel()[:4].tolist() == [7, 300, 7, 7]


@pytest.mark.parametrize("syntax", [ImplicitVRLittleEndian, ExplicitVRBigEndian])
def test_other_uncompressed_syntaxes(tmp_path: Path, syntax: str) -> None:
    folder = write(tmp_path / "series")

    for path in sorted(folder.iterdir()):
        dataset = pydicom.dcmread(path)
        if syntax == ExplicitVRBigEndian:
            dataset.PixelData = np.frombuffer(dataset.PixelData, "<u2").astype(">u2").tobytes()
        dataset.file_meta.TransferSyntaxUID = syntax
        pydicom.dcmwrite(
            path, dataset, implicit_vr=syntax == ImplicitVRLittleEndian, little_endian=syntax != ExplicitVRBigEndian,
            force_encoding=True,
        )  # fmt: skip
    np.testing.assert_array_equal(voxels(folder), ramp())


@pytest.mark.parametrize("syntax", [RLELossless, JPEG2000Lossless, JPEGLSLossless])
def test_compressed_by_pydicom(tmp_path: Path, syntax: str) -> None:
    array = (np.arange(40 * 48 * 3).reshape(40, 48, 3) % 4000 - 1000).astype(np.int16)
    folder = write(tmp_path / "series", array)
    edit(folder, lambda dataset, _: dataset.compress(syntax))
    np.testing.assert_array_equal(voxels(folder), array)


@pytest.mark.skipif(not shutil.which("dcmcjpeg"), reason="dcmtk's dcmcjpeg is not installed")
def test_lossless_jpeg_of_dcmtk(tmp_path: Path) -> None:
    folder = write(tmp_path / "series")
    for path in sorted(folder.iterdir()):
        subprocess.run(["dcmcjpeg", "+e1", path, path], check=True)
    np.testing.assert_array_equal(voxels(folder), ramp())


def test_a_compressed_frame_whose_own_header_lies_is_refused(tmp_path: Path) -> None:
    folder = write(tmp_path / "series", np.zeros((40, 48, 3), np.int16))

    def shrink(dataset: pydicom.Dataset, _: int) -> None:
        dataset.compress(JPEG2000Lossless)
        dataset.Rows = 3

    edit(folder, shrink)
    with pytest.raises(
        InputError, match=r"IM0001.dcm is damaged: a compressed frame has 48 × 40 pixels, the header says 3 × 40"
    ):
        voxels(folder)


def test_a_truncated_file_is_refused(tmp_path: Path) -> None:
    folder = write(tmp_path / "series")
    path = folder / "IM0004.dcm"
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(InputError, match=r"IM0004.dcm is truncated: its pixels need 70 bytes, and 60 are there"):
        voxels(folder)


@pytest.mark.parametrize(
    ("elements", "message"),
    [
        ({"PhotometricInterpretation": "RGB", "SamplesPerPixel": 3}, "Photometric Interpretation is RGB; only grey"),
        ({"BitsStored": 17}, "Bits Allocated 16, Bits Stored 17"),
        ({"Rows": 0}, "Rows and Columns must be at least 1"),
    ],
)
def test_pixels_that_cannot_be_segmented_are_refused(tmp_path: Path, elements: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        read_series(store(tmp_path / "series", np.ones(SHAPE, np.uint16), **elements))


# Several volumes ------------------------------------------------------------------------------------------------------


def test_b_values_of_one_series_are_volumes_to_choose_from(tmp_path: Path) -> None:
    folder = write(tmp_path / "b0", ramp(start=0), modality="MR")
    other = write(tmp_path / "b800", ramp(start=500), modality="MR")

    def weight(dataset: pydicom.Dataset, number: int) -> None:
        dataset.DiffusionBValue = 800.0 if "b800" in str(dataset.filename) else 0.0
        dataset.SOPInstanceUID = f"1.2.{int(dataset.DiffusionBValue)}.{number}"

    edit(folder, weight)
    edit(other, weight)
    for path in list(other.iterdir()):
        path.rename(folder / f"b800_{path.name}")
    with pytest.raises(
        InputError, match=r"several volumes(.|\n)*1:1: MR phantom b-value 0.0, 6 slices(.|\n)*1:2: MR phantom b-v"
    ):
        read_series(folder)
    np.testing.assert_array_equal(voxels(folder.with_name("b0#1:1")), ramp(start=0))
    np.testing.assert_array_equal(voxels(folder.with_name("b0#1:2")), ramp(start=500))


def test_several_series_are_listed_and_one_is_chosen(tmp_path: Path) -> None:
    folder = write(tmp_path / "study" / "a", ramp(), series_number=2, description="arterial").parent
    write(folder / "b", ramp() + 1, series_number=3, description="venous")
    with pytest.raises(InputError) as caught:
        read_series(folder)
    listed = str(caught.value).splitlines()
    assert "holds several series; choose one with --series, or write it as" in listed[0]
    assert "study#2" in listed[0]
    assert [line.strip() for line in listed[1:]] == [
        "2: CT arterial, 6 slices of 5 × 7 pixels, 0.8 × 0.9 × 2.5 mm",
        "3: CT venous, 6 slices of 5 × 7 pixels, 0.8 × 0.9 × 2.5 mm",
    ]
    np.testing.assert_array_equal(voxels(folder.with_name("study#3")), ramp() + 1)
    uid = read_series(folder.with_name("study#3")).uid
    np.testing.assert_array_equal(voxels(folder.with_name(f"study#{uid}")), ramp() + 1)
    with pytest.raises(InputError, match=r"has no series 4; it has:"):
        read_series(folder.with_name("study#4"))


def test_a_mark_in_the_name_of_a_folder_that_exists_is_no_choice(tmp_path: Path) -> None:
    folder = write(tmp_path / "scan#3")
    assert split_selector(folder) == (folder, None)
    assert read_series(folder).shape == SHAPE


def test_copies_of_a_file_count_once(tmp_path: Path) -> None:
    folder = write(tmp_path / "series")
    shutil.copy(folder / "IM0002.dcm", folder / "copy.dcm")
    np.testing.assert_array_equal(voxels(folder), ramp())
    path = folder / "copy.dcm"
    path.write_bytes(path.read_bytes()[:-2] + b"\x01\x02")
    with pytest.raises(InputError, match="have the same SOP Instance UID and differ"):
        voxels(folder)


def test_an_enhanced_multi_frame_file_is_a_volume(tmp_path: Path) -> None:
    """As highdicom converts a series of single frames."""
    legacy = pytest.importorskip("highdicom.legacy")
    for modality, array in (("CT", ramp()), ("MR", ramp(start=0))):
        folder = write(tmp_path / modality, array, modality=modality)
        sources = [pydicom.dcmread(path) for path in sorted(folder.iterdir())]
        convert = getattr(legacy, f"LegacyConvertedEnhanced{modality}Image")
        for source in sources:
            source.LossyImageCompression = "00"
        converted = convert(sources, "1.2.3", 9, "1.2.3.4", 1)
        path = tmp_path / f"{modality}.dcm"
        converted.save_as(path)
        np.testing.assert_array_equal(voxels(path), array)
        np.testing.assert_allclose(read_native(path).file_affine, AXIAL, atol=1e-9)


def test_one_file_of_a_series_is_not_taken_for_the_whole(tmp_path: Path) -> None:
    folder = write(tmp_path / "series")
    with pytest.raises(InputError, match=rf"IM0002.dcm is one slice of a DICOM series; give the folder.*{folder}"):
        read_series(folder / "IM0002.dcm")


def test_objects_without_an_image_are_passed_over(tmp_path: Path) -> None:
    folder = write(tmp_path / "series")
    (folder / "notes.txt").write_text("not DICOM")
    other = pydicom.dcmread(folder / "IM0001.dcm")
    other.Modality, other.SOPInstanceUID = "SR", "1.2.3"
    del other.PixelData
    other.save_as(folder / "report.dcm")
    np.testing.assert_array_equal(voxels(folder), ramp())
    for path in folder.glob("IM*"):
        path.unlink()
    with pytest.raises(InputError, match="contains no DICOM image, only 1 SR"):
        candidates(folder)


def test_screenshots_beside_a_series_are_passed_over_with_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = write(tmp_path / "study")
    shot = pydicom.dcmread(folder / "IM0001.dcm")
    shot.Modality, shot.SOPInstanceUID, shot.SeriesInstanceUID, shot.SeriesNumber = "CT", "1.2.3", "1.2.4", 99
    for keyword in ("ImagePositionPatient", "ImageOrientationPatient"):
        del shot[keyword]
    shot.save_as(folder / "dose.dcm")
    np.testing.assert_array_equal(voxels(folder), ramp())
    assert "1 image(s) of other series are no slices and are passed over" in caplog.text
    shot.SeriesInstanceUID = pydicom.dcmread(folder / "IM0001.dcm").SeriesInstanceUID
    shot.save_as(folder / "dose.dcm")
    with pytest.raises(InputError, match=r"dose.dcm: Image Position and Image Orientation .Patient. missing"):
        candidates(folder)
    for path in folder.glob("IM*"):
        path.unlink()
    with pytest.raises(InputError, match="Image Position and Image Orientation"):
        candidates(folder)


@pytest.mark.skipif(not shutil.which("dcmmkdir"), reason="dcmtk's dcmmkdir is not installed")
def test_a_dicomdir_is_followed(tmp_path: Path) -> None:
    folder = write(tmp_path / "medium" / "IMAGES").parent
    for path in (folder / "IMAGES").iterdir():
        path.rename(path.with_suffix(""))
    subprocess.run(["dcmmkdir", "+r", "+id", folder, "+D", folder / "DICOMDIR"], check=True, cwd=folder)
    write(folder / "OTHER", ramp() + 1, series_number=5)  # not listed
    np.testing.assert_array_equal(voxels(folder), ramp())
    np.testing.assert_array_equal(voxels(folder / "DICOMDIR"), ramp())
    (folder / "IMAGES" / "IM0003").unlink()
    with pytest.raises(InputError, match=r"lists 1 file\(s\) that do not exist: .*IM0003; copy the whole medium"):
        read_series(folder)


def test_opening_a_series_reads_no_voxels(tmp_path: Path) -> None:
    """Truncated pixels are found when the voxels are read, not before."""
    folder = write(tmp_path / "series")
    path = folder / "IM0004.dcm"
    path.write_bytes(path.read_bytes()[:-10])
    assert open_series(folder).shape == SHAPE
