"""The arms of a study by image size and learning rate, in a panel for each combination of the other settings."""

from collections.abc import Sequence
from dataclasses import dataclass

from spleen.records.reading import Setting
from spleen.records.settings import setting_text
from spleen.runs.results.arms import Arm, best_first

MOST_PANELS = 12
"""More are not read."""

_SIZE, _RATE = "img_size", "lr"
_ALWAYS_NAMED = ("model.name", "axis")


@dataclass(frozen=True)
class SizeAndRate:
    """Image sizes in pixels and learning rates, ascending; panels by name, best validation Dice first."""

    sizes: tuple[float, ...]
    rates: tuple[float, ...]
    panels: tuple[tuple[str, tuple[Arm, ...]], ...]


def size_and_rate(arms: Sequence[Arm]) -> SizeAndRate | None:
    """The arms with a numeric size and rate; None unless both vary."""
    numeric = [arm for arm in arms if all(_is_number(arm.settings.get(key)) for key in (_SIZE, _RATE))]
    sizes, rates = sorted({size_of(arm) for arm in numeric}), sorted({rate_of(arm) for arm in numeric})
    if len(sizes) < 2 or len(rates) < 2:
        return None
    return SizeAndRate(tuple(sizes), tuple(rates), tuple(_panels(numeric)))


def size_of(arm: Arm) -> float:
    """Image size in pixels."""
    return float(arm.settings[_SIZE] or 0)


def rate_of(arm: Arm) -> float:
    """Learning rate."""
    return float(arm.settings[_RATE] or 0)


def _is_number(value: Setting) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _panels(arms: Sequence[Arm]) -> list[tuple[str, tuple[Arm, ...]]]:
    """The arms by their other settings, named by those that differ, best validation first."""
    others = [key for key in arms[0].settings if key not in (_SIZE, _RATE)]
    groups: dict[tuple[Setting, ...], list[Arm]] = {}
    for arm in arms:
        groups.setdefault(tuple(arm.settings[key] for key in others), []).append(arm)
    naming = [n for n, key in enumerate(others) if len({values[n] for values in groups}) > 1 or key in _ALWAYS_NAMED]
    panels = [
        (", ".join(_words(others[n], values[n]) for n in naming), tuple(members)) for values, members in groups.items()
    ]
    panels.sort(key=lambda panel: min(best_first(arm.val_dice.mean) for arm in panel[1]))
    return panels


def _words(key: str, value: Setting) -> str:
    return setting_text(value) if key in _ALWAYS_NAMED else f"{key.rsplit('.', 1)[-1]} {setting_text(value)}"
