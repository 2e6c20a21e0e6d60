"""`evaluate`: predictions against references, per case and class, with every metric of docs/reference/metrics.md.

    from spleen import evaluate
    evaluation = evaluate("predictions", "references", classes={1: "spleen"})
    print(evaluation)                                      # the tables of `spleen evaluate`
    evaluation.scores[0].hausdorff95_mm                    # of the first case
    evaluation.summary("spleen").metrics["dice"].interval  # 95 %, of the mean

Cases are read one at a time, so that memory is bounded by the largest one: about 14 bytes per voxel.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from spleen.errors import InputError, check_choice
from spleen.evaluation.case_scores import METRIC_NAMES, ClassScore, ScoreSettings
from spleen.evaluation.class_names import classes_to_score
from spleen.evaluation.ignored import IgnoredValue, value_to_ignore
from spleen.evaluation.labelled import labelled_by_case
from spleen.evaluation.metrics.catalogue import SURFACE_METRICS
from spleen.evaluation.metrics.diagnostic import check_prevalence
from spleen.evaluation.scoring import (
    FailedPair,
    Progress,
    RawSettings,
    fill_in,
    pair_files,
    resolve_classes,
    score_pair,
    score_pairs,
    warn_if_nothing_ignored,
)
from spleen.evaluation.summary import ALL_CLASSES, ClassSummary, summarise
from spleen.imaging.geometry import GRID_TOLERANCE_MM
from spleen.reporting.tables import preformatted

TOLERANCE_MM = 1.0


@dataclass(frozen=True, repr=False)
class Evaluation:
    """The scores of all cases and classes, and their summary. Its text (`print`) is what the command prints."""

    scores: tuple[ClassScore, ...]
    summaries: tuple[ClassSummary, ...]
    """One for each class, then the one of all classes together."""
    failures: tuple[FailedPair, ...]
    unpredicted: tuple[str, ...]
    """The cases that were left out because their reference has no prediction."""
    settings: ScoreSettings

    @property
    def case_ids(self) -> list[str]:
        """The cases that were scored."""
        return list(dict.fromkeys(score.case_id for score in self.scores))

    @property
    def class_names(self) -> list[str]:
        """The classes, in order."""
        return list(self.settings.classes)

    @property
    def metrics(self) -> tuple[str, ...]:
        """The names of the metrics that were computed."""
        return metric_names(self.settings.surface)

    def summary(self, class_name: str = ALL_CLASSES) -> ClassSummary:
        """The summary of one class, or of all together. Raises InputError for a class that does not exist."""
        by_name = {summary.class_name: summary for summary in self.summaries}
        check_choice("class_name", class_name, by_name)
        return by_name[class_name]

    def __str__(self) -> str:
        from spleen.evaluation.text import to_text

        return to_text(self.scores, self.summaries, self.settings, self.unpredicted)

    def __repr__(self) -> str:
        dice = self.summary().metrics["dice"].mean
        return f"Evaluation({len(self.case_ids)} case(s), {', '.join(self.class_names)}; mean Dice {dice:.4f})"

    def _repr_html_(self) -> str:
        return preformatted(str(self))


def metric_names(surface: bool) -> tuple[str, ...]:
    """The metrics in the order of the files, with or without those of surfaces."""
    return tuple(name for name in METRIC_NAMES if surface or name not in SURFACE_METRICS)


def evaluate(
    prediction: str | Path,
    reference: str | Path,
    classes: Mapping[int, str] | Mapping[str, Sequence[int]] | None = None,
    *,
    tolerance_mm: float | Mapping[str, float] = TOLERANCE_MM,
    prevalence: float | None = None,
    surface: bool = True,
    grid_tolerance_mm: float = GRID_TOLERANCE_MM,
    only_predicted: bool = False,
    ignore_value: int | None = None,
    labelled: str | Path | Mapping[str, Sequence[str]] | None = None,
    rename_classes: Mapping[str, str] | None = None,
    progress: Progress | None = None,
) -> Evaluation:
    """Score one prediction against one reference, or two folders paired by file name.

    `classes` names the label values that count; values of the same name are one class, and classes given as values of
    names, {"whole": [1, 2], "core": [2]}, may overlap. By default they are those that
    predictions.csv beside the predictions tells, as `spleen predict` writes it, else those that the dataset.json in or
    beside the folder of the reference names; without either, every value other than 0 in any of the files is a class.
    `rename_classes` maps names of classes to new ones; classes of the same new name become one.
    `tolerance_mm` is that of the surface Dice, one for all classes or one each. `prevalence` is the prior probability
    for the post-test probabilities, by default each case's own share of organ voxels. `surface=False` saves the time of
    the surface metrics. Voxels of both files may lie up to `grid_tolerance_mm` apart; their orientation may differ.
    Voxels whose reference has `ignore_value` are not scored, and no surface is taken where a mask borders on them; by
    default it is the ignore label of an nnU-Net dataset.json in or beside the folder of the reference.
    `labelled` names the classes that each reference labels, if not all do: a CSV file with the column labelled (spleen;
    liver), as of data=table, or a mapping by case. The other classes are not scored there.
    With `only_predicted`, references without a prediction are left out and named in `unpredicted`, as where the masks
    are those of one fold.

    Raises InputError for a wrong setting, for files without a partner, and for a single pair that cannot be scored.
    In a folder, such a pair becomes one of the `failures`.
    """
    counted = classes_to_score(classes, rename_classes, [Path(prediction)], Path(reference))
    ignored = value_to_ignore(ignore_value, counted, classes is not None, Path(reference))
    settings = check_settings(counted, tolerance_mm, prevalence, surface, grid_tolerance_mm, ignored, labelled)
    pairs = pair_files(Path(prediction), Path(reference), only_predicted)
    if Path(prediction).is_dir():
        cases, failures = score_pairs(pairs.files, settings, progress)
    else:
        cases, failures = [score_pair(case_id, *files, settings) for case_id, files in pairs.files.items()], []
    warn_if_nothing_ignored(settings, cases)
    resolved = resolve_classes(settings, cases)
    scores = tuple(score for case in cases for score in fill_in(case, resolved).scores)
    return Evaluation(scores, summarise(scores, metric_names(surface)), tuple(failures), pairs.unpredicted, resolved)


def check_settings(
    classes: Mapping[str, tuple[int, ...]] | None,
    tolerance_mm: float | Mapping[str, float],
    prevalence: float | None,
    surface: bool,
    grid_tolerance_mm: float,
    ignored: IgnoredValue,
    labelled: str | Path | Mapping[str, Sequence[str]] | None = None,
) -> RawSettings:
    """Check what does not need a file; raises InputError."""
    by_name = dict(classes or {})
    for name, values in by_name.items():
        if not values or 0 in values or not name or name == ALL_CLASSES:
            shown = values[0] if values else "(no value)"
            raise InputError(f"a class needs a label value other than 0 and a name; got {shown}={name or '(nothing)'}")
    if isinstance(tolerance_mm, Mapping) and set(tolerance_mm) != set(by_name):
        raise InputError(
            f"tolerances for {_list(tolerance_mm)} do not match the classes {_list(by_name)}: name every class once "
            "in both, or give a single tolerance for all"
        )
    for length in tolerance_mm.values() if isinstance(tolerance_mm, Mapping) else (tolerance_mm,):
        if not 0 <= length < math.inf:
            raise InputError(f"the tolerance of the surface Dice must be 0 mm or more, and finite; got {length:g}")
    if not 0 <= grid_tolerance_mm < math.inf:
        raise InputError(f"the grid tolerance must be 0 mm or more, and finite; got {grid_tolerance_mm:g}")
    if prevalence is not None:
        check_prevalence(prevalence)
    if labelled is not None and not by_name:
        raise InputError("which classes are labelled needs their names, such as --classes 1=spleen,2=liver")
    by_case = None if labelled is None else labelled_by_case(labelled, by_name)
    return RawSettings(by_name or None, tolerance_mm, prevalence, surface, grid_tolerance_mm, ignored, by_case)


def _list(names: Mapping[str, object]) -> str:
    return ", ".join(names) or "(none named)"
