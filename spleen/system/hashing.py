"""File content hashes, cached by size and timestamps so that unchanged files are not read again."""

import hashlib
import json
import os
from pathlib import Path

from spleen.system.files import temporary_sibling


def content_hash(path: Path, memory: Path) -> str:
    """SHA-256 of the file's content, cached in the folder `memory` as long as the file's size and times are the same.

    The inode change time is compared too, because a tool that restores the modification time cannot restore it.
    """
    status = path.stat()
    signature = [status.st_size, status.st_mtime_ns, status.st_ctime_ns]
    note = memory / f"{hashlib.sha256(os.fsencode(path.resolve())).hexdigest()[:32]}.json"
    remembered = _read(note)
    if remembered is not None and remembered["signature"] == signature:
        return str(remembered["sha256"])
    digest = file_sha256(path)
    _write(note, {"path": str(path.resolve()), "signature": signature, "sha256": digest})
    return digest


def file_sha256(path: Path) -> str:
    """SHA-256 of the file's content, read anew."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _write(note: Path, content: dict[str, object]) -> None:
    """Write a note atomically, but without syncing to disk: a note lost to a power failure is simply recomputed."""
    note.parent.mkdir(parents=True, exist_ok=True)
    temporary = temporary_sibling(note)
    try:
        temporary.write_text(json.dumps(content), encoding="utf-8")
        temporary.replace(note)
    finally:
        temporary.unlink(missing_ok=True)


def _read(note: Path) -> dict[str, object] | None:
    try:
        remembered = json.loads(note.read_text(encoding="utf-8"))
    except (OSError, ValueError):  # absent, or damaged: the file is hashed again
        return None
    return remembered if isinstance(remembered, dict) and {"signature", "sha256"} <= remembered.keys() else None
