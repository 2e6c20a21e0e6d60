"""Memory available to a process inside a container or a Slurm job, and threads that share it."""

import threading
import time
from collections.abc import Sequence
from concurrent.futures import CancelledError, ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest

from spleen.system.memory import MemoryBudget, free_memory_bytes

MIB = 2**20


def group(folder: Path, version: int, limit: str, used: int, reclaimable: int = 0) -> None:
    """Write the files of a control group as Linux exposes them."""
    folder.mkdir(parents=True, exist_ok=True)
    names = {1: ("memory.limit_in_bytes", "memory.usage_in_bytes"), 2: ("memory.max", "memory.current")}[version]
    for name, text in zip(names, (limit, str(used)), strict=True):
        (folder / name).write_text(f"{text}\n")
    key = {1: "total_inactive_file", 2: "inactive_file"}[version]
    (folder / "memory.stat").write_text(f"anon {used - reclaimable}\n{key} {reclaimable}\n")


@pytest.fixture
def membership(tmp_path: Path) -> Path:
    return tmp_path / "cgroup"


def test_the_tightest_cgroup_limit_applies_and_reclaimable_cache_is_free(tmp_path: Path, membership: Path) -> None:
    membership.write_text("0::/slurm/job_7/step_0\n")
    group(tmp_path / "slurm" / "job_7" / "step_0", 2, "max", 30 * MIB)
    group(tmp_path / "slurm" / "job_7", 2, str(100 * MIB), 40 * MIB, reclaimable=15 * MIB)
    group(tmp_path / "slurm", 2, str(500 * MIB), 40 * MIB)
    assert free_memory_bytes(tmp_path, membership) == (100 - 40 + 15) * MIB


def test_cgroup_v1_is_supported(tmp_path: Path, membership: Path) -> None:
    membership.write_text("9:name=systemd:/\n4:cpu,memory:/docker/abc\n1:cpu:/docker/abc\n0::/\n")
    group(tmp_path / "memory" / "docker" / "abc", 1, str(64 * MIB), 14 * MIB, reclaimable=4 * MIB)
    group(tmp_path / "memory", 1, "9223372036854771712", 900 * MIB)
    assert free_memory_bytes(tmp_path, membership) == (64 - 14 + 4) * MIB


def test_inside_a_container_the_root_cgroup_sets_the_limit(tmp_path: Path, membership: Path) -> None:
    membership.write_text("0::/../kubepods/pod9\n")
    group(tmp_path, 2, str(32 * MIB), 2 * MIB)
    assert free_memory_bytes(tmp_path, membership) == 30 * MIB


@pytest.mark.parametrize("line", [None, "0::/\n"])
def test_without_a_limit_the_free_memory_of_the_machine_is_used(
    tmp_path: Path, membership: Path, line: str | None
) -> None:
    if line is not None:
        membership.write_text(line)
    group(tmp_path, 2, "max", 5 * MIB)
    free = psutil.virtual_memory().available
    assert free_memory_bytes(tmp_path, membership) == pytest.approx(free, rel=0.2)


def peak_held(budget: MemoryBudget, needs: Sequence[int]) -> int:
    """Peak amount held at the same time by threads with these needs."""
    lock, held, peak = threading.Lock(), 0, 0

    def work(need: int) -> None:
        nonlocal held, peak
        with budget.taken(need):
            with lock:
                held += need
                peak = max(peak, held)
            time.sleep(0.02)
            with lock:
                held -= need

    with ThreadPoolExecutor(len(needs)) as pool:
        list(pool.map(work, needs))
    return peak


@pytest.mark.parametrize(("needs", "peak"), [((6, 6, 6), 6), ((25,), 25), ((25, 25), 25), ((4, 4, 4), 8)])
def test_threads_stay_within_the_budget_and_a_larger_need_runs_alone(needs: tuple[int, ...], peak: int) -> None:
    assert max(needs) <= peak_held(MemoryBudget(10), needs) <= peak


def test_threads_that_fit_the_budget_run_concurrently() -> None:
    budget, both = MemoryBudget(10), threading.Barrier(2, timeout=60)

    def meet() -> int:
        with budget.taken(5):
            return both.wait()

    with ThreadPoolExecutor(2) as pool:
        assert sorted(future.result() for future in [pool.submit(meet), pool.submit(meet)]) == [0, 1]


def test_a_failing_thread_releases_its_share() -> None:
    budget = MemoryBudget(10)
    with pytest.raises(ValueError, match="bad case"), budget.taken(10):
        raise ValueError("bad case")
    assert peak_held(budget, (10,)) == 10


def test_closing_the_budget_cancels_waiting_threads() -> None:
    budget = MemoryBudget(10)
    with budget.taken(10), ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(peak_held, budget, (10,))
        budget.close()
        with pytest.raises(CancelledError):
            waiting.result(timeout=30)
