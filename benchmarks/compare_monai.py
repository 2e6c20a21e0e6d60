"""Training speed, and seconds to a validation Dice, against the 2D road of MONAI's tutorials.

Run it from the repository, on an otherwise idle machine, with MONAI (pip install 'monai>=1.5'):

    python -m benchmarks.compare_monai --image ct.nii.gz --label spleen.nii.gz
    python -m benchmarks.compare_monai                        # on a synthetic CT
    python -m benchmarks.compare_monai --device cuda
    python -m benchmarks.compare_monai --ours model=unet_half batch_size=8 lr=2.8e-3

Ours is `python train.py` with the defaults. MONAI's road, in benchmarks/monai_road.py, trains on the same volume,
split, rate, schedule, batch size and number of slices per epoch: dictionary transforms, CacheDataset, DataLoader with 2
workers, BasicUNet of the same widths in 32 bits, on square slices; `--same-slices` gives it slices of our size instead.
The two alternate in fresh processes, ours with an empty cache. Slices/s are those of training in steady state, without
validation. The seconds run from the start of the process, imports included, to the first epoch whose validation Dice
(per case, on the native grid, scored by the same code) reaches --dice. A ratio compares one round; the table gives the
median and the range. Run folders stay in outputs/benchmark_compare_monai/.
"""

import argparse
import csv
import json
import math
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from datetime import datetime
from functools import partial
from importlib.metadata import version
from pathlib import Path
from statistics import median

import nibabel as nib

from benchmarks.header import header, verdict
from benchmarks.jobs import configure, quoted, train_command
from spleen.config.preprocessing import build_classes, build_preprocessing
from spleen.data.phantom.render import make_phantom
from spleen.imaging.nifti import write_volume
from spleen.records.folder import RunFolder
from spleen.system.resources import work_folder

# By axis: our slices/s divided by MONAI's, and MONAI's seconds divided by ours.
TARGETS = {"coronal": (8.0, 10.0), "axial": (4.0, 6.0)}
_POLL_SECONDS = 0.05


@dataclass(frozen=True)
class Measured:
    """One training."""

    slices_per_second: float
    seconds_to_dice: float
    """Infinite if no epoch reached the Dice."""
    best_dice: float


def main() -> None:
    """Print the rounds of each axis as they finish, then the table."""
    arguments = _parse_arguments()
    print(header())
    print(f"MONAI {version('monai')}; {arguments.epochs} epochs, img_size={arguments.img_size}, {arguments.device}\n")
    print("| axis | round | road | slices/s | best val Dice | seconds to Dice |\n|---|---|---|---|---|---|")
    folder = work_folder() / "outputs" / "benchmark_compare_monai" / f"{datetime.now():%Y-%m-%d_%H-%M-%S}"
    with tempfile.TemporaryDirectory() as temporary:
        image, label = _volume(arguments, Path(temporary))
        pairs = {
            axis: [
                _round(axis, number, image, label, arguments, folder / f"{axis}-{number}")
                for number in range(arguments.rounds)
            ]
            for axis in arguments.axes
        }
    print("\n| axis | | ours | MONAI | ratio (range) | target | |\n|---|---|---|---|---|---|---|")
    for axis, of_axis in pairs.items():
        for row in _rows(axis, of_axis, arguments.dice):
            print(row)


def _parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--image", type=Path, help="CT, .nii or .nii.gz; default: a synthetic one")
    parser.add_argument("--label", type=Path, help="its label")
    parser.add_argument("--axes", nargs="+", choices=list(TARGETS), default=list(TARGETS))
    parser.add_argument("--rounds", type=int, default=3, help="trainings of each road and axis")
    parser.add_argument("--epochs", type=int, default=12, help="of both, for the schedule; of 200 slices")
    parser.add_argument("--slices-per-epoch", type=int, default=200)
    parser.add_argument("--img-size", type=int, default=128, help="pixels")
    parser.add_argument("--dice", type=float, default=0.95, help="the validation Dice to reach")
    parser.add_argument("--same-slices", action="store_true", help="MONAI on slices of our size instead of squares")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument(
        "--ours", nargs="+", default=[], help="further overrides of our job alone, such as batch_size=8"
    )
    parser.add_argument("overrides", nargs="*", help="after --: further overrides of the job, such as augment=none")
    arguments = parser.parse_args()
    if (arguments.image is None) != (arguments.label is None):
        parser.error("--image and --label go together")
    return arguments


def _volume(arguments: argparse.Namespace, folder: Path) -> tuple[Path, Path]:
    """The given volume and label, or those of a phantom, so that both roads read files."""
    if arguments.image:
        return arguments.image, arguments.label
    phantom = make_phantom()
    image, label = folder / "image.nii.gz", folder / "label.nii.gz"
    write_volume(image, phantom.hu, phantom.affine)
    write_volume(label, phantom.label, phantom.affine)
    return image, label


def _round(
    axis: str, number: int, image: Path, label: Path, arguments: argparse.Namespace, folder: Path
) -> tuple[Measured, Measured]:
    """Ours, then MONAI's with the split that ours has made."""
    ours, monai = folder / "ours", folder / "monai"
    with tempfile.TemporaryDirectory() as cache:
        settings = [
            "data=nifti", f"data.image={quoted(image)}", f"data.label={quoted(label)}", f"axis={axis}",
            f"img_size={arguments.img_size}", f"epochs={arguments.epochs}", f"seed={number}", "logger=none",
            f"loader.slices_per_epoch={arguments.slices_per_epoch}", "report=false",
            f"trainer={'gpu' if arguments.device == 'cuda' else 'cpu'}", f"cache_dir={quoted(Path(cache))}",
            f"output_dir={quoted(folder)}", *arguments.overrides,
        ]  # fmt: skip
        road = [sys.executable, "-m", "benchmarks.monai_road", str(ours), str(monai), "--device", arguments.device]
        if arguments.ours:
            common = Path(cache) / "config.json"
            common.write_text(json.dumps(asdict(configure(settings)), default=str))
            road += ["--config", str(common)]
        if arguments.same_slices:
            road += _slice_size(settings, image)
        measured = []
        for name, command, place in (
            ("ours", train_command([*settings, *arguments.ours], ours), ours),
            ("MONAI", road, monai),
        ):
            one = _watch(command, place, arguments.dice)
            cells = f"{one.slices_per_second:.1f} | {one.best_dice:.4f} | {_text(one.seconds_to_dice)}"
            print(f"| {axis} | {number} | {name} | {cells} |", flush=True)
            measured.append(one)
    return measured[0], measured[1]


def _slice_size(settings: list[str], image: Path) -> list[str]:
    """The option that gives MONAI's road the slices of ours, padded."""
    config = configure(settings)
    volume = nib.as_closest_canonical(nib.load(image))
    grid = build_preprocessing(config, build_classes(config)).plan(volume.shape, volume.affine)
    return ["--size", *map(str, grid.padded)]


def _watch(command: list[str], folder: Path, target: float) -> Measured:
    """Run a training in a fresh process; exits with its output if it fails."""
    folder.mkdir(parents=True)
    terminal, metrics = folder / "terminal.txt", RunFolder(folder).metrics
    reached = math.inf
    with terminal.open("w") as output:
        before = time.perf_counter()
        process = subprocess.Popen(command, cwd=work_folder(), stdout=output, stderr=subprocess.STDOUT)
        while process.poll() is None:
            if reached == math.inf and max(_dices(metrics)) >= target:
                reached = time.perf_counter() - before
            time.sleep(_POLL_SECONDS)
    if process.returncode:
        sys.exit(f"{' '.join(command)} ended with {process.returncode}:\n{terminal.read_text()}")
    best = max(_dices(metrics))
    if reached == math.inf and best >= target:  # by the last epoch, after the last look
        reached = time.perf_counter() - before
    summary = json.loads(RunFolder(folder).summary.read_text())
    return Measured(summary["train"]["slices_per_second"], reached, best)


def _dices(metrics: Path) -> list[float]:
    """The validation Dice of each epoch so far, after a 0."""
    if not metrics.exists():
        return [0.0]
    with metrics.open(newline="") as file:
        return [0.0, *(float(row["val/dice"] or 0.0) for row in csv.DictReader(file))]


def _rows(axis: str, pairs: list[tuple[Measured, Measured]], dice: float) -> list[str]:
    speed_target, time_target = TARGETS[axis]
    speeds = [(ours.slices_per_second, monai.slices_per_second) for ours, monai in pairs]
    times = [(ours.seconds_to_dice, monai.seconds_to_dice) for ours, monai in pairs]
    row = partial(_row, axis)
    return [
        row("slices/s", speeds, [ours / monai for ours, monai in speeds], speed_target),
        row(f"seconds to Dice {dice:g}", times, [_sooner(ours, monai) for ours, monai in times], time_target),
    ]


def _sooner(ours: float, monai: float) -> float:
    """How many times sooner ours is; infinite ("never") if only MONAI's did not arrive, 0 if ours did not."""
    return 0.0 if ours == math.inf else monai / ours


def _row(axis: str, name: str, pairs: list[tuple[float, float]], ratios: list[float], target: float) -> str:
    ours, monai = (_range(list(values)) for values in zip(*pairs, strict=True))
    cells = f"{ours} | {monai} | {_range(ratios)} | ≥ {target:g}"
    return f"| {axis} | {name} | {cells} | {verdict(median(ratios) >= target)} |"


def _range(values: list[float]) -> str:
    return f"{_text(median(values))} ({_text(min(values))}–{_text(max(values))})"


def _text(value: float) -> str:
    return "never" if value == math.inf else f"{value:.1f}"


if __name__ == "__main__":
    main()
