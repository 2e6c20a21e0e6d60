"""A process's name for the others that share its files, and whether a named process is alive."""

import os
import socket

import psutil

_SAME_START_SECONDS = 10.0  # the clock may have been set since


def this_process() -> str:
    """Host, process id and start of this process."""
    process = psutil.Process()
    return f"{socket.gethostname()} {os.getpid()} {process.create_time()}"


def is_alive(process: str) -> bool | None:
    """Whether a process named by `this_process` is alive; None for one of another machine."""
    try:
        host, pid, started = process.split(" ")
        if host != socket.gethostname():
            return None
        return abs(psutil.Process(int(pid)).create_time() - float(started)) < _SAME_START_SECONDS
    except psutil.NoSuchProcess:
        return False
    except ValueError:
        return None
