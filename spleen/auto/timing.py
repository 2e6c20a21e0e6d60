"""How fast this machine trains a network, from a few steps with noise instead of slices."""

import time

import torch
from pytorch_lightning.utilities.seed import isolate_rng

from spleen.config.factory import build_fit_settings, build_parts
from spleen.config.schema import TrainConfig

_STEPS = 6


def slices_per_second(config: TrainConfig, side: int, most_seconds: float) -> float | None:
    """Training slices of `side` × `side` pixels per second, without loading and augmentation; None without the memory.

    The fastest of a few steps after the first, as others may compile or wait.
    """
    fit = build_fit_settings(config)
    device = {"gpu": "cuda", "mps": "mps", "cpu": "cpu"}[fit.accelerator]
    dtype = {"bf16-mixed": torch.bfloat16, "16-mixed": torch.float16, "32-true": torch.float32}[fit.precision]
    with isolate_rng():
        parts = build_parts(config)
    network = parts.network.to(device, memory_format=torch.channels_last).train()  # type: ignore[call-overload]
    optimiser = torch.optim.AdamW(network.parameters(), 1e-6)
    noise = torch.Generator().manual_seed(0)
    shape = config.batch_size, parts.spec.n_input_channels, side, side
    image = torch.randn(shape, generator=noise).to(device, memory_format=torch.channels_last)
    label = torch.zeros((config.batch_size, 1, side, side), dtype=torch.uint8, device=device)
    label[:, :, : side // 4, : side // 4] = 1
    began = time.perf_counter()
    seconds: list[float] = []
    try:
        while len(seconds) < _STEPS and (len(seconds) < 2 or time.perf_counter() - began < most_seconds):
            since = time.perf_counter()
            with torch.autocast(device, dtype, enabled=dtype != torch.float32):
                loss = parts.loss(network(image), label)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            loss.item()  # waits for the device
            seconds.append(time.perf_counter() - since)
    except (MemoryError, torch.OutOfMemoryError):
        return None
    return config.batch_size / min(seconds[1:])
