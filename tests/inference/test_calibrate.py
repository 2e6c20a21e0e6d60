"""`spleen calibrate` with real runs: what it writes, what it refuses, and what predictions make of it."""

import json
import logging
import math
import os
import shutil
import time
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from typer.testing import CliRunner

from spleen import calibrate, load_model
from spleen.cli.main import app
from spleen.errors import InputError
from spleen.inference.calibration.applies import NOT_CALIBRATED, find_calibration
from spleen.inference.calibration.stored import read_calibration, write_calibration
from spleen.inference.loading import load_ensemble
from spleen.inference.predict import predict
from spleen.inference.record import read_record
from spleen.inference.report.masks import recorded_estimates
from spleen.inference.settings import PredictSettings
from tests._helpers.many_cases import VOXEL_MM3, ManyCases, coronal_folds, many_cases, quick, relabel
from tests._helpers.trained_runs import voxels

pytestmark = pytest.mark.slow

HELD_OUT = PredictSettings(held_out=True)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> ManyCases:
    return many_cases(tmp_path_factory.mktemp("data"), 24)


@pytest.fixture(scope="module")
def trained(data: ManyCases, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A study of two folds along the coronal axis."""
    return coronal_folds(tmp_path_factory.mktemp("runs"), data)


@pytest.fixture
def study(trained: Path, tmp_path: Path) -> Path:
    """A copy, without a calibration."""
    return shutil.copytree(trained, tmp_path / "study")


@pytest.fixture(scope="module")
def calibrated_study(data: ManyCases, trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    study = shutil.copytree(trained, tmp_path_factory.mktemp("calibrated") / "study")
    calibrate(study, data.root / "imagesTr", data.root / "labelsTr", HELD_OUT)
    return study


def spleen_calibrate(*arguments: str | Path) -> str:
    result = CliRunner().invoke(app, ["calibrate", *map(str, arguments)])
    return f"{result.exit_code}: {result.output}"


def folders_of(data: ManyCases) -> tuple[str, Path, str, Path]:
    return "--images", data.root / "imagesTr", "--labels", data.root / "labelsTr"


def test_a_cross_validation_calibrates_every_run_with_every_case(data: ManyCases, study: Path) -> None:
    output = spleen_calibrate(study, *folders_of(data), "--held-out")
    assert output.startswith("0: "), output
    for word in ("front", "back", "24", "any score", "calibration.json"):
        assert word in output
    calibrations = [read_calibration(study / f"coronal{fold}" / "calibration.json") for fold in range(2)]
    assert str(calibrations[0]) == str(calibrations[1])
    conditions = calibrations[0].conditions
    assert (conditions.axes, conditions.weights, conditions.held_out) == (("coronal",), (1.0,), True)
    assert len(conditions.checkpoints) == 2
    (predictions,) = (study / "calibration").iterdir()
    rows = {(row["case_id"], row["class_name"]): row for row in read_record(predictions / "predictions.csv")}
    for value, name in enumerate(("front", "back"), start=1):
        expected = []
        for case_id, label in data.labels.items():
            mask, reference = voxels(predictions / f"{case_id}.nii.gz") == value, label == value
            dice = 2 * (mask & reference).sum() / (mask.sum() + reference.sum())
            score = float(rows[case_id, name]["confidence_score"])
            expected.append((mask.sum() * VOXEL_MM3, reference.sum() * VOXEL_MM3, score, dice))
        found = calibrations[0].of(name).cases
        assert len(found) == 24
        rows_found = [(each.predicted_mm3, each.reference_mm3, each.confidence_score, each.dice) for each in found]
        np.testing.assert_allclose(sorted(rows_found), sorted(expected), rtol=1e-6)
    text = (study / "coronal0" / "calibration.json").read_text()
    assert not any(f'"{case_id}' in text for case_id in data.labels)
    assert str(data.root) not in text


def test_a_second_call_needs_overwrite_and_computes_nothing_again(data: ManyCases, study: Path) -> None:
    images, labels = data.root / "imagesTr", data.root / "labelsTr"
    first = calibrate(study, images, labels, HELD_OUT)
    times = {path: path.stat().st_mtime_ns for path in first.predictions.iterdir()}
    with pytest.raises(InputError, match=r"calibrated already \(.*calibration\.json.*add --overwrite"):
        calibrate(study, images, labels, HELD_OUT)
    removed = first.predictions / "c3.nii.gz"
    removed.unlink()  # as after an interruption
    second = calibrate(study, images, labels, PredictSettings(held_out=True, overwrite=True), min_dice=0.5)
    assert str(second.calibration.of("front").cases) == str(first.calibration.of("front").cases)
    assert second.calibration.of("front").min_dice == 0.5
    masks = {path: time for path, time in times.items() if path.suffix == ".gz" and path != removed}
    assert {path: path.stat().st_mtime_ns for path in masks} == masks


def test_masks_of_changed_images_and_of_another_precision_are_predicted_anew(
    data: ManyCases, study: Path, tmp_path: Path
) -> None:
    root = shutil.copytree(data.root, tmp_path / "data")
    images, labels = root / "imagesTr", root / "labelsTr"
    first = calibrate(study, images, labels, HELD_OUT)
    written = {path: path.stat().st_mtime_ns for path in first.predictions.glob("*.nii.gz")}
    later = time.time() + 5
    os.utime(images / "c3.nii.gz", (later, later))
    calibrate(study, images, labels, PredictSettings(held_out=True, overwrite=True))
    changed = [path.name for path, before in written.items() if path.stat().st_mtime_ns != before]
    assert changed == ["c3.nii.gz"]
    in_32_bits = PredictSettings(held_out=True, overwrite=True, precision="32")
    assert calibrate(study, images, labels, in_32_bits).predictions != first.predictions


def test_images_that_the_runs_were_trained_on_are_refused(data: ManyCases, study: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"24 of 24 images have the names of cases .* trained on .*--held-out"):
        calibrate(study, data.root / "imagesTr", data.root / "labelsTr")
    for name in ("images", "labels"):
        (tmp_path / name).mkdir()
    seen = json.loads((study / "coronal0" / "split.json").read_text())["train"][0]
    shutil.copy(data.image(seen), tmp_path / "images" / "renamed.nii.gz")
    shutil.copy(data.label(seen), tmp_path / "labels" / "renamed.nii.gz")
    with pytest.raises(InputError, match=r"1 of 1 images are, voxel by voxel, images .* \(renamed\)"):
        calibrate(study / "coronal0", tmp_path / "images", tmp_path / "labels")
    assert not list(study.rglob("calibration*"))


def test_wrong_settings_are_refused_before_anything_is_predicted(data: ManyCases, study: Path) -> None:
    folders = folders_of(data)
    assert "2: error: min-dice must be between 0 and 1; got 80" in spleen_calibrate(study, *folders, "--min-dice", "80")
    assert "error-rate must be between 0 and 1; got 0" in spleen_calibrate(study, *folders, "--error-rate", "0")
    assert "--flip mirrors as part" in spleen_calibrate(study, *folders, "--flip", "left_right")
    assert "either --best or --all" in spleen_calibrate(study, *folders, "--best", "--all")
    assert not (study / "calibration").exists()


def test_new_cases_calibrate_the_average_of_the_given_runs(data: ManyCases, study: Path, tmp_path: Path) -> None:
    """Three cases: enough to write what they say, too few for an interval."""
    new = many_cases(tmp_path / "new", 3)
    output = spleen_calibrate(study / "coronal0", *folders_of(shifted(new)))
    assert output.startswith("0: "), output
    assert "front: 3 cases: no 95% interval (19 cases needed), and no gate, so that every mask needs" in output
    (case,) = predict(study / "coronal0", new.image("n0"), tmp_path / "mask.nii.gz").cases
    assert "calibrated with too few cases for a gate" in case.confidence[0].reasons
    both = predict([study / "coronal0", study / "coronal1"], new.image("n0"), tmp_path / "both.nii.gz")
    assert "calibration.json in coronal0 does not know these checkpoints: a run is not" in both.uncalibrated


def shifted(cases: ManyCases) -> ManyCases:
    """The cases under other names (n0, n1, …) and with other intensities, so that no run has seen them."""
    for case_id in list(cases.labels):
        image = nib.load(cases.image(case_id))
        name = case_id.replace("c", "n")
        nib.save(nib.Nifti1Image(image.get_fdata(dtype=np.float32) + 1, image.affine), cases.image(name))
        cases.label(case_id).rename(cases.label(name))
        cases.image(case_id).unlink()
    return cases


def test_folds_that_differ_in_their_axes_are_refused(data: ManyCases, study: Path, tmp_path: Path) -> None:
    axial = quick(tmp_path, *data.decathlon, "axis=axial", "split.folds=2", "fold=0", name="axial0")
    runs = [study / "coronal0", study / "coronal1", axial]
    with pytest.raises(InputError, match=r"not all predicted alike \(.*axial, coronal: 12 cases.*runs of every fold"):
        calibrate(runs, data.root / "imagesTr", data.root / "labelsTr", HELD_OUT)


def test_a_case_that_fails_is_listed_and_the_others_calibrate(data: ManyCases, study: Path, tmp_path: Path) -> None:
    root = shutil.copytree(data.root, tmp_path / "data")
    (root / "imagesTr" / "c2.nii.gz").write_bytes(b"no volume")
    (root / "labelsTr" / "c7.nii.gz").write_bytes(b"no volume")
    output = spleen_calibrate(study, "--images", root / "imagesTr", "--labels", root / "labelsTr", "--held-out")
    assert output.startswith("1: "), output
    assert "c2.nii.gz" in output
    assert "failed: c7: " in output
    assert len(read_calibration(study / "coronal1" / "calibration.json").of("front").cases) == 22


def test_a_new_case_that_fails_is_listed_too(study: Path, tmp_path: Path) -> None:
    new = shifted(many_cases(tmp_path / "new", 3))
    new.image("n1").write_bytes(b"no volume")
    output = spleen_calibrate(study / "coronal0", *folders_of(new))
    assert output.startswith("1: "), output
    assert "n1.nii.gz" in output
    assert len(read_calibration(study / "coronal0" / "calibration.json").of("front").cases) == 2


def test_cases_keep_the_names_of_their_folders(study: Path, tmp_path: Path) -> None:
    """a_0000 would be called a where it is alone."""
    new = shifted(many_cases(tmp_path / "new", 2))
    for kind in ("imagesTr", "labelsTr"):
        for number in range(2):
            (new.root / kind / f"n{number}.nii.gz").rename(new.root / kind / f"a_000{number}.nii.gz")
    report = calibrate(study / "coronal0", new.root / "imagesTr", new.root / "labelsTr")
    assert report.failures == ()
    assert {row["case_id"] for row in read_record(report.predictions / "predictions.csv")} == {"a_0000", "a_0001"}


def test_partly_labelled_cases_count_as_far_as_they_are_labelled(data: ManyCases, study: Path, tmp_path: Path) -> None:
    """Of c4 two axial slices are labelled, of c9 one half; in the unlabelled part the reference would be wrong."""
    root = shutil.copytree(data.root, tmp_path / "data")
    partly = ManyCases(root, dict(data.labels))
    relabel(partly, "c4", lambda label: np.where(np.arange(8) < 2, label, 255).astype(np.uint8))
    relabel(partly, "c9", lambda label: np.where(np.arange(24)[:, None, None] < 12, label, 255).astype(np.uint8))
    arguments = study, "--images", root / "imagesTr", "--labels", root / "labelsTr", "--held-out"
    output = spleen_calibrate(*arguments, "--ignore-value", "255")
    assert output.startswith("0: "), output
    assert "2 of 24 cases are labelled in part: they count for the Dice and the gate, as far" in output
    calibration = read_calibration(study / "coronal0" / "calibration.json").of("front")
    assert (calibration.n_partial, len(calibration.log_errors)) == (2, 22)
    (predictions,) = (study / "calibration").iterdir()
    expected = []
    for case_id in ("c4", "c9"):
        mask, label = voxels(predictions / f"{case_id}.nii.gz"), partly.labels[case_id]
        mine, reference = (mask == 1) & (label != 255), label == 1
        dice = 2 * (mine & reference).sum() / (mine.sum() + reference.sum())
        expected.append(((mask == 1).sum() * VOXEL_MM3, dice))
    found = [(case.predicted_mm3, case.dice) for case in calibration.cases if case.reference_mm3 is None]
    np.testing.assert_allclose(sorted(found), sorted(expected), rtol=1e-5)
    assert "1 cannot be ignored: it is the class front" in spleen_calibrate(
        *arguments, "--overwrite", "--ignore-value", "1"
    )


def test_a_case_calibrates_only_the_classes_that_it_labels(data: ManyCases, study: Path, tmp_path: Path) -> None:
    """In c4 the back is not labelled, so it is background there: counted, its Dice would be 0."""
    root = shutil.copytree(data.root, tmp_path / "data")
    relabel(ManyCases(root, dict(data.labels)), "c4", lambda label: np.where(label == 2, 0, label).astype(np.uint8))
    rows = [f"c{number},{'front' if number == 4 else 'front;back'}" for number in range(24)]
    (tmp_path / "labelled.csv").write_text("\n".join(["case_id,labelled", *rows]))
    arguments = study, "--images", root / "imagesTr", "--labels", root / "labelsTr", "--held-out", "--labelled"
    (tmp_path / "short.csv").write_text("\n".join(["case_id,labelled", *rows[:-1]]))
    assert "nothing says which classes are labelled in c23" in spleen_calibrate(*arguments, tmp_path / "short.csv")
    output = spleen_calibrate(*arguments, tmp_path / "labelled.csv")
    assert output.startswith("0: "), output
    calibration = read_calibration(study / "coronal0" / "calibration.json")
    assert [len(calibration.of(name).cases) for name in ("front", "back")] == [24, 23]
    assert all(case.reference_mm3 for case in calibration.of("back").cases)


def test_the_ignored_value_is_that_of_the_training(data: ManyCases, tmp_path: Path) -> None:
    """Every case is labelled in part: no volume is known, which the command says."""
    partly = ManyCases(shutil.copytree(data.root, tmp_path / "data"), dict(data.labels))
    for case_id in data.labels:
        relabel(partly, case_id, lambda label: np.where(np.arange(8) < 5, label, 200).astype(np.uint8))
    settings = "axis=coronal", "split.folds=2", "fold=0", "data.ignore_value=200"
    run = quick(tmp_path / "runs", *partly.decathlon, *settings)
    assert load_ensemble([run])[0].preprocessing.ignore_value == 200
    report = calibrate(run, partly.root / "imagesTr", partly.root / "labelsTr", HELD_OUT)
    front = report.calibration.of("front")
    assert (front.n_partial, len(front.cases)) == (12, 12)
    assert "12 of 12 cases are labelled in part" in str(report)


def test_nothing_is_written_if_every_case_fails(data: ManyCases, study: Path, tmp_path: Path) -> None:
    root = shutil.copytree(data.root, tmp_path / "data")
    for case_id in data.labels:
        (root / "imagesTr" / f"{case_id}.nii.gz").write_bytes(b"no volume")
    with pytest.raises(InputError, match=r"none of the 24 cases could be predicted and scored: .*c0\.nii\.gz"):
        calibrate(study, root / "imagesTr", root / "labelsTr", HELD_OUT)
    assert not list(study.glob("*/calibration.json"))


def test_images_of_the_same_names_elsewhere_are_predicted_anew(data: ManyCases, study: Path, tmp_path: Path) -> None:
    root = shutil.copytree(data.root, tmp_path / "data")
    first = calibrate(study, data.root / "imagesTr", data.root / "labelsTr", HELD_OUT)
    for case_id in data.labels:  # nothing to be found there
        image = nib.load(root / "imagesTr" / f"{case_id}.nii.gz")
        noise = np.random.default_rng(0).normal(40, 10, image.shape).astype(np.float32)
        nib.save(nib.Nifti1Image(noise, image.affine), image.get_filename())
    settings = PredictSettings(held_out=True, overwrite=True, keep_largest=("all",))
    second = calibrate(study, root / "imagesTr", root / "labelsTr", settings)
    assert second.predictions != first.predictions
    assert np.median([case.dice for case in first.calibration.of("front").cases]) > 0.5
    assert np.median([case.dice for case in second.calibration.of("front").cases]) < 0.5


# Predictions ---------------------------------------------------------------------------------------------------------


def test_predictions_of_calibrated_runs_have_intervals(data: ManyCases, calibrated_study: Path, tmp_path: Path) -> None:
    run = calibrated_study / "coronal0"
    report = predict(run, data.image("c5"), tmp_path / "mask.nii.gz")
    assert report.uncalibrated == ""
    calibration = read_calibration(calibrated_study / "coronal0" / "calibration.json")
    rows = read_record(tmp_path / "predictions.csv")
    for score, row in zip(report.cases[0].confidence, rows, strict=True):
        of_class = calibration.of(score.class_name)
        assert of_class.volume_interval(score.volume_mm3) == (score.volume_low_mm3, score.volume_high_mm3)
        expected = of_class.expected_dice(score.confidence_score)
        assert expected is not None
        assert (expected.dice, expected.low, expected.high) == (score.expected_dice, score.dice_low, score.dice_high)
        assert score.volume_low_mm3 < score.volume_mm3 < score.volume_high_mm3
        assert float(row["volume_low_mm3"]) == pytest.approx(score.volume_low_mm3, rel=1e-5)
    result = CliRunner().invoke(
        app, ["predict", str(run), str(data.image("c5")), "-o", str(tmp_path / "again.nii.gz"), "--page"]
    )
    assert result.exit_code == 0, result.output
    interval = "–".join(f"{float(rows[0][name]) / 1000:.3f}" for name in ("volume_low_mm3", "volume_high_mm3"))
    assert f"({interval})" in result.output
    assert "no 95 % interval" not in result.output
    assert f"ml (95 %: {interval}), expected Dice" in (tmp_path / "again_page.html").read_text()
    for arguments, page in (
        ([data.image("c5"), "--prediction", tmp_path / "mask.nii.gz"], tmp_path / "scan.html"),
        ([tmp_path], tmp_path / "overview.html"),
    ):
        done = CliRunner().invoke(app, ["report", *map(str, arguments), "-o", str(page)])
        assert done.exit_code == 0, done.output
        assert interval in page.read_text()
    assert "95 % interval (ml)" in (tmp_path / "overview.html").read_text()
    prediction = load_model(run).predict(voxels(data.image("c5")), np.diag([1.5, 1.25, 3.0, 1]))
    assert math.isfinite(prediction.confidence[0].volume_low_mm3)
    assert "expected Dice" in prediction._repr_html_()


def test_the_average_over_folds_has_an_interval_of_the_volume_alone(
    data: ManyCases, calibrated_study: Path, tmp_path: Path
) -> None:
    """Its score contains the agreement of the runs, which the scores of the calibrating cases do not."""
    report = predict(calibrated_study, data.image("c5"), tmp_path / "mask.nii.gz")
    assert "calibrated for coronal alone, not for the scores of coronal × 2 averaged" in report.uncalibrated
    calibration = read_calibration(calibrated_study / "coronal0" / "calibration.json")
    for score in report.cases[0].confidence:
        interval = calibration.of(score.class_name).volume_interval(score.volume_mm3)
        assert interval == (score.volume_low_mm3, score.volume_high_mm3)
        assert math.isnan(score.expected_dice)
        assert "gate" not in score.reasons


def test_other_ways_to_predict_say_why_they_have_no_intervals(
    data: ManyCases, calibrated_study: Path, tmp_path: Path
) -> None:
    both = load_ensemble([calibrated_study])
    assert find_calibration(both, PredictSettings(weights=(0, 2))).reason == ""  # the second alone
    models = load_ensemble([calibrated_study / "coronal1"])
    for settings, reason in (
        (PredictSettings(), ""),
        (PredictSettings(flips=("left_right",)), ""),  # without --tta nothing is mirrored
        (PredictSettings(tta=True), "is for predictions without --tta; this one is with --tta"),
        (PredictSettings(tta=True, flips=("left_right",)), "this one is with --tta --flip left_right"),
        (HELD_OUT, "no 95 % interval with --held-out, whose cases calibrate the runs"),
    ):
        assert reason in find_calibration(models, settings).reason
        assert (find_calibration(models, settings).calibration is None) == bool(reason)
    shutil.copytree(calibrated_study, tmp_path / "study")
    alone = tmp_path / "coronal0.ckpt"
    shutil.copy(calibrated_study / "coronal0" / "checkpoints" / "best.ckpt", alone)
    assert find_calibration(load_ensemble([alone]), PredictSettings()).reason == NOT_CALIBRATED
    shutil.copy(calibrated_study / "coronal0" / "calibration.json", tmp_path / "coronal0.calibration.json")
    assert find_calibration(load_ensemble([alone]), PredictSettings()).reason == ""
    (tmp_path / "coronal0.calibration.json").write_text("{")
    report = predict(alone, data.image("c5"), tmp_path / "mask.nii.gz")
    assert "coronal0.calibration.json is not a calibration of this version: it is not JSON" in report.uncalibrated
    assert len(report.cases) == 1


def test_a_calibration_for_other_axes_says_which(calibrated_study: Path, tmp_path: Path) -> None:
    study = shutil.copytree(calibrated_study, tmp_path / "study")
    calibration = read_calibration(study / "coronal0" / "calibration.json")
    for axes, weights, reason in (
        (("axial", "coronal"), (0.5, 0.5), "is for axial, coronal averaged; these runs are coronal × 2 averaged"),
        (("coronal",) * 3, (1 / 3,) * 3, "is for coronal × 3 averaged; these runs are coronal × 2 averaged"),
    ):
        conditions = replace(calibration.conditions, axes=axes, weights=weights)
        for fold in range(2):
            write_calibration(
                study / f"coronal{fold}" / "calibration.json", replace(calibration, conditions=conditions)
            )
        assert reason in find_calibration(load_ensemble([study]), PredictSettings()).reason
    conditions = replace(calibration.conditions, axes=("coronal",) * 2, weights=(0.3, 0.7), held_out=False)
    for fold in range(2):
        write_calibration(study / f"coronal{fold}" / "calibration.json", replace(calibration, conditions=conditions))
    models = load_ensemble([study])
    assert "other weights" in find_calibration(models, PredictSettings()).reason
    order = [find_calibration(models, PredictSettings(weights=weights)).reason for weights in ((3, 7), (7, 3))]
    assert sorted(bool(reason) for reason in order) == [False, True]  # whichever run had which weight


def test_renamed_classes_keep_their_calibration(calibrated_study: Path) -> None:
    models = load_ensemble([calibrated_study], new_names={"front": "anterior"})
    found = find_calibration(models, PredictSettings()).calibration
    assert found is not None
    assert [each.class_name for each in found.classes] == ["anterior", "back"]


def test_without_a_calibration_the_command_to_get_one_is_said_once(
    data: ManyCases, study: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    arguments = ["predict", str(study), str(data.image("c1")), str(data.image("c2")), "-o", str(tmp_path / "masks")]
    with caplog.at_level(logging.ERROR):
        result = CliRunner().invoke(app, arguments)
    assert result.output.count("`spleen calibrate RUN --images … --labels …` does that") == 1
    estimates = recorded_estimates(tmp_path / "masks" / "c1.nii.gz")
    assert [name for name, _ in estimates] == ["front", "back", "95 % intervals"]
    assert "`spleen calibrate` does that" in estimates[-1][1]
    assert recorded_estimates(tmp_path / "masks" / "other.nii.gz") == []
