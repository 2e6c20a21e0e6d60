"""Results of cross-validations, of classes, and of runs without validation, from handwritten run folders."""

import csv
import json
import math
from pathlib import Path

import pytest

from spleen.runs.results.files import as_csv, as_latex, as_markdown
from spleen.runs.results.results import StudyResults, results
from spleen.runs.results.text import class_table, conclusions, print_results, table, title
from tests._helpers.run_folders import write_run


def fold_run(folder: Path, fold: object, dice: float, n_folds: int | None = None, **settings: object) -> Path:
    """A run tested on a case of its own, with a Dice of `dice` for one class and half of it for the other."""
    name = f"c{fold}"
    cases = [("test", name, "x", dice), ("test", name, "y", dice / 2), ("val", "v", "x", 0.5), ("val", "v", "y", 0.5)]
    run = write_run(folder, 0.5, 0.75 * dice, cases=cases, fold=fold, **{"split__folds": 5, **settings})
    if n_folds is not None:
        (run / "splits_final.json").write_text(json.dumps([{}] * n_folds))
    return run


def conclusion_text(study: StudyResults) -> str:
    return "\n".join(conclusions(study))


# Folds --------------------------------------------------------------------------------------------------------------


def test_missing_folds_are_reported(tmp_path: Path) -> None:
    for fold in (0, 1, 3):
        fold_run(tmp_path / str(fold), fold, 0.8)
    study = results(tmp_path)
    (arm,) = study.arms
    assert arm.folds is not None
    assert (arm.folds.n, arm.folds.missing) == (5, (2, 4))
    assert (
        "\n3 of 5 folds are complete; missing: 2, 4. The cases of a missing fold are in no score.\n"
        in conclusion_text(study)
    )
    for fold in (2, 4):
        fold_run(tmp_path / str(fold), fold, 0.8)
    assert "of 5 folds" not in conclusion_text(results(tmp_path))


def test_the_number_of_folds_is_read_from_the_splits_file(tmp_path: Path) -> None:
    for fold in (0, 1):
        fold_run(tmp_path / str(fold), fold, 0.8, n_folds=3)
    assert "2 of 3 folds are complete; missing: 2." in conclusion_text(results(tmp_path))


def test_each_arm_and_each_seed_needs_all_folds(tmp_path: Path) -> None:
    for seed, fold in ((0, 0), (0, 1), (1, 0)):
        fold_run(tmp_path / f"a{seed}{fold}", fold, 0.8, seed=seed, split__seed=0, split__folds=2)
    for fold in (0, 1):
        fold_run(tmp_path / f"b{fold}", fold, 0.6, lr=1e-4, split__folds=2)
    study = results(tmp_path)
    assert {arm.label: arm.folds.missing for arm in study.arms if arm.folds} == {"lr 1e-03": (1,), "lr 1e-04": ()}
    assert "lr 1e-03: 1 of 2 folds are complete; missing: 1." in conclusion_text(study)


def test_a_single_fold_is_averaged_over_its_cases(tmp_path: Path) -> None:
    cases = [("test", name, "x", dice) for name, dice in (("a", 0.6), ("b", 0.8), ("c", 0.7))]
    write_run(tmp_path / "0", cases=cases, fold=0)
    study = results(tmp_path)
    (arm,) = study.arms
    assert study.over == "cases"
    assert (arm.test_dice.mean, arm.test_dice.n) == (pytest.approx(0.7), 3)
    assert arm.test_dice.interval is not None
    assert arm.folds is None  # the number of folds is unknown


def test_runs_on_all_cases_or_with_a_fraction_split_are_not_folds(tmp_path: Path) -> None:
    for fold in (0, 1):
        fold_run(tmp_path / str(fold), fold, 0.8, split__folds=2)
    fold_run(tmp_path / "all", "all", 0.2, split__folds=2)
    fold_run(tmp_path / "fractions", None, 0.4, split__folds=2)
    study = results(tmp_path)
    means = {arm.label: (round(arm.test_dice.mean, 9), arm.n_runs) for arm in study.arms}
    assert means == {"fold 0,1": (0.6, 2), "fold all": (0.15, 1), "fold -": (0.3, 1)}
    columns, rows = table(study)
    folds = [getattr(column, "name", column) for column in columns].index("folds")
    assert sorted(str(row[folds]) for row in rows) == ["0", "0", "2"]
    assert "of 2 folds" not in conclusion_text(study)


# Classes ------------------------------------------------------------------------------------------------------------


def test_each_class_is_averaged_over_the_cases_of_all_folds(tmp_path: Path) -> None:
    for fold, dice in ((0, 0.8), (1, 0.6), (2, 0.7), (3, math.nan)):
        fold_run(tmp_path / str(fold), fold, dice, split__folds=4)
    (arm,) = results(tmp_path).arms
    assert list(arm.test_dice_by_class) == ["x", "y"]
    assert (arm.test_dice_by_class["x"].mean, arm.test_dice_by_class["x"].n) == (pytest.approx(0.7), 3)
    assert arm.test_dice_by_class["y"].mean == pytest.approx(0.35)
    interval = arm.test_dice_by_class["x"].interval
    assert interval is not None
    assert 0.6 <= interval.low < 0.7 < interval.high <= 0.8


def with_classes(run: Path, **dice: float | None) -> None:
    """Add the test Dice of each class to a run's summary."""
    content = json.loads((run / "summary.json").read_text())
    content["test"] |= {name: {"dice": value, "jaccard": 0.1, "n_cases": 1} for name, value in dice.items()}
    (run / "summary.json").write_text(json.dumps(content))


@pytest.fixture
def by_class(tmp_path: Path) -> StudyResults:
    """Two seeds with the classes front and back_2, and another arm with one class alone."""
    with_classes(write_run(tmp_path / "a0", 0.9, 0.7, seed=0), front=0.80, back_2=0.6)
    with_classes(write_run(tmp_path / "a1", 0.9, 0.7, seed=1), front=0.84, back_2=None)
    with_classes(write_run(tmp_path / "b", 0.8, 0.6, lr=1e-4), organ=0.6)
    return results(tmp_path)


def test_each_class_is_averaged_over_the_runs(by_class: StudyResults) -> None:
    columns, rows = class_table(by_class)
    assert [getattr(column, "name", column) for column in columns] == [
        "",
        "arm",
        "class",
        "test Dice",
        "± 95 %",
        "runs",
    ]
    (star, arm, name, mean, half, n), back = rows
    assert (star, arm, name, mean, n) == ("*", "lr 1e-03", "front", pytest.approx(0.82), 2)
    # t(0.975; 1) = 12.7062; s / √2 = 0.02
    assert half == pytest.approx(12.7062 * 0.02, abs=1e-6)
    assert back == ["*", "lr 1e-03", "back_2", pytest.approx(0.6), None, 1]


def test_class_scores_are_in_every_output_format(
    by_class: StudyResults, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "160")
    print_results(by_class)
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["*", "lr", "1e-03", "front", "0.8200", "0.2541", "2"] in lines
    markdown = [line.replace(" ", "") for line in as_markdown(by_class).splitlines()]
    assert "|*|lr1e-03|back_2|0.6000|-|1|" in markdown
    first, second = csv.DictReader(as_csv(by_class).splitlines())
    assert (first["test_dice:front"], first["test_dice:back_2"]) == ("0.82", "0.6")
    assert float(first["test_dice:front_low"]) == pytest.approx(0.82 - 0.254124, abs=1e-6)
    assert (second["test_dice:front"], second["test_dice:front_low"]) == ("", "")
    latex = [line.strip() for line in as_latex(by_class).splitlines()]
    assert r"Arm & front & back\_2 \\" in latex
    assert r"lr 1e-03\textsuperscript{*} & \textbf{0.8200} $\pm$ 0.2541 & \textbf{0.6000} \\" in latex
    assert r"lr 1e-04 & -- & -- \\" in latex


def test_a_single_class_has_no_table_of_its_own(tmp_path: Path) -> None:
    with_classes(write_run(tmp_path / "a"), organ=0.5)
    study = results(tmp_path)
    assert class_table(study)[1] == []
    assert "tab:results_by_class" not in as_latex(study)
    assert "test_dice:" not in as_csv(study)


# Without validation -------------------------------------------------------------------------------------------------


def test_without_validation_no_arm_is_chosen_by_its_test_dice(tmp_path: Path) -> None:
    write_run(tmp_path / "a", None, 0.6, lr=1e-3)
    write_run(tmp_path / "b", None, 0.9, lr=1e-4)
    study = results(tmp_path)
    assert [arm.label for arm in study.arms] == ["lr 1e-03", "lr 1e-04"]  # in the order of their folders
    assert (study.selected, study.comparison) == (None, None)
    assert title(study).endswith("2 finished runs in 2 arms, nothing validated")
    first, reading = conclusions(study)
    assert first.startswith("Nothing was validated, so no arm is chosen: the highest of several test Dice is too high")
    assert "split.val_fraction above 0" in first
    assert "chosen" not in reading
    assert [row[0] for row in table(study)[1]] == ["", ""]
    by_test = results(tmp_path, sort="test")
    assert [arm.label for arm in by_test.arms] == ["lr 1e-04", "lr 1e-03"]
    assert by_test.selected is None
    assert title(by_test).endswith("best test Dice first (exploratory)")


def test_a_single_arm_without_validation_is_reported(tmp_path: Path) -> None:
    for seed, test in enumerate((0.6, 0.8)):
        write_run(tmp_path / str(seed), None, test, seed=seed)
    # t(0.975; 1) = 12.7062; s / √2 = 0.1
    assert conclusions(results(tmp_path))[0] == "Nothing was validated. Test Dice 0.7000 ± 1.2706."


def test_an_arm_with_validation_is_not_compared_with_one_without(tmp_path: Path) -> None:
    write_run(tmp_path / "a", None, 0.9, lr=1e-3)
    write_run(tmp_path / "b", 0.3, 0.2, lr=1e-4)
    study = results(tmp_path)
    assert study.selected is not None
    assert (study.selected.label, study.comparison) == ("lr 1e-04", None)
