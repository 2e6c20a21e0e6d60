"""Dice against the number of drawn slices: spread evenly, against chosen by the uncertainty of a network.

    python -m benchmarks.sparse_labels --ct spleen_ct --root Task04_Hippocampus
    python -m benchmarks.sparse_labels --ct spleen_ct --root Task04_Hippocampus --quick   # only to see that it runs

For each volume every fifth slice is never drawn, and is what is scored; the others can be drawn. "Even" draws 2, 4, 8,
16 or all of them, spread over the body. "Suggested" begins with the same 2, trains, draws as many as `suggest-slices`
asks for until there are 4, trains again, and so on. Each network is trained from scratch for the same number of steps.
Prints, for the CT and for the cases of the MR dataset, the mean Dice (over classes) in the scored slices of both, and
the mean of the paired differences with its 95 % t-interval: over the seeds for the CT, over the cases for the dataset.
A job is a run folder under --output: those that are finished are not trained again.
"""

import argparse
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean

import numpy as np

from benchmarks.header import header
from benchmarks.jobs import quoted, train
from spleen.annotation.spread import body_span, spread_slices
from spleen.annotation.uncertainty import predict_slices, slice_entropy_mm2, uncertain_slices
from spleen.data.layouts.decathlon import read_decathlon
from spleen.imaging.native import NativeImage, read_native
from spleen.imaging.nifti import Volume, read_label
from spleen.imaging.slicing import to_slices
from spleen.records.folder import is_finished
from spleen.system.files import write_text
from spleen.types import AxisName

_COUNTS = (2, 4, 8, 16)
_SCORED_EVERY = 5
_UNKNOWN = 255
_AXIS: AxisName = "coronal"
_COMMON = ["logger=none", "report=false", "trainer.progress=false", "data=nifti", "fold=all", f"axis={_AXIS}"]
_QUICK = ["epochs=1", "loader.slices_per_epoch=16", "img_size=32"]


@dataclass(frozen=True, eq=False)
class _Case:
    """One volume, its label in full, and the settings that suit it."""

    name: str
    image_path: Path
    image: NativeImage
    label: Volume
    classes: Mapping[str, Sequence[int]]
    settings: tuple[str, ...]

    @property
    def pool(self) -> list[int]:
        """The slices that can be drawn."""
        return [index for index in range(self._n_slices) if index % _SCORED_EVERY != _SCORED_EVERY // 2]

    @property
    def scored(self) -> list[int]:
        """The slices that are never drawn."""
        return [index for index in range(self._n_slices) if index % _SCORED_EVERY == _SCORED_EVERY // 2]

    @property
    def _n_slices(self) -> int:
        return len(to_slices(self.label.array, _AXIS))


def main() -> None:
    """Run the jobs that are missing, and print one table for the CT and one for the dataset."""
    arguments = _parse_arguments()
    extra = [*_COMMON, *(_QUICK if arguments.quick else []), *arguments.overrides]
    print(header())
    if arguments.ct is not None:
        case = _case("ct", arguments.ct / "image.nii.gz", arguments.ct / "label.nii.gz", {"spleen": [1]}, ("ct", 128))
        units = [_curves(case, seed, arguments, extra) for seed in range(arguments.seeds)]
        _print_table(f"CT, {len(case.pool)} slices can be drawn; interval over {arguments.seeds} seeds", units)
    if arguments.root is not None:
        dataset = read_decathlon(arguments.root)
        assert dataset.label_values is not None
        chosen = np.random.default_rng(0).permutation(len(dataset.cases))[: arguments.cases].tolist()
        units = []
        for number in chosen:
            files = dataset.cases[number]
            classes = {name: list(values) for name, values in dataset.label_values.items()}
            case = _case(files.case_id, files.images[0], files.label, classes, ("mr", 64))
            seeds = [_curves(case, seed, arguments, extra) for seed in range(arguments.seeds)]
            units.append({key: mean(curves[key] for curves in seeds) for key in seeds[0]})
        _print_table(f"{arguments.root.name}, interval over {len(chosen)} cases, {arguments.seeds} seed(s) each", units)


def _case(name: str, image: Path, label: Path, classes: Mapping[str, Sequence[int]], setting: tuple[str, int]) -> _Case:
    settings = (f"intensity={setting[0]}", f"img_size={setting[1]}")
    native = read_native(image)
    return _Case(name, image, native, read_label(label, native.affine), classes, settings)


def _curves(
    case: _Case, seed: int, arguments: argparse.Namespace, extra: Sequence[str]
) -> dict[tuple[str, str], float]:
    """Dice by arm and number of slices; both arms share the first and the last point."""
    folder = arguments.output / ("quick" if arguments.quick else "full") / case.name / f"seed={seed}"
    extra = [*case.settings, *extra, f"seed={seed}"]
    pool = case.pool
    body = body_span(case.image.channels[0], _AXIS)
    inside = [number for number, index in enumerate(pool) if body[0] <= index <= body[1]]
    counts = [count for count in arguments.counts if count < len(pool)]

    def even(count: int, taken: Sequence[int] = ()) -> list[int]:
        return sorted({*taken, *spread_slices(count - len(taken), (inside[0], inside[-1]), taken)})

    scores: dict[tuple[str, str], float] = {}
    drawn: list[int] = []
    for place, count in enumerate(counts):
        drawn = even(count, drawn) if place == 0 or not (folder / f"suggested-{counts[place - 1]}").exists() else drawn
        drawn = _next(case, folder, counts[place - 1], drawn, count) if place else drawn
        scores["suggested", str(count)] = _score(case, drawn, folder / f"suggested-{count}", extra)
        scores["even", str(count)] = (
            _score(case, even(count), folder / f"even-{count}", extra) if place else scores["suggested", str(count)]
        )
    whole = _score(case, list(range(len(pool))), folder / "all", extra)
    return {**scores, ("even", "all"): whole, ("suggested", "all"): whole}


def _next(case: _Case, folder: Path, trained: int, drawn: Sequence[int], count: int) -> list[int]:
    """Slices of the pool to draw after those drawn, by the network that was trained on them."""
    run = folder / f"suggested-{trained}"
    if len(drawn) >= count:
        return list(drawn)
    predicted = predict_slices([run], case.image_path)
    entropy = slice_entropy_mm2(predicted.probabilities, case.image.affine, _AXIS)[case.pool]
    return sorted([*drawn, *(each.index for each in uncertain_slices(entropy, count - len(drawn), drawn))])


def _score(case: _Case, drawn: Sequence[int], run: Path, extra: Sequence[str]) -> float:
    """Dice in the scored slices after a training on the drawn ones; 0 where these do not show the organ."""
    record = run.with_name(f"{run.name}.json")
    if record.exists():
        return float(json.loads(record.read_text())["dice"])
    indices = [case.pool[number] for number in drawn]
    label = _sparse_label(case, indices, run.with_name(f"{run.name}.nii.gz"))
    if label is None:
        score = 0.0
    else:
        if not is_finished(run):
            classes = ",".join(f"{name}:{list(values)}" for name, values in case.classes.items())
            data = [
                f"data.image={quoted(case.image_path)}", f"data.label={quoted(label)}", f"data.ignore_value={_UNKNOWN}",
                f"data.label_values={{{classes}}}",
            ]  # fmt: skip
            train([*extra, *data], run)
        score = _dice(case, run)
    write_text(record, json.dumps({"dice": score, "slices": indices}) + "\n")
    return score
