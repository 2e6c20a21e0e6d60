"""`compare`: two sets of predictions, or two tables of scores, case by case against the same reference.

from spleen import compare
comparison = compare("predictions_a", "predictions_b", "references", metrics=["dice", "hausdorff95_mm"])
comparison = compare("outputs/study/run_a", "outputs/study/run_b")   # their cases.csv
print(comparison)                                                    # the tables of `spleen compare`
comparison.summaries[0].mean_difference                              # B − A
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from spleen.errors import InputError, check_choice
from spleen.evaluation.class_names import classes_to_score
from spleen.evaluation.differences import PairedCase, PairedSummary, moved_most, pair_scores, summarise_pairs
from spleen.evaluation.evaluate import TOLERANCE_MM, check_settings
from spleen.evaluation.ignored import NOTHING_IGNORED, IgnoredValue, value_to_ignore
from spleen.evaluation.metrics.catalogue import BY_NAME, SURFACE_METRICS
from spleen.evaluation.score_tables import (
    ScoreTable,
    check_same_cases,
    check_same_names,
    find_table,
    read_table,
    rename_in_tables,
)
from spleen.evaluation.scoring import (
    FailedPair,
    FilePairs,
    Progress,
    RawSettings,
    ScoredCase,
    fill_in,
    pair_files,
    resolve_classes,
    score_pair,
    warn_if_nothing_ignored,
)
from spleen.evaluation.scoring import score_pairs as score_all
from spleen.imaging.files import case_name
from spleen.imaging.geometry import GRID_TOLERANCE_MM
from spleen.reporting.tables import preformatted

_SPLIT, _SPLITS = "test", ("val", "test")


@dataclass(frozen=True, repr=False)
class Comparison:
    """B against A, metric by metric. Its text (`print`) is what the command prints."""

    name_a: str
    name_b: str
    metrics: tuple[str, ...]
    pairs: tuple[PairedCase, ...]
    summaries: tuple[PairedSummary, ...]
    """For each metric one for each class, then, if there are several, the one of all classes together."""
    failures: tuple[FailedPair, ...]
    unpredicted: tuple[str, ...]
    """The cases that were left out because their reference has no prediction, in A or in B."""
    ignored: IgnoredValue = NOTHING_IGNORED
    """The reference voxels that were not scored; those of tables of scores are unknown."""

    def moved_most(self, metric: str, count: int = 10) -> list[PairedCase]:
        """The cases with the largest difference, whether better or worse."""
        return moved_most(self.pairs, metric, count)

    def __str__(self) -> str:
        from spleen.evaluation.comparison_text import to_text

        return to_text((self.name_a, self.name_b), self.pairs, self.summaries, self.unpredicted, self.ignored)

    def __repr__(self) -> str:
        n_cases = len({pair.case_id for pair in self.pairs})
        return f"Comparison({self.name_b} against {self.name_a}, {n_cases} case(s); {', '.join(self.metrics)})"

    def _repr_html_(self) -> str:
        return preformatted(str(self))


def compare(
    a: str | Path,
    b: str | Path,
    reference: str | Path | None = None,
    metrics: Sequence[str] = ("dice",),
    *,
    split: str | None = None,
    classes: Mapping[int, str] | Mapping[str, Sequence[int]] | None = None,
    tolerance_mm: float | Mapping[str, float] | None = None,
    grid_tolerance_mm: float | None = None,
    only_predicted: bool = False,
    ignore_value: int | None = None,
    labelled: str | Path | Mapping[str, Sequence[str]] | None = None,
    rename_classes: Mapping[str, str] | None = None,
    progress: Progress | None = None,
) -> Comparison:
    """Compare B with A over the same cases: paired differences, their interval, Wilcoxon's test, wins and losses.

    With a `reference`, a and b are predictions, files or folders, and are scored as `evaluate` does with `classes`,
    tolerances, `only_predicted`, `ignore_value` and `labelled`. Without, they are CSV files that the command wrote, or
    run folders, whose cases.csv counts with the rows of `split`, by default test. `rename_classes` maps names of
    classes to new ones, for two sides that call the same organ differently. Raises InputError for a wrong setting, one
    that belongs to the other kind of input, a file that is missing or of another kind, and cases that only one side
    has.
    """
    chosen = _checked_metrics(metrics)
    for_predictions = {
        "--classes": classes,
        "--tolerance-mm": tolerance_mm,
        "--grid-tolerance-mm": grid_tolerance_mm,
        "--only-predicted": only_predicted or None,
        "--ignore-value": ignore_value,
        "--labelled": labelled,
    }
    _check_kind(reference, split, for_predictions)
    if reference is None:
        files = find_table(Path(a)), find_table(Path(b))
        tables: tuple[ScoreTable, ScoreTable] = (
            read_table(files[0], split or _SPLIT, chosen),
            read_table(files[1], split or _SPLIT, chosen),
        )
        if rename_classes:
            tables = rename_in_tables(tables, rename_classes)
        failures: list[FailedPair] = []
        unpredicted: tuple[str, ...] = ()
        ignored = NOTHING_IGNORED
    else:
        surface = any(name in SURFACE_METRICS for name in chosen)
        counted = classes_to_score(classes, rename_classes, [Path(a), Path(b)], Path(reference))
        ignored = value_to_ignore(ignore_value, counted, classes is not None, Path(reference))
        tolerance_mm = TOLERANCE_MM if tolerance_mm is None else tolerance_mm
        grid_tolerance_mm = GRID_TOLERANCE_MM if grid_tolerance_mm is None else grid_tolerance_mm
        settings = check_settings(counted, tolerance_mm, None, surface, grid_tolerance_mm, ignored, labelled)
        sides = _pair_both((Path(a), Path(b)), Path(reference), only_predicted)
        unpredicted = sides[0].unpredicted
        tables, failures = _score_both(sides, Path(reference).is_dir(), chosen, settings, progress)
    check_same_cases((str(a), str(b)), tables)
    pairs = tuple(pair_scores(*tables, chosen))
    summaries = tuple(summarise_pairs(pairs, chosen))
    return Comparison(str(a), str(b), chosen, pairs, summaries, tuple(failures), unpredicted, ignored)


def _check_kind(reference: str | Path | None, split: str | None, for_predictions: Mapping[str, object]) -> None:
    """Raise InputError for a setting that means nothing for what is compared."""
    if reference is not None and split is not None:
        raise InputError(
            f"--split is for run folders; with a reference ({reference}), all predictions are compared; leave it out"
        )
    if split is not None:
        check_choice("--split", split, _SPLITS)
    given = [option for option, value in for_predictions.items() if value is not None]
    if reference is None and given:
        raise InputError(
            f"{', '.join(given)}: only for predictions, which need their REFERENCE; give it, or leave the option out"
        )


def _checked_metrics(metrics: Sequence[str]) -> tuple[str, ...]:
    chosen = tuple(dict.fromkeys(metrics))
    scores = [metric.name for metric in BY_NAME.values() if metric.better != "neither"]
    wrong = [name for name in chosen if name not in scores]
    if wrong or not chosen:
        raise InputError(f"a metric to compare is one of {', '.join(scores)}; got {', '.join(wrong) or 'none'}")
    return chosen


def _pair_both(predictions: tuple[Path, Path], reference: Path, only_predicted: bool) -> tuple[FilePairs, FilePairs]:
    """Pair both sides; without a score yet, so that a name that only one has is told at once."""
    for path in predictions:
        if path.suffix.lower() == ".csv":
            raise InputError(
                f"{path} holds scores, which were computed with a reference already; leave {reference} out"
            )
    a, b = (pair_files(path, reference, only_predicted) for path in predictions)
    if not reference.is_dir():
        # Two predictions of one case have names of their own, so the reference's name is the case.
        first, second = ({case_name(reference): (path, reference)} for path in predictions)
        return FilePairs(first, ()), FilePairs(second, ())
    check_same_names((str(predictions[0]), str(predictions[1])), (list(a.files), list(b.files)), "case")
    return a, b


def _score_both(
    sides: tuple[FilePairs, FilePairs],
    folders: bool,
    metrics: Sequence[str],
    settings: RawSettings,
    progress: Progress | None,
) -> tuple[tuple[ScoreTable, ScoreTable], list[FailedPair]]:
    """Score both sides; a case that fails on one of them leaves both."""
    scored: list[list[ScoredCase]] = []
    failures: list[FailedPair] = []
    for pairs in sides:
        if folders:
            cases, failed = score_all(pairs.files, settings, progress)
            failures += failed
        else:
            cases = [score_pair(case_id, *files, settings) for case_id, files in pairs.files.items()]
        scored.append(cases)
    lost = {failure.case_id for failure in failures}
    warn_if_nothing_ignored(settings, [case for cases in scored for case in cases])
    kept = [[case for case in cases if case.case_id not in lost] for cases in scored]
    resolved = resolve_classes(settings, kept[0] + kept[1])
    first, second = (
        {
            (score.case_id, score.class_name): {name: score.value(name) for name in metrics}
            for case in cases
            for score in fill_in(case, resolved).scores
        }
        for cases in kept
    )
    return (first, second), failures
