"""A node at work: `serve(settings)`. Three threads share the queue: one receives, one predicts, one sends."""

import json
import logging
import os
import threading
import time
from collections.abc import Callable
from contextlib import suppress

from spleen.dicom.node.job import DONE, FAILED, HELD, INCOMING, SENDING, Job
from spleen.dicom.node.prediction import Load, LoadRuns, PredictionError, Predictor
from spleen.dicom.node.queue import Queue
from spleen.dicom.node.receiver import Receiver
from spleen.dicom.node.sender import DeliveryError, Sender
from spleen.dicom.node.settings import NodeSettings, Peer
from spleen.errors import InputError
from spleen.system.files import write_bytes
from spleen.system.locks import folder_lock

log = logging.getLogger(__name__)

ADDRESS_FILE = "node.json"
"""In the queue's folder: where the node that serves it listens."""
_TICK_SECONDS = 0.1
_ASK_SECONDS = 1.0
"""After the last instance, before the sender is asked for the first time."""
_ASK_AGAIN_SECONDS = 5.0
_CLEAN_SECONDS = 600.0


def serve(settings: NodeSettings, stop: Callable[[], None], load: Load | None = None) -> None:
    """Receive, segment and send until `stop` raises. Everything is in the queue's folder, so it may be killed.

    `load` replaces the segmentation by the settings' runs. Raises InputError for runs that cannot be used, an address
    that cannot be listened on, and a folder that another node serves.
    """
    os.umask(0o077)
    threading.excepthook = _note_death
    with folder_lock(settings.folder, timeout_seconds=2.0):
        node = Node(settings, load or LoadRuns(settings.runs, settings.device, settings.codes))
        try:
            node.start()
            while True:
                stop()
                node.close_whole_series()
                time.sleep(_TICK_SECONDS)
        finally:
            node.stop()


class Node:
    """The parts of a node, and what they do with the queue."""

    def __init__(self, settings: NodeSettings, load: Load) -> None:
        self.settings = settings
        self.queue = Queue(settings.folder)
        self.receiver = Receiver(settings, self.queue)
        self._predictor = Predictor(load, settings.limits.predict_seconds)
        self._sender = Sender(settings)
        self._stopping = threading.Event()
        self._lists: dict[str, tuple[float, int | None]] = {}
        self._clean_at = 0.0
        self._threads = [threading.Thread(target=each, daemon=True) for each in (self._predict, self._send)]

    def start(self) -> None:
        """Load the runs, take up what a kill has interrupted, and listen."""
        interrupted = self.queue.recover()
        try:
            self._predictor.start()
        except PredictionError as error:
            raise InputError(str(error)) from error
        self.receiver.start()
        tls = self.settings.tls
        address = {
            "ae_title": self.settings.ae_title, "host": self.settings.host, "port": self.receiver.port,
            "tls": None if tls is None else [str(path.absolute()) for path in (tls.certificate, tls.key, tls.ca)],
        }  # fmt: skip
        write_bytes(self.settings.folder / ADDRESS_FILE, json.dumps(address).encode())
        for thread in self._threads:
            thread.start()
        counts = ", ".join(f"{number} {state}" for state, number in self.queue.counts().items() if number)
        log.info(
            "%s listens on %s:%d; queue: %s%s", self.settings.ae_title, self.settings.host, self.receiver.port,
            counts or "empty", f"; {interrupted} prediction(s) start again" if interrupted else "",
        )  # fmt: skip

    def stop(self) -> None:
        """Stop listening, predicting and sending; what is unfinished is taken up at the next start."""
        self._stopping.set()
        self.receiver.stop()
        self._predictor.stop()
        for thread in self._threads:
            if thread.ident is not None:
                thread.join(1.0)
        (self.settings.folder / ADDRESS_FILE).unlink(missing_ok=True)

    def close_whole_series(self) -> None:
        """Queue the series that are whole, and remove old ones."""
        for job in self.queue.jobs(INCOMING):
            with suppress(OSError):
                self._close_if_whole(job)
        if time.monotonic() >= self._clean_at:
            self._clean_at = time.monotonic() + _CLEAN_SECONDS
            if removed := self.queue.remove_old(self.settings.keep_days):
                log.info("%d delivered series removed after %g days", removed, self.settings.keep_days)

    def _close_if_whole(self, job: Job) -> None:
        """A series is whole when its sender lists no more instances than have come, or when it was quiet for long."""
        settings, sender = self.settings, self._sender_of(job)
        if sender is not None and self.queue.idle_seconds(job) < _ASK_SECONDS:
            return
        listed, arrived = self._listed(job, sender), self.queue.n_known(job)
        if listed is None:
            closed = self.queue.close(job, settings.quiet_seconds)
        elif arrived >= listed:
            closed = self.queue.close(job, _ASK_SECONDS)
        else:
            reason = f"only {arrived} of {listed} instances that the sender lists have arrived"
            closed = self.queue.close(job, settings.patience_seconds, FAILED, reason)
        if closed is not None:
            self._lists.pop(job.name, None)
            log.info("series %s: %d instances, %s", job.series_uid, closed.n_images, closed.state)

    def _sender_of(self, job: Job) -> Peer | None:
        """Where the sender of a series answers C-FIND; None if it does not."""
        record = job.record()
        for caller in self.settings.callers:
            if caller.find_port is not None and record.address and caller.allows(record.caller, record.address):
                return Peer(record.caller, record.address, caller.find_port, self.settings.tls is not None)
        return None

    def _listed(self, job: Job, sender: Peer | None) -> int | None:
        """How many instances the sender of a series lists, asked now and then; None if it does not say."""
        asked_at, listed = self._lists.get(job.name, (-_ASK_AGAIN_SECONDS, None))
        if sender is None or time.monotonic() - asked_at < _ASK_AGAIN_SECONDS:
            return listed
        # None at all may be one who does not know the series under the UIDs that it sent.
        listed = self._sender.count_at(sender, job.record().study_uid, job.series_uid) or None
        self._lists[job.name] = (time.monotonic(), listed)
        return listed

    def _predict(self) -> None:
        while not self._stopping.wait(_TICK_SECONDS):
            job = None
            try:
                job = self.queue.start()
                if job is not None:
                    self._predict_one(job)
            except Exception as error:  # a full disk, or a bug: the other series go on
                self._note_trouble(job, "predicting", error)

    def _predict_one(self, job: Job) -> None:
        started = time.monotonic()
        try:
            segmented = self._predictor.segment(job.images.absolute(), job.results.absolute())
        except PredictionError as error:
            if not self._stopping.is_set():
                self._fail(job, str(error))
            return
        state = HELD if segmented.needs_review and self.settings.review == "hold" else SENDING
        moved = self.queue.finish(
            job, state, predicted=True, for_review=segmented.needs_review, reason=segmented.reason
        )  # fmt: skip
        log.info(
            "series %s: %d instances, predicted in %.1f s, now %s%s", job.series_uid, moved.n_images,
            time.monotonic() - started, moved.state, ", for review" if segmented.needs_review else "",
        )  # fmt: skip

    def _send(self) -> None:
        while not self._stopping.wait(_TICK_SECONDS):
            try:
                due = self.queue.jobs(SENDING)
            except OSError as error:
                self._note_trouble(None, "sending", error)
                continue
            for job in due:
                if self._stopping.is_set():
                    return
                try:
                    if job.record().next_seconds <= time.time():
                        self._send_one(job)
                except Exception as error:
                    self._note_trouble(job, "sending", error)

    def _send_one(self, job: Job) -> None:
        try:
            self._sender.deliver(job)
        except (DeliveryError, OSError) as error:
            if self._stopping.is_set():
                return
            attempts = job.record().attempts + 1
            if attempts >= self.settings.retries.attempts:
                self._fail(job, f"not delivered after {attempts} attempts: {error}", attempts=attempts)
                return
            wait = self.settings.retries.wait_seconds(attempts)
            job.update(attempts=attempts, next_seconds=time.time() + wait, reason=str(error))
            log.warning("series %s: not delivered, attempt %d; again in %.0f s", job.series_uid, attempts, wait)
            return
        job.update(reason=job.record().reason if job.record().for_review else "")
        self.queue.move(job, DONE)
        log.info("series %s: delivered", job.series_uid)

    def _fail(self, job: Job, reason: str, **changes: int) -> None:
        """Mark a series as failed; the reason may have values of elements, so it is in the record, not in the log."""
        moved = self.queue.finish(job, FAILED, reason=reason, **changes)
        log.error("series %s: %s; spleen dicom status says why", job.series_uid, moved.state)

    def _note_trouble(self, job: Job | None, what: str, error: Exception) -> None:
        name = "a series" if job is None else f"series {job.series_uid}"
        log.error("%s: trouble while %s: %s", name, what, type(error).__name__)
        if job is not None:
            try:
                self._fail(job, f"{type(error).__name__}: {error}")
            except OSError:  # nothing can be written any more, but a folder can be renamed
                with suppress(OSError):
                    self.queue.move(job, FAILED)
        self._stopping.wait(1.0)


def _note_death(arguments: threading.ExceptHookArgs) -> None:
    """One line for a thread that ends by an error: a traceback may have values of elements."""
    log.error("a thread ended: %s", arguments.exc_type.__name__)
