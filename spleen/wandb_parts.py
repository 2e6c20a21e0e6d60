"""What the parts of a run that was killed and resumed left of wandb in its folder."""

import secrets
import shutil
from collections.abc import Iterable
from pathlib import Path

from spleen.atomic import write_text
from spleen.records.folder import RunFolder


def wandb_id(run_folder: Path) -> str:
    """The id of the folder's wandb run, made and kept at the first call."""
    note = RunFolder(run_folder).wandb_id
    if not note.exists():
        write_text(note, secrets.token_hex(4))
    return note.read_text().strip()


def forget_wandb(run_folder: Path) -> None:
    """Let the folder's next wandb run be a new one."""
    RunFolder(run_folder).wandb_id.unlink(missing_ok=True)


def earlier_parts(run_folder: Path) -> list[Path]:
    """The folders that wandb has made for the parts of the folder's run."""
    note = RunFolder(run_folder).wandb_id
    if not note.exists():
        return []
    name = f"*run-*-{note.read_text().strip()}"
    return sorted([*note.parent.glob(name), *note.parent.glob(f"{name}-[0-9]*")])  # a number where a second had two


def may_be_uploaded(part: Path) -> bool:
    """Whether wandb's server may know of a part: it was online, or `wandb sync` has marked it."""
    return not part.name.startswith("offline-") or any(part.glob("*.synced"))


def drop_parts(parts: Iterable[Path]) -> None:
    """Remove parts that hold nothing of their own."""
    for part in parts:
        shutil.rmtree(part, ignore_errors=True)
