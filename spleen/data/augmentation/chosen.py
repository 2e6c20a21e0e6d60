"""Some slices of a batch: only those are computed on a CPU, all of them where the choice may not be waited for."""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Int64
from torch import Tensor


@dataclass(frozen=True)
class Chosen:
    """The slices of a batch that a transform changes."""

    mask: Bool[Tensor, " n"]
    index: Int64[Tensor, " m"] | None
    """Their numbers; None if all slices are computed and the mask only decides which are kept."""
    device: torch.device

    @property
    def are_none(self) -> bool:
        """Whether there is nothing to do, as far as that is known without waiting for a device."""
        return self.index is not None and not len(self.index)

    def of(self, values: Tensor) -> Tensor:
        """Of values for the whole batch (n, …) those of the computed slices, on their device."""
        return (values if self.index is None else values[self.index.to(values.device)]).to(self.device)

    def per_slice(self, values: Tensor) -> Tensor:
        """The same with shape (m, 1, 1, 1)."""
        return self.of(values).view(-1, 1, 1, 1)

    def put(self, changed: Tensor, batch: Tensor) -> Tensor:
        """A copy of the batch with the changed slices in their places; its type and memory format are preserved."""
        if self.index is None:
            return torch.where(self.mask.view(-1, 1, 1, 1), changed.to(batch.dtype), batch)
        replaced = batch.clone()
        replaced[self.index.to(batch.device)] = changed.to(batch.dtype)
        return replaced


def choose(mask: Bool[Tensor, " n"], batch: Tensor, everywhere: bool) -> Chosen:
    """The slices of a batch that are chosen by the mask, which lies on the CPU, or with `everywhere` on their device.

    With `everywhere` nothing depends on the data, so that a GPU can repeat the computation without the CPU.
    """
    return Chosen(mask, None if everywhere else mask.nonzero().squeeze(1), batch.device)
