"""`spleen register` as a command: what it writes and says, and what it refuses."""

import nibabel as nib
import numpy as np
import pytest
from typer.testing import CliRunner

from spleen.cli.main import app
from spleen.dicom.write_series import write_series
from tests._helpers.nifti import save, save_stored_as
from tests._helpers.two_scans import AFFINE, SHAPE, SPACING_MM, body

sitk = pytest.importorskip("SimpleITK")

SHIFT_MM = (8.0, -8.0, 12.0)  # whole voxels: 2, -2, 2


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    """Two scans of a body that has moved, stored in other orientations, with the labels of its organ."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    for name, shift, orientation in (("fixed", (0, 0, 0), "LPS"), ("moving", SHIFT_MM, "RAS")):
        hu, label = body(shift)
        save_stored_as(tmp_path / f"{name}.nii.gz", orientation, hu, AFFINE)
        save_stored_as(tmp_path / f"{name}_label.nii.gz", orientation, label, AFFINE)


def run(*arguments):
    return CliRunner().invoke(app, ["register", *map(str, arguments)])


def test_a_moved_scan_comes_back_on_the_grid_of_the_fixed_one(tmp_path) -> None:
    done = run(
        "moving.nii.gz", "fixed.nii.gz", "-o", "moved.nii.gz", "--transform", "out.tfm", "--inverse", "back.tfm",
        "--label", "moving_label.nii.gz", "--fixed-label", "fixed_label.nii.gz", "--moved-label", "moved_label.nii.gz",
        "--picture", "picture.png",
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    fixed, moved = nib.load("fixed.nii.gz"), nib.load("moved.nii.gz")
    np.testing.assert_allclose(moved.affine, fixed.affine, atol=1e-4)
    assert moved.get_data_dtype() == np.int16
    inner = (slice(6, -6),) * 3
    assert np.abs(moved.get_fdata()[inner] - fixed.get_fdata()[inner]).mean() < 15
    labels = [np.asarray(nib.load(name).dataobj) > 0 for name in ("fixed_label.nii.gz", "moved_label.nii.gz")]
    dice = 2 * (labels[0] & labels[1]).sum() / (labels[0].sum() + labels[1].sum())
    assert dice > 0.97
    (line,) = (line for line in done.output.splitlines() if "Dice of label 1" in line)
    before, after = (float(word) for word in line.split()[-2:])
    assert before < 0.75
    assert after == pytest.approx(dice, abs=1e-4)
    # LPS: 8 mm to the right is -8, 8 mm to posterior is +8.
    there, back = sitk.ReadTransform("out.tfm"), sitk.ReadTransform("back.tfm")
    found = np.array(there.TransformPoint((40.0, 10.0, 90.0))) - (40, 10, 90)
    np.testing.assert_allclose(found, (-8, 8, 12), atol=0.7)
    np.testing.assert_allclose(back.TransformPoint(there.TransformPoint((1.0, 2.0, 3.0))), (1, 2, 3), atol=1e-6)
    for word in ("mutual information", "turned by", "wrote moved.nii.gz", "wrote picture.png"):
        assert word in done.output
    assert (tmp_path / "picture.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.slow
def test_a_dicom_series_can_be_the_fixed_scan(tmp_path) -> None:
    hu, _ = body()
    write_series(tmp_path / "series", hu, AFFINE)
    done = run("moving.nii.gz", "series", "-o", "moved.nii.gz")
    assert done.exit_code == 0, done.output
    moved = nib.as_closest_canonical(nib.load("moved.nii.gz"))
    assert moved.shape == SHAPE
    np.testing.assert_allclose(moved.affine, AFFINE, atol=1e-3)
    assert np.abs(moved.get_fdata() - hu)[6:-6, 6:-6, 6:-6].mean() < 15


def refused(*arguments):
    done = run(*arguments)
    assert done.exit_code == 2, done.output
    assert "Traceback" not in done.output
    return done.output


@pytest.mark.slow
def test_a_file_that_exists_is_kept_unless_overwrite_is_given(tmp_path) -> None:
    (tmp_path / "moved.nii.gz").write_text("mine")
    assert "moved.nii.gz exists already; add --overwrite" in refused(
        "moving.nii.gz", "fixed.nii.gz", "-o", "moved.nii.gz"
    )
    assert (tmp_path / "moved.nii.gz").read_text() == "mine"
    assert run("moving.nii.gz", "fixed.nii.gz", "-o", "moved.nii.gz", "--overwrite").exit_code == 0
    assert nib.load("moved.nii.gz").shape == SHAPE


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["-o", "moving.nii.gz", "--overwrite"], "moving.nii.gz is MOVING, which is read"),
        (["-o", "moved.mha"], "must end in one of .nii.gz, .nii"),
        (["-o", "out.nii.gz", "--transform", "out.txt"], "must end in one of .tfm, .h5"),
        (["-o", "out.nii.gz", "--picture", "out.bmp"], "must end in one of .png"),
        (["-o", "out.nii.gz", "--transform", "a.tfm", "--inverse", "a.tfm"], "would both write a.tfm"),
        (["-o", "out.nii.gz", "--label", "moving_label.nii.gz"], "--label alone does nothing"),
        (["-o", "out.nii.gz", "--fixed-label", "fixed_label.nii.gz"], "add --label"),
        (["-o", "out.nii.gz", "--mask", "other_grid.nii.gz"], "are on different grids"),
        (["-o", "out.nii.gz", "--mask", "empty.nii.gz"], "the mask holds 0 voxels"),
        (["-o", "out.nii.gz", "--mask", "missing.nii.gz"], "missing.nii.gz"),
    ],
)
def test_wrong_options_are_refused(options, words, tmp_path) -> None:
    save(tmp_path / "other_grid.nii.gz", np.ones((5, 7, 3), np.uint8), AFFINE)
    save_stored_as(tmp_path / "empty.nii.gz", "RAS", np.zeros(SHAPE, np.uint8), AFFINE)
    assert words in refused("moving.nii.gz", "fixed.nii.gz", *options)
    assert not (tmp_path / "out.nii.gz").exists()


@pytest.mark.parametrize(
    ("shape", "affine", "words"),
    [
        ((40, 44), AFFINE, "2 dimensions"),
        ((40, 44, 1), AFFINE, "40 × 44 × 1 voxels; a volume needs at least 4"),
        (SHAPE, np.diag([*(mm / 1000 for mm in SPACING_MM), 1.0]), "another unit than mm"),
        ((8, 8, 8, 2), AFFINE, "must be 3D"),
    ],
)
def test_a_moving_image_that_is_no_scan_is_refused(shape, affine, words, tmp_path) -> None:
    array = np.random.default_rng(0).integers(0, 100, shape).astype(np.int16)
    nib.save(nib.Nifti1Image(array, affine), tmp_path / "odd.nii.gz")
    assert words in refused("odd.nii.gz", "fixed.nii.gz", "-o", "out.nii.gz")


def test_without_simpleitk_it_says_how_to_get_it(monkeypatch) -> None:
    monkeypatch.setattr("spleen.registration.grids.find_spec", lambda name: None)
    assert "pip install 'spleen[registration]'" in refused("moving.nii.gz", "fixed.nii.gz", "-o", "out.nii.gz")
