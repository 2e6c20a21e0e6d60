"""Upload what runs have kept offline for Weights & Biases, by wandb's own `wandb sync`.

wandb leaves a marker beside the file of a run that it has uploaded, so what is uploaded is known from the folders.
"""

import os
import re
import subprocess
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from spleen.claim import claimed
from spleen.errors import FolderInUse, InputError
from spleen.records.folder import WANDB
from spleen.wandb_mode import base_url, has_api_key

# wandb tries for hours to reach a server that does not answer. With these it gives up within about a minute.
_IMPATIENT = {"WANDB_X_GRAPHQL_RETRY_MAX": "4", "WANDB_X_GRAPHQL_RETRY_WAIT_MAX_SECONDS": "10"}
_PATH_LENGTH = 100_000  # characters of paths in one call of wandb; systems allow more


@dataclass(frozen=True)
class OfflineRun:
    """What one process of a run has kept offline."""

    run_folder: Path
    log: Path
    """wandb's file."""

    @property
    def is_uploaded(self) -> bool:
        """Whether wandb has marked it as uploaded."""
        return self.log.with_name(f"{self.log.name}.synced").exists()


@dataclass(frozen=True)
class Uploaded:
    """What came of an upload."""

    done: list[OfflineRun]
    failed: list[OfflineRun]
    busy: list[Path]
    """Run folders that were left alone, since a training is at work there."""
    addresses: list[str]
    reason: str
    """What wandb says of the failures, on one line; empty without."""


def find_offline_runs(folders: Sequence[Path]) -> list[OfflineRun]:
    """The offline wandb runs in run folders, and in folders that hold run folders, in order of their paths.

    Raises InputError for a folder that is not there.
    """
    for folder in folders:
        if not folder.is_dir():
            raise InputError(f"{folder}: no such folder; give a run folder or a folder of runs, such as outputs")
    logs = {log for folder in folders for log in folder.resolve().glob(f"**/{WANDB}/offline-run-*/run-*.wandb")}
    return [OfflineRun(log.parents[2], log) for log in sorted(logs)]


def upload(runs: Sequence[OfflineRun]) -> Uploaded:
    """Upload runs to the server in use; those of a training that still goes on are left alone.

    Raises InputError if no key is configured for the server.
    """
    if not has_api_key():
        raise InputError(
            f"uploading needs a wandb API key for {base_url()}, and none is configured. "
            f"Run `wandb login` once (the key is shown at {_key_page()}), or set WANDB_API_KEY"
        )
    with ExitStack() as held:
        busy = []
        for folder in dict.fromkeys(run.run_folder for run in runs):
            try:
                held.enter_context(claimed(folder, patience_seconds=0))
            except FolderInUse:
                busy.append(folder)
        free = [run for run in runs if run.run_folder not in busy]
        said = "\n".join(_wandb_sync(part) for part in _portions(free))
    failed = [run for run in free if not run.is_uploaded]
    return Uploaded(
        done=[run for run in free if run.is_uploaded],
        failed=failed,
        busy=busy,
        addresses=list(dict.fromkeys(re.findall(r"View run .* at (\S+)", said))),
        reason=_reason(said) if failed else "",
    )


def _key_page() -> str:
    server = base_url()
    return "https://wandb.ai/authorize" if "wandb.ai" in server or "coreweave" in server else f"{server}/authorize"


def _portions(runs: Sequence[OfflineRun]) -> list[list[OfflineRun]]:
    """Runs in portions whose paths fit on one command line."""
    portions: list[list[OfflineRun]] = []
    length = 0
    for run in runs:
        if not portions or length > _PATH_LENGTH:
            portions.append([])
            length = 0
        portions[-1].append(run)
        length += len(str(run.log))
    return portions


def _wandb_sync(runs: Sequence[OfflineRun]) -> str:
    """What `wandb sync` prints. Its exit code says nothing: it is 0 also where no upload succeeded."""
    environment = {"WANDB_ERROR_REPORTING": "false", **_IMPATIENT, **os.environ}
    for name in ("WANDB_SERVICE", "WANDB_SILENT", "WANDB_MODE"):
        environment.pop(name, None)
    done = subprocess.run(
        [sys.executable, "-m", "wandb", "sync", *(str(run.log) for run in runs)],
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    return done.stdout


def _reason(said: str) -> str:
    """The first error that wandb tells, else its last line."""
    lines = [re.sub(r"\x1b\[[0-9;]*m|^wandb:", "", line).strip() for line in said.splitlines()]
    errors = [line.removeprefix("ERROR ") for line in lines if line.startswith("ERROR ")]
    return errors[0] if errors else next((line for line in reversed(lines) if line), "wandb says nothing")
