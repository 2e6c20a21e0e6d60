"""The held-out cases of a fold, predicted by one run, by several fused, and by nnU-Net, all scored in the same way.

    python -m benchmarks.held_out --root Task04_Hippocampus RUN_CORONAL RUN_SAGITTAL RUN_AXIAL [--tta] [--masks FOLDER]

All runs must hold out the same cases (`fold=…` of the same data, seed and folds; split.json says which). Each run
alone, then all of them fused with equal weights, predict those cases from their files; the masks are scored per case
on the files' own grid. `--masks` adds a folder of masks from elsewhere, such as nnU-Net's validation. Prints the mean
Dice of each class with its bootstrap interval, the worst case, and the minutes of training that summary.json records.

Where classes touch, part of the loss is in the border between them. Two more columns tell it apart: "together" is the
Dice of all classes as one organ, and "border given" the Dice of each class if every predicted voxel had the class of
the reference voxel nearest to it. No prediction can be expected to know that border as its annotator drew it.
"""

import argparse
import json
import sys
import tempfile
from pathlib import Path

import numpy as np
from jaxtyping import Bool
from scipy.ndimage import distance_transform_edt

from benchmarks.header import header
from spleen.evaluate import evaluate
from spleen.layouts.dataset import Dataset
from spleen.layouts.decathlon import read_decathlon
from spleen.predict import PredictSettings, predict
from spleen.volume import read_label


def main() -> None:
    """Print one row for each way to predict."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", type=Path, help="run folders that hold out the same fold")
    parser.add_argument("--root", type=Path, required=True, help="the data set in the Decathlon's layout")
    parser.add_argument("--tta", action="store_true", help="also with test-time augmentation")
    parser.add_argument("--masks", type=Path, nargs="*", default=[], help="folders of masks from elsewhere")
    arguments = parser.parse_args()
    dataset, held_out = read_decathlon(arguments.root), _held_out(arguments.runs)
    minutes = {run: json.loads((run / "summary.json").read_text())["wall_seconds"] / 60 for run in arguments.runs}
    assert dataset.label_values is not None
    names = list(dataset.label_values)
    print(header())
    print(f"{len(held_out)} held-out cases\n")
    scored = " | ".join(f"{name} | worst" for name in names)
    print(f"| predicted by | minutes of training | {scored} | together | {' / '.join(names)}, border given |")
    print("|---|---|" + "---|---|" * len(names) + "---|---|")
    ways = [*([run] for run in arguments.runs), *([arguments.runs] if len(arguments.runs) > 1 else [])]
    with tempfile.TemporaryDirectory() as folder:
        references = _links(Path(folder) / "references", dataset, held_out, labels=True)
        images = _links(Path(folder) / "images", dataset, held_out, labels=False)
        wanted = [(runs, tta) for runs in ways for tta in ([False, True] if arguments.tta else [False])]
        for number, (runs, tta) in enumerate(wanted):
            masks = Path(folder) / f"masks-{number}"
            report = predict(list(runs), images, masks, PredictSettings(tta=tta))
            if report.failures:
                sys.exit(f"{report.failures[0].image}: {report.failures[0].reason}")
            label = " + ".join(run.name for run in runs) + (", --tta" if tta else "")
            _print(label, f"{sum(minutes[run] for run in runs):.1f}", masks, references, dataset)
        for masks in arguments.masks:
            chosen = Path(folder) / f"elsewhere-{masks.name}"
            chosen.mkdir()
            for case_id in held_out:
                (chosen / f"{case_id}.nii.gz").symlink_to((masks / f"{case_id}.nii.gz").resolve())
            _print(str(masks), "", chosen, references, dataset)


def _held_out(runs: list[Path]) -> list[str]:
    """The test cases of the runs. Ends the program where they differ: a view could have seen what another tests."""
    splits = [json.loads((run / "split.json").read_text()) for run in runs]
    tested = [sorted(split["test"]) for split in splits]
    if any(cases != tested[0] for cases in tested):
        sys.exit("the runs do not hold out the same cases; train them with the same fold, split.seed and split.folds")
    return tested[0]


def _links(folder: Path, dataset: Dataset, case_ids: list[str], labels: bool) -> Path:
    """A folder with the image, or the label, of each case under the case's name."""
    folder.mkdir()
    for case in dataset.cases:
        if case.case_id in case_ids:
            (folder / f"{case.case_id}.nii.gz").symlink_to(case.label if labels else case.images[0])
    return folder


def _print(label: str, minutes: str, masks: Path, references: Path, dataset: Dataset) -> None:
    assert dataset.label_values is not None
    classes = {value: name for name, values in dataset.label_values.items() for value in values}
    evaluation = evaluate(masks, references, classes, surface=False)
    cells = []
    for name in dataset.label_values:
        dice = evaluation.summary(name).metrics["dice"]
        interval = f" ({dice.interval.low:.4f}–{dice.interval.high:.4f})" if dice.interval else ""
        worst = min(score.dice for score in evaluation.scores if score.class_name == name)
        cells += [f"{dice.mean:.4f}{interval}", f"{worst:.3f}"]
    together, border_given = _apart(masks, references, list(classes))
    cells += [f"{together:.4f}", " / ".join(f"{dice:.4f}" for dice in border_given)]
    print(f"| {label} | {minutes} | {' | '.join(cells)} |", flush=True)


def _apart(masks: Path, references: Path, values: list[int]) -> tuple[float, list[float]]:
    """Mean Dice of all classes as one organ, and of each class with the reference's border between them."""
    together: list[float] = []
    border_given: list[list[float]] = []
    for path in sorted(references.iterdir()):
        reference, prediction = (read_label(folder / path.name).array for folder in (references, masks))
        organ = prediction != 0
        together.append(_dice(organ, reference != 0))
        nearest = np.array(values)[np.argmin([distance_transform_edt(reference != value) for value in values], axis=0)]
        border_given.append([_dice(organ & (nearest == value), reference == value) for value in values])
    return float(np.mean(together)), [float(mean) for mean in np.mean(border_given, axis=0)]


def _dice(prediction: Bool[np.ndarray, "i j k"], reference: Bool[np.ndarray, "i j k"]) -> float:
    return float(2 * np.sum(prediction & reference) / (np.sum(prediction) + np.sum(reference)))


if __name__ == "__main__":
    main()
