"""What `spleen evaluate` and `spleen compare` do with their arguments: compute, print, write."""

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from spleen.evaluation.compare import compare
from spleen.evaluation.evaluate import evaluate
from spleen.evaluation.report import files as evaluation_files
from spleen.evaluation.scoring import FailedPair
from spleen.reporting.outputs import check_outputs, text_writer, write_outputs
from spleen.system.progress import ProgressBar
from spleen.system.signals import stop_on_signals


def run_evaluate(
    prediction: Path,
    reference: Path,
    classes: Mapping[int, str] | None,
    new_names: Mapping[str, str],
    tolerance_mm: float | Mapping[str, float],
    prevalence: float | None,
    surface: bool,
    grid_tolerance_mm: float,
    only_predicted: bool,
    outputs: Mapping[str, Path | None],
) -> bool:
    """Evaluate, print the text, write the files of --csv, --json and --plot; True if every pair could be scored.

    The tables come before the files, so that nothing is lost where a file cannot be written. Raises InputError for a
    wrong input, and before anything is read for an output that cannot be written.
    """
    check_outputs(outputs, picture="--plot")
    with stop_on_signals() as stop, ProgressBar("case", check=stop.check) as bar:
        evaluation = evaluate(
            prediction,
            reference,
            classes,
            tolerance_mm=tolerance_mm,
            prevalence=prevalence,
            surface=surface,
            grid_tolerance_mm=grid_tolerance_mm,
            only_predicted=only_predicted,
            rename_classes=new_names,
            progress=bar.name_case,
        )
    print(evaluation, flush=True)
    _tell(evaluation.failures)
    if evaluation.scores:
        from spleen.evaluation.report.agreement import draw_agreement

        write_outputs(
            outputs,
            {
                "--csv": text_writer(lambda: evaluation_files.to_csv(evaluation)),
                "--json": text_writer(lambda: evaluation_files.to_json(evaluation)),
                "--plot": lambda path: draw_agreement(evaluation, path),
            },
        )
    return not evaluation.failures


def run_compare(
    a: Path,
    b: Path,
    reference: Path | None,
    metrics: Sequence[str],
    split: str,
    classes: Mapping[int, str] | None,
    new_names: Mapping[str, str],
    tolerance_mm: float | Mapping[str, float],
    grid_tolerance_mm: float,
    only_predicted: bool,
    outputs: Mapping[str, Path | None],
) -> bool:
    """Compare, print the text, write the files of --csv and --json; True if every pair could be scored."""
    check_outputs(outputs)
    with stop_on_signals() as stop, ProgressBar("case", check=stop.check) as bar:
        comparison = compare(
            a,
            b,
            reference,
            metrics,
            split=split,
            classes=classes,
            tolerance_mm=tolerance_mm,
            grid_tolerance_mm=grid_tolerance_mm,
            only_predicted=only_predicted,
            rename_classes=new_names,
            progress=bar.name_case,
        )
    print(comparison, flush=True)
    _tell(comparison.failures)
    write_outputs(
        outputs,
        {
            "--csv": text_writer(lambda: evaluation_files.comparison_to_csv(comparison)),
            "--json": text_writer(lambda: evaluation_files.comparison_to_json(comparison)),
        },
    )
    return not comparison.failures


def _tell(failures: Sequence[FailedPair]) -> None:
    """The cases that could not be scored, last and on the error stream."""
    if failures:
        print(f"\n{len(failures)} case(s) could not be scored:", file=sys.stderr)
    for failure in failures:
        print(f"  {failure.case_id}: {failure.reason}", file=sys.stderr)
