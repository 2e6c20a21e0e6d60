"""Outputs that `predict` never overwrites, input that it refuses before computing anything, and images that fail."""

import gzip
import re
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from spleen.errors import InputError
from spleen.inference.predict import FailedImage, predict
from spleen.inference.record import read_record
from spleen.inference.settings import PredictSettings
from tests._helpers.forged_checkpoints import forge, forge_network
from tests._helpers.nifti import counting, ras_affine, save
from tests._helpers.small_run import SPACING_MM, SmallCt
from tests._helpers.trained_runs import file_names, scan, three_views, voxels

AFFINE = ras_affine(SPACING_MM)


@pytest.fixture(scope="module")
def ct(tmp_path_factory: pytest.TempPathFactory) -> SmallCt:
    return scan(tmp_path_factory)


@pytest.fixture(scope="module")
def views(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return three_views(tmp_path_factory)


def test_images_in_implausible_units_are_reported_in_one_warning(
    ct: SmallCt, views: list[Path], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    images = tmp_path / "images"
    images.mkdir()
    for name, hu in (("a", ct.hu), ("b", ct.hu - ct.hu.min()), ("c", ct.hu - ct.hu.min())):
        save(images / f"{name}.nii", hu, AFFINE)
    report = predict(views, images, tmp_path / "out")
    assert [case.implausible_units is None for case in report.cases] == [True, False, False]
    (record,) = (record for record in caplog.records if record.name == "spleen.inference.predict")
    assert re.match(r"b: intensities from 0 to \d+.* cannot be Hounsfield units \(no voxel is", record.getMessage())
    assert record.getMessage().endswith(" (same problem in 2 of 3 images); the runs expect Hounsfield units")


# Existing outputs ---------------------------------------------------------------------------------------------------


def test_an_existing_output_is_reported_before_anything_is_computed(
    ct: SmallCt, views: list[Path], tmp_path: Path
) -> None:
    save(tmp_path / "a.nii", ct.hu, AFFINE)
    save(tmp_path / "b.nii", ct.hu, AFFINE)
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "b.nii.gz").write_bytes(b"mine")
    with pytest.raises(InputError, match="1 of 2 outputs exist already"):
        predict(views[0], tmp_path, tmp_path / "out")
    assert file_names(tmp_path / "out") == {"b.nii.gz"}
    report = predict(views[0], tmp_path, tmp_path / "out", PredictSettings(skip_existing=True))
    assert ([case.case_id for case in report.cases], report.kept) == (["a", "b"], 0)
    assert (tmp_path / "out" / "b.nii.gz.earlier").read_bytes() == b"mine"
    report = predict(views[0], tmp_path, tmp_path / "out", PredictSettings(skip_existing=True))
    assert (report.cases, report.kept) == ((), 2)
    (tmp_path / "out" / "predictions.csv").unlink()  # as if the record had failed: the masks are nobody's once more
    predict(views[0], tmp_path, tmp_path / "out", PredictSettings(skip_existing=True))
    assert (tmp_path / "out" / "b.nii.gz.earlier").read_bytes() == b"mine"
    assert (tmp_path / "out" / "b.nii.gz.earlier2").exists()
    report = predict(views[0], tmp_path, tmp_path / "out", PredictSettings(overwrite=True))
    assert (len(report.cases), report.kept) == (2, 0)
    np.testing.assert_array_equal(voxels(tmp_path / "out" / "b.nii.gz"), voxels(tmp_path / "out" / "a.nii.gz"))
    assert len(read_record(tmp_path / "out" / "predictions.csv")) == 2


@pytest.mark.parametrize("output", ["a.nii", "."])
def test_the_image_itself_is_never_overwritten(ct: SmallCt, views: list[Path], tmp_path: Path, output: str) -> None:
    image = save(tmp_path / "a.nii.gz", ct.hu, AFFINE)
    if output != ".":
        image = image.rename(tmp_path / "a.nii")
    with pytest.raises(InputError, match="would overwrite the image"):
        predict(views[0], image, tmp_path / output, PredictSettings(overwrite=True))


def test_a_foreign_predictions_csv_is_reported_before_anything_is_computed(
    ct: SmallCt, views: list[Path], tmp_path: Path
) -> None:
    (tmp_path / "predictions.csv").write_text("patient,age\nx,70\n")
    with pytest.raises(InputError, match="was not written by this version"):
        predict(views[0], ct.image, tmp_path / "mask.nii.gz")
    assert file_names(tmp_path) == {"predictions.csv"}


@pytest.mark.parametrize("folder", ["file/deeper", "/proc/self"])
def test_a_folder_that_cannot_be_written_to_is_reported_before_anything_is_computed(
    ct: SmallCt, views: list[Path], tmp_path: Path, folder: str
) -> None:
    (tmp_path / "file").touch()
    if folder == "/proc/self" and not Path(folder).is_dir():
        pytest.skip("this system has no /proc")
    with pytest.raises(InputError, match=r"nothing can be written into .*; give another --output"):
        predict(views[0], ct.image, tmp_path / folder / "mask.nii.gz")


# Images that fail ---------------------------------------------------------------------------------------------------


def test_failing_images_are_reported_and_do_not_stop_the_others(ct: SmallCt, views: list[Path], tmp_path: Path) -> None:
    images = tmp_path / "images"
    images.mkdir()
    good = save(images / "b_good.nii.gz", ct.hu, AFFINE)
    save(images / "z_good.nii.gz", ct.hu, AFFINE)
    whole = gzip.compress(gzip.decompress(good.read_bytes()))
    (images / "a_cut.nii.gz").write_bytes(whole[: len(whole) // 2])
    (images / "c_text.nii").write_text("no volume\n" * 60)
    save(images / "d_film.nii", counting((5, 7, 3, 2)), AFFINE)
    save(images / "e_hole.nii", np.where(ct.hu < -900, np.nan, ct.hu), AFFINE)
    save(images / "f_flat.nii", np.zeros((5, 7, 3), np.int16), AFFINE)
    singular = nib.Nifti1Image(counting(), None)
    singular.set_sform(np.diag([0.8, 0.8, 0.0, 1.0]), 1)
    nib.save(singular, images / "g_singular.nii")
    report = predict(views[0], images, tmp_path / "out")
    assert [case.case_id for case in report.cases] == ["b_good", "z_good"]
    assert file_names(tmp_path / "out") == {"b_good.nii.gz", "z_good.nii.gz", "predictions.csv"}
    reasons = {failure.image.name: failure.reason for failure in report.failures}
    assert list(reasons) == [
        "a_cut.nii.gz", "c_text.nii", "d_film.nii", "e_hole.nii", "f_flat.nii", "g_singular.nii",
    ]  # fmt: skip
    for name, message in {
        "a_cut.nii.gz": "is damaged or truncated",
        "c_text.nii": "cannot be read as NIfTI",
        "d_film.nii": "has 4 dimensions",
        "e_hole.nii": "voxels are NaN or Inf",
        "f_flat.nii": "every voxel has the intensity 0",
        "g_singular.nii": "singular",
    }.items():
        assert message in reasons[name]


def test_an_image_deleted_during_prediction_is_reported_as_a_failure(
    ct: SmallCt, views: list[Path], tmp_path: Path
) -> None:
    for name in "ab":
        save(tmp_path / f"{name}.nii", ct.hu, AFFINE)
    report = predict(
        views[0], tmp_path, tmp_path / "out", advance=lambda *_: (tmp_path / "b.nii").unlink(missing_ok=True)
    )
    assert [case.case_id for case in report.cases] == ["a"]
    assert report.failures == (
        FailedImage(tmp_path / "b.nii", f"{tmp_path / 'b.nii'}: no such file (looked in {tmp_path})"),
    )


MOODY = """
import torch
class Moody(torch.nn.Module):
    def __init__(self, in_channels, out_channels):
        super().__init__()
    def forward(self, image):
        if image.max() < -0.5:
            raise KeyError("mood")
        return torch.cat([-image, image], dim=1)
"""


def test_an_exception_in_the_network_does_not_stop_the_other_images(
    ct: SmallCt, views: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "moody_networks.py").write_text(MOODY)
    monkeypatch.syspath_prepend(tmp_path)
    network = {"_target_": "moody_networks.Moody", "in_channels": 1, "out_channels": 2}
    forged = forge_network(views[0], tmp_path / "moody" / "checkpoints" / "best.ckpt", network)
    run = forge(forged.parents[1], tmp_path / "moody.ckpt", lambda content: content.update(state_dict={}))
    for name, hu in {"a": ct.hu, "b": np.minimum(ct.hu, -200), "c": ct.hu}.items():
        save(tmp_path / f"{name}.nii", hu, AFFINE)
    report = predict(run, tmp_path, tmp_path / "out", PredictSettings(allow_custom_code=True))
    assert [case.case_id for case in report.cases] == ["a", "c"]
    assert report.failures == (FailedImage(tmp_path / "b.nii", "KeyError: 'mood'"),)
    assert file_names(tmp_path / "out") == {"a.nii.gz", "c.nii.gz", "predictions.csv"}
