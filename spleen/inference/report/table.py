"""The table at the end of `spleen predict`."""

import math

from spleen.evaluation.class_names import CSV_NAME
from spleen.inference.confidence import ClassConfidence
from spleen.inference.predict import PredictionReport
from spleen.inference.report.estimates import dice_text, has_intervals, row_of, volume_text
from spleen.reporting.tables import Cell, Column, print_table

# A terminal has 24 lines.
_MOST_ROWS, _WORST, _MOST_FOLDERS = 15, 10, 5


def _worst_first(score: tuple[str, ClassConfidence]) -> float:
    confidence = score[1].confidence_score
    return -1.0 if math.isnan(confidence) else confidence


def print_predictions(report: PredictionReport) -> None:
    """Print one row per case and class, then the counts, the time and where everything lies.

    Of many, only those with the lowest confidence are shown: one screen, whatever the number of cases.
    """
    columns: list[str | Column] = [
        Column("case", is_name=True),
        Column("class", is_name=True),
        Column("volume ml", ".1f"),
        Column("components", "d"),
        Column("confidence", ".2f"),
        "review",
    ]
    is_calibrated = any(has_intervals(row_of(score)) for case in report.cases for score in case.confidence)
    if is_calibrated:
        columns[2:3] = [Column("volume ml (95 %)", is_name=True), Column("Dice (95 %)", is_name=True)]
    scores = [(case.case_id, score) for case in report.cases for score in case.confidence]
    shown = scores if len(scores) <= _MOST_ROWS else sorted(scores, key=_worst_first)[:_WORST]
    rows: list[list[Cell]] = [
        [
            case_id,
            score.class_name,
            *([volume_text(row_of(score)), dice_text(row_of(score))] if is_calibrated else [score.volume_mm3 / 1000]),
            score.n_components,
            score.confidence_score,
            score.reasons or "no",
        ]
        for case_id, score in shown
    ]
    if rows:
        print_table("", columns, rows)
    if len(shown) < len(scores):
        to_review = sum(score.review for _, score in scores)
        print(
            f"{len(scores)} masks, of which the {len(shown)} with the lowest confidence are shown; {to_review} of all "
            f"need a review, see {CSV_NAME}"
        )
    if rows and report.uncalibrated:
        print(report.uncalibrated)
    speed = report.slices / report.seconds if report.seconds else 0.0
    print(
        f"{len(report.cases)} predicted, {report.kept} kept, {len(report.failures)} failed"
        f"{f', {report.left_out} left out that no run held out' if report.left_out else ''}: "
        f"{report.slices} slices in {report.seconds:.1f} s, {speed:.1f} slices/s"
    )
    folders = dict.fromkeys(case.mask.parent for case in report.cases)
    for folder in list(folders)[:_MOST_FOLDERS]:
        masks = [case.mask for case in report.cases if case.mask.parent == folder]
        what = str(masks[0]) if len(masks) == 1 else f"{len(masks)} masks in {folder}"
        print(f"  {what}, with {folder / CSV_NAME}")
