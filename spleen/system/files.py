"""Atomic writing of files and folders."""

import os
import secrets
import shutil
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

_ABANDONED_SECONDS = 24 * 60 * 60


def write_text(path: Path, text: str) -> None:
    """Write a UTF-8 text file with `write_bytes`; bytes of file names that are not UTF-8 are written as \\xff."""
    write_bytes(path, as_utf8(text).encode())


def as_utf8(text: str) -> str:
    """The text with the bytes of file names that Python could not decode as text, or as \\xff if they are not UTF-8."""
    try:
        return text.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    except UnicodeEncodeError:  # half of a character outside the Basic Multilingual Plane
        return text.encode("utf-8", "backslashreplace").decode()


def write_bytes(path: Path, content: bytes | memoryview) -> None:
    """Write a file under a temporary name, sync it and rename it, creating its folder if needed.

    After a kill, a full disk or a power failure there is either the old or the new file, never a partial one.
    Raises OSError with the file's name.
    """
    temporary = temporary_sibling(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:  # a full-disk error has no file name, others have the temporary one
        raise OSError(error.errno, error.strerror, str(path)) from error
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
    sync_folder(path.parent)


def write_volatile(path: Path, text: str) -> None:
    """Replace a UTF-8 text file atomically but without a sync, for what is worthless after a power failure.

    Unlike `write_text` it does not create the folder.
    """
    temporary = temporary_sibling(path)
    try:
        temporary.write_text(text, encoding="utf-8")
        temporary.replace(path)
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


def create_text(path: Path, text: str) -> None:
    """Write a UTF-8 text file unless it exists, also if several processes do so at the same time."""
    temporary = temporary_sibling(path)
    try:
        write_text(temporary, text)
        with suppress(FileExistsError):
            try:
                os.link(temporary, path)
            except FileExistsError:
                raise
            except OSError:  # a file system without hard links
                if not path.exists():
                    temporary.rename(path)
    finally:
        temporary.unlink(missing_ok=True)


def sync_folder(folder: Path) -> None:
    """Flush a folder's directory entries to disk, where the system supports it."""
    with suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def remove_temporary(folder: Path) -> None:
    """Remove temporary files of killed processes in a folder that no other process is writing to."""
    for leftover in folder.glob(".tmp-*"):
        with suppress(OSError):
            shutil.rmtree(leftover) if leftover.is_dir() else leftover.unlink()


def temporary_sibling(path: Path) -> Path:
    """A unique temporary name in the same folder; it keeps the suffixes of `path`."""
    return path.with_name(f".tmp-{os.getpid()}-{secrets.token_hex(4)}-{path.name}")


def missing_folders(path: Path) -> list[Path]:
    """The folder and those of its parents that do not exist yet, innermost first."""
    absolute = path.absolute()
    return [folder for folder in (absolute, *absolute.parents) if not folder.exists()]


def remove_empty(folders: Iterable[Path]) -> None:
    """Remove the folders that exist and are empty, in the given order."""
    for folder in folders:
        with suppress(OSError):
            folder.rmdir()


def remove_stale(folder: Path) -> None:
    """Remove temporary files older than a day in a folder that other processes may be writing to."""
    for leftover in folder.glob(".tmp-*"):
        with suppress(OSError):  # another process may be removing it too
            if time.time() - leftover.stat().st_mtime > _ABANDONED_SECONDS:
                shutil.rmtree(leftover)


@contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """Yield a temporary folder that becomes `path` when the block ends without an error.

    If another process has completed the same folder first, that one is kept and ours is discarded.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = temporary_sibling(path)
    temporary.mkdir()
    try:
        yield temporary
        try:
            temporary.rename(path)
        except OSError:
            if not path.is_dir():
                raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
