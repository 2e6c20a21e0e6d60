"""Learning rate schedules, as a factor of the peak learning rate."""

from dataclasses import dataclass
from math import cos, pi, pow
from typing import Any, Literal, get_args

from torch import nn

from spleen.errors import InputError

ScheduleKind = Literal["cosine", "polynomial", "constant", "one_cycle"]


# Initial factor of one_cycle, as in PyTorch's OneCycleLR.
ONE_CYCLE_START = 1 / 25
# Into so many steps the time of a training is divided.
_MOMENTS = 100_000


def lr_factor(
    step: int,
    total_steps: int,
    warmup_steps: int,
    kind: str,
    power: float = 0.9,
    final_factor: float = 0.01,
) -> float:
    """Factor of the peak learning rate at an optimiser step, 0 to 1.

    The peak is at step ``warmup_steps`` and the final factor at step ``total_steps - 1``. The warm-up is
    linear from ``1 / (warmup_steps + 1)``; for one_cycle it is a half cosine from 1/25.

    Args:
        step: optimiser steps done before this one, from 0; steps after the last keep the final factor.
        total_steps: optimiser steps of the whole run, at least 1.
        warmup_steps: steps of the warm-up, at least 0.
        kind: the decay: "cosine" (Loshchilov and Hutter 2017), "polynomial" (Chen et al. 2017, DeepLab),
            "constant" (none), or "one_cycle" (Smith and Topin 2018: cosine up, cosine down).
        power: exponent of "polynomial", above 0.
        final_factor: factor at the last step, 0 to 1; unused by "constant".

    Raises:
        InputError: an argument outside its range.
    """
    _check_arguments(step, total_steps, warmup_steps, kind, power, final_factor)
    if step < warmup_steps:
        if kind == "one_cycle":
            return _half_cosine(ONE_CYCLE_START, 1.0, step / warmup_steps)
        return (step + 1) / (warmup_steps + 1)
    if kind == "constant":
        return 1.0
    progress = min(1.0, (step - warmup_steps) / max(1, total_steps - 1 - warmup_steps))
    if kind == "polynomial":
        return final_factor + (1 - final_factor) * pow(1 - progress, power)
    return _half_cosine(1.0, final_factor, progress)


def lr_factor_by_time(
    progress: float, warmup_fraction: float, kind: str, power: float = 0.9, final_factor: float = 0.01
) -> float:
    """Like `lr_factor`, at a fraction of the training's time, 0 to 1, instead of at a step.

    The peak is at `warmup_fraction`, the final factor at 1.
    """
    warmup = round(warmup_fraction * _MOMENTS)
    return lr_factor(round(progress * _MOMENTS), _MOMENTS + 1, warmup, kind, power, final_factor)


def _half_cosine(start: float, end: float, progress: float) -> float:
    return end + (start - end) * 0.5 * (1 + cos(pi * progress))


def _check_arguments(
    step: int, total_steps: int, warmup_steps: int, kind: str, power: float, final_factor: float
) -> None:
    kinds = get_args(ScheduleKind)
    if kind not in kinds:
        raise InputError(f"schedule kind must be one of {', '.join(kinds)}; got {kind!r}")
    if step < 0 or total_steps < 1 or warmup_steps < 0:
        raise InputError(
            "a schedule needs step >= 0, warmup_steps >= 0 and total_steps >= 1; "
            f"got {step}, {warmup_steps} and {total_steps}"
        )
    if power <= 0:
        raise InputError(f"the schedule's power must be above 0; got {power}")
    if not 0 <= final_factor <= 1:
        raise InputError(f"the schedule's final_factor must be between 0 and 1; got {final_factor}")


@dataclass(frozen=True)
class OptimiserSettings:
    """AdamW (Loshchilov & Hutter 2019) and the learning rate schedule."""

    lr: float
    weight_decay: float
    betas: tuple[float, float]
    schedule: str
    warmup_fraction: float
    power: float
    final_factor: float
    carried_over: frozenset[str] = frozenset()
    """The parameters of the network that another run has trained already, by name."""
    carried_over_lr_factor: float = 1.0
    """Their learning rate as a factor of the others'."""


def parameter_groups(network: nn.Module, settings: OptimiserSettings) -> list[dict[str, Any]]:
    """The trained parameters in groups of one learning rate: first the fresh ones, then those carried over.

    Frozen parameters are in none; an empty group is left out, and equal rates make one group.
    """
    trained = {name: weight for name, weight in network.named_parameters() if weight.requires_grad}
    factor = settings.carried_over_lr_factor
    slower = settings.carried_over if factor != 1 else frozenset()
    groups = [
        {"params": [weight for name, weight in trained.items() if name not in slower], "lr": settings.lr},
        {"params": [weight for name, weight in trained.items() if name in slower], "lr": settings.lr * factor},
    ]
    return [group for group in groups if group["params"]]
