"""Dice against the number of drawn slices: spread evenly, against those that `spleen suggest-slices` asks for.

    python -m benchmarks.sparse_labels --ct spleen_ct --root Task04_Hippocampus
    python -m benchmarks.sparse_labels --ct spleen_ct --root Task04_Hippocampus --quick   # only to see that it runs

`--ct` is a folder with image.nii.gz and label.nii.gz. Of each volume every fifth slice is never drawn, and is what is
scored; the others can be drawn, and the rules below see them as though there were no others:

even        2, 4, 8, 16 or all of them, spread over the body at once: `suggest-slices` with neither label nor run
organ       the same 2; then always as many as are there already, spread over where the organ can be: with the label
suggested   the same 2; then those of which the network trained so far is least sure: with the label and `--run`

Each network is trained from scratch on the drawn slices, as `spleen propagate` does, and for the same number of steps,
so how busy the machine is changes nothing. Prints, for the CT and for the cases of the dataset, the mean Dice (over
classes, of all scored slices of a volume together, on its own grid; a class that no drawn slice shows has 0), and the
mean paired difference to "even" with its 95 % t-interval: over seeds, of which each scores other slices, or over cases.
What is scored in --output already is not trained again, and refused if its settings were others.
"""

import argparse
import json
import os
import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from statistics import mean

import numpy as np

from benchmarks.differences import interval
from benchmarks.header import header
from benchmarks.jobs import record_settings
from spleen.annotation.spread import body_span, organ_span, spread_slices
from spleen.annotation.uncertainty import SlicedPrediction, predict_slices, slice_entropy_mm2, uncertain_slices
from spleen.config.override_values import as_overrides
from spleen.data.layouts.decathlon import read_decathlon
from spleen.evaluation.case_scores import ScoreSettings, score_case
from spleen.evaluation.ignored import IgnoredValue
from spleen.imaging.native import read_native
from spleen.imaging.nifti import Volume, read_label, write_volume
from spleen.imaging.slicing import AXES, to_slices
from spleen.runs.api import compose_config, run_here
from spleen.system.files import write_text
from spleen.system.resources import work_folder
from spleen.types import AxisName, LabelVolume

_RULES = ("even", "organ", "suggested")
_SCORED_EVERY = 5
_UNKNOWN = 255
_COMMON = ("data=nifti", "fold=all", "logger=none", "report=false", "trainer.progress=false")
_CT = ("intensity=ct", "img_size=96", "epochs=6")  # 1,200 slices
_MR = ("intensity=mr", "img_size=48", "epochs=3")  # 600 slices
_QUICK = ("epochs=1", "loader.slices_per_epoch=16", "img_size=32")

_Scores = dict[tuple[str, str], float]
"""Mean Dice by rule and number of drawn slices, which is "all" for the last."""


@dataclass(frozen=True)
class _Task:
    """One volume and seed, with all that its process has to know."""

    image: Path
    label: Path
    classes: Mapping[str, tuple[int, ...]]
    axis: AxisName
    seed: int
    counts: tuple[int, ...]
    rules: tuple[str, ...]
    overrides: tuple[str, ...]
    folder: Path


@dataclass(frozen=True, eq=False)
class _Case:
    """The files of a task, read; slices that can be drawn are numbered by their place in `pool`."""

    task: _Task
    label: Volume
    pool: tuple[int, ...]
    scored: tuple[int, ...]
    body: tuple[int, int]
    """First and last slice of the pool that shows the body."""

    def classes_on(self, drawn: Sequence[int]) -> dict[str, list[int]]:
        """The classes, with those of their label values, that at least one of these slices shows."""
        shown = set(np.unique(to_slices(self.label.array, self.task.axis)[[self.pool[number] for number in drawn]]))
        present = {name: [value for value in values if value in shown] for name, values in self.task.classes.items()}
        return {name: values for name, values in present.items() if values}


@dataclass(frozen=True)
class _Trained:
    """What is known after one training."""

    dice: float
    entropy_mm2: tuple[float, ...] | None
    """Of each slice of the pool; None where no drawn slice shows an organ, so that nothing could be trained."""


def main() -> None:
    """Train what is missing; print one table for the CT and one for the dataset."""
    arguments = _parse_arguments()
    os.environ["OMP_NUM_THREADS"] = "1"  # of the processes that are started below
    print(header())
    tasks_of = _tasks(arguments)
    all_tasks = [task for tasks in tasks_of.values() for task in tasks]
    for task in all_tasks:
        _check_counts(task)
    for task in all_tasks:
        files = {"image": str(task.image.absolute()), "label": str(task.label.absolute())}
        record_settings(task.folder, {**files, "counts": task.counts, "overrides": task.overrides})
    with ProcessPoolExecutor(arguments.jobs, mp_context=get_context("spawn")) as pool:
        tables = {title: pool.map(_curves, tasks) for title, tasks in tasks_of.items()}
        for title, scores in tables.items():
            _print_table(title, list(scores))


def _tasks(arguments: argparse.Namespace) -> dict[str, list[_Task]]:
    """The tasks of each table, by its title."""

    def tasks(
        image: Path, label: Path, classes: Mapping[str, Sequence[int]], seeds: int, own: tuple[str, ...]
    ) -> list[_Task]:
        named = {name: tuple(values) for name, values in classes.items()}
        settings = (*_COMMON, *own, *(_QUICK if arguments.quick else ()), *arguments.overrides)
        folder = arguments.output / ("quick" if arguments.quick else "full") / arguments.axis
        return [
            _Task(image, label, named, arguments.axis, seed, tuple(arguments.counts), tuple(arguments.rules),
                  (*settings, f"axis={arguments.axis}", f"seed={seed}"),
                  folder / image.parent.name / image.name.removesuffix(".nii.gz") / f"seed={seed}")
            for seed in range(seeds)
        ]  # fmt: skip

    tables = {}
    if arguments.ct is not None:
        files = arguments.ct / "image.nii.gz", arguments.ct / "label.nii.gz"
        tables[f"One CT, {arguments.seeds} seeds"] = tasks(*files, {"spleen": [1]}, arguments.seeds, _CT)
    if arguments.root is not None:
        dataset = read_decathlon(arguments.root)
        assert dataset.label_values is not None
        chosen = np.random.default_rng(0).permutation(len(dataset.cases))[: arguments.cases].tolist()
        cases = [dataset.cases[number] for number in chosen]
        tables[f"{arguments.root.name}, {len(cases)} cases"] = [
            task for case in cases for task in tasks(case.images[0], case.label, dataset.label_values, 1, _MR)
        ]
    return tables


def _check_counts(task: _Task) -> None:
    """Exit if one of the counts is not below the number of slices that can be drawn."""
    n_slices, largest = len(_read(task).pool), max(task.counts)
    if largest >= n_slices:
        sys.exit(f"--counts {largest}: {task.image} has {n_slices} slices that can be drawn; give numbers below that")


def _curves(task: _Task) -> _Scores:
    """Dice after each training of a task; the rules share the first and the last."""
    case, counts = _read(task), task.counts
    first = sorted(spread_slices(counts[0], case.body, ()))
    start = _trained(case, first, "first")
    whole = _trained(case, range(len(case.pool)), "all")
    scores: _Scores = {}
    for rule in task.rules:
        drawn, trained = first, start
        scores[rule, str(counts[0])] = start.dice
        for count in counts[1:]:
            drawn = _next(case, rule, count, drawn, trained)
            trained = _trained(case, drawn, f"{rule}-{count}")
            scores[rule, str(count)] = trained.dice
        scores[rule, "all"] = whole.dice
    return scores


def _read(task: _Task) -> _Case:
    image = read_native(task.image)
    label = read_label(task.label, image.affine)
    n_slices = len(to_slices(label.array, task.axis))
    offset = (_SCORED_EVERY // 2 + task.seed) % _SCORED_EVERY
    pool = tuple(index for index in range(n_slices) if index % _SCORED_EVERY != offset)
    first, last = body_span(image.channels[0], task.axis)
    inside = [number for number, index in enumerate(pool) if first <= index <= last]
    return _Case(task, label, pool, tuple(range(offset, n_slices, _SCORED_EVERY)), (inside[0], inside[-1]))


def _next(case: _Case, rule: str, count: int, drawn: Sequence[int], trained: _Trained) -> list[int]:
    """The slices that are drawn when there are `count`, after those drawn so far."""
    if rule == "even":
        return sorted(spread_slices(count, case.body, ()))
    n_new = count - len(drawn)
    if rule == "suggested" and trained.entropy_mm2 is not None:
        new = [each.index for each in uncertain_slices(np.array(trained.entropy_mm2), n_new, drawn)]
        return sorted([*drawn, *new])
    chosen = set(drawn)
    organ = organ_span(len(case.pool), drawn, [number for number in drawn if case.classes_on([number])])
    for span in (*([organ] if organ else []), case.body, (0, len(case.pool) - 1)):
        chosen.update(spread_slices(count - len(chosen), span, chosen))
    return sorted(chosen)


def _trained(case: _Case, drawn: Sequence[int], name: str) -> _Trained:
    """Train on the drawn slices and score the others, unless that is on record."""
    run = case.task.folder / name
    record = run.with_name(f"{name}.json")
    if record.exists():
        content = json.loads(record.read_text())
        return _Trained(content["dice"], content["entropy_mm2"] and tuple(content["entropy_mm2"]))
    classes = case.classes_on(drawn)
    trained = _Trained(0.0, None)
    if classes:
        _train(case, drawn, classes, run)
        predicted = predict_slices([run], case.task.image)
        entropy = slice_entropy_mm2(predicted.probabilities, predicted.image.affine, case.task.axis)[list(case.pool)]
        trained = _Trained(_dice(case, predicted), tuple(entropy.tolist()))
    slices = [case.pool[number] for number in drawn]
    write_text(record, json.dumps({"dice": trained.dice, "slices": slices, "entropy_mm2": trained.entropy_mm2}) + "\n")
    return trained


def _train(case: _Case, drawn: Sequence[int], classes: Mapping[str, list[int]], run: Path) -> None:
    """Train in this process; what it prints is kept beside the run folder."""
    run.parent.mkdir(parents=True, exist_ok=True)
    label = run.with_name(f"{run.name}_drawn.nii.gz")
    slices = [case.pool[number] for number in drawn]
    write_volume(label, _only(case, slices, case.label.array), case.label.affine)
    data = {"image": case.task.image.absolute(), "label": label.absolute(), "label_values": classes}
    overrides = [*case.task.overrides, *as_overrides({"data": {**data, "ignore_value": _UNKNOWN}})]
    with run.with_name(f"{run.name}.txt").open("w") as output, redirect_stdout(output), redirect_stderr(output):
        run_here(compose_config(overrides), run)


def _only(case: _Case, slices: Sequence[int], array: LabelVolume) -> LabelVolume:
    """The label values of these slices; all others are unknown."""
    kept = np.full_like(array, _UNKNOWN)
    to_slices(kept, case.task.axis)[list(slices)] = to_slices(array, case.task.axis)[list(slices)]
    return kept


def _dice(case: _Case, predicted: SlicedPrediction) -> float:
    """Mean over the classes of the Dice of all scored slices together."""
    values = np.array([0, *(of_class[0] for of_class in predicted.label_values)], np.int32)
    settings = ScoreSettings(case.task.classes, {}, surface=False, ignored=IgnoredValue(_UNKNOWN))
    reference = _only(case, case.scored, case.label.array)
    scores = score_case("", values[predicted.mask], reference, case.label.affine, settings)
    return float(np.nanmean([score.dice for score in scores]))


def _print_table(title: str, scores: Sequence[_Scores]) -> None:
    rules = list(dict.fromkeys(rule for rule, _ in scores[0]))
    compared = [rule for rule in rules if rule != "even"]
    print(f"{title}:\n\n| drawn | {' | '.join([*rules, *(f'{rule} − even (95 %)' for rule in compared)])} |")
    print("|---|" + "---:|" * len(rules) + "---|" * len(compared))
    counts = list(dict.fromkeys(count for _, count in scores[0]))
    for count in counts:
        cells = [f"{mean(each[rule, count] for each in scores):.4f}" for rule in rules]
        for rule in compared:
            differences = [each[rule, count] - each["even", count] for each in scores]
            cells.append("the same slices" if count in (counts[0], counts[-1]) else interval(differences))
        print(f"| {count} | {' | '.join(cells)} |", flush=True)
    print(flush=True)


def _parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ct", type=Path, help="folder with image.nii.gz and label.nii.gz of one spleen CT")
    parser.add_argument("--root", type=Path, help="MR dataset in the Decathlon layout")
    parser.add_argument("--seeds", type=int, default=3, help="seeds for the CT; each case of the dataset has one")
    parser.add_argument("--cases", type=int, default=10, help="cases of the dataset, drawn once")
    parser.add_argument(
        "--counts", type=int, nargs="+", default=[2, 4, 8, 16], help="numbers of drawn slices, ascending"
    )
    parser.add_argument("--rules", nargs="+", choices=_RULES, default=list(_RULES), help="how slices are chosen")
    parser.add_argument("--axis", choices=AXES, default="coronal", help="slicing axis")
    parser.add_argument("--jobs", type=int, default=1, help="volumes at a time, with one thread each")
    parser.add_argument("--output", type=Path, default=work_folder() / "outputs" / "benchmark_sparse_labels")
    parser.add_argument("--quick", action="store_true", help="tiny runs, to check that the benchmark works")
    parser.add_argument("overrides", nargs="*", help="after --: overrides for every training run, such as epochs=20")
    arguments = parser.parse_args()
    if arguments.ct is None and arguments.root is None:
        parser.error("give --ct, --root or both")
    if "even" not in arguments.rules:
        parser.error("the others are compared with even; give it too")
    if arguments.quick:
        arguments.seeds, arguments.cases = min(arguments.seeds, 2), min(arguments.cases, 2)
    return arguments


if __name__ == "__main__":
    main()
