"""What a node is doing: its queue by state, ages and last errors, and whether it answers."""

import json
import time
from dataclasses import dataclass
from pathlib import Path

from spleen.dicom.node.job import DONE, STATES, Job
from spleen.dicom.node.sender import Sender
from spleen.dicom.node.server import ADDRESS_FILE
from spleen.dicom.node.settings import NodeSettings, Peer, Tls
from spleen.errors import InputError

_SHOWN = 20


@dataclass(frozen=True)
class SeriesStatus:
    """One series of the queue."""

    name: str
    state: str
    n_instances: int
    seconds: float
    """Since it changed last."""
    for_review: bool
    note: str
    """Why it failed, waits or needs a review."""


@dataclass(frozen=True)
class NodeStatus:
    """A queue, and the node that serves it."""

    address: str
    """AE@HOST:PORT; empty if no node serves the queue."""
    problem: str
    """Why the node does not answer; empty if it does."""
    series: tuple[SeriesStatus, ...]

    def count(self, state: str) -> int:
        """The number of series in a state."""
        return sum(each.state == state for each in self.series)


def read_status(folder: Path) -> NodeStatus:
    """The status of the queue in a folder. Raises InputError for a folder that is none."""
    if not all((folder / state).is_dir() for state in STATES):
        raise InputError(f"{folder} is no folder of a node; it is the key folder of the node's settings")
    jobs = [Job(path) for state in STATES for path in sorted((folder / state).iterdir())]
    found = [status for job in jobs if (status := _series(job)) is not None]
    address, problem = _answer(folder)
    return NodeStatus(address, problem, tuple(found))


def as_text(status: NodeStatus) -> str:
    """The status as lines; of the delivered series only how many there are."""
    answers = "answers" if not status.problem else f"does not answer: {status.problem}"
    lines = [f"{status.address} {answers}" if status.address else "no node is running here"]
    lines.append(", ".join(f"{status.count(state)} {state}" for state in STATES))
    shown = [each for each in status.series if each.state != DONE]
    for each in shown[:_SHOWN]:
        note = " ".join(filter(None, ("REVIEW" if each.for_review else "", each.note)))
        lines.append(f"  {each.state:<8} {_age(each.seconds):>6} {each.n_instances:>5} {each.name}  {note}".rstrip())
    if len(shown) > _SHOWN:
        lines.append(f"  and {len(shown) - _SHOWN} more")
    return "\n".join(lines)


def _series(job: Job) -> SeriesStatus | None:
    """A series; None if it has just moved on."""
    if (changed := job.changed_seconds()) == 0.0:
        return None
    record = job.record()
    seconds = max(0.0, time.time() - changed)
    return SeriesStatus(job.name, job.state, job.n_images, seconds, record.for_review, record.reason)


def _answer(folder: Path) -> tuple[str, str]:
    """The address of the node, and why it does not answer."""
    try:
        content = json.loads((folder / ADDRESS_FILE).read_text(encoding="utf-8"))
        host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(content["host"], content["host"])
        peer = Peer(content["ae_title"], host, content["port"], content["tls"] is not None)
        tls = None if content["tls"] is None else Tls(*map(Path, content["tls"]))
    except FileNotFoundError:
        return "", ""
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        return "", f"{folder / ADDRESS_FILE} is damaged ({type(error).__name__})"
    # The node knows itself by its own title, and allows itself no more than to verify.
    return str(peer), Sender(NodeSettings((), (), ae_title=peer.ae_title, tls=tls)).echo(peer)


def _age(seconds: float) -> str:
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= length:
            return f"{seconds / length:.0f} {unit}"
    return f"{seconds:.0f} s"
