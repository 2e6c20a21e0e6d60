"""Shared by the tests of the wandb mirror: what a run's own file holds, read by wandb's own inspector."""

import json
import subprocess
import time
from pathlib import Path


def records_of(log: Path) -> list[dict]:
    """Every record of a .wandb file, once the run is at its end: wandb closes the file shortly after it says so."""
    from wandb.util import get_core_path

    # What `wandb leet inspect --json` calls, without the second that importing wandb would take each time.
    inspector = [get_core_path(), "leet", "inspect", "--no-observability", "--json", "--run-file", str(log)]
    patience = time.monotonic() + 10
    while True:
        done = subprocess.run([*inspector, str(log.parent.parent)], check=True, capture_output=True, text=True)
        records = [json.loads(line) for line in done.stdout.splitlines()]
        if any(record["type"] == "exit" for record in records) or time.monotonic() > patience:
            return records
        time.sleep(0.05)


def of_type(records: list[dict], name: str) -> list[dict]:
    """The content of the records of a type."""
    return [record[name] for record in records if record["type"] == name]


def log_of(run_folder: Path) -> Path:
    """The file of the only wandb run of a run folder."""
    (log,) = run_folder.glob("wandb/*run-*/run-*.wandb")
    return log


def last_config(records: list[dict]) -> dict:
    """The configuration as it is at the end."""
    config = dict(of_type(records, "run")[0]["config"]["update"])
    for change in of_type(records, "config"):
        config |= change["update"]
    return config


def last_summary(records: list[dict]) -> dict:
    """The summary as it is at the end; the keys of what is no number have a dot for each level."""
    summary: dict = {}
    for change in of_type(records, "summary"):
        summary |= change["update"]
    return summary
