"""How much memory a process can still take, and threads that wait for room instead of taking too much together."""

from collections.abc import Iterator
from concurrent.futures import CancelledError
from contextlib import contextmanager
from pathlib import Path
from threading import Condition

import psutil

_GROUPS = Path("/sys/fs/cgroup")
# Names of the files of a control group, version 2 and 1: limit, use, and in memory.stat what the kernel can drop.
# https://docs.kernel.org/admin-guide/cgroup-v2.html, https://docs.kernel.org/admin-guide/cgroup-v1/memory.html
_Names = tuple[str, str, str]
_VERSION_2: _Names = ("memory.max", "memory.current", "inactive_file")
_VERSION_1: _Names = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")


def free_memory_bytes(groups: Path = _GROUPS, membership: Path = Path("/proc/self/cgroup")) -> int:
    """What is free on this machine, or what a container or a Slurm job may still take of it, if that is less.

    `groups` is where Linux shows its control groups, `membership` lists those of this process.
    """
    left = [_left(folder, names) for folder, names in _own_groups(groups, membership)]
    return min([psutil.virtual_memory().available, *(n_bytes for n_bytes in left if n_bytes is not None)])


def _own_groups(groups: Path, membership: Path) -> Iterator[tuple[Path, _Names]]:
    """The memory groups that hold this process, each within the next, with the names of their files.

    Any of them may have the limit.
    """
    try:
        lines = membership.read_text().splitlines()
    except OSError:  # not Linux
        return
    for line in lines:
        _, controllers, own = line.split(":", 2)
        if controllers and "memory" not in controllers.split(","):
            continue
        top, names = (groups / "memory", _VERSION_1) if controllers else (groups, _VERSION_2)
        folder = top / own.lstrip("/")
        # In a container, the path may be that of the machine outside: only the top remains.
        yield from ((place, names) for place in (folder, *folder.parents) if place.is_relative_to(top))


def _left(group: Path, names: _Names) -> int | None:
    """What may still be taken in a group; None where it is not there or has no limit, which version 2 calls "max"."""
    limit_name, use_name, droppable_name = names
    try:
        limit, used = (int((group / name).read_text()) for name in (limit_name, use_name))
        stat = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())
    except (OSError, ValueError):
        return None
    return max(0, limit - used + int(stat.get(droppable_name, 0)))


class MemoryRoom:
    """Threads that each say what they need; one waits while the others have taken what it needs.

    One that needs more than everything works alone.
    """

    def __init__(self, n_bytes: int) -> None:
        self._n_bytes = n_bytes
        self._taken = 0
        self._is_closed = False
        self._changed = Condition()

    @contextmanager
    def taken(self, n_bytes: int) -> Iterator[None]:
        """Wait for this much, and give it back at the end. Raises CancelledError if the room is closed meanwhile."""
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
        """Let nobody in any more, nor those who wait."""
        with self._changed:
            self._is_closed = True
            self._changed.notify_all()
