"""`spleen calibrate`, `predict` and `followup` with runs of overlapping classes, and with runs that have a box.

Each value is compared with what can be counted in the masks and the references.
"""

import csv
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from spleen.cli.main import app
from spleen.inference.calibration.stored import read_calibration
from spleen.inference.predict import predict
from spleen.inference.record import read_record
from tests._helpers.many_cases import VOXEL_MM3, ManyCases, many_cases, quick
from tests._helpers.trained_runs import voxels

pytestmark = pytest.mark.slow  # two studies of two folds

LEARNS = ("epochs=4", "loader.slices_per_epoch=48", "model.network.width=4", "lr=3e-2", "precision=32", "axis=coronal")
OVERLAP = ("data.label_values={whole:[1,2],back:[2]}", "data.regions_class_order=[1,2]")
# The label values of each class.
REGIONS, BOX = {"whole": (1, 2), "back": (2,)}, {"front": (1,), "back": (2,)}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> ManyCases:
    return many_cases(tmp_path_factory.mktemp("data"), 24)


def folds(folder: Path, data: ManyCases, *settings: str) -> Path:
    """A study of two folds; its folder."""
    for fold in range(2):
        overrides = *data.folder, *LEARNS, *settings, "split.folds=2", f"fold={fold}"
        quick(folder, *overrides, name=f"fold{fold}")
    return folder / "outputs" / "study"


@pytest.fixture(scope="module")
def regions(data: ManyCases, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return folds(tmp_path_factory.mktemp("regions"), data, *OVERLAP)


@pytest.fixture(scope="module")
def boxed(data: ManyCases, tmp_path_factory: pytest.TempPathFactory) -> Path:
    named = "data.label_values={front:[1],back:[2]}"
    coarse = folds(tmp_path_factory.mktemp("coarse"), data, named)
    return folds(tmp_path_factory.mktemp("boxed"), data, named, f"roi_from={coarse}", "roi_margin_mm=3")


Values = dict[str, tuple[int, ...]]


@pytest.fixture(scope="module", params=["regions", "boxed"])
def study(request: pytest.FixtureRequest, data: ManyCases) -> tuple[Path, Values]:
    """Each of both, calibrated, with the label values of its classes."""
    folder: Path = request.getfixturevalue(request.param)
    folders = "--images", data.root / "imagesTr", "--labels", data.root / "labelsTr"
    output = spleen("calibrate", folder, *folders, "--held-out", "--min-dice", "0.3")
    assert output.startswith("0: "), output
    return folder, REGIONS if request.param == "regions" else BOX


def spleen(*arguments: str | Path) -> str:
    result = CliRunner().invoke(app, [*map(str, arguments)])
    return f"{result.exit_code}: {result.output}"


def test_the_calibrating_cases_are_those_of_the_whole_masks(study: tuple[Path, Values], data: ManyCases) -> None:
    folder, classes = study
    (predictions,) = (folder / "calibration").iterdir()
    scores = {(row["case_id"], row["class_name"]): row for row in read_record(predictions / "predictions.csv")}
    calibration = read_calibration(folder / "fold0" / "calibration.json")
    assert [(each.class_name, each.label_values) for each in calibration.classes] == list(classes.items())
    for name, values in classes.items():
        expected = []
        for case_id, label in data.labels.items():
            mask, reference = (np.isin(each, values) for each in (voxels(predictions / f"{case_id}.nii.gz"), label))
            dice = 2 * (mask & reference).sum() / (mask.sum() + reference.sum())
            assert dice > 0.5
            score = float(scores[case_id, name]["confidence_score"])
            expected.append((mask.sum() * VOXEL_MM3, reference.sum() * VOXEL_MM3, score, dice))
        cases = calibration.of(name).cases
        found = [(each.predicted_mm3, each.reference_mm3, each.confidence_score, each.dice) for each in cases]
        np.testing.assert_allclose(sorted(found), sorted(expected), rtol=1e-6)


def test_a_prediction_has_the_calibrated_intervals(study: tuple[Path, Values], data: ManyCases, tmp_path: Path) -> None:
    folder, classes = study
    report = predict(folder / "fold0", data.image("c5"), tmp_path / "mask.nii.gz")
    assert (report.uncalibrated, report.failures) == ("", ())
    calibration, mask = read_calibration(folder / "fold0" / "calibration.json"), voxels(tmp_path / "mask.nii.gz")
    for score, (name, values) in zip(report.cases[0].confidence, classes.items(), strict=True):
        volume_mm3 = np.isin(mask, values).sum() * VOXEL_MM3
        assert score.volume_mm3 == pytest.approx(volume_mm3)
        interval = calibration.of(name).volume_interval(volume_mm3)
        assert interval == pytest.approx((score.volume_low_mm3, score.volume_high_mm3))
        assert score.volume_low_mm3 < volume_mm3 < score.volume_high_mm3
        assert score.dice_low <= score.expected_dice <= score.dice_high


def test_changes_over_time_are_those_of_the_masks(study: tuple[Path, Values], data: ManyCases, tmp_path: Path) -> None:
    """The organ of c2 has 4 slices, that of c5 7; both lie on the same grid, where nothing moves."""
    pytest.importorskip("SimpleITK")
    folder, classes = study
    table = tmp_path / "scans.csv"
    days = {"2024-01-01": "c2", "2025-01-01": "c5"}
    lines = [f"anna,{day},{data.image(case)},{data.label(case)}" for day, case in days.items()]
    table.write_text("\n".join(["subject,date,image,label", *lines]))
    output = spleen("followup", table, "--run", folder / "fold0", "-o", tmp_path / "out")
    assert output.startswith("0: "), output
    with (tmp_path / "out" / "followup.csv").open(newline="") as file:
        rows = {(row["date"], row["class_name"]): row for row in csv.DictReader(file)}
    calibration = read_calibration(folder / "fold0" / "calibration.json")
    for name, values in classes.items():
        masks = {day: np.isin(voxels(tmp_path / "out" / "masks" / f"anna_{day}.nii.gz"), values) for day in days}
        for day, case in days.items():
            row, volume_mm3 = rows[day, name], masks[day].sum() * VOXEL_MM3
            assert float(row["volume_ml"]) == pytest.approx(volume_mm3 / 1000, rel=1e-5)
            reference = np.isin(data.labels[case], values)
            assert float(row["reference_ml"]) == pytest.approx(reference.sum() * VOXEL_MM3 / 1000, rel=1e-5)
            low, high = calibration.of(name).volume_interval(volume_mm3) or (0, 0)
            ends = float(row["volume_ml_low"]), float(row["volume_ml_high"])
            assert ends == pytest.approx((low / 1000, high / 1000), rel=1e-5)
        first, later = masks.values()
        assert float(rows["2025-01-01", name]["change_percent"]) == pytest.approx(
            100 * (later.sum() / first.sum() - 1), rel=1e-3
        )
        # What is unchanged or lost is the first mask, however the second was moved onto it.
        changes = voxels(tmp_path / "out" / "changes" / f"anna_2025-01-01_{name}.nii.gz")
        np.testing.assert_array_equal(np.isin(changes, (1, 3)), first)
        gained_ml = (changes == 2).sum() * VOXEL_MM3 / 1000
        assert float(rows["2025-01-01", name]["gain_ml"]) == pytest.approx(gained_ml, rel=1e-4)
