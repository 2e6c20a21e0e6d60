"""Upload offline runs to Weights & Biases with `wandb sync`.

wandb leaves a marker next to each uploaded file, so the folders show what has been uploaded.
"""

import os
import re
import subprocess
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from spleen.errors import FolderInUse, InputError
from spleen.records.folder import WANDB
from spleen.runs.tracking.mode import base_url, has_api_key
from spleen.system.locks import folder_lock

# By default wandb retries an unreachable server for hours; with these settings it gives up after about a minute.
FEW_RETRIES = {"WANDB_X_GRAPHQL_RETRY_MAX": "4", "WANDB_X_GRAPHQL_RETRY_WAIT_MAX_SECONDS": "10"}
_PATH_LENGTH = 100_000  # characters of paths per wandb call, below the limit of command lines


@dataclass(frozen=True)
class OfflineRun:
    """An offline wandb log, written by one process of a run."""

    run_folder: Path
    log: Path
    """wandb's log file."""

    @property
    def is_uploaded(self) -> bool:
        """Whether wandb has marked it as uploaded."""
        return self.log.with_name(f"{self.log.name}.synced").exists()


@dataclass(frozen=True)
class Uploaded:
    """Result of an upload."""

    done: list[OfflineRun]
    failed: list[OfflineRun]
    busy: list[Path]
    """Run folders that were skipped, because they are in use by a training."""
    addresses: list[str]
    reason: str
    """wandb's error message in one line; empty if nothing failed."""


def find_offline_runs(folders: Sequence[Path]) -> list[OfflineRun]:
    """The offline wandb runs in run folders, or in folders of run folders, sorted by path.

    Raises InputError for a folder that does not exist.
    """
    for folder in folders:
        if not folder.is_dir():
            raise InputError(f"{folder}: no such folder; expected a run folder or a folder of runs, such as outputs")
    logs = {log for folder in folders for log in folder.resolve().glob(f"**/{WANDB}/offline-run-*/run-*.wandb")}
    return [OfflineRun(log.parents[2], log) for log in sorted(logs)]


def upload(runs: Sequence[OfflineRun]) -> Uploaded:
    """Upload runs to the server in use; runs of a training in progress are skipped.

    Raises InputError if no key is configured for the server.
    """
    if not has_api_key():
        raise InputError(
            f"uploading needs a wandb API key for {base_url()}, but none is configured. "
            f"Run `wandb login` once (the key is shown at {_key_page()}), or set WANDB_API_KEY"
        )
    with ExitStack() as held:
        busy = []
        for folder in dict.fromkeys(run.run_folder for run in runs):
            try:
                held.enter_context(folder_lock(folder, timeout_seconds=0))
            except FolderInUse:
                busy.append(folder)
        free = [run for run in runs if run.run_folder not in busy]
        output = "\n".join(_wandb_sync(batch) for batch in _batches(free))
    failed = [run for run in free if not run.is_uploaded]
    return Uploaded(
        done=[run for run in free if run.is_uploaded],
        failed=failed,
        busy=busy,
        addresses=list(dict.fromkeys(re.findall(r"View run .* at (\S+)", output))),
        reason=_reason(output) if failed else "",
    )


def _key_page() -> str:
    server = base_url()
    return "https://wandb.ai/authorize" if "wandb.ai" in server or "coreweave" in server else f"{server}/authorize"


def _batches(runs: Sequence[OfflineRun]) -> list[list[OfflineRun]]:
    """Runs in batches whose paths fit on one command line."""
    batches: list[list[OfflineRun]] = []
    length = 0
    for run in runs:
        if not batches or length > _PATH_LENGTH:
            batches.append([])
            length = 0
        batches[-1].append(run)
        length += len(str(run.log))
    return batches


def _wandb_sync(runs: Sequence[OfflineRun]) -> str:
    """The output of `wandb sync`. Its exit code is useless: it is 0 even if no upload succeeded."""
    environment = {"WANDB_ERROR_REPORTING": "false", **FEW_RETRIES, **os.environ}
    for name in ("WANDB_SERVICE", "WANDB_SILENT", "WANDB_MODE"):
        environment.pop(name, None)
    done = subprocess.run(
        # -P: not a module of that name in the current folder, which may be the run folder of somebody else
        [sys.executable, "-P", "-m", "wandb", "sync", *(str(run.log) for run in runs)],
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
        errors="replace",
        check=False,
    )
    return done.stdout


def _reason(output: str) -> str:
    """The first error in wandb's output, otherwise its last line."""
    lines = [re.sub(r"\x1b\[[0-9;]*m|^wandb:", "", line).strip() for line in output.splitlines()]
    errors = [line.removeprefix("ERROR ") for line in lines if line.startswith("ERROR ")]
    return errors[0] if errors else next((line for line in reversed(lines) if line), "no output from wandb")
