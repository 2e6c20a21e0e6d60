"""The receiving side of a node: C-ECHO and C-STORE, within bounds, straight to disk.

What is received is not decoded: pynetdicom hands the encoded instance to a file piece by piece, so that memory does not
depend on its size. An instance is acknowledged only when it and its folder are synced to disk.
"""

import errno
import logging
import os
import shutil
import socket
import ssl
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from spleen.dicom.node.queue import Identity, Queue, is_uid
from spleen.dicom.node.quiet import silence_libraries
from spleen.dicom.node.settings import LOOPBACK, Caller, Limits, NodeSettings
from spleen.errors import InputError
from spleen.imaging.dicom.compressed import readable_syntaxes
from spleen.imaging.dicom.header import read_header, text

log = logging.getLogger(__name__)

SUCCESS, NOT_AUTHORISED, OUT_OF_RESOURCES, MISMATCH, NOT_UNDERSTOOD = 0x0000, 0x0124, 0xA700, 0xA900, 0xC000
IMAGE_CLASSES = (
    "1.2.840.10008.5.1.4.1.1.2",  # CT
    "1.2.840.10008.5.1.4.1.1.2.1",  # Enhanced CT
    "1.2.840.10008.5.1.4.1.1.4",  # MR
    "1.2.840.10008.5.1.4.1.1.4.1",  # Enhanced MR
)
_VERIFICATION = "1.2.840.10008.1.1"
_IDENTITY = ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID", "SOPClassUID")
_LARGEST_PDU = 2**20
"""Of any kind; of data, callers are told `_DATA_PDU`."""
_DATA_PDU = 2**18
_LARGEST_MESSAGE = 2**20
"""Of a message that is no C-STORE, which is kept in memory."""
_UNANSWERED = 16
_SPARE_CONNECTIONS = 8
_REJECTED_PERMANENTLY, _BY_USER, _CALLING_UNKNOWN = 0x01, 0x01, 0x03


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


class Receiver:
    """The application entity that callers store to. `start` it once."""

    def __init__(self, settings: NodeSettings, queue: Queue) -> None:
        self._settings, self.queue = settings, queue
        self._connections: dict[Any, Connection] = {}
        self._server: Any = None
        self.port = settings.port
        """That it listens on, also where the settings leave it open (0)."""
        self.received = 0
        """Instances since the start."""

    def start(self) -> None:
        """Listen, in threads. Raises InputError if the address cannot be used, and for certificates that cannot."""
        from pynetdicom import AE, _config, dimse_messages, evt

        silence_libraries()
        settings = self._settings
        _config.LOG_HANDLER_LEVEL = "none"
        _config.STORE_RECV_CHUNKED_DATASET = True
        reserve = settings.limits.free_disk_gb * 2**30
        # Where pynetdicom would write to /tmp, and end the association if that is full.
        dimse_messages.NamedTemporaryFile = lambda **_: Spool(self.queue.spool, reserve)
        entity = AE(ae_title=settings.ae_title)
        entity.require_called_aet = True
        entity.maximum_associations = settings.limits.associations
        entity.maximum_pdu_size = _DATA_PDU
        entity.network_timeout = entity.acse_timeout = entity.dimse_timeout = settings.limits.network_seconds
        entity.add_supported_context(_VERIFICATION)
        for each in IMAGE_CLASSES:
            entity.add_supported_context(each, readable_syntaxes())
        handlers = [
            (evt.EVT_CONN_OPEN, self._on_connection),
            (evt.EVT_CONN_CLOSE, self._on_closed),
            (evt.EVT_REQUESTED, self._on_request),
            (evt.EVT_REJECTED, self._on_rejected),
            (evt.EVT_ABORTED, self._on_aborted),
            (evt.EVT_DIMSE_RECV, lambda event: self._of(event).came()),
            (evt.EVT_DIMSE_SENT, lambda event: self._of(event).answered()),
            (evt.EVT_C_ECHO, lambda _: SUCCESS),
            (evt.EVT_C_STORE, self._on_store),
        ]
        context = server_context(settings)
        try:
            self._server = entity.start_server((settings.host, settings.port), block=False, evt_handlers=handlers)
        except OSError as error:
            raise InputError(f"cannot listen on {settings.host}:{settings.port}: {error.strerror or error}") from error
        self.port = self._server.socket.getsockname()[1]
        self._server.verify_request = self._may_connect
        self._server.get_request = lambda: self._accept(context)

    def stop(self) -> None:
        """Stop listening, and end all associations."""
        if self._server is not None:
            self._server.shutdown()

    def _accept(self, context: ssl.SSLContext | None) -> tuple[socket.socket, Any]:
        """The next connection; its TLS handshake happens in its own thread, where it can hold up nobody else."""
        accepted, address = self._server.socket.accept()
        accepted.settimeout(self._settings.limits.network_seconds)
        if context is not None:
            accepted = context.wrap_socket(accepted, server_side=True, do_handshake_on_connect=False)
        return accepted, address

    def _may_connect(self, _request: object, address: tuple[Any, ...]) -> bool:
        """Whether somebody may call from an address, and there is room for another connection."""
        if not any(each.allows(each.ae_title, address[0]) for each in (*self._settings.callers, self._itself())):
            log.warning("connection from %s refused: nobody may call from there", address[0])
            return False
        if len(self._server.active_associations) < self._settings.limits.associations + _SPARE_CONNECTIONS:
            return True
        log.warning("connection from %s refused: too many are open", address[0])
        return False

    def _of(self, event: Any) -> Connection:
        return self._connections[event.assoc]

    def _on_connection(self, event: Any) -> None:
        connection = Connection(event.assoc, self._settings.limits)
        connection.on_data = self.queue.touch
        self._connections[event.assoc] = connection
        for ended in [each for each in self._connections if each.ident is not None and not each.is_alive()]:
            self._connections.pop(ended, None)

    def _on_closed(self, event: Any) -> None:
        message = event.assoc.dimse.message
        if message is not None and message._data_set_file is not None:  # aborted in the middle of an instance
            message._data_set_file.close()

    def _on_request(self, event: Any) -> None:
        association = event.assoc
        if self._caller(association) is None:
            log.warning("association with %s rejected: no such caller is allowed", peer_of(association))
            association.acse.send_reject(_REJECTED_PERMANENTLY, _BY_USER, _CALLING_UNKNOWN)
            association.kill()

    def _on_rejected(self, event: Any) -> None:
        log.warning("association with %s rejected", peer_of(event.assoc))

    def _on_aborted(self, event: Any) -> None:
        log.info("association with %s aborted", peer_of(event.assoc))

    def _caller(self, association: Any) -> Caller | None:
        """The caller that an association belongs to; the node itself may call from this machine, to verify."""
        title, address = _title_of(association), association.requestor.address
        return next((each for each in (*self._settings.callers, self._itself()) if each.allows(title, address)), None)

    def _itself(self) -> Caller:
        return Caller(self._settings.ae_title, (*LOOPBACK, *_network_of(self._settings.host)))

    def _on_store(self, event: Any) -> int:
        try:
            return self._store(event)
        except Exception as error:  # a bug must not acknowledge anything, nor end up in the log with a value
            log.error("an instance from %s is refused: %s", peer_of(event.assoc), type(error).__name__)
            return NOT_UNDERSTOOD

    def _store(self, event: Any) -> int:
        association, request = event.assoc, event.request
        caller = self._caller(association)
        if caller is None or (caller.ae_title == self._settings.ae_title and caller not in self._settings.callers):
            return NOT_AUTHORISED
        spool = request._dataset_file
        if spool is None:
            return NOT_UNDERSTOOD
        spool.sync()
        if spool.refusal:
            log.error("an instance from %s is refused with A700: %s", peer_of(association), spool.refusal)
            return OUT_OF_RESOURCES
        try:
            found = read_header(Path(spool.name), _IDENTITY).dataset
            study, series, instance, sop_class = (text([found], each) for each in _IDENTITY)
        except InputError:
            log.warning("an instance from %s is refused with C000: it cannot be parsed", peer_of(association))
            return NOT_UNDERSTOOD
        if not all(map(is_uid, (study, series, instance))):
            log.warning("an instance from %s is refused with C000: it has no valid UIDs", peer_of(association))
            return NOT_UNDERSTOOD
        if (instance, sop_class) != (str(request.AffectedSOPInstanceUID), str(request.AffectedSOPClassUID)):
            log.warning(
                "an instance from %s is refused with A900: its UIDs are not those announced", peer_of(association)
            )
            return MISMATCH
        try:
            title = printable(_title_of(association))
            is_new = self.queue.add(
                Path(spool.name), Identity(study, series, instance), title, association.requestor.address
            )
        except OSError as error:
            log.error("an instance from %s is refused with A700: %s", peer_of(association), error.strerror)
            return OUT_OF_RESOURCES
        self._connections[association].series_uid = series
        self.received += is_new
        return SUCCESS


def peer_of(association: Any) -> str:
    """The other side of an association, as logs show it."""
    return f"{printable(_title_of(association)) or '?'} ({printable(str(association.requestor.address or '?'))})"


def _title_of(association: Any) -> str:
    """The calling AE title; empty before an association was requested."""
    request = association.requestor.primitive
    return "" if request is None else str(request.calling_ae_title or "").strip()


def printable(text: str) -> str:
    """A peer's text on one line of the log, of bounded length."""
    return "".join(each if each.isascii() and each.isprintable() else "?" for each in text.strip())[:64]


def server_context(settings: NodeSettings) -> ssl.SSLContext | None:
    """TLS for callers, who must have a certificate; None without. Raises InputError for files that cannot be used."""
    return None if settings.tls is None else _context(ssl.PROTOCOL_TLS_SERVER, settings)


def client_context(settings: NodeSettings) -> ssl.SSLContext:
    """TLS for destinations. Raises InputError for files that cannot be used, or that are not set."""
    return _context(ssl.PROTOCOL_TLS_CLIENT, settings)


def _context(protocol: int, settings: NodeSettings) -> ssl.SSLContext:
    tls = settings.tls
    if tls is None:
        raise InputError("tls: certificate, key and ca are needed")
    context = ssl.SSLContext(protocol)
    context.check_hostname = False  # the authority is the hospital's own, and names are often addresses
    context.verify_mode = ssl.CERT_REQUIRED
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        context.load_cert_chain(tls.certificate, tls.key)
        context.load_verify_locations(tls.ca)
    except (ssl.SSLError, OSError) as error:
        raise InputError(f"tls: the certificate, key or ca cannot be used: {error}") from error
    return context


def _network_of(host: str) -> tuple[str, ...]:
    """The host as an address that may call; nothing for a name, or for all addresses."""
    import ipaddress

    try:
        return () if ipaddress.ip_address(host).is_unspecified else (host,)
    except ValueError:
        return ()
