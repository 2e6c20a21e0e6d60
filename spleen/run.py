"""One training run from its configuration to its record: prepare, fit, score, write, tell."""

import logging
import resource
import sys
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import pytorch_lightning as pl
import torch
from omegaconf import OmegaConf

from spleen import build, build_model, record
from spleen.atomic import write_text
from spleen.callbacks import EpochRow
from spleen.checkpointing import SELECTING_SCORE
from spleen.claim import claimed
from spleen.config import TrainConfig
from spleen.crop import CropSettings
from spleen.datamodule import SliceDataModule
from spleen.distributed import Order, with_workers
from spleen.errors import InputError, Pruned
from spleen.fit import FitSettings, Fitted, Part, fit
from spleen.gallery import choose, show
from spleen.hardware import choose_accelerator, choose_precision, describe_hardware
from spleen.identity import known_identity
from spleen.launched import Launched, check_launched, process_count
from spleen.loggers import WandbRun, start_wandb_run
from spleen.metrics.per_case import mean_scores
from spleen.models.factory import build_network
from spleen.models.spec import ModelSpec
from spleen.module import SCORED_STAGES, SegmentationModule, StageScores
from spleen.open_data import open_data, record_split
from spleen.records.folder import RunFolder, is_finished
from spleen.records.writing import write_summary
from spleen.report.run_report import RunTitle, draw, mirror, print_scores
from spleen.resume import (
    Unfinished,
    check_same_data,
    check_same_settings,
    clear_record,
    disk_trouble_told,
    find_unfinished,
    what_is_kept,
)
from spleen.signals import Interrupted, StopRequest, stop_on_signals
from spleen.system.nested import Json

if TYPE_CHECKING:
    from spleen.search import TrialReporter

log = logging.getLogger(__name__)

# How long an interrupted run waits for wandb's upload: a scheduler kills soon after its SIGTERM.
_INTERRUPT_PATIENCE_SECONDS = 10.0


def run(config: TrainConfig, run_folder: Path, started: float) -> None:
    """Train, score and record one run in `run_folder`, or what is left of it after it was killed.

    A run that has kept an epoch and is not finished goes on from there, and ends as if it had never been disturbed;
    anything else starts afresh. `started` is the job's start in seconds since the epoch.
    Raises InputError for whatever is wrong with the data, the settings, the hardware that they ask for or the disk, and
    Interrupted, with what is kept, when SIGINT or SIGTERM asks to stop.
    """
    settings = fit_settings(config)
    build.try_out(config)
    given = check_launched(config.trainer)
    if given is not None and given.place.rank > 0:
        _train_along(config, run_folder, given)
        return
    with disk_trouble_told(run_folder), claimed(run_folder), stop_on_signals() as stop:
        job_identity = known_identity(config)
        if job_identity and is_finished(run_folder, job_identity):
            log.info("finished already: %s", run_folder)
            return
        try:
            _run(config, settings, run_folder, started, stop, job_identity)
        except Interrupted as interrupt:
            raise Interrupted(f"{interrupt}; {what_is_kept(run_folder)}", interrupt.exit_code) from None


def _train_along(config: TrainConfig, run_folder: Path, given: Launched) -> None:
    """What a process that srun or torchrun has started beside rank 0 does."""
    from spleen.worker import work_for  # which imports this module

    job_identity = known_identity(config)
    if not (job_identity and is_finished(run_folder, job_identity)):
        with stop_on_signals() as stop:
            work_for(given, stop)


def _run(
    config: TrainConfig,
    settings: FitSettings,
    run_folder: Path,
    started: float,
    stop: StopRequest,
    job_identity: str | None,
) -> None:
    unfinished = _open_folder(config, run_folder)
    record.point_latest(Path(config.output_dir), run_folder)
    pl.seed_everything(config.seed, workers=True, verbose=False)
    data = open_data(config)
    record_split(run_folder, data, config)
    spec = build_model.describe(config, data.cases_in("train"), data.cases_in("val"))
    if unfinished is not None:
        check_same_data(unfinished, spec)
    module = build_module(config, spec, data)
    part = Part(run_folder, started, unfinished.checkpoint if unfinished else None, stop)
    epochs_kept = unfinished.epochs if unfinished else 0
    wandb_run = start_wandb_run(build.build_wandb_settings(config), run_folder, asdict(config), epochs_kept)
    reporter = _trial_reporter(config, run_folder)
    try:
        with with_workers(Order(config, run_folder, part.checkpoint), settings.accelerator, stop):
            fitted = fit(module, data, settings, part, spec, asdict(config), partial(_tell_epoch, wandb_run, reporter))
        stop.where = "while the report was written"
        _report(config, fitted, module, data, wandb_run, run_folder)
        summary = {**_summarise(config, fitted, module, settings), "identity": job_identity}
        write_summary(run_folder, summary)
        if reporter is not None:
            reporter.complete(mean_scores(module.scores["val"]).dice)
    except Pruned as pruned:
        wandb_run.finish()
        write_summary(run_folder, {"status": "pruned", "reason": str(pruned)})
        print(pruned)
        return
    except Interrupted as interrupt:
        wandb_run.finish(interrupt.exit_code, patience_seconds=_INTERRUPT_PATIENCE_SECONDS)
        raise
    except BaseException:
        wandb_run.finish(exit_code=1)
        raise
    wandb_run.finish()
    _tell_where(wandb_run, run_folder)


def _open_folder(config: TrainConfig, run_folder: Path) -> Unfinished | None:
    """The run to go on with, if there is one; else the folder is made ready for a new one."""
    files = RunFolder(run_folder)
    unfinished = find_unfinished(run_folder)
    if unfinished is not None:
        check_same_settings(unfinished, asdict(config))
        log.info("going on with %s: %d of %d epochs are kept", run_folder, unfinished.epochs, config.epochs)
        return unfinished
    if files.config.exists():
        log.info("starting afresh in %s, where no unfinished run has kept an epoch", run_folder)
    clear_record(run_folder)
    write_text(files.config, OmegaConf.to_yaml(OmegaConf.structured(config)))
    return None


def fit_settings(config: TrainConfig) -> FitSettings:
    """How long and on what to fit; raises InputError for hardware that is not there."""
    trainer, optimiser = config.trainer, config.optimiser
    accelerator = choose_accelerator(trainer.accelerator, trainer.devices)
    strategy = trainer.strategy if process_count(trainer) > 1 else "auto"
    if strategy == "fsdp" and accelerator != "gpu":
        raise InputError("trainer.strategy=fsdp needs CUDA GPUs, and this machine shows none; use trainer=ddp")
    return FitSettings(
        epochs=config.epochs,
        val_every_epochs=trainer.val_every_epochs,
        early_stopping_patience=trainer.early_stopping_patience,
        gradient_clip=optimiser.gradient_clip,
        ema_decay=optimiser.ema_decay,
        accelerator=accelerator,
        devices=trainer.devices,
        precision=choose_precision(config.precision, accelerator),
        compile=config.compile,
        progress=trainer.progress,
        strategy=strategy,
        num_nodes=trainer.num_nodes,
    )


def build_module(config: TrainConfig, spec: ModelSpec, data: SliceDataModule) -> SegmentationModule:
    """The untrained module that the configuration and the specification ask for, for these data."""
    class_names = spec.preprocessing.classes.names
    return SegmentationModule(
        network=build_network(spec),
        loss=build.build_loss(config),
        optimiser=build.build_optimiser_settings(config),
        augment=build.build_augment_settings(config),
        stages={stage: StageScores([part.case for part in data.slices(stage)], class_names) for stage in SCORED_STAGES},
        axis=spec.preprocessing.axis,
        seed=config.seed,
        crop=CropSettings(config.crop_size, config.loader.foreground_share) if config.crop_size else None,
    )


def _report(
    config: TrainConfig,
    fitted: Fitted,
    module: SegmentationModule,
    data: SliceDataModule,
    wandb_run: WandbRun,
    run_folder: Path,
) -> None:
    """Write cases.csv and the figures, print the table, copy all of it to wandb."""
    names = build_model.build_classes(config).names
    title = RunTitle(config.model.name, config.axis, config.img_size, config.lr)
    cases = [part.case for part in data.slices("test")]
    views = [
        (name, show(score, cases[score.case_index], config.context_slices, fitted.forward))
        for name, score in choose(module.test_slices)
    ]
    record.write_cases(RunFolder(run_folder).cases, module.scores)
    draw(RunFolder(run_folder).figures, title, fitted.rows, views, names)
    mirror(wandb_run, module.scores, views, names)
    wandb_run.log_checkpoint(fitted.best_checkpoint)
    print_scores(title, module.scores)


def _trial_reporter(config: TrainConfig, run_folder: Path) -> "TrialReporter | None":
    """What tells a search about this run, if it is a trial of one."""
    if config.search is None:
        return None
    from spleen.search import TrialReporter

    return TrialReporter(Path(config.search["storage"]), config.search["name"], config.search["trial"], run_folder)


def _tell_epoch(wandb_run: WandbRun, reporter: "TrialReporter | None", row: EpochRow) -> None:
    """Hand an epoch on; raises Pruned if the run is a trial that is not worth going on."""
    metrics = {name: value for name, value in row.items() if name not in ("epoch", "step")}
    wandb_run.log_epoch(metrics, int(row["epoch"]))
    if reporter is not None and SELECTING_SCORE in row:
        reporter.report(int(row["epoch"]), row[SELECTING_SCORE])


def _summarise(
    config: TrainConfig, fitted: Fitted, module: SegmentationModule, settings: FitSettings
) -> dict[str, Json]:
    clock = fitted.clock
    timing = record.Timing(clock.slices_per_second, clock.seconds_to_first_step, clock.wall_seconds, _peak_memory_mb())
    setting: dict[str, Json] = {
        "model": config.model.name,
        "axis": config.axis,
        "img_size": config.img_size,
        "lr": config.lr,
        "seed": config.seed,
        "precision": settings.precision,
        "resumed": clock.resumed,
    }
    return record.summarise(module.scores, setting, timing, describe_hardware(), len(fitted.rows))


def _peak_memory_mb() -> float:
    """Largest memory of the process so far; of the GPU, where one was used."""
    if torch.cuda.is_available() and torch.cuda.max_memory_allocated():
        return torch.cuda.max_memory_allocated() / 2**20
    unit = 1 if sys.platform == "darwin" else 1024  # bytes on a Mac, KiB elsewhere
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**20


def _tell_where(wandb_run: WandbRun, run_folder: Path) -> None:
    print(f"\nEverything is in {run_folder}")
    for line in wandb_run.how_to_look():
        print(f"  {line}")
