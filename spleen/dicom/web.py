"""Series from an archive by DICOMweb, and results back to it: QIDO-RS, WADO-RS and STOW-RS (PS3.18)."""

import ipaddress
import logging
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from spleen.dicom.multipart import write_parts
from spleen.dicom.uids import LONGEST_UID, is_uid
from spleen.errors import InputError
from spleen.imaging.dicom.header import read_header, read_whole, text
from spleen.system.text import bullets

if TYPE_CHECKING:
    import requests
    from dicomweb_client import DICOMwebClient

log = logging.getLogger(__name__)

_IMAGES = ("CT", "MR")
_SECONDS = (10.0, 60.0)  # to connect, and between two pieces of an answer
_ATTEMPTS, _FIRST_WAIT_MS = 3, 200
_LARGEST_BODY = 2**31 - 1
"""Bytes that are sent in one piece: what the client sends in chunks it cannot send again."""
_MODALITY, _NUMBER, _DESCRIPTION = "00080060", "00200011", "0008103E"
_SERIES, _INSTANCES = "0020000E", "00201209"


@dataclass(frozen=True)
class RemoteSeries:
    """A series as the archive lists it."""

    uid: str
    number: str
    modality: str
    description: str
    n_instances: int | None


@dataclass(frozen=True)
class Archive:
    """A DICOMweb service. Users and passwords come from netrc, unless the headers hold an authorization."""

    url: str
    """Base URL, such as https://host/dicom-web."""
    headers: Mapping[str, str]
    """Sent with every request."""

    def series_of(self, study_uid: str) -> list[RemoteSeries]:
        """The series of a study (QIDO-RS). Raises InputError for a study that the archive does not have."""
        check_uid(study_uid, "--study")
        with self._client() as client, _in_words(self.url):
            listed = client.search_for_series(study_instance_uid=study_uid)
            found = [_series(each) for each in listed]
        if not found:
            raise InputError(f"{self.url} has no study {study_uid}")
        return found

    def fetch(self, study_uid: str, series: RemoteSeries, folder: Path) -> None:
        """Write the files of a series into an empty folder (WADO-RS), as they are stored in the archive.

        Raises InputError for an answer that is incomplete, of another series, or larger than the space on the disk.
        """
        url = f"{self.url}/studies/{check_uid(study_uid, '--study')}/series/{check_uid(series.uid, '--series')}"
        accept = {"Accept": 'multipart/related; type="application/dicom"; transfer-syntax=*'}
        with self._client() as client, _in_words(self.url):
            session: requests.Session = client._session
            with session.get(url, headers=accept, stream=True, timeout=_SECONDS) as response:
                response.raise_for_status()
                files = write_parts(response, folder)
        if series.n_instances is not None and len(files) < series.n_instances:
            raise InputError(
                f"{self.url} sent {len(files)} of the {series.n_instances} images of the series; try again"
            )
        for file in files:
            uid = text([read_header(file, ("SeriesInstanceUID",)).dataset], "SeriesInstanceUID")
            if uid != series.uid:
                raise InputError(f"{self.url} sent an image of another series, {uid}")

    def store(self, study_uid: str, files: Sequence[Path]) -> None:
        """Send results to the archive (STOW-RS). Raises InputError if it did not take all of them."""
        datasets = [read_whole(file) for file in files]
        with self._client() as client, _in_words(self.url):
            answer = client.store_instances(datasets, study_instance_uid=check_uid(study_uid, "--study"))
        if refused := answer.get("FailedSOPSequence"):
            reasons = ", ".join(f"0x{int(each.get('FailureReason', 0)):04X}" for each in refused)
            raise InputError(f"{self.url} did not take {len(refused)} of {len(files)} results (reason {reasons})")

    @contextmanager
    def _client(self) -> Iterator["DICOMwebClient"]:
        try:
            import requests
            from dicomweb_client import DICOMwebClient
        except ImportError as error:
            raise InputError(
                "DICOMweb needs the package dicomweb-client; install it with: pip install 'spleen[dicom]'"
            ) from error
        with requests.Session() as session:
            # Neither a password nor an image may go where someone else sends them.
            session.max_redirects = 0
            if any(name.lower() == "authorization" for name in self.headers):
                session.auth = _leave_as_it_is  # netrc would replace it
            session.hooks["response"] = _without_parameters
            headers = dict(self.headers)
            client = DICOMwebClient(self.url, session, headers=headers, timeout=_SECONDS, chunk_size=_LARGEST_BODY)
            client.set_http_retry_params(max_attempts=_ATTEMPTS, wait_exponential_multiplier=_FIRST_WAIT_MS)
            yield client


def _without_parameters(response: "requests.Response", *_: object, **__: object) -> None:
    """Take the charset off the kind of a JSON answer: the client reads none of another kind than these very letters."""
    kind = response.headers.get("Content-Type", "").partition(";")[0].strip().lower()
    if kind in ("application/json", "application/dicom+json"):
        response.headers["Content-Type"] = kind


def _leave_as_it_is(request: "requests.PreparedRequest") -> "requests.PreparedRequest":
    return request


def open_archive(url: str, header_file: Path | None = None) -> Archive:
    """An archive by its base URL, with the headers of a file (see `read_headers`); nothing is asked yet.

    Warns of a connection without encryption. Raises InputError for a URL that is none, or that holds a password, which
    every user of the machine could read off the command line.
    """
    parts = urlsplit(url)
    if parts.username is not None or parts.password is not None or "@" in parts.netloc:
        raise InputError(
            "--dicomweb must not hold a user or a password, which the list of processes shows; put them into ~/.netrc "
            "(machine HOST login USER password PASSWORD), or a header into --header-file"
        )
    try:
        is_valid = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        is_valid = False
    if not is_valid or parts.query or parts.fragment or not re.match(r"https?://[^/:]+", url):
        raise InputError(
            f"--dicomweb must be the base URL of a DICOMweb service, such as https://host/dicom-web; got {url!r}"
        )
    headers = read_headers(header_file) if header_file is not None else {}
    if parts.scheme == "http" and not _is_loopback(parts.hostname or ""):
        log.warning("%s is not encrypted: images and passwords can be read on the way; use https", url)
    return Archive(url.rstrip("/"), headers)


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def read_headers(path: Path) -> dict[str, str]:
    """HTTP headers from a file with a line NAME: VALUE for each. Raises InputError for any other file."""
    try:
        lines = path.read_text(encoding="ascii").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path} cannot be read as a file of headers: {error}") from error
    headers = {}
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        match = re.fullmatch(r"([!#$%&'*+.^_`|~0-9A-Za-z-]+):\s*(\S.*?)\s*", line)
        if match is None:  # the line itself may be a password
            raise InputError(f"{path}: line {number} must be NAME: VALUE, such as Authorization: Bearer TOKEN")
        headers[match[1]] = match[2]
    if not headers:
        raise InputError(f"{path} holds no header; write a line such as Authorization: Bearer TOKEN")
    return headers


def check_uid(uid: str, what: str) -> str:
    """The UID itself. Raises InputError for what is none: it becomes part of a URL."""
    if not is_uid(uid):
        raise InputError(f"{what} must be a UID of digits and dots, at most {LONGEST_UID} characters; got {uid[:80]!r}")
    return uid


def choose_series(found: Sequence[RemoteSeries], selector: str | None) -> RemoteSeries:
    """The series with this number or UID, or the only one of CT or MR.

    Raises InputError, with a list, if there are several or none.
    """
    wanted = [
        each for each in found if selector in (each.uid, each.number) or (selector is None and each.modality in _IMAGES)
    ]
    if len(wanted) == 1:
        return wanted[0]
    several = f"{len(wanted)} series" if selector is None else f"{len(wanted)} series {selector}"
    problem = (
        f"the study has {several}; choose one by --series"
        if wanted
        else f"the study has no series {selector}"
        if selector is not None
        else f"the study has no series of {' or '.join(_IMAGES)}"
    )
    raise InputError(f"{problem}:{bullets([_line(each) for each in wanted or found], 50)}")


def _line(series: RemoteSeries) -> str:
    count = "" if series.n_instances is None else f", {series.n_instances} images"
    name = " ".join(filter(None, (series.modality, series.description)))
    return f"{series.number or '(no number)'}: {name}{count}, {series.uid}"


def _series(listed: Mapping[str, Any]) -> RemoteSeries:
    def value(tag: str) -> str:
        values = listed.get(tag, {}).get("Value") or [""]
        return str(values[0] if values[0] is not None else "").strip()

    n_instances = value(_INSTANCES)
    return RemoteSeries(
        check_uid(value(_SERIES), "the UID of a listed series"),
        value(_NUMBER),
        value(_MODALITY),
        value(_DESCRIPTION),
        int(n_instances) if n_instances.isdecimal() else None,
    )


@contextmanager
def _in_words(url: str) -> Iterator[None]:
    """Turn what goes wrong on the way, or comes back in another form, into InputError."""
    import requests

    try:
        yield
    except InputError:
        raise
    except Exception as error:
        if isinstance(error, OSError) and not isinstance(error, requests.RequestException):
            raise  # of this machine
        raise InputError(f"{url} {_problem(error)}") from error


def _problem(error: Exception) -> str:
    """What an archive did, as the end of a sentence."""
    from requests import ConnectionError, HTTPError, Timeout, TooManyRedirects, exceptions
    from retrying import RetryError

    if isinstance(error, HTTPError):
        return _refusal(error.response.status_code, error.response.reason)
    said: dict[type[Exception], str] = {
        TooManyRedirects: f"sends on to another place{_location(error)}, which is not followed; give its own URL",
        exceptions.SSLError: f"has a certificate that is not trusted; name your own in REQUESTS_CA_BUNDLE ({error})",
        Timeout: f"did not answer within {_SECONDS[1]:g} s; is it running?",
        exceptions.ChunkedEncodingError: "broke its answer off; try again",
        ConnectionError: f"cannot be reached: {_reason(error)}; is it running, and the port right?",
        RetryError: f"is overloaded: it asked {_ATTEMPTS} times to try later",
    }
    for kind, text_of_kind in said.items():
        if isinstance(error, kind):
            return text_of_kind
    # An answer that is not what the standard says.
    return f"did not answer as DICOMweb ({type(error).__name__}); is it the base URL of the service?"


def _location(error: Exception) -> str:
    response = getattr(error, "response", None)
    place = urlsplit(response.headers.get("Location", "") if response is not None else "")
    return f" ({place.scheme}://{place.hostname})" if place.hostname else ""


def _refusal(status: int, reason: str) -> str:
    if status in (401, 403):
        return f"refuses access ({status}); put user and password into ~/.netrc, or a header into --header-file"
    if status == 404:
        return "has no such study or series (404), or is not the base URL of a DICOMweb service"
    return f"answered {status} {reason[:80]}"


def _reason(error: Exception) -> str:
    """The innermost cause, without the addresses of objects that urllib3 names."""
    cause: BaseException = error
    while (inner := cause.__cause__ or cause.__context__) is not None:
        cause = inner
    return str(getattr(cause, "strerror", None) or type(cause).__name__)
