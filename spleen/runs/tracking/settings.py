"""Settings of the wandb mirror."""

from dataclasses import dataclass
from typing import cast

from spleen.config.schema import TrainConfig, size_text
from spleen.runs.tracking.mode import WandbMode, resolve_mode


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


def build_wandb_settings(config: TrainConfig) -> WandbSettings:
    """Settings of the wandb run: named after axis, size, learning rate, model and seed, and grouped by study.

    Raises InputError: see `resolve_mode`.
    """
    logger = config.logger
    return WandbSettings(
        project=logger.project,
        mode=resolve_mode(cast(WandbMode, logger.mode)),
        name=logger.name
        or " ".join(
            [
                f"{config.axis} {size_text(config.img_size)} lr={config.lr:g} {config.model.name} seed={config.seed}",
                *([f"fold={config.fold}"] if config.fold is not None else []),
            ]
        ),
        group=logger.group or config.study,
        tags=(*logger.tags, config.axis, config.model.name),
        entity=logger.entity,
        log_images=logger.log_images,
        upload_checkpoint=logger.upload_checkpoint,
        init_timeout_seconds=logger.init_timeout_seconds,
        finish_timeout_seconds=logger.finish_timeout_seconds,
    )
