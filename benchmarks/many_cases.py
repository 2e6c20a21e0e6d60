"""How discovery, the slice store, start-up, memory and loading scale to 10, 100 and 1,000 cases.

Run it from the repository, on an otherwise idle machine with Linux (about four minutes and 2 GB of disk):

    python -m benchmarks.many_cases

The cases are synthetic: 64 × 64 × 32 voxels of int16, 1.5 × 1.5 × 3 mm, noise with two organs of varying size, in the
layout of the Medical Segmentation Decathlon. Coronal slices become 64 × 64 pixels. Each row is measured for each count
in fresh processes, excluding imports except in their own row; the files stay in the page cache except for the last two
rows. benchmarks/many_cases_parts.py explains how each row is measured. The line below the table gives the time to build
the store for 8 cases of 512 × 512 × 90 voxels, where threads can share more of the work.

Targets: a second start, with the store already there, opens and splits 1,000 cases within 3 s, imports excluded; the
loader delivers 1,000 slices/s from batches that mix about 32 cases; 200 steps on 1,000 cases need at most 10 % + 50 MB
more memory than on 10 cases; a batch reads at most 1.1 times the bytes of its slices, and at most twice as many come
from the disk, which delivers whole 4 KiB pages.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import median

import numpy as np

from benchmarks.header import header, verdict
from spleen.imaging.nifti import write_volume
from spleen.system.resources import work_folder

SHAPE, SPACING_MM = (64, 64, 32), (1.5, 1.5, 3.0)
LARGE_SHAPE, N_LARGE = (512, 512, 90), 8
START_TARGET_SECONDS, LOADER_TARGET, READ_TARGET, DISK_TARGET = 3.0, 1000.0, 1.1, 2.0
MEMORY_TARGET_FACTOR, MEMORY_TARGET_MB = 1.1, 50.0

Measured = Mapping[str, float]


def main() -> None:
    """Create the cases, measure them, print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--counts", type=int, nargs="+", default=[10, 100, 1000], help="numbers of cases, ascending")
    parser.add_argument("--repeats", type=int, default=3, help="fresh processes per start-up time; the median is shown")
    parser.add_argument("--folder", type=Path, help="create the cases in this folder, to choose the disk")
    arguments = parser.parse_args()
    print(header())
    with tempfile.TemporaryDirectory(dir=arguments.folder) as temporary:
        measured = [_measure(Path(temporary) / str(count), count, arguments.repeats) for count in arguments.counts]
        large = _build(Path(temporary) / "large", N_LARGE, LARGE_SHAPE)
    _print_table(arguments.counts, measured)
    one, every = large["build_one_thread"], large["build_all_threads"]
    shape = " × ".join(map(str, LARGE_SHAPE))
    print(f"\n{N_LARGE} cases of {shape}: {one:.1f} s with one thread, {every:.1f} s with all: gain {one / every:.2f}")


def make_cases(root: Path, count: int, shape: tuple[int, int, int]) -> None:
    """Write a Decathlon folder of `count` cases, stored as LPS, each with its own image and label."""
    for name in ("imagesTr", "labelsTr"):
        (root / name).mkdir(parents=True)
    _describe_dataset(root, count)
    random = np.random.default_rng(0)
    noise = random.integers(-60, 60, (2 * shape[0], *shape[1:]), dtype=np.int16)
    grid = np.stack(np.meshgrid(*(np.linspace(-1, 1, size) for size in shape), indexing="ij"))
    for number in range(count):
        label = np.zeros(shape, dtype=np.uint8)
        for value, side in ((1, -0.4), (2, 0.4)):
            centre = np.array([side, *random.uniform(-0.3, 0.3, 2)]).reshape(3, 1, 1, 1)
            label[((grid - centre) ** 2).sum(0) < random.uniform(0.2, 0.45) ** 2] = value
        shift = int(random.integers(shape[0]))
        image = np.roll(noise[shift : shift + shape[0]], number, axis=1) + np.int16(50) * label
        affine = np.diag([-SPACING_MM[0], -SPACING_MM[1], SPACING_MM[2], 1.0])
        affine[:3, 3] = random.uniform(-100, 100, 3)
        write_volume(root / "imagesTr" / f"case_{number:04}.nii.gz", image, affine)
        write_volume(root / "labelsTr" / f"case_{number:04}.nii.gz", label, affine)


def _describe_dataset(root: Path, count: int) -> None:
    names = [f"case_{number:04}.nii.gz" for number in range(count)]
    content = {
        "name": "made up",
        "modality": {"0": "CT"},
        "labels": {"0": "background", "1": "left", "2": "right"},
        "numTraining": count,
        "training": [{"image": f"./imagesTr/{name}", "label": f"./labelsTr/{name}"} for name in names],
    }
    (root / "dataset.json").write_text(json.dumps(content))


def _build(folder: Path, count: int, shape: tuple[int, int, int]) -> dict[str, float]:
    """Create cases and time building their store twice, in seconds; the one of all threads is kept in all_threads."""
    make_cases(folder, count, shape)
    return {
        "build_one_thread": _in_fresh_process("build", folder, folder / "one_thread", "--threads=1")["seconds"],
        "build_all_threads": _in_fresh_process("build", folder, folder / "all_threads")["seconds"],
    }


def _measure(folder: Path, count: int, repeats: int) -> dict[str, float]:
    measured, every = _build(folder, count, SHAPE), folder / "all_threads"
    starts = [_in_fresh_process("start", folder, every) for _ in range(repeats)]
    measured |= {name: median(start[name] for start in starts) for name in starts[0]}
    for part in ("load", "read"):
        measured |= _in_fresh_process(part, folder, every)
    measured |= _in_fresh_process("train", folder, every, "--threads=1")  # measures memory, not speed
    print(f"{count} cases: {json.dumps(measured)}", file=sys.stderr)
    return measured


def _in_fresh_process(part: str, root: Path, cache: Path, *options: str) -> Measured:
    """The values that one part measures in a fresh process; exits with its output if it fails."""
    command = [sys.executable, "-m", "benchmarks.many_cases_parts", part, str(root), str(cache), *options]
    done = subprocess.run(command, cwd=work_folder(), capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{' '.join(command)} ended with {done.returncode}:\n{done.stdout}\n{done.stderr}")
    measured: Measured = json.loads(done.stdout.splitlines()[-1])
    return measured


def _print_table(counts: Sequence[int], measured: Sequence[Measured]) -> None:
    few, many = measured[0], measured[-1]
    memory_target = MEMORY_TARGET_FACTOR * few["peak_mb"] + MEMORY_TARGET_MB
    rows: list[tuple[str, Callable[[Measured], str], str]] = [
        ("imports, s", lambda m: f"{m['imports']:.2f}", " | "),
        ("discovery of the cases, s", lambda m: f"{m['discovery']:.3f}", " | "),
        ("building the store with one thread, s", lambda m: f"{m['build_one_thread']:.2f}", " | "),
        ("… with a thread for each core, s", lambda m: f"{m['build_all_threads']:.2f}", " | "),
        ("… gain", lambda m: f"{m['build_one_thread'] / m['build_all_threads']:.2f}", " | "),
        (
            "second start to the split data, s",
            lambda m: f"{m['second_start']:.2f}",
            f"≤ {START_TARGET_SECONDS:g} | {verdict(many['second_start'] <= START_TARGET_SECONDS)}",
        ),
        ("… of which `open_data`, s", lambda m: f"{m['open_data']:.2f}", " | "),
        (
            "loading batches of 32 over all cases, slices/s",
            lambda m: f"{m['all_cases']:,.0f}",
            f"≥ {LOADER_TARGET:,.0f} | {verdict(many['all_cases'] >= LOADER_TARGET)}",
        ),
        ("… cases in a batch", lambda m: f"{m['cases_in_a_batch']:.1f}", " | "),
        ("… from one case, slices/s", lambda m: f"{m['one_case']:,.0f}", " | "),
        (
            "training of 200 steps, peak memory, MB",
            lambda m: f"{m['peak_mb']:.0f}",
            f"≤ {memory_target:.0f} | {verdict(many['peak_mb'] <= memory_target)}",
        ),
        ("… of which anonymous, MB", lambda m: f"{m['peak_anonymous_mb']:.0f}", " | "),
        ("… after opening the data, MB", lambda m: f"{m['opened_mb']:.0f}", " | "),
        ("… most open files", lambda m: f"{m['open_files']:.0f}", " | "),
        ("size of the store, MB", lambda m: f"{m['store_mb']:.0f}", " | "),
        (
            "bytes that a batch asks for ÷ bytes of its slices",
            lambda m: f"{m['asked']:.3f}",
            f"≤ {READ_TARGET} | {verdict(many['asked'] <= READ_TARGET)}",
        ),
        (
            "bytes that come from the disk ÷ bytes of its slices",
            lambda m: f"{m['from_disk']:.3f}",
            f"≤ {DISK_TARGET:g} | {verdict(many['from_disk'] <= DISK_TARGET)}",
        ),
    ]
    print(f"| | {' | '.join(f'{count:,} cases' for count in counts)} | target | |")
    print(f"|---|{'---|' * len(counts)}---|---|")
    for name, format_value, target in rows:
        print(f"| {name} | {' | '.join(format_value(one) for one in measured)} | {target} |")


if __name__ == "__main__":
    main()
