"""Fine-tuning against training from scratch at equal time, with few cases and several seeds.

    python -m benchmarks.warm_start --root Task04_Hippocampus
    python -m benchmarks.warm_start --root Task04_Hippocampus --quick    # only to see that it runs: tiny jobs, 2 seeds

The cases are drawn once: `--test` cases are never trained on, `--pool` cases are those of which the small training sets
are drawn, one set for each seed and size. The source is another organ in another modality, the phantom's CT with the
default settings, or with `--source mr` a run on all the cases that are neither test nor pool, merged into one class.
From scratch and fine-tuned, the same cases are trained for the same number of steps with the same seed, so at equal
time; both get the better of two learning rates by the validation split. Prints the mean test Dice of each, and the mean
of the paired differences over the seeds with its 95 % t-interval.
"""

import argparse
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from statistics import mean

import numpy as np

from benchmarks.differences import interval
from benchmarks.header import header
from benchmarks.jobs import FinishedJob, quoted, train
from spleen.data.layouts.dataset import Dataset
from spleen.data.layouts.decathlon import read_decathlon
from spleen.system.files import write_text
from spleen.system.resources import work_folder

_COMMON = ["logger=none", "report=false"]
_QUICK = ["epochs=1", "loader.slices_per_epoch=16", "img_size=32"]


def main() -> None:
    """Train the source, then each pair of runs; print one row per number of cases."""
    arguments = _parse_arguments()
    folder = work_folder() / "outputs" / "benchmark_warm_start" / f"{datetime.now():%Y-%m-%d_%H-%M-%S}"
    dataset = read_decathlon(arguments.root)
    order = np.random.default_rng(0).permutation(len(dataset.cases)).tolist()
    test, pool = order[: arguments.test], order[arguments.test : arguments.test + arguments.pool]
    rest = order[arguments.test + arguments.pool :]
    extra = [*_COMMON, *(_QUICK if arguments.quick else []), *arguments.overrides]
    print(header())
    source = folder / "source"
    source_data = ["data=phantom"] if arguments.source == "phantom" else _source_data(dataset, rest, folder)
    train([*source_data, *extra, *arguments.source_settings], source)
    print(f"source: {' '.join([*source_data[:1], *arguments.source_settings])}")
    print(f"every run: `{' '.join(['python train.py data=table', *extra])}`\n")
    print("| cases | seeds | from scratch | fine-tuned | difference (95 %) | seconds from scratch / fine-tuned |")
    print("|---|---|---|---|---|---|")
    for size in arguments.sizes:
        differences, scratch, warm = [], [], []
        for seed in range(arguments.seeds):
            chosen = np.random.default_rng((seed, size)).choice(pool, size, replace=False).tolist()
            data = _few_cases(dataset, chosen, test, folder / f"{size}-{seed}", seed)
            pairs = {"scratch": [], "warm": [f"init_from={quoted(source)}"]}
            best = {
                name: _best_of_rates(
                    [*data, f"seed={seed}", *start, *extra], arguments.rates, folder / f"{size}-{seed}" / name
                )
                for name, start in pairs.items()
            }
            scratch.append(best["scratch"])
            warm.append(best["warm"])
            differences.append(_dice(best["warm"], "test") - _dice(best["scratch"], "test"))
        seconds = (mean(job.summary["train"]["seconds"] for job in jobs) for jobs in (scratch, warm))
        print(
            f"| {size} | {arguments.seeds} | {mean(_dice(job, 'test') for job in scratch):.4f} "
            f"| {mean(_dice(job, 'test') for job in warm):.4f} | {interval(differences)} "
            f"| {' / '.join(f'{each:.0f}' for each in seconds)} |",
            flush=True,
        )


def _best_of_rates(overrides: list[str], rates: Sequence[float], folder: Path) -> FinishedJob:
    """The run with the highest validation Dice among those with each learning rate."""
    jobs = [train([*overrides, f"lr={rate:g}"], folder / f"lr={rate:g}") for rate in rates]
    return max(jobs, key=lambda job: _dice(job, "val"))


def _dice(job: FinishedJob, split: str) -> float:
    return float(job.summary[split]["dice"] or 0.0)  # null where nothing could be scored


def _source_data(dataset: Dataset, cases: Sequence[int], folder: Path) -> list[str]:
    """All remaining cases, with the classes merged: the source knows one class of another name."""
    assert dataset.label_values is not None
    values = [value for of_class in dataset.label_values.values() for value in of_class]
    table = _write_table(dataset, cases, folder / "source.csv")
    return ["data=table", f"data.table={quoted(table)}", f"data.label_values={{organ:{values}}}", "intensity=mr"]


def _few_cases(dataset: Dataset, chosen: Sequence[int], test: Sequence[int], folder: Path, seed: int) -> list[str]:
    """The settings of a run on these training and val cases, with the test cases held out."""
    assert dataset.label_values is not None
    folder.mkdir(parents=True)
    table = _write_table(dataset, [*chosen, *test], folder / "cases.csv")
    held_out = folder / "test_cases.txt"
    write_text(held_out, "".join(f"{dataset.cases[number].case_id}\n" for number in test))
    classes = ",".join(f"{name}:{list(values)}" for name, values in dataset.label_values.items())
    return [
        "data=table", f"data.table={quoted(table)}", f"data.label_values={{{classes}}}", "intensity=mr",
        f"split.test_cases={quoted(held_out)}", "split.val_fraction=0.2", f"split.seed={seed}",
    ]  # fmt: skip


def _write_table(dataset: Dataset, cases: Sequence[int], path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    chosen = (dataset.cases[number] for number in cases)
    rows = [f"{case.case_id},{case.images[0].absolute()},{case.label.absolute()}\n" for case in chosen]
    write_text(path, "case_id,image,label\n" + "".join(rows))
    return path


def _parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", type=Path, required=True, help="MR dataset in the Decathlon layout")
    parser.add_argument("--source", choices=("phantom", "mr"), default="phantom", help="what the source is trained on")
    parser.add_argument("--source-settings", nargs="*", default=[], help="of the source alone, such as epochs=30")
    parser.add_argument("--sizes", type=int, nargs="+", default=[5, 10], help="numbers of cases, val included")
    parser.add_argument("--seeds", type=int, default=5, help="small training sets of each size")
    parser.add_argument("--test", type=int, default=50, help="test cases")
    parser.add_argument("--pool", type=int, default=50, help="cases of which the small sets are drawn")
    parser.add_argument("--rates", type=float, nargs="+", default=[2e-3, 5e-4], help="learning rates to choose from")
    parser.add_argument("--quick", action="store_true", help="tiny runs, to check that the benchmark works")
    parser.add_argument("overrides", nargs="*", help="after --: overrides for every training run, such as epochs=20")
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.seeds, arguments.test, arguments.rates = 2, 3, arguments.rates[:1]
    return arguments


if __name__ == "__main__":
    main()
