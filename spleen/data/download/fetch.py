"""Fetch a data set: download its archive, verify and unpack it; an interrupted call is resumed by the next one."""

import difflib
import json
import logging
import re
import shutil
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from hashlib import sha256
from pathlib import Path
from urllib.parse import unquote, urlsplit

from spleen.data.download.archive import UnsafeArchive, unpack
from spleen.data.download.decathlon import DECATHLON_ARCHIVES
from spleen.data.download.http import Advance, ResumingDownloader, without_secrets
from spleen.errors import InputError
from spleen.system.files import write_text
from spleen.system.locks import folder_lock

_DIGITS = {"md5": 32, "sha1": 40, "sha256": 64, "sha512": 128}
_MARKER = ".fetched.json"
_ARCHIVE = "archive"
_WORTH_KEEPING = (_ARCHIVE, "part")
_SUFFIXES = re.compile(r"\.(tar|tgz|tbz2?|txz|zip|tar\.(gz|bz2|xz))$", re.IGNORECASE)


@dataclass(frozen=True)
class Fetched:
    """A data set in `folder`, and the checksum of its archive, such as `md5:…`.

    `is_verified`: the archive matched a known checksum. `was_cached`: an earlier call fetched it.
    """

    folder: Path
    n_files: int
    n_bytes: int
    checksum: str
    is_verified: bool
    was_cached: bool


@dataclass(frozen=True)
class _Source:
    """A URL and what is known about its file; `identity` represents the URL without its secrets."""

    name: str
    url: str
    checksum: str | None

    @property
    def identity(self) -> str:
        query = urlsplit(self.url).query
        return without_secrets(self.url) + (f" {sha256(query.encode()).hexdigest()[:16]}" if query else "")


@dataclass(frozen=True)
class _Marker:
    """The note left in a fetched folder, from which a later call sees that the folder is complete."""

    source: str
    checksum: str
    is_verified: bool
    files: dict[str, int]


def fetch(
    source: str, output: Path | None = None, checksum: str | None = None, advance: Advance | None = None
) -> Fetched:
    """Download, verify and unpack the Decathlon task `source`, such as Task09_Spleen, or the archive at a URL.

    `output` is the folder to create, by default named after the task or archive and inside the current folder; it is
    created complete or not at all. `checksum` is `md5:…` or `sha256:…`; without one, a download from a URL is not
    verified. Partial downloads are kept in the hidden folder `.OUTPUT.download` until everything is done. `advance` is
    the progress callback: it receives the current step, bytes done, and total bytes if known.
    Raises InputError for an unknown name, a wrong checksum, too little disk space, an unsafe archive, no connection,
    a folder with other content, and one that cannot be replaced: the current folder and a mount point.
    """
    requested = _parse_source(source, checksum)
    folder = output or Path(requested.name)
    advance = advance or _no_progress
    if existing := _find(folder, requested, has_own_checksum=checksum is not None):
        return existing
    place = folder.resolve()  # a link stays
    _check_replaceable(place, folder, requested)
    downloads = place.with_name(f".{place.name}.download")
    with folder_lock(downloads, timeout_seconds=0):
        try:
            marker = _fetch_into(place, requested, downloads, advance)
        finally:
            if not any((downloads / name).exists() for name in _WORTH_KEEPING):
                shutil.rmtree(downloads, ignore_errors=True)
    return _fetched(folder, marker, was_cached=False)


def _fetch_into(folder: Path, requested: _Source, downloads: Path, advance: Advance) -> _Marker:
    _clear(downloads, requested)
    archive, known = _download(requested, downloads, advance)
    unpacked = downloads / "unpacked"
    try:
        files = unpack(archive, unpacked, advance)
    except UnsafeArchive as error:
        archive.unlink()
        raise UnsafeArchive(f"{without_secrets(requested.url)}: {error}") from error
    files.pop(_MARKER, None)
    marker = _Marker(requested.identity, known, requested.checksum is not None, files)
    write_text(unpacked / _MARKER, json.dumps(asdict(marker)))
    unpacked.replace(folder)
    archive.unlink()
    return marker


def _check_replaceable(place: Path, folder: Path, requested: _Source) -> None:
    """Raise InputError for an empty folder that no other one can be renamed to."""
    if not place.exists():
        return
    here = place.samefile(Path.cwd())  # Linux would replace it, and leave the shell in a folder without a name
    if here or place.is_mount():
        raise InputError(
            f"{folder} is {'the current folder' if here else 'a mount point'}, which cannot be replaced; give a folder "
            f"inside it, such as --output {folder / requested.name}"
        )


def _no_progress(step: str, done_bytes: int, total_bytes: int | None) -> None:
    del step, done_bytes, total_bytes


def _parse_source(source: str, checksum: str | None) -> _Source:
    if checksum is not None:
        checksum = _parse_checksum(checksum)
    if source in DECATHLON_ARCHIVES:
        archive = DECATHLON_ARCHIVES[source]
        return _Source(archive.name, archive.url, checksum or f"md5:{archive.md5}")
    try:
        parts = urlsplit(source)
    except ValueError as error:
        raise InputError(f"'{source}' is not a valid URL: {error}") from error
    if parts.scheme in ("http", "https") and parts.hostname:
        file_name = unquote(parts.path).rstrip("/").rpartition("/")[2]
        name = re.sub(r"[^\w .-]", "_", _SUFFIXES.sub("", file_name)).strip(". ")
        return _Source(name or parts.hostname, source, checksum)
    names = {name.lower(): name for name in DECATHLON_ARCHIVES}
    organs = {name.partition("_")[2].lower(): name for name in DECATHLON_ARCHIVES}
    word = source.lower()
    near = difflib.get_close_matches(word, names, n=3, cutoff=0.7) + difflib.get_close_matches(word, organs, n=2)
    found = list(dict.fromkeys({**names, **organs}[name] for name in near))
    raise InputError(
        f"'{source}' is neither a known data set nor an http(s) URL; "
        + (f"did you mean {' or '.join(found)}?" if found else f"known data sets: {', '.join(DECATHLON_ARCHIVES)}")
    )


def _parse_checksum(text: str) -> str:
    algorithm, _, digest = text.strip().lower().partition(":")
    if len(digest) != _DIGITS.get(algorithm) or not re.fullmatch(r"[0-9a-f]+", digest):
        allowed = ", ".join(f"{name}:<{digits} digits>" for name, digits in _DIGITS.items())
        raise InputError(f"a checksum must be one of {allowed}, in hexadecimal; got '{text}'")
    return f"{algorithm}:{digest}"


def _find(folder: Path, requested: _Source, has_own_checksum: bool) -> Fetched | None:
    """The result of an earlier call in `folder`; None if it is empty or missing. Raises InputError otherwise.

    A checksum that is the one of the earlier download verifies it afterwards.
    """
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return None
    remedy = "remove it, or choose another location with --output"
    try:
        marker = _Marker(**json.loads((folder / _MARKER).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        raise InputError(f"{folder} already exists and is not a fetched data set; {remedy}") from None
    if marker.source != requested.identity:
        raise InputError(f"{folder} was fetched from {marker.source.partition(' ')[0]}; {remedy}")
    if requested.checksum is not None and requested.checksum != marker.checksum:
        was_fetched = f"{folder} was fetched with checksum {marker.checksum}"
        if requested.checksum.partition(":")[0] == marker.checksum.partition(":")[0]:
            raise InputError(f"{was_fetched}, not {requested.checksum}; {remedy}")
        if has_own_checksum:
            raise InputError(
                f"{was_fetched}, and its archive is gone, so {requested.checksum} cannot be checked any more; give "
                f"that one or none, or {remedy}"
            )
    changed = [name for name, size in marker.files.items() if not _has_size(folder / name, size)]
    if changed:
        raise InputError(
            f"{folder} was fetched, but {len(changed)} of its {len(marker.files)} files are missing or have a "
            f"different size, such as {changed[0]}; {remedy}"
        )
    if requested.checksum == marker.checksum and not marker.is_verified:
        marker = replace(marker, is_verified=True)
        with suppress(OSError):  # a folder that many read may be read-only
            write_text(folder / _MARKER, json.dumps(asdict(marker)))
    return _fetched(folder, marker, was_cached=True)


def _has_size(path: Path, size_bytes: int) -> bool:
    try:
        return path.stat().st_size == size_bytes
    except OSError:
        return False


def _clear(downloads: Path, requested: _Source) -> None:
    """Remove leftovers of earlier calls, except a partial download of the same source."""
    notes = downloads / "source"
    is_same = notes.exists() and notes.read_text(encoding="utf-8") == requested.identity
    kept = {*_WORTH_KEEPING, "part.json", notes.name} if is_same else set()
    for path in downloads.iterdir():
        if path.name not in kept:
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    write_text(notes, requested.identity)


def _download(requested: _Source, downloads: Path, advance: Advance) -> tuple[Path, str]:
    """The archive and its checksum: the known one, otherwise its SHA-256."""
    import pooch

    pooch.get_logger().setLevel(logging.WARNING)  # `advance` shows the progress
    downloader = ResumingDownloader(downloads, advance, has_checksum=requested.checksum is not None)
    archive = downloads / _ARCHIVE
    try:
        pooch.retrieve(requested.url, requested.checksum, archive.name, downloads, downloader=downloader)
    except ValueError as error:
        sums = re.search(r"expected (\S+) but got (\w+)", str(error))  # pooch's message for a wrong checksum
        if sums is None:
            raise
        downloader.forget()
        raise InputError(
            f"wrong checksum for {without_secrets(requested.url)}: expected {sums[1]}, got {sums[2]}. The download was "
            "removed: fetch it again in case it was damaged in transit; otherwise the file on the server is different"
        ) from error
    downloader.forget()
    return archive, requested.checksum or f"sha256:{pooch.file_hash(str(archive))}"


def _fetched(folder: Path, marker: _Marker, was_cached: bool) -> Fetched:
    n_bytes = sum(marker.files.values())
    return Fetched(folder, len(marker.files), n_bytes, marker.checksum, marker.is_verified, was_cached)
