"""The sending side of a node: results to destinations, each exactly once, and questions by C-FIND.

Before and after each C-STORE a line is written to `sent.jsonl` of the series, and synced. After a kill, an instance
whose sending had begun and was not confirmed is looked for at the destination by C-FIND; if it is not there, or the
destination does not answer such questions, it is sent again. It is the same file with the same SOP Instance UID then,
which a destination stores once.
"""

import json
import logging
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from spleen.dicom.node.job import Job
from spleen.dicom.node.quiet import silence_libraries
from spleen.dicom.node.settings import NodeSettings, Peer
from spleen.dicom.node.tls import client_context
from spleen.errors import InputError
from spleen.imaging.dicom.header import read_header, text
from spleen.system.files import sync_folder

log = logging.getLogger(__name__)

_JOURNAL = "sent.jsonl"
_STUDY_ROOT_FIND = "1.2.840.10008.5.1.4.1.2.2.1"
_VERIFICATION = "1.2.840.10008.1.1"
_UNCOMPRESSED = ["1.2.840.10008.1.2.1", "1.2.840.10008.1.2"]
_SUCCESS = (0x0000, 0xB000, 0xB006, 0xB007)
"""Stored; with the B-codes some elements were changed or ignored by the destination."""
_PENDING = (0xFF00, 0xFF01)


class DeliveryError(Exception):
    """A destination did not take a result, with the reason."""


@dataclass(frozen=True)
class Result:
    """One file to send."""

    path: Path
    sop_class_uid: str
    sop_instance_uid: str
    study_uid: str
    series_uid: str
    transfer_syntax_uid: str


class Journal:
    """What of a series was sent where: begun, and confirmed."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / _JOURNAL
        self._entries: set[tuple[str, str, str]] = set()
        with suppress(FileNotFoundError):
            for line in self._path.read_text(encoding="utf-8").splitlines():
                with suppress(ValueError, KeyError, TypeError):  # the last line may be cut off by a kill
                    entry = json.loads(line)
                    self._entries.add((entry["event"], entry["to"], entry["uid"]))

    def has(self, event: str, to: Peer, result: Result) -> bool:
        """Whether "begun" or "confirmed" was noted."""
        return (event, str(to), result.sop_instance_uid) in self._entries

    def note(self, event: str, to: Peer, result: Result) -> None:
        """Note it; when this returns, it survives a kill and a power failure."""
        entry = {"event": event, "to": str(to), "uid": result.sop_instance_uid}
        with self._path.open("a", encoding="utf-8") as file:
            file.write(f"\n{json.dumps(entry)}" if file.tell() else json.dumps(entry))
            file.flush()
            os.fsync(file.fileno())
        sync_folder(self._path.parent)
        self._entries.add((event, str(to), result.sop_instance_uid))


class Sender:
    """Calls other application entities."""

    def __init__(self, settings: NodeSettings) -> None:
        self._settings = settings
        silence_libraries()

    def deliver(self, job: Job) -> None:
        """Send the results of a series to all destinations that do not have them yet.

        Raises DeliveryError, after all were tried, if one of them did not take one.
        """
        results = [_result(path) for path in sorted(job.results.glob("*.dcm"), key=lambda path: (len(path.name), path))]
        journal = Journal(job.folder)
        failures = []
        for peer in self._settings.destinations:
            try:
                self._deliver_to(peer, results, journal)
            except DeliveryError as error:
                failures.append(f"{peer}: {error}")
        if failures:
            raise DeliveryError("; ".join(failures))

    def _deliver_to(self, peer: Peer, results: Sequence[Result], journal: Journal) -> None:
        missing = [each for each in results if not journal.has("confirmed", peer, each)]
        for result in [each for each in missing if journal.has("begun", peer, each)]:
            if self._has(peer, result):
                journal.note("confirmed", peer, result)
                missing.remove(result)
        if not missing:
            return
        contexts = {(each.sop_class_uid, each.transfer_syntax_uid) for each in missing}
        with self._association(peer, [(uid, [syntax]) for uid, syntax in sorted(contexts)]) as association:
            for result in missing:
                journal.note("begun", peer, result)
                _store(association, result)
                journal.note("confirmed", peer, result)

    def _has(self, peer: Peer, result: Result) -> bool:
        """Whether a destination says that it has an instance; False if it does not answer."""
        keys = {
            "QueryRetrieveLevel": "IMAGE",
            "StudyInstanceUID": result.study_uid,
            "SeriesInstanceUID": result.series_uid,
            "SOPInstanceUID": result.sop_instance_uid,
        }
        try:
            return any(each.get("SOPInstanceUID") == result.sop_instance_uid for each in self._find(peer, keys))
        except DeliveryError:
            return False

    def count_at(self, peer: Peer, study_uid: str, series_uid: str) -> int | None:
        """The instances of a series that a peer lists; None if it does not answer."""
        keys = {
            "QueryRetrieveLevel": "IMAGE",
            "StudyInstanceUID": study_uid,
            "SeriesInstanceUID": series_uid,
            "SOPInstanceUID": "",
        }
        try:
            return len({str(each.get("SOPInstanceUID", "")) for each in self._find(peer, keys)} - {""})
        except DeliveryError:
            return None

    def echo(self, peer: Peer) -> str:
        """Empty if a peer answers C-ECHO; else the reason."""
        try:
            with self._association(peer, [(_VERIFICATION, _UNCOMPRESSED)]) as association:
                status = association.send_c_echo()
                return "" if status and status.Status == 0 else "it does not answer C-ECHO"
        except DeliveryError as error:
            return str(error)

    def _find(self, peer: Peer, keys: dict[str, str]) -> list[Any]:
        from pydicom import Dataset

        query = Dataset()
        for keyword, value in keys.items():
            setattr(query, keyword, value)
        found = []
        with self._association(peer, [(_STUDY_ROOT_FIND, _UNCOMPRESSED)]) as association:
            for status, identifier in association.send_c_find(query, _STUDY_ROOT_FIND):
                if not status or status.Status not in (0x0000, *_PENDING):
                    raise DeliveryError("C-FIND failed")
                if status.Status in _PENDING and identifier is not None:
                    found.append(identifier)
        return found

    @contextmanager
    def _association(self, peer: Peer, contexts: Sequence[tuple[str, list[str]]]) -> Iterator[Any]:
        """An association with a peer, released at the end. Raises DeliveryError, also for what happens inside."""
        from pynetdicom import AE, _config

        _config.LOG_HANDLER_LEVEL = "none"
        _config.STORE_SEND_CHUNKED_DATASET = True
        seconds = self._settings.limits.network_seconds
        entity = AE(ae_title=self._settings.ae_title)
        entity.connection_timeout = entity.acse_timeout = entity.network_timeout = entity.dimse_timeout = seconds
        for abstract_syntax, transfer_syntaxes in contexts:
            entity.add_requested_context(abstract_syntax, transfer_syntaxes)
        try:
            tls = (client_context(self._settings), peer.host) if peer.tls else None
            association = entity.associate(peer.host, peer.port, ae_title=peer.ae_title, tls_args=tls)
        except (OSError, RuntimeError, ValueError, InputError) as error:
            raise DeliveryError(str(error)) from error
        if not association.is_established:
            rejected = "it rejects the association" if association.is_rejected else "it cannot be reached"
            raise DeliveryError(rejected)
        try:
            yield association
        except (OSError, RuntimeError, ValueError) as error:
            raise DeliveryError(str(error)) from error
        finally:
            if association.is_established:
                association.release()


def _store(association: Any, result: Result) -> None:
    status = association.send_c_store(str(result.path))
    if not status or "Status" not in status:
        raise DeliveryError("the association ended before the result was confirmed")
    if status.Status not in _SUCCESS:
        raise DeliveryError(f"it refuses {result.path.name} with status {status.Status:04X}")


def _result(path: Path) -> Result:
    from pydicom.filereader import read_file_meta_info

    names = ("SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID")
    found = read_header(path, names).dataset
    sop_class, sop_instance, study, series = (text([found], name) for name in names)
    return Result(path, sop_class, sop_instance, study, series, str(read_file_meta_info(path).TransferSyntaxUID))
