"""Which recipes compete: those of networks, sizes and batches that this machine can train in the time."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from itertools import product

from spleen.auto.look import Look
from spleen.auto.plan import fitting_batch_size
from spleen.auto.timing import slices_per_second
from spleen.config.overrides import key_of
from spleen.config.schema import CasesData, TrainConfig
from spleen.runs.api import compose_config

_FEWEST_PASSES = 3
"""Over the training slices: with fewer, a smaller network or smaller slices learn more."""
_SMALLEST_SIDE = 96
_SIDE_STEP = 16
_TIMINGS = 4
_LARGEST_UPSAMPLED_SIDE = 256
_LEAST_COST_OF_WIDTH = 2
"""Twice the channels take at least twice the time: where that is too much, it need not be measured."""
_DEFAULTS = {"model": "unet", "augment": "light"}
_ALTERNATIVES = {"model": "unet_wide", "augment": "strong"}

Setting = tuple[str, str]
"""An override and its reason."""


@dataclass(frozen=True)
class Candidates:
    """The competing recipes, and the measured speed of the first."""

    settings: tuple[Setting, ...]
    """What all share."""
    by_name: dict[str, list[str]]
    """The overrides of each recipe, the most promising first."""
    batch_size: int
    slices_per_second: float


def find_candidates(
    overrides: Sequence[str], given: Collection[str], seen: Look, training_seconds: float, timing_seconds: float
) -> Candidates:
    """The recipes for these data, timed by a few steps each, which take about `timing_seconds`.

    `overrides` are the user's, and `given` their keys, which stay as they are. `training_seconds` are those of the
    final training.
    """

    def speed(config: TrainConfig) -> float:
        return slices_per_second(config, _side(config, seen), timing_seconds / _TIMINGS) or 0.0

    def compose(settings: Sequence[Setting], *more: str) -> TrainConfig:
        return compose_config([*overrides, *(override for override, _ in settings), *more])

    needed = _FEWEST_PASSES * seen.n_training_slices / training_seconds
    settings = _with_batch_size(seen.settings, _side(compose(seen.settings), seen), given)
    config = compose(settings)
    fastest = speed(config)
    while "img_size" not in given and fastest < needed and (side := _half(_side(config, seen))) >= _SMALLEST_SIDE:
        others = [each for each in settings if key_of(each[0]) not in ("img_size", "batch_size")]
        reason = f"at twice the size, {fastest:.3g} slices/s would see the training slices fewer than 3 times"
        settings = _with_batch_size([*others, (f"img_size={side}", reason)], side, given)
        config = compose(settings)
        fastest = speed(config)
    may_be_wide = "model" not in given and fastest >= _LEAST_COST_OF_WIDTH * needed
    is_wide_affordable = may_be_wide and speed(compose(settings, "model=unet_wide")) >= needed
    competing_axes = seen.axes[:1] if isinstance(config.data, CasesData) else seen.axes
    twice = 2 * _side(config, seen)
    may_be_upsampled = not {"img_size", "crop_size"} & set(given) and twice <= _LARGEST_UPSAMPLED_SIDE
    is_upsampled_affordable = may_be_upsampled and fastest >= 4 * needed
    return Candidates(
        settings=tuple(settings),
        by_name=recipes(given, is_wide_affordable, competing_axes, twice if is_upsampled_affordable else None),
        batch_size=config.batch_size,
        slices_per_second=fastest or 1.0,
    )


def recipes(
    given: Collection[str], is_wide_affordable: bool, axes: Sequence[str], upsampled_side: int | None = None
) -> dict[str, list[str]]:
    """The overrides of each recipe by its name, in the order in which they are tried if there is not time for all.

    First the default, alone and with slices upsampled to `upsampled_side` pixels, and the recipe that differs most from
    it, then the further axes, of which only one volume has any here (those of many cases are fused), then what is in
    between.
    """
    is_open = {key: key not in given for key in _DEFAULTS}
    is_open["model"] &= is_wide_affordable
    default = dict(_DEFAULTS)
    other = {key: _ALTERNATIVES[key] if is_open[key] else value for key, value in default.items()}
    between = [
        dict(zip(default, values, strict=True))
        for values in product(*zip(default.values(), other.values(), strict=True))
    ]
    order = [(default, axes[0]), (other, axes[0]), *((default, axis) for axis in axes[1:])]
    order += [(choice, axes[0]) for choice in between]
    named = {}
    for choice, axis in order:
        own = [f"{key}={value}" for key, value in choice.items() if key not in given]
        name = ", ".join([*(value for key, value in choice.items() if key not in given), axis])
        named[name] = [*own, *([f"axis={axis}"] if axis != axes[0] else [])]
        if upsampled_side is not None and (choice, axis) == order[0]:
            batch = [] if "batch_size" in given else [f"batch_size={fitting_batch_size(upsampled_side)}"]
            named[f"{name}, {upsampled_side} px"] = [*named[name], f"img_size={upsampled_side}", *batch]
    return named


def _with_batch_size(settings: Sequence[Setting], side: int, given: Collection[str]) -> list[Setting]:
    if "batch_size" in given:
        return list(settings)
    return [*settings, (f"batch_size={fitting_batch_size(side)}", f"slices of {side} × {side} pixels")]


def _side(config: TrainConfig, seen: Look) -> int:
    """The side of a training slice in pixels."""
    if config.crop_size is not None:
        return int(max(config.crop_size)) if isinstance(config.crop_size, list) else int(config.crop_size)
    if config.img_size != "native":
        return int(config.img_size)
    return -(-seen.longest_side // _SIDE_STEP) * _SIDE_STEP


def _half(side: int) -> int:
    return side // 2 // _SIDE_STEP * _SIDE_STEP
