"""The bounds of one connection to a node, and the file that an instance is received into.

Both stand in for parts of pynetdicom, which waits for ever, takes any length, and writes to /tmp.
"""

import errno
import logging
import os
import shutil
import socket
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from spleen.dicom.node.settings import Limits

log = logging.getLogger(__name__)

_LARGEST_PDU = 2**20
"""Of any kind; of data, callers are told less."""
_LARGEST_MESSAGE = 2**20
"""Of a message that is no C-STORE, which is kept in memory."""
_UNANSWERED = 16


class Spool:
    """A file that an instance is received into. It takes everything: where the disk is full, it says so at the end."""

    def __init__(self, folder: Path, reserve_bytes: float) -> None:
        self.refusal = ""
        """Why the instance cannot be kept; empty if it can."""
        self._folder, self._reserve_bytes = folder, reserve_bytes
        self._file: Any = None
        self.name = ""
        try:
            self._check_space()
            descriptor, self.name = tempfile.mkstemp(suffix=".dcm", dir=folder)
            self._file = os.fdopen(descriptor, "wb")
        except OSError as error:
            self._refuse(error)

    def write(self, content: bytes) -> int:
        """Write, unless the instance is refused already."""
        if self._file is not None:
            try:
                self._check_space()
                self._file.write(content)
            except OSError as error:
                self._refuse(error)
        return len(content)

    @property
    def file(self) -> "Spool":
        """Itself: pynetdicom flushes the file inside a temporary file."""
        return self

    def flush(self) -> None:
        """Nothing: `sync` does it once."""

    def sync(self) -> None:
        """Write to disk what is still in memory."""
        if self._file is not None:
            try:
                self._file.flush()
                os.fsync(self._file.fileno())
            except OSError as error:
                self._refuse(error)

    def close(self) -> None:
        """Close the file and remove it, unless it was moved away."""
        if self._file is not None:
            with suppress(OSError):
                self._file.close()
            self._file = None
        if self.name:
            Path(self.name).unlink(missing_ok=True)

    def __del__(self) -> None:  # of an aborted association
        with suppress(OSError):
            self.close()

    def _check_space(self) -> None:
        free = shutil.disk_usage(self._folder).free
        if free < self._reserve_bytes:
            raise OSError(errno.ENOSPC, f"{free / 2**30:.2f} GB are free, and limits.free_disk_gb is more")

    def _refuse(self, error: OSError) -> None:
        self.refusal = error.strerror or str(error)
        self.close()


class Connection:
    """The bounds of one connection: how much may come unasked, how large, and how slowly."""

    def __init__(self, association: Any, limits: Limits) -> None:
        self._association, self._limits = association, limits
        self._socket = association.dul.socket
        self._decode = association.dimse.receive_primitive
        self.series_uid = ""
        """Of the instance that came last."""
        self.on_data: Callable[[str], None] = lambda _: None
        self._since_answer = self._messages = 0
        self._socket.recv = self._receive
        association.dimse.receive_primitive = self._receive_part

    def answered(self) -> None:
        """Note that a message was answered."""
        self._messages -= 1
        self._since_answer = 0

    def came(self) -> None:
        """Note that a message is whole. Raises ConnectionError if too many are unanswered."""
        self._messages += 1

    def _receive(self, n_bytes: int) -> bytearray:
        """The next bytes of a PDU, in place of pynetdicom's own, which would wait for ever and for any length."""
        self._since_answer += n_bytes
        if n_bytes > _LARGEST_PDU or self._since_answer > self._limit() or self._messages > _UNANSWERED:
            log.warning("connection from %s closed: too much data at once", peer_of(self._association))
            self._close()
            return bytearray()
        if self.series_uid:
            self.on_data(self.series_uid)
        deadline = time.monotonic() + self._limits.network_seconds
        content = bytearray()
        while len(content) < n_bytes:
            try:
                self._socket.socket.settimeout(max(0.001, deadline - time.monotonic()))
                part = self._socket.socket.recv(min(65536, n_bytes - len(content)))
            except (OSError, AttributeError, ValueError):  # the peer went away, took too long, or we closed it
                break
            if not part:
                break
            content += part
        else:
            self._socket.socket.settimeout(self._limits.network_seconds)
            return content
        self._close()
        return bytearray()  # which pynetdicom takes for a closed connection

    def _limit(self) -> float:
        message = self._association.dimse.message
        is_store = type(message).__name__ == "C_STORE_RQ"
        return self._limits.instance_mb * 1e6 + _LARGEST_MESSAGE if is_store else _LARGEST_MESSAGE

    def _receive_part(self, primitive: Any) -> None:
        """Decode a part of a message; one that cannot be decoded ends the association, not a thread."""
        try:
            self._decode(primitive)
        except Exception as error:
            log.warning(
                "association with %s aborted: a damaged message (%s)",
                peer_of(self._association), type(error).__name__,
            )  # fmt: skip
            self._association.dul.event_queue.put("Evt19")

    def _close(self) -> None:
        with suppress(OSError, AttributeError):
            self._socket.socket.shutdown(socket.SHUT_RDWR)
        if self._association.requestor.primitive is None:
            # The thread of the association waits for a request, and would do so until its timeout.
            self._association.dul.to_user_queue.put(None)


def peer_of(association: Any) -> str:
    """The other side of an association, as logs show it."""
    return f"{printable(title_of(association)) or '?'} ({printable(str(association.requestor.address or '?'))})"


def title_of(association: Any) -> str:
    """The calling AE title; empty before an association was requested."""
    request = association.requestor.primitive
    return "" if request is None else str(request.calling_ae_title or "").strip()


def printable(text: str) -> str:
    """A peer's text on one line of the log, of bounded length."""
    return "".join(each if each.isascii() and each.isprintable() else "?" for each in text.strip())[:64]
