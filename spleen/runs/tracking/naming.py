"""The name and group of a run on the dashboard, by which a reader tells runs apart."""

import re
from pathlib import Path

from spleen.config.schema import TrainConfig, size_text

_STAMP = re.compile(r"\d{4}-\d\d-\d\d_\d\d-\d\d-\d\d(-\d{3})?|slurm-.+|torchrun-.+")  # names of single runs and sweeps
_IDENTITY = re.compile(r"-[0-9a-f]{8}$")  # end of the name of a study's job folder
_LONGEST = 128  # characters that wandb accepts


def run_name(config: TrainConfig, run_folder: Path) -> str:
    """What distinguishes the run: of a job of a sweep or study the settings that vary, which name its folder.

    Otherwise axis, image size, learning rate, model, seed, and the fold if there is one.
    """
    name = run_folder.name
    if _STAMP.fullmatch(run_folder.parent.name):
        return name[:_LONGEST]
    if _IDENTITY.search(name) and not _STAMP.fullmatch(name):
        return _IDENTITY.sub("", name)[:_LONGEST]
    parts = [config.axis, size_text(config.img_size), f"lr={config.lr:g}", config.model.name, f"seed={config.seed}"]
    if config.fold is not None:
        parts.append(f"fold={config.fold}")
    return " ".join(parts)[:_LONGEST]


def group_name(study: str, run_folder: Path) -> str:
    """The study; a sweep outside of a study has a group of its own, with the time at which it was started."""
    sweep = run_folder.parent.name
    return (f"{study} {sweep}" if _STAMP.fullmatch(sweep) else study)[:_LONGEST]
