"""Which recipes compete: those of networks, sizes and batches that this machine can train in the time."""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from itertools import product
from typing import cast

from spleen.auto.look import Look
from spleen.auto.plan import fitting_batch_size
from spleen.auto.timing import slices_per_second
from spleen.config.overrides import key_of
from spleen.config.schema import CasesData, TrainConfig
from spleen.imaging.slicing import Resize, plan_in_plane
from spleen.runs.api import compose_config

_FEWEST_PASSES = 3
"""Over the training slices: with fewer, a smaller network or smaller slices learn more."""
_SMALLEST_SIDE = 96
_SIDE_STEP = 16
_TIMINGS = 4
_LARGEST_UPSAMPLED_SIDE = 256
_PASSES_WHEN_UPSAMPLED = 30
"""Over the training slices: with so many, twice the pixels were better at equal time (one CT), with 2 worse."""
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
        return slices_per_second(config, training_shape(config, seen), timing_seconds / _TIMINGS) or 0.0

    def compose(settings: Sequence[Setting], *more: str) -> TrainConfig:
        return compose_config([*overrides, *(override for override, _ in settings), *more])

    settings, fastest = with_fitting_size(seen, given, training_seconds, compose, speed)
    config, needed = compose(settings), _FEWEST_PASSES * seen.n_training_slices / training_seconds
    may_be_wide = "model" not in given and fastest >= _LEAST_COST_OF_WIDTH * needed
    is_wide_affordable = may_be_wide and speed(compose(settings, "model=unet_wide")) >= needed
    competing_axes = seen.axes[:1] if isinstance(config.data, CasesData) else seen.axes
    return Candidates(
        settings=tuple(settings),
        by_name=recipes(given, is_wide_affordable, competing_axes),
        batch_size=config.batch_size,
        slices_per_second=fastest or 1.0,
    )


def with_fitting_size(
    seen: Look,
    given: Collection[str],
    training_seconds: float,
    compose: Callable[[Sequence[Setting]], TrainConfig],
    speed: Callable[[TrainConfig], float],
) -> tuple[list[Setting], float]:
    """The suggested settings with smaller or larger slices, where the speed demands or allows it, and that speed."""
    config = compose(seen.settings)
    most = config.loader.slices_per_epoch
    settings = _with_batch_size(seen.settings, _side(config, seen), given, most)
    side, fastest = _side(compose(settings), seen), speed(compose(settings))
    if {"img_size", "crop_size"} & set(given):
        return settings, fastest

    def passes(slices_per_second: float) -> float:
        return slices_per_second * training_seconds / seen.n_training_slices

    while passes(fastest) < _FEWEST_PASSES and (half := _half(side)) >= _SMALLEST_SIDE:
        side = half
        reason = f"at twice the size, {fastest:.3g} slices/s would see the training slices fewer than 3 times"
        settings = _resized(settings, side, reason, given, most)
        fastest = speed(compose(settings))
    if 2 * side <= _LARGEST_UPSAMPLED_SIDE and passes(fastest / 4) >= _PASSES_WHEN_UPSAMPLED:
        reason = f"small slices, upsampled: there is time to see each about {passes(fastest / 4):.0f} times"
        settings = _resized(settings, 2 * side, reason, given, most)
        fastest = speed(compose(settings))
    return settings, fastest


def recipes(given: Collection[str], is_wide_affordable: bool, axes: Sequence[str]) -> dict[str, list[str]]:
    """The overrides of each recipe by its name, in the order in which they are tried if there is not time for all.

    First the default and the recipe that differs most from it, then the further axes, of which only one volume has
    any here (those of many cases are fused), then what is in between.
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
    return named


def _resized(
    settings: Sequence[Setting], side: int, reason: str, given: Collection[str], slices_per_epoch: int | None
) -> list[Setting]:
    others = [each for each in settings if key_of(each[0]) not in ("img_size", "batch_size")]
    return _with_batch_size([*others, (f"img_size={side}", reason)], side, given, slices_per_epoch)


def _with_batch_size(
    settings: Sequence[Setting], side: int, given: Collection[str], slices_per_epoch: int | None
) -> list[Setting]:
    if "batch_size" in given:
        return list(settings)
    size = fitting_batch_size(side, slices_per_epoch)
    return [*settings, (f"batch_size={size}", f"slices of {side} × {side} pixels")]


def _side(config: TrainConfig, seen: Look) -> int:
    """The longer side of a training slice in pixels; of a given img_size without what padding adds."""
    if config.img_size == "native" or config.crop_size:
        return max(training_shape(config, seen))
    return int(config.img_size)


def training_shape(config: TrainConfig, seen: Look) -> tuple[int, int]:
    """Height and width of a training slice in pixels."""
    if config.crop_size is not None:
        *_, height, width = config.crop_size if isinstance(config.crop_size, list) else [config.crop_size] * 2
        return int(height), int(width)
    resize, multiple = cast(Resize, config.resize), config.model.size_multiple  # validated by the composition
    return plan_in_plane(seen.native, seen.pixel_mm, config.img_size, resize, multiple).padded


def _half(side: int) -> int:
    return side // 2 // _SIDE_STEP * _SIDE_STEP
