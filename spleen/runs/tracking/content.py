"""What a finished run leaves in wandb beside its epochs: scores, tables, slices, its page and its checkpoints."""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from spleen.data.loading.datamodule import SPLITS, SliceDataModule
from spleen.data.splits.blocks import SliceSplit
from spleen.models.spec import ModelSpec
from spleen.records.folder import RunFolder
from spleen.records.surfaces import SurfaceScore, read_surfaces
from spleen.reporting.overlays import SliceView
from spleen.runs.summary import Scores
from spleen.runs.tracking.media import TableCell
from spleen.runs.tracking.mirror import WandbRun
from spleen.runs.tracking.scores import (
    CASE_COLUMNS,
    CLASS_COLUMNS,
    SurfacesByCase,
    case_counts,
    case_rows,
    class_rows,
    mean_values,
)
from spleen.runs.tracking.slices import overlay_of, worst_slices
from spleen.system.nested import Json
from spleen.training.fit import Fitted
from spleen.training.preview import SliceScore, show

log = logging.getLogger(__name__)

_WORST_SLICES = 6


@dataclass(frozen=True)
class RunContent:
    """A finished run as far as wandb shows it."""

    files: RunFolder
    summary: Mapping[str, Json]
    """The content of summary.json."""
    scores: Scores
    test_slices: Sequence[SliceScore]
    views: Sequence[tuple[str, SliceView]]
    """Best, median and worst test slice."""
    data: SliceDataModule
    fitted: Fitted
    spec: ModelSpec


def mirror(wandb_run: WandbRun, finished: RunContent) -> None:
    """Copy a finished run to wandb. What cannot be copied is named in a warning, and the rest is copied."""
    if not wandb_run.is_open:
        return
    surfaces: dict[tuple[str, str], SurfaceScore] = {}

    def read() -> None:
        surfaces.update({(each.case_id, each.class_name): each for each in read_surfaces(finished.files.surfaces)})

    parts: dict[str, Callable[[], None]] = {
        "surface distances": read,
        "scores": lambda: _copy_scores(wandb_run, finished, surfaces),
        "costs": lambda: _copy_costs(wandb_run, finished.summary),
        "tables": lambda: _copy_tables(wandb_run, finished, surfaces),
        "slices": lambda: _copy_slices(wandb_run, finished),
        "page": lambda: wandb_run.log_page(finished.files.report),
        "checkpoints": lambda: _copy_checkpoints(wandb_run, finished),
    }
    for name, copy in parts.items():
        try:
            copy()
        except Exception as error:  # one that fails must not cost the others
            log.warning("wandb does not get the %s (%s: %s)", name, type(error).__name__, error)
            log.debug("%s", name, exc_info=True)


def _copy_scores(wandb_run: WandbRun, finished: RunContent, surfaces: SurfacesByCase) -> None:
    """Test scores with a panel each; those of the best epoch on the validation split only in the summary."""
    test, val = finished.scores.get("test", []), finished.scores.get("val", [])
    wandb_run.log_values(mean_values("test", test, surfaces))
    best: dict[str, str | int | float | None] = {
        f"best/{name}": value for name, value in mean_values("val", val).items() if not name.endswith("_ml")
    }
    if finished.fitted.best_row is not None:
        best["best/epoch"] = int(finished.fitted.best_row["epoch"]) + 1
    wandb_run.log_summary({**best, **case_counts("test", test), "status": "finished"})


def _copy_costs(wandb_run: WandbRun, summary: Mapping[str, Json]) -> None:
    training = summary["train"]
    assert isinstance(training, dict)
    costs = {
        "time/to_first_step_seconds": summary["seconds_to_first_step"],
        "time/training_seconds": training["seconds"],
        "time/total_seconds": summary["wall_seconds"],
        "time/slices_per_second": training["slices_per_second"],
        "memory/peak_mib": summary["peak_memory_mb"],
    }
    wandb_run.log_values({name: float(value) for name, value in costs.items() if isinstance(value, int | float)})
    wandb_run.log_config({name: summary[name] for name in ("versions", "git_commit", "hardware")})


def _copy_tables(wandb_run: WandbRun, finished: RunContent, surfaces: SurfacesByCase) -> None:
    of_classes: list[Sequence[TableCell]] = []
    for split, cases in finished.scores.items():
        wandb_run.log_table(f"{split}/cases", CASE_COLUMNS, case_rows(cases, surfaces if split == "test" else {}))
        of_classes += class_rows(split, cases)
    wandb_run.log_table("test/classes", CLASS_COLUMNS, of_classes)
    data = finished.data
    rows = [
        row
        for case, split in zip(data.cases, data.splits, strict=True)
        for row in _split_rows(case.case_id, case.group, split.shifted(case.first_slice))
    ]
    wandb_run.log_table("split/cases", ["case_id", "group", "split", "slices", "slice_indices"], rows)


def _split_rows(case_id: str, group: str | None, split: SliceSplit) -> list[Sequence[TableCell]]:
    """A row for each split that has slices of the case, such as ["a", None, "test", 5, "10-12, 20-21"]."""
    parts = {name: getattr(split, name) for name in (*SPLITS, "guard")}
    return [[case_id, group, name, len(slices), ranges(slices)] for name, slices in parts.items() if slices]


def ranges(indices: Sequence[int]) -> str:
    """Ascending numbers as text: 3-5, 8."""
    starts = [number for before, number in pairwise([-2, *indices]) if number != before + 1]
    ends = [number for number, after in pairwise([*indices, -2]) if after != number + 1]
    return ", ".join(f"{start}-{end}" if end > start else str(start) for start, end in zip(starts, ends, strict=True))


def _copy_slices(wandb_run: WandbRun, finished: RunContent) -> None:
    """Best, median and worst slice as images, and the worst ones in a table with their scores."""
    if not wandb_run.shows_images:
        return
    names = finished.spec.preprocessing.classes.names
    wandb_run.log_overlays([overlay_of(name, view, names) for name, view in finished.views])
    parts, spec = finished.data.slices("test"), finished.spec
    rows: list[Sequence[TableCell]] = []
    for score in worst_slices(finished.test_slices, _WORST_SLICES):
        part = parts[score.case_index]
        view = show(score, part, spec.context_slices, spec.patch_size is not None, finished.fitted.forward)
        rows.append([view.case_id, view.axis, view.slice_index, score.dice, overlay_of("worst", view, names)])
    if rows:
        wandb_run.log_table("test/worst_slices", ["case_id", "axis", "slice", "dice", "image"], rows)


def _copy_checkpoints(wandb_run: WandbRun, finished: RunContent) -> None:
    best, rows = finished.fitted.best_row, finished.fitted.rows
    content = finished.spec.to_content()
    del content["seen_images"]  # one hash for each image
    summary, val = finished.summary, finished.summary.get("val")
    dice = val.get("dice") if isinstance(val, dict) else None
    epoch = None if best is None else int(best["epoch"]) + 1
    classes = ", ".join(finished.spec.preprocessing.classes.names)
    wandb_run.log_checkpoints(
        finished.fitted.best_checkpoint,
        finished.files.last_checkpoint,
        best is not None and best is rows[-1],
        description=f"{summary['model']} for {classes}: {summary['axis']} slices, best epoch {epoch} of {len(rows)}",
        metadata={"val_dice": dice, "epoch": epoch, "epochs_trained": len(rows), "model_spec": content},
    )
