"""The overhead of a sweep job beyond its training, and the gain from running two jobs at a time.

Run it from the repository, on an otherwise idle machine (about ten minutes):

    python -m benchmarks.sweep_overhead

Overhead: the wall time of `python train.py -m …` with jobs run one after the other in one process, minus the time that
the jobs spend in fit, validate and test (`spleen.training.fit.fit`, timed in the same process), divided by the number
of jobs. It includes Python's start-up, imports, composing, opening the store, figures, the record and wandb's offline
mirror. The target is 5 s. All jobs share the imports of the first, so a single job costs more: see the second row.

Joblib: the same jobs at 64 × 64 pixels, one after the other with all cores and two at a time with half of them each,
alternating; throughput is jobs per second from start to end of the command. The target is a gain of 1.2.
"""

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

from benchmarks.header import header, verdict
from benchmarks.jobs import quoted
from spleen.system.resources import work_folder

OVERHEAD_TARGET, GAIN_TARGET = 5.0, 1.2
_SPENT = "seconds spent in fit:"

# train.py as it is, with a clock around the training.
_TIMED = f"""
import sys, time, runpy
sys.argv[0] = "train.py"
sys.path.insert(0, ".")
import spleen.runs.train
fit = spleen.runs.train.fit
def timed(*given):
    before = time.perf_counter()
    fitted = fit(*given)
    print("{_SPENT}", time.perf_counter() - before, flush=True)
    return fitted
spleen.runs.train.fit = timed
runpy.run_path("train.py", run_name="__main__")
"""


def main() -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=3, help="turns of each measurement")
    parser.add_argument("--jobs", type=int, default=4, help="jobs of a sweep")
    parser.add_argument("--epochs", type=int, default=10, help="of the jobs that run side by side")
    arguments = parser.parse_args()
    print(header())
    with tempfile.TemporaryDirectory() as folder:
        cache = Path(folder) / "cache"
        _sweep(Path(folder) / "first", cache, 1, ["epochs=1"])  # computes the phantom and both stores
        _sweep(Path(folder) / "second", cache, 1, ["epochs=1", "img_size=64"])
        _print_overhead(Path(folder), cache, arguments.repeats, arguments.jobs)
        _print_gain(Path(folder), cache, arguments.repeats, arguments.jobs, arguments.epochs)


def _print_overhead(folder: Path, cache: Path, repeats: int, n_jobs: int) -> None:
    settings = ["epochs=1", "loader.slices_per_epoch=40", "logger=wandb", "logger.mode=offline"]
    print("| jobs in one process | wall s per job | of which training and scoring | overhead s per job | target | |")
    print("|---|---|---|---|---|---|")
    for count in (n_jobs, 1):
        turns = [_sweep(folder / f"overhead-{count}-{turn}", cache, count, settings) for turn in range(repeats)]
        wall, inside = (median(turn[part] / count for turn in turns) for part in (0, 1))
        overhead = median((turn[0] - turn[1]) / count for turn in turns)
        target = (
            f"≤ {OVERHEAD_TARGET:g} | {verdict(overhead <= OVERHEAD_TARGET)}" if count > 1 else " | start-up included"
        )
        print(f"| {count} | {wall:.2f} | {inside:.2f} | {overhead:.2f} | {target} |", flush=True)


def _print_gain(folder: Path, cache: Path, repeats: int, n_jobs: int, epochs: int) -> None:
    settings = ["img_size=64", f"epochs={epochs}", "logger=none"]
    joblib = [*settings, "hydra/launcher=joblib", "hydra.launcher.n_jobs=2"]
    alone, together, gains = [], [], []
    for turn in range(repeats):
        alone.append(_sweep(folder / f"alone-{turn}", cache, n_jobs, settings)[0])
        together.append(_sweep(folder / f"together-{turn}", cache, n_jobs, joblib)[0])
        gains.append(alone[-1] / together[-1])
    gain, spread = median(gains), f"{min(gains):.2f}–{max(gains):.2f}"
    what = f"{n_jobs} jobs at 64 × 64, {epochs} epochs"
    print(f"\n| {what} | one after the other, s | two at a time, s | gain (range) | target | |")
    print("|---|---|---|---|---|---|")
    target = f"≥ {GAIN_TARGET} | {verdict(gain >= GAIN_TARGET)}"
    print(
        f"| `hydra/launcher=joblib` | {median(alone):.1f} | {median(together):.1f} | {gain:.2f} ({spread}) | {target} |"
    )


def _sweep(folder: Path, cache: Path, n_jobs: int, settings: list[str]) -> tuple[float, float]:
    """Wall-clock seconds of a sweep over `n_jobs` seeds, and the seconds it spends training in the same process."""
    seeds = ",".join(map(str, range(n_jobs)))
    places = [f"output_dir={quoted(folder)}", f"cache_dir={quoted(cache)}"]
    command = [sys.executable, "-c", _TIMED, "-m", f"seed={seeds}", "split.seed=0", *settings, *places]
    before = time.perf_counter()
    done = subprocess.run(command, cwd=work_folder(), env=dict(os.environ), capture_output=True, text=True)
    seconds = time.perf_counter() - before
    finished = [json.loads(path.read_text())["status"] for path in folder.rglob("summary.json")]
    if done.returncode or len(finished) != n_jobs:
        sys.exit(f"{' '.join(command[3:])} ended with {done.returncode}:\n{done.stdout}\n{done.stderr}")
    return seconds, sum(float(spent) for spent in re.findall(rf"{_SPENT} (\S+)", done.stdout))


if __name__ == "__main__":
    main()
