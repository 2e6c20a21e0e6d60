"""Optimiser steps on slices that lie on the device: on a CUDA device each step is one graph, on a CPU it runs eagerly.

A step (gather, augment, crop, forward, loss, backward, clip, AdamW, average) gets everything that varies, places of
slices, random draws and learning rate, in one copy. Nothing in it reads the device, so that CUDA can record it once for
each size of batch and then repeat it without Python.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Generator, Tensor, nn

from spleen.data.augmentation.augment import apply_draws
from spleen.data.augmentation.crop import CropSettings, WindowDraws, crop_drawn, draw_windows, window_size
from spleen.data.augmentation.draws import Draws, draw_augmentation
from spleen.data.augmentation.settings import AugmentSettings
from spleen.data.loading.on_device import DeviceSlices, Rows, StagedSlices, gather, size_step_px
from spleen.training.on_device.graphs import GraphedSteps, Inputs, Size
from spleen.types import AxisName


@dataclass(frozen=True)
class StepSettings:
    """What a step does to slices and gradients."""

    augment: AugmentSettings
    axis: AxisName
    swapped_classes: tuple[int, ...]
    crop: CropSettings | None
    gradient_clip: float | None
    uses_bf16: bool


class Steps:
    """Trains with the slices of given numbers.

    `loss_of` maps slices (b, c, h, w) and class indices (b, 1, h, w) to the loss; `after_step` is called after the
    optimiser, for example to average weights, and may not wait for the device.
    """

    def __init__(
        self,
        loss_of: Callable[[Tensor, Tensor], Tensor],
        optimiser: torch.optim.Optimizer,
        slices: DeviceSlices | StagedSlices,
        settings: StepSettings,
        after_step: Callable[[], None] | None = None,
    ) -> None:
        self._loss_of, self._optimiser, self._slices, self._settings = loss_of, optimiser, slices, settings
        self._after_step = after_step
        self._weights = [weight for group in optimiser.param_groups for weight in group["params"]]
        self._device = slices.pixels.device
        self._graphs = GraphedSteps(self._compute, self._device) if self._device.type == "cuda" else None
        self._rates = torch.zeros(len(optimiser.param_groups), device=self._device)
        if self._graphs is not None:
            make_capturable(optimiser, self._device)

    def step(self, numbers: Int64[np.ndarray, " b"], rates: Sequence[float], random: Generator) -> Float[Tensor, ""]:
        """One step at the learning rate of each parameter group; the loss stays on the device.

        `random` is a generator on the CPU.
        """
        size = self._slices.table.batch_size(numbers, size_step_px(self._device))
        inputs: Inputs = {**self._slices.rows(numbers)._asdict(), **self._draw(len(numbers), size, random)}
        if self._graphs is None:
            return self._compute(inputs, size)
        inputs["lr"] = torch.tensor(rates)
        for group, on_device in zip(self._optimiser.param_groups, self._rates, strict=True):
            group["lr"] = on_device
        loss = self._graphs.run(inputs, size)
        for group, rate in zip(self._optimiser.param_groups, rates, strict=True):
            group["lr"] = rate
        return loss

    def _draw(self, count: int, size: Size, random: Generator) -> Inputs:
        """The random numbers of a step, in the same order as for slices that a loader serves."""
        s, on_cpu = self._settings, self._device.type == "cpu"
        shape = (count, self._slices.table.n_channels, *size)
        drawn = draw_augmentation(shape, s.augment, s.axis, random, with_noise=on_cpu).tensors()
        if s.crop is not None and window_size(size, s.crop.size) != size:
            windows = draw_windows(count, s.crop.foreground_fraction, random)
            drawn |= {"around_pixel": windows.around_pixel, "window_numbers": windows.numbers}
        return drawn

    def _compute(self, inputs: Inputs, size: Size) -> Float[Tensor, ""]:
        s, slices = self._settings, self._slices
        with torch.autocast(self._device.type, enabled=False):
            rows = Rows(*(inputs[name] for name in Rows._fields))
            uniform = slices.table.is_uniform
            image, label = gather(slices.pixels, slices.labels, rows, size, uniform)
            draws, everywhere = Draws.of(inputs), self._graphs is not None
            image, label = apply_draws(image, label, draws, s.augment, s.axis, s.swapped_classes, everywhere)
            if s.crop is not None and "around_pixel" in inputs:
                windows = WindowDraws(inputs["around_pixel"], inputs["window_numbers"])
                image, label = crop_drawn(image, label, s.crop.size, windows, s.crop.n_classes)
            # The weights change from step to step, so no cast of them may be kept.
            with torch.autocast(self._device.type, torch.bfloat16, enabled=s.uses_bf16, cache_enabled=False):
                loss = self._loss_of(image, label)
            self._optimiser.zero_grad(set_to_none=True)
            loss.backward()
            if s.gradient_clip is not None:
                nn.utils.clip_grad_norm_(self._weights, s.gradient_clip)
            if self._graphs is not None:
                self._rates.copy_(inputs["lr"])
            self._optimiser.step()
            if self._after_step is not None:
                self._after_step()
        return loss.detach()


def make_capturable(optimiser: torch.optim.Optimizer, device: torch.device) -> None:
    """Let a CUDA graph record the optimiser's step, also with a state that was saved on a CPU."""
    for group in optimiser.param_groups:
        group["capturable"] = True
    for state in optimiser.state.values():
        state["step"] = state["step"].to(device)
