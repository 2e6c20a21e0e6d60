"""The `spleen evaluate` command: printed text, files, exit codes."""

import csv
import json
import math
import resource
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from spleen.cli.main import app
from spleen.cli.options import parse_classes, parse_tolerance
from spleen.errors import InputError
from spleen.evaluation.evaluate import evaluate
from tests._helpers.nifti import SHAPE, box, ras_affine, save

ORGAN = box(low=(0, 1, 0), high=(2, 3, 1))
SHIFTED = box(low=(1, 1, 0), high=(3, 3, 1))
EMPTY = np.zeros(SHAPE, dtype=np.int16)
CASES = {"same": (ORGAN, ORGAN), "shifted": (SHIFTED, ORGAN), "missed": (EMPTY, ORGAN), "empty": (EMPTY, EMPTY)}


@pytest.fixture(autouse=True)
def wide_terminal(monkeypatch):
    monkeypatch.setenv("COLUMNS", "100")


@pytest.fixture
def pair(tmp_path) -> tuple[Path, Path]:
    for side, name in enumerate(("predictions", "references")):
        (tmp_path / name).mkdir()
        for case_id, arrays in CASES.items():
            save(tmp_path / name / f"{case_id}.nii.gz", arrays[side], ras_affine())
    return tmp_path / "predictions", tmp_path / "references"


def run(*arguments):
    return CliRunner().invoke(app, ["evaluate", *(str(argument) for argument in arguments)])


def parse_strict_json(text: str):
    """Parse JSON as the standard defines it: no NaN, no Infinity."""

    def refuse(constant):
        raise AssertionError(f"{constant} is not valid JSON")

    return json.loads(text, parse_constant=refuse)


def test_a_single_case_is_printed_as_a_list_of_metrics_within_100_columns(pair):
    result = run(pair[0] / "shifted.nii.gz", pair[1] / "shifted.nii.gz")
    assert result.exit_code == 0
    lines = {line.split()[0]: line.split()[1] for line in result.stdout.splitlines() if len(line.split()) > 1}
    assert (lines["dice"], lines["hausdorff_mm"], lines["volume_reference_mm3"]) == ("0.5000", "0.80", "13")
    assert max(len(line) for line in result.stdout.splitlines()) <= 100


def test_several_cases_are_printed_as_tables_with_a_summary(pair):
    result = run(*pair, "--classes", "1=spleen")
    assert result.exit_code == 0
    text = result.stdout
    assert "spleen: 4 cases, 1 empty in both, 1 false negative, 0 false positive" in text
    row = next(line.split() for line in text.splitlines() if line.split()[:1] == ["missed"])
    assert row == ["missed", "0.000", "0.000", "0.000", "inf", "inf", "0.000", "0.0", "-100.0"]
    summary = next(line.split() for line in text.splitlines() if line.split()[:1] == ["Dice"] and "…" in line)
    assert (summary[1], summary[5:]) == ("0.5000", ["0.5000", "0.0000", "missed"])
    assert max(len(line) for line in text.splitlines()) <= 100


def test_csv_and_json_contain_the_values_returned_by_the_python_function(pair, tmp_path):
    result = run(*pair, "--classes", "1=spleen", "--csv", tmp_path / "new" / "s.csv", "--json", tmp_path / "s.json")
    assert result.exit_code == 0
    evaluation = evaluate(*pair, classes={1: "spleen"})
    with (tmp_path / "new" / "s.csv").open() as file:
        rows = list(csv.DictReader(file))
    record = parse_strict_json((tmp_path / "s.json").read_text())
    assert [row["case_id"] for row in rows] == list(record["cases"]) == sorted(CASES)
    for row, score in zip(rows, evaluation.scores, strict=True):
        for name in evaluation.metrics:
            assert float(row[name]) == pytest.approx(score.value(name), nan_ok=True)
            value = record["cases"][row["case_id"]]["spleen"][name]
            assert float("nan" if value is None else value) == pytest.approx(score.value(name), nan_ok=True)


def test_json_contains_means_intervals_and_worst_cases(pair, tmp_path):
    run(*pair, "--classes", "1=spleen", "--json", tmp_path / "s.json")
    record = parse_strict_json((tmp_path / "s.json").read_text())
    assert record["mean"]["spleen"]["dice"] == 0.5
    assert record["mean"]["all_classes"] == record["mean"]["spleen"]
    assert record["mean"]["spleen"]["hausdorff95_mm"] == "Infinity"
    assert math.isinf(float(record["mean"]["spleen"]["hausdorff95_mm"]))
    assert record["cases"]["empty"]["spleen"]["dice"] is None
    assert record["median"]["spleen"]["dice"] == 0.5
    low, high = record["ci95"]["spleen"]["dice"]
    assert 0 <= low < 0.5 < high <= 1
    assert record["worst"]["spleen"]["dice"] == {"case": "missed", "value": 0.0}
    assert record["counts"]["spleen"] == {"n_cases": 4, "n_empty": 1, "n_false_negative": 1, "n_false_positive": 0}
    assert (record["n_values"]["spleen"]["dice"], record["n_infinite"]["spleen"]["hausdorff95_mm"]) == (3, 1)
    assert record["settings"] == {"classes": {"spleen": [1]}, "tolerance_mm": {"spleen": 1.0}, "prevalence": None}
    assert record["failures"] == {}


def test_only_predicted_skips_and_counts_references_without_a_prediction(pair, tmp_path):
    """The Dice of "shifted" is 0.5 and that of "same" is 1, so their mean is 0.75."""
    for name in ("missed", "empty"):
        (pair[0] / f"{name}.nii.gz").unlink()
    result = run(*pair)
    assert result.exit_code == 2
    assert "2 file(s) have no counterpart" in result.stderr
    assert "--only-predicted" in result.stderr
    result = run(*pair, "--only-predicted", "--json", tmp_path / "s.json")
    assert result.exit_code == 0
    assert "2 cases, 1 class; skipped, no prediction: 2 (empty, missed)" in result.stdout
    record = parse_strict_json((tmp_path / "s.json").read_text())
    assert (record["mean"]["1"]["dice"], sorted(record["cases"])) == (0.75, ["same", "shifted"])
    assert record["unpredicted"] == ["empty", "missed"]


def test_a_prediction_without_a_reference_is_always_an_error(pair):
    (pair[1] / "same.nii.gz").unlink()
    for options in ([], ["--only-predicted"]):
        result = run(*pair, *options)
        assert result.exit_code == 2
        assert f"only in {pair[0]}: same.nii.gz" in result.stderr
        assert "--only-predicted" not in result.stderr


def test_a_bad_pair_is_reported_and_the_other_cases_are_still_written(pair, tmp_path):
    (pair[0] / "shifted.nii.gz").write_bytes(b"no NIfTI")
    result = run(*pair, "--csv", tmp_path / "s.csv", "--json", tmp_path / "s.json")
    assert result.exit_code == 1
    assert "shifted" in result.stderr
    assert "Traceback" not in result.output
    assert [row.split(",")[0] for row in (tmp_path / "s.csv").read_text().splitlines()[1:]] == [
        "empty",
        "missed",
        "same",
    ]
    assert list(parse_strict_json((tmp_path / "s.json").read_text())["failures"]) == ["shifted"]


def test_the_plot_is_written_as_png(pair, tmp_path):
    assert run(*pair, "--plot", tmp_path / "p.png", "--no-surface").exit_code == 0
    assert (tmp_path / "p.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("prediction", "message"),
    [
        ("missing.nii.gz", "no such file"),
        ("truncated.nii.gz", "damaged or truncated"),
        ("four_dimensional.nii.gz", "has 4 dimensions"),
        ("probabilities.nii.gz", "must contain integers"),
        ("other_grid.nii.gz", "are on different grids"),
        ("other_spacing.nii.gz", "The spacings are"),
        ("text.nii.gz", "cannot be read as NIfTI"),
        ("", "one of each"),
    ],
)
def test_an_invalid_prediction_is_reported_with_exit_code_2(pair, tmp_path, prediction, message):
    noise = np.random.default_rng(0).integers(0, 2, (20, 21, 22)).astype(np.int16)  # large enough to be cut in two
    whole = save(tmp_path / "truncated.nii.gz", noise, ras_affine()).read_bytes()
    (tmp_path / "truncated.nii.gz").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "text.nii.gz").write_text("not a volume")
    save(tmp_path / "four_dimensional.nii.gz", np.stack([ORGAN, ORGAN], axis=-1), ras_affine())
    save(tmp_path / "probabilities.nii.gz", ORGAN * np.float32(0.37), ras_affine())
    save(tmp_path / "other_grid.nii.gz", ORGAN[:4], ras_affine())
    save(tmp_path / "other_spacing.nii.gz", ORGAN, ras_affine(spacing_mm=(0.8, 0.8, 4.0)))
    result = run(tmp_path / prediction, pair[1] / "same.nii.gz", "--csv", tmp_path / "s.csv")
    assert result.exit_code == 2
    assert message in result.stderr
    assert "Traceback" not in result.output
    assert not (tmp_path / "s.csv").exists()


def test_an_empty_folder_is_reported(pair, tmp_path):
    (tmp_path / "nothing").mkdir()
    result = run(tmp_path / "nothing", pair[1])
    assert (result.exit_code, "contains no .nii" in result.stderr) == (2, True)


def test_an_unwritable_output_is_reported_before_any_input_is_read(pair, tmp_path):
    (tmp_path / "file").write_text("")
    for options in (
        ("--csv", tmp_path / "file" / "s.csv"),
        ("--json", tmp_path),
        ("--plot", tmp_path / "p.docx"),
        ("--csv", tmp_path / "same", "--json", tmp_path / "same"),
    ):
        result = run(tmp_path / "missing.nii.gz", pair[1] / "same.nii.gz", *options)
        assert result.exit_code == 2
        assert options[0] in result.stderr or "--json" in result.stderr
        assert "missing.nii.gz" not in result.stderr
    assert not list(tmp_path.glob(".tmp-*"))


def test_on_a_full_disk_results_are_still_printed_and_no_partial_file_remains(pair, tmp_path):
    """No file may grow beyond 100 bytes, as if the disk were full; the first CSV line alone is longer."""
    (tmp_path / "s.csv").write_text("the former one")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, hard))
    try:
        result = run(*pair, "--csv", tmp_path / "s.csv", "--plot", tmp_path / "p.png", "--no-surface")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert result.exit_code == 2
    assert "shifted" in result.stdout
    assert all(word in result.stderr for word in ("s.csv", "p.png", "could not be written", "tables above"))
    assert (tmp_path / "s.csv").read_text() == "the former one"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["predictions", "references", "s.csv"]


@pytest.mark.parametrize(
    ("text", "classes"),
    [
        (None, None),
        ("1=spleen,2=liver", {1: "spleen", 2: "liver"}),
        (" 3 = left kidney , 4", {3: "left kidney", 4: "4"}),
        ("-1=other", {-1: "other"}),
    ],
)
def test_parse_classes(text, classes):
    assert parse_classes(text) == classes


@pytest.mark.parametrize("text", ["", "spleen", "spleen=1", "1=", "1=a,1=b", "1.5=a", "1=a,"])
def test_invalid_classes_are_reported(text):
    with pytest.raises(InputError, match="such as 1=spleen,2=liver"):
        parse_classes(text)


def test_parse_tolerance():
    assert parse_tolerance("1.5") == 1.5
    assert parse_tolerance("spleen=1, liver=2.5") == {"spleen": 1.0, "liver": 2.5}
    for text in ("wide", "spleen=wide", "spleen=1=2", "spleen=1,liver"):
        with pytest.raises(InputError, match="a length in mm"):
            parse_tolerance(text)
