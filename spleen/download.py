"""Downloads that go on where they broke off: a downloader for pooch, whose own begin afresh."""

import contextlib
import json
import os
import re
import shutil
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from http import HTTPStatus
from pathlib import Path
from urllib.parse import urlsplit

import requests
import urllib3
from rich.filesize import decimal

from spleen.atomic import write_text
from spleen.errors import InputError

# Called with what is being done, how many bytes of it are done, and how many there are where that is known.
Advance = Callable[[str, int, int | None], None]

_CHUNK_BYTES = 64 * 1024
_TIMEOUT_SECONDS = (10, 60)  # to connect, and between two pieces of the answer
_ATTEMPTS = 5  # in a row that bring nothing new
_TRANSIENT = {408, 425, 429, 500, 502, 503, 504}
# What must stay free while a file of unknown size arrives; looked at once for so many bytes.
_RESERVE_BYTES = 256 * 1024 * 1024
_LOOK_EVERY_BYTES = 16 * 1024 * 1024


def without_secrets(url: str) -> str:
    """The address without user, password, query and fragment, which may hold a key: to show and to keep."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"


def require_space(folder: Path, needed_bytes: int, what_for: str) -> None:
    """Raise InputError where fewer than `needed_bytes` are free on the disk of `folder`."""
    free_bytes = shutil.disk_usage(folder).free
    if needed_bytes > free_bytes:
        raise InputError(
            f"too little space on the disk of {folder.resolve()}: {decimal(needed_bytes)} needed ({what_for}), "
            f"{decimal(free_bytes)} free. Make room, or choose another place with --output"
        )


def ask_sizes(urls: Iterable[str], patience_seconds: float) -> dict[str, int | None]:
    """The sizes in bytes that the servers tell for these addresses in the given time; None where they do not."""
    sizes: dict[str, int | None] = dict.fromkeys(urls)

    def ask(url: str) -> None:
        with contextlib.suppress(requests.RequestException, ValueError, KeyError):
            answer = requests.head(url, timeout=patience_seconds, allow_redirects=True)
            if answer.ok:
                sizes[url] = int(answer.headers["Content-Length"])

    # Daemons, because looking up a name offline can take longer than anyone waits, and cannot be stopped.
    threads = [threading.Thread(target=ask, args=(url,), daemon=True) for url in sizes]
    until = time.monotonic() + patience_seconds
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(max(0.0, until - time.monotonic()))
    return dict(sizes)


@dataclass(frozen=True)
class _Origin:
    """What a part was begun from: by this, a later answer is known to continue the same file."""

    size_bytes: int | None
    etag: str | None
    last_modified: str | None

    @property
    def validator(self) -> str | None:
        """What `If-Range` may hold (RFC 9110, 13.1.5): a strong ETag or a date."""
        strong = self.etag is not None and not self.etag.startswith("W/")
        return self.etag if strong else self.last_modified


class _BrokenError(Exception):
    """The connection broke, or the server asks to try again."""


class ResumingDownloader:
    """A downloader for `pooch.retrieve` that keeps what has arrived in `folder` and continues it, also after a kill.

    A broken connection is tried again, after one second, two, four and so on, until five tries in a row have brought
    nothing. `has_checksum` tells that the whole will be verified: then a part is continued by its size alone where
    the server tells neither ETag nor date. Raises InputError for a full disk, an address that gives no file, and a
    server that cannot be reached; the part stays. The caller removes it, with `forget`, once the file is verified.
    """

    def __init__(self, folder: Path, advance: Advance, has_checksum: bool, wait_seconds: float = 1.0) -> None:
        self._part = folder / "part"
        self._notes = folder / "part.json"
        self._advance = advance
        self._has_checksum = has_checksum
        self._wait_seconds = wait_seconds
        self._has_answered = False

    def __call__(self, url: str, output_file: str, pooch: object = None, check_only: bool | None = None) -> None:
        """Download `url` and make it `output_file`, in the same folder."""
        del pooch, check_only
        furthest, failures = self._part_bytes(), 0
        while True:
            try:
                self._continue(url)
                break
            except _BrokenError as error:
                failures = 0 if self._part_bytes() > furthest else failures + 1
                furthest = max(furthest, self._part_bytes())
                if failures >= _ATTEMPTS:
                    raise InputError(self._give_up(url, str(error))) from error
                time.sleep(self._wait_seconds * 2**failures)
        self._advance("verifying", 0, None)
        Path(output_file).unlink(missing_ok=True)
        try:  # A second name, because pooch removes its own when it is interrupted while it verifies.
            os.link(self._part, output_file)
        except OSError:
            self._part.replace(output_file)

    def forget(self) -> None:
        """Remove the part."""
        self._part.unlink(missing_ok=True)
        self._notes.unlink(missing_ok=True)

    def _part_bytes(self) -> int:
        return self._part.stat().st_size if self._part.exists() else 0

    def _continue(self, url: str) -> None:
        """One connection: return when the part is whole, raise _BrokenError if it is worth to try again."""
        origin = self._origin_of_part()
        have_bytes = self._part_bytes() if origin else 0
        if origin and origin.size_bytes == have_bytes:
            return
        headers = {"Accept-Encoding": "identity"}  # the bytes of the file, as they are
        if origin and have_bytes:
            headers["Range"] = f"bytes={have_bytes}-"
            if origin.validator:
                headers["If-Range"] = origin.validator
        try:
            with requests.get(url, headers=headers, stream=True, timeout=_TIMEOUT_SECONDS) as answer:
                self._has_answered = True
                self._receive(url, answer, origin, have_bytes)
        except (requests.ConnectionError, requests.Timeout, urllib3.exceptions.HTTPError) as error:
            if not self._has_answered:
                raise InputError(self._give_up(url, _reason(error))) from error
            raise _BrokenError(_reason(error)) from error
        except (requests.RequestException, UnicodeError) as error:  # UnicodeError: a host name that none can be
            raise InputError(f"cannot download {without_secrets(url)}: {error}") from error

    def _receive(self, url: str, answer: requests.Response, origin: _Origin | None, have_bytes: int) -> None:
        """Write what an answer brings, behind the part if it is its continuation, else in its place."""
        if answer.status_code == HTTPStatus.PARTIAL_CONTENT and origin and _continues(answer, origin, have_bytes):
            done_bytes = have_bytes
        elif answer.status_code == HTTPStatus.OK:
            done_bytes, origin = 0, _origin(answer.headers)
            self.forget()
            write_text(self._notes, json.dumps(asdict(origin)))
        elif answer.status_code in (HTTPStatus.PARTIAL_CONTENT, HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE):
            self.forget()
            raise _BrokenError("the file on the server is not the one that was begun")
        elif answer.status_code in _TRANSIENT:
            raise _BrokenError(f"the server answers {answer.status_code} {answer.reason}")
        else:
            raise InputError(
                f"{without_secrets(url)}: the server answers {answer.status_code} {answer.reason}; check the address"
            )
        total_bytes = origin.size_bytes
        if total_bytes is not None:
            what_for = f"{decimal(total_bytes - done_bytes)} to download and about {decimal(total_bytes)} to unpack it"
            require_space(self._part.parent, 2 * total_bytes - done_bytes, what_for)
        with self._part.open("ab") as file:
            self._advance("downloading", done_bytes, total_bytes)
            for chunk in answer.raw.stream(_CHUNK_BYTES, decode_content=False):
                if total_bytes is None and done_bytes % _LOOK_EVERY_BYTES < _CHUNK_BYTES:
                    require_space(self._part.parent, _RESERVE_BYTES, "to spare, for a download of unknown size")
                file.write(chunk)
                done_bytes += len(chunk)
                self._advance("downloading", done_bytes, total_bytes)
        if total_bytes is not None and done_bytes != total_bytes:
            raise _BrokenError(f"{done_bytes:,} of {total_bytes:,} bytes arrived")

    def _origin_of_part(self) -> _Origin | None:
        """What the part was begun from, or None where it cannot be continued."""
        try:
            origin = _Origin(**json.loads(self._notes.read_text()))
        except (OSError, ValueError, TypeError):
            return None
        is_known = self._part.exists() and (origin.validator is not None or self._has_checksum)
        return origin if is_known and (origin.size_bytes or 0) >= self._part_bytes() else None

    def _give_up(self, url: str, reason: str) -> str:
        host = urlsplit(url).hostname
        said = f"the download from {host} broke off" if self._has_answered else f"cannot reach {host}"
        kept = f"; {decimal(self._part_bytes())} have arrived and stay" if self._part_bytes() else ""
        return f"{said} ({reason}){kept}. Is this machine online? The same command goes on from here"


def _origin(headers: Mapping[str, str]) -> _Origin:
    length = headers.get("Content-Length", "")
    size_bytes = int(length) if length.isdecimal() and "Transfer-Encoding" not in headers else None
    return _Origin(size_bytes, headers.get("ETag"), headers.get("Last-Modified"))


def _continues(answer: requests.Response, origin: _Origin, have_bytes: int) -> bool:
    """Whether a 206 is the rest of the same file."""
    found = re.fullmatch(r"bytes (\d+)-\d+/(\d+)", answer.headers.get("Content-Range", "").strip())
    same_range = found is not None and (int(found[1]), int(found[2])) == (have_bytes, origin.size_bytes)
    return same_range and answer.headers.get("ETag", origin.etag) == origin.etag


def _reason(error: Exception) -> str:
    """The innermost words of what requests and urllib3 wrap several times."""
    cause: object = error.args[0] if error.args else error
    cause = getattr(cause, "reason", cause)
    return str(cause).rpartition("): ")[2] or type(error).__name__
