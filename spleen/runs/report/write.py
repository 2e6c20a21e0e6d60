"""What a finished training leaves in its run folder: scores, figures and the summary."""

import logging
import resource
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from spleen.config.schema import TrainConfig
from spleen.data.loading.datamodule import SliceDataModule
from spleen.models.spec import ModelSpec
from spleen.records.folder import RunFolder
from spleen.records.surfaces import write_surfaces
from spleen.reporting.overlays import SliceView
from spleen.runs.report.data_record import record_data, record_slices
from spleen.runs.report.run import RunTitle, draw
from spleen.runs.summary import Timing, build_summary, outside_mm3, write_cases
from spleen.system.hardware import LightningPrecision, describe_hardware
from spleen.system.nested import Json
from spleen.training.fit import Fitted
from spleen.training.module import SegmentationModule
from spleen.training.preview import choose, show

log = logging.getLogger(__name__)


def write_scores_and_figures(
    config: TrainConfig,
    run_folder: Path,
    spec: ModelSpec,
    fitted: Fitted,
    module: SegmentationModule,
    data: SliceDataModule,
) -> list[tuple[str, SliceView]]:
    """Write the tables of scores, data.json and the figures; returns the slices that are shown."""
    files, names = RunFolder(run_folder), spec.preprocessing.classes.names
    write_cases(files.cases, module.scores, outside_mm3(data, names))
    with never_fatal("surface.csv, slices.csv and data.json could not be written"):
        write_surfaces(files.surfaces, module.test_surfaces.scores)
        record_slices(run_folder, data, module.slice_counts, names)
        record_data(run_folder, data, spec.preprocessing.intensity)
    views: list[tuple[str, SliceView]] = []
    with never_fatal("the figures could not be drawn"):
        parts, is_3d = data.slices("test"), spec.patch_size is not None
        for name, score in choose(module.test_slices):
            part = parts[score.case_index]
            views.append((name, show(score, part, config.context_slices, is_3d, fitted.forward)))
    with never_fatal("the figures could not be drawn"):
        draw(files.figures, title_of(config), fitted.rows, views, names, module.scores)
    return views


@contextmanager
def never_fatal(what: str) -> Iterator[None]:
    """Turn any failure into a warning: figures and mirrors must not lose a finished training."""
    try:
        yield
    except Exception as error:
        log.warning("%s (%s: %s); the scores are kept", what, type(error).__name__, error)
        log.debug("%s", what, exc_info=True)


def title_of(config: TrainConfig) -> RunTitle:
    """The settings by which tables and figures identify the run."""
    return RunTitle(config.model.name, config.axis, config.img_size, config.lr)


def summarise_run(
    config: TrainConfig, precision: LightningPrecision, fitted: Fitted, module: SegmentationModule
) -> dict[str, Json]:
    """The content of summary.json, but for the identity of the job."""
    clock = fitted.clock
    timing = Timing(
        clock.slices_per_second,
        clock.training_seconds,
        clock.seconds_to_first_step,
        clock.wall_seconds,
        _peak_memory_mb(),
    )
    setting: dict[str, Json] = {
        "model": config.model.name,
        "axis": config.axis,
        "img_size": config.img_size,
        "lr": config.lr,
        "seed": config.seed,
        "precision": precision,
        "resumed": clock.resumed,
    }
    hardware = None
    with never_fatal("the hardware could not be described"):
        hardware = describe_hardware()
    return build_summary(module.scores, setting, timing, hardware, len(fitted.rows))


def _peak_memory_mb() -> float:
    """Peak memory of the process so far, or of the GPU if one was used, MiB."""
    if torch.cuda.is_available() and torch.cuda.max_memory_allocated():
        return torch.cuda.max_memory_allocated() / 2**20
    unit = 1 if sys.platform == "darwin" else 1024  # bytes on macOS, KiB elsewhere
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**20
