"""The report of a finished run: figures, and the table of scores."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from spleen.config.schema import size_text
from spleen.evaluation.metrics.per_case import CaseScore, MeanScores, class_means, mean_scores
from spleen.reporting.overlays import SliceView, draw_overlays
from spleen.reporting.tables import Column, print_table, scientific
from spleen.runs.report.cases import draw_cases
from spleen.runs.report.curves import draw_curves
from spleen.runs.summary import Scores
from spleen.training.callbacks import EpochRow


@dataclass(frozen=True)
class RunTitle:
    """The settings by which a table identifies a run."""

    model: str
    axis: str
    img_size: int | str
    """Pixels, or "native"."""
    lr: float


def draw(
    figures: Path,
    title: RunTitle,
    rows: list[EpochRow],
    views: list[tuple[str, SliceView]],
    names: tuple[str, ...],
    scores: Scores,
) -> None:
    """Draw the training curves, the Dice of each of several cases, and the chosen slices into the folder `figures`."""
    figures.mkdir(parents=True, exist_ok=True)
    heading = f"{title.model}, {title.axis}, {size_text(title.img_size)}, lr {scientific(title.lr)}"
    draw_curves(rows, figures / "curves.png", heading)
    draw_cases(scores, figures / "cases.png", heading)
    if views:
        draw_overlays(views, figures / "overlays.png", names)


def print_scores(title: RunTitle, scores: Scores) -> None:
    """Print one row per split and class: model, axis, image size, learning rate and scores."""
    if not scores:
        print("No case was held out, so there is no score.")
        return
    columns: list[str | Column] = [
        "split",
        "class",
        "model",
        "axis",
        "size",
        Column("lr", scientific),
        "Dice",
        "Jaccard",
        "sens.",
        "spec.",
        "prec.",
        Column("cases", "d"),
    ]
    rows = [
        [split, name, title.model, title.axis, str(title.img_size), title.lr, *_shown(means)]
        for split, cases in scores.items()
        for name, means in _table_means(cases).items()
    ]
    print_table("Scores per case on the native grid (best checkpoint)", columns, rows)


def _table_means(cases: Sequence[CaseScore]) -> dict[str, MeanScores]:
    """Means of each class, and of all classes together if there are several."""
    means = class_means(cases)
    return means if len(means) == 1 else {**means, "mean": mean_scores(cases)}


def _shown(means: MeanScores) -> list[float | int]:
    return [means.dice, means.jaccard, means.sensitivity, means.specificity, means.precision, means.n_cases]
