"""Configuration keys that were renamed: the earlier names still work on the command line, in studies and run folders.

Nothing heavy is imported here: `spleen train --help` must be instant.
"""

from collections.abc import Mapping
from typing import Any

from spleen.errors import InputError

RENAMED_KEYS = {
    "split.val_share": "split.val_fraction",
    "split.test_share": "split.test_fraction",
    "loader.foreground_share": "loader.foreground_fraction",
    "schedule.warmup_share": "schedule.warmup_fraction",
}
"""Earlier name → current name."""

EARLIER_KEYS = {current: earlier for earlier, current in RENAMED_KEYS.items()}

RENAMED_TARGETS = {
    "spleen.losses.DiceCrossEntropyLoss": "spleen.models.losses.DiceCrossEntropyLoss",
    "spleen.models.UNet": "spleen.models.unet.UNet",
    "monai.losses.DiceFocalLoss": "spleen.models.losses.DiceFocalLoss",
}
"""Earlier → current dotted name of a class that a configuration names as `_target_`."""

EARLIER_TARGETS = {
    "spleen.models.losses.DiceCrossEntropyLoss": "spleen.losses.DiceCrossEntropyLoss",
    "spleen.models.losses.DiceFocalLoss": "monai.losses.DiceFocalLoss",
}
"""Current → earlier name, under which the identity of a job counts it."""


def current_key(key: str) -> str:
    """The current name of a dotted configuration key."""
    return RENAMED_KEYS.get(key, key)


def with_current_keys(tree: Mapping[Any, Any], prefix: str = "") -> dict[Any, Any]:
    """A nested configuration with every key and `_target_` under its current name, in the same order.

    Raises InputError if a key is there under both names.
    """
    renamed: dict[Any, Any] = {}
    for key, value in tree.items():
        dotted = f"{prefix}{key}"
        name = current_key(dotted).removeprefix(prefix) if dotted in RENAMED_KEYS else key
        if name != key and name in tree:
            raise InputError(f"{dotted} and {prefix}{name} are the same setting; use only {prefix}{name}")
        if isinstance(value, Mapping):
            renamed[name] = with_current_keys(value, f"{dotted}.")
        else:
            renamed[name] = RENAMED_TARGETS.get(str(value), value) if key == "_target_" else value
    return renamed
