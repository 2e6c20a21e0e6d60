"""The hash of a file's content, remembered with size and times so that an unchanged file is not read again."""

import hashlib
import json
from pathlib import Path

from spleen.atomic import temporary_sibling


def content_hash(path: Path, memory: Path) -> str:
    """SHA-256 of the file's content, looked up in the folder `memory` while size and times of the file stay the same.

    The inode's change time is compared too: a tool that restores the modification time cannot set that one back.
    """
    status = path.stat()
    signature = [status.st_size, status.st_mtime_ns, status.st_ctime_ns]
    note = memory / f"{hashlib.sha256(str(path.resolve()).encode()).hexdigest()[:32]}.json"
    remembered = _read(note)
    if remembered is not None and remembered["signature"] == signature:
        return str(remembered["sha256"])
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    _write(note, {"path": str(path.resolve()), "signature": signature, "sha256": digest})
    return digest


def _write(note: Path, content: dict[str, object]) -> None:
    """Write a note whole or not at all, without waiting for the disk: one that a power cut takes is written anew."""
    note.parent.mkdir(parents=True, exist_ok=True)
    temporary = temporary_sibling(note)
    try:
        temporary.write_text(json.dumps(content))
        temporary.replace(note)
    finally:
        temporary.unlink(missing_ok=True)


def _read(note: Path) -> dict[str, object] | None:
    try:
        remembered = json.loads(note.read_text())
    except (OSError, ValueError):  # absent, or damaged: the file is hashed again
        return None
    return remembered if isinstance(remembered, dict) and {"signature", "sha256"} <= remembered.keys() else None
