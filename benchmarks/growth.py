"""How the time of an epoch grows with its slices, and the memory of a run with its cases: straight lines?

Run it from the repository, on an otherwise idle machine (about ten minutes and 200 MB of disk):

    python -m benchmarks.growth
    python -m benchmarks.growth --axis axial --rounds 5 --device cuda

The cases are those of benchmarks/many_cases.py: 64 × 64 × 32 voxels, noise with two organs. Each count of cases is
trained for some epochs, each one pass over all training slices, by `python train.py` in a fresh process with its store
already built; the counts alternate. Seconds per epoch are those of training without validation, the first step
excluded. Memory is the peak of the process. The lines are least squares fits to the medians; a deviation is relative to
the measured value.

Target: no epoch deviates from its line by more than 10 %. Memory need not grow at all: the limit of
benchmarks/many_cases.py, 10 % + 50 MB more, applies to the largest count against the smallest.
"""

import argparse
import json
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import numpy as np

from benchmarks.header import header, verdict
from benchmarks.jobs import FinishedJob, quoted, train
from benchmarks.many_cases import MEMORY_TARGET_FACTOR, MEMORY_TARGET_MB, SHAPE, make_cases
from spleen.records.folder import RunFolder

LARGEST_DEVIATION = 0.1


@dataclass(frozen=True)
class Growth:
    """The medians of one count of cases."""

    cases: int
    slices: int
    """Training slices of an epoch."""
    seconds: float
    """Per epoch."""
    peak_mb: float


@dataclass(frozen=True)
class Line:
    """A straight line through points."""

    slope: float
    intercept: float
    deviation: float
    """The largest difference between a point and the line, as a fraction of the point."""

    def at(self, x: float) -> float:
        """The line at x."""
        return self.slope * x + self.intercept


def fit_line(x: Sequence[float], y: Sequence[float]) -> Line:
    """The least squares line y = slope · x + intercept."""
    slope, intercept = np.polyfit(x, y, 1)
    fitted = slope * np.asarray(x) + intercept
    return Line(float(slope), float(intercept), float(np.max(np.abs(fitted - y) / y)))


def main() -> None:
    """Train with each count of cases, and print the table and its lines."""
    arguments = _parse_arguments()
    print(header())
    with tempfile.TemporaryDirectory(dir=arguments.folder) as temporary:
        grown = _measure(Path(temporary), arguments)
    _print_table(grown)


def _parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=int, default=10, help="the smallest number of cases")
    parser.add_argument("--factors", type=int, nargs="+", default=[1, 2, 4, 8], help="multiples of it, ascending")
    parser.add_argument("--axis", choices=["axial", "coronal", "sagittal"], default="coronal")
    parser.add_argument("--rounds", type=int, default=3, help="trainings of each count")
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--folder", type=Path, help="create the cases in this folder, to choose the disk")
    parser.add_argument("overrides", nargs="*", help="after --: further overrides of the job, such as augment=none")
    return parser.parse_args()


def _measure(folder: Path, arguments: argparse.Namespace) -> list[Growth]:
    counts = [factor * arguments.cases for factor in arguments.factors]
    jobs: dict[int, list[FinishedJob]] = {count: [] for count in counts}
    for count in counts:
        make_cases(folder / str(count), count, SHAPE)
        _train(folder, count, "warm-up", ["epochs=1", "loader.slices_per_epoch=32"], arguments)  # builds the store
    for number in range(arguments.rounds):
        for count in counts:
            settings = [f"epochs={arguments.epochs}", "loader.slices_per_epoch=null"]
            jobs[count].append(_train(folder, count, str(number), settings, arguments))
    return [_growth(count, of_count, _slices(folder, count)) for count, of_count in jobs.items()]


def _train(folder: Path, count: int, name: str, settings: list[str], arguments: argparse.Namespace) -> FinishedJob:
    return train(
        [
            "data=decathlon", f"data.root={quoted(folder / str(count))}", "img_size=64", f"axis={arguments.axis}",
            "logger=none", "report=false", f"trainer={'gpu' if arguments.device == 'cuda' else 'cpu'}",
            f"cache_dir={quoted(folder / 'cache' / str(count))}", f"output_dir={quoted(folder)}",
            *settings, *arguments.overrides,
        ],
        _run_folder(folder, count, name),
    )  # fmt: skip


def _run_folder(folder: Path, count: int, name: str) -> Path:
    return folder / "runs" / f"{count}-{name}"


def _slices(folder: Path, count: int) -> int:
    """Training slices of the cases; the last batch of an epoch is left out if it is not full."""
    cases = json.loads(RunFolder(_run_folder(folder, count, "0")).data.read_text())["cases"]
    return sum(case["split_slices"].get("train", 0) for case in cases)


def _growth(count: int, jobs: Sequence[FinishedJob], slices: int) -> Growth:
    seconds = median(slices / job.summary["train"]["slices_per_second"] for job in jobs)
    return Growth(count, slices, seconds, median(job.summary["peak_memory_mb"] for job in jobs))


def _print_table(grown: Sequence[Growth]) -> None:
    slices, cases = [each.slices for each in grown], [each.cases for each in grown]
    seconds, memory = [each.seconds for each in grown], [each.peak_mb for each in grown]
    time_line, memory_line = fit_line(slices, seconds), fit_line(cases, memory)
    print("| cases | training slices | s per epoch | on the line | peak memory, MB | on the line |")
    print("|---|---|---|---|---|---|")
    for each in grown:
        cells = f"{each.slices:,} | {each.seconds:.2f} | {time_line.at(each.slices):.2f}"
        print(f"| {each.cases} | {cells} | {each.peak_mb:.0f} | {memory_line.at(each.cases):.0f} |")
    straight = verdict(time_line.deviation <= LARGEST_DEVIATION)
    limit = MEMORY_TARGET_FACTOR * memory[0] + MEMORY_TARGET_MB
    print("\n| | slope | intercept | largest deviation | target | |\n|---|---|---|---|---|---|")
    print(
        f"| epoch against slices | {1000 * time_line.slope:.2f} ms per slice | {time_line.intercept:.2f} s "
        f"| {time_line.deviation:.1%} | ≤ {LARGEST_DEVIATION:.0%} | {straight} |"
    )
    print(
        f"| memory against cases | {memory_line.slope:.2f} MB per case | {memory_line.intercept:.0f} MB "
        f"| {memory_line.deviation:.1%} | {cases[-1]} cases: ≤ {limit:.0f} MB | {verdict(memory[-1] <= limit)} |"
    )


if __name__ == "__main__":
    main()
