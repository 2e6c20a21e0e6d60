"""Unpacking archives from strangers: nothing outside the folder, no more than fits, all or an error."""

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

from spleen.download import Advance, require_space
from spleen.errors import InputError

_CHUNK_BYTES = 1024 * 1024
_BLOCK_BYTES = 4096  # what a file, folder or link takes on the disk beyond its content
_MAX_ENTRIES = 1_000_000
_MAX_TARGET_BYTES = 4096
_MAX_PADDING_BYTES = 16 * 1024 * 1024
_DAMAGE = (tarfile.TarError, zipfile.BadZipFile, zlib.error, LZMAError, EOFError, NotImplementedError, RuntimeError)


class RefusedArchive(InputError):
    """An archive that is damaged, or not what an archive of data should be; there is no use in keeping it."""


@dataclass(frozen=True)
class _Entry:
    """What an archive says about one of its files, folders or links; `path` is where it goes in the folder."""

    name: str
    kind: Literal["file", "folder", "symlink", "hardlink", "device"]
    size_bytes: int
    member: tarfile.TarInfo | zipfile.ZipInfo
    target: str = ""
    path: PurePosixPath = field(default_factory=PurePosixPath)


class _TarReader:
    def __init__(self, file: tarfile.TarFile) -> None:
        self._file = file

    def entries(self) -> Iterator[_Entry]:
        for member in self._file:
            if member.isreg():
                yield _Entry(member.name, "file", member.size, member)
            elif member.isdir():
                yield _Entry(member.name, "folder", 0, member)
            elif member.issym() or member.islnk():
                yield _Entry(member.name, "symlink" if member.issym() else "hardlink", 0, member, member.linkname)
            else:
                yield _Entry(member.name, "device", 0, member)
        if self._file.fileobj is not None:  # gzip's checksum comes behind the padding, which tarfile does not read
            self._file.fileobj.read(_MAX_PADDING_BYTES)

    def open(self, entry: _Entry) -> BufferedIOBase:
        assert isinstance(entry.member, tarfile.TarInfo)
        return cast(BufferedIOBase, self._file.extractfile(entry.member))  # never None for a regular file


class _ZipReader:
    def __init__(self, file: zipfile.ZipFile) -> None:
        self._file = file

    def entries(self) -> Iterator[_Entry]:
        for member in self._file.infolist():
            mode = member.external_attr >> 16  # as Unix zips write it; 0 elsewhere
            if member.flag_bits & 1:
                raise RefusedArchive(f"'{member.filename}' is encrypted; unpack the archive yourself")
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
    """Unpack a tar (plain, gz, bz2, xz) or zip into `folder`, which is created, and return its files' sizes in bytes.

    If everything lies in one top folder, its content goes into `folder`. What macOS adds (`._*`, `__MACOSX`,
    `.DS_Store`) is left out. Everything is checked before the first file is written. Raises RefusedArchive for
    absolute paths, `..`, links that lead outside or through links, devices, encryption and damage; InputError if the
    content does not fit on the disk.
    """
    with _told(), _open(archive) as reader:
        entries = _placed(_read_entries(reader, folder.parent))
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
        _make_links(entries, folder)  # last, so that no file is ever written through one
    return {str(entry.path): entry.size_bytes for entry in entries if entry.kind == "file"}


@contextmanager
def _told() -> Iterator[None]:
    """What the libraries say about a damaged archive, as RefusedArchive; a full disk stays an OSError."""
    try:
        yield
    except _DAMAGE as error:
        raise RefusedArchive(f"the archive is damaged: {error}") from error
    except OSError as error:
        if error.errno is None:  # gzip's and bzip2's errors carry none
            raise RefusedArchive(f"the archive is damaged: {error}") from error
        raise
    except ValueError as error:  # a name with a zero byte
        raise RefusedArchive(f"the archive holds a name that cannot be written: {error}") from error


@contextmanager
def _open(archive: Path) -> Iterator[_Reader]:
    if tarfile.is_tarfile(archive):  # asked first: a tar whose last file is a zip looks like a zip too
        with tarfile.open(archive) as tar:
            yield _TarReader(tar)
    elif zipfile.is_zipfile(archive):
        with zipfile.ZipFile(archive) as zipped:
            yield _ZipReader(zipped)
    else:
        with archive.open("rb") as file:
            begin = file.read(60)
        raise RefusedArchive(f"this is neither a tar nor a zip; it begins with {begin!r}. Check the address")


def _read_entries(reader: _Reader, disk: Path) -> list[_Entry]:
    """All entries but macOS's, with their paths checked; stops where they would not fit on the disk any more."""
    entries: list[_Entry] = []
    needed_bytes = 0
    for entry in reader.entries():
        path = _path(entry)
        if any(part.startswith("._") or part in ("__MACOSX", ".DS_Store") for part in path.parts):
            continue
        if entry.kind == "device":
            _refuse(entry, "is neither a file nor a folder nor a link")
        needed_bytes += entry.size_bytes + _BLOCK_BYTES
        require_space(disk, needed_bytes, "or more, to unpack the archive")
        if path.parts:
            entries.append(replace(entry, path=path))
        if len(entries) > _MAX_ENTRIES:
            raise RefusedArchive(f"the archive holds more than {_MAX_ENTRIES:,} files")
    if not any(entry.kind == "file" for entry in entries):
        raise RefusedArchive("the archive holds no file")
    return entries


def _path(entry: _Entry) -> PurePosixPath:
    path, windows = PurePosixPath(entry.name), PureWindowsPath(entry.name)
    if path.is_absolute() or windows.drive or windows.root:
        _refuse(entry, "has an absolute path")
    if ".." in windows.parts:
        _refuse(entry, "leads out of the folder")
    return path


def _placed(entries: list[_Entry]) -> list[_Entry]:
    """The entries without the one top folder that holds them all, where there is one."""
    top = PurePosixPath(entries[0].path.parts[0])
    if not all(top in entry.path.parents or (entry.path == top and entry.kind == "folder") for entry in entries):
        return entries
    placed = []
    for entry in entries:
        target = PurePosixPath(entry.target)
        if entry.kind == "hardlink" and top in target.parents:  # named from the root of the archive
            entry = replace(entry, target=str(target.relative_to(top)))
        if entry.path != top:
            placed.append(replace(entry, path=entry.path.relative_to(top)))
    return placed


def _check_links(entries: list[_Entry]) -> None:
    """Refuse entries that pass through a link or a file, and links that lead outside or through a link.

    A target may go up only at its beginning, from a folder that is known to be one; so its words say where it leads.
    """
    leaves = {entry.path: entry.kind for entry in entries if entry.kind != "folder"}
    folders = {entry.path for entry in entries if entry.kind == "folder"}
    links = {path for path, kind in leaves.items() if kind == "symlink"}
    for entry in entries:
        through = next((parent for parent in entry.path.parents if parent in leaves), None)
        if through is not None:
            _refuse(entry, f"passes through '{through}', which is no folder")
        if leaves.get(entry.path, entry.kind) != entry.kind or (entry.path in folders and entry.kind != "folder"):
            _refuse(entry, "comes twice, as different things")
        if entry.kind == "hardlink" and leaves.get(PurePosixPath(entry.target)) != "file":
            _refuse(entry, f"is a link to '{entry.target}', which is no file of the archive")
        if entry.kind == "symlink":
            target = _resolved(entry)
            if any(parent in links for parent in target.parents):
                _refuse(entry, f"is a link that leads through another one, to '{entry.target}'")


def _resolved(entry: _Entry) -> PurePosixPath:
    """Where in the folder a symbolic link leads."""
    target = PurePosixPath(entry.target)
    parts = list(target.parts)
    place = list(entry.path.parent.parts)
    while parts and parts[0] == "..":
        if not place:
            _refuse(entry, f"is a link that leads out of the folder, to '{entry.target}'")
        place.pop()
        parts.pop(0)
    windows = PureWindowsPath(entry.target)
    if not entry.target or target.is_absolute() or windows.drive or windows.root or "\\" in entry.target:
        _refuse(entry, f"is a link to '{entry.target}', which is no place in the folder")
    if ".." in parts:
        _refuse(entry, f"is a link that may lead out of the folder, to '{entry.target}'")
    return PurePosixPath(*place, *parts)


def _write(reader: _Reader, entry: _Entry, place: Path) -> Iterator[int]:
    """Write one file and yield the bytes of each piece; never more than the archive declared."""
    left_bytes = entry.size_bytes
    with reader.open(entry) as stream, place.open("wb") as file:
        while left_bytes and (chunk := stream.read(min(_CHUNK_BYTES, left_bytes))):
            file.write(chunk)
            left_bytes -= len(chunk)
            yield len(chunk)
        if left_bytes or stream.read(1):
            _refuse(entry, f"does not have the {decimal(entry.size_bytes)} that the archive declares")


def _make_links(entries: list[_Entry], folder: Path) -> None:
    for entry in entries:
        place = folder / entry.path
        if entry.kind in ("hardlink", "symlink"):
            place.parent.mkdir(parents=True, exist_ok=True)
        if entry.kind == "hardlink":
            os.link(folder / entry.target, place)
        elif entry.kind == "symlink":
            place.symlink_to(entry.target)


def _refuse(entry: _Entry, why: str) -> NoReturn:
    raise RefusedArchive(f"'{entry.name}' in the archive {why}; nothing was unpacked")
