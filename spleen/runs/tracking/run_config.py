"""A run's configuration as wandb shows it: few hyperparameters at the top, every setting beneath."""

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from spleen.config.schema import CasesData, TrainConfig
from spleen.data.loading.datamodule import SPLITS, SliceDataModule
from spleen.records.settings import setting_text
from spleen.runs.results.columns import shipped_options
from spleen.system.nested import flatten

SETTINGS = "settings"
"""The key that holds the whole configuration."""
GROUPS = ("loss", "augment", "schedule", "intensity")
"""Groups of the configuration that are shown by the name of their option."""
_DISTINCT = ("_target_", "kind")  # keys of which an option is never a variation
_MOST_CHANGES = 3


def wandb_config(config: TrainConfig, data: SliceDataModule) -> dict[str, Any]:
    """The config of the wandb run: hyperparameters, the sizes of the splits, and under `settings` every setting."""
    settings = asdict(config)
    names = {group: option_name(group, settings[group]) for group in GROUPS}
    many = isinstance(config.data, CasesData)
    counts: dict[str, Any] = {
        split: len(data.slices(split)) if many else sum(len(part.indices) for part in data.slices(split))
        for split in SPLITS
    }
    return {
        "lr": config.lr,
        "img_size": config.img_size,
        "axis": config.axis,
        "model": config.model.name,
        **names,
        "seed": config.seed,
        "fold": config.fold,
        "epochs": config.epochs,
        "max_minutes": config.max_minutes,
        "batch_size": config.batch_size,
        "context_slices": config.context_slices,
        "crop_size": config.crop_size,
        "study": config.study,
        "organ": config.data.organ,
        "split": {**counts, "unit": "cases" if many else "slices"},
        SETTINGS: settings,
    }


def option_name(group: str, values: Mapping[str, Any]) -> str:
    """The option of a group that has these values, such as "light", with the values that differ from it, if any.

    A group that is no variation of a shipped option has the name of its class, or of its kind.
    """
    given = {f"{group}.{key}": _plain(value) for key, value in flatten(values).items()}
    of_option = {
        name: [key for key in {**option, **given} if option.get(key) != given.get(key)]
        for name, option in shipped_options(group)
        if all(option.get(f"{group}.{key}") == given.get(f"{group}.{key}") for key in _DISTINCT)
    }
    if not of_option:
        return str(values.get("_target_", values.get("kind", "custom"))).rsplit(".", 1)[-1]
    name, changed = min(of_option.items(), key=lambda item: len(item[1]))
    if not changed:
        return name
    shown = [
        f"{key.removeprefix(f'{group}.')}={setting_text(given.get(key))}" for key in sorted(changed)[:_MOST_CHANGES]
    ]
    return f"{name} ({', '.join([*shown, *(['…'] if len(changed) > _MOST_CHANGES else [])])})"


def _plain(value: Any) -> Any:
    """A value as the record of a run contains it, where lists are text."""
    return value if value is None or isinstance(value, bool | int | float) else str(value)
