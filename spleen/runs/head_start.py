"""A head start for the slices: a process of its own prepares them while this one still imports Lightning."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from spleen.config.schema import CasesData, TrainConfig
from spleen.runs.launch_environment import launch_environment
from spleen.system.process import usable_cores


@contextmanager
def slices_prepared_meanwhile(config: TrainConfig) -> Iterator[None]:
    """Prepare the slices of a single volume in a forked process while the block runs, and wait for it at the end.

    The run then finds them in the store. If anything goes wrong there, it prepares them itself and says what it was.
    Many cases are left to the run, which shows its progress; so is a volume whose box is still to be found, and
    everything where there is only one core, no safe fork, or a launcher that starts several processes.
    """
    unready = isinstance(config.data, CasesData) or config.roi_from is not None
    child = None if unready or not _may_fork() else _fork(config)
    try:
        yield
    finally:
        if child is not None:
            with suppress(ChildProcessError):
                os.waitpid(child, 0)


def _may_fork() -> bool:
    return sys.platform == "linux" and usable_cores() > 1 and launch_environment() is None


def _fork(config: TrainConfig) -> int:
    """Start the process; returns its id here, and never returns there."""
    import torch  # once for both

    sys.stdout.flush()
    sys.stderr.flush()
    if child := os.fork():
        return child
    status = 1
    try:
        torch.set_num_threads(1)  # threads do not survive a fork, and the other core is busy
        _prepare(config)
        status = 0
    finally:
        sys.stdout.flush()
        os._exit(status)  # nothing of the parent may run twice: no handlers at exit, no exception that rises further


def _prepare(config: TrainConfig) -> None:
    from spleen.config.datasets import check_files_exist, complete, compute_phantom, find_dataset
    from spleen.config.preprocessing import build_classes, build_preprocessing
    from spleen.data.store.store import open_case

    dataset = find_dataset(config)
    check_files_exist(config, dataset.cases)
    config = complete(config, dataset)
    compute_phantom(config)
    (case,) = dataset.cases
    open_case(case, build_preprocessing(config, build_classes(config)), Path(config.cache_dir))
