"""One training run: prepare, fit, score, and record."""

import logging
from dataclasses import asdict, dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING

from omegaconf import OmegaConf

from spleen.config.cascade import Coarse, check_coarse_held_out, keep_coarse, open_coarse, record_of, with_roi
from spleen.config.datasets import check_files_exist, complete, find_dataset
from spleen.config.factory import Parts, build_fit_settings, build_module, build_parts, check_slice_size, complete_spec
from spleen.config.identity import known_identity
from spleen.config.patches import complete_patches
from spleen.config.schema import TrainConfig
from spleen.config.warm_start import begin_warm, check_held_out, with_seen
from spleen.data.cases import Case
from spleen.data.loading.datamodule import SPLITS, SliceDataModule
from spleen.errors import Interrupted, Pruned
from spleen.evaluation.metrics.per_case import mean_scores
from spleen.records.folder import RunFolder, is_finished
from spleen.records.progress import ProgressFile
from spleen.records.roi import write_roi
from spleen.records.warm_start import WarmStartRecord, write_warm_start
from spleen.records.writing import write_summary
from spleen.runs.data import open_data, record_split
from spleen.runs.launch_environment import check_launched
from spleen.runs.naming import point_latest
from spleen.runs.processes import Order, worker_processes
from spleen.runs.report.page import write_page
from spleen.runs.report.run import print_scores
from spleen.runs.report.write import never_fatal, summarise_run, title_of, write_scores_and_figures
from spleen.runs.resume import (
    Unfinished,
    check_same_data,
    check_same_settings,
    clear_record,
    describe_kept_progress,
    disk_errors_explained,
    find_unfinished,
    with_first_hardware,
)
from spleen.runs.tracking.content import RunContent, mirror
from spleen.runs.tracking.mirror import WandbRun, start_wandb_run
from spleen.runs.tracking.run_config import wandb_config
from spleen.runs.tracking.settings import WandbSettings, build_wandb_settings
from spleen.runs.worker import work_for
from spleen.system.files import as_utf8, write_text
from spleen.system.hardware import limit_threads
from spleen.system.locks import folder_lock
from spleen.system.nested import map_texts
from spleen.system.process import usable_cores
from spleen.system.signals import StopRequest, stop_on_signals
from spleen.training.callbacks import EpochRow
from spleen.training.checkpoints import SELECTING_SCORE
from spleen.training.fit import Attempt, FitSettings, fit

if TYPE_CHECKING:
    from spleen.runs.sweeps.search import TrialReporter

log = logging.getLogger(__name__)

# Time limit for wandb's upload after an interruption: a scheduler kills soon after its SIGTERM.
_INTERRUPTED_UPLOAD_SECONDS = 10.0
_WANDB_NAMES = {"lr": "train/lr"}  # what comes before the slash is the name of a section of panels


@dataclass(frozen=True)
class _Job:
    """One run, with everything built that does not need the images."""

    config: TrainConfig
    cases: tuple[Case, ...]
    known_values: frozenset[int] | None
    """Label values that the dataset defines."""
    fit: FitSettings
    parts: Parts
    wandb: WandbSettings
    run_folder: Path
    started: float

    @cached_property
    def identity(self) -> str | None:
        return known_identity(self.config, self.cases)

    @property
    def is_finished(self) -> bool:
        return self.identity is not None and is_finished(self.run_folder, self.identity)


def run(config: TrainConfig, run_folder: Path, started: float) -> None:
    """Train, score and record one run in `run_folder`, or resume it.

    An unfinished run with at least one saved epoch is resumed, with the same result as an uninterrupted run; otherwise
    the run starts from scratch. Unset classes, channels and intensity are taken from the data's own files. `started` is
    the start of the job in seconds since the epoch.
    Raises InputError for invalid data or settings, unavailable hardware and a full disk, and Interrupted, with the
    saved progress, after SIGINT or SIGTERM.
    """
    limit_threads(usable_cores())
    dataset = find_dataset(config)
    check_files_exist(config, dataset.cases)
    config = complete_patches(complete(config, dataset), dataset.cases)
    settings = build_fit_settings(config)
    parts, wandb = build_parts(config), build_wandb_settings(config, run_folder)
    job = _Job(config, dataset.cases, dataset.known_values, settings, parts, wandb, run_folder, started)
    given = check_launched(config.trainer)
    if given is not None and given.process_rank.global_rank > 0:
        if not job.is_finished:
            with stop_on_signals() as stop:
                work_for(given, stop)
        return
    with disk_errors_explained(run_folder), folder_lock(run_folder), stop_on_signals() as stop:
        if job.is_finished:
            log.info("already finished: %s", run_folder)
            return
        try:
            with ProgressFile(RunFolder(run_folder).progress) as progress:
                _run(job, stop, progress)
        except Interrupted as interrupt:
            raise Interrupted(f"{interrupt}; {describe_kept_progress(run_folder)}", interrupt.exit_code) from None


def _run(job: _Job, stop: StopRequest, progress: ProgressFile) -> None:
    config, run_folder = job.config, job.run_folder
    unfinished, identity = find_unfinished(run_folder), job.identity
    if unfinished is not None:
        check_same_settings(unfinished, asdict(config))
        identity = known_identity(with_first_hardware(config, run_folder), job.cases)
    start = begin_warm(
        config, job.parts, run_folder, resumed=unfinished is not None
    )  # refused before anything is written
    coarse = open_coarse(config, run_folder, resumed=unfinished is not None)
    _open_folder(config, run_folder, unfinished, start, coarse)
    progress.begin("preparing")
    verify = unfinished is not None
    opened = open_data(config, job.cases, job.parts.spec.preprocessing, job.known_values, verify, coarse)
    data = opened.slices
    for size in {case.grid.padded for case in data.cases}:
        check_slice_size(config, job.parts, size, sum(len(part.indices) for part in data.slices("train")))
    record_split(run_folder, opened, config)
    spec = with_roi(
        with_seen(complete_spec(job.parts.spec, data.cases_in("train"), data.cases_in("val")), start), coarse
    )
    if unfinished is not None:
        check_same_data(unfinished, spec)
    else:
        _check_sources(config, data, start, coarse)
        if coarse is not None:
            write_roi(run_folder, record_of(coarse, data.cases))
    module = build_module(config, job.parts, data, start.carried_over if start else ())
    checkpoint = unfinished.checkpoint if unfinished else None
    part = Attempt(run_folder, job.started, checkpoint, stop, progress=progress)
    epochs_kept = unfinished.epochs if unfinished else 0
    wandb_run = start_wandb_run(job.wandb, run_folder, wandb_config(config, data), epochs_kept)
    reporter = _trial_reporter(config, run_folder)
    try:
        with worker_processes(Order(config, run_folder, part.checkpoint), job.fit.accelerator, stop):
            log_epoch = partial(_log_epoch, config, run_folder, wandb_run, reporter)
            fitted = fit(module, data, job.fit, part, spec, asdict(config), log_epoch)
        stop.position = "while the report was written"
        progress.begin("reporting", seconds_left=0.0)
        views = write_scores_and_figures(config, run_folder, job.parts.spec, fitted, module, data)
        summary = {**summarise_run(config, job.fit.precision, fitted, module), "identity": identity}
        write_summary(run_folder, summary)
        if config.report:
            with never_fatal("report.html could not be written"):
                write_page(run_folder)
        if reporter is not None:
            reporter.complete(mean_scores(module.scores["val"]).dice)
        print_scores(title_of(config), module.scores)
        with never_fatal("the run could not be copied to wandb"):
            files = RunFolder(run_folder)
            finished = RunContent(files, summary, module.scores, module.test_slices, views, data, fitted, spec)
            mirror(wandb_run, finished)
    except Pruned as pruned:
        wandb_run.log_summary({"status": "pruned"})
        wandb_run.finish()
        write_summary(run_folder, {"status": "pruned", "reason": str(pruned)})
        print(pruned)
        return
    except Interrupted as interrupt:
        wandb_run.finish(interrupt.exit_code, timeout_seconds=_INTERRUPTED_UPLOAD_SECONDS)
        raise
    except BaseException:
        wandb_run.finish(exit_code=1)
        raise
    wandb_run.finish()
    _print_location(wandb_run, run_folder)


def _open_folder(
    config: TrainConfig,
    run_folder: Path,
    unfinished: Unfinished | None,
    start: WarmStartRecord | None,
    coarse: Coarse | None,
) -> None:
    """Say that the unfinished run in the folder is resumed; without one, prepare the folder for a new run."""
    files = RunFolder(run_folder)
    if unfinished is not None:
        of = "" if config.max_minutes is not None else f" of {config.epochs}"
        log.info("resuming %s: %d%s epochs are saved", run_folder, unfinished.epochs, of)
        return
    if files.config.exists():
        log.info("starting from scratch in %s: it contains no unfinished run with a saved epoch", run_folder)
    clear_record(run_folder)
    # YAML would escape the bytes of a name in another locale's encoding, and could not read them again.
    write_text(files.config, OmegaConf.to_yaml(OmegaConf.create(map_texts(asdict(config), as_utf8))))
    if start is not None:
        write_warm_start(run_folder, start)
    if coarse is not None:
        keep_coarse(coarse, run_folder)


def _check_sources(
    config: TrainConfig, data: SliceDataModule, start: WarmStartRecord | None, coarse: Coarse | None
) -> None:
    """Raise InputError if a run that this one builds upon has seen its test images."""
    train, val, test = (data.cases_in(split) for split in SPLITS)
    if start is not None and config.init_from is not None:  # weights of a file may know no medical image
        check_held_out("init_from", start.source, start.seen_images, val, test, config.allow_seen_test)
    if coarse is not None:
        check_coarse_held_out(coarse, train, val, test, config.allow_seen_test)


def _trial_reporter(config: TrainConfig, run_folder: Path) -> "TrialReporter | None":
    """Reports this run to its search, if it is a trial of one."""
    if config.search is None:
        return None
    from spleen.runs.sweeps.search import TrialReporter

    return TrialReporter(Path(config.search["storage"]), config.search["name"], config.search["trial"], run_folder)


def _log_epoch(
    config: TrainConfig, run_folder: Path, wandb_run: WandbRun, reporter: "TrialReporter | None", row: EpochRow
) -> None:
    """Log a saved epoch; raises Pruned if the run is a trial that should not continue."""
    if row["epoch"] == 0:  # now the run has a checkpoint
        with never_fatal("outputs/latest does not point to this run"):
            point_latest(Path(config.output_dir), run_folder)
    metrics = {_WANDB_NAMES.get(name, name): value for name, value in row.items() if name not in ("epoch", "step")}
    wandb_run.log_epoch(metrics, int(row["epoch"]))
    if reporter is not None and SELECTING_SCORE in row:
        reporter.report(int(row["epoch"]), row[SELECTING_SCORE])


def _print_location(wandb_run: WandbRun, run_folder: Path) -> None:
    print(f"\nResults are in {run_folder}")
    for line in wandb_run.view_instructions():
        print(f"  {line}")
