"""Training with several processes: starting the workers, sending them the job, waiting for them and ending them.

Rank 0 is the process started by the user. It opens a torch store (a small key-value server) through which the processes
exchange messages before training: the job, readiness, and failures. Then they form a process group.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from functools import cache
from itertools import count as counting
from pathlib import Path
from typing import IO

import torch
from lightning_fabric.plugins.environments.slurm import SLURMEnvironment
from omegaconf import OmegaConf
from torch.distributed import PrefixStore, Store, TCPStore  # type: ignore[attr-defined]
from torch.distributed.rendezvous import rendezvous

from spleen.config.parsing import parse
from spleen.config.schema import TrainConfig, process_count, processes_per_node
from spleen.errors import InputError
from spleen.runs.launch_environment import LaunchEnvironment, check_launched
from spleen.system.hardware import Accelerator
from spleen.system.resources import python_path
from spleen.system.signals import StopRequest
from spleen.training.ranks import FIRST, ProcessRank

_ORDER, _READY, _FAILURE = "order", "ready", "failure"


# Time limit for messages between processes: rank 0 may still be building the slice store.
_PATIENCE = timedelta(hours=2)


# Time for the operating system to notify the other processes after one has ended.
_GRACE_SECONDS = 5.0


# All processes finish the last collective operation together, so they should end within this time.
_END_SECONDS = 60.0


_POLL_SECONDS = 0.02


_trainings = counting()


@dataclass(frozen=True)
class Order:
    """The job that rank 0 sends to the other processes."""

    config: TrainConfig
    run_folder: Path
    checkpoint: Path | None

    def to_json(self) -> str:
        """Serialise for the store."""
        config = OmegaConf.to_container(OmegaConf.structured(self.config))
        checkpoint = self.checkpoint and str(self.checkpoint)
        return json.dumps({"config": config, "run_folder": str(self.run_folder), "checkpoint": checkpoint})

    @staticmethod
    def from_json(text: str | bytes) -> "Order":
        """The inverse of `to_json`."""
        content = json.loads(text)
        checkpoint = content["checkpoint"] and Path(content["checkpoint"])
        return Order(parse(OmegaConf.create(content["config"])), Path(content["run_folder"]), checkpoint)


@dataclass(frozen=True)
class _Worker:
    rank: int
    process: subprocess.Popen[bytes]
    output: IO[bytes]

    def end(self) -> None:
        self.process.kill()
        self.process.wait()
        if self.process.stdin is not None:
            self.process.stdin.close()
        self.output.close()

    def last_words(self) -> str:
        self.output.seek(0)
        lines = self.output.read().decode(errors="replace").rstrip().splitlines()
        return "\n".join(lines[-12:])


@contextmanager
def worker_processes(order: Order, accelerator: Accelerator, stop: StopRequest) -> Iterator[None]:
    """Run the block in rank 0 together with the other processes; with a single process, do nothing.

    Workers are started here unless srun or torchrun has started them, and none outlives the block: if one fails, the
    training ends. Raises InputError if a process reports invalid input, and RuntimeError if one dies.
    """
    trainer = order.config.trainer
    count = process_count(trainer)
    if count == 1:
        yield
        return
    given = check_launched(trainer)
    store = _rendezvous(given) if given else _open_store()
    store.set(_ORDER, order.to_json())
    workers: list[_Worker] = []
    with _divided_threads(processes_per_node(trainer)):
        try:
            if isinstance(store, TCPStore) and given is None:
                workers += [_start(rank, count, store.port) for rank in range(1, count)]
            _wait_until_ready(store, workers, count)
            join(store, FIRST, count, accelerator)
            yield
            _wait_for_end(workers)
        except Exception as error:
            stop.check()  # if all processes received a signal, another one may have stopped first
            if workers and not isinstance(error, InputError):
                _blame(workers, store, count, error)
            raise
        finally:
            for worker in workers:
                worker.end()
            leave()


def join(store: Store, process_rank: ProcessRank, count: int, accelerator: Accelerator) -> None:
    """Join the process group of all processes."""
    backend = "nccl" if accelerator == "gpu" else "gloo"
    torch.distributed.init_process_group(
        backend, store=PrefixStore("group", store), rank=process_rank.global_rank, world_size=count
    )


def leave() -> None:
    """Leave the process group, if there is one."""
    if torch.distributed.is_initialized():
        with suppress(RuntimeError):  # peers have already ended
            torch.distributed.destroy_process_group()


def connect(given: LaunchEnvironment | int) -> Store:
    """Connect to the store of rank 0: via the launcher, or on a port of this machine."""
    if isinstance(given, LaunchEnvironment):
        return _rendezvous(given)
    return TCPStore("127.0.0.1", given, is_master=False, timeout=_PATIENCE)


def receive_job(store: Store) -> Order:
    """Wait for the job from rank 0."""
    return Order.from_json(store.get(_ORDER))


def report_ready(store: Store, process_rank: ProcessRank) -> None:
    """Report to rank 0 that this process is ready to join the group."""
    store.set(f"{_READY}/{process_rank.global_rank}", "")


def report_failure(store: Store, process_rank: ProcessRank, message: str) -> None:
    """Report invalid input to rank 0."""
    store.set(f"{_FAILURE}/{process_rank.global_rank}", message)


def _open_store() -> TCPStore:
    return TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False, timeout=_PATIENCE)


def _rendezvous(given: LaunchEnvironment) -> Store:
    # The jobs of a sweep use the same rendezvous one after the other.
    return PrefixStore(f"training {next(_trainings)}", _meeting_place(given))


@cache
def _meeting_place(given: LaunchEnvironment) -> Store:
    if given.launcher == "srun":
        slurm = SLURMEnvironment(auto_requeue=False)
        os.environ.setdefault("MASTER_ADDR", slurm.main_address)
        os.environ.setdefault("MASTER_PORT", str(slurm.main_port))
    store: Store
    store, _, _ = next(rendezvous("env://", given.process_rank.global_rank, given.count))
    store.set_timeout(_PATIENCE)
    return store


def _start(rank: int, count: int, port: int) -> _Worker:
    """Start a spleen.runs.worker process. It ends when its standard input is closed, even if this process is killed."""
    output = tempfile.TemporaryFile()  # noqa: SIM115  (closed by _Worker.end)
    safe_path = (
        [] if {"", str(Path.cwd())} & set(sys.path) else ["-P"]
    )  # modules of the current folder, as in this process
    process = subprocess.Popen(
        [sys.executable, *safe_path, "-m", "spleen.runs.worker", str(port), str(rank), str(count)],
        env={**os.environ, "PYTHONPATH": python_path(), "OMP_NUM_THREADS": str(torch.get_num_threads())},
        stdin=subprocess.PIPE,
        stdout=output,
        stderr=subprocess.STDOUT,
        start_new_session=True,  # only rank 0 receives Ctrl-C
    )
    return _Worker(rank, process, output)


def _wait_until_ready(store: Store, workers: Sequence[_Worker], count: int) -> None:
    keys = [f"{_READY}/{rank}" for rank in range(1, count)]
    until = time.monotonic() + _PATIENCE.total_seconds()
    while not store.check(keys):
        if any(worker.process.poll() is not None for worker in workers):
            raise RuntimeError("a process ended before training started")
        if time.monotonic() > until:
            raise RuntimeError(f"not all {count} processes are ready after {_PATIENCE}")
        time.sleep(_POLL_SECONDS)


def _wait_for_end(workers: Sequence[_Worker]) -> None:
    until = time.monotonic() + _END_SECONDS
    for worker in workers:
        with suppress(subprocess.TimeoutExpired):
            worker.process.wait(max(0.0, until - time.monotonic()))


def _blame(workers: Sequence[_Worker], store: Store, count: int, error: Exception) -> None:
    """Raise the error of the process that failed, if any; the others only lost their connection to it."""
    until = time.monotonic() + _GRACE_SECONDS
    while time.monotonic() < until and all(worker.process.poll() is None for worker in workers):
        time.sleep(_POLL_SECONDS)
    for worker in workers:
        if store.check([f"{_FAILURE}/{worker.rank}"]):
            raise InputError(store.get(f"{_FAILURE}/{worker.rank}").decode()) from error
    codes = {worker: worker.process.poll() for worker in workers}
    failed = sorted((worker for worker, code in codes.items() if code), key=lambda worker: codes[worker] or 0)
    if failed:  # a process killed by a signal (negative code) comes before those that only lost the connection
        code = codes[failed[0]] or 0
        how = f"was killed by signal {-code}" if code < 0 else f"ended with exit code {code}"
        raise RuntimeError(
            f"process {failed[0].rank + 1} of {count} {how}\n{failed[0].last_words()}".rstrip()
        ) from error


@contextmanager
def _divided_threads(processes: int) -> Iterator[None]:
    """Divide the threads of this process among the given number of processes."""
    before = torch.get_num_threads()
    torch.set_num_threads(max(1, before // processes))
    try:
        yield
    finally:
        torch.set_num_threads(before)
