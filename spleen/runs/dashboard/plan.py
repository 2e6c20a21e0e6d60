"""What a report of a study or a project shows in wandb: which runs, and which settings as axes.

Made from the run folders, without wandb and without a network; `report` saves it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from spleen.errors import InputError
from spleen.records.effect import has_effect
from spleen.records.folder import RunFolder
from spleen.records.reading import BrokenRunError, Setting, find_runs, read_settings
from spleen.records.settings import differing_keys
from spleen.runs.tracking.naming import group_name
from spleen.runs.tracking.run_config import GROUPS, SETTINGS
from spleen.runs.tracking.sync import find_offline_runs

VALIDATION, TEST = "val/dice.max", "test/dice"
_TOP = ("lr", "img_size", "axis", "seed", "fold", "epochs", "batch_size", "context_slices", "crop_size")
_USUAL_AXES = ("axis", "img_size", "lr", "model", "augment", "loss")
_ON_LOG_SCALE = ("lr", "weight_decay")
# Differ between runs without being a choice: they follow the seed, or say the same twice.
_NO_AXES = ("split.seed", "data.seed")


@dataclass(frozen=True)
class Axis:
    """A setting, by its key in wandb's config."""

    key: str
    numeric: bool
    log: bool


@dataclass(frozen=True)
class Dashboard:
    """A report to be saved."""

    project: str
    entity: str | None
    """None: the default of the API key."""
    title: str
    groups: tuple[str, ...]
    """Groups of runs; empty for all runs of the project."""
    axes: tuple[Axis, ...]
    n_waiting: int = 0
    """Offline runs that have not been uploaded yet."""


def dashboard_of(target: str) -> Dashboard:
    """The report of a folder of runs, or of a wandb project (PROJECT or ENTITY/PROJECT).

    Raises InputError for anything else, and for a folder without mirrored runs, or with runs of several projects.
    """
    if Path(target).is_dir():
        return _of_folder(Path(target))
    entity, _, project = target.rpartition("/")
    if not project or "/" in entity:
        raise InputError(
            f"{target}: no such folder of runs, and not a wandb project, which would be PROJECT or ENTITY/PROJECT"
        )
    axes = tuple(Axis(key, key in ("lr", "img_size"), key in _ON_LOG_SCALE) for key in _USUAL_AXES)
    return Dashboard(project, entity or None, f"{project}: all runs", (), axes)


def _of_folder(folder: Path) -> Dashboard:
    mirrored: dict[Path, dict[str, Setting]] = {}
    for run_folder in find_runs(folder):
        if RunFolder(run_folder).wandb.is_dir():
            try:
                mirrored[run_folder] = read_settings(RunFolder(run_folder).config)
            except (BrokenRunError, OSError):
                continue
    if not mirrored:
        raise InputError(f"{folder} contains no run that was copied to wandb; train with logger=wandb")
    places = {(_text(each, "logger.entity"), _text(each, "logger.project")) for each in mirrored.values()}
    if len(places) > 1:
        names = ", ".join(sorted("/".join(filter(None, place)) for place in places))
        raise InputError(f"{folder} contains runs of several wandb projects ({names}); choose a folder with one")
    ((entity, project),) = places
    groups = dict.fromkeys(
        _text(each, "logger.group") or group_name(_text(each, "study") or "", run_folder.absolute())
        for run_folder, each in mirrored.items()
    )
    return Dashboard(
        project=project or "spleen",
        entity=entity,
        title=f"{folder.resolve().name}: {len(mirrored)} runs",
        groups=tuple(groups),
        axes=tuple(_varying_axes(list(mirrored.values()))),
        n_waiting=sum(not run.is_uploaded for run in find_offline_runs([folder])),
    )


def _text(settings: dict[str, Setting], key: str) -> str | None:
    value = settings.get(key)
    return None if value is None else str(value)


def _varying_axes(settings: Sequence[dict[str, Setting]]) -> list[Axis]:
    """The settings that differ between the runs, in the order of the configuration; the usual ones if none does."""
    axes: dict[str, Axis] = {}
    for key in differing_keys(settings):
        if not has_effect(key) or key in _NO_AXES:
            continue
        name = config_key(key)
        numeric = name not in GROUPS and all(_is_number(each.get(key)) for each in settings)
        axes.setdefault(name, Axis(name, numeric, numeric and key.rsplit(".", 1)[-1] in _ON_LOG_SCALE))
    if not axes:
        return [Axis(key, key in ("lr", "img_size"), key in _ON_LOG_SCALE) for key in _USUAL_AXES]
    if "model" in axes:  # it decides the network
        return [axis for key, axis in axes.items() if not key.startswith(f"{SETTINGS}.model.")]
    return list(axes.values())


def config_key(key: str) -> str:
    """Where a setting of the configuration is in wandb's config."""
    group = key.split(".")[0]
    if group in GROUPS or key in _TOP:
        return group
    return "model" if key == "model.name" else f"{SETTINGS}.{key}"


def _is_number(value: Setting) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
