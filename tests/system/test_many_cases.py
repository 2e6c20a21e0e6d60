"""Training on many cases from files to scores: folds and their results, bad cases, channels, grids, windows."""

import csv
import json
import math
import os
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from typer.testing import CliRunner

import spleen.config.datasets
import spleen.config.preprocessing
import spleen.models.losses
import spleen.models.unet
import spleen.runs.data
from spleen.cli.main import app
from spleen.errors import InputError
from spleen.inference.predict import predict
from spleen.inference.settings import PredictSettings
from spleen.runs.results.files import as_csv, as_latex, as_markdown
from spleen.runs.results.results import results
from spleen.runs.sweeps.report import print_jobs
from tests._helpers.many_cases import ManyCases, many_cases, quick, quick_settings, relabel
from tests._helpers.small_run import rows, summary
from tests._helpers.trained_runs import voxels
from tests.system.test_train_command import TRAIN

CLASSES = {"front": 1, "back": 2}


def split_of(run: Path) -> dict:
    content: dict = json.loads((run / "split.json").read_text())
    return content


def dice(run: Path, stage: str = "test") -> dict[tuple[str, str], float]:
    """Dice by case and class."""
    return {(r["case_id"], r["class_name"]): float(r["dice"]) for r in rows(run / "cases.csv") if r["split"] == stage}


def mean_by_case(of_case: Mapping[tuple[str, str], float]) -> dict[str, float]:
    return {case: np.mean([of_case[case, name] for name in CLASSES]) for case, _ in of_case}


def run_command(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, TRAIN, *arguments],
        cwd=folder,
        env={**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "160"},
        capture_output=True,
        text=True,
    )


# A study with three of its four folds -------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("many")


@pytest.fixture(scope="module")
def data(home: Path) -> ManyCases:
    """Eight cases; no test changes them."""
    return many_cases(home / "data", 8)


@pytest.fixture(scope="module")
def sweep(data: ManyCases, home: Path) -> subprocess.CompletedProcess[str]:
    return run_command(home, "-m", *quick_settings(home, *data.decathlon, "split.folds=4"), "fold=0,1,2")


@pytest.fixture(scope="module")
def folds(sweep: subprocess.CompletedProcess[str], home: Path) -> list[Path]:
    """The run folders of folds 0, 1 and 2."""
    assert sweep.returncode == 0, sweep.stdout + sweep.stderr
    found = {split_of(path.parent)["fold"]: path.parent for path in (home / "outputs" / "study").glob("*/*/split.json")}
    assert sorted(found) == [0, 1, 2]
    return [found[fold] for fold in range(3)]


def test_folds_have_disjoint_test_cases_and_never_train_on_them(folds: list[Path], data: ManyCases) -> None:
    final = [json.loads((run / "splits_final.json").read_text()) for run in folds]
    assert final[0] == final[1] == final[2]
    assert sorted(case for fold in final[0] for case in fold["val"]) == sorted(data.labels)
    for number, run in enumerate(folds):
        split = split_of(run)
        assert split["test"] == final[0][number]["val"]
        assert sorted(split["train"] + split["val"]) == final[0][number]["train"]
        assert (len(split["train"]), len(split["val"]), len(split["test"])) == (4, 2, 2)  # round(6 / 4) = 2 in val
        # c0, c7, c1 and c2 have 2 to 4 slices with organ, the others more: each fold tests one of each kind.
        assert sum(case in ("c0", "c1", "c2", "c7") for case in split["test"]) == 1
        for stage in ("val", "test"):
            assert set(dice(run, stage)) == {(case, name) for case in split[stage] for name in CLASSES}
            means = mean_by_case(dice(run, stage))
            assert summary(run)[stage]["dice"] == pytest.approx(np.mean(list(means.values())), abs=1e-8)
            for name in CLASSES:
                of_class = [value for (_, other), value in dice(run, stage).items() if other == name]
                assert summary(run)[stage][name]["dice"] == pytest.approx(np.mean(of_class), abs=1e-8)
                assert summary(run)[stage][name]["n_cases"] == 2


def test_the_printed_table_names_the_classes(sweep: subprocess.CompletedProcess[str], folds: list[Path]) -> None:
    lines = [line.split()[:2] for line in sweep.stdout.splitlines()]
    assert len(folds) == 3
    for row in (["val", "front"], ["val", "mean"], ["test", "front"], ["test", "back"], ["test", "mean"]):
        assert lines.count(row) == 3
    assert "8 cases: 4 train, 2 val, 2 test" in sweep.stdout


def test_the_saved_config_records_modality_classes_and_channels(folds: list[Path]) -> None:
    text = (folds[0] / "config.yaml").read_text()
    assert "kind: ct" in text
    assert "front:\n" in text
    assert "channels: 1" in text


def test_retraining_a_fold_reproduces_its_results(folds: list[Path], data: ManyCases, tmp_path: Path) -> None:
    again = quick(tmp_path, *data.decathlon, "split.folds=4", "fold=1")
    for name in ("cases.csv", "metrics.csv", "split.json", "splits_final.json"):
        assert (again / name).read_bytes() == (folds[1] / name).read_bytes(), name


def test_results_over_folds_count_every_case_once(folds: list[Path]) -> None:
    study = results(folds[0].parent)
    (arm,) = study.arms
    scored = {case: value for run in folds for case, value in mean_by_case(dice(run)).items()}
    assert len(scored) == 6
    assert (arm.n_runs, arm.test_dice.n) == (3, 6)
    assert arm.test_dice.mean == pytest.approx(np.mean(list(scored.values())))
    interval = arm.test_dice.interval
    assert interval is not None
    assert min(scored.values()) <= interval.low < arm.test_dice.mean < interval.high <= max(scored.values())
    for name in CLASSES:
        of_class = [value for run in folds for (_, other), value in dice(run).items() if other == name]
        assert arm.test_dice_by_class[name].mean == pytest.approx(np.mean(of_class))
        assert arm.test_dice_by_class[name].n == 6


def test_the_table_of_a_fold_sweep_names_the_command_that_averages_them(
    folds: list[Path], capsys: pytest.CaptureFixture[str]
) -> None:
    print_jobs(folds[0].parent, folds)
    assert f"spleen results {folds[0].parent}  averages the folds and compares: " in capsys.readouterr().out
    print_jobs(folds[0].parent, folds[:1])
    assert "compares them: " in capsys.readouterr().out


def test_results_report_missing_folds_and_scores_per_class(folds: list[Path], tmp_path: Path) -> None:
    files = {kind: tmp_path / kind for kind in ("markdown", "csv", "latex")}
    written = (text for kind, path in files.items() for text in (f"--{kind}", str(path)))
    result = CliRunner().invoke(app, ["results", str(folds[0].parent), *written], env={"COLUMNS": "200"})
    assert result.exit_code == 0, result.output
    assert "3 of 4 folds are complete; missing: 3." in result.output
    study = results(folds[0].parent)
    means = {name: f"{score.mean:.4f}" for name, score in study.arms[0].test_dice_by_class.items()}
    for name in CLASSES:
        assert [line for line in result.output.splitlines() if name in line.split() and means[name] in line]
        assert re.search(rf"\| {name} +\| +{means[name]} \|", files["markdown"].read_text())
        assert means[name] in files["latex"].read_text()
    (row,) = csv.DictReader(files["csv"].read_text().splitlines())
    assert f"{float(row['test_dice:front']):.4f}" == means["front"]
    assert float(row["test_dice:back_low"]) < float(row["test_dice:back"]) < float(row["test_dice:back_high"])


def test_a_folder_of_folds_predicts_as_an_ensemble(folds: list[Path], data: ManyCases, tmp_path: Path) -> None:
    settings = PredictSettings(probabilities=True, precision="32")
    by_fold = []
    for number, run in enumerate(folds):
        predict(run, data.image("c5"), tmp_path / f"{number}.nii", settings)
        by_fold.append(voxels(tmp_path / f"{number}_probabilities.nii.gz"))
    arguments = ["predict", str(folds[0].parent), str(data.root / "imagesTr"), "--output", str(tmp_path / "preds")]
    result = CliRunner().invoke(app, [*arguments, "--probabilities", "--precision", "32"])
    assert result.exit_code == 0, result.output
    fused = voxels(tmp_path / "preds" / "c5_probabilities.nii.gz")
    np.testing.assert_allclose(fused, np.mean(by_fold, axis=0), atol=1e-6)
    assert np.abs(by_fold[0] - by_fold[1]).max() > 1e-3  # otherwise each fold would equal the mean
    assert {f"c{number}.nii.gz" for number in range(8)} <= {path.name for path in (tmp_path / "preds").iterdir()}
    scored = CliRunner().invoke(app, ["evaluate", str(tmp_path / "preds"), str(data.root / "labelsTr"), "--no-surface"])
    assert "8 cases, 2 classes (front = 1, back = 2); " in scored.output
    assert re.search(r"c5 +back ", scored.output)


def test_folds_can_be_read_from_a_splits_file(folds: list[Path], data: ManyCases, tmp_path: Path) -> None:
    splits = tmp_path / "ours.json"  # the run folder's name contains "=", which Hydra would want quoted
    splits.write_bytes((folds[0] / "splits_final.json").read_bytes())
    run = quick(tmp_path, *data.decathlon, f"split.splits_file={splits}", "fold=1", "split.folds=4")
    assert (run / "cases.csv").read_bytes() == (folds[1] / "cases.csv").read_bytes()
    assert (run / "splits_final.json").read_bytes() == splits.read_bytes()
    with pytest.raises(InputError, match=r"fold=4, but there are 4 folds, from 0 to 3"):
        quick(tmp_path, *data.decathlon, f"split.splits_file={splits}", "fold=4", name="other")


# Training on everything ---------------------------------------------------------------------------------------------


def test_fold_all_scores_nothing_and_keeps_the_last_epoch(data: ManyCases, home: Path, tmp_path: Path) -> None:
    run = quick(tmp_path, *data.decathlon, "fold=all", "epochs=2", f"cache_dir={home / 'cache'}")
    split = split_of(run)
    assert (split["train"], split["val"], split["test"]) == (sorted(data.labels), [], [])
    assert rows(run / "cases.csv") == []
    assert not (run / "splits_final.json").exists()
    best, last = (torch.load(run / "checkpoints" / f"{name}.ckpt", weights_only=True) for name in ("best", "last"))
    assert (best["epoch"], last["epoch"]) == (1, 1)
    assert all(torch.equal(value, last["state_dict"][name]) for name, value in best["state_dict"].items())
    for stage in ("val", "test"):
        assert (summary(run)[stage]["dice"], summary(run)[stage]["n_cases"]) == (None, 0)
    (arm,) = results(run).arms
    assert math.isnan(arm.test_dice.mean)
    predict(run, data.image("c0"), tmp_path / "mask.nii.gz")
    assert nib.load(tmp_path / "mask.nii.gz").shape == (24, 20, 8)


@pytest.mark.slow
def test_listed_test_cases_are_never_trained_on(data: ManyCases, home: Path, tmp_path: Path) -> None:
    (tmp_path / "test.txt").write_text("c2\nc6\n")
    listed = (*data.decathlon, f"split.test_cases={tmp_path / 'test.txt'}", f"cache_dir={home / 'cache'}")
    everything = quick(tmp_path, *listed, "fold=all", name="all")
    assert split_of(everything)["train"] == ["c0", "c1", "c3", "c4", "c5", "c7"]
    assert {case for case, _ in dice(everything)} == {"c2", "c6"}
    by_fraction = quick(tmp_path, *listed, name="fractions")
    assert split_of(by_fraction)["test"] == ["c2", "c6"]
    assert len(split_of(by_fraction)["val"]) == 2  # round(6 / 4)
    fold = quick(tmp_path, *listed, "fold=0", "split.folds=3", "split.val_fraction=0", name="fold")
    assert not {"c2", "c6"} & {*split_of(fold)["train"], *split_of(fold)["test"]}
    final = json.loads((fold / "splits_final.json").read_text())
    assert sorted(case for part in final for case in part["val"]) == ["c0", "c1", "c3", "c4", "c5", "c7"]


def test_without_validation_no_arm_is_selected(data: ManyCases, home: Path, tmp_path: Path) -> None:
    settings = (*data.decathlon, "split.val_fraction=0", "fold=0", "split.folds=4", f"cache_dir={home / 'cache'}")
    first = quick(tmp_path, *settings, name="a")
    assert {row["split"] for row in rows(first / "cases.csv")} == {"test"}
    assert "val/dice" not in rows(first / "metrics.csv")[0]
    quick(tmp_path, *settings, "lr=1e-4", name="b")
    study = results(tmp_path / "outputs")
    assert (len(study.arms), study.selected, study.comparison) == (2, None, None)
    for text in (as_markdown(study), as_latex(study)):
        assert "Nothing was validated, so no arm is chosen" in text
        assert "number to report" not in text
    assert [row["selected"] for row in csv.DictReader(as_csv(study).splitlines())] == ["false", "false"]


def test_an_invalid_fold_is_an_error_with_exit_code_2(data: ManyCases, tmp_path: Path) -> None:
    done = run_command(tmp_path, *data.decathlon, "fold=9", f"output_dir={tmp_path}")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "error: fold must be 0 to 4 with split.folds=5, or all; got 9\n"


# Bad cases ----------------------------------------------------------------------------------------------------------


def test_a_bad_case_fails_the_run_unless_bad_cases_are_skipped(tmp_path: Path) -> None:
    data = many_cases(tmp_path / "data", 6)
    data.image("c3").write_bytes(b"broken")
    with pytest.raises(InputError) as caught:
        quick(tmp_path, *data.decathlon)
    assert str(caught.value).startswith(f"1 of 6 cases cannot be used:\n  c3: {data.image('c3')}")
    assert "skip them with data.skip_bad=true" in str(caught.value)
    splits = [{"train": ["c0", "c1", "c3"], "val": ["c2", "c4", "c5"]}, {"train": ["c0", "c1", "c2"], "val": ["c3"]}]
    (tmp_path / "splits.json").write_text(json.dumps(splits))
    run = quick(
        tmp_path, *data.decathlon, "data.skip_bad=true", "fold=0", f"split.splits_file={tmp_path / 'splits.json'}",
        "split.val_fraction=0",
    )  # fmt: skip
    assert list(split_of(run)["skipped"]) == ["c3"]
    assert (split_of(run)["train"], split_of(run)["test"]) == (["c0", "c1"], ["c2", "c4", "c5"])
    with pytest.raises(InputError, match="fold=1: c3, all that it holds out, is skipped"):
        quick(
            tmp_path, *data.decathlon, "data.skip_bad=true", "fold=1", f"split.splits_file={tmp_path / 'splits.json'}"
        )


def test_the_same_image_in_two_splits_is_an_error_unless_grouped(tmp_path: Path) -> None:
    data = many_cases(tmp_path / "data", 4)
    data.image("c1").write_bytes(data.image("c0").read_bytes())
    splits = [{"train": ["c0", "c2"], "val": ["c1", "c3"]}]
    (tmp_path / "splits.json").write_text(json.dumps(splits))
    given = (*data.decathlon, "fold=0", "split.val_fraction=0")
    with pytest.raises(InputError, match=r"the same image is in two splits .*: c0 \(train\), c1 \(test\)"):
        quick(tmp_path, *given, f"split.splits_file={tmp_path / 'splits.json'}")
    (tmp_path / "groups.csv").write_text("case_id,group\nc0,p\nc1,p\nc2,q\nc3,r\n")
    run = quick(tmp_path, *given, "split.folds=3", f"data.groups={tmp_path / 'groups.csv'}", name="grouped")
    assert [{"c0", "c1"} & set(split_of(run)[part]) for part in ("train", "test")] in (
        [{"c0", "c1"}, set()],
        [set(), {"c0", "c1"}],
    )


def test_an_empty_label_is_scored_and_an_absent_class_counts_as_empty(tmp_path: Path, caplog) -> None:
    data = many_cases(tmp_path / "data", 4, names=("front", "back", "absent"))
    relabel(data, "c3", np.zeros_like)
    (tmp_path / "splits.json").write_text(json.dumps([{"train": ["c0", "c1"], "val": ["c2", "c3"]}]))
    run = quick(
        tmp_path, *data.decathlon, "fold=0", f"split.splits_file={tmp_path / 'splits.json'}", "split.val_fraction=0",
        "epochs=3", "loader.slices_per_epoch=64", "loss.ce_weight=1",
    )  # fmt: skip
    assert "no label of the 2 training cases contains absent (label values [3])" in caplog.text
    scores = dice(run)
    assert math.isnan(scores["c2", "absent"])
    assert math.isnan(scores["c3", "absent"])
    row = {(r["case_id"], r["class_name"]): r for r in rows(run / "cases.csv")}
    for name in CLASSES:
        predicted = float(row["c3", name]["volume_prediction_mm3"])
        assert float(row["c3", name]["volume_reference_mm3"]) == 0
        assert scores["c3", name] == 0 if predicted else math.isnan(scores["c3", name])
    absent = summary(run)["test"]["absent"]
    assert (absent["dice"], absent["n_cases"], absent["n_empty"]) == (None, 2, 2)
    assert summary(run)["test"]["n_empty"] == sum(math.isnan(value) for value in scores.values())


def test_label_values_absent_from_all_training_cases_are_an_error(data: ManyCases, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no label of the .* training cases contains organ \(label values \[9\]\)"):
        quick(tmp_path, *data.folder, "data.label_values=[9]")


def test_files_with_different_single_values_require_label_values(tmp_path: Path) -> None:
    data = many_cases(tmp_path / "data", 4)
    for number, case_id in enumerate(data.labels):
        relabel(data, case_id, lambda label, value=1 + number // 3: np.where(label > 0, value, 0).astype(np.uint8))
    with pytest.raises(InputError, match=r"different values \(.*c3: \[\[2\]\].*Set data\.label_values"):
        quick(tmp_path, *data.folder)


# Channels, grids and windows ----------------------------------------------------------------------------------------


def assert_predicts_as_scored(run: Path, data: ManyCases, folder: Path) -> None:
    """`spleen predict` reproduces the scores of the run on the image's own grid."""
    scores = dice(run)
    for case_id in dict.fromkeys(case for case, _ in scores):
        mask = folder / f"{case_id}_mask.nii.gz"
        predict(run, data.image(case_id), mask, PredictSettings(precision="32"))
        predicted, reference = nib.load(mask), nib.load(data.label(case_id))
        assert predicted.shape == reference.shape
        np.testing.assert_allclose(predicted.affine, reference.affine, atol=1e-6)
        for name, value in CLASSES.items():
            ours, theirs = voxels(mask) == value, data.labels[case_id] == value
            expected = 2 * np.sum(ours & theirs) / (ours.sum() + theirs.sum())
            assert scores[case_id, name] == pytest.approx(expected, abs=0.005)


def first_weights(run: Path) -> tuple[int, ...]:
    content = torch.load(run / "checkpoints" / "best.ckpt", weights_only=True)
    return next(tuple(value.shape) for value in content["state_dict"].values() if value.ndim == 4)


def test_native_size_keeps_the_grid_in_training_and_prediction(data: ManyCases, home: Path, tmp_path: Path) -> None:
    # Slices of 20 × 24 pixels; multiples of 16 would be 32 × 32.
    run = quick(
        tmp_path, *data.decathlon, "img_size=native", "model.size_multiple=16", "fold=0", "loader.slices_per_epoch=64",
        "model.network.width=4",
    )  # fmt: skip
    grids = [json.loads(path.read_text())["grid"] for path in (tmp_path / "cache" / "slices").glob("*/entry.json")]
    assert len(grids) == 8
    assert all(grid["native"] == grid["resampled"] == [20, 24] and grid["padded"] == [32, 32] for grid in grids)
    assert summary(run)["img_size"] == "native"
    assert_predicts_as_scored(run, data, tmp_path)
    assert summary(run)["test"]["dice"] > 0.05  # otherwise the comparison would prove little


def test_a_run_trained_on_crops_predicts_whole_slices(data: ManyCases, tmp_path: Path) -> None:
    run = quick(tmp_path, *data.decathlon, "img_size=32", "crop_size=16", "fold=0", "loader.slices_per_epoch=64")
    assert_predicts_as_scored(run, data, tmp_path)


def test_both_channels_and_their_context_slices_reach_the_network(tmp_path: Path) -> None:
    data = many_cases(tmp_path / "data", 4, channels=2)
    run = quick(tmp_path, *data.decathlon, "fold=0", "split.folds=2", "context_slices=1")
    assert first_weights(run)[1] == 6  # 2 channels of 3 slices
    assert_predicts_as_scored(run, data, tmp_path)


def test_a_run_reads_its_files_and_builds_its_parts_only_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = many_cases(tmp_path / "data", 8)
    splits_file = tmp_path / "splits.json"
    folds = [{"train": [f"c{number}" for number in range(2, 8)], "val": ["c0", "c1"]}]
    splits_file.write_text(json.dumps(folds))
    calls: Counter[str] = Counter()

    def count(owner: object, name: str) -> None:
        function = getattr(owner, name)

        def counted(*arguments: object, **named: object) -> object:
            calls[name] += 1
            return function(*arguments, **named)

        monkeypatch.setattr(owner, name, counted)

    count(spleen.config.datasets, "pair_folders")
    count(spleen.config.preprocessing, "parse_label_values")
    count(spleen.models.unet.UNet, "__init__")
    count(spleen.models.losses.DiceCrossEntropyLoss, "__init__")
    count(spleen.runs.data, "read_splits")
    count(spleen.runs.data, "split_cases")
    classes = "data.label_values={front: [1], back: [2]}"
    run_folder = quick(tmp_path, *data.folder, classes, "fold=0", f"split.splits_file={splits_file}")
    assert summary(run_folder)["status"] == "finished"
    assert json.loads((run_folder / "splits_final.json").read_text()) == folds
    assert calls == {
        "pair_folders": 1, "parse_label_values": 1, "__init__": 2, "read_splits": 1, "split_cases": 1,
    }  # fmt: skip
