"""The measurements of benchmarks/many_cases.py, each made in a fresh process that prints one line of JSON.

build: seconds to open all cases with an empty store, with the given number of threads.
start: everything that `python train.py` does before training, with a complete store: completing the configuration from
    the data files, the identity of the job, and `open_data`. Discovery is also timed on its own.
load: slices/s of the training loader alone, over a few seconds; for one case, the loader has only that case.
read: five batches, each after dropping the store from the page cache. /proc/self/io gives the bytes that the process
    requested (rchar, without mapped files) and that the disk delivered (read_bytes), relative to the bytes of the
    slices with their context slices and labels.
train: one whole run, with two validations and a test, on 200 batches of 32 slices drawn from all cases, with a network
    of width 4. Memory (VmRSS and RssAnon in /proc/self/status) and open files are sampled every 10 ms.
"""

import argparse
import json
import os
import tempfile
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path

_started = time.perf_counter()

import numpy as np  # noqa: E402
import torch  # noqa: E402

from benchmarks.jobs import configure, quoted  # noqa: E402
from spleen.config import factory as build_model  # noqa: E402
from spleen.config.datasets import complete, find_dataset  # noqa: E402
from spleen.config.identity import identity  # noqa: E402
from spleen.config.preprocessing import build_classes, build_preprocessing  # noqa: E402
from spleen.config.schema import TrainConfig  # noqa: E402
from spleen.data.loading.datamodule import SliceDataModule  # noqa: E402
from spleen.data.splits.blocks import SliceSplit  # noqa: E402
from spleen.data.store.build import open_cases  # noqa: E402
from spleen.runs import train as run  # noqa: E402
from spleen.runs.data import open_data  # noqa: E402
from spleen.training import fit  # noqa: E402

_IMPORTS_SECONDS = time.perf_counter() - _started
_LOADING_SECONDS = 3.0
_READ_BATCHES = 5
_SETTINGS = [
    "data=decathlon", "img_size=64", "axis=coronal", "batch_size=32", "model.network.width=4", "epochs=2",
    "loader.slices_per_epoch=3200", "logger=none", "trainer=cpu", "trainer.progress=false",
]  # fmt: skip


@fit.quiet()
def main() -> None:
    """Measure one part."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=list(_PARTS))
    parser.add_argument("root", type=Path, help="a Decathlon folder")
    parser.add_argument("cache", type=Path, help="where the store is")
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="default: one for each core")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    places = [f"data.root={quoted(arguments.root)}", f"cache_dir={quoted(arguments.cache)}"]
    with tempfile.TemporaryDirectory() as outputs:
        config = configure([*_SETTINGS, *places, f"output_dir={quoted(Path(outputs))}"])
        measured = _PARTS[arguments.part](config)
    print(json.dumps(measured))


def build(config: TrainConfig) -> dict[str, float]:
    """Fill an empty store."""
    dataset = find_dataset(config)
    completed = complete(config, dataset)
    settings = build_preprocessing(completed, build_classes(completed))
    before = time.perf_counter()
    open_cases(dataset.cases, settings, Path(completed.cache_dir), skip_bad=False)
    return {"seconds": time.perf_counter() - before}


def start(config: TrainConfig) -> dict[str, float]:
    """Start with a complete store."""
    begin = time.perf_counter()
    dataset = find_dataset(config)
    completed = complete(config, dataset)
    identity(completed, dataset.cases)
    before = time.perf_counter()
    open_data(completed, dataset.cases, build_model.build_spec(completed).preprocessing)
    end = time.perf_counter()
    find_dataset(completed)
    return {
        "imports": _IMPORTS_SECONDS,
        "second_start": end - begin,
        "open_data": end - before,
        "discovery": time.perf_counter() - end,
    }


def load(config: TrainConfig) -> dict[str, float]:
    """Measure the loader alone."""
    data = _open(config)
    case = data.slices("train")[0].case
    everything = SliceSplit(train=tuple(range(case.n_slices)), val=(), test=(), guard=())
    alone = SliceDataModule([case], [everything], data.settings)
    mixed = [len(batch.origin[:, 0].unique()) for batch in data.slice_batches()]
    return {
        "all_cases": _slices_per_second(data),
        "one_case": _slices_per_second(alone),
        "cases_in_a_batch": float(np.mean(mixed)),
    }


def _open(config: TrainConfig) -> SliceDataModule:
    dataset = find_dataset(config)
    completed = complete(config, dataset)
    return open_data(completed, dataset.cases, build_model.build_spec(completed).preprocessing).slices


def _slices_per_second(data: SliceDataModule) -> float:
    loader, count, before = data.slice_batches(), 0, time.perf_counter()
    while (seconds := time.perf_counter() - before) < _LOADING_SECONDS:
        count += sum(len(batch.image) for batch in loader)
    return count / seconds


def read(config: TrainConfig) -> dict[str, float]:
    """Measure the bytes that a batch reads from the store."""
    files = list(Path(config.cache_dir).glob("slices/*/*"))
    data = _open(config)
    loader = data.slice_batches()
    numbers = [batch for _, batch in zip(range(_READ_BATCHES), loader.sampler, strict=False)]
    loader.dataset[numbers[0]]  # triggers lazy imports
    needed = asked = from_disk = 0
    for batch in numbers:
        _drop_from_system_cache(files)
        asked_before, from_disk_before = _read_so_far()
        slices = loader.dataset[batch]
        asked_after, from_disk_after = _read_so_far()
        asked, from_disk = asked + asked_after - asked_before, from_disk + from_disk_after - from_disk_before
        needed += slices.image.numel() * np.float16().nbytes + slices.label.numel()
    size = sum(path.stat().st_size for path in files)
    return {"asked": asked / needed, "from_disk": from_disk / needed, "store_mb": size / 2**20}


def _drop_from_system_cache(files: list[Path]) -> None:
    for path in files:
        descriptor = os.open(path, os.O_RDONLY)
        os.fsync(descriptor)  # only pages already written to disk can be dropped
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(descriptor)


def _read_so_far() -> tuple[int, int]:
    """Bytes that this process has requested, and bytes that the disk has delivered to it."""
    entries = dict(line.split(": ") for line in Path("/proc/self/io").read_text().splitlines())
    return int(entries["rchar"]), int(entries["read_bytes"])


def train(config: TrainConfig) -> dict[str, float]:
    """Monitor the memory and open files of one run."""
    _open(config)
    opened_mb = _memory_mb()["VmRSS"]
    with _Monitor() as monitor:
        run.run(config, Path(config.output_dir) / "run", time.time())
    return {
        "opened_mb": opened_mb,
        "peak_mb": monitor.peak["VmRSS"],
        "peak_anonymous_mb": monitor.peak["RssAnon"],
        "open_files": monitor.open_files,
    }


class _Monitor:
    """Context manager: peak memory in MB and largest number of open files of this process."""

    def __init__(self) -> None:
        self.peak = _memory_mb()
        self.open_files = 0
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._sample)

    def __enter__(self) -> "_Monitor":
        self._thread.start()
        return self

    def __exit__(self, *failure: object) -> None:
        self._end.set()
        self._thread.join()

    def _sample(self) -> None:
        while not self._end.wait(0.01):
            self.peak = {name: max(value, self.peak[name]) for name, value in _memory_mb().items()}
            self.open_files = max(self.open_files, len(list(Path("/proc/self/fd").iterdir())))


def _memory_mb() -> dict[str, float]:
    entries = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return {name: int(entries[name].split()[0]) / 1024 for name in ("VmRSS", "RssAnon")}  # in KiB


_PARTS: Mapping[str, Callable[[TrainConfig], dict[str, float]]] = {
    "build": build,
    "start": start,
    "load": load,
    "read": read,
    "train": train,
}


if __name__ == "__main__":
    main()
