"""Going on with a run that was killed: what its folder still holds, and whether it is the same run."""

import errno
import json
import shlex
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from spleen.config.effect import COUNTING_BY_CONTENT, has_effect
from spleen.errors import InputError
from spleen.inference.legacy import RECIPE_KEY, config_of_recipe
from spleen.inference.loading import spec_of
from spleen.models.checkpoint import read_checkpoint
from spleen.models.spec import ModelSpec
from spleen.records.folder import RunFolder
from spleen.records.renamed_keys import with_current_keys
from spleen.runs.tracking.parts import forget_wandb
from spleen.system.nested import flatten
from spleen.system.resources import train_command
from spleen.training.callbacks import SETTINGS_KEY
from spleen.training.checkpoints import best_row, keep_best

# A run may go on with other settings that do not decide what is trained, and on other hardware: then the numbers differ
# in their last digits from those of the undisturbed run.
_HARDWARE = ("trainer.accelerator", "trainer.devices", "trainer.strategy", "trainer.num_nodes")
_UNWRITABLE = {
    errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EROFS, errno.EACCES, errno.EPERM, errno.ENOTDIR,
    errno.EEXIST,
}  # fmt: skip


@dataclass(frozen=True)
class Unfinished:
    """A run that has kept at least one epoch and is not finished."""

    checkpoint: Path
    epochs: int
    """How many epochs it has kept."""
    settings: Mapping[str, Any]
    """What it was told."""
    spec: ModelSpec
    """What it trains, and facts of its data."""


def find_unfinished(run_folder: Path) -> Unfinished | None:
    """The unfinished run in a folder, its checkpoints consistent; None if it is finished or has kept no epoch.

    Raises InputError for checkpoints that cannot be gone on from.
    """
    files = RunFolder(run_folder)
    last, best = files.last_checkpoint, files.best_checkpoint
    if files.summary.exists() or not last.exists():
        return None
    try:
        content = read_checkpoint(last)
    except InputError as error:
        raise InputError(f"{error}; or remove it to start the run afresh") from error
    try:
        rows = content["callbacks"]["EpochRecord"]["rows"]
        settings, spec = _settings_of(content), spec_of(content)
    except (InputError, KeyError, TypeError, ValueError) as error:
        raise InputError(
            f"{last} holds no state of a training to go on from ({error}); remove it to start afresh"
        ) from error
    keep_best(last.parent, rows, spec)
    if best_row(rows) is not None and not best.exists():
        raise InputError(f"{best} is missing, so the run cannot be scored; remove {last} to start afresh")
    return Unfinished(last, len(rows), settings, spec)


def _settings_of(content: Mapping[str, Any]) -> dict[str, Any]:
    if SETTINGS_KEY in content:
        return dict(json.loads(content[SETTINGS_KEY]))
    return config_of_recipe(content[RECIPE_KEY])


def check_same_settings(unfinished: Unfinished, config: Mapping[str, Any]) -> None:
    """Raise InputError if a setting that decides what is trained is another one than when the run began."""
    then, now = flatten(with_current_keys(unfinished.settings)), flatten(json.loads(json.dumps(config)))
    changed = [
        f"{key} was {_shown(then, key)} and is now {_shown(now, key)}"
        for key in dict.fromkeys([*then, *now])
        if _shown(then, key) != _shown(now, key) and has_effect(key) and key not in (*COUNTING_BY_CONTENT, *_HARDWARE)
    ]
    if changed:
        run_folder = unfinished.checkpoint.parents[1]
        raise InputError(
            f"{run_folder} holds an unfinished run with other settings: {'; '.join(changed)}. "
            f"Go on with it by {how_to_go_on(run_folder)}, or choose another folder"
        )


def check_same_data(unfinished: Unfinished, now: ModelSpec) -> None:
    """Raise InputError if the images or labels of the training are others than when the unfinished run began."""
    then = unfinished.spec
    same_labels = (then.preprocessing.classes, then.training_volumes_mm3) == (
        now.preprocessing.classes,
        now.training_volumes_mm3,
    )
    if not same_labels or (then.seen_images or now.seen_images) != now.seen_images:  # older checkpoints do not tell
        raise InputError(
            f"the images or labels are not those that the unfinished run in {unfinished.checkpoint.parents[1]} was "
            "trained with; put them back, or start a new run in another folder"
        )


def _shown(flat: Mapping[str, Any], key: str) -> str:
    return json.dumps(flat[key]) if key in flat else "not set"


def clear_record(run_folder: Path) -> None:
    """Remove what an earlier run has recorded in a folder, so that nothing of it is taken for the new one's."""
    files = RunFolder(run_folder)
    if files.metrics.exists():
        forget_wandb(run_folder)  # it may know epochs of that run
    files.drop_results()


def how_to_go_on(run_folder: Path) -> str:
    """The command that goes on with a run."""
    return f"{train_command()} {shlex.quote(f'resume={run_folder}')}"


def describe_kept_progress(run_folder: Path) -> str:
    """What an interrupted run leaves, and how to go on: half a sentence."""
    if RunFolder(run_folder).summary.exists():
        return f"the run is finished, everything is in {run_folder}"
    try:
        unfinished = find_unfinished(run_folder)
    except InputError as error:
        return str(error)
    go_on = f"go on with: {how_to_go_on(run_folder)}"
    if unfinished is None:
        return f"no epoch is kept yet, so the run would start afresh; {go_on}"
    epochs = "1 epoch is" if unfinished.epochs == 1 else f"{unfinished.epochs} epochs are"
    return f"{epochs} kept in {unfinished.checkpoint}; {go_on}"


@contextmanager
def disk_errors_explained(run_folder: Path) -> Iterator[None]:
    """Turn the errors of a full disk and of a folder that may not be written into an InputError with the path."""
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
            f"{name} cannot be written ({error.strerror}). Make room, or see to the permissions{kept}"
        ) from error
