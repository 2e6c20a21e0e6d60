"""The table at the end of `spleen predict`."""

from spleen.evaluation.class_names import CSV_NAME
from spleen.inference.predict import PredictionReport
from spleen.reporting.tables import Cell, Column, print_table


def print_predictions(report: PredictionReport) -> None:
    """Print one row per case and class, then the counts, the time and where everything lies."""
    columns: list[str | Column] = [
        Column("case", is_name=True),
        Column("class", is_name=True),
        Column("volume ml", ".1f"),
        Column("components", "d"),
        Column("confidence", ".2f"),
        "review",
    ]
    rows: list[list[Cell]] = [
        [
            case.case_id,
            score.class_name,
            score.volume_mm3 / 1000,
            score.n_components,
            score.confidence_score,
            score.reasons or "no",
        ]
        for case in report.cases
        for score in case.confidence
    ]
    if rows:
        print_table("", columns, rows)
    speed = report.slices / report.seconds if report.seconds else 0.0
    print(
        f"{len(report.cases)} predicted, {report.kept} kept, {len(report.failures)} failed"
        f"{f', {report.left_out} left out that no run held out' if report.left_out else ''}: "
        f"{report.slices} slices in {report.seconds:.1f} s, {speed:.1f} slices/s"
    )
    folders = dict.fromkeys(case.mask.parent for case in report.cases)
    for folder in folders:
        masks = [case.mask for case in report.cases if case.mask.parent == folder]
        what = str(masks[0]) if len(masks) == 1 else f"{len(masks)} masks in {folder}"
        print(f"  {what}, with {folder / CSV_NAME}")
