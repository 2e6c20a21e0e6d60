"""Scores on a real CT: `python train.py data=nifti … img_size=128` for every axis and several seeds.

Run it from the repository, on an otherwise idle machine; anything after `--` is passed to every job:

    python -m benchmarks.reference_ct --image ct.nii.gz --label spleen.nii.gz --seeds 3 -- epochs=40 logger=none

The targets, set for the spleen of one abdominal CT: mean test Dice (per case, on the native grid) 0.96 axial, 0.95
coronal, 0.94 sagittal; 4 minutes per job on 2 cores. The run folders are kept in outputs/benchmark_reference_ct/.
"""

import argparse
from datetime import datetime
from pathlib import Path
from statistics import mean
from typing import Any

from benchmarks.header import header, verdict
from benchmarks.jobs import FinishedJob, quoted, train
from spleen.system.resources import work_folder

DICE_TARGETS = {"axial": 0.96, "coronal": 0.95, "sagittal": 0.94}
SECONDS_TARGET = 240.0


def main() -> None:
    """Run all jobs, print a row when each finishes, then the mean of each axis."""
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
    _print_targets(jobs)


def _parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--image", type=Path, required=True, help="CT, .nii or .nii.gz")
    parser.add_argument("--label", type=Path, required=True, help="its label")
    parser.add_argument("--seeds", type=int, default=3, help="number of seeds, from 0")
    parser.add_argument("--axes", nargs="+", choices=list(DICE_TARGETS), default=list(DICE_TARGETS))
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


def _print_targets(jobs: dict[str, list[FinishedJob]]) -> None:
    print("\n| axis | mean test Dice ÷ target | lowest | longest wall time ÷ target | |")
    print("|---|---|---|---|---|")
    for axis, of_axis in jobs.items():
        dice = [_value(job, ("test", "dice")) for job in of_axis]
        longest = max(job.wall_seconds for job in of_axis)
        passed = mean(dice) >= DICE_TARGETS[axis] and longest <= SECONDS_TARGET
        print(
            f"| {axis} | {mean(dice):.4f} ÷ {DICE_TARGETS[axis]} = {mean(dice) / DICE_TARGETS[axis]:.3f} "
            f"| {min(dice):.4f} | {longest:.0f} s ÷ {SECONDS_TARGET:g} s = {longest / SECONDS_TARGET:.2f} "
            f"| {verdict(passed)} |"
        )


if __name__ == "__main__":
    main()
