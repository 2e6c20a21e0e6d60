"""Settings of the wandb mirror."""

from dataclasses import dataclass
from pathlib import Path
from typing import cast

from spleen.config.schema import TrainConfig
from spleen.runs.tracking.mode import WandbMode, resolve_mode
from spleen.runs.tracking.naming import group_name, run_name


@dataclass(frozen=True)
class WandbSettings:
    """How one run is mirrored: destination, name and content."""

    project: str
    mode: WandbMode
    name: str
    group: str
    tags: tuple[str, ...] = ()
    entity: str | None = None
    log_images: bool = True
    upload_checkpoint: bool = True
    init_timeout_seconds: float = 20.0
    finish_timeout_seconds: float = 300.0
    upload_last_checkpoint: bool = False
    log_console: bool = True
    log_code: bool = True


def build_wandb_settings(config: TrainConfig, run_folder: Path) -> WandbSettings:
    """Settings of the wandb run: unless the configuration says otherwise, named and grouped after the run folder.

    Raises InputError: see `resolve_mode`.
    """
    logger = config.logger
    return WandbSettings(
        project=logger.project,
        mode=resolve_mode(cast(WandbMode, logger.mode)),
        name=logger.name or run_name(config, run_folder),
        group=logger.group or group_name(config.study, run_folder),
        tags=(*logger.tags, config.axis, config.model.name),
        entity=logger.entity,
        log_images=logger.log_images,
        upload_checkpoint=logger.upload_checkpoint,
        init_timeout_seconds=logger.init_timeout_seconds,
        finish_timeout_seconds=logger.finish_timeout_seconds,
        upload_last_checkpoint=logger.upload_last_checkpoint,
        log_console=logger.log_console,
        log_code=logger.log_code,
    )
