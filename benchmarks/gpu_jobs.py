"""Whole training jobs on a GPU: the default run on a CT, and three views of many small volumes side by side.

Run it from the repository, on a machine with a GPU that does nothing else:

    python -m benchmarks.gpu_jobs --image ct.nii.gz --label spleen.nii.gz --root Task04_Hippocampus
    python -m benchmarks.gpu_jobs --image ct.nii.gz --label spleen.nii.gz --device cpu --rounds 1   # tries it

Each job is `python train.py` in a fresh process, timed from its start to its end. The default run changes nothing but
the data; its slices are in the cache after the first round, which is listed too. The views are the three of
experiments/hippocampus_views, started together.

Targets, set for an H200: 12 s for the default run, 90 s for the three views.
"""

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

from benchmarks.header import header, verdict
from benchmarks.jobs import quoted, train, train_command
from spleen.system.resources import work_folder

TARGET_DEFAULT_S, TARGET_VIEWS_S = 12, 90
AXES = "coronal", "sagittal", "axial"


def default_run(image: Path, label: Path, accelerator: str, folder: Path, rounds: int) -> list[float]:
    """Seconds of each round, the first with an empty cache."""
    overrides = [
        "data=nifti", f"data.image={quoted(image)}", f"data.label={quoted(label)}", f"trainer={accelerator}",
        "logger=none", f"cache_dir={quoted(folder / 'cache')}",
    ]  # fmt: skip
    return [train(overrides, folder / f"default_{number}").wall_seconds for number in range(rounds + 1)]


def three_views(root: Path, accelerator: str, folder: Path, epochs: int) -> float:
    """Seconds until the last of three jobs has ended that start together."""
    common = [
        "data=decathlon", f"data.root={quoted(root)}", "model=unet_wide", "schedule=one_cycle", "augment=strong",
        "fold=0", "img_size=native", "batch_size=32", f"epochs={epochs}", "optimiser.ema_decay=0.998",
        "loader.slices_per_epoch=null", "split.val_fraction=0", f"trainer={accelerator}", "logger=none",
        f"cache_dir={quoted(folder / 'cache')}",
    ]  # fmt: skip
    started = time.perf_counter()
    jobs = []
    for axis in AXES:
        (folder / axis).mkdir()
        with (folder / axis / "terminal.txt").open("w") as output:
            command = train_command([*common, f"axis={axis}"], folder / axis)
            jobs.append(subprocess.Popen(command, cwd=work_folder(), stdout=output, stderr=subprocess.STDOUT))
    failed = [axis for axis, job in zip(AXES, jobs, strict=True) if job.wait()]
    if failed:
        sys.exit(f"{failed[0]} failed:\n{(folder / failed[0] / 'terminal.txt').read_text()}")
    return time.perf_counter() - started


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--image", type=Path, required=True)
    parser.add_argument("--label", type=Path, required=True)
    parser.add_argument("--root", type=Path, help="Task04_Hippocampus; left out without it")
    parser.add_argument("--device", choices=["gpu", "cpu"], default="gpu")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--passes", type=int, default=40, help="over the training slices of each view")
    arguments = parser.parse_args()
    print(header())
    print("| job | seconds (range) | target | |\n|---|---|---|---|")
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        first, *later = default_run(arguments.image, arguments.label, arguments.device, folder, arguments.rounds)
        print(f"| default run, empty cache | {first:.1f} | | |")
        shown = f"{median(later):.1f} ({min(later):.1f}–{max(later):.1f})"
        met = verdict(median(later) <= TARGET_DEFAULT_S)
        print(f"| default run | {shown} | ≤ {TARGET_DEFAULT_S} | {met} |", flush=True)
        if arguments.root is not None:
            seconds = three_views(arguments.root, arguments.device, folder, arguments.passes)
            met = verdict(seconds <= TARGET_VIEWS_S)
            print(f"| three views, {arguments.passes} passes | {seconds:.0f} | ≤ {TARGET_VIEWS_S} | {met} |")


if __name__ == "__main__":
    main()
