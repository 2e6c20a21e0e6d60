"""Safe extraction of untrusted archives: nothing outside the folder, nothing beyond the free space, all or nothing."""

import os
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from io import BufferedIOBase
from lzma import LZMAError
from pathlib import Path, PurePosixPath, PureWindowsPath
from stat import S_ISDIR, S_ISLNK, S_ISREG
from typing import Literal, NoReturn, cast

from rich.filesize import decimal

from spleen.data.download.http import Advance, check_free_space
from spleen.errors import InputError

_CHUNK_BYTES = 1024 * 1024
_BLOCK_BYTES = 4096  # disk overhead of a file, folder or link
_MAX_ENTRIES = 1_000_000
_MAX_TARGET_BYTES = 4096
_MAX_NAME_BYTES = 255  # of any common file system
_MAX_PATH_BYTES = 2048  # beside that of the folder, of the 4096 of Linux
_MAX_HOLES_BYTES = 64 * 1024 * 1024
_MAX_PADDING_BYTES = 16 * 1024 * 1024
_DAMAGE = (tarfile.TarError, zipfile.BadZipFile, zlib.error, LZMAError, EOFError, NotImplementedError, RuntimeError)


class UnsafeArchive(InputError):
    """An archive that is damaged or unsafe, and not worth keeping."""


@dataclass(frozen=True)
class _Entry:
    """One file, folder or link as declared by the archive; `path` is its destination inside the folder."""

    name: str
    kind: Literal["file", "folder", "symlink", "hardlink", "device"]
    size_bytes: int
    member: tarfile.TarInfo | zipfile.ZipInfo
    target: str = ""
    stored_bytes: int | None = None
    """What a sparse file holds beside holes; None for any other entry."""
    path: PurePosixPath = field(default_factory=PurePosixPath)


class _TarReader:
    def __init__(self, file: tarfile.TarFile) -> None:
        self._file = file

    def entries(self) -> Iterator[_Entry]:
        for member in self._file:
            if member.issparse():
                pieces = cast(list[tuple[int, int]], member.sparse or [])
                stored = sum(length for _, length in pieces)
                yield _Entry(member.name, "file", member.size, member, stored_bytes=stored)
            elif member.isreg():
                yield _Entry(member.name, "file", member.size, member)
            elif member.isdir():
                yield _Entry(member.name, "folder", 0, member)
            elif member.issym() or member.islnk():
                yield _Entry(member.name, "symlink" if member.issym() else "hardlink", 0, member, member.linkname)
            else:
                yield _Entry(member.name, "device", 0, member)
        if self._file.fileobj is not None:  # gzip's checksum follows the padding, which tarfile does not read
            self._file.fileobj.read(_MAX_PADDING_BYTES)

    def open(self, entry: _Entry) -> BufferedIOBase:
        assert isinstance(entry.member, tarfile.TarInfo)
        return cast(BufferedIOBase, self._file.extractfile(entry.member))  # never None for a regular file


class _ZipReader:
    def __init__(self, file: zipfile.ZipFile) -> None:
        self._file = file

    def entries(self) -> Iterator[_Entry]:
        for member in self._file.infolist():
            mode = member.external_attr >> 16  # set by Unix zip tools; 0 otherwise
            if member.flag_bits & 1:
                raise UnsafeArchive(f"'{member.filename}' is encrypted; unpack the archive yourself")
            if S_ISLNK(mode):
                yield _Entry(member.filename, "symlink", 0, member, self._target(member))
            elif member.is_dir() or S_ISDIR(mode):
                yield _Entry(member.filename, "folder", 0, member)
            elif S_ISREG(mode) or mode >> 12 == 0:
                yield _Entry(member.filename, "file", member.file_size, member)
            else:
                yield _Entry(member.filename, "device", 0, member)

    def _target(self, member: zipfile.ZipInfo) -> str:
        with self._file.open(member) as stream:
            return os.fsdecode(stream.read(_MAX_TARGET_BYTES))

    def open(self, entry: _Entry) -> BufferedIOBase:
        assert isinstance(entry.member, zipfile.ZipInfo)
        return cast(BufferedIOBase, self._file.open(entry.member))


_Reader = _TarReader | _ZipReader


def unpack(archive: Path, folder: Path, advance: Advance) -> dict[str, int]:
    """Unpack a tar (plain, gz, bz2, xz) or zip into the new folder `folder` and return the file sizes in bytes.

    A single top-level folder is stripped. macOS metadata (`._*`, `__MACOSX`, `.DS_Store`) is skipped. All entries are
    checked before the first file is written. Raises UnsafeArchive for absolute paths, `..`, links that point outside
    the folder or through other links, devices, encryption and damage; InputError if the content does not fit on the
    disk.
    """
    with _damage_as_unsafe_archive(), _open(archive) as reader:
        entries = _strip_top_folder(_read_entries(reader, folder.parent))
        _check_links(entries)
        folder.mkdir()
        total_bytes, done_bytes = sum(entry.size_bytes for entry in entries), 0
        advance("unpacking", 0, total_bytes)
        for entry in entries:
            place = folder / entry.path
            if entry.kind == "folder":
                place.mkdir(parents=True, exist_ok=True)
            elif entry.kind == "file":
                place.parent.mkdir(parents=True, exist_ok=True)
                for written_bytes in _write(reader, entry, place):
                    done_bytes += written_bytes
                    advance("unpacking", done_bytes, total_bytes)
        _make_links(entries, folder)  # last, so that no file is written through a link
    return {str(entry.path): entry.size_bytes for entry in entries if entry.kind == "file"}


@contextmanager
def _damage_as_unsafe_archive() -> Iterator[None]:
    """Turn the libraries' errors about damage into UnsafeArchive; a full disk stays an OSError."""
    try:
        yield
    except _DAMAGE as error:
        raise UnsafeArchive(f"the archive is damaged: {error}") from error
    except OSError as error:
        if error.errno is None:  # raised by gzip and bzip2, not by the system
            raise UnsafeArchive(f"the archive is damaged: {error}") from error
        raise
    except ValueError as error:  # a name with a null byte
        raise UnsafeArchive(f"the archive contains an invalid file name: {error}") from error


@contextmanager
def _open(archive: Path) -> Iterator[_Reader]:
    if tarfile.is_tarfile(archive):  # checked first: a tar whose last file is a zip also looks like a zip
        with tarfile.open(archive) as tar:
            yield _TarReader(tar)
    elif zipfile.is_zipfile(archive):
        with zipfile.ZipFile(archive) as zipped:
            yield _ZipReader(zipped)
    else:
        with archive.open("rb") as file:
            start = file.read(60)
        raise UnsafeArchive(f"not a tar or zip archive; the file starts with {start!r}. Check the URL")


def _read_entries(reader: _Reader, disk: Path) -> list[_Entry]:
    """All entries except macOS metadata, with checked paths; stops as soon as they no longer fit on the disk."""
    entries: list[_Entry] = []
    needed_bytes = 0
    for entry in reader.entries():
        path = _path(entry)
        if any(part.startswith("._") or part in ("__MACOSX", ".DS_Store") for part in path.parts):
            continue
        if entry.kind == "device":
            _refuse(entry, "is not a file, folder or link")
        if entry.stored_bytes is not None and entry.size_bytes - entry.stored_bytes > _MAX_HOLES_BYTES:
            held, declared = decimal(entry.stored_bytes), decimal(entry.size_bytes)
            _refuse(entry, f"is a sparse file that declares {declared} and holds {held}")
        needed_bytes += entry.size_bytes + _BLOCK_BYTES
        check_free_space(disk, needed_bytes, "or more, to unpack the archive")
        if path.parts:
            entries.append(replace(entry, path=path))
        if len(entries) > _MAX_ENTRIES:
            raise UnsafeArchive(f"the archive contains more than {_MAX_ENTRIES:,} entries")
    if not any(entry.kind == "file" for entry in entries):
        raise UnsafeArchive("the archive contains no files")
    return entries


def _path(entry: _Entry) -> PurePosixPath:
    path, windows = PurePosixPath(entry.name), PureWindowsPath(entry.name)
    if path.is_absolute() or windows.drive or windows.root:
        _refuse(entry, "has an absolute path")
    if ".." in windows.parts:
        _refuse(entry, "points outside the folder")
    longest = max((len(os.fsencode(part)) for part in path.parts), default=0)
    if longest > _MAX_NAME_BYTES or len(os.fsencode(path)) > _MAX_PATH_BYTES:
        raise UnsafeArchive(
            f"the archive contains a name of {max(longest, len(entry.name))} bytes, '{entry.name[:40]}…'; file systems "
            f"take names of {_MAX_NAME_BYTES} and paths of {_MAX_PATH_BYTES}; nothing was unpacked"
        )
    return path


def _strip_top_folder(entries: list[_Entry]) -> list[_Entry]:
    """Entries relative to their common top-level folder, if there is one."""
    top = PurePosixPath(entries[0].path.parts[0])
    if not all(top in entry.path.parents or (entry.path == top and entry.kind == "folder") for entry in entries):
        return entries
    stripped = []
    for entry in entries:
        target = PurePosixPath(entry.target)
        if entry.kind == "hardlink" and top in target.parents:  # hard-link targets are relative to the archive root
            entry = replace(entry, target=str(target.relative_to(top)))
        if entry.path != top:
            stripped.append(replace(entry, path=entry.path.relative_to(top)))
    return stripped


def _check_links(entries: list[_Entry]) -> None:
    """Refuse entries below a link or a file, and links that point outside the folder or through another link.

    A target may contain `..` only at its start, so that it can be resolved from its text alone.
    """
    leaves = {entry.path: entry.kind for entry in entries if entry.kind != "folder"}
    folders = {entry.path for entry in entries if entry.kind == "folder"}
    links = {path for path, kind in leaves.items() if kind == "symlink"}
    for entry in entries:
        through = next((parent for parent in entry.path.parents if parent in leaves), None)
        if through is not None:
            _refuse(entry, f"is below '{through}', which is not a folder")
        if leaves.get(entry.path, entry.kind) != entry.kind or (entry.path in folders and entry.kind != "folder"):
            _refuse(entry, "appears twice with different types")
        if entry.kind == "hardlink" and leaves.get(PurePosixPath(entry.target)) != "file":
            _refuse(entry, f"is a link to '{entry.target}', which is not a file in the archive")
        if entry.kind == "symlink":
            target = _resolved(entry)
            if any(parent in links for parent in target.parents):
                _refuse(entry, f"is a link that passes through another link, to '{entry.target}'")


def _resolved(entry: _Entry) -> PurePosixPath:
    """The target of a symbolic link, as a path inside the folder."""
    target = PurePosixPath(entry.target)
    parts = list(target.parts)
    place = list(entry.path.parent.parts)
    while parts and parts[0] == "..":
        if not place:
            _refuse(entry, f"is a link that points outside the folder, to '{entry.target}'")
        place.pop()
        parts.pop(0)
    windows = PureWindowsPath(entry.target)
    if not entry.target or target.is_absolute() or windows.drive or windows.root or "\\" in entry.target:
        _refuse(entry, f"is a link to '{entry.target}', which is not a path inside the folder")
    if ".." in parts:
        _refuse(entry, f"is a link that may point outside the folder, to '{entry.target}'")
    return PurePosixPath(*place, *parts)


def _write(reader: _Reader, entry: _Entry, place: Path) -> Iterator[int]:
    """Write one file, never more than its declared size, and yield the size of each chunk in bytes."""
    left_bytes = entry.size_bytes
    with reader.open(entry) as stream, place.open("wb") as file:
        while left_bytes and (chunk := stream.read(min(_CHUNK_BYTES, left_bytes))):
            file.write(chunk)
            left_bytes -= len(chunk)
            yield len(chunk)
        if left_bytes or stream.read(1):
            _refuse(entry, f"does not have its declared size of {decimal(entry.size_bytes)}")


def _make_links(entries: list[_Entry], folder: Path) -> None:
    for entry in entries:
        place = folder / entry.path
        if entry.kind in ("hardlink", "symlink"):
            place.parent.mkdir(parents=True, exist_ok=True)
        if entry.kind == "hardlink":
            os.link(folder / entry.target, place)
        elif entry.kind == "symlink":
            place.symlink_to(entry.target)


def _refuse(entry: _Entry, reason: str) -> NoReturn:
    raise UnsafeArchive(f"'{entry.name}' in the archive {reason}; nothing was unpacked")
