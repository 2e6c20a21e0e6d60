"""`spleen auto` against the best recipe made by hand, at the same wall clock, and how well both keep it.

    python -m benchmarks.auto --hippocampus Task04_Hippocampus --ct image.nii.gz label.nii.gz [--minutes 10 30 60]
    python -m benchmarks.auto --ct image.nii.gz label.nii.gz --quick

On the hippocampi (fold 0) the recipe is that of experiments/hippocampus_views along its best axis, on the CT that of
experiments/size_and_rate; both end by `max_minutes`; `--by-hand` replaces it. The Dice is that of the test split, with
the difference and its 95 % interval over the cases (bootstrap; none of one case). It chose nothing on the hippocampi.
The recipe for the CT is the best of its study by the Dice of the same test slices, and second by validation, so it is,
if anything, favoured. "budget kept" is the wall clock of the whole command divided by the minutes given. The two
commands have the machine one after the other, or with --side-by-side half of its cores each, at the same time. With
--quick each takes 3 minutes, too few to say which is better. In full: 2 × 100 minutes for each of the two datasets.
Finished rows are kept in --folder.
"""

import argparse
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import mean

from benchmarks.header import header, verdict
from benchmarks.jobs import quoted, record_settings
from spleen.evaluation.metrics.statistics import bootstrap_mean_interval
from spleen.evaluation.score_tables import CaseClass, read_table
from spleen.system.resources import work_folder

_TOLERANCE = 0.05
_HIPPOCAMPUS_RECIPE = (
    "model=unet_wide", "schedule=one_cycle", "augment=strong", "intensity=mr", "axis=coronal", "img_size=native",
    "batch_size=32", "optimiser.ema_decay=0.998", "loader.slices_per_epoch=null",
)  # fmt: skip
_CT_RECIPE = ("axis=coronal", "img_size=256", "lr=1e-3")


def main() -> None:
    """Print a row for each dataset and number of minutes."""
    arguments = _parse_arguments()
    datasets: dict[str, tuple[Sequence[str], Sequence[str]]] = {}
    if arguments.hippocampus:
        root = ("data=decathlon", f"data.root={quoted(arguments.hippocampus)}", "fold=0")
        datasets["hippocampus"] = root, arguments.by_hand or _HIPPOCAMPUS_RECIPE
    if arguments.ct:
        image, label = map(quoted, arguments.ct)
        datasets["CT"] = ("data=nifti", f"data.image={image}", f"data.label={label}"), arguments.by_hand or _CT_RECIPE
    print(header())
    print("| data | minutes | auto: test Dice | by hand: test Dice | auto − by hand (95 %) | auto: budget kept", end="")
    print(" | by hand: budget kept | both |\n|---|---:|---:|---:|---|---:|---:|---|")
    for name, (data, recipe) in datasets.items():
        for minutes in [3] if arguments.quick else arguments.minutes:
            folder = arguments.folder / f"{name}_{minutes:g}"
            commands = {
                "auto": ["auto", *data, f"minutes={minutes:g}"],
                "hand": ["train", *data, *recipe, f"max_minutes={minutes:g}", "study=hand"],
            }
            record_settings(folder, {**commands, "side by side": arguments.side_by_side})
            _run_both(commands, folder, arguments.side_by_side)
            print(_row(name, minutes, folder), flush=True)


def _run_both(commands: dict[str, list[str]], folder: Path, side_by_side: bool) -> None:
    cores = sorted(os.sched_getaffinity(0))
    halves = [cores[: len(cores) // 2], cores[len(cores) // 2 :]] if side_by_side else [cores, cores]
    with ThreadPoolExecutor(2 if side_by_side else 1) as pool:
        list(pool.map(lambda name, on: _timed(commands[name], folder / name, on), commands, halves))


def _timed(command: list[str], folder: Path, cores: Sequence[int]) -> None:
    """Run a `spleen` command on these cores, and write the seconds that it took beside what it leaves."""
    if (folder / "seconds.txt").exists():
        return
    if folder.exists():  # of a benchmark that was stopped
        shutil.rmtree(folder)
    folder.mkdir(parents=True)
    settings = [f"output_dir={quoted(folder / 'outputs')}", f"cache_dir={quoted(folder / 'cache')}", "logger=none"]
    on_cores = ["taskset", "--cpu-list", ",".join(map(str, cores))]
    with (folder / "terminal.txt").open("w") as output:
        since = time.monotonic()
        subprocess.run(
            [*on_cores, sys.executable, "-m", "spleen", *command, *settings],
            check=True, stdout=output, stderr=output, env={**os.environ, "OMP_NUM_THREADS": str(len(cores))},
        )  # fmt: skip
    (folder / "seconds.txt").write_text(str(time.monotonic() - since))


def _row(name: str, minutes: float, folder: Path) -> str:
    (found,) = (folder / "auto/outputs/auto").glob("*/auto.json")
    (made,) = (folder / "hand/outputs/hand").glob("*/summary.json")
    scores = found.parent / "test_cases.csv"
    auto = _by_case(scores if scores.exists() else found.parent / "final/cases.csv")
    hand = _by_case(made.parent / "cases.csv")
    assert auto.keys() == hand.keys()
    kept = [float((folder / own / "seconds.txt").read_text()) / 60 / minutes for own in ("auto", "hand")]
    within = verdict(all(abs(each - 1) <= _TOLERANCE for each in kept))
    differences = [auto[case] - hand[case] for case in auto]
    interval = bootstrap_mean_interval(differences)
    bounds = f" ({interval.low:+.4f} to {interval.high:+.4f})" if interval else ""
    dice = f"{mean(auto.values()):.4f} | {mean(hand.values()):.4f} | {mean(differences):+.4f}{bounds}"
    return f"| {name} | {minutes:g} | {dice} | {kept[0]:.3f} | {kept[1]:.3f} | within 5 %: {within} |"


def _by_case(table: Path) -> dict[str, float]:
    """Test Dice of each case: the mean over its classes."""
    scores: dict[CaseClass, dict[str, float]] = read_table(table, "test", ["dice"])
    cases = dict.fromkeys(case_id for case_id, _ in scores)
    return {case: mean(value["dice"] for key, value in scores.items() if key[0] == case) for case in cases}


def _parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--hippocampus", type=Path, help="Task04_Hippocampus of the Medical Segmentation Decathlon")
    parser.add_argument("--ct", type=Path, nargs=2, metavar=("IMAGE", "LABEL"), help="one CT with a label")
    parser.add_argument("--minutes", type=float, nargs="+", default=[10, 30, 60])
    parser.add_argument("--quick", action="store_true", help="3 minutes each")
    parser.add_argument("--side-by-side", action="store_true", help="at the same time, with half of the cores each")
    parser.add_argument("--by-hand", nargs="+", metavar="KEY=VALUE", help="another recipe than the one in this file")
    parser.add_argument("--folder", type=Path, default=work_folder() / "outputs" / "benchmark_auto", help="of all runs")
    arguments = parser.parse_args()
    if not (arguments.hippocampus or arguments.ct):
        parser.error("give --hippocampus, --ct or both")
    return arguments


if __name__ == "__main__":
    main()
