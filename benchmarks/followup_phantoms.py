"""Whether a follow-up finds a known change of the spleen, and calls no change where there is none.

Run it from the repository (about half an hour on two cores, of which the phantoms take most):

    python -m benchmarks.followup_phantoms
    python -m benchmarks.followup_phantoms --run RUN --scans scans.csv      # a calibrated run, and phantoms that exist

Trains on 16 phantoms, calibrates on 60 others, and follows 20 yet others, each scanned four times: the spleen changes
by about −8, 0 and +12 % against the first scan, while breath, position and noise differ. The true change is that of the
labels, since the first scan that the follow-up counts. A row for each phantom says the change found with its interval;
the summary counts the intervals that hold the truth, and the unchanged pairs that are called a change. Everything is
kept in outputs/benchmark_followup/, and what is there is not computed again.
"""

import argparse
import csv
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean

from benchmarks.header import header, verdict
from benchmarks.jobs import quoted, train
from spleen.system.resources import work_folder

SEEDS = 20
TARGET_COVERED, TARGET_CALLED = 19, 0
_UNCHANGED_PERCENT = 3.0
"""Labels of an unchanged spleen differ by up to this, since they lie on voxels."""


@dataclass(frozen=True)
class Found:
    """One later scan of one phantom; percent against the first counted scan."""

    subject: str
    day: str
    true_percent: float
    percent: float
    interval: tuple[float, float]
    is_called: bool

    @property
    def is_covered(self) -> bool:
        """Whether the interval holds the true change."""
        return self.interval[0] <= self.true_percent <= self.interval[1]


def main() -> None:
    """Print the table of all phantoms, and the counts."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path, help="a calibrated run; default: one is trained and calibrated")
    parser.add_argument("--scans", type=Path, help="scans.csv of spleen phantom --series; default: 20 phantoms")
    parser.add_argument("--folder", type=Path, default=work_folder() / "outputs" / "benchmark_followup")
    arguments = parser.parse_args()
    print(header())
    run = arguments.run or _calibrated_run(arguments.folder)
    scans = arguments.scans or _phantoms(arguments.folder / "followed", SEEDS, 3000, "--series")
    before = time.perf_counter()
    report = arguments.folder / "report"
    _spleen("followup", str(scans), "--run", str(run), "--output", str(report))
    seconds = time.perf_counter() - before
    found = _read(scans, report / "followup.csv")
    _print_rows(found)
    print(f"\n{len(found)} pairs of scans, {seconds:.0f} s for predicting and aligning all of them\n")
    _print_counts(found)


def _calibrated_run(folder: Path) -> Path:
    run = folder / "run"
    table = _phantoms(folder / "training", 16, 1000)
    if not (run / "summary.json").exists():
        settings = ["data=table", f"data.table={quoted(table)}", "data.organ=spleen", "logger=none", "report=false"]
        train(settings, run)
    calibrating = _phantoms(folder / "calibrating", 60, 2000).parent
    if not (run / "calibration.json").exists():
        _spleen("calibrate", str(run), "--images", str(calibrating / "images"), "--labels", str(calibrating / "labels"))
    return run


def _phantoms(folder: Path, subjects: int, seed: int, *options: str) -> Path:
    """The scans.csv of phantoms in a folder, written unless it is there."""
    if not (folder / "scans.csv").exists():
        _spleen("phantom", str(folder), "--subjects", str(subjects), "--seed", str(seed), *options)
    return folder / "scans.csv"


def _spleen(*arguments: str) -> None:
    subprocess.run(
        [sys.executable, "-m", "spleen", *arguments], cwd=work_folder(), check=True, stdout=subprocess.DEVNULL
    )


def _read(scans: Path, report: Path) -> list[Found]:
    with scans.open(newline="") as file:
        truth = {(row["subject"], row["date"]): float(row["change_percent"]) for row in csv.DictReader(file)}
    with report.open(newline="") as file:
        counted = [row for row in csv.DictReader(file) if row["counted"] == "yes"]
    found = []
    baselines: dict[str, float] = {}
    for row in counted:
        volume = 1 + truth[row["subject"], row["date"]] / 100  # of that of the first scan, which need not be counted
        true = 100 * (volume / baselines.setdefault(row["subject"], volume) - 1)
        if row["change_percent"]:
            low, high = float(row["change_percent_low"]), float(row["change_percent_high"])
            percent, is_called = float(row["change_percent"]), row["beyond_limit"] == "yes"
            found.append(Found(row["subject"], row["date"], true, percent, (low, high), is_called))
    return found


def _print_rows(found: Sequence[Found]) -> None:
    print(
        "| phantom | date | true change | found (95 %) | holds the truth | called a change |\n|---|---|---|---|---|---|"
    )
    for each in found:
        low, high = each.interval
        cells = f"{each.true_percent:+.1f} % | {each.percent:+.1f} % ({low:+.1f} to {high:+.1f})"
        print(f"| {each.subject} | {each.day} | {cells} | {_yes(each.is_covered)} | {_yes(each.is_called)} |")


def _print_counts(found: Sequence[Found]) -> None:
    print("| scans | pairs | intervals that hold the truth | called a change | mean error | target | |")
    print("|---|---|---|---|---|---|---|")
    days = sorted({each.day for each in found})
    for day in days:
        of_day = [each for each in found if each.day == day]
        covered, called = sum(each.is_covered for each in of_day), sum(each.is_called for each in of_day)
        error = mean(abs(each.percent - each.true_percent) for each in of_day)
        unchanged = [each for each in of_day if abs(each.true_percent) < _UNCHANGED_PERCENT]
        what = f"{day} ({mean(each.true_percent for each in of_day):+.1f} %)"
        needed = TARGET_COVERED * len(of_day) / SEEDS
        target, reached = f"≥ {needed:g} hold", covered >= needed
        if unchanged:
            target = f"{target}, {TARGET_CALLED} of {len(unchanged)} unchanged called"
            reached = reached and sum(each.is_called for each in unchanged) <= TARGET_CALLED
        print(f"| {what} | {len(of_day)} | {covered} | {called} | {error:.2f} % | {target} | {verdict(reached)} |")


def _yes(value: bool) -> str:
    return "yes" if value else "no"


if __name__ == "__main__":
    main()
