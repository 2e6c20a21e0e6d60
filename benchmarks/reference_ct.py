"""Scores on a real CT: `python train.py data=nifti … img_size=128` for every axis and several seeds.

Run it from the repository, on an otherwise idle machine; what follows `--` is handed on to every job:

    python -m benchmarks.reference_ct --image ct.nii.gz --label spleen.nii.gz --seeds 3 -- epochs=40 logger=none

The bars, set for the spleen of one abdominal CT: mean test Dice (per case, on the file's own grid) 0.96 axial, 0.95
coronal, 0.94 sagittal; 4 minutes for each job on 2 cores. The run folders stay in outputs/benchmark_reference_ct/.
"""

import argparse
from datetime import datetime
from pathlib import Path
from statistics import mean
from typing import Any

from benchmarks.header import header, verdict
from benchmarks.jobs import FinishedJob, quoted, train
from spleen.system.resources import work_folder

DICE_BARS = {"axial": 0.96, "coronal": 0.95, "sagittal": 0.94}
SECONDS_BAR = 240.0


def main() -> None:
    """Run all jobs and print each one's row when it ends, then the mean of each axis."""
    arguments = _parse_arguments()
    folder = work_folder() / "outputs" / "benchmark_reference_ct" / f"{datetime.now():%Y-%m-%d_%H-%M-%S}"
    data = ["data=nifti", f"data.image={quoted(arguments.image)}", f"data.label={quoted(arguments.label)}"]
    print(header())
    print(f"`{' '.join(['python train.py data=nifti img_size=128', *arguments.overrides])}`\n")
    print("| axis | seed | test Dice | test Jaccard | val Dice | wall seconds | slices/s |")
    print("|---|---|---|---|---|---|---|")
    jobs: dict[str, list[FinishedJob]] = {axis: [] for axis in arguments.axes}
    for seed in range(arguments.seeds):
        for axis in arguments.axes:
            setting = [*data, "img_size=128", f"axis={axis}", f"seed={seed}", *arguments.overrides]
            job = train(setting, folder / f"{axis}-seed{seed}")
            jobs[axis].append(job)
            print(f"| {axis} | {seed} | {_cells([job])} |", flush=True)
    for axis in arguments.axes:
        print(f"| **{axis}** | mean | {_cells(jobs[axis])} |")
    _print_bars(jobs)


def _parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--image", type=Path, required=True, help="CT, .nii or .nii.gz")
    parser.add_argument("--label", type=Path, required=True, help="its label")
    parser.add_argument("--seeds", type=int, default=3, help="seeds 0 to this, exclusive")
    parser.add_argument("--axes", nargs="+", choices=list(DICE_BARS), default=list(DICE_BARS))
    parser.add_argument("overrides", nargs="*", help="after --: overrides for every job, such as epochs=40")
    return parser.parse_args()


def _cells(jobs: list[FinishedJob]) -> str:
    def average(*keys: str) -> float:
        return mean(_value(job, keys) for job in jobs)

    scores = [f"{average(*keys):.4f}" for keys in (("test", "dice"), ("test", "jaccard"), ("val", "dice"))]
    rate = average("train", "slices_per_second")
    return " | ".join([*scores, f"{mean(job.wall_seconds for job in jobs):.1f}", f"{rate:.1f}"])


def _value(job: FinishedJob, keys: tuple[str, ...]) -> float:
    value: Any = job.summary
    for key in keys:
        value = value[key]
    return float("nan") if value is None else float(value)


def _print_bars(jobs: dict[str, list[FinishedJob]]) -> None:
    print("\n| axis | mean test Dice ÷ bar | lowest | longest wall time ÷ bar | |")
    print("|---|---|---|---|---|")
    for axis, of_axis in jobs.items():
        dice = [_value(job, ("test", "dice")) for job in of_axis]
        longest = max(job.wall_seconds for job in of_axis)
        passed = mean(dice) >= DICE_BARS[axis] and longest <= SECONDS_BAR
        print(
            f"| {axis} | {mean(dice):.4f} ÷ {DICE_BARS[axis]} = {mean(dice) / DICE_BARS[axis]:.3f} | {min(dice):.4f} "
            f"| {longest:.0f} s ÷ {SECONDS_BAR:g} s = {longest / SECONDS_BAR:.2f} | {verdict(passed)} |"
        )


if __name__ == "__main__":
    main()
