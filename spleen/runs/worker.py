"""A worker process of a distributed training, started by rank 0; it records nothing."""

import logging
import os
import signal
import sys
import threading
import time
import traceback
from dataclasses import asdict

from torch.distributed import Store  # type: ignore[attr-defined]

from spleen.config import factory as build
from spleen.config.cascade import open_coarse, with_roi
from spleen.config.datasets import find_dataset
from spleen.config.factory import complete_spec
from spleen.config.warm_start import begin_warm, with_seen
from spleen.errors import InputError
from spleen.runs.data import open_data
from spleen.runs.launch_environment import LaunchEnvironment
from spleen.runs.processes import connect, join, leave, receive_job, report_failure, report_ready
from spleen.system.signals import StopRequest
from spleen.training.fit import Attempt, fit
from spleen.training.ranks import ProcessRank


def work(store: Store, process_rank: ProcessRank, count: int, stop: StopRequest) -> None:
    """Receive the job from rank 0 and train. Raises InputError, and reports it to rank 0."""
    logging.getLogger("spleen").setLevel(logging.WARNING)  # rank 0 already logs it
    try:
        _train(store, process_rank, count, stop)
    except InputError as error:
        report_failure(store, process_rank, str(error))
        raise
    except Exception:
        stop.check()  # if all processes received a signal, another one may have stopped first
        raise
    finally:
        leave()


def work_for(given: LaunchEnvironment, stop: StopRequest) -> None:
    """`work` in a process started by srun or torchrun."""
    work(connect(given), given.process_rank, given.count, stop)


def _train(store: Store, process_rank: ProcessRank, count: int, stop: StopRequest) -> None:
    order = receive_job(store)
    config = order.config
    settings = build.build_fit_settings(config)
    parts = build.build_parts(config)
    start = begin_warm(config, parts, order.run_folder, resumed=order.checkpoint is not None)
    dataset = find_dataset(config)
    coarse = open_coarse(config, order.run_folder, resumed=True)  # rank 0 has put it there
    data = open_data(config, dataset.cases, parts.spec.preprocessing, dataset.known_values, coarse=coarse).slices
    spec = with_roi(with_seen(complete_spec(parts.spec, data.cases_in("train"), data.cases_in("val")), start), coarse)
    module = build.build_module(config, parts, data, start.carried_over if start else ())
    report_ready(store, process_rank)
    join(store, process_rank, count, settings.accelerator)
    part = Attempt(order.run_folder, time.time(), order.checkpoint, stop, process_rank)
    fit(module, data, settings, part, spec, asdict(config))


def _end_with_rank_0() -> None:
    """Exit when standard input is closed: rank 0 holds its other end for as long as it lives."""

    def wait() -> None:
        sys.stdin.buffer.read()
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()


def main() -> int:
    """`python -m spleen.runs.worker PORT RANK COUNT`, started by spleen.runs.processes."""
    port, rank, count = map(int, sys.argv[1:])
    _end_with_rank_0()
    for number in (signal.SIGINT, signal.SIGTERM):  # rank 0 decides
        signal.signal(number, signal.SIG_IGN)
    try:
        work(connect(port), ProcessRank(rank, rank), count, StopRequest())
    except InputError:
        return 2
    except Exception:
        traceback.print_exc()
        return 1
    return 0


if __name__ == "__main__":
    exit_code = main()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(exit_code)  # rank 0 is waiting, and a regular interpreter exit is slow
