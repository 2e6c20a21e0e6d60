"""The default job on a fresh checkout: `python train.py` with an empty cache, so the phantom is computed as well.

Run it from the repository, on an otherwise idle machine:

    python -m benchmarks.main_job

The targets are 4 minutes on 2 cores and a test Dice of 0.90 (per case, on the native grid). The run folder is kept in
outputs/benchmark_main_job/.
"""

import tempfile
from datetime import datetime
from pathlib import Path

from benchmarks.header import header, verdict
from benchmarks.jobs import quoted, train
from spleen.system.resources import work_folder

SECONDS_TARGET, DICE_TARGET = 240.0, 0.90


def main() -> None:
    """Run the job once and print its time and score beside the targets."""
    print(header())
    run_folder = work_folder() / "outputs" / "benchmark_main_job" / f"{datetime.now():%Y-%m-%d_%H-%M-%S}"
    with tempfile.TemporaryDirectory() as cache:
        job = train([f"cache_dir={quoted(Path(cache))}"], run_folder)
    seconds, dice = job.wall_seconds, float(job.summary["test"]["dice"])
    print("| `python train.py` | measured | target | measured ÷ target | |")
    print("|---|---|---|---|---|")
    print(
        _row(
            "wall time, s",
            f"{seconds:.1f}",
            f"≤ {SECONDS_TARGET:g}",
            seconds / SECONDS_TARGET,
            seconds <= SECONDS_TARGET,
        )
    )
    print(_row("test Dice", f"{dice:.4f}", f"≥ {DICE_TARGET:.2f}", dice / DICE_TARGET, dice >= DICE_TARGET))
    rate, first = job.summary["train"]["slices_per_second"], job.summary["seconds_to_first_step"]
    print(f"\nTraining: {rate:.1f} slices/s; {first:.1f} s to the first step; precision {job.summary['precision']}.")


def _row(name: str, measured: str, target: str, ratio: float, passed: bool) -> str:
    return f"| {name} | {measured} | {target} | {ratio:.3f} | {verdict(passed)} |"


if __name__ == "__main__":
    main()
