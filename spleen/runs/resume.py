"""Resuming a run that was stopped or killed: its state on disk, and whether settings and data are unchanged."""

import errno
import json
import shlex
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml

from spleen.config.schema import TrainConfig
from spleen.errors import InputError
from spleen.inference.legacy import RECIPE_KEY, config_of_recipe
from spleen.inference.loading import spec_of
from spleen.models.checkpoint import read_checkpoint
from spleen.models.spec import ModelSpec
from spleen.records.effect import ADDED, COUNTING_BY_CONTENT, has_effect
from spleen.records.folder import RunFolder
from spleen.records.renamed_keys import with_current_keys
from spleen.runs.tracking.parts import forget_wandb
from spleen.system.nested import flatten
from spleen.system.resources import train_command
from spleen.training.callbacks import SETTINGS_KEY
from spleen.training.checkpoints import CHECKPOINTS_KEY, best_row, keep_best

# A run may be resumed with other settings that do not affect training, and on other hardware, where the results differ
# in their last digits from those of an uninterrupted run.
_HARDWARE = ("trainer.accelerator", "trainer.devices", "trainer.strategy", "trainer.num_nodes")
# Their content is compared when they are read; a resumed run does not read the files of its first weights again.
_FIRST_WEIGHTS = ("init_from", "roi_from", "model.encoder_weights_file")
_CHECKED_BY_CONTENT = tuple(key for key in COUNTING_BY_CONTENT if key not in _FIRST_WEIGHTS)
_UNWRITABLE = {
    errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EROFS, errno.EACCES, errno.EPERM, errno.ENOTDIR,
    errno.EEXIST,
}  # fmt: skip


@dataclass(frozen=True)
class Unfinished:
    """A run that has saved at least one epoch and is not finished."""

    checkpoint: Path
    epochs: int
    """Number of saved epochs."""
    settings: Mapping[str, Any]
    """Its configuration."""
    spec: ModelSpec
    """Its model specification, with facts about its training data."""


def find_unfinished(run_folder: Path) -> Unfinished | None:
    """The unfinished run in a folder, its checkpoints consistent; None if it is finished or has saved no epoch.

    Raises InputError for checkpoints that cannot be resumed from.
    """
    files = RunFolder(run_folder)
    last, best = files.last_checkpoint, files.best_checkpoint
    if files.summary.exists() or not last.exists():
        return None
    try:
        content = read_checkpoint(last)
    except InputError as error:
        raise InputError(f"{error}; or remove it to start the run from scratch") from error
    try:
        rows = content["callbacks"]["EpochRecord"]["rows"]
        settings, spec = _settings_of(content), spec_of(content)
    except (InputError, KeyError, TypeError, ValueError) as error:
        raise InputError(
            f"{last} contains no training state to resume from ({error}); remove it to start from scratch"
        ) from error
    can_select = content["callbacks"].get(CHECKPOINTS_KEY, {}).get("can_select", True)
    keep_best(last.parent, rows, spec, can_select)
    if best_row(rows, can_select) is not None and not best.exists():
        raise InputError(f"{best} is missing, so the run cannot be scored; remove {last} to start from scratch")
    return Unfinished(last, len(rows), settings, spec)


def _settings_of(content: Mapping[str, Any]) -> dict[str, Any]:
    if SETTINGS_KEY in content:
        return dict(json.loads(content[SETTINGS_KEY]))
    return config_of_recipe(content[RECIPE_KEY])


def with_first_hardware(config: TrainConfig, run_folder: Path) -> TrainConfig:
    """The configuration on the hardware that the run in the folder began on: its identity is that of the run.

    A study that knows the run by it would otherwise take it for another one, and begin anew.
    """
    with suppress(OSError, yaml.YAMLError, AttributeError, TypeError):  # damaged: the run goes on all the same
        known = flatten(with_current_keys(yaml.safe_load(RunFolder(run_folder).config.read_bytes())))
        first = {key.partition(".")[2]: known[key] for key in _HARDWARE if key in known}
        return replace(config, trainer=replace(config.trainer, **first))
    return config


def check_same_settings(unfinished: Unfinished, config: Mapping[str, Any]) -> None:
    """Raise InputError if a setting that affects training has changed since the run was started."""
    then = {**ADDED, **flatten(with_current_keys(unfinished.settings))}
    now = {**ADDED, **flatten(json.loads(json.dumps(config)))}  # a group may leave out what has a default
    changed = [
        f"{key} was {_shown(then, key)} and is now {_shown(now, key)}"
        for key in dict.fromkeys([*then, *now])
        if _shown(then, key) != _shown(now, key) and has_effect(key) and key not in (*_CHECKED_BY_CONTENT, *_HARDWARE)
    ]
    if changed:
        run_folder = unfinished.checkpoint.parents[1]
        raise InputError(
            f"{run_folder} contains an unfinished run with other settings: {'; '.join(changed)}. "
            f"Resume it with {resume_command(run_folder)}, or choose another folder"
        )


def check_same_data(unfinished: Unfinished, now: ModelSpec) -> None:
    """Raise InputError if the images or labels have changed since the unfinished run was started."""
    then = unfinished.spec
    same_labels = (then.preprocessing.classes, then.training_volumes_mm3) == (
        now.preprocessing.classes,
        now.training_volumes_mm3,
    )
    if not same_labels or (then.seen_images or now.seen_images) != now.seen_images:  # older checkpoints lack them
        raise InputError(
            f"the images or labels are not those that the unfinished run in {unfinished.checkpoint.parents[1]} was "
            "trained with; put them back, or start a new run in another folder"
        )


def _shown(flat: Mapping[str, Any], key: str) -> str:
    return "not set" if flat.get(key) is None else json.dumps(flat[key])


def clear_record(run_folder: Path) -> None:
    """Remove the results of an earlier run in the folder, so that they are not mistaken for those of a new one."""
    files = RunFolder(run_folder)
    if files.metrics.exists():
        forget_wandb(run_folder)  # it may contain epochs of that run
    files.drop_results()


def resume_command(run_folder: Path) -> str:
    """The command that resumes a run."""
    return f"{train_command()} {shlex.quote(f'resume={run_folder}')}"


def describe_kept_progress(run_folder: Path) -> str:
    """The saved progress of an interrupted run, and the command that resumes it, as half a sentence."""
    if RunFolder(run_folder).summary.exists():
        return f"the run is finished, everything is in {run_folder}"
    try:
        unfinished = find_unfinished(run_folder)
    except InputError as error:
        return str(error)
    resume = f"resume with: {resume_command(run_folder)}"
    if unfinished is None:
        return f"no epoch is saved yet, so the run would start from scratch; {resume}"
    epochs = "1 epoch is" if unfinished.epochs == 1 else f"{unfinished.epochs} epochs are"
    return f"{epochs} saved in {unfinished.checkpoint}; {resume}"


@contextmanager
def disk_errors_explained(run_folder: Path) -> Iterator[None]:
    """Turn errors of a full disk or missing write permission into an InputError with the path."""
    try:
        yield
    except OSError as error:
        if error.errno not in _UNWRITABLE:
            raise
        name = error.filename or run_folder
        kept = ""
        with suppress(OSError):
            kept = f"; {describe_kept_progress(run_folder)}"
        raise InputError(
            f"{name} cannot be written ({error.strerror}). Free some space, or check the permissions{kept}"
        ) from error
