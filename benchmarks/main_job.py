"""The main job with several seeds: how long `python train.py` takes, and how far its score depends on the seed.

Run it from the repository, on an otherwise idle machine:

    python -m benchmarks.main_job                                    # one seed, the precision of this machine
    python -m benchmarks.main_job --seeds 10 --precision 32 bf16     # the table of the documentation

The targets are a test Dice (per case, on the file's own grid) of at least 0.93 for every seed, and 75 s on 2 cores with
AMX or 240 s without. Each seed has its own split, weights and augmentation. The first job of each precision starts with
an empty cache, so its time includes the phantom. The run folders stay in outputs/benchmark_main_job/.
"""

import argparse
import json
import tempfile
from datetime import datetime
from pathlib import Path

from benchmarks.header import header, verdict
from benchmarks.jobs import FinishedJob, quoted, train
from spleen.records.folder import RunFolder
from spleen.system.resources import work_folder

MIN_DICE = 0.93
MAX_SECONDS_AMX, MAX_SECONDS = 75.0, 240.0


def main() -> None:
    """Run the jobs and print cost and score of each, the smallest score and the longest time."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--seeds", type=int, default=1, help="number of seeds, from 0")
    arguments.add_argument("--precision", nargs="+", default=["auto"], choices=["auto", "32", "bf16"])
    arguments.add_argument("overrides", nargs="*", help="further overrides, such as epochs=20, after --")
    given = arguments.parse_args()
    print(header())
    print("| precision | seed | test slices | val Dice | test Dice | wall time, s | slices/s |")
    print("|---|---|---|---|---|---|---|")
    folder = work_folder() / "outputs" / "benchmark_main_job" / f"{datetime.now():%Y-%m-%d_%H-%M-%S}"
    jobs = {precision: _train_all(precision, given.seeds, given.overrides, folder) for precision in given.precision}
    print("\n| precision | measured | | target | |")
    print("|---|---|---|---|---|")
    seconds_target = MAX_SECONDS_AMX if _has_amx() else MAX_SECONDS
    for precision, finished in jobs.items():
        dice, seconds = min(map(_test_dice, finished)), max(job.wall_seconds for job in finished)
        print(f"| {precision} | smallest test Dice | {dice:.4f} | ≥ {MIN_DICE} | {verdict(dice >= MIN_DICE)} |")
        row = f"| {precision} | longest wall time, s | {seconds:.1f} | ≤ {seconds_target:g} |"
        print(f"{row} {verdict(seconds <= seconds_target)} |")


def _train_all(precision: str, n_seeds: int, overrides: list[str], folder: Path) -> list[FinishedJob]:
    finished = []
    with tempfile.TemporaryDirectory() as cache:
        for seed in range(n_seeds):
            settings = [f"seed={seed}", f"precision={precision}", f"cache_dir={quoted(Path(cache))}", *overrides]
            job = train(settings, folder / f"{precision}_{seed}")
            scores = f"{job.summary['val']['dice']:.4f} | {_test_dice(job):.4f}"
            speed = f"{job.wall_seconds:.1f} | {job.summary['train']['slices_per_second']:.1f}"
            print(f"| {precision} | {seed} | {_test_slices(folder / f'{precision}_{seed}')} | {scores} | {speed} |")
            finished.append(job)
    return finished


def _has_amx() -> bool:
    """Whether Linux says so; False on other systems."""
    processors = Path("/proc/cpuinfo")
    return processors.exists() and "amx_bf16" in processors.read_text().split()


def _test_dice(job: FinishedJob) -> float:
    return float(job.summary["test"]["dice"])


def _test_slices(run_folder: Path) -> int:
    split = json.loads(RunFolder(run_folder).split.read_text())
    return sum(len(case["test"]) for case in split["cases"].values())


if __name__ == "__main__":
    main()
