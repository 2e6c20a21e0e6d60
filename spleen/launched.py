"""The number of training processes, and the rank of this one if it was started by srun or torchrun.

Imports nothing heavy: `spleen train --help` must be instant.
"""

import os
from dataclasses import dataclass
from datetime import datetime

import psutil

from spleen.config import TrainerConfig
from spleen.errors import InputError


@dataclass(frozen=True)
class Place:
    """One process of a training. Rank 0 records the run and is the only one visible to the user."""

    rank: int = 0
    local_rank: int = 0
    """Rank among the processes on its node; also the index of its GPU."""
    node: int = 0


FIRST = Place()


@dataclass(frozen=True)
class Launched:
    """The launcher's environment of this process, one of `count`."""

    launcher: str
    place: Place
    count: int


def processes_per_node(trainer: TrainerConfig) -> int:
    """Number of processes per node."""
    return len(trainer.devices) if isinstance(trainer.devices, list) else int(trainer.devices)


def process_count(trainer: TrainerConfig) -> int:
    """Total number of training processes."""
    return processes_per_node(trainer) * trainer.num_nodes


def launched() -> Launched | None:
    """The environment set by srun or torchrun; None unless one of them has started several processes."""
    for launcher, names in (
        ("torchrun", ("RANK", "LOCAL_RANK", "GROUP_RANK", "WORLD_SIZE")),
        ("srun", ("SLURM_PROCID", "SLURM_LOCALID", "SLURM_NODEID", "SLURM_STEP_NUM_TASKS")),
    ):
        if all(os.environ.get(name, "").isdigit() for name in names):
            rank, local_rank, node, count = (int(os.environ[name]) for name in names)
            if count > 1:
                return Launched(launcher, Place(rank, local_rank, node), count)
    return None


def check_launched(trainer: TrainerConfig) -> Launched | None:
    """Like `launched`; raises InputError if it does not match the configuration."""
    given, count = launched(), process_count(trainer)
    if given is not None and given.count != count:
        raise InputError(
            f"{given.launcher} has started {given.count} processes, but the configuration requests {count}: "
            "set trainer=ddp, and trainer.num_nodes × trainer.devices to the number of started processes"
        )
    if given is None and trainer.num_nodes > 1:
        raise InputError(
            f"trainer.num_nodes={trainer.num_nodes}: with several nodes, srun or torchrun must start the processes; "
            "see the script in docs/cluster.md"
        )
    return given


def run_stamp() -> str:
    """Name of the run folder: the time, or with a launcher a name that is the same in all processes."""
    given = launched()
    if given is not None and given.launcher == "srun":
        return f"slurm-{os.environ.get('SLURM_JOB_ID')}.{os.environ.get('SLURM_STEP_ID', '0')}"
    if given is not None and os.environ.get("GROUP_WORLD_SIZE", "1") != "1":
        return f"torchrun-{os.environ.get('TORCHELASTIC_RUN_ID')}"
    parent = psutil.Process().parent() if given is not None else None  # torchrun itself
    moment = datetime.now() if parent is None else datetime.fromtimestamp(parent.create_time())
    return moment.strftime("%Y-%m-%d_%H-%M-%S-%f")[:-3]
