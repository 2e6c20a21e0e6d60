"""How fast this machine trains a network, from a few steps with noise instead of slices."""

import time

import torch
from pytorch_lightning.utilities.seed import isolate_rng

from spleen.config.factory import build_fit_settings, build_parts
from spleen.config.schema import TrainConfig

_STEPS = 5
_FEW_SLICES = 2
"""Not one: batch normalisation needs several values per channel, and the smallest slices have one pixel in the end."""


def slices_per_second(config: TrainConfig, shape: tuple[int, int], most_seconds: float) -> float | None:
    """Training slices of this height and width (pixels) per second; None without the memory for them.

    Loading and augmentation are not counted.

    The fastest of a few steps. They begin with two of few slices, of which the first may compile or wait; where whole
    batches would take longer than `most_seconds`, all of them have few.
    """
    fit = build_fit_settings(config)
    device = {"gpu": "cuda", "mps": "mps", "cpu": "cpu"}[fit.accelerator]
    dtype = {"bf16-mixed": torch.bfloat16, "16-mixed": torch.float16, "32-true": torch.float32}[fit.precision]
    with isolate_rng():
        parts = build_parts(config)
    network = parts.network.to(device, memory_format=torch.channels_last).train()  # type: ignore[call-overload]
    optimiser = torch.optim.AdamW(network.parameters(), 1e-6)
    height, width = shape
    size, noise = (config.batch_size, parts.spec.n_input_channels, *shape), torch.Generator().manual_seed(0)
    image = torch.randn(size, generator=noise)
    image = image.to(device, memory_format=torch.channels_last)
    label = torch.zeros((config.batch_size, 1, *shape), dtype=torch.uint8, device=device)
    label[:, :, : height // 4, : width // 4] = 1

    def seconds_of_step(n_slices: int) -> float:
        since = time.perf_counter()
        with torch.autocast(device, dtype, enabled=dtype != torch.float32):
            loss = parts.loss(network(image[:n_slices]), label[:n_slices])
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        loss.item()  # waits for the device
        return time.perf_counter() - since

    few = min(_FEW_SLICES, config.batch_size)
    began, rates = time.perf_counter(), []
    try:
        seconds_of_step(few)
        rates.append(few / seconds_of_step(few))
        while len(rates) <= _STEPS:
            slices_left = max(rates) * (most_seconds - (time.perf_counter() - began))
            if slices_left < few:
                break
            n_slices = config.batch_size if slices_left >= config.batch_size else few
            rates.append(n_slices / seconds_of_step(n_slices))
    except (MemoryError, torch.OutOfMemoryError):
        return None
    return max(rates)
