"""Files and folders that are not NIfTI volumes: the message says what they are instead."""

import gzip
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from spleen.errors import InputError
from spleen.imaging.files import find_volumes, volumes_by_name
from spleen.imaging.foreign import looks_like_label
from spleen.imaging.intensity import CtWindow, implausible_units
from spleen.imaging.nifti import read_image, read_label
from tests._helpers.nifti import ras_affine


def nifti_bytes(folder: Path) -> bytes:
    nib.save(nib.Nifti1Image(np.zeros((5, 7, 3), np.int16), ras_affine()), folder / "sound.nii")
    return (folder / "sound.nii").read_bytes()


DICOM = bytes(128) + b"DICM" + bytes(300)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("ct.nii.gz", b"<!DOCTYPE html><html><body>Log in</body></html>", "web page"),
        ("ct.nii.gz", b"\n <html>", "web page"),
        ("ct.nii", b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a2\nsize 12345\n", "git lfs pull"),
        ("ct.nii.gz", b"/annex/objects/MD5E-s12--abc.nii.gz", "git annex get"),
        ("ct.nii.gz", DICOM, "one slice of a series; give the folder of the series"),
        ("ct.nii", DICOM, "DICOM"),
        ("ct.nii.gz", b"NRRD0004\ntype: short", "NRRD"),
        ("ct.nii.gz", b"PK\x03\x04" + bytes(400), "ZIP"),
        ("ct.nii.gz", gzip.compress(b"<html>" + bytes(600), mtime=0), "web page"),
        ("ct.nii.gz", b"", "empty"),
    ],
)
def test_a_file_of_another_format_is_identified(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(content)
    for read in (read_image, read_label):
        with pytest.raises(InputError, match=rf"{name} cannot be read as NIfTI.*{message}"):
            read(tmp_path / name)


def test_a_wrong_extension_is_reported_with_the_correct_name(tmp_path: Path) -> None:
    content = nifti_bytes(tmp_path)
    (tmp_path / "plain.nii.gz").write_bytes(content)
    with pytest.raises(InputError, match=r"not compressed.*rename it to plain\.nii$"):
        read_image(tmp_path / "plain.nii.gz")
    (tmp_path / "packed.nii").write_bytes(gzip.compress(content))
    with pytest.raises(InputError, match=r"compressed with gzip; rename it to packed\.nii\.gz$"):
        read_image(tmp_path / "packed.nii")


def test_uppercase_extensions_are_accepted(tmp_path: Path) -> None:
    (tmp_path / "SCAN.NII.GZ").write_bytes(gzip.compress(nifti_bytes(tmp_path)))
    (tmp_path / "sound.nii").unlink()
    assert volumes_by_name(tmp_path) == {"SCAN": tmp_path / "SCAN.NII.GZ"}
    assert find_volumes([tmp_path / "*.NII.GZ"]) == [tmp_path / "SCAN.NII.GZ"]
    assert read_image(tmp_path / "SCAN.NII.GZ").array.shape == (5, 7, 3)


def test_a_folder_given_as_a_volume_is_reported_with_its_contents(tmp_path: Path) -> None:
    (tmp_path / "dicom").mkdir()
    (tmp_path / "dicom" / "1.2.840").write_bytes(DICOM)
    with pytest.raises(InputError, match="dicom contains no DICOM image, only 1 no image"):
        read_image(tmp_path / "dicom")
    assert find_volumes([tmp_path / "dicom"]) == [tmp_path / "dicom"]
    (tmp_path / "many").mkdir()
    nifti_bytes(tmp_path / "many")
    with pytest.raises(InputError, match=r"give one of its 1 files, such as .*sound\.nii"):
        read_image(tmp_path / "many")


def test_label_maps_are_distinguished_from_images() -> None:
    random = np.random.default_rng(0)
    assert looks_like_label(np.array([[0, 1], [2, 4]], np.float32))
    assert looks_like_label(np.arange(118))  # a whole-body label map
    assert not looks_like_label(random.integers(0, 256, (20, 20, 20)))  # an 8-bit image
    assert not looks_like_label(random.integers(-1024, 1500, (20, 20, 20)))
    assert not looks_like_label(np.array([0, 0.5]))


def test_an_hu_offset_applied_twice_is_reported_but_scanner_padding_is_not() -> None:
    random = np.random.default_rng(0)
    hu = np.full((20, 22, 18), -1000.0, np.float32)
    hu[4:16, 4:18, 3:15] = random.normal(40, 20, (12, 14, 12))
    padded = hu.copy()
    padded[:2] = -2048
    window = CtWindow(50, 400)
    assert implausible_units([hu], window) is None
    assert implausible_units([padded], window) is None
    assert "applied twice; add 1024" in str(implausible_units([hu - 1024], window))
