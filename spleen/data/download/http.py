"""Resumable downloads: a downloader for pooch, whose built-in ones restart from scratch."""

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

from spleen.errors import InputError
from spleen.system.files import write_text

# Progress callback: description of the step, bytes done, and total bytes if known.
Advance = Callable[[str, int, int | None], None]

_CHUNK_BYTES = 64 * 1024
_TIMEOUT_SECONDS = (10, 60)  # to connect, and between two chunks of the response
_ATTEMPTS = 5  # consecutive attempts without progress
_TRANSIENT = {408, 425, 429, 500, 502, 503, 504}
# Space to keep free while downloading a file of unknown size, checked at this interval.
_RESERVE_BYTES = 256 * 1024 * 1024
_CHECK_EVERY_BYTES = 16 * 1024 * 1024


def without_secrets(url: str) -> str:
    """The URL without user, password, query and fragment, which may contain a key: safe to show and to store."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"


def check_free_space(folder: Path, needed_bytes: int, what_for: str) -> None:
    """Raise InputError if fewer than `needed_bytes` are free on the disk of `folder`."""
    free_bytes = shutil.disk_usage(folder).free
    if needed_bytes > free_bytes:
        raise InputError(
            f"not enough disk space at {folder.resolve()}: {decimal(needed_bytes)} needed ({what_for}), "
            f"{decimal(free_bytes)} free. Free some space, or choose another location with --output"
        )


def remote_sizes(urls: Iterable[str], timeout_seconds: float) -> dict[str, int | None]:
    """File sizes in bytes as reported by the servers within `timeout_seconds`; None where unknown."""
    sizes: dict[str, int | None] = dict.fromkeys(urls)

    def ask(url: str) -> None:
        with contextlib.suppress(requests.RequestException, ValueError, KeyError):
            response = requests.head(url, timeout=timeout_seconds, allow_redirects=True)
            if response.ok:
                sizes[url] = int(response.headers["Content-Length"])

    # Daemon threads, because a DNS lookup without a network can block for a long time and cannot be cancelled.
    threads = [threading.Thread(target=ask, args=(url,), daemon=True) for url in sizes]
    deadline = time.monotonic() + timeout_seconds
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(max(0.0, deadline - time.monotonic()))
    return dict(sizes)


@dataclass(frozen=True)
class _Origin:
    """Identity of the remote file that a partial download came from, to check that it is still the same file."""

    size_bytes: int | None
    etag: str | None
    last_modified: str | None

    @property
    def validator(self) -> str | None:
        """A value allowed in `If-Range` (RFC 9110, 13.1.5): a strong ETag or a date."""
        strong = self.etag is not None and not self.etag.startswith("W/")
        return self.etag if strong else self.last_modified


class _BrokenError(Exception):
    """The connection broke, or the server asked to retry."""


class ResumingDownloader:
    """A downloader for `pooch.retrieve` that keeps partial downloads in `folder` and resumes them, even after a kill.

    Broken connections are retried with exponential backoff (1 s, 2 s, 4 s, …), up to five consecutive attempts without
    progress. `has_checksum`: the complete file will be verified, so a partial download may be resumed by its size
    alone if the server sends neither ETag nor date. Raises InputError for a full disk, a URL that does not serve a
    file, and an unreachable server; the partial download is kept. Once the file is verified, the caller removes it
    with `forget`.
    """

    def __init__(self, folder: Path, advance: Advance, has_checksum: bool, wait_seconds: float = 1.0) -> None:
        self._part = folder / "part"
        self._notes = folder / "part.json"
        self._advance = advance
        self._has_checksum = has_checksum
        self._wait_seconds = wait_seconds
        self._has_answered = False

    def __call__(self, url: str, output_file: str, pooch: object = None, check_only: bool | None = None) -> None:
        """Download `url` to `output_file`, which is in the same folder."""
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
        try:  # A hard link, because pooch deletes its file when it is interrupted during verification.
            os.link(self._part, output_file)
        except OSError:
            self._part.replace(output_file)

    def forget(self) -> None:
        """Remove the partial download."""
        self._part.unlink(missing_ok=True)
        self._notes.unlink(missing_ok=True)

    def _part_bytes(self) -> int:
        return self._part.stat().st_size if self._part.exists() else 0

    def _continue(self, url: str) -> None:
        """One connection: returns when the file is complete, raises _BrokenError if a retry may help."""
        origin = self._origin_of_part()
        have_bytes = self._part_bytes() if origin else 0
        if origin and origin.size_bytes == have_bytes:
            return
        headers = {"Accept-Encoding": "identity"}  # the raw bytes of the file
        if origin and have_bytes:
            headers["Range"] = f"bytes={have_bytes}-"
            if origin.validator:
                headers["If-Range"] = origin.validator
        try:
            with requests.get(url, headers=headers, stream=True, timeout=_TIMEOUT_SECONDS) as response:
                self._has_answered = True
                self._receive(url, response, origin, have_bytes)
        except (requests.ConnectionError, requests.Timeout, urllib3.exceptions.HTTPError) as error:
            if not self._has_answered:
                raise InputError(self._give_up(url, _reason(error))) from error
            raise _BrokenError(_reason(error)) from error
        except (requests.RequestException, UnicodeError) as error:  # UnicodeError: an invalid host name
            raise InputError(f"cannot download {without_secrets(url)}: {error}") from error

    def _receive(self, url: str, response: requests.Response, origin: _Origin | None, have_bytes: int) -> None:
        """Append the response to the partial download if it continues it, otherwise start over with it."""
        if response.status_code == HTTPStatus.PARTIAL_CONTENT and origin and _continues(response, origin, have_bytes):
            done_bytes = have_bytes
        elif response.status_code == HTTPStatus.OK:
            done_bytes, origin = 0, _origin(response.headers)
            self.forget()
            write_text(self._notes, json.dumps(asdict(origin)))
        elif response.status_code in (HTTPStatus.PARTIAL_CONTENT, HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE):
            self.forget()
            raise _BrokenError("the file on the server has changed since the download started")
        elif response.status_code in _TRANSIENT:
            raise _BrokenError(f"the server returned {response.status_code} {response.reason}")
        else:
            raise InputError(
                f"{without_secrets(url)}: the server returned {response.status_code} {response.reason}; check the URL"
            )
        total_bytes = origin.size_bytes
        if total_bytes is not None:
            what_for = f"{decimal(total_bytes - done_bytes)} to download and about {decimal(total_bytes)} to unpack"
            check_free_space(self._part.parent, 2 * total_bytes - done_bytes, what_for)
        with self._part.open("ab") as file:
            self._advance("downloading", done_bytes, total_bytes)
            for chunk in response.raw.stream(_CHUNK_BYTES, decode_content=False):
                if total_bytes is None and done_bytes % _CHECK_EVERY_BYTES < _CHUNK_BYTES:
                    check_free_space(self._part.parent, _RESERVE_BYTES, "as reserve for a download of unknown size")
                file.write(chunk)
                done_bytes += len(chunk)
                self._advance("downloading", done_bytes, total_bytes)
        if total_bytes is not None and done_bytes != total_bytes:
            raise _BrokenError(f"received {done_bytes:,} of {total_bytes:,} bytes")

    def _origin_of_part(self) -> _Origin | None:
        """Where the partial download came from, or None if it cannot be resumed."""
        try:
            origin = _Origin(**json.loads(self._notes.read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError):
            return None
        is_known = self._part.exists() and (origin.validator is not None or self._has_checksum)
        return origin if is_known and (origin.size_bytes or 0) >= self._part_bytes() else None

    def _give_up(self, url: str, reason: str) -> str:
        host = urlsplit(url).hostname
        problem = f"the download from {host} failed" if self._has_answered else f"cannot reach {host}"
        kept = f"; {decimal(self._part_bytes())} received so far are kept" if self._part_bytes() else ""
        return f"{problem} ({reason}){kept}. Is this machine online? Run the same command again to resume"


def _origin(headers: Mapping[str, str]) -> _Origin:
    length = headers.get("Content-Length", "")
    size_bytes = int(length) if length.isdecimal() and "Transfer-Encoding" not in headers else None
    return _Origin(size_bytes, headers.get("ETag"), headers.get("Last-Modified"))


def _continues(response: requests.Response, origin: _Origin, have_bytes: int) -> bool:
    """Whether a 206 response is the rest of the same file."""
    found = re.fullmatch(r"bytes (\d+)-\d+/(\d+)", response.headers.get("Content-Range", "").strip())
    same_range = found is not None and (int(found[1]), int(found[2])) == (have_bytes, origin.size_bytes)
    return same_range and response.headers.get("ETag", origin.etag) == origin.etag


def _reason(error: Exception) -> str:
    """The innermost message of an error that requests and urllib3 have wrapped several times."""
    cause: object = error.args[0] if error.args else error
    cause = getattr(cause, "reason", cause)
    return str(cause).rpartition("): ")[2] or type(error).__name__
