"""The on-disk queue of a node: a folder for each series, which moves from state to state by being renamed.

Nothing but these folders is remembered, so that a kill at any moment loses nothing that was acknowledged. A folder has
`images`, the instances as they came; `results`; `record.json`; and `sent.jsonl`, what was sent where.
One process serves a queue, in threads; `release` may be called from others.
"""

import os
import shutil
import threading
import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from spleen.dicom.node.job import (
    AGAIN,
    DONE,
    FAILED,
    HELD,
    INCOMING,
    SENDING,
    STATES,
    WAITING,
    WORKING,
    Identity,
    Job,
)
from spleen.dicom.uids import is_uid
from spleen.errors import InputError
from spleen.system.files import sync_folder

_LATER = (WORKING, SENDING, HELD, DONE)
"""The states of series whose instances belong to what comes later, too."""
SPOOL = "spool"
"""The folder of half-received instances."""
_PRIVATE = 0o700


class Queue:
    """The queue in a folder, which is made if needed, for this user only."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._lock = threading.RLock()
        self._touched: dict[str, float] = {}
        for place in (folder, folder / SPOOL, *(folder / state for state in STATES)):
            place.mkdir(mode=_PRIVATE, parents=True, exist_ok=True)
            place.chmod(_PRIVATE)

    @property
    def spool(self) -> Path:
        """Where instances are while they are received."""
        return self.folder / SPOOL

    def recover(self) -> int:
        """After a start: drop what was never acknowledged, queue interrupted predictions again; returns how many."""
        for leftover in self.spool.iterdir():
            leftover.unlink(missing_ok=True)
        interrupted = self.jobs(WORKING)
        for job in interrupted:
            self.move(job, WAITING)
        for job in self.jobs(INCOMING):
            self.touch(job.series_uid)
            if not job.n_images:
                shutil.rmtree(job.folder)
        return len(interrupted)

    def jobs(self, state: str) -> list[Job]:
        """The series in a state, the longest there first."""
        found = [Job(path) for path in (self.folder / state).iterdir() if is_uid(path.name.partition(AGAIN)[0])]
        return sorted(found, key=lambda job: (job.changed_seconds(), job.name))

    def add(self, file: Path, identity: Identity, caller: str, address: str) -> bool:
        """Move a received file, which is synced already, to its series; False if the instance is there already.

        When this returns, the instance survives a kill and a power failure. Raises OSError, and InputError for UIDs
        that are none. A series that waits or that failed begins again.
        """
        if not all(map(is_uid, (identity.study_uid, identity.series_uid, identity.sop_instance_uid))):
            raise InputError("a UID must be digits and dots, at most 64 characters")
        name = f"{identity.sop_instance_uid}.dcm"
        with self._lock:
            self.touch(identity.series_uid)
            for state in (WAITING, FAILED):
                for job in self._of_series(identity.series_uid, state):
                    self._reopen(job)
            known = [job for state in STATES for job in self._of_series(identity.series_uid, state)]
            if any((job.images / name).exists() for job in known):
                return False
            job = Job(self.folder / INCOMING / identity.series_uid)
            is_new = not job.images.exists()
            for place in (job.folder, job.images):  # one by one: parents would be open to others
                place.mkdir(mode=_PRIVATE, exist_ok=True)
            if is_new:
                job.update(
                    study_uid=identity.study_uid, caller=caller, address=address, first_seconds=time.time()
                )  # fmt: skip
            file.replace(job.images / name)
            sync_folder(job.images)
            if is_new:
                sync_folder(job.folder)
                sync_folder(job.folder.parent)
        return True

    def touch(self, series_uid: str) -> None:
        """Note that something of a series is arriving."""
        self._touched[series_uid] = time.monotonic()

    def idle_seconds(self, job: Job) -> float:
        """For how long nothing of a series has arrived; from the start on for one of before."""
        now = time.monotonic()
        return now - self._touched.setdefault(job.series_uid, now)

    def close(self, job: Job, idle_seconds: float, state: str = WAITING, reason: str = "") -> Job | None:
        """Let an incoming series wait for its prediction; None if something of it has arrived after all.

        Instances that came earlier, and whose results are under way or sent, belong to it too.
        """
        with self._lock:
            if self.idle_seconds(job) < idle_seconds or not job.folder.exists():
                return None
            earlier = [each for state in _LATER for each in self._of_series(job.series_uid, state)]
            _add_instances(earlier, job)
            if reason:
                job.update(reason=reason)
            self._touched.pop(job.series_uid, None)
            numbers = [int(each.name.partition(AGAIN)[2] or 1) for each in earlier]
            name = f"{job.series_uid}{AGAIN}{max(numbers) + 1}" if earlier else job.series_uid
            return self._rename(job, self.folder / state / name)

    def n_known(self, job: Job) -> int:
        """How many instances of an incoming series there are, with those that came earlier: see `close`."""
        earlier = (each for state in _LATER for each in self._of_series(job.series_uid, state))
        return len({path.name for each in (job, *earlier) for path in each.instances()})

    def start(self) -> Job | None:
        """Take the next series to predict, without results of an earlier attempt; None if none waits."""
        with self._lock:
            waiting = self.jobs(WAITING)
            if not waiting:
                return None
            job = self.move(waiting[0], WORKING)
        shutil.rmtree(job.results, ignore_errors=True)
        try:
            job.results.mkdir(mode=_PRIVATE)
        except OSError:  # a full disk: it waits for its turn again
            self.move(job, WAITING)
            raise
        return job

    def finish(self, job: Job, state: str, **changes: Any) -> Job:
        """Move a predicted series on, unless more of it has arrived meanwhile: then it begins again.

        If what arrived waits already, together with all of this, that is the series.
        """
        with self._lock:
            if self._of_series(job.series_uid, INCOMING):
                return self._reopen(job)
            if waiting := self._of_series(job.series_uid, WAITING):
                shutil.rmtree(job.folder)
                return waiting[0]
            job.update(**changes)
            return self.move(job, state)

    def move(self, job: Job, state: str) -> Job:
        """Move a series to another state, in one step."""
        return self._rename(job, self.folder / state / job.name)

    def remove_old(self, days: float) -> int:
        """Remove the delivered series that are older; returns how many."""
        old = [job for job in self.jobs(DONE) if time.time() - job.changed_seconds() > days * 86400]
        for job in old:
            shutil.rmtree(job.folder, ignore_errors=True)
        return len(old)

    def counts(self) -> Mapping[str, int]:
        """The number of series in each state."""
        return {state: len(self.jobs(state)) for state in STATES}

    def _of_series(self, series_uid: str, state: str) -> list[Job]:
        place = self.folder / state
        if (place / series_uid).exists():
            return [Job(place / series_uid), *map(Job, place.glob(f"{series_uid}{AGAIN}*"))]
        return [Job(path) for path in place.glob(f"{series_uid}{AGAIN}*")]

    def _reopen(self, job: Job) -> Job:
        """Make a series incoming again, or add its instances to those that came meanwhile."""
        incoming = Job(self.folder / INCOMING / job.series_uid)
        if not incoming.folder.exists():
            job.update(reason="", for_review=False, predicted=False, attempts=0, next_seconds=0.0)
            return self._rename(job, incoming.folder)
        _add_instances([job], incoming)
        shutil.rmtree(job.folder)
        return incoming

    def _rename(self, job: Job, to: Path) -> Job:
        job.folder.rename(to)
        os.utime(to)
        sync_folder(to.parent)
        sync_folder(job.folder.parent)
        return Job(to)


def _add_instances(jobs: Iterable[Job], to: Job) -> None:
    """Add the instances of other jobs, which keep them."""
    for path in (path for job in jobs for path in job.instances()):
        with suppress(FileExistsError):
            os.link(path, to.images / path.name)
    sync_folder(to.images)


def release(folder: Path, series_uid: str) -> str:
    """Let a held series be sent, or a failed one be tried again; returns the state that it has then.

    Raises InputError if there is no such series.
    """
    for state in (HELD, FAILED):
        job = Job(folder / state / series_uid)
        if is_uid(job.series_uid) and job.folder.is_dir():
            to = SENDING if job.record().predicted else WAITING
            job.update(attempts=0, next_seconds=0.0, **({} if state == HELD else {"reason": ""}))
            (folder / to).mkdir(mode=_PRIVATE, exist_ok=True)
            job.folder.rename(folder / to / job.name)
            sync_folder(folder / to)
            return to
    raise InputError(f"{folder} holds no series {series_uid} that is held or failed; see spleen dicom status {folder}")
