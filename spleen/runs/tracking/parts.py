"""The wandb files of the segments of a run that was killed and resumed."""

import secrets
import shutil
from collections.abc import Iterable
from pathlib import Path

from spleen.records.folder import RunFolder
from spleen.system.files import write_text


def wandb_id(run_folder: Path) -> str:
    """The id of the folder's wandb run, created and stored by the first call."""
    note = RunFolder(run_folder).wandb_id
    if not note.exists():
        write_text(note, secrets.token_hex(4))
    return note.read_text(encoding="utf-8").strip()


def forget_wandb(run_folder: Path) -> None:
    """Forget the id, so that the folder's next wandb run is a new one."""
    RunFolder(run_folder).wandb_id.unlink(missing_ok=True)


def earlier_segments(run_folder: Path) -> list[Path]:
    """The folders that wandb has created for the segments of the folder's run."""
    note = RunFolder(run_folder).wandb_id
    if not note.exists():
        return []
    name = f"*run-*-{note.read_text(encoding='utf-8').strip()}"
    return sorted(
        [*note.parent.glob(name), *note.parent.glob(f"{name}-[0-9]*")]
    )  # numbered if started in the same second


def may_be_uploaded(part: Path) -> bool:
    """Whether a segment may be on wandb's server: it was online, or `wandb sync` has marked it as uploaded."""
    return not part.name.startswith("offline-") or any(part.glob("*.synced"))


def remove_segments(parts: Iterable[Path]) -> None:
    """Remove segments whose content is not needed."""
    for part in parts:
        shutil.rmtree(part, ignore_errors=True)
