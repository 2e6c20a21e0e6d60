"""Memory that is left to a process inside a container or a Slurm job, and threads that share it."""

import threading
import time
from collections.abc import Sequence
from concurrent.futures import CancelledError, ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest

from spleen.system.memory import MemoryBudget, free_memory_bytes

MIB = 2**20


def group(folder: Path, version: int, limit: str, used: int, droppable: int = 0) -> None:
    """The files of a control group as Linux shows them."""
    folder.mkdir(parents=True, exist_ok=True)
    names = {1: ("memory.limit_in_bytes", "memory.usage_in_bytes"), 2: ("memory.max", "memory.current")}[version]
    for name, text in zip(names, (limit, str(used)), strict=True):
        (folder / name).write_text(f"{text}\n")
    key = {1: "total_inactive_file", 2: "inactive_file"}[version]
    (folder / "memory.stat").write_text(f"anon {used - droppable}\n{key} {droppable}\n")


@pytest.fixture
def membership(tmp_path: Path) -> Path:
    return tmp_path / "cgroup"


def test_the_limit_of_a_job_counts_and_what_the_kernel_can_drop_is_free(tmp_path: Path, membership: Path) -> None:
    membership.write_text("0::/slurm/job_7/step_0\n")
    group(tmp_path / "slurm" / "job_7" / "step_0", 2, "max", 30 * MIB)
    group(tmp_path / "slurm" / "job_7", 2, str(100 * MIB), 40 * MIB, droppable=15 * MIB)
    group(tmp_path / "slurm", 2, str(500 * MIB), 40 * MIB)
    assert free_memory_bytes(tmp_path, membership) == (100 - 40 + 15) * MIB


def test_the_first_version_of_control_groups_is_read_too(tmp_path: Path, membership: Path) -> None:
    membership.write_text("9:name=systemd:/\n4:cpu,memory:/docker/abc\n1:cpu:/docker/abc\n0::/\n")
    group(tmp_path / "memory" / "docker" / "abc", 1, str(64 * MIB), 14 * MIB, droppable=4 * MIB)
    group(tmp_path / "memory", 1, "9223372036854771712", 900 * MIB)
    assert free_memory_bytes(tmp_path, membership) == (64 - 14 + 4) * MIB


def test_inside_a_container_the_top_holds_the_limit(tmp_path: Path, membership: Path) -> None:
    membership.write_text("0::/../kubepods/pod9\n")
    group(tmp_path, 2, str(32 * MIB), 2 * MIB)
    assert free_memory_bytes(tmp_path, membership) == 30 * MIB


@pytest.mark.parametrize("line", [None, "0::/\n"])
def test_without_a_limit_it_is_what_the_machine_has_free(tmp_path: Path, membership: Path, line: str | None) -> None:
    if line is not None:
        membership.write_text(line)
    group(tmp_path, 2, "max", 5 * MIB)
    free = psutil.virtual_memory().available
    assert free_memory_bytes(tmp_path, membership) == pytest.approx(free, rel=0.2)


def most_at_once(room: MemoryBudget, needs: Sequence[int]) -> int:
    """How much threads with these needs took together at most."""
    lock, now, most = threading.Lock(), 0, 0

    def work(need: int) -> None:
        nonlocal now, most
        with room.taken(need):
            with lock:
                now += need
                most = max(most, now)
            time.sleep(0.02)
            with lock:
                now -= need

    with ThreadPoolExecutor(len(needs)) as pool:
        list(pool.map(work, needs))
    return most


@pytest.mark.parametrize(("needs", "most"), [((6, 6, 6), 6), ((25,), 25), ((25, 25), 25), ((4, 4, 4), 8)])
def test_threads_together_take_no_more_than_there_is_and_a_larger_one_works_alone(
    needs: tuple[int, ...], most: int
) -> None:
    assert max(needs) <= most_at_once(MemoryBudget(10), needs) <= most


def test_threads_for_which_there_is_room_work_side_by_side() -> None:
    room, both = MemoryBudget(10), threading.Barrier(2, timeout=60)

    def meet() -> int:
        with room.taken(5):
            return both.wait()

    with ThreadPoolExecutor(2) as pool:
        assert sorted(future.result() for future in [pool.submit(meet), pool.submit(meet)]) == [0, 1]


def test_who_fails_gives_back_what_it_took() -> None:
    room = MemoryBudget(10)
    with pytest.raises(ValueError, match="bad case"), room.taken(10):
        raise ValueError("bad case")
    assert most_at_once(room, (10,)) == 10


def test_a_closed_room_sends_away_who_waits() -> None:
    room = MemoryBudget(10)
    with room.taken(10), ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(most_at_once, room, (10,))
        room.close()
        with pytest.raises(CancelledError):
            waiting.result(timeout=30)
