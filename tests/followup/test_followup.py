"""`spleen followup` with real runs: the table, the page, what is kept, and what is refused."""

import csv
import math
import re
import shutil
from datetime import date
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from typer.testing import CliRunner

from spleen import calibrate
from spleen.cli.main import app
from spleen.errors import InputError
from spleen.followup.change import limit_of_errors
from spleen.followup.followup import follow_up
from spleen.followup.scans import read_scans
from spleen.inference.calibration.stored import read_calibration
from spleen.inference.settings import PredictSettings
from tests._helpers import dicom
from tests._helpers.browser import opened, print_faults
from tests._helpers.many_cases import SPACING_MM, VOXEL_MM3, ManyCases, coronal_folds, many_cases
from tests._helpers.nifti import ras_affine, save
from tests._helpers.trained_runs import voxels

pytestmark = pytest.mark.slow

pytest.importorskip("SimpleITK")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> ManyCases:
    return many_cases(tmp_path_factory.mktemp("data"), 36)


@pytest.fixture(scope="module")
def run(data: ManyCases, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A calibrated study of two folds."""
    study = coronal_folds(tmp_path_factory.mktemp("runs"), data)
    calibrate(study, data.root / "imagesTr", data.root / "labelsTr", PredictSettings(held_out=True), min_dice=0.3)
    return study / "coronal0"


@pytest.fixture(scope="module")
def table(data: ManyCases) -> Path:
    """Two subjects of two scans each: the organ of c1 has 3 slices, that of c5 7 and that of c2 4."""
    path = data.root / "scans.csv"
    rows = [
        ("anna", "2024-01-01", "c1"),
        ("anna", "2025-01-01", "c5"),
        ("ben", "2024-01-01", "c2"),
        ("ben", "2024-06-01", "c1"),
    ]
    lines = [f"{who},{day},imagesTr/{case}.nii.gz,labelsTr/{case}.nii.gz" for who, day, case in rows]
    path.write_text("\n".join(["subject,date,image,label", *lines]))
    return path


def spleen_followup(*arguments: str | Path) -> str:
    result = CliRunner().invoke(app, ["followup", *map(str, arguments)])
    return f"{result.exit_code}: {result.output}"


@pytest.fixture(scope="module")
def report(run: Path, table: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    folder = tmp_path_factory.mktemp("report")
    return folder, spleen_followup(table, "--run", run, "-o", folder)


def rows_of(folder: Path) -> dict[tuple[str, str, str], dict[str, str]]:
    with (folder / "followup.csv").open(newline="") as file:
        return {(row["subject"], row["date"], row["class_name"]): row for row in csv.DictReader(file)}


def test_the_table_says_what_the_masks_and_the_calibration_say(report: tuple[Path, str], run: Path) -> None:
    folder, output = report
    assert output.startswith("0: "), output
    rows = rows_of(folder)
    assert len(rows) == 8
    calibration = read_calibration(run / "calibration.json").of("front")
    volumes = {}
    for (who, day), size in {("anna", "2024-01-01"): 3, ("anna", "2025-01-01"): 7, ("ben", "2024-06-01"): 3}.items():
        row, mask = rows[who, day, "front"], voxels(folder / "masks" / f"{who}_{day}.nii.gz") == 1
        volumes[who, day] = mask.sum() * VOXEL_MM3 / 1000
        assert float(row["volume_ml"]) == pytest.approx(volumes[who, day], rel=1e-5)
        assert float(row["reference_ml"]) == pytest.approx(24 * size * VOXEL_MM3 / 1000)
        low, high = calibration.volume_interval(1000 * volumes[who, day]) or (math.nan, math.nan)
        assert (float(row["volume_ml_low"]), float(row["volume_ml_high"])) == pytest.approx(
            (low / 1000, high / 1000), rel=1e-5
        )
    limit = limit_of_errors(calibration.passing_log_errors)
    assert limit is not None
    later = rows["anna", "2025-01-01", "front"]
    ratio = volumes["anna", "2025-01-01"] / volumes["anna", "2024-01-01"]
    assert float(later["change_percent"]) == pytest.approx(100 * (ratio - 1), rel=1e-4)
    assert float(later["change_percent_low"]) == pytest.approx(100 * (ratio * math.exp(-limit.log_ratio) - 1), rel=1e-4)
    days = (date(2025, 1, 1) - date(2024, 1, 1)).days
    assert float(later["annual_percent"]) == pytest.approx(100 * (ratio ** (365.25 / days) - 1), rel=1e-4)
    assert later["beyond_limit"] == ("yes" if math.log(ratio) > limit.log_ratio else "no")
    assert (later["limit_source"], later["limit_n"]) == ("calibration", str(limit.n))
    assert f"from {limit.n} calibrating cases" in output


def test_the_page_shows_every_scan_and_opens_without_a_complaint(report: tuple[Path, str]) -> None:
    text = (report[0] / "followup.html").read_text()
    assert text.count("<figure") == 8
    for word in ("anna, front", "ben, back", "2024-06-01", "months since the first scan", "gain", "loss"):
        assert word in text


@pytest.mark.slow
def test_a_browser_opens_the_page_and_prints_it(report: tuple[Path, str]) -> None:
    with opened(report[0] / "followup.html") as page:
        assert page.get_by_role("heading", name="anna, front").is_visible()
        assert print_faults(page) == []


def test_a_second_call_predicts_nothing_again(report: tuple[Path, str], run: Path, table: Path) -> None:
    folder, output = report
    masks = sorted((folder / "masks").glob("*.nii.gz"))
    times = [path.stat().st_mtime_ns for path in masks]
    assert spleen_followup(table, "--run", run, "-o", folder) == output
    assert [path.stat().st_mtime_ns for path in masks] == times


def test_masks_that_were_predicted_otherwise_are_not_kept(
    report: tuple[Path, str], run: Path, table: Path, data: ManyCases, tmp_path: Path
) -> None:
    folder = shutil.copytree(report[0], tmp_path / "report")
    other = spleen_followup(table, "--run", run, "-o", folder, "--tta")
    assert other.startswith("2: "), other
    assert "or with other weights, classes or test-time augmentation; add --overwrite" in " ".join(other.split())
    corrected = data.root / "corrected.csv"
    corrected.write_text(table.read_text().replace("imagesTr/c5", "imagesTr/c6"))
    other = " ".join(spleen_followup(corrected, "--run", run, "-o", folder).split())
    assert other.startswith("2: "), other
    assert f"was predicted from {data.image('c5')}, and not from {data.image('c6')}" in other


def test_an_interrupted_overwrite_leaves_no_mask_of_the_other_run(
    report: tuple[Path, str], run: Path, table: Path, data: ManyCases, tmp_path: Path
) -> None:
    """The second run gets as far as ben; anna's masks are of the first one, and are predicted anew."""
    folder, other = shutil.copytree(report[0], tmp_path / "report"), run.with_name("coronal1")
    before = sorted((folder / "masks").glob("*.nii.gz"))
    refused = spleen_followup(table, "--run", other, "-o", folder, "--overwrite", "--batch-size", "0")
    assert refused.startswith("2: "), refused
    assert sorted((folder / "masks").glob("*.nii.gz")) == before
    ben = data.root / "ben.csv"
    ben.write_text("\n".join(line for line in table.read_text().splitlines() if not line.startswith("anna")))
    assert spleen_followup(ben, "--run", other, "-o", folder, "--overwrite").startswith("0: ")
    assert not list((folder / "masks").glob("anna*"))
    assert spleen_followup(table, "--run", other, "-o", folder).startswith("0: ")
    spleen_followup(table, "--run", other, "-o", tmp_path / "fresh")
    assert rows_of(folder) == rows_of(tmp_path / "fresh") != rows_of(report[0])


def test_wrong_weights_are_refused(run: Path, table: Path, tmp_path: Path) -> None:
    assert "2 weights were given for 1 runs" in spleen_followup(
        table, "--run", run, "-o", tmp_path / "report", "--weights", "2,1"
    )


def test_pairs_of_unchanged_scans_give_the_limit(run: Path, table: Path, data: ManyCases, tmp_path: Path) -> None:
    """c0 and c7 have the same organ, as have c1 and c8, …; their noise differs."""
    pairs = tmp_path / "pairs.csv"
    lines = [
        f"s{number},2024-01-01,{data.image(f'c{case}')}" for number in range(4) for case in (number + 1, number + 8)
    ]
    pairs.write_text("\n".join(["subject,date,image", *lines]))
    output = spleen_followup(table, "--run", run, "-o", tmp_path / "report", "--test-retest", pairs)
    assert "from 4 test–retest pairs" in output
    volumes = [
        [
            (voxels(tmp_path / "report" / "test_retest" / f"s{number}_{side}_2024-01-01.nii.gz") == 1).sum()
            for side in "ab"
        ]
        for number in range(4)
    ]
    differences = np.log([second / first for first, second in volumes])
    expected = 2.7764451 * np.sqrt(np.mean(differences**2))  # t with 4 degrees of freedom
    row = rows_of(tmp_path / "report")["anna", "2025-01-01", "front"]
    assert float(row["limit_percent_high"]) == pytest.approx(100 * math.expm1(expected), rel=1e-4)


def test_too_few_pairs_fall_back_to_the_calibration_and_say_so(
    run: Path, table: Path, data: ManyCases, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    pairs = tmp_path / "pairs.csv"
    pairs.write_text(f"subject,date,image\ns,2024-01-01,{data.image('c1')}\ns,2024-01-01,{data.image('c8')}")
    output = spleen_followup(table, "--run", run, "-o", tmp_path / "report", "--test-retest", pairs)
    assert "calibrating cases)" in output
    assert "no repeatability limit" not in output
    assert "fewer than 3 test–retest pairs pass with their confidence" in caplog.text


def test_test_retest_may_be_a_string(run: Path, table: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"gone\.csv cannot be read"):
        follow_up(table, run, tmp_path / "report", test_retest=str(tmp_path / "gone.csv"))


def test_of_a_label_that_is_incomplete_the_rest_is_scored_and_the_volume_left_out(
    run: Path, data: ManyCases, tmp_path: Path
) -> None:
    """Of c5, slices from 4 on are unlabelled; a label without unlabelled voxels keeps its volume."""
    label = data.labels["c5"].copy()
    label[:, :, 4:] = 255
    reference = save(tmp_path / "partly.nii.gz", label, ras_affine(SPACING_MM))
    scans = tmp_path / "scans.csv"
    scans.write_text(
        f"subject,date,image,label\nx,2024-01-01,{data.image('c1')},{data.label('c1')}\n"
        f"x,2025-01-01,{data.image('c5')},{reference}"
    )
    folder = tmp_path / "report"
    output = spleen_followup(scans, "--run", run, "-o", folder, "--ignore-value", "255")
    assert output.startswith("0: "), output
    rows = rows_of(folder)
    mask, known = voxels(folder / "masks" / "x_2025-01-01.nii.gz")[:, :, :4] == 1, label[:, :, :4] == 1
    row = rows["x", "2025-01-01", "front"]
    assert row["reference_ml"] == ""
    assert float(row["dice"]) == pytest.approx(2 * (mask & known).sum() / (mask.sum() + known.sum()), rel=1e-4)
    assert float(rows["x", "2024-01-01", "front"]["reference_ml"]) == pytest.approx(24 * 3 * VOXEL_MM3 / 1000)
    refused = spleen_followup(scans, "--run", run, "-o", tmp_path / "other", "--ignore-value", "2")
    assert refused.startswith("2: ")
    assert "2 cannot be ignored: it is the class back" in refused.replace("\n", " ")


def test_a_damaged_scan_does_not_stop_the_others(run: Path, table: Path, data: ManyCases, tmp_path: Path) -> None:
    (tmp_path / "x_2025-06-01.nii.gz").write_bytes(b"nothing")
    scans = tmp_path / "scans.csv"
    scans.write_text(
        f"subject,date,image\nx,2024-01-01,{data.image('c1')}\nx,2025-06-01,x_2025-06-01.nii.gz\n"
        f"x,2026-01-01,{data.image('c5')}"
    )
    output = spleen_followup(scans, "--run", run, "-o", tmp_path / "report")
    assert output.startswith("1: ")
    assert re.search(r"x, 2025-06-01: not counted: .*x_2025-06-01.nii.gz", output)
    row = rows_of(tmp_path / "report")["x", "2026-01-01", "front"]
    assert float(row["change_percent"]) > 20


def test_without_a_calibration_the_report_says_how_to_get_one(
    run: Path, table: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bare = tmp_path / "bare.ckpt"
    bare.write_bytes((run / "checkpoints" / "best.ckpt").read_bytes())
    output = spleen_followup(table, "--run", bare, "-o", tmp_path / "report")
    assert "`spleen calibrate RUN --images … --labels …` does that" in output
    assert "no repeatability limit: the runs are not calibrated for this, and no test–retest pairs are given" in output
    assert rows_of(tmp_path / "report")["anna", "2025-01-01", "front"]["volume_ml_low"] == ""


def test_dicom_folders_bring_their_dates_and_hide_their_patients(tmp_path: Path) -> None:
    def of_day(day: str):
        def change(dataset, _number: int) -> None:
            dataset.PatientID, dataset.AcquisitionDate, dataset.ConvolutionKernel = "MRS-4711", day, "B30f"

        return change

    for day in ("20240131", "20230131"):
        dicom.edit(dicom.write(tmp_path / "patient" / day, seed=day), of_day(day))
    with_number = read_scans([tmp_path / "patient"])
    assert [(scan.subject, scan.day.isoformat()) for scan in with_number] == [
        ("patient 1", "2023-01-31"),
        ("patient 1", "2024-01-31"),
    ]
    assert with_number[0].protocol["kernel"] == "B30f"
    assert read_scans([tmp_path / "patient"], identifying=True)[0].subject == "MRS-4711"


def test_wrong_input_is_refused_before_anything_is_computed(run: Path, table: Path, tmp_path: Path) -> None:
    nib.save(nib.Nifti1Image(np.zeros((5, 5, 5), np.int16), np.eye(4)), tmp_path / "ct.nii.gz")
    cases = {
        (tmp_path / "gone.csv", "--run", run): "gone.csv cannot be read",
        (tmp_path / "ct.nii.gz", "--run", run): "call it SUBJECT_2024-01-31.nii.gz",
        (table, "--run", tmp_path): "is not a run folder",
        (table, "--run", run, "--best", "--all"): "either --best or --all",
    }
    for arguments, reason in cases.items():
        output = spleen_followup(*arguments, "-o", tmp_path / "report")
        assert output.startswith("2: "), output
        assert reason in output.replace("\n", " ")
    assert not (tmp_path / "report").exists()
