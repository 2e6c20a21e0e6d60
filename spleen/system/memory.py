"""Memory available to this process, and a budget that makes threads wait instead of exceeding it together."""

from collections.abc import Iterator
from concurrent.futures import CancelledError
from contextlib import contextmanager
from pathlib import Path
from threading import Condition

import psutil

CONTROL_GROUPS = Path("/sys/fs/cgroup")
MEMBERSHIP = Path("/proc/self/cgroup")
# Control group files, versions 2 and 1: limit, usage, and the key of reclaimable memory in memory.stat.
# https://docs.kernel.org/admin-guide/cgroup-v2.html, https://docs.kernel.org/admin-guide/cgroup-v1/memory.html
_Names = tuple[str, str, str]
_NAMES: dict[int, _Names] = {
    2: ("memory.max", "memory.current", "inactive_file"),
    1: ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
}


def free_memory_bytes(groups: Path = CONTROL_GROUPS, membership: Path = MEMBERSHIP) -> int:
    """Free memory of this machine, or what is left of the limit of a container or Slurm job, if that is less.

    `groups` is the mount point of Linux control groups; `membership` lists the groups of this process.
    """
    left = [_left(folder, _NAMES[version]) for folder, version in own_groups("memory", groups, membership)]
    return min([psutil.virtual_memory().available, *(n_bytes for n_bytes in left if n_bytes is not None)])


def own_groups(controller: str, groups: Path, membership: Path) -> Iterator[tuple[Path, int]]:
    """The nested control groups of this process, innermost first, each with the version, 1 or 2, of its files.

    `controller` is what they limit, such as memory or cpu; any of them may have a limit.
    """
    try:
        lines = membership.read_text(encoding="utf-8").splitlines()
    except OSError:  # not Linux
        return
    for line in lines:
        _, controllers, own = line.split(":", 2)
        if controllers and controller not in controllers.split(","):
            continue
        top, version = (groups / controller, 1) if controllers else (groups, 2)
        folder = top / own.lstrip("/")
        # In a container the path may refer to the host; then only the top folder exists.
        yield from ((place, version) for place in (folder, *folder.parents) if place.is_relative_to(top))


def _left(group: Path, names: _Names) -> int | None:
    """Memory left in a group; None if the group does not exist or has no limit ("max" in version 2)."""
    limit_name, use_name, droppable_name = names
    try:
        limit, used = (int((group / name).read_text(encoding="utf-8")) for name in (limit_name, use_name))
        stat = dict(line.split() for line in (group / "memory.stat").read_text(encoding="utf-8").splitlines())
    except (OSError, ValueError):
        return None
    return max(0, limit - used + int(stat.get(droppable_name, 0)))


class MemoryBudget:
    """A memory budget for threads: each reserves what it needs, and waits until it is available.

    A thread that needs more than the whole budget runs alone.
    """

    def __init__(self, n_bytes: int) -> None:
        self._n_bytes = n_bytes
        self._taken = 0
        self._is_closed = False
        self._changed = Condition()

    @contextmanager
    def taken(self, n_bytes: int) -> Iterator[None]:
        """Wait for this much memory, and release it at the end. Raises CancelledError if the budget is closed."""
        with self._changed:
            self._changed.wait_for(lambda: self._is_closed or not self._taken or self._taken + n_bytes <= self._n_bytes)
            if self._is_closed:
                raise CancelledError
            self._taken += n_bytes
        try:
            yield
        finally:
            with self._changed:
                self._taken -= n_bytes
                self._changed.notify_all()

    def close(self) -> None:
        """Cancel all current and future waits."""
        with self._changed:
            self._is_closed = True
            self._changed.notify_all()
