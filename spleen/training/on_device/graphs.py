"""A function of tensors as CUDA graphs: recorded once for each layout of its inputs, then repeated without Python."""

import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

log = logging.getLogger(__name__)

_EAGER_STEPS = 3
"""Before a graph is recorded: libraries choose their algorithms in the first steps. They train like all others."""

Inputs = dict[str, Tensor]
Size = tuple[int, int]


@dataclass
class _Recorded:
    """Steps of one size of batch."""

    buffer: Tensor
    """The inputs, which the graph reads at a fixed place."""
    inputs: Inputs
    """Views into the buffer."""
    eager_steps: int = 0
    graph: torch.cuda.CUDAGraph | None = None
    loss: Tensor | None = None


class GraphedSteps:
    """Runs a function of tensors as CUDA graphs, one for each layout of its inputs.

    The first steps of a layout run eagerly; they count like all others. What cannot be recorded, for example a network
    that reads values on the CPU, runs eagerly for good, and says so.
    """

    def __init__(self, compute: Callable[[Inputs, Size], Tensor], device: torch.device) -> None:
        self._compute, self._device = compute, device
        self._recorded: dict[tuple[object, ...], _Recorded] = {}
        self._stream = torch.cuda.Stream(device)
        self._pool = torch.cuda.graph_pool_handle()
        self.can_record = True

    def run(self, inputs: Inputs, size: Size) -> Tensor:
        """The result for these inputs, which lie on the CPU."""
        key = (size, *((name, value.dtype, tuple(value.shape)) for name, value in inputs.items()))
        if key not in self._recorded:
            buffer = torch.zeros(packed_bytes(inputs.values()), dtype=torch.uint8, device=self._device)
            self._recorded[key] = _Recorded(buffer, unpacked(buffer, inputs))
        recorded = self._recorded[key]
        recorded.buffer.copy_(packed(inputs).pin_memory(), non_blocking=True)
        if recorded.graph is None and self.can_record and recorded.eager_steps >= _EAGER_STEPS:
            self._record(recorded, size)
        if recorded.graph is not None and recorded.loss is not None:
            recorded.graph.replay()
            return recorded.loss.clone()
        recorded.eager_steps += 1
        return self._eagerly(recorded, size)

    def _eagerly(self, recorded: _Recorded, size: Size) -> Tensor:
        """On the stream that will be recorded, as its libraries prepare themselves per stream."""
        self._stream.wait_stream(torch.cuda.current_stream(self._device))
        with torch.cuda.stream(self._stream):
            loss = self._compute(recorded.inputs, size)
        torch.cuda.current_stream(self._device).wait_stream(self._stream)
        return loss

    def _record(self, recorded: _Recorded, size: Size) -> None:
        graph = torch.cuda.CUDAGraph()
        try:
            with torch.cuda.graph(graph, pool=self._pool, stream=self._stream):
                recorded.loss = self._compute(recorded.inputs, size)
        except RuntimeError as error:
            self.can_record = False
            torch.cuda.synchronize(self._device)
            log.info("training step by step, as this network or loss cannot be recorded as a CUDA graph: %s", error)
        else:
            recorded.graph = graph


def _by_size(inputs: Inputs) -> list[tuple[str, Tensor]]:
    """Longest items first, so that every tensor begins at a multiple of its item's size."""
    return sorted(inputs.items(), key=lambda item: -item[1].itemsize)


def packed_bytes(values: Iterable[Tensor]) -> int:
    """Bytes of tensors laid end to end."""
    return sum(value.numel() * value.itemsize for value in values)


def packed(inputs: Inputs) -> Tensor:
    """The bytes of tensors on the CPU, end to end."""
    return torch.cat([value.contiguous().view(-1).view(torch.uint8) for _, value in _by_size(inputs)])


def unpacked(buffer: Tensor, like: Inputs) -> Inputs:
    """Views into a buffer of `packed` tensors, with the shapes and types of `like`."""
    views, start = {}, 0
    for name, value in _by_size(like):
        end = start + value.numel() * value.itemsize
        views[name] = buffer[start:end].view(value.dtype).view(value.shape)
        start = end
    return views
