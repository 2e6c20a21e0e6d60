"""Three fused 2D views, a 3D network, and both fused, at equal training time, on cases that none of them has seen.

Run it from the repository, on an otherwise idle machine with a core for each job; it continues where it was stopped:

    python -m benchmarks.three_dimensions --root Task04_Hippocampus --folds 1 2 3 4 --minutes 15

First, the three views are timed one after the other, beside the 3D network, each run with one thread; from this follow
the numbers of slices and patches, in whole batches, that take a third of the minutes for each view, and all of them for
the 3D network. Each axis has its own speed, since its slices have their own size. So the runs are defined by what they
see, and a busy machine changes nothing but their wall time. Then each fold's held-out cases are predicted by the views,
by the 3D network and by both, in which the views together weigh as much as the 3D network. Every case is scored once,
on its native grid. The intervals are over cases: of the mean (bootstrap), and of the paired differences from the fused
views. With --tta beside the options of before, what stands in --folder is predicted with test-time augmentation, and
nothing is trained again.
"""

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from statistics import mean

from omegaconf import OmegaConf

from benchmarks.header import header
from benchmarks.jobs import quoted, record_settings, train_command
from spleen.data.layouts.decathlon import read_decathlon
from spleen.evaluation.evaluate import evaluate
from spleen.evaluation.metrics.statistics import bootstrap_mean_interval
from spleen.imaging.slicing import AXES
from spleen.inference.predict import predict
from spleen.inference.settings import PredictSettings
from spleen.records.cases import read_known_cases
from spleen.records.folder import RunFolder
from spleen.system.resources import work_folder

_EPOCHS = 10
ARMS = {"three 2D views": (1.0, 1.0, 1.0, 0.0), "3D": (0.0, 0.0, 0.0, 1.0), "both": (1.0, 1.0, 1.0, 3.0)}


@dataclass(frozen=True)
class Speed:
    """Of one training in one thread."""

    per_minute: float
    """Slices, or patches of a 3D network."""
    batch_size: int

    def per_epoch(self, minutes: float) -> int:
        """Slices or patches of each of the epochs that together take these minutes, in whole batches."""
        return self.batch_size * max(1, round(minutes * self.per_minute / _EPOCHS / self.batch_size))


def main() -> None:
    """Train what is missing, predict and score each fold, and print one row for each arm and class."""
    arguments = _parse_arguments()
    folder: Path = arguments.folder
    print(header())
    common = [
        "data=decathlon", f"data.root={quoted(arguments.root)}", "img_size=native", "intensity=auto", "logger=none",
        "report=false", "trainer.progress=false", "split.val_fraction=0", *arguments.overrides,
    ]  # fmt: skip
    lasting = _lasting(arguments.minutes, _speeds(arguments, folder / "timing", common))
    settings = _settings(arguments)
    jobs = []
    for fold in arguments.folds:
        of_fold = {name: [*common, f"fold={fold}", *settings[name], *length] for name, length in lasting.items()}
        record_settings(folder / f"fold{fold}", of_fold)
        jobs += [(folder / f"fold{fold}" / name, overrides) for name, overrides in of_fold.items()]
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


def _settings(arguments: argparse.Namespace) -> dict[str, list[str]]:
    """The settings of each run of a fold; the longest one first, so that the others fit beside it."""
    views: dict[str, list[str]] = {axis: [f"axis={axis}", *arguments.in_2d] for axis in AXES}
    return {"3d": ["model=unet3d", "batch_size=2", *arguments.in_3d], **views}


def _speeds(arguments: argparse.Namespace, folder: Path, common: Sequence[str]) -> dict[str, Speed]:
    """The speed of each run; the views are timed one after the other, and the 3D network as long as all three."""
    minutes = {**dict.fromkeys(AXES, arguments.timing_minutes), "3d": len(AXES) * arguments.timing_minutes}
    timed = {
        name: [*common, *settings, "score_test=false", f"max_minutes={minutes[name]}"]
        for name, settings in _settings(arguments).items()
    }
    record_settings(folder, timed)

    def train_each(names: Sequence[str]) -> None:
        for name in names:
            _train(folder / name, [*timed[name], f"fold={arguments.folds[0]}"])

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(train_each, [AXES, ["3d"]]))
    return {name: _speed(folder / name) for name in timed}


def _speed(run_folder: Path) -> Speed:
    config = OmegaConf.load(RunFolder(run_folder).config)
    slices = 60 * json.loads(RunFolder(run_folder).summary.read_text())["train"]["slices_per_second"]
    return Speed(slices / (config.crop_size[0] if run_folder.name == "3d" else 1), config.batch_size)


def _lasting(minutes: float, speeds: Mapping[str, Speed]) -> dict[str, list[str]]:
    """The overrides that make each run as long as wanted, the views together as long as the 3D network; prints them."""
    overrides = {}
    for name, speed in speeds.items():
        per_epoch = speed.per_epoch(minutes if name == "3d" else minutes / len(AXES))
        seen = f"{_EPOCHS * per_epoch:,} {'patches' if name == '3d' else 'slices'}"
        steps = f"{_EPOCHS} epochs of {per_epoch // speed.batch_size} batches of {speed.batch_size}"
        print(f"{name}: {seen} ({steps}), of which it trains {speed.per_minute:.1f} a minute")
        overrides[name] = [f"epochs={_EPOCHS}", f"loader.slices_per_epoch={per_epoch}"]
    print(flush=True)
    return overrides


def _train(run_folder: Path, overrides: list[str]) -> None:
    if RunFolder(run_folder).summary.exists():
        return
    run_folder.mkdir(parents=True, exist_ok=True)
    terminal = run_folder / "terminal.txt"
    with terminal.open("a") as output:
        command = train_command(overrides, run_folder)
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        exit_code = subprocess.run(command, cwd=work_folder(), env=environment, stdout=output, stderr=output).returncode
    if exit_code:
        sys.exit(f"{' '.join(command)} ended with {exit_code}:\n{terminal.read_text()}")


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
            masks = here / ("masks_tta" if arguments.tta else "masks") / arm.replace(" ", "_")
            settings = PredictSettings(weights=tuple(weight for _, weight in used), tta=arguments.tta, overwrite=True)
            held_out = [images[case] for case in sorted(known.held_out)]
            report = predict([here / run for run, _ in used], held_out, masks, settings)
            if report.failures:
                sys.exit("\n".join(f"{failed.image}: {failed.reason}" for failed in report.failures))
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
    parser.add_argument("--timing-minutes", type=float, default=1.5, help="of each view that is timed first")
    parser.add_argument("--jobs", type=int, default=2, help="runs at a time, of one thread each")
    parser.add_argument("--in-2d", nargs="*", default=[], help="settings of the views only, such as batch_size=8")
    parser.add_argument("--in-3d", nargs="*", default=[], help="settings of the 3D run, such as crop_size=[24,40,32]")
    parser.add_argument("--tta", action="store_true", help="predict with test-time augmentation")
    default = work_folder() / "outputs" / "benchmark_three_dimensions"
    parser.add_argument("--folder", type=Path, default=default, help="of the runs and masks")
    parser.add_argument("overrides", nargs="*", help="after --: overrides for every training run, such as seed=1")
    return parser.parse_args()


if __name__ == "__main__":
    main()
