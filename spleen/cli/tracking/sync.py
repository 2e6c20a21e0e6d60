"""`spleen sync`."""

import sys
from pathlib import Path
from typing import Annotated

import typer


def sync(
    runs: Annotated[
        list[Path],
        typer.Argument(metavar="RUN…", help="Run folders, or folders of runs such as outputs.", show_default=False),
    ],
) -> None:
    """Upload offline runs to Weights & Biases.

    No run is uploaded twice. Exit code 0 if nothing is left to upload, 1 if an upload failed, 2 for invalid input,
    such as a missing API key.
    """
    from spleen.runs.tracking.mode import base_url
    from spleen.runs.tracking.sync import find_offline_runs, upload

    found = find_offline_runs(runs)
    waiting = [run for run in found if not run.is_uploaded]
    if not waiting:
        reason = f"all {len(found)} offline runs are uploaded already" if found else "there is no offline wandb run"
        print(f"nothing to upload: {reason} in {', '.join(map(str, runs))}")
        return
    print(f"uploading {len(waiting)} offline run(s) to {base_url()}", flush=True)
    uploaded = upload(waiting)
    for run in uploaded.done:
        print(f"uploaded: {run.run_folder}")
    for address in uploaded.addresses:
        print(f"  {address}")
    for folder in uploaded.busy:
        print(f"skipped, a training is running there: {folder}")
    if uploaded.failed:
        print(
            f"error: {len(uploaded.failed)} of {len(waiting)} could not be uploaded: {uploaded.reason}\n"
            "They are unchanged; run the same command again",
            file=sys.stderr,
        )
        raise typer.Exit(code=1)
