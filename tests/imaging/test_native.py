"""Images read in their stored type, and results written on the native grid."""

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813

from spleen.errors import InputError
from spleen.imaging.native import read_native, write_channels_like, write_like
from spleen.imaging.nifti import read_image
from tests._helpers.nifti import ORIENTATIONS, SHAPE, SPACING_MM, box, counting, ras_affine, save, save_stored_as

OBLIQUE = ras_affine() @ nib.affines.from_matvec(
    nib.eulerangles.euler2mat(0.2, -0.15, 0.3), [3.0, -2.0, 1.0]
)  # by 11°, -9° and 17°


def header_facts(path: Path) -> dict[str, object]:
    """What a file says about its grid, as nibabel reads it."""
    nifti = nib.load(path)
    header = nifti.header
    return {
        "shape": nifti.shape,
        "affine": nifti.affine.tolist(),
        "sform": (int(header["sform_code"]), header.get_sform().tolist()),
        "qform": (int(header["qform_code"]), header.get_qform().tolist()),
        "pixdim": header["pixdim"].tolist(),
        "units": header.get_xyzt_units(),
        "sizeof_hdr": int(header["sizeof_hdr"]),
    }


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.uint16, np.int32, ">i2"])
def test_integers_keep_their_stored_type(tmp_path: Path, dtype: str) -> None:
    path = save_stored_as(tmp_path / "ct.nii.gz", "LPS", counting(dtype=np.dtype(dtype)))
    image = read_native(path)
    assert image.channels[0].dtype.itemsize == np.dtype(dtype).itemsize
    np.testing.assert_array_equal(image.channels[0], counting())
    assert image.spacing_mm == pytest.approx(SPACING_MM)


@pytest.mark.parametrize("dtype", [np.float32, np.float64, ">f4"])
def test_floats_are_converted_to_single_precision(tmp_path: Path, dtype: str) -> None:
    path = save_stored_as(tmp_path / "ct.nii.gz", "LPS", counting(dtype=np.dtype(dtype)) / np.dtype(dtype).type(4))
    image = read_native(path)
    assert image.channels[0].dtype == np.float32
    np.testing.assert_array_equal(image.channels[0], counting() / 4)


def test_scaled_integers_match_simpleitk(tmp_path: Path) -> None:
    path = save(tmp_path / "ct.nii.gz", counting(dtype=np.int16), ras_affine(), slope=0.25, inter=-1024)
    expected = sitk.GetArrayFromImage(sitk.ReadImage(str(path))).transpose()  # from k j i
    image = read_native(path)
    assert image.channels[0].dtype == np.float32
    np.testing.assert_allclose(image.channels[0], expected, rtol=1e-6)


def test_the_channel_is_a_view_of_the_array_read(tmp_path: Path) -> None:
    image = read_native(save_stored_as(tmp_path / "ct.nii.gz", "LPS", counting(dtype=np.int16)))
    assert not image.channels[0].flags.owndata


def test_reading_fails_if_the_memory_needed_by_the_caller_is_not_available(tmp_path: Path) -> None:
    path = save(tmp_path / "ct.nii.gz", counting(dtype=np.int16), ras_affine())
    with pytest.raises(InputError, match=r"5 × 7 × 3 voxels, which need about .* GiB"):
        read_native(path, bytes_per_voxel=10**15)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_nan_and_inf_voxels_are_counted(tmp_path: Path, bad: float) -> None:
    array = counting()
    array[2, 3, 1] = bad
    with pytest.raises(InputError, match="1 of 105 voxels are NaN or Inf"):
        read_native(save(tmp_path / "ct.nii.gz", array, ras_affine()))


# Writing on the same grid -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stored", ORIENTATIONS)
def test_a_result_is_written_on_the_grid_of_the_image_in_every_orientation(tmp_path: Path, stored: str) -> None:
    path = save_stored_as(tmp_path / "ct.nii.gz", stored, counting(dtype=np.int16), OBLIQUE)
    image = read_native(path)
    np.testing.assert_array_equal(image.channels[0], counting())
    write_like(tmp_path / "mask.nii.gz", image.channels[0], image)
    assert header_facts(tmp_path / "mask.nii.gz") == header_facts(path)
    np.testing.assert_array_equal(nib.load(tmp_path / "mask.nii.gz").dataobj, nib.load(path).dataobj)


@pytest.mark.parametrize("codes", [(1, 0), (0, 1), (2, 1), (4, 3), (0, 0)], ids=lambda codes: "s{} q{}".format(*codes))
@pytest.mark.parametrize("unit", ["mm", "micron", "meter", "unknown"])
def test_sform_and_qform_codes_and_units_are_preserved(tmp_path: Path, codes: tuple[int, int], unit: str) -> None:
    nifti = nib.Nifti1Image(counting(dtype=np.int16), None)
    nifti.header.set_zooms((0.7, 0.9, 4.0))
    nifti.set_qform(OBLIQUE, codes[1])
    nifti.set_sform(ras_affine(), codes[0])
    nifti.header.set_xyzt_units(unit, "msec")
    nib.save(nifti, tmp_path / "ct.nii.gz")
    image = read_native(tmp_path / "ct.nii.gz")
    write_like(tmp_path / "mask.nii.gz", box().astype(np.uint8), image)
    facts = header_facts(tmp_path / "mask.nii.gz")
    assert facts == header_facts(tmp_path / "ct.nii.gz")
    assert (facts["sform"][0], facts["qform"][0], facts["units"]) == (*codes, (unit, "msec"))
    factor = {"micron": 1e-3, "meter": 1e3}.get(unit, 1.0)
    np.testing.assert_allclose(image.file_affine, np.diag([factor] * 3 + [1]) @ np.array(facts["affine"]))


def test_a_big_endian_nifti_2_file_with_one_channel_keeps_its_header(tmp_path: Path) -> None:
    header = nib.Nifti2Header(endianness=">")
    header.set_data_dtype(">i2")
    nib.save(nib.Nifti2Image(counting((*SHAPE, 1), np.int16), OBLIQUE, header), tmp_path / "ct.nii")
    write_like(tmp_path / "mask.nii.gz", box().astype(np.uint8), read_native(tmp_path / "ct.nii"))
    facts = header_facts(tmp_path / "mask.nii.gz")
    assert facts == header_facts(tmp_path / "ct.nii")
    assert (facts["shape"], facts["sizeof_hdr"]) == ((*SHAPE, 1), 540)
    np.testing.assert_array_equal(nib.load(tmp_path / "mask.nii.gz").dataobj[..., 0], box())


def test_a_result_for_an_hdr_img_pair_is_one_file_on_its_grid(tmp_path: Path) -> None:
    pair = nib.Nifti1Pair(counting(dtype=np.int16), OBLIQUE)
    pair.set_sform(OBLIQUE, 2)
    pair.set_qform(OBLIQUE, 1)
    pair.header.set_xyzt_units("mm", "sec")
    nib.save(pair, tmp_path / "ct.img")
    for name in ("ct.img", "ct.hdr"):
        write_like(tmp_path / "mask.nii.gz", box().astype(np.uint8), read_native(tmp_path / name))
        assert header_facts(tmp_path / "mask.nii.gz") == header_facts(tmp_path / "ct.img")
        np.testing.assert_array_equal(nib.load(tmp_path / "mask.nii.gz").dataobj, box())


def test_intensity_fields_of_the_header_are_not_copied_to_the_result(tmp_path: Path) -> None:
    nifti = nib.Nifti1Image(counting(dtype=np.int16), ras_affine())
    nifti.header.set_slope_inter(0.5, -1024)
    nifti.header["cal_min"], nifti.header["cal_max"] = -150, 250
    nifti.header.set_intent("t test", (10,))
    nifti.header.extensions.append(nib.nifti1.Nifti1Extension("comment", b"Jane Doe"))
    nib.save(nifti, tmp_path / "ct.nii.gz")
    write_like(tmp_path / "mask.nii", box(value=300).astype(np.uint16), read_native(tmp_path / "ct.nii.gz"))
    mask = nib.load(tmp_path / "mask.nii")
    assert mask.get_data_dtype() == np.uint16
    np.testing.assert_array_equal(mask.get_fdata(), box(value=300))
    assert (float(mask.header["cal_min"]), float(mask.header["cal_max"])) == (0, 0)
    assert mask.header.get_intent()[0] == "none"
    assert len(mask.header.extensions) == 0
    assert b"Jane" not in (tmp_path / "mask.nii").read_bytes()


@pytest.mark.parametrize("n_channels", [1, 2])
@pytest.mark.parametrize("file_shape", [SHAPE, (*SHAPE, 1)], ids=["3D", "4D"])
def test_several_probability_maps_are_stored_along_the_fourth_dimension(
    tmp_path: Path, n_channels: int, file_shape: tuple[int, ...]
) -> None:
    path = tmp_path / "ct.nii.gz"
    save(path, counting(dtype=np.int16)[::-1].reshape(file_shape), ras_affine() @ np.diag([-1, 1, 1, 1]))
    image = read_native(path)
    np.testing.assert_array_equal(image.channels[0], counting())
    channels = np.stack([counting() / (200 + channel) for channel in range(n_channels)])
    write_channels_like(tmp_path / "p.nii.gz", channels, image)
    written = nib.load(tmp_path / "p.nii.gz")
    assert written.get_data_dtype() == np.float32
    assert written.shape == (file_shape if n_channels == 1 else (*SHAPE, 2))
    np.testing.assert_array_equal(written.affine, nib.load(path).affine)
    stored = np.asarray(written.dataobj).reshape(*SHAPE, n_channels)
    np.testing.assert_array_equal(stored[::-1].transpose(3, 0, 1, 2), channels)


def test_both_readers_give_the_same_voxels_on_the_same_grid(tmp_path: Path) -> None:
    path = save_stored_as(tmp_path / "ct.nii.gz", "SLP", counting(dtype=np.int16), OBLIQUE)
    native, volume = read_native(path), read_image(path)
    np.testing.assert_array_equal(native.channels[0], volume.array)
    np.testing.assert_array_equal(native.affine, volume.affine)


# Several channels ---------------------------------------------------------------------------------------------------


def two_channels() -> list[np.ndarray]:
    return [counting(dtype=np.int16), counting() / 4 - 7]


@pytest.mark.parametrize("orientations", [("RAS", "RAS"), ("LPS", "LPS"), ("PIR", "SAL")])
def test_channels_in_separate_files_are_read_onto_one_grid(tmp_path: Path, orientations: tuple[str, str]) -> None:
    paths = [
        save_stored_as(tmp_path / f"a_{number:04d}.nii.gz", orientation, channel, OBLIQUE)
        for number, (orientation, channel) in enumerate(zip(orientations, two_channels(), strict=True))
    ]
    image = read_native(*paths, n_channels=2)
    for channel, expected in zip(image.channels, two_channels(), strict=True):
        assert channel.dtype == expected.dtype
        assert not channel.flags.owndata
        np.testing.assert_array_equal(channel, expected)
    assert image.shape == SHAPE
    write_like(tmp_path / "mask.nii.gz", image.channels[0], image)
    assert header_facts(tmp_path / "mask.nii.gz") == header_facts(paths[0])
    np.testing.assert_array_equal(nib.load(tmp_path / "mask.nii.gz").dataobj, nib.load(paths[0]).dataobj)


@pytest.mark.parametrize("kind", [nib.Nifti1Image, nib.Nifti2Image])
@pytest.mark.parametrize("dtype", [np.int16, np.float64])
@pytest.mark.parametrize("between", [(), (1,)], ids=["4D", "5D"])
def test_channels_in_one_file_are_its_last_dimension_and_the_mask_is_3d(
    tmp_path: Path, kind: type, dtype: type, between: tuple[int, ...]
) -> None:
    stored = np.stack([counting()[::-1], counting()[::-1] + 200], axis=-1).reshape(*SHAPE, *between, 2)
    nifti = kind(stored.astype(dtype), ras_affine() @ np.diag([-1, 1, 1, 1]))
    nifti.header.set_zooms((0.8, 0.8, 5.0, *(3.0 for _ in between), 2.5))
    nib.save(nifti, tmp_path / "mr.nii.gz")
    image = read_native(tmp_path / "mr.nii.gz", n_channels=2)
    assert {channel.dtype for channel in image.channels} == {np.dtype(np.int16 if dtype == np.int16 else np.float32)}
    assert not any(channel.flags.owndata for channel in image.channels)
    np.testing.assert_array_equal(image.channels[0], counting())
    np.testing.assert_array_equal(image.channels[1], counting() + 200)
    write_like(tmp_path / "mask.nii.gz", box().astype(np.uint8), image)
    write_channels_like(tmp_path / "p.nii.gz", np.stack([counting(), counting(), counting()]), image)
    mask, probabilities = nib.load(tmp_path / "mask.nii.gz"), nib.load(tmp_path / "p.nii.gz")
    assert (mask.shape, probabilities.shape) == (SHAPE, (*SHAPE, 3))
    assert [int(size) for size in mask.header["dim"]] == [3, *SHAPE, 1, 1, 1, 1]
    for written in (mask, probabilities):
        assert type(written) is kind
        np.testing.assert_array_equal(written.header["pixdim"][4:], 1)
        np.testing.assert_array_equal(written.affine, nib.load(tmp_path / "mr.nii.gz").affine)
        assert written.header.get_xyzt_units() == nifti.header.get_xyzt_units()
    np.testing.assert_array_equal(np.asarray(mask.dataobj)[::-1], box())


@pytest.mark.parametrize(
    ("shape", "n_channels", "message"),
    [
        (SHAPE, 2, r"a\.nii has 1 channel\(s\), but the run was trained on 2; .* CASE_0000 to CASE_0001"),
        ((*SHAPE, 3), 2, r"a\.nii has 3 channel\(s\), but the run was trained on 2"),
        ((*SHAPE, 2), 1, r"a\.nii has 4 dimensions"),
    ],
)
def test_a_wrong_number_of_channels_is_reported(
    tmp_path: Path, shape: tuple[int, ...], n_channels: int, message: str
) -> None:
    path = save(tmp_path / "a.nii", counting(shape), ras_affine())
    with pytest.raises(InputError, match=message):
        read_native(path, n_channels=n_channels)


def test_channels_on_different_grids_are_reported_with_their_distance(tmp_path: Path) -> None:
    moved = ras_affine()
    moved[1, 3] += 1.5
    paths = [save(tmp_path / "a.nii", counting(), ras_affine()), save(tmp_path / "b.nii", counting(), moved)]
    with pytest.raises(InputError, match=r"a\.nii and .*b\.nii are on different grids: .* 1\.5 mm apart"):
        read_native(*paths, n_channels=2)
    assert len(read_native(*paths, n_channels=2, tolerance_mm=2.0).channels) == 2
    with pytest.raises(InputError, match=r"5 × 7 × 3 and 5 × 7 × 2"):
        read_native(paths[0], save(tmp_path / "c.nii", counting((5, 7, 2)), ras_affine()), n_channels=2)


def test_nan_voxels_are_detected_in_every_channel(tmp_path: Path) -> None:
    bad = counting()
    bad[2, 3, 1] = np.nan
    good, wrong = save(tmp_path / "a.nii", counting(), ras_affine()), save(tmp_path / "b.nii", bad, ras_affine())
    with pytest.raises(InputError, match=r"b\.nii: 1 of 105 voxels are NaN or Inf"):
        read_native(good, wrong, n_channels=2)


def test_the_memory_estimate_counts_each_voxel_once_for_all_channels(tmp_path: Path) -> None:
    """2⁵⁰ bytes for each of 105 voxels, whether they are read in one channel or two: 105 PiB."""
    one = save(tmp_path / "a.nii", counting((*SHAPE, 2)), ras_affine())
    two = [save(tmp_path / f"a_{number}.nii", counting(), ras_affine()) for number in range(2)]
    for paths in ([one], two):
        with pytest.raises(InputError, match=r"need about 110,100,480\.0 GiB"):
            read_native(*paths, n_channels=2, bytes_per_voxel=2**50)
