"""The receiving side of a node: C-ECHO and C-STORE, within bounds, straight to disk.

What is received is not decoded: pynetdicom hands the encoded instance to a file piece by piece, so that memory does not
depend on its size. An instance is acknowledged only when it and its folder are synced to disk.
"""

import ipaddress
import logging
import socket
import ssl
from pathlib import Path
from typing import Any

from spleen.dicom.node.connection import Connection, Spool, peer_of, printable, title_of
from spleen.dicom.node.job import Identity
from spleen.dicom.node.queue import Queue
from spleen.dicom.node.quiet import silence_libraries
from spleen.dicom.node.settings import LOOPBACK, Caller, NodeSettings
from spleen.dicom.node.tls import server_context
from spleen.dicom.uids import is_uid
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
_DATA_PDU = 2**18
_SPARE_CONNECTIONS = 8
_REJECTED_PERMANENTLY, _BY_USER, _CALLING_UNKNOWN = 0x01, 0x01, 0x03


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
        title, address = title_of(association), association.requestor.address
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
            title = printable(title_of(association))
            is_new = self.queue.add(
                Path(spool.name), Identity(study, series, instance), title, association.requestor.address
            )
        except OSError as error:
            log.error("an instance from %s is refused with A700: %s", peer_of(association), error.strerror)
            return OUT_OF_RESOURCES
        self._connections[association].series_uid = series
        self.received += is_new
        return SUCCESS


def _network_of(host: str) -> tuple[str, ...]:
    """The host as an address that may call; nothing for a name, or for all addresses."""
    try:
        return () if ipaddress.ip_address(host).is_unspecified else (host,)
    except ValueError:
        return ()
