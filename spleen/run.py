"""One training run from its configuration to its record: prepare, fit, score, write, tell."""

import logging
import resource
import sys
import time
from dataclasses import asdict
from pathlib import Path

import pytorch_lightning as pl
import torch
from omegaconf import OmegaConf

from spleen import build, build_model, record
from spleen.atomic import write_text
from spleen.config import TrainConfig
from spleen.datamodule import SliceDataModule
from spleen.errors import InputError
from spleen.fit import FitSettings, Fitted, fit
from spleen.folds import split_one_volume
from spleen.gallery import choose, show
from spleen.hardware import choose_accelerator, choose_precision, describe_hardware
from spleen.loggers import WandbRun, start_wandb_run
from spleen.module import SCORED_STAGES, SegmentationModule, StageScores
from spleen.recipe import describe
from spleen.report.run_report import RunTitle, draw, mirror, print_scores
from spleen.store import StoredCase, open_case

log = logging.getLogger(__name__)


def run(config: TrainConfig, run_folder: Path, started: float) -> None:
    """Train, score and record one run in `run_folder`.

    `started` is the job's start in seconds since the epoch.
    Raises InputError for whatever is wrong with the data, the settings or the hardware that they ask for.
    """
    settings = fit_settings(config)
    build.try_out(config)
    write_text(run_folder / "config.yaml", OmegaConf.to_yaml(OmegaConf.structured(config)))
    record.point_latest(Path(config.output_dir), run_folder)
    pl.seed_everything(config.seed, workers=True, verbose=False)
    data = prepare(config, run_folder)
    module = build_module(config, data)
    wandb_run = start_wandb_run(build.build_wandb_settings(config), run_folder, asdict(config))
    try:
        recipe = describe(config, [part.case for part in data.slices("train")])
        fitted = fit(module, data, settings, run_folder, started, recipe, wandb_run.log_epoch)
        _report(config, fitted, module, data, wandb_run, run_folder)
        _write_summary(config, fitted, module, settings, run_folder, started)
    except BaseException:
        wandb_run.finish(exit_code=1)
        raise
    wandb_run.finish()
    _tell_where(wandb_run, run_folder)


def fit_settings(config: TrainConfig) -> FitSettings:
    """How long and on what to fit; raises InputError for hardware that is not there."""
    trainer, optimiser = config.trainer, config.optimiser
    accelerator = choose_accelerator(trainer.accelerator, trainer.devices)
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
    )


def prepare(config: TrainConfig, run_folder: Path) -> SliceDataModule:
    """Open the case from the slice store (built if needed), split it and record the split."""
    classes = build_model.build_classes(config)
    store_settings = build_model.build_store_settings(config, classes)
    case = open_case(build.build_case(config), store_settings, Path(config.cache_dir))
    split_settings = build.build_split_settings(config)
    try:
        split = split_one_volume(case.foreground, case.spacing_mm[0], config.context_slices, split_settings)
    except InputError as error:
        raise InputError(f"{case.case_id}, {case.axis} slices: {error}") from error
    record.write_split(run_folder / "split.json", {case.case_id: split}, case.axis, split_settings)
    _describe(case, config)
    return SliceDataModule([case], [split], build.build_loader_settings(config))


def _describe(case: StoredCase, config: TrainConfig) -> None:
    height, width = case.grid.padded
    log.info(
        "%s: %d %s slices, %d with %s; network input %d × %d pixels",
        case.case_id, case.n_slices, case.axis, case.foreground.sum(), config.data.organ, height, width,
    )  # fmt: skip


def build_module(config: TrainConfig, data: SliceDataModule) -> SegmentationModule:
    """The untrained module that the configuration asks for, for these data."""
    classes = build_model.build_classes(config)
    return SegmentationModule(
        network=build_model.build_network(config, len(classes.names)),
        loss=build.build_loss(config),
        optimiser=build.build_optimiser_settings(config),
        augment=build.build_augment_settings(config),
        stages={
            stage: StageScores([part.case for part in data.slices(stage)], classes.names) for stage in SCORED_STAGES
        },
        axis=build_model.axis_of(config),
        seed=config.seed,
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
    record.write_cases(run_folder / "cases.csv", module.scores)
    draw(run_folder / "figures", title, fitted.rows, views, names)
    mirror(wandb_run, module.scores, views, names)
    wandb_run.log_checkpoint(fitted.best_checkpoint)
    print_scores(title, module.scores)


def _write_summary(
    config: TrainConfig,
    fitted: Fitted,
    module: SegmentationModule,
    settings: FitSettings,
    run_folder: Path,
    started: float,
) -> None:
    timing = record.Timing(
        fitted.slices_per_second, fitted.seconds_to_first_step, time.time() - started, _peak_memory_mb()
    )
    setting: dict[str, record.Json] = {
        "model": config.model.name,
        "axis": config.axis,
        "img_size": config.img_size,
        "lr": config.lr,
        "seed": config.seed,
        "precision": settings.precision,
    }
    summary = record.summarise(module.scores, setting, timing, describe_hardware(), len(fitted.rows))
    record.write_summary(run_folder / "summary.json", summary)


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
