"""The content of summary.json and cases.csv."""

import math
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, fields
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from platform import python_version

from spleen.data.loading.datamodule import SliceDataModule
from spleen.evaluation.metrics.per_case import CaseScore, class_means, mean_scores
from spleen.reporting.csv_text import to_csv_by_name
from spleen.system.files import write_text
from spleen.system.hardware import Hardware
from spleen.system.nested import Json
from spleen.system.resources import checkout
from spleen.training.scores import SCORED_SPLITS, ScoredSplit, counts_outside

Scores = Mapping[ScoredSplit, Sequence[CaseScore]]


_OUTSIDE = "volume_outside_box_mm3"
_PACKAGES = ("torch", "pytorch-lightning", "torchmetrics", "hydra-core", "nibabel", "numpy", "wandb", "monai")


@dataclass(frozen=True)
class Timing:
    """Time and memory of a run."""

    slices_per_second: float
    training_seconds: float
    seconds_to_first_step: float
    wall_seconds: float
    peak_memory_mb: float


Outside = Mapping[tuple[ScoredSplit, str, str], float]
"""By split, case and class: the volume of the reference in mm³ that lies beyond the box of the case."""


def outside_mm3(data: SliceDataModule, class_names: Sequence[str]) -> Outside:
    """What the boxes leave out of each case; empty without boxes."""
    return {
        (split, part.case.case_id, name): float(counts[2]) * part.case.voxel_volume_mm3
        for split in SCORED_SPLITS
        if any(part.case.box for part in data.slices(split))
        for part, of_case in zip(
            data.slices(split), counts_outside(data.slices(split), len(class_names)).tolist(), strict=True
        )
        for name, counts in zip(class_names, of_case, strict=True)
    }


def write_cases(path: Path, scores: Scores, outside: Outside | None = None) -> None:
    """Write one row per split, case and class.

    With boxes, a column has the reference's volume beyond them; if cases do not label every class, one says which they
    do.
    """
    partly = any(not score.is_labelled for cases in scores.values() for score in cases)
    columns = ["split", *(field.name for field in fields(CaseScore))]
    columns += [*([_OUTSIDE] if outside else []), *(["reference"] if partly else [])]
    rows: list[dict[str, object]] = []
    for split, cases in scores.items():
        for score in cases:
            row: dict[str, object] = {"split": split, **asdict(score)}
            if outside:
                row[_OUTSIDE] = outside.get((split, score.case_id, score.class_name), 0.0)
            if partly:
                row["reference"] = "labelled" if score.is_labelled else "not labelled"
            rows.append(row)
    write_text(path, to_csv_by_name(columns, rows))


def build_summary(
    scores: Scores, setting: dict[str, Json], timing: Timing, hardware: Hardware | None, epochs_trained: int
) -> dict[str, Json]:
    """The content of summary.json: scores by split and class, cost, versions, hardware. NaN becomes null.

    A split without cases is included, with `n_cases` 0.
    """
    summary: dict[str, Json] = {
        "status": "finished",
        **setting,
        "train": {
            "slices_per_second": timing.slices_per_second,
            "seconds": timing.training_seconds,
            "epochs": epochs_trained,
        },
        "wall_seconds": timing.wall_seconds,
        "seconds_to_first_step": timing.seconds_to_first_step,
        "peak_memory_mb": timing.peak_memory_mb,
        "versions": {"python": python_version(), **_installed(_PACKAGES)},
        "git_commit": git_commit(),
        "hardware": None if hardware is None else asdict(hardware),
    }
    for split in SCORED_SPLITS:
        cases = scores.get(split, [])
        of_class: dict[str, Json] = {name: asdict(means) for name, means in class_means(cases).items()}
        summary[split] = {**asdict(mean_scores(cases)), **of_class}
    return {key: _without_nan(value) for key, value in summary.items()}


def _installed(packages: Iterable[str]) -> dict[str, Json]:
    """Versions of the installed ones among the packages."""
    versions: dict[str, Json] = {}
    for name in packages:
        with suppress(PackageNotFoundError):
            versions[name] = version(name)
    return versions


def _without_nan(value: Json) -> Json:
    if isinstance(value, dict):
        return {key: _without_nan(inner) for key, inner in value.items()}
    if isinstance(value, float):
        return None if not math.isfinite(value) else float(f"{value:.9g}")
    return value


def git_commit() -> str | None:
    """Commit of the checkout, with "-dirty" if tracked files have changed; None outside a checkout."""
    root = checkout()
    if root is None:  # a repository that contains the environment is not ours
        return None
    try:
        command = ["git", "-C", str(root), "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
        return subprocess.run(
            command, capture_output=True, encoding="utf-8", errors="replace", check=True, timeout=10
        ).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None
