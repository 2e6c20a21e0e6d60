"""Baseline of the throughput benchmark: the training loop one would write without a framework."""

import itertools
import time
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import nn

from spleen.data.loading.batches import SliceBatch
from spleen.training.optimiser import OptimiserSettings


class BareLoop:
    """Trains a network on batches already in memory, over and over, at a constant learning rate.

    On a CUDA device the whole step is one graph, which is the least that this device can take for it.
    """

    def __init__(
        self,
        network: nn.Module,
        loss: nn.Module,
        optimiser: OptimiserSettings,
        gradient_clip: float | None,
        batches: Sequence[SliceBatch],
        device: torch.device,
        bf16: bool,
    ) -> None:
        self._network = network.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self._loss, self._clip, self._device, self._bf16 = loss, gradient_clip, device, bf16
        on_cuda = device.type == "cuda"
        self._adamw = torch.optim.AdamW(
            network.parameters(),
            optimiser.lr,
            optimiser.betas,
            weight_decay=optimiser.weight_decay,
            capturable=on_cuda,
            fused=device.type in ("cpu", "cuda"),  # as in the trainer
        )
        self._batches = itertools.cycle(
            [b._replace(image=b.image.to(device), label=b.label.to(device)) for b in batches]
        )
        network.train()
        self._graph = self._recorded() if on_cuda else None

    def turn(self, seconds: float) -> float:
        """Train for about this long, after one step that is not counted; returns slices per second."""
        self._step()
        slices, before = 0, synchronised_time()
        while True:
            slices += self._step()
            elapsed = synchronised_time() - before
            if elapsed >= seconds:
                return slices / elapsed

    def _recorded(self) -> torch.cuda.CUDAGraph:
        """The step as a graph, which reads its batch from a fixed place."""
        first = next(self._batches)
        self._fixed = first._replace(image=first.image.clone(), label=first.label.clone())
        stream, graph = torch.cuda.Stream(), torch.cuda.CUDAGraph()
        with torch.cuda.stream(stream):
            for _ in range(3):
                self._train(self._fixed)
        with torch.cuda.graph(graph, stream=stream):
            self._train(self._fixed)
        return graph

    def _step(self) -> int:
        batch = next(self._batches)
        if self._graph is None:
            self._train(batch)
        else:
            self._fixed.image.copy_(batch.image)
            self._fixed.label.copy_(batch.label)
            self._graph.replay()
        return len(batch.image)

    def _train(self, batch: SliceBatch) -> None:
        with self._autocast():
            logits = self._network(batch.image.contiguous(memory_format=torch.channels_last))
            loss = self._loss(logits, batch.label)
        self._adamw.zero_grad(set_to_none=True)
        loss.backward()
        if self._clip is not None:
            nn.utils.clip_grad_norm_(self._network.parameters(), self._clip)
        self._adamw.step()

    def _autocast(self) -> AbstractContextManager[object]:
        bf16 = torch.autocast(self._device.type, torch.bfloat16, cache_enabled=self._device.type == "cpu")
        return bf16 if self._bf16 else nullcontext()


def synchronised_time() -> float:
    """Performance counter in seconds, read after all queued GPU work has finished."""
    if torch.accelerator.is_available():
        torch.accelerator.synchronize()
    return time.perf_counter()
