"""Predicting each case only with the runs that held it out, so that no score is of a training case."""

import json
import logging
import shutil
from pathlib import Path

import pytest
from typer.testing import CliRunner

from spleen.cli.main import app
from spleen.errors import InputError
from spleen.inference.predict import predict
from spleen.inference.settings import PredictSettings
from tests._helpers.many_cases import ManyCases, many_cases, quick
from tests._helpers.trained_runs import voxels

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> ManyCases:
    return many_cases(tmp_path_factory.mktemp("data"), 6)


@pytest.fixture(scope="module")
def runs(data: ManyCases, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Folds 0 and 1 of 3 along the coronal axis, and fold 0 along the axial axis."""
    folder = tmp_path_factory.mktemp("runs")
    return {
        f"{axis}{fold}": quick(
            folder, *data.decathlon, "split.folds=3", f"fold={fold}", f"axis={axis}", name=f"{axis}{fold}"
        )
        for axis, fold in (("coronal", 0), ("coronal", 1), ("axial", 0))
    }


def held_out_by(run: Path) -> list[str]:
    return json.loads((run / "split.json").read_text())["test"]


def test_each_case_is_predicted_by_the_runs_that_held_it_out_and_other_cases_are_skipped(
    data: ManyCases, runs: dict[str, Path], tmp_path: Path
) -> None:
    settings = PredictSettings(held_out=True, probabilities=True, weights=(3, 1, 1))
    report = predict(list(runs.values()), data.root / "imagesTr", tmp_path / "masks", settings)
    first, second = held_out_by(runs["coronal0"]), held_out_by(runs["coronal1"])
    assert len(set(first) | set(second)) == 4  # two cases each, and no case in both
    assert {case.case_id for case in report.cases} == {*first, *second}
    assert (report.left_out, report.kept, report.failures) == (2, 0, ())
    for case_id, held_out_runs, weights in (
        (first[0], (runs["coronal0"], runs["axial0"]), (3, 1)),
        (second[1], (runs["coronal1"],), (1,)),
    ):
        expected = tmp_path / f"{case_id}.nii.gz"
        predict(held_out_runs, data.image(case_id), expected, PredictSettings(probabilities=True, weights=weights))
        for name in (f"{case_id}.nii.gz", f"{case_id}_probabilities.nii.gz"):
            assert (voxels(tmp_path / "masks" / name) == voxels(tmp_path / name)).all()


def test_masks_of_other_folds_in_the_same_folder_are_ignored(
    data: ManyCases, runs: dict[str, Path], tmp_path: Path
) -> None:
    for run in (runs["coronal0"], runs["coronal1"]):
        report = predict(run, data.root / "imagesTr", tmp_path / "masks", PredictSettings(held_out=True))
        assert (len(report.cases), report.left_out) == (2, 4)
    with pytest.raises(InputError, match="2 of 2 outputs exist already"):
        predict(runs["coronal0"], data.root / "imagesTr", tmp_path / "masks", PredictSettings(held_out=True))


def test_the_commands_predict_and_score_a_cross_validated_ensemble(
    data: ManyCases, runs: dict[str, Path], tmp_path: Path
) -> None:
    study, masks = str(runs["axial0"].parent), str(tmp_path / "masks")
    result = CliRunner().invoke(app, ["predict", study, str(data.root / "imagesTr"), "-o", masks, "--held-out"])
    assert result.exit_code == 0, result.output
    assert "4 predicted, 0 kept, 0 failed, 2 left out that no run held out: " in result.output
    scored = CliRunner().invoke(app, ["evaluate", masks, str(data.root / "labelsTr"), "--only-predicted"])
    assert "4 cases, 2 classes (front = 1, back = 2)" in scored.output


def test_images_that_a_run_was_trained_on_are_reported(
    data: ManyCases, runs: dict[str, Path], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    held_out = held_out_by(runs["coronal0"])
    with caplog.at_level(logging.WARNING):
        predict(runs["coronal0"], [data.image(case_id) for case_id in held_out], tmp_path / "new")
    assert "learnt" not in caplog.text
    with caplog.at_level(logging.WARNING):
        predict(runs["coronal0"], data.root / "imagesTr", tmp_path / "all")
    assert "4 of 6 images have the names of cases that these runs were trained on: " in caplog.text


def test_a_checkpoint_without_its_run_folder_is_refused(data: ManyCases, runs: dict[str, Path], tmp_path: Path) -> None:
    alone = tmp_path / "best.ckpt"
    shutil.copy(runs["coronal0"] / "checkpoints" / "best.ckpt", alone)
    images = data.root / "imagesTr"
    with pytest.raises(InputError, match=r"needs run folders of trainings that held out whole cases; .*best\.ckpt"):
        predict([runs["coronal1"], alone], images, tmp_path / "masks", PredictSettings(held_out=True))
    assert not (tmp_path / "masks").exists()
    assert len(predict(alone, images, tmp_path / "masks").cases) == 6


def test_images_that_match_no_held_out_case_are_refused(data: ManyCases, runs: dict[str, Path], tmp_path: Path) -> None:
    image = tmp_path / "patient.nii.gz"
    shutil.copy(data.image("c0"), image)
    held_out = ", ".join(sorted(held_out_by(runs["coronal0"])))
    with pytest.raises(InputError, match=rf"no image has the name of .* \({held_out}\)"):
        predict(runs["coronal0"], image, tmp_path / "mask.nii.gz", PredictSettings(held_out=True))


def test_weights_are_not_fitted_on_cases_that_only_some_runs_held_out(
    data: ManyCases, runs: dict[str, Path], tmp_path: Path
) -> None:
    images, labels = str(data.root / "imagesTr"), str(data.root / "labelsTr")
    arguments = ["predict", str(runs["coronal0"]), images, "-o", str(tmp_path / "masks"), "--held-out"]
    result = CliRunner().invoke(app, [*arguments, "--fit-weights", images, labels])
    assert result.exit_code == 2
    assert "--fit-weights needs cases that no RUN was trained on" in result.output
