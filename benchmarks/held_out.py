"""Held-out cases of folds, predicted by single runs, by several fused runs and by nnU-Net, all scored the same way.

    python -m benchmarks.held_out --root Task04_Hippocampus RUN_CORONAL RUN_SAGITTAL RUN_AXIAL [--tta] [--masks FOLDER]
    python -m benchmarks.held_out --root Task04_Hippocampus STUDY/*fold=* --tta --fused-only

First each run alone, then all of them fused with equal weights, predict the held-out cases listed in split.json; each
case is predicted only by the runs that held it out. The masks are scored per case on the native grid. `--masks` adds a
folder of masks from elsewhere, such as nnU-Net's validation. Prints the mean Dice of each class with its bootstrap
interval, the worst case, and the minutes of training recorded in summary.json, which are without the first step,
validation and scoring.

A second table breaks down the remaining error, since a prediction can agree with one annotator only as well as another
annotator does. "together" is the Dice of all classes merged into one organ; "moved" is the same if each mask may be
shifted by up to one voxel along each axis, with the cases that gain more than 0.03 this way, because their labels are
displaced from their images; "border given" is the Dice of each class if every predicted voxel had the class of the
nearest reference voxel.
"""

import argparse
import json
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import numpy as np
from jaxtyping import Bool
from scipy.ndimage import distance_transform_edt

from benchmarks.header import header
from spleen.data.layouts.dataset import Dataset
from spleen.data.layouts.decathlon import read_decathlon
from spleen.data.pairing import match_by_name
from spleen.evaluation.evaluate import evaluate
from spleen.imaging.nifti import read_label
from spleen.inference.predict import predict
from spleen.inference.settings import PredictSettings
from spleen.types import LabelVolume

Mask = Bool[np.ndarray, "i j k"]
# Gain in Dice above which a label counts as displaced from its image.
_DISPLACED = 0.03


def main() -> None:
    """Print one row per prediction method."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", type=Path, help="run folders of one or several folds")
    parser.add_argument("--root", type=Path, required=True, help="dataset in the Decathlon layout")
    parser.add_argument("--tta", action="store_true", help="also with test-time augmentation")
    parser.add_argument("--fused-only", action="store_true", help="leave out the rows of single runs")
    parser.add_argument("--masks", type=Path, nargs="*", default=[], help="folders of masks from elsewhere")
    arguments = parser.parse_args()
    dataset = read_decathlon(arguments.root)
    minutes = {run: json.loads((run / "summary.json").read_text())["train"]["seconds"] / 60 for run in arguments.runs}
    assert dataset.label_values is not None
    names = list(dataset.label_values)
    print(header())
    print("\n| predicted by | cases | minutes of training | " + " | ".join(f"{name} | worst" for name in names) + " |")
    print("|---|---|---|" + "---|---|" * len(names))
    breakdowns = []
    single, fused = [[run] for run in arguments.runs], [arguments.runs] if len(arguments.runs) > 1 else []
    methods = [*([] if arguments.fused_only else single), *fused]
    images, held_out = [case.images[0] for case in dataset.cases], _held_out(arguments.runs)
    with tempfile.TemporaryDirectory() as folder:
        wanted = [(runs, tta) for runs in methods for tta in ([False, True] if arguments.tta else [False])]
        for number, (runs, tta) in enumerate(wanted):
            masks = Path(folder) / f"masks-{number}"
            report = predict(list(runs), images, masks, PredictSettings(tta=tta, held_out=True))
            if report.failures:
                sys.exit(f"{report.failures[0].image}: {report.failures[0].reason}")
            label = " + ".join(run.name for run in runs) + (", --tta" if tta else "")
            total = f"{sum(minutes[run] for run in runs):.1f}"
            breakdowns.append(_print(label, total, masks, dataset))
        for number, masks in enumerate(arguments.masks):
            chosen = Path(folder) / f"elsewhere-{number}"
            chosen.mkdir()
            for case_id in held_out:
                (chosen / f"{case_id}.nii.gz").symlink_to((masks / f"{case_id}.nii.gz").resolve())
            breakdowns.append(_print(str(masks), "", chosen, dataset))
    print(f"\n| predicted by | together | moved (cases) | {' / '.join(names)}, border given |\n|---|---|---|---|")
    print("\n".join(breakdowns))


def _held_out(runs: list[Path]) -> set[str]:
    """The cases that any of the runs held out."""
    return {case_id for run in runs for case_id in json.loads((run / "split.json").read_text())["test"]}


def _print(label: str, minutes: str, masks: Path, dataset: Dataset) -> str:
    """Print the row of the first table; returns that of the second."""
    assert dataset.label_values is not None
    classes = {value: name for name, values in dataset.label_values.items() for value in values}
    labels = dataset.cases[0].label.parent
    evaluation = evaluate(masks, labels, classes, surface=False, only_predicted=True)
    cells = []
    for name in dataset.label_values:
        dice = evaluation.summary(name).metrics["dice"]
        interval = f" ({dice.interval.low:.4f}–{dice.interval.high:.4f})" if dice.interval else ""
        worst = min(score.dice for score in evaluation.scores if score.class_name == name)
        cells += [f"{dice.mean:.4f}{interval}", f"{worst:.3f}"]
    print(f"| {label} | {len(evaluation.case_ids)} | {minutes} | {' | '.join(cells)} |", flush=True)
    return f"| {label} | {_breakdown_cells(masks, labels, list(classes))} |"


def _breakdown_cells(masks: Path, labels: Path, values: Sequence[int]) -> str:
    """The cells of the second table: means over the cases."""
    breakdowns: dict[str, Breakdown] = {}
    for case_id, (mask, label) in match_by_name(masks, labels).paired.items():
        breakdowns[case_id] = _break_down(read_label(mask).array, read_label(label).array, values)
    together, moved = (
        np.mean([getattr(breakdown, name) for breakdown in breakdowns.values()]) for name in ("together", "moved")
    )
    border_given = np.mean([breakdown.border_given for breakdown in breakdowns.values()], axis=0)
    displaced = [
        f"{case_id.split('_')[-1]} {breakdown.together:.2f} → {breakdown.moved:.2f}"
        for case_id, breakdown in breakdowns.items()
        if breakdown.moved - breakdown.together > _DISPLACED
    ]
    classes = " / ".join(f"{dice:.4f}" for dice in border_given)
    return f"{together:.4f} | {moved:.4f} ({', '.join(displaced) or 'none'}) | {classes}"


@dataclass(frozen=True)
class Breakdown:
    """Dice of one case: of the merged organ, of the shifted organ, and of each class with the border given."""

    together: float
    moved: float
    border_given: tuple[float, ...]


def _break_down(prediction: LabelVolume, reference: LabelVolume, values: Sequence[int]) -> Breakdown:
    organ, expected = prediction != 0, reference != 0
    nearest = np.array(values)[np.argmin([distance_transform_edt(reference != value) for value in values], axis=0)]
    return Breakdown(
        together=_dice(organ, expected),
        moved=max(_dice(_shifted(organ, shift), expected) for shift in product((-1, 0, 1), repeat=3)),
        border_given=tuple(_dice(organ & (nearest == value), reference == value) for value in values),
    )


def _shifted(mask: Mask, shift: tuple[int, ...]) -> Mask:
    padded = np.pad(mask, 1)
    return np.roll(padded, shift, axis=(0, 1, 2))[1:-1, 1:-1, 1:-1]


def _dice(prediction: Mask, reference: Mask) -> float:
    return float(2 * np.sum(prediction & reference) / (np.sum(prediction) + np.sum(reference)))


if __name__ == "__main__":
    main()
