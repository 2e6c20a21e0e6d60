"""Time to build the results table of a large study, relative to only reading its JSON files.

Run it from the repository; synthetic run folders are created in a temporary folder:

    python -m benchmarks.results_table

1,000 runs: 5 image sizes × 5 learning rates × 2 augmentations × 20 seeds, so 50 arms, each folder with
config.yaml, summary.json, cases.csv, metrics.csv and split.json as training writes them. The target is 5 s for the
command in a fresh process, with the files in the page cache as after any study.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from itertools import product
from pathlib import Path
from statistics import median

import numpy as np
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig, OmegaConf

from benchmarks.header import header, verdict
from spleen.config.parsing import parse
from spleen.records import reading
from spleen.runs.main import register_resolvers
from spleen.runs.results.results import results
from spleen.system.resources import conf_folder, work_folder

SECONDS_TARGET = 5.0
SIZES, RATES, AUGMENTS = (32, 64, 128, 256, 512), (1e-5, 1e-4, 1e-3, 3e-3, 1e-2), ("none", "light")
EPOCHS = 20


def main() -> None:
    """Create the folders, time the command and its parts."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=20, help="runs per arm; there are 50 arms")
    parser.add_argument("--repeats", type=int, default=5, help="repetitions of every measurement")
    parser.add_argument("--keep", type=Path, help="create the folders here and keep them for inspection")
    arguments = parser.parse_args()
    print(header())
    with tempfile.TemporaryDirectory() as temporary:
        folder = arguments.keep or Path(temporary) / "study"
        make_study(folder, arguments.seeds)
        _print_times(folder, arguments.repeats)


def make_study(folder: Path, n_seeds: int) -> None:
    """Write run folders with synthetic scores that increase with image size and peak at one learning rate."""
    random = np.random.default_rng(0)
    configs = {augment: _config(augment) for augment in AUGMENTS}
    for size, rate, augment, seed in product(SIZES, RATES, AUGMENTS, range(n_seeds)):
        level = 0.97 - 3 / size - 0.12 * np.log10(rate / 1e-3) ** 2 + 0.01 * (augment == "light")
        val, test = (float(np.clip(level - cost + random.normal(0, 0.01), 0.02, 0.99)) for cost in (0.0, 0.02))
        run = folder / f"augment={augment},img_size={size},lr={rate:g},seed={seed}"
        run.mkdir(parents=True)
        for key, value in (("img_size", size), ("lr", rate), ("seed", seed), ("split.seed", seed)):
            OmegaConf.update(configs[augment], key, value)
        (run / "config.yaml").write_text(OmegaConf.to_yaml(configs[augment]))
        _write_scores(run, val, test, random)


def _config(augment: str) -> DictConfig:
    register_resolvers()
    with initialize_config_dir(str(conf_folder()), version_base="1.3"):
        config: DictConfig = OmegaConf.structured(parse(compose("train", [f"augment={augment}", f"epochs={EPOCHS}"])))
    return config


def _write_scores(run: Path, val: float, test: float, random: np.random.Generator) -> None:
    stages = {"val": val, "test": test}
    means = {stage: {"dice": dice, "jaccard": dice / (2 - dice), "n_cases": 1} for stage, dice in stages.items()}
    (run / "summary.json").write_text(json.dumps({"status": "finished", "wall_seconds": 120.0, **means}, indent=1))
    cases = [f"{stage},phantom_0,spleen,{dice},{dice / (2 - dice)}" for stage, dice in stages.items()]
    (run / "cases.csv").write_text("\n".join(["split,case_id,class_name,dice,jaccard", *cases, ""]))
    split = {"kind": "slice_blocks", "axis": "coronal", "cases": {"phantom_0": {"test": [30, 31, 32]}}}
    (run / "split.json").write_text(json.dumps(split))
    dice = val * (1 - np.exp(-np.arange(1, EPOCHS + 1) / 4)) * random.uniform(0.98, 1.0, EPOCHS)
    rows = [f"{epoch},{50 * epoch + 50},{value:.9g}" for epoch, value in enumerate(dice)]
    (run / "metrics.csv").write_text("\n".join(["epoch,step,val/dice", *rows, ""]))


def _print_times(folder: Path, repeats: int) -> None:
    n_runs = sum(1 for _ in folder.glob("*/summary.json"))
    command = [sys.executable, "-c", "from spleen.cli.main import main; main()", "results", str(folder)]
    rows = {
        "reading the summary.json files, in this process": _times(lambda: _read_json(folder), repeats),
        "`results(folder)`, in this process": _times(lambda: _results_uncached(folder), repeats),
        "`spleen results folder`, a fresh process": _times(lambda: _run(command), repeats),
        "… with `--plots`": _times(lambda: _run([*command, "--plots", str(folder.parent / "plots")]), repeats),
    }
    baseline = median(wall for wall, _ in next(iter(rows.values())))
    print(f"| {n_runs} run folders | median s | min–max s | CPU s | ÷ reading JSON | target | |")
    print("|---|---|---|---|---|---|---|")
    for name, times in rows.items():
        seconds, cpu_seconds = zip(*times, strict=True)
        target = f"≤ {SECONDS_TARGET:g} s | {verdict(median(seconds) <= SECONDS_TARGET)}" if "fresh" in name else " | "
        spread = f"{min(seconds):.2f}–{max(seconds):.2f}"
        ratio = median(seconds) / baseline
        print(f"| {name} | {median(seconds):.2f} | {spread} | {median(cpu_seconds):.2f} | {ratio:.1f} | {target} |")


def _times(call: Callable[[], object], repeats: int) -> list[tuple[float, float]]:
    """Wall-clock seconds, and CPU seconds of this process and its children, which other load does not affect."""
    call()
    seconds = []
    for _ in range(repeats):
        wall, before = time.perf_counter(), os.times()
        call()
        after = os.times()
        seconds.append((time.perf_counter() - wall, sum(after[:4]) - sum(before[:4])))
    return seconds


def _read_json(folder: Path) -> list[object]:
    return [json.loads(path.read_bytes()) for path in folder.glob("*/summary.json")]


def _results_uncached(folder: Path) -> object:
    reading._parse.cache_clear()  # otherwise a second call would find the settings already parsed
    return results(folder)


def _run(command: list[str]) -> None:
    subprocess.run(command, cwd=work_folder(), check=True, stdout=subprocess.DEVNULL)


if __name__ == "__main__":
    main()
