"""Do the calibrated intervals hold what they promise, on cases that calibrated nothing?

Run it from the repository, on a cross-validation that `spleen calibrate STUDY --held-out` has predicted:

    python -m benchmarks.volume_coverage outputs/cv --labels labelsTr

First, each fold's held-out cases are tested with the intervals of the other folds' (every case once), then random
halves of all cases with those of the other half. Coverage is the fraction of cases whose true volume, or Dice, is in
its interval; the width is that of the interval over the predicted volume, or in Dice. The last table does the same with
drawn numbers, for few cases too, and with errors of heavy tails.
"""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.header import header, verdict
from spleen.errors import InputError
from spleen.evaluation.class_names import CSV_NAME, VALUE_SEPARATOR
from spleen.evaluation.scoring import RawSettings, score_pairs
from spleen.imaging.files import volumes_by_name
from spleen.imaging.geometry import GRID_TOLERANCE_MM
from spleen.inference.calibration.calibration import CalibratingCase, ClassCalibration
from spleen.inference.calibration.conformal import fewest_cases
from spleen.inference.record import read_record
from spleen.records.cases import read_known_cases
from spleen.records.reading import find_runs

LEVELS = (0.95, 0.9)
TARGET = (0.93, 0.97)
HALVES, HALVES_OF_GATE = 200, 5000


@dataclass(frozen=True)
class Tested:
    """One test case with one calibration: whether the truth was in the interval, and how wide that was."""

    is_covered: bool
    width: float


def main() -> None:
    """Print the tables."""
    arguments = _parse_arguments()
    cases = _read(arguments.predictions or _predictions(arguments.study), arguments.labels)
    known = [read_known_cases(run) for run in find_runs(arguments.study)]
    # Several runs, such as those of three axes, hold out the same cases.
    folds = [sorted(fold) for fold in dict.fromkeys(each.held_out for each in known if each is not None)]
    print(header())
    print("| class | what | level | coverage, folds in turn | mean width | coverage, random halves | mean width | |")
    print("|---|---|---:|---:|---:|---:|---:|---|")
    for name, of_class in cases.items():
        in_folds = [[of_class[case_id] for case_id in fold if case_id in of_class] for fold in folds]
        everything = list(of_class.values())
        for what in ("volume", "Dice"):
            for level in LEVELS:
                in_turn = [each for part in _in_turn(in_folds) for each in _test(what, level, *part)]
                halves = [each for part in _halves(everything) for each in _test(what, level, *part)]
                reached = verdict(TARGET[0] <= _coverage(in_turn) <= TARGET[1]) if level == LEVELS[0] else ""
                covered = sum(each.is_covered for each in in_turn)
                print(
                    f"| {name} | {what} | {level:.0%} | {_coverage(in_turn):.1%} ({covered} of {len(in_turn)}) | "
                    f"{_width(in_turn):.3f} | {_coverage(halves):.1%} | {_width(halves):.3f} | {reached} |"
                )
    print(f"\nGate, random halves: wanted {ClassCalibration('', (), ()).error_rate:.0%} bad and passing, at most\n")
    print("| class | bad (Dice below) | bad and passing | passing |\n|---|---:|---:|---:|")
    for name, of_class in cases.items():
        for min_dice in (0.8, 0.85):
            print(f"| {name} | {_gate(list(of_class.values()), min_dice)} |")
    _simulate()


def _in_turn(folds: Sequence[list[CalibratingCase]]) -> list[tuple[list[CalibratingCase], list[CalibratingCase]]]:
    """For each fold the cases of the others, which calibrate, and its own, which are tested."""
    return [
        ([case for other in (*folds[:number], *folds[number + 1 :]) for case in other], fold)
        for number, fold in enumerate(folds)
    ]


def _halves(
    cases: Sequence[CalibratingCase], times: int = HALVES
) -> list[tuple[list[CalibratingCase], list[CalibratingCase]]]:
    random, half = np.random.default_rng(0), len(cases) // 2
    orders = [random.permutation(len(cases)) for _ in range(times)]
    return [([cases[i] for i in order[:half]], [cases[i] for i in order[half:]]) for order in orders]


def _test(
    what: str, level: float, calibrating: Sequence[CalibratingCase], tested: Sequence[CalibratingCase]
) -> list[Tested]:
    calibration = ClassCalibration("", (), tuple(calibrating))
    found = []
    for case in tested:
        if what == "volume":
            interval, truth = calibration.volume_interval(case.predicted_mm3, level), case.reference_mm3
            unit = case.predicted_mm3
        else:
            dice = calibration.expected_dice(case.confidence_score, level)
            interval, truth, unit = None if dice is None else (dice.low, dice.high), case.dice, 1.0
        if interval is not None and truth is not None:
            found.append(Tested(interval[0] <= truth <= interval[1], (interval[1] - interval[0]) / unit))
    return found


def _coverage(tested: Sequence[Tested]) -> float:
    return float(np.mean([each.is_covered for each in tested]))


def _width(tested: Sequence[Tested]) -> float:
    return float(np.mean([each.width for each in tested]))


def _gate(cases: Sequence[CalibratingCase], min_dice: float) -> str:
    passing, bad = [], []
    for calibrating, tested in _halves(cases, HALVES_OF_GATE):
        gate = ClassCalibration("", (), tuple(calibrating), min_dice=min_dice).gate
        passes = [gate is not None and case.confidence_score > gate for case in tested]
        passing.append(np.mean(passes))
        bad.append(np.mean([each and case.dice < min_dice for each, case in zip(passes, tested, strict=True)]))
    share = np.mean([case.dice < min_dice for case in cases])
    return f"{share:.1%} ({min_dice:g}) | {np.mean(bad):.1%} | {np.mean(passing):.1%}"


def _simulate() -> None:
    """Volumes and Dice of drawn cases; the error of the volume is log-normal, or has the tails of a t distribution."""
    print("\nSimulated, 95 %: 2,000 draws of the calibrating cases, with one new case each for volume and Dice\n")
    print("| calibrating cases | volume, log-normal | volume, heavy tails | Dice |\n|---:|---:|---:|---:|")
    random = np.random.default_rng(0)
    for n in (fewest_cases(0.95), 39, 100, 200):
        cells = []
        for tails in (np.inf, 2.0):
            draws = [_draw(random, n + 1, tails) for _ in range(2000)]
            cells.append([_coverage([_test(w, 0.95, d[:-1], d[-1:])[0] for d in draws]) for w in ("volume", "Dice")])
        print(f"| {n} | {cells[0][0]:.1%} | {cells[1][0]:.1%} | {cells[0][1]:.1%} |")


def _draw(random: np.random.Generator, n: int, tails: float) -> list[CalibratingCase]:
    score = random.beta(20, 2, n)
    dice = np.clip(0.1 + 0.9 * score + random.normal(0, 0.03, n), 0, 1)
    reference = np.exp(random.normal(12, 0.5, n))
    noise = random.normal(size=n) if np.isinf(tails) else random.standard_t(tails, n)
    predicted = reference * np.exp(0.1 * (1.5 - score) * noise)
    return [CalibratingCase(*map(float, row)) for row in zip(predicted, reference, score, dice, strict=True)]


def _predictions(study: Path) -> Path:
    found = sorted((study / "calibration").glob(f"*/{CSV_NAME}"))
    if len(found) != 1:
        raise InputError(f"{study} has {len(found)} folders of calibrating predictions; give one with --predictions")
    return found[0].parent


def _read(predictions: Path, labels: Path) -> dict[str, dict[str, CalibratingCase]]:
    """Class, then case_id: what `spleen calibrate` reads of the predictions."""
    rows = read_record(predictions / CSV_NAME)
    values = {row["class_name"]: tuple(map(int, row["label_values"].split(VALUE_SEPARATOR))) for row in rows}
    references = volumes_by_name(labels)
    files = {row["case_id"]: (predictions / row["prediction"], references[row["case_id"]]) for row in rows}
    scored, failures = score_pairs(files, RawSettings(values, 0.0, None, False, GRID_TOLERANCE_MM))
    assert not failures, failures
    confidence = {(row["case_id"], row["class_name"]): float(row["confidence_score"]) for row in rows}
    cases: dict[str, dict[str, CalibratingCase]] = {name: {} for name in values}
    for case in scored:
        for each in case.scores:
            score = confidence[case.case_id, each.class_name]
            volumes = each.volume_prediction_mm3, each.volume_reference_mm3
            cases[each.class_name][case.case_id] = CalibratingCase(*volumes, score, each.dice)
    return cases


def _parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("study", type=Path, help="the runs of a cross-validation")
    parser.add_argument("--labels", type=Path, required=True, help="folder of the references")
    parser.add_argument("--predictions", type=Path, help="folder of held-out masks [the one that calibrate left]")
    return parser.parse_args()


if __name__ == "__main__":
    main()
