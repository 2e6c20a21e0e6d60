"""Images that a run was trained on are recognised by their voxels, whatever their file names."""

import json
import logging
import shutil
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from spleen.data.pairing import pair_images
from spleen.inference.calibration.ensemble_weights import fit_weights
from spleen.inference.loading import load_ensemble
from spleen.inference.predict import predict
from spleen.inference.settings import PredictSettings
from spleen.inference.views.build import make_views
from tests._helpers.forged_checkpoints import forge_spec
from tests._helpers.many_cases import SPACING_MM, ManyCases, many_cases, quick
from tests._helpers.nifti import ras_affine, save_stored_as
from tests._helpers.trained_runs import scan, three_views


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> ManyCases:
    return many_cases(tmp_path_factory.mktemp("data"), 6)


@pytest.fixture(scope="module")
def folds(data: ManyCases, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("runs")
    first, second = (
        quick(folder, *data.decathlon, "split.folds=3", f"fold={fold}", name=f"fold{fold}") for fold in (0, 1)
    )
    return first, second


def cases(run: Path, split: str) -> list[str]:
    return json.loads((run / "split.json").read_text())[split]


def disguised(data: ManyCases, case_id: str, path: Path, change: float = 0) -> Path:
    """A case's image saved at `path` in another orientation, with `change` added to one voxel."""
    voxels = np.asarray(nib.load(data.image(case_id)).dataobj).copy()
    voxels[3, 2, 1] += change
    return save_stored_as(path, "PSL", voxels, ras_affine(SPACING_MM))


@pytest.mark.parametrize("split", ["train", "val"])
@pytest.mark.parametrize("alone", [False, True], ids=["run folder", "checkpoint alone"])
def test_a_training_image_is_recognised_under_another_name(
    data: ManyCases,
    folds: tuple[Path, Path],
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    split: str,
    alone: bool,
) -> None:
    run = folds[0]
    if alone:
        run = Path(shutil.copy(run / "checkpoints" / "best.ckpt", tmp_path))
    known = disguised(data, cases(folds[0], split)[0], tmp_path / "patient.nii")
    new = [data.image(case_id) for case_id in cases(folds[0], "test")]
    with caplog.at_level(logging.WARNING):
        report = predict(run, [known, *new], tmp_path / "masks")
    warning = "1 of 3 images are, voxel by voxel, images that these runs were trained on: patient. The scores of their"
    assert f"{warning} masks do not generalise to new cases" in caplog.text
    assert [case.case_id for case in report.cases if case.is_seen] == ["patient"]


def test_an_image_that_differs_in_one_voxel_is_not_reported(
    data: ManyCases, folds: tuple[Path, Path], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    near = disguised(data, cases(folds[0], "train")[0], tmp_path / "patient.nii", change=0.5)
    with caplog.at_level(logging.WARNING):
        (case,) = predict(folds[0], near, tmp_path / "mask.nii.gz").cases
    assert (case.is_seen, "learnt" in caplog.text) == (False, False)


def test_images_reported_by_name_are_not_reported_again_by_voxels(
    data: ManyCases, folds: tuple[Path, Path], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        report = predict(folds[0], data.root / "imagesTr", tmp_path / "masks")
    assert "4 of 6 images have the names of cases that these runs were trained on" in caplog.text
    assert "voxel by voxel" not in caplog.text
    assert sum(case.is_seen for case in report.cases) == 4


def test_a_training_image_named_like_a_held_out_case_is_refused(
    data: ManyCases, folds: tuple[Path, Path], tmp_path: Path
) -> None:
    first, second = cases(folds[0], "test")
    known = disguised(data, cases(folds[0], "train")[0], tmp_path / f"{first}.nii")
    report = predict(folds[0], [known, data.image(second)], tmp_path / "masks", PredictSettings(held_out=True))
    assert [case.case_id for case in report.cases] == [second]
    (failure,) = report.failures
    assert failure.image == known
    assert "is, voxel by voxel, an image that fold0 was trained on under another name" in failure.reason
    assert not (tmp_path / "masks" / f"{first}.nii").exists()


def test_a_volume_is_recognised_by_the_run_that_was_trained_on_its_slices(
    tmp_path_factory: pytest.TempPathFactory, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run = three_views(tmp_path_factory)[0]
    with caplog.at_level(logging.WARNING):
        predict(run, scan(tmp_path_factory).image, tmp_path / "mask.nii.gz")
    assert "1 of 1 images are, voxel by voxel, images that these runs were trained on" in caplog.text


def test_fitting_weights_on_training_images_is_reported(
    data: ManyCases, folds: tuple[Path, Path], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Each fold was trained on all but two of the six cases, and the other fold on those two."""
    views = make_views(load_ensemble(folds), PredictSettings())
    pairs = pair_images(data.root / "imagesTr", data.root / "labelsTr", 1)
    with caplog.at_level(logging.WARNING):
        fit_weights(views, pairs, 4, lambda name, done, total: None)
    warning = "6 of 6 images are, voxel by voxel, images that these runs were trained on: c0, c1, c2 and 3 more"
    assert warning in caplog.text
    assert "Weights fitted on them favour the runs that were trained on them" in caplog.text


def test_an_older_checkpoint_without_recorded_images_still_predicts(
    data: ManyCases, folds: tuple[Path, Path], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    old = forge_spec(folds[0], tmp_path / "old.ckpt", lambda spec: spec.update(seen_images=[]))
    with caplog.at_level(logging.WARNING):
        (case,) = predict(old, data.image(cases(folds[0], "train")[0]), tmp_path / "mask.nii.gz").cases
    assert (case.is_seen, caplog.text) == (False, "")
