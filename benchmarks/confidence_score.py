"""Does the confidence score, computed without a reference, rank cases by their true Dice?

Run it from the repository on two folders of images and labels with the same names; anything after `--` is passed to
every training run:

    python -m benchmarks.confidence_score --images imagesTr --labels labelsTr --cases 100 -- intensity=mr img_size=64 \\
        'data.label_values={anterior: 1, posterior: 2}'

Three views (axial, coronal, sagittal) are trained on the first case only, so that good and bad predictions are both
common; the next `--cases` cases are predicted by their fusion, and by the coronal view alone with and without --tta.
The table gives Spearman's rank correlation of each indicator with the true Dice over all cases and classes, and the
mean Dice of the predictions flagged for review and of the others.
"""

import argparse
import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from statistics import mean

import torch
from scipy.stats import spearmanr

from benchmarks.header import header
from benchmarks.jobs import quoted, train
from spleen.data.pairing import pair_by_name
from spleen.evaluation.metrics.overlap import ConfusionCounts, count_confusion, dice
from spleen.imaging.labels import to_class_indices
from spleen.imaging.nifti import read_label
from spleen.imaging.slicing import AXES
from spleen.inference.confidence import ClassConfidence
from spleen.inference.loading import load_trained
from spleen.inference.predict import predict
from spleen.inference.settings import PredictSettings
from spleen.system.resources import work_folder

INDICATORS = ("soft_dice_confidence", "agreement", "largest_component_fraction", "confidence_score")


@dataclass(frozen=True)
class ScoredClass:
    """One class of one case: its confidence without the reference, and its true Dice."""

    confidence: ClassConfidence
    dice: float


def main() -> None:
    """Train, predict and compare."""
    arguments = _parse_arguments()
    folder = work_folder() / "outputs" / "benchmark_confidence_score" / f"{datetime.now():%Y-%m-%d_%H-%M-%S}"
    pairs = pair_by_name(arguments.images, arguments.labels)
    first, *others = list(pairs)[: arguments.cases + 1]
    image, label = pairs[first]
    data = ["data=nifti", f"data.image={quoted(image)}", f"data.label={quoted(label)}", "logger=none"]
    for axis in AXES:
        train([*data, f"axis={axis}", *arguments.overrides], folder / axis)
    views = [folder / axis for axis in AXES]
    coronal = [folder / "coronal"]
    print(header())
    print(f"`{' '.join(['python train.py', *arguments.overrides])}`, trained on {first}, {len(others)} further cases\n")
    print(f"| prediction | mean Dice | {' | '.join(INDICATORS)} | flagged | Dice flagged | Dice not flagged |")
    print(f"|---|---|{'---|' * len(INDICATORS)}---|---|---|")
    for name, runs, settings in (
        ("three views", views, PredictSettings()),
        ("coronal --tta", coronal, PredictSettings(tta=True)),
        ("coronal", coronal, PredictSettings()),
    ):
        images = [pairs[case][0] for case in others]
        report = predict(runs, images, folder / name.replace(" ", "_"), settings)
        assert not report.failures, report.failures
        classes = load_trained(runs[0]).classes
        scored = []
        for case in report.cases:
            expected = to_class_indices(read_label(pairs[case.case_id][1]).array, classes)
            found = to_class_indices(read_label(case.mask).array, classes)
            counts = count_confusion(torch.from_numpy(found), torch.from_numpy(expected), len(classes.names) + 1)
            scores = dice(ConfusionCounts(*counts[None].unbind(-1)))[0]
            scored += [
                ScoredClass(confidence, float(score)) for confidence, score in zip(case.confidence, scores, strict=True)
            ]
        print(f"| {name} | {_cells(scored)} |", flush=True)


def _cells(scored: Sequence[ScoredClass]) -> str:
    flagged = [each.dice for each in scored if each.confidence.review]
    unflagged = [each.dice for each in scored if not each.confidence.review]
    means = [f"{mean(dices):.4f}" if dices else "-" for dices in (flagged, unflagged)]
    correlations = [_correlation(scored, indicator) for indicator in INDICATORS]
    flagged_count = f"{len(flagged)} of {len(scored)}"
    return " | ".join([f"{mean(each.dice for each in scored):.4f}", *correlations, flagged_count, *means])


def _correlation(scored: Sequence[ScoredClass], indicator: str) -> str:
    known = [(float(getattr(each.confidence, indicator)), each.dice) for each in scored]
    known = [(value, true) for value, true in known if not math.isnan(value)]
    if len({value for value, _ in known}) < 2:
        return "-"
    return f"{spearmanr(*zip(*known, strict=True)).statistic:.2f}"


def _parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=Path, required=True, help="folder of images")
    parser.add_argument("--labels", type=Path, required=True, help="folder of their labels")
    parser.add_argument("--cases", type=int, default=100, help="number of cases to predict, after the training case")
    parser.add_argument("overrides", nargs="*", help="after --: overrides for every training run, such as img_size=64")
    return parser.parse_args()


if __name__ == "__main__":
    main()
