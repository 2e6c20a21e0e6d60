"""`spleen reformat` as a command."""

import nibabel as nib
import numpy as np
import pytest
from typer.testing import CliRunner

from spleen.cli.main import app
from tests._helpers.nifti import save_stored_as
from tests._helpers.two_scans import AFFINE, SHAPE, body

pytest.importorskip("SimpleITK")

HU, LABEL = body()


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    save_stored_as(tmp_path / "ct.nii.gz", "PIR", HU, AFFINE)
    save_stored_as(tmp_path / "label.nii.gz", "LAS", LABEL, AFFINE)


def run(*arguments):
    return CliRunner().invoke(app, ["reformat", *map(str, arguments)])


def test_a_coronal_stack_holds_the_voxels_in_another_order() -> None:
    done = run("ct.nii.gz", "-o", "out.nii.gz", "--plane", "coronal", "--spacing-mm", "4,6,4")
    assert done.exit_code == 0, done.output
    written = nib.load("out.nii.gz")
    assert nib.aff2axcodes(written.affine) == ("R", "S", "A")
    np.testing.assert_array_equal(np.asarray(written.dataobj), HU.transpose(0, 2, 1))
    np.testing.assert_allclose(nib.as_closest_canonical(written).affine, AFFINE, atol=1e-4)


def test_slices_of_a_label_map_are_perpendicular_to_the_normal_and_hold_its_values() -> None:
    done = run("label.nii.gz", "-o", "out.nii.gz", "--normal", "1,0,1", "--spacing-mm", "2,3", "--mask")
    assert done.exit_code == 0, done.output
    written = nib.load("out.nii.gz")
    np.testing.assert_allclose(written.affine[:3, 2], np.array([1, 0, 1]) * 3 / np.sqrt(2), atol=1e-4)
    np.testing.assert_allclose(nib.affines.voxel_sizes(written.affine), (2, 2, 3), atol=1e-4)
    array = np.asarray(written.dataobj)
    assert set(np.unique(array)) == {0, 1}
    assert np.count_nonzero(array) * 12 == pytest.approx(np.count_nonzero(LABEL) * 96, rel=0.03)


@pytest.mark.parametrize("suffix", [".png", ".svg"])
def test_one_slice_becomes_a_picture(suffix, tmp_path) -> None:
    done = run(
        "ct.nii.gz", "-o", f"slice{suffix}", "--plane", "axial", "--angle", "-30", "--about", "left_right",
        "--angle", "10", "--about", "superior_inferior", "--through", "-40,-10,90", "--window", "40,400",
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    assert (tmp_path / f"slice{suffix}").stat().st_size > 2000


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["-o", "out.nii.gz"], "give either --plane"),
        (["-o", "out.nii.gz", "--plane", "axial", "--normal", "0,0,1"], "give either --plane"),
        (["-o", "out.nii.gz", "--plane", "axial", "--angle", "20"], "needs its --about"),
        (["-o", "out.nii.gz", "--plane", "axial", "--angle", "20", "--about", "z"], "turned about left_right"),
        (["-o", "out.nii.gz", "--plane", "axial", "--angle", "nan", "--about", "left_right"], "number of degrees"),
        (["-o", "out.nii.gz", "--normal", "0,0,1", "--angle", "2", "--about", "left_right"], "turn a --plane"),
        (["-o", "out.nii.gz", "--normal", "0,0,0"], "must be a direction"),
        (["-o", "out.nii.gz", "--normal", "1,2"], "three numbers"),
        (["-o", "out.nii.gz", "--plane", "axial", "--through", "900,0,0"], "lies outside of the image"),
        (["-o", "out.nii.gz", "--plane", "axial", "--spacing-mm", "0"], "above 0"),
        (["-o", "out.nii.gz", "--plane", "axial", "--spacing-mm", "1,2,3,4"], "one to three lengths"),
        (["-o", "out.nii.gz", "--plane", "axial", "--spacing-mm", "0.001"], "coarser spacing"),
        (["-o", "out.png", "--plane", "axial", "--spacing-mm", "0.001"], "coarser spacing"),
        (["-o", "out.nii.gz", "--plane", "axial", "--window", "lung"], "--window is for pictures"),
        (["-o", "out.png", "--plane", "axial", "--window", "odd"], "--window must be"),
        (["-o", "out.dcm", "--plane", "axial"], "must end in one of .nii.gz"),
        (["-o", "ct.nii.gz", "--plane", "axial", "--overwrite"], "which is read"),
        (["-o", "label.nii.gz", "--plane", "axial"], "add --overwrite"),
    ],
)
def test_wrong_options_are_refused(options, words) -> None:
    done = run("ct.nii.gz", *options)
    assert done.exit_code == 2, done.output
    assert words in done.output
    assert "Traceback" not in done.output


def test_a_single_slice_is_refused(tmp_path) -> None:
    nib.save(nib.Nifti1Image(HU[..., :1], AFFINE), tmp_path / "flat.nii.gz")
    done = run("flat.nii.gz", "-o", "out.nii.gz", "--plane", "coronal")
    assert done.exit_code == 2
    assert f"{SHAPE[0]} × {SHAPE[1]} × 1 voxels" in done.output
