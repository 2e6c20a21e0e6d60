"""How many processes train together, and where this one stands if srun or torchrun has started it.

Nothing heavy is imported here: `spleen train --help` must answer at once.
"""

import os
from dataclasses import dataclass
from datetime import datetime

import psutil

from spleen.config import TrainerConfig
from spleen.errors import InputError


@dataclass(frozen=True)
class Place:
    """One process of a training. The one with rank 0 records the run, and is the only one that the user sees."""

    rank: int = 0
    local_rank: int = 0
    """Rank among the processes of its machine; the number of its GPU."""
    node: int = 0


FIRST = Place()


@dataclass(frozen=True)
class Launched:
    """This process as the launcher has started it, one of `count`."""

    launcher: str
    place: Place
    count: int


def processes_per_node(trainer: TrainerConfig) -> int:
    """Processes on each machine."""
    return len(trainer.devices) if isinstance(trainer.devices, list) else int(trainer.devices)


def process_count(trainer: TrainerConfig) -> int:
    """Processes of the whole training."""
    return processes_per_node(trainer) * trainer.num_nodes


def launched() -> Launched | None:
    """What srun or torchrun says of this process; None if none of them has started several."""
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
    """As `launched`; raises InputError where that does not fit the configuration."""
    given, count = launched(), process_count(trainer)
    if given is not None and given.count != count:
        raise InputError(
            f"{given.launcher} has started {given.count} processes, but the configuration asks for {count}: "
            "give trainer=ddp, and trainer.num_nodes × trainer.devices as many as are started"
        )
    if given is None and trainer.num_nodes > 1:
        raise InputError(
            f"trainer.num_nodes={trainer.num_nodes}: several machines need srun or torchrun to start the processes; "
            "docs/cluster.md has a script"
        )
    return given


def run_stamp() -> str:
    """The name of a run's folder: the time; of processes that a launcher has started, a name that they all find."""
    given = launched()
    if given is not None and given.launcher == "srun":
        return f"slurm-{os.environ.get('SLURM_JOB_ID')}.{os.environ.get('SLURM_STEP_ID', '0')}"
    if given is not None and os.environ.get("GROUP_WORLD_SIZE", "1") != "1":
        return f"torchrun-{os.environ.get('TORCHELASTIC_RUN_ID')}"
    parent = psutil.Process().parent() if given is not None else None  # torchrun itself
    moment = datetime.now() if parent is None else datetime.fromtimestamp(parent.create_time())
    return moment.strftime("%Y-%m-%d_%H-%M-%S-%f")[:-3]
