"""The best arm compared with the next: differences computed by hand, p-values and intervals by SciPy."""

import math
from pathlib import Path

import numpy as np
import pytest
import scipy.stats

from spleen.records.cases import mean_of_known
from spleen.runs.results.comparison import ArmComparison
from spleen.runs.results.results import results
from spleen.runs.results.statistics import score_over_runs, t_interval
from tests._helpers.run_folders import write_run

NAN = math.nan


def comparison_in(folder: Path) -> ArmComparison:
    comparison = results(folder).comparison
    assert comparison is not None
    return comparison


@pytest.mark.parametrize("count", [2, 3, 20])
def test_the_t_interval_matches_scipy(count: int) -> None:
    values = np.random.default_rng(count).uniform(0.7, 0.9, count)
    low, high = scipy.stats.t.interval(0.95, count - 1, loc=values.mean(), scale=scipy.stats.sem(values))
    interval = t_interval(values.tolist())
    assert interval is not None
    assert (interval.low, interval.high) == pytest.approx((low, high))


def test_nan_is_ignored_and_a_single_value_has_no_interval() -> None:
    score = score_over_runs([0.25, NAN, 0.75])
    assert (score.mean, score.n) == (0.5, 2)
    assert score_over_runs([0.25, NAN]).interval is None
    assert math.isnan(mean_of_known([NAN]))


def test_scores_are_paired_by_seed_case_and_class(tmp_path: Path) -> None:
    # Differences: seed 0 (0.2 + 0.1) / 2 = 0.15, as class z is only in one; seed 1 0.05, as y is empty in one.
    ours = {
        0: [("test", "a", "x", 0.9), ("test", "a", "y", 0.8), ("test", "a", "z", 1.0), ("val", "a", "x", 0.0)],
        1: [("test", "a", "x", 0.85), ("test", "a", "y", NAN)],
        2: [("test", "a", "x", 0.1)],  # seed 2 has no partner
    }
    theirs = {
        0: [("test", "a", "y", 0.7), ("test", "a", "x", 0.7)],
        1: [("test", "a", "x", 0.8), ("test", "a", "y", 0.1)],
    }
    for seed, cases in ours.items():
        write_run(tmp_path / f"ours{seed}", 0.9, cases=cases, lr=1e-3, seed=seed)
    for seed, cases in theirs.items():
        write_run(tmp_path / f"theirs{seed}", 0.8, cases=cases, lr=1e-4, seed=seed)
    comparison = comparison_in(tmp_path)
    assert (comparison.best.label, comparison.following.label) == ("lr 1e-03", "lr 1e-04")
    assert (comparison.n_pairs, comparison.unit) == (2, "run")
    assert comparison.difference == pytest.approx(0.1)
    # s = 0.05 · √2, s / √2 = 0.05, t(0.975; 1) = 12.7062
    assert comparison.interval is not None
    assert comparison.interval.low == pytest.approx(0.1 - 12.7062 * 0.05, abs=1e-4)
    assert comparison.verdict == "too few pairs"
    assert comparison.p_value is None


def make_two_arms(folder: Path, differences: dict[int, list[float]], slices: tuple[int, ...] = (3, 4)) -> None:
    """Two learning rates; the better one by validation has these differences in test Dice, per seed and case."""
    for seed, values in differences.items():
        cases = [("test", f"case{number}", "x", 0.5 + value) for number, value in enumerate(values)]
        write_run(folder / f"ours{seed}", 0.9, cases=cases, lr=1e-3, seed=seed, test_slices=slices)
        cases = [("test", f"case{number}", "x", 0.5) for number, _ in enumerate(values)]
        write_run(folder / f"theirs{seed}", 0.8, cases=cases, lr=1e-4, seed=seed)


def test_seeds_are_averaged_before_cases_are_paired(tmp_path: Path) -> None:
    drawn = np.random.default_rng(5).normal(0.04, 0.03, (2, 12))
    make_two_arms(tmp_path, {0: drawn[0].tolist(), 1: drawn[1].tolist()})
    comparison, expected = comparison_in(tmp_path), drawn.mean(axis=0)
    assert (comparison.n_pairs, comparison.unit) == (12, "case")
    assert comparison.difference == pytest.approx(expected.mean())
    assert comparison.p_value == pytest.approx(scipy.stats.wilcoxon(expected).pvalue)
    bootstrap = scipy.stats.bootstrap((expected,), np.mean, n_resamples=9999, rng=np.random.default_rng(0))
    assert comparison.interval is not None
    assert comparison.interval.low == pytest.approx(bootstrap.confidence_interval.low, abs=1e-3)
    assert comparison.interval.high == pytest.approx(bootstrap.confidence_interval.high, abs=1e-3)
    assert comparison.verdict == "distinguishable"


@pytest.mark.parametrize(
    ("differences", "verdict"),
    [
        ([0.02, 0.03, 0.01, 0.04, 0.02, 0.03], "distinguishable"),
        (
            [-0.02, -0.03, -0.01, -0.04, -0.02, -0.03],
            "distinguishable",
        ),  # the best by validation may be worse on the test split
        ([0.02, -0.03, 0.01, -0.04, 0.02, 0.03], "not distinguishable"),
        ([0.0] * 6, "not distinguishable"),
        ([0.02, 0.03, 0.01, 0.04, 0.02], "too few pairs"),
        ([0.02], "too few pairs"),
        ([], "no pairs"),
    ],
)
def test_the_verdict_depends_on_the_number_and_signs_of_the_differences(
    tmp_path: Path, differences: list[float], verdict: str
) -> None:
    make_two_arms(tmp_path / "seeds", {seed: [difference] for seed, difference in enumerate(differences)} or {0: []})
    assert comparison_in(tmp_path / "seeds").verdict == verdict
    make_two_arms(tmp_path / "cases", {0: differences})
    assert comparison_in(tmp_path / "cases").verdict == verdict


def test_arms_tested_on_different_slices_are_flagged(tmp_path: Path) -> None:
    make_two_arms(tmp_path / "same", {0: [0.1]})
    make_two_arms(tmp_path / "other", {0: [0.1]}, slices=(5, 6))
    assert comparison_in(tmp_path / "same").same_slices
    assert not comparison_in(tmp_path / "other").same_slices
    write_run(tmp_path / "axes" / "a", 0.9, axis="axial")
    write_run(tmp_path / "axes" / "b", 0.8, axis="coronal")
    assert not comparison_in(tmp_path / "axes").same_slices


def test_without_a_second_arm_nothing_is_compared(tmp_path: Path) -> None:
    write_run(tmp_path / "only")
    assert results(tmp_path).comparison is None


def test_runs_without_cases_csv_are_not_paired(tmp_path: Path) -> None:
    make_two_arms(tmp_path, {0: [0.1], 1: [0.2]})
    (tmp_path / "ours1" / "cases.csv").unlink()
    comparison = comparison_in(tmp_path)
    assert (comparison.n_pairs, comparison.difference) == (1, pytest.approx(0.1))
