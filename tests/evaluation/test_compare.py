"""`compare`: hand-computed paired differences, NaN and infinite scores, the kinds of input, the command."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import wilcoxon
from typer.testing import CliRunner

from spleen.cli.main import app
from spleen.errors import InputError
from spleen.evaluation.compare import Comparison, compare
from spleen.evaluation.evaluate import evaluate
from spleen.evaluation.metrics.per_case import CaseScore
from spleen.evaluation.report.files import to_csv
from spleen.evaluation.summary import ALL_CLASSES
from spleen.runs.summary import write_cases
from tests._helpers.nifti import SHAPE, ras_affine, save

INF, NAN = math.inf, math.nan


def bar(length: int, start: int = 0, value: int = 1) -> np.ndarray:
    """A row of voxels along j."""
    label = np.zeros(SHAPE, dtype=np.int16)
    label[2, start : start + length, 1] = value
    return label


def table(path: Path, scores: dict, metric="dice") -> Path:
    """Write a CSV file like that of `spleen evaluate`, from {case or (case, class): value}."""
    rows = [f"case_id,class_name,{metric}"]
    for key, value in scores.items():
        case_id, class_name = key if isinstance(key, tuple) else (key, "organ")
        rows.append(f"{case_id},{class_name},{value}")
    path.write_text("\n".join(rows) + "\n")
    return path


def compared(tmp_path: Path, a: dict, b: dict, metric="dice") -> Comparison:
    return compare(table(tmp_path / "a.csv", a, metric), table(tmp_path / "b.csv", b, metric), metrics=[metric])


def run(*arguments):
    return CliRunner().invoke(app, ["compare", *(str(argument) for argument in arguments)])


# Numbers ------------------------------------------------------------------------------------------------------------


def test_differences_wins_and_ties_match_hand_computed_values(tmp_path):
    a = {"one": 0.5, "two": 0.8, "three": 0.9, "four": 0.7}
    b = {"one": 0.7, "two": 0.7, "three": 0.9, "four": 0.8}
    (summary,) = compared(tmp_path, a, b).summaries
    assert (summary.mean_a, summary.mean_b) == pytest.approx((0.725, 0.775))
    assert summary.mean_difference == pytest.approx(0.05)
    assert summary.median_difference == pytest.approx(0.05)
    assert (summary.wins, summary.ties, summary.losses, summary.n_pairs) == (2, 1, 1, 4)
    assert summary.interval is not None
    assert summary.interval.low < 0.05 < summary.interval.high


def test_a_smaller_distance_or_an_error_closer_to_0_wins(tmp_path):
    (distance,) = compared(tmp_path, {"one": 5.0, "two": 2.0}, {"one": 3.0, "two": 2.5}, "hausdorff95_mm").summaries
    assert (distance.wins, distance.losses, distance.mean_difference) == (1, 1, -0.75)
    errors = compared(tmp_path, {"one": -0.3, "two": 0.1}, {"one": 0.2, "two": -0.2}, "volume_error_relative")
    assert [pair.difference for pair in errors.pairs] == pytest.approx([-0.1, 0.1])
    assert [pair.is_better for pair in errors.pairs] == [True, False]


def test_the_p_value_matches_scipy_wilcoxon(tmp_path):
    random = np.random.default_rng(0)
    a = {f"case {n}": float(value) for n, value in enumerate(random.random(20))}
    b = {case: value + float(random.normal(0.1, 0.2)) for case, value in a.items()}
    (summary,) = compared(tmp_path, a, b).summaries
    assert summary.wilcoxon_p == pytest.approx(wilcoxon(list(a.values()), list(b.values())).pvalue)


def test_fewer_than_six_pairs_are_reported_as_too_few_for_significance(tmp_path):
    a, b = ({f"case {n}": base + n / 100 * base for n in range(6)} for base in (0.1, 0.8))
    assert "fewer than 6" not in str(compared(tmp_path, a, b))
    del a["case 5"], b["case 5"]
    assert "fewer than 6 cases differ, so no signed-rank test can reach p < 0.05" in str(compared(tmp_path, a, b))


def test_undefined_and_infinite_scores_are_counted_separately(tmp_path):
    a = {"both undefined": NAN, "only b": NAN, "both inf": INF, "found": INF, "lost": 1.0, "usual": 4.0}
    b = {"both undefined": NAN, "only b": INF, "both inf": INF, "found": 2.0, "lost": INF, "usual": 3.0}
    comparison = compared(tmp_path, a, b, "hausdorff95_mm")
    (summary,) = comparison.summaries
    assert (summary.n_pairs, summary.n_undefined, summary.one_sided) == (4, 1, ("only b",))
    assert (summary.wins, summary.ties, summary.losses, summary.n_infinite) == (2, 1, 1, 2)
    assert math.isnan(summary.mean_difference)  # inf and -inf
    assert summary.interval is None
    assert summary.median_difference == -0.5  # of -inf, -1, 0, inf
    assert [pair.case_id for pair in comparison.moved_most("hausdorff95_mm")] == ["found", "lost", "usual"]
    text = str(comparison)
    assert "2 of 4 differences infinite" in text
    assert "excluded, undefined on one side only: only b" in text


@pytest.mark.parametrize("metric", ["Dice", "hausdorff95"])
def test_the_cases_that_moved_most_by_an_unknown_metric_are_refused(tmp_path, metric):
    comparison = compared(tmp_path, {"one": 0.5}, {"one": 0.7})
    with pytest.raises(InputError, match=f"metric must be one of 'dice'; got '{metric}'"):
        comparison.moved_most(metric)


def test_one_infinite_difference_makes_the_mean_infinite(tmp_path):
    (summary,) = compared(tmp_path, {"one": INF, "two": 2.0}, {"one": 2.0, "two": 2.0}, "hausdorff_mm").summaries
    assert (summary.mean_difference, summary.median_difference) == (-INF, -INF)  # midway between 0 and -inf
    assert (summary.mean_a, summary.mean_b) == (INF, 2.0)


def test_differences_within_rounding_error_are_ties(tmp_path):
    (summary,) = compared(tmp_path, {"one": 0.1 + 0.2, "two": 96671.76}, {"one": 0.3, "two": 96671.7600001}).summaries
    assert (summary.ties, summary.mean_difference) == (2, 0.0)


def test_the_mean_over_classes_uses_only_scores_defined_on_both_sides(tmp_path):
    a = {("one", "left"): 0.5, ("one", "right"): 0.5, ("two", "left"): 0.4, ("two", "right"): NAN}
    b = {("one", "left"): 0.7, ("one", "right"): 0.9, ("two", "left"): 0.5, ("two", "right"): 0.0}
    left, right, both = compared(tmp_path, a, b).summaries
    assert (left.class_name, right.class_name, both.class_name) == ("left", "right", ALL_CLASSES)
    assert right.one_sided == ("two",)
    assert both.mean_difference == pytest.approx(((0.2 + 0.4) / 2 + 0.1) / 2)


# Kinds of input -----------------------------------------------------------------------------------------------------


@pytest.fixture
def predictions(tmp_path) -> tuple[Path, Path, Path]:
    """Folders A, B and the reference. Dice of A: 1/2, 2/3, NaN; of B: 1, 0 (missed), NaN."""
    cases = {
        "shifted": (bar(2, 1), bar(2), bar(2)),
        "short": (bar(2), bar(0), bar(4)),
        "empty": (bar(0), bar(0), bar(0)),
    }
    for side, name in enumerate("abr"):
        (tmp_path / name).mkdir()
        for case_id, labels in cases.items():
            save(tmp_path / name / f"{case_id}.nii.gz", labels[side], ras_affine())
    return tmp_path / "a", tmp_path / "b", tmp_path / "r"


def test_folders_of_predictions_are_scored_against_the_reference(predictions):
    comparison = compare(*predictions, metrics=["dice", "hausdorff_mm"])
    dice, distance = comparison.summaries
    assert (dice.mean_a, dice.mean_b) == pytest.approx(((1 / 2 + 2 / 3) / 2, 1 / 2))
    assert dice.n_undefined == 1
    assert (distance.mean_b, distance.wins, distance.losses) == (INF, 1, 1)


def test_score_files_give_the_same_result_as_folders(predictions, tmp_path):
    a, b, reference = predictions
    for name, folder in (("a.csv", a), ("b.csv", b)):
        (tmp_path / name).write_text(to_csv(evaluate(folder, reference, {1: "organ"})))
    metrics = ["dice", "average_surface_distance_mm", "volume_error_relative"]
    from_files = compare(tmp_path / "a.csv", tmp_path / "b.csv", metrics=metrics)
    from_folders = compare(a, b, reference, metrics, classes={1: "organ"})
    for one, other in zip(from_files.pairs, from_folders.pairs, strict=True):
        assert (one.metric, one.case_id, one.class_name) == (other.metric, other.case_id, other.class_name)
        assert (one.a, one.b) == pytest.approx((other.a, other.b), nan_ok=True)


def test_single_files_take_the_case_id_of_the_reference(predictions):
    a, b, reference = (folder / "shifted.nii.gz" for folder in predictions)
    b = b.rename(b.with_name("another_name.nii.gz"))
    (pair,) = compare(a, b, reference).pairs
    assert (pair.case_id, pair.a, pair.b) == ("shifted", 0.5, 1.0)


def test_runs_are_compared_on_one_split(tmp_path):
    for name, val, test in (("a", 0.1, 0.6), ("b", 0.2, 0.9)):
        scores = {
            stage: [CaseScore("case", "organ", dice, *[0.5] * 4, 10.0, 10.0)]
            for stage, dice in (("val", val), ("test", test))
        }
        write_cases(tmp_path / name / "cases.csv", scores)
    assert compare(tmp_path / "a", tmp_path / "b").summaries[0].mean_difference == pytest.approx(0.3)
    assert compare(tmp_path / "a", tmp_path / "b", split="val").summaries[0].mean_difference == pytest.approx(0.1)
    with pytest.raises(InputError, match="--split must be one of 'val', 'test'; got 'train'"):
        compare(tmp_path / "a", tmp_path / "b", split="train")


def test_a_class_predicted_by_one_side_only_counts_as_empty_on_the_other(predictions):
    a, b, reference = predictions
    save(a / "shifted.nii.gz", bar(2, 1) + bar(1, 5, value=3), ras_affine())
    comparison = compare(a, b, reference)
    extra = next(pair for pair in comparison.pairs if (pair.case_id, pair.class_name) == ("shifted", "3"))
    assert (extra.a, math.isnan(extra.b)) == (0.0, True)


def test_only_predicted_skips_references_without_a_prediction(predictions, tmp_path):
    a, b, reference = predictions
    (a / "short.nii.gz").unlink()
    for options, message in (([], "--only-predicted"), (["--only-predicted"], f"only in {b}: short")):
        result = run(a, b, reference, *options)
        assert (result.exit_code, message in result.stderr) == (2, True)
    (b / "short.nii.gz").unlink()
    result = run(a, b, reference, "--only-predicted", "--json", tmp_path / "c.json")
    assert result.exit_code == 0
    assert "skipped, no prediction: 1 (short)" in result.stdout
    record = json.loads((tmp_path / "c.json").read_text())
    assert (sorted(record["cases"]), record["unpredicted"]) == (["empty", "shifted"], ["short"])


def test_an_unreadable_file_excludes_its_case_on_both_sides(predictions):
    a, b, reference = predictions
    (b / "short.nii.gz").write_bytes(b"no NIfTI")
    comparison = compare(a, b, reference)
    assert {pair.case_id for pair in comparison.pairs} == {"shifted", "empty"}
    assert [failure.case_id for failure in comparison.failures] == ["short"]
    assert run(a, b, reference).exit_code == 1


def test_cases_present_on_one_side_only_are_listed(tmp_path):
    a, b = ({"one": 0.5, other: 0.8} for other in ("two", "three"))
    with pytest.raises(InputError, match=r"(?s)only in .*a\.csv: two.*only in .*b\.csv: three"):
        compared(tmp_path, a, b)
    with pytest.raises(InputError, match="each case and class"):
        compared(tmp_path, {("one", "left"): 0.5}, {("one", "right"): 0.5})


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "has no columns case_id and class_name"),
        ("name,value\na,1\n", "has no columns case_id and class_name"),
        ("case_id,class_name,jaccard\na,organ,1\n", "has no column dice; it has jaccard"),
        ("case_id,class_name,dice\n", "holds no case"),
        ("case_id,class_name,dice\na,organ,good\n", "is no number: 'good'"),
        ("case_id,class_name,dice\na,organ\n", "is no number"),
        ("case_id,class_name,dice\na,organ,1\na,organ,1\n", "twice"),
        (b"\xff\xfe\x00case", "cannot be read as CSV"),
    ],
)
def test_an_invalid_score_file_is_reported(tmp_path, content, message):
    (tmp_path / "b.csv").write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(InputError, match=message):
        compare(table(tmp_path / "a.csv", {"a": 0.5}), tmp_path / "b.csv")


def test_invalid_combinations_of_inputs_are_reported(predictions, tmp_path):
    a, b, reference = predictions
    scores = table(tmp_path / "s.csv", {"a": 0.5})
    for arguments, message in (
        ((a, b), "give their REFERENCE too"),
        ((a / "short.nii.gz", b / "short.nii.gz"), "give their REFERENCE too"),
        ((scores, tmp_path / "missing.csv"), "no such file"),
        ((scores, scores, reference), "leave .* out"),
        ((a, tmp_path / "missing", reference), "no such file"),
    ):
        with pytest.raises(InputError, match=message):
            compare(*arguments)
    for metric in ("volume_reference_ml", "nice"):
        with pytest.raises(InputError, match="a metric to compare is one of dice, "):
            compare(scores, scores, metrics=[metric])


@pytest.mark.parametrize(
    ("options", "given"),
    [
        (["--classes", "1=organ"], {"classes": {1: "organ"}}),
        (["--tolerance-mm", "1.0"], {"tolerance_mm": 1.0}),
        (["--grid-tolerance-mm", "0"], {"grid_tolerance_mm": 0.0}),
        (["--only-predicted"], {"only_predicted": True}),
        (["--ignore-value", "0"], {"ignore_value": 0}),
        (["--labelled", "cases.csv"], {"labelled": "cases.csv"}),
    ],
)
def test_a_setting_of_predictions_is_refused_for_scores(tmp_path, options, given):
    scores = table(tmp_path / "s.csv", {"a": 0.5})
    message = f"{options[0]}: only for predictions, which need their REFERENCE"
    with pytest.raises(InputError, match=message):
        compare(scores, scores, **given)
    result = run(scores, scores, *options)
    assert (result.exit_code, message in result.stderr) == (2, True)


def test_a_split_is_refused_for_predictions(predictions):
    with pytest.raises(InputError, match=r"--split is for run folders; .* leave it out"):
        compare(*predictions, split="test")
    assert run(*predictions, "--split", "val").exit_code == 2


# Command ------------------------------------------------------------------------------------------------------------


def test_the_command_prints_and_writes_the_values_returned_by_the_python_function(predictions, tmp_path, monkeypatch):
    monkeypatch.setenv("COLUMNS", "100")
    outputs = ("--csv", tmp_path / "c.csv", "--json", tmp_path / "c.json")
    result = run(*predictions, "--classes", "1=organ", "--metric", "dice", "--metric", "hausdorff_mm", *outputs)
    assert result.exit_code == 0
    assert max(len(line) for line in result.stdout.splitlines() if not line.startswith(("A:", "B:", "wrote"))) <= 100
    row = next(line.split() for line in result.stdout.splitlines() if line.split()[:1] == ["organ"])
    assert row[1:4] == ["0.5833", "0.5000", "-0.0833"]
    assert row[-1] == "1/0/1"
    lines = (tmp_path / "c.csv").read_text().splitlines()
    assert lines[0] == "metric,case_id,class_name,a,b,difference"
    assert "hausdorff_mm,short,organ,1.6,inf,inf" in [line.replace("1.60000002384", "1.6") for line in lines]

    def refuse(constant):
        raise AssertionError(f"{constant} is not valid JSON")

    record = json.loads((tmp_path / "c.json").read_text(), parse_constant=refuse)
    assert record["summary"]["dice"]["organ"]["mean_difference"] == pytest.approx(-1 / 12)
    assert record["summary"]["hausdorff_mm"]["organ"]["mean_b"] == "Infinity"
    assert record["cases"]["shifted"]["organ"]["dice"] == {"a": 0.5, "b": 1.0, "difference": 0.5}
    assert record["cases"]["empty"]["organ"]["dice"] == {"a": None, "b": None, "difference": None}


def test_invalid_input_is_reported_with_exit_code_2(tmp_path):
    result = run(tmp_path / "missing.csv", tmp_path / "missing.csv")
    assert (result.exit_code, "Traceback" in result.output) == (2, False)
    assert "no such file or folder" in result.stderr
