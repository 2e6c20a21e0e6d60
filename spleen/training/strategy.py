"""The rank of a process in a training, and the Lightning strategy."""

from typing import TypeVar

import torch
from lightning_fabric.plugins.environments.lightning import LightningEnvironment
from pytorch_lightning.strategies import DDPStrategy, FSDPStrategy, Strategy

from spleen.training.ranks import ProcessRank

T = TypeVar("T")


class _Standing(LightningEnvironment):
    """Tells Lightning the rank of this process, and not to start any processes."""

    def __init__(self, process_rank: ProcessRank) -> None:
        super().__init__()
        self._process_rank = process_rank

    @property
    def creates_processes_externally(self) -> bool:
        return True

    def local_rank(self) -> int:
        return self._process_rank.local_rank

    def node_rank(self) -> int:
        return self._process_rank.node_rank


def lightning_strategy(name: str, process_rank: ProcessRank) -> Strategy | str:
    """Lightning's strategy: data parallel (ddp), sharded (fsdp), or a single process (auto)."""
    if name == "ddp":
        return DDPStrategy(cluster_environment=_Standing(process_rank), gradient_as_bucket_view=True)
    if name == "fsdp":  # with full checkpoints, which can be loaded anywhere
        return FSDPStrategy(cluster_environment=_Standing(process_rank), state_dict_type="full")
    return "auto"


def all_gather(items: list[T]) -> list[T]:
    """The items of all processes, in every process (all-gather)."""
    if not torch.distributed.is_initialized():
        return items
    parts: list[list[T]] = [[] for _ in range(torch.distributed.get_world_size())]
    torch.distributed.all_gather_object(parts, items)
    return [item for part in parts for item in part]
