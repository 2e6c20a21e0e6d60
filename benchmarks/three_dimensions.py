"""Three fused 2D views, a 3D network, and both fused, at equal training time, on cases that none of them has seen.

Run it from the repository, on an otherwise idle machine with a core for each job; it continues where it was stopped:

    python -m benchmarks.three_dimensions --root Task04_Hippocampus --folds 1 2 3 4 --minutes 15

On each fold, the three views are trained for a third of the minutes each and the 3D network for all of them, two jobs
of one thread at a time; then the fold's held-out cases are predicted by the views, by the 3D network and by both, in
which the views together weigh as much as the 3D network. Every case is scored once, on its native grid. The intervals
are over cases: of the mean (bootstrap), and of the paired differences from the fused views.
"""

import argparse
import os
import subprocess
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import mean

from benchmarks.header import header
from benchmarks.jobs import quoted, train_command
from spleen.data.layouts.decathlon import read_decathlon
from spleen.evaluation.evaluate import evaluate
from spleen.evaluation.metrics.statistics import bootstrap_mean_interval
from spleen.imaging.slicing import AXES
from spleen.inference.predict import PredictSettings, predict
from spleen.records.cases import read_known_cases
from spleen.records.folder import RunFolder
from spleen.system.resources import work_folder

ARMS = {"three 2D views": (1.0, 1.0, 1.0, 0.0), "3D": (0.0, 0.0, 0.0, 1.0), "both": (1.0, 1.0, 1.0, 3.0)}


def main() -> None:
    """Train what is missing, predict and score each fold, and print one row for each arm and class."""
    arguments = _parse_arguments()
    folder: Path = arguments.folder
    print(header())
    common = [
        "data=decathlon", f"data.root={quoted(arguments.root)}", "img_size=native", "intensity=auto", "logger=none",
        "report=false", "trainer.progress=false", *arguments.overrides,
    ]  # fmt: skip
    jobs = [
        (folder / f"fold{fold}" / name, [*common, f"fold={fold}", *settings])
        for fold in arguments.folds
        for name, settings in _runs(arguments).items()
    ]
    with ThreadPoolExecutor(arguments.jobs) as pool:
        list(pool.map(lambda job: _train(*job), jobs))
    dice = _score(arguments, folder)
    print(f"| class | {' | '.join(ARMS)} | 3D − 2D | both − 2D |\n|---|{'---|' * (len(ARMS) + 2)}")
    for name in sorted({class_name for _, class_name in dice["both"]}):
        of_arm = {arm: {key: value for key, value in dice[arm].items() if key[1] == name} for arm in ARMS}
        flat, deep, both = of_arm.values()
        cells = [_with_interval(list(values.values())) for values in of_arm.values()]
        gains = [_with_interval([values[key] - flat[key] for key in flat], "+") for values in (deep, both)]
        print(f"| {name} | {' | '.join([*cells, *gains])} |")


def _runs(arguments: argparse.Namespace) -> dict[str, list[str]]:
    """The name and settings of each run of a fold; the longest one first, so that the others fit beside it."""
    deep = ["model=unet3d", "batch_size=2", f"max_minutes={arguments.minutes}", *arguments.in_3d]
    flat = [f"max_minutes={arguments.minutes / 3:.4g}", *arguments.in_2d]
    return {"3d": deep, **{axis: [f"axis={axis}", *flat] for axis in AXES}}


def _train(run_folder: Path, overrides: list[str]) -> None:
    if RunFolder(run_folder).summary.exists():
        return
    run_folder.mkdir(parents=True, exist_ok=True)
    with (run_folder / "terminal.txt").open("a") as output:
        command = train_command(overrides, run_folder)
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        subprocess.run(command, cwd=work_folder(), env=environment, stdout=output, stderr=output, check=True)


def _score(arguments: argparse.Namespace, folder: Path) -> dict[str, dict[tuple[str, str], float]]:
    """Dice of each held-out case and class, by arm."""
    images = {case.case_id: case.images[0] for case in read_decathlon(arguments.root).cases}
    dice: dict[str, dict[tuple[str, str], float]] = {arm: {} for arm in ARMS}
    for fold in arguments.folds:
        here = folder / f"fold{fold}"
        known = read_known_cases(here / "3d")
        assert known is not None
        for arm, weights in ARMS.items():
            used = [(run, weight) for run, weight in zip((*AXES, "3d"), weights, strict=True) if weight]
            masks = here / "masks" / arm.replace(" ", "_")
            settings = PredictSettings(weights=tuple(weight for _, weight in used), overwrite=True)
            predict([here / run for run, _ in used], [images[case] for case in sorted(known.held_out)], masks, settings)
            scored = evaluate(masks, arguments.root / "labelsTr", surface=False, only_predicted=True)
            dice[arm] |= {(row.case_id, row.class_name): row.dice for row in scored.scores}
    return dice


def _with_interval(values: Sequence[float], sign: str = "") -> str:
    interval = bootstrap_mean_interval(values)
    assert interval is not None
    return f"{mean(values):{sign}.4f} ({interval.low:{sign}.4f} to {interval.high:{sign}.4f})"


def _parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", type=Path, required=True, help="dataset in the Decathlon layout")
    parser.add_argument("--folds", type=int, nargs="+", default=[1, 2, 3, 4], help="folds to train and score")
    parser.add_argument("--minutes", type=float, default=15.0, help="of the 3D network, and of the views together")
    parser.add_argument("--jobs", type=int, default=2, help="runs at a time, of one thread each")
    parser.add_argument("--in-2d", nargs="*", default=[], help="settings of the views only, such as batch_size=8")
    parser.add_argument("--in-3d", nargs="*", default=[], help="settings of the 3D run, such as crop_size=[24,40,32]")
    default = work_folder() / "outputs" / "benchmark_three_dimensions"
    parser.add_argument("--folder", type=Path, default=default, help="of the runs and masks")
    parser.add_argument("overrides", nargs="*", help="after --: overrides for every training run, such as seed=1")
    return parser.parse_args()


if __name__ == "__main__":
    main()
