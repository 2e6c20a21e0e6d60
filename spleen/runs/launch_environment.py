"""The number of training processes, and the rank of this one if it was started by srun or torchrun.

Imports nothing heavy: `spleen train --help` must be instant.
"""

import os
from dataclasses import dataclass

from spleen.config.schema import TrainerConfig, process_count
from spleen.errors import InputError
from spleen.training.ranks import ProcessRank


@dataclass(frozen=True)
class LaunchEnvironment:
    """The launcher's environment of this process, one of `count`."""

    launcher: str
    process_rank: ProcessRank
    count: int


def launch_environment() -> LaunchEnvironment | None:
    """The environment set by srun or torchrun; None unless one of them has started several processes."""
    for launcher, names in (
        ("torchrun", ("RANK", "LOCAL_RANK", "GROUP_RANK", "WORLD_SIZE")),
        ("srun", ("SLURM_PROCID", "SLURM_LOCALID", "SLURM_NODEID", "SLURM_STEP_NUM_TASKS")),
    ):
        if all(os.environ.get(name, "").isdigit() for name in names):
            rank, local_rank, node, count = (int(os.environ[name]) for name in names)
            if count > 1:
                return LaunchEnvironment(launcher, ProcessRank(rank, local_rank, node), count)
    return None


def check_launched(trainer: TrainerConfig) -> LaunchEnvironment | None:
    """Like `launch_environment`; raises InputError if it does not match the configuration."""
    given, count = launch_environment(), process_count(trainer)
    if given is not None and given.count != count:
        raise InputError(
            f"{given.launcher} has started {given.count} processes, but the configuration requests {count}: "
            "set trainer=ddp, and trainer.num_nodes × trainer.devices to the number of started processes"
        )
    if given is None and trainer.num_nodes > 1:
        raise InputError(
            f"trainer.num_nodes={trainer.num_nodes}: with several nodes, srun or torchrun must start the processes; "
            "see the script in docs/how-to/cluster.md"
        )
    return given
