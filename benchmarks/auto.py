"""`spleen auto` against the best recipe made by hand, at the same wall clock, and how well both keep it.

    python -m benchmarks.auto --hippocampus Task04_Hippocampus --ct image.nii.gz label.nii.gz [--minutes 10 30 60]
    python -m benchmarks.auto --ct image.nii.gz label.nii.gz --quick

On the hippocampi (fold 0) the recipe is that of experiments/hippocampus_views along its best axis, on the CT that of
experiments/size_and_rate; both end by `max_minutes`. The Dice is that of the test split, which chose nothing. "budget
kept" is the wall clock of the whole command divided by the minutes given. With --quick each takes 3 minutes, too few to
say which is better. In full: 2 × 100 minutes for each of the two datasets.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks.header import header, verdict

_TOLERANCE = 0.05
_HIPPOCAMPUS_RECIPE = (
    "model=unet_wide", "schedule=one_cycle", "augment=strong", "intensity=mr", "axis=coronal", "img_size=native",
    "batch_size=32", "optimiser.ema_decay=0.998", "loader.slices_per_epoch=null",
)  # fmt: skip
_CT_RECIPE = ("axis=coronal", "img_size=256", "lr=1e-3")


def main() -> None:
    """Print a row for each dataset and number of minutes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--hippocampus", type=Path, help="Task04_Hippocampus of the Medical Segmentation Decathlon")
    parser.add_argument("--ct", type=Path, nargs=2, metavar=("IMAGE", "LABEL"), help="one CT with a label")
    parser.add_argument("--minutes", type=float, nargs="+", default=[10, 30, 60])
    parser.add_argument("--quick", action="store_true", help="3 minutes each")
    arguments = parser.parse_args()
    datasets: dict[str, tuple[Sequence[str], Sequence[str]]] = {}
    if arguments.hippocampus:
        root = ("data=decathlon", f"data.root={arguments.hippocampus.absolute()}", "fold=0")
        datasets["hippocampus, fold 0"] = root, _HIPPOCAMPUS_RECIPE
    if arguments.ct:
        image, label = (path.absolute() for path in arguments.ct)
        datasets["CT"] = ("data=nifti", f"data.image={image}", f"data.label={label}"), _CT_RECIPE
    if not datasets:
        parser.error("give --hippocampus, --ct or both")
    print(header())
    print("| data | minutes | auto: test Dice | by hand: test Dice | auto: budget kept | by hand: budget kept | both |")
    print("|---|---:|---:|---:|---:|---:|---|")
    for name, (data, recipe) in datasets.items():
        for minutes in [3] if arguments.quick else arguments.minutes:
            print(_row(name, minutes, data, recipe), flush=True)


def _row(name: str, minutes: float, data: Sequence[str], recipe: Sequence[str]) -> str:
    with tempfile.TemporaryDirectory() as folder:
        shared = (*data, f"output_dir={folder}/outputs", f"cache_dir={folder}/cache", "logger=none")
        auto_seconds = _timed("auto", *shared, f"minutes={minutes:g}")
        hand_seconds = _timed("train", *shared, *recipe, f"max_minutes={minutes:g}", "study=hand")
        (found,) = Path(folder, "outputs/auto").glob("*/auto.json")
        (made,) = Path(folder, "outputs/hand").glob("*/summary.json")
        test = json.loads(found.read_text())["test_dice"]
        auto_dice = test["mean"] if "mean" in test else next(iter(test.values()))
        hand_dice = json.loads(made.read_text())["test"]["dice"]
    kept = [seconds / 60 / minutes for seconds in (auto_seconds, hand_seconds)]
    within = verdict(all(abs(each - 1) <= _TOLERANCE for each in kept))
    scores = f"{auto_dice:.4f} | {hand_dice:.4f} | {kept[0]:.3f} | {kept[1]:.3f}"
    return f"| {name} | {minutes:g} | {scores} | within 5 %: {within} |"


def _timed(command: str, *arguments: str) -> float:
    """Seconds of a `spleen` command."""
    since = time.monotonic()
    subprocess.run([sys.executable, "-m", "spleen", command, *arguments], check=True, stdout=subprocess.DEVNULL)
    return time.monotonic() - since


if __name__ == "__main__":
    main()
