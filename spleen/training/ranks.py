"""The rank of one process in a training."""

from dataclasses import dataclass


@dataclass(frozen=True)
class ProcessRank:
    """One process of a training. Rank 0 records the run and is the only one visible to the user."""

    global_rank: int = 0
    local_rank: int = 0
    """Rank among the processes on its node; also the index of its GPU."""
    node_rank: int = 0


FIRST = ProcessRank()
