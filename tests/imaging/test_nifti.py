import gzip
import resource
from contextlib import suppress
from pathlib import Path

import nibabel as nib
import numpy as np
import psutil
import pytest
import SimpleITK as sitk  # noqa: N813
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from spleen.errors import InputError
from spleen.imaging.geometry import restore_orientation
from spleen.imaging.nifti import read_image, read_label, write_volume
from tests._helpers.nifti import ORIENTATIONS, SHAPE, SPACING_MM, box, counting, ras_affine, save, save_stored_as

READERS = pytest.mark.parametrize("read", [read_image, read_label])


def _float_file(path, array):
    return save(path, array.astype(np.float32), ras_affine())


@READERS
def test_a_missing_file_is_reported_with_the_folder_searched(tmp_path, read):
    with pytest.raises(InputError, match=rf"ct\.nii\.gz: no such file \(looked in {tmp_path}\)"):
        read(tmp_path / "ct.nii.gz")


@READERS
def test_a_folder_is_rejected(tmp_path, read):
    with pytest.raises(InputError, match="is a folder; expected a NIfTI file"):
        read(tmp_path)


@pytest.mark.parametrize("name", ["notes.txt", "notes.nii", "notes.nii.gz"])
@pytest.mark.parametrize("content", [b"", b"not a volume\n" * 60], ids=["empty", "text"])
def test_a_file_that_is_not_nifti_is_rejected_whatever_its_name(tmp_path, name, content):
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(InputError, match=f"{name} cannot be read as NIfTI"):
        read_image(path)


def test_another_medical_format_is_named_in_the_message(tmp_path):
    path = tmp_path / "ct.mgz"
    nib.save(nib.MGHImage(counting(), ras_affine()), path)
    with pytest.raises(InputError, match="MGHImage, not NIfTI; convert it"):
        read_image(path)


@READERS
@pytest.mark.parametrize("kept_fraction", [0.1, 0.4, 0.7, 0.95, 0.999])
def test_a_truncated_gz_file_is_rejected(tmp_path, read, kept_fraction):
    noise = np.random.default_rng(0).integers(0, 255, (9, 11, 7)).astype(np.int16)
    path = save(tmp_path / "ct.nii.gz", noise, ras_affine())
    whole = path.read_bytes()
    path.write_bytes(whole[: int(kept_fraction * len(whole))])
    with pytest.raises(InputError, match=r"ct\.nii\.gz (is damaged or truncated|cannot be read as NIfTI)"):
        read(path)


def test_a_modified_voxel_in_a_gz_file_is_detected_by_its_checksum(tmp_path):
    plain = save(tmp_path / "ct.nii", counting((9, 11, 7), np.int16), ras_affine()).read_bytes()
    stored = bytearray(gzip.compress(plain, compresslevel=0))  # so every voxel still decodes
    stored[-20] ^= 0x55
    path = tmp_path / "ct.nii.gz"
    path.write_bytes(bytes(stored))
    with pytest.raises(InputError, match="damaged or truncated: CRC check failed"):
        read_image(path)


@pytest.fixture(scope="module")
def valid_content(tmp_path_factory):
    """The content of a valid NIfTI file."""
    return save(tmp_path_factory.mktemp("valid") / "ct.nii", counting(dtype=np.int16), ras_affine()).read_bytes()


@given(changes=st.lists(st.tuples(st.integers(0, 347), st.integers(0, 255)), min_size=1, max_size=4))
@settings(max_examples=100, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # a damaged scale of 1e38
def test_a_damaged_header_raises_nothing_but_input_errors(tmp_path_factory, valid_content, changes):
    content = bytearray(valid_content)
    for place, value in changes:
        content[place] = value
    path = tmp_path_factory.getbasetemp() / "damaged.nii"
    path.write_bytes(bytes(content))
    with suppress(InputError):
        assert read_image(path).array.ndim == 3


@pytest.mark.parametrize(
    ("place", "value"), [(70, b"\x05\x00"), (108, b"\x00\x00\x80\xbf")], ids=["data type", "offset"]
)
def test_an_unknown_data_type_or_invalid_offset_is_rejected(tmp_path, valid_content, place, value):
    """Bytes 70 and 108 of the header hold the code of the data type and the offset of the first voxel."""
    path = tmp_path / "ct.nii"
    path.write_bytes(valid_content[:place] + value + valid_content[place + len(value) :])
    with pytest.raises(InputError, match=r"cannot be read as NIfTI|vox_offset"):
        read_image(path)


@READERS
@pytest.mark.parametrize("shape", [(5, 7), (5, 7, 3, 2), (5, 7, 3, 1, 3)])
def test_a_wrong_number_of_dimensions_is_rejected_with_the_shape(tmp_path, read, shape):
    path = save(tmp_path / "ct.nii.gz", counting(shape, np.int16), ras_affine())
    with pytest.raises(InputError, match=rf"{len(shape)} dimensions, shape \({', '.join(map(str, shape))}\)"):
        read(path)


@READERS
def test_four_dimensions_with_one_channel_are_read_as_a_volume(tmp_path, read):
    path = save(tmp_path / "ct.nii.gz", counting((*SHAPE, 1), np.int16), ras_affine())
    np.testing.assert_array_equal(read(path).array, counting())


@READERS
@pytest.mark.parametrize("dtype", ["RGB", "complex"])
def test_colour_and_complex_voxels_are_rejected(tmp_path, read, dtype):
    rgb = np.dtype([("R", "u1"), ("G", "u1"), ("B", "u1")])
    array = np.zeros(SHAPE, rgb if dtype == "RGB" else np.complex64)
    path = tmp_path / "ct.nii.gz"
    nib.save(nib.Nifti1Image(array, ras_affine()), path)
    with pytest.raises(InputError, match="colour or complex"):
        read(path)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_nan_and_inf_voxels_are_counted(tmp_path, bad):
    array = counting()
    array[1, 2, 0] = array[3, 6, 2] = bad
    with pytest.raises(InputError, match="2 of 105 voxels are NaN or Inf"):
        read_image(_float_file(tmp_path / "ct.nii.gz", array))


@pytest.mark.parametrize(("value", "shown"), [(0.5, "0.5"), (1.25, "1.25"), (np.nan, "nan"), (np.inf, "inf")])
def test_non_integer_label_values_are_rejected_with_an_example(tmp_path, value, shown):
    label = box().astype(np.float32)
    label[0, 0, 0] = value
    with pytest.raises(InputError, match=f"1 of 105 voxels do not, for example {shown}.*nearest neighbour"):
        read_label(_float_file(tmp_path / "seg.nii.gz", label))


def test_integer_labels_stored_as_floats_are_read_as_integers(tmp_path):
    label = read_label(_float_file(tmp_path / "seg.nii.gz", box(value=3)))
    assert label.array.dtype == np.int32
    np.testing.assert_array_equal(label.array, box(value=3))


def test_a_label_value_beyond_int32_is_rejected_instead_of_overflowing(tmp_path):
    array = box().astype(np.uint32)
    array[1, 2, 0] = 2**31 + 1
    path = save(tmp_path / "seg.nii.gz", array, ras_affine())
    with pytest.raises(InputError, match="2147483649 is out of range"):
        read_label(path)


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
def test_a_volume_larger_than_memory_is_rejected_before_any_voxel_is_read(tmp_path, suffix):
    """The file ends after its header: if the voxels were read first, the error would be about them."""
    side = 1 + int((psutil.virtual_memory().total / 4) ** (1 / 3))
    header = nib.Nifti1Header()
    header.set_data_dtype(np.float32)
    header.set_data_shape((side, side, side))
    header["vox_offset"] = 352
    header["magic"] = b"n+1"
    content = header.binaryblock + bytes(4)
    path = tmp_path / f"ct{suffix}"
    path.write_bytes(gzip.compress(content) if suffix == ".nii.gz" else content)
    with pytest.raises(InputError, match=rf"declares {side} × {side} × {side} voxels, .* GiB of memory are free"):
        read_image(path)


@pytest.mark.parametrize(("slope", "inter"), [(None, None), (1.0, -1024.0), (0.25, 3.5)])
def test_slope_and_intercept_of_the_header_are_applied_as_in_simpleitk(tmp_path, slope, inter):
    path = save(tmp_path / "ct.nii.gz", counting(dtype=np.int16), ras_affine(), slope, inter)
    expected = sitk.GetArrayFromImage(sitk.ReadImage(str(path))).transpose()  # from k j i
    volume = read_image(path)
    assert volume.array.dtype == np.float32
    np.testing.assert_allclose(volume.array, expected, rtol=1e-6)


@READERS
@pytest.mark.parametrize("stored", ORIENTATIONS[::5])
def test_a_volume_is_read_as_ras_and_can_be_restored_to_its_orientation(tmp_path, read, stored):
    path = save_stored_as(tmp_path / "ct.nii.gz", stored, counting(dtype=np.int16))
    volume = read(path)
    np.testing.assert_array_equal(volume.array, counting())
    np.testing.assert_allclose(volume.affine, ras_affine(), atol=1e-5)
    assert volume.spacing_mm == pytest.approx(SPACING_MM)
    in_file = np.asarray(nib.load(path).dataobj)
    np.testing.assert_array_equal(restore_orientation(volume.array, volume.file_affine), in_file)


def test_a_header_without_orientation_logs_a_warning(tmp_path, caplog):
    nifti = nib.Nifti1Image(counting(), ras_affine())
    nifti.set_sform(None, 0)
    nifti.set_qform(None, 0)
    nib.save(nifti, tmp_path / "ct.nii.gz")
    read_image(tmp_path / "ct.nii.gz")
    assert "neither sform nor qform" in caplog.text
    caplog.clear()
    read_image(_float_file(tmp_path / "ct.nii.gz", counting()))
    assert caplog.text == ""


def test_a_singular_affine_is_rejected_with_the_file_name(tmp_path):
    nifti = nib.Nifti1Image(counting(), ras_affine())
    flat = ras_affine()
    flat[2, 2] = 0
    nifti.set_sform(flat, 1)
    nib.save(nifti, tmp_path / "ct.nii.gz")
    with pytest.raises(InputError, match=r"ct\.nii\.gz: the affine is singular"):
        read_image(tmp_path / "ct.nii.gz")


def test_a_written_volume_has_the_same_geometry_in_simpleitk(tmp_path):
    path = tmp_path / "out.nii.gz"
    write_volume(path, box().astype(np.uint8), ras_affine())
    written = sitk.ReadImage(str(path))
    np.testing.assert_array_equal(sitk.GetArrayFromImage(written).transpose(), box())
    assert written.GetSpacing() == pytest.approx(SPACING_MM)
    x, y, z = ras_affine()[:3, 3]
    assert written.GetOrigin() == pytest.approx((-x, -y, z))  # SimpleITK uses LPS coordinates
    assert written.GetMetaData("xyzt_units") == "10"  # mm (2) and seconds (8)


def test_a_failed_write_keeps_the_old_file_and_leaves_nothing_else(tmp_path: Path):
    path = tmp_path / "out.nii"
    write_volume(path, box().astype(np.uint8), ras_affine())
    before = path.read_bytes()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))  # as if the disk were full after 1000 bytes
    try:
        with pytest.raises(OSError, match="File too large"):
            write_volume(path, counting((9, 11, 7)), ras_affine())
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_an_unknown_unit_code_logs_a_warning_and_is_read_as_mm(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """NIfTI defines the codes 0 to 3 for units of length; 7 is undefined."""
    nifti = nib.Nifti1Image(counting(), ras_affine())
    nifti.header["xyzt_units"] = 7
    nib.save(nifti, tmp_path / "ct.nii")
    assert read_image(tmp_path / "ct.nii").spacing_mm == pytest.approx(SPACING_MM)
    assert "unknown code for the unit of length; assuming mm" in caplog.text


@pytest.mark.parametrize(("unit", "factor"), [("meter", 1000.0), ("micron", 0.001), ("mm", 1.0), ("unknown", 1.0)])
def test_other_units_are_converted_to_mm(tmp_path: Path, unit: str, factor: float) -> None:
    nifti = nib.Nifti1Image(np.ones((5, 7, 3), dtype=np.int16), np.diag([0.8, 0.8, 5.0, 1.0]))
    nifti.header.set_xyzt_units(unit, "sec")
    nib.save(nifti, tmp_path / "image.nii")
    assert read_image(tmp_path / "image.nii").spacing_mm == pytest.approx((0.8 * factor, 0.8 * factor, 5.0 * factor))
