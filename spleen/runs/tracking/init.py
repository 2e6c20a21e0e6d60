"""Starting a wandb run with the settings under which it is silent, writes into the run folder and never prompts."""

import os
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from spleen.records.folder import RunFolder
from spleen.runs.tracking.mode import ResolvedMode
from spleen.runs.tracking.parts import wandb_id
from spleen.runs.tracking.settings import WandbSettings
from spleen.system.resources import checkout
from spleen.system.terminal import unescaped_output

if TYPE_CHECKING:
    import wandb


def init_run(settings: WandbSettings, mode: ResolvedMode, run_folder: Path, config: dict[str, object]) -> "wandb.Run":
    """Open a wandb run; raises wandb's errors. It never prompts, and in offline mode opens no connection."""
    # wandb reads these only from the environment. Silent also prevents the login prompt. Error reporting would
    # trigger a DNS lookup in an offline run; a user's own setting is respected. The data folder keeps tables
    # until they are uploaded; its default, in the home folder, would outlive the run.
    os.environ["WANDB_SILENT"] = "true"
    os.environ["WANDB_DATA_DIR"] = str(RunFolder(run_folder.resolve()).wandb)
    os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
    # A wandb service started by a parent program would keep our id if we were killed.
    os.environ.pop("WANDB_SERVICE", None)
    with unescaped_output():  # whose `write` wandb replaces when it is imported, to copy what is printed
        import wandb

    run = wandb.init(
        dir=str(run_folder),
        mode=mode,
        id=wandb_id(run_folder),
        resume="allow",
        project=settings.project,
        entity=settings.entity,
        name=settings.name,
        group=settings.group,
        tags=settings.tags,
        config=config,
        reinit="create_new",
        save_code=False,
        settings=wandb.Settings(
            init_timeout=settings.init_timeout_seconds,
            finish_timeout=settings.finish_timeout_seconds,
            console="wrap" if settings.log_console else "off",
            **_code_settings(settings.log_code),
        ),
    )
    run.define_metric("epoch", hidden=True)
    return run


def _code_settings(log_code: bool) -> dict[str, Any]:
    """wandb's settings for the state of the code; only of our own checkout, not of one that contains the run folder."""
    root = checkout()
    without_git: dict[str, Any] = {"disable_git": True, "disable_code": True}
    if not log_code:
        return {**without_git, "x_save_requirements": False}
    return {"git_root": str(root)} if root else without_git


def wandb_command() -> str:
    """`wandb` if it is on the PATH, otherwise the one installed next to the running Python."""
    beside_python = Path(sys.executable).parent / "wandb"
    return "wandb" if shutil.which("wandb") or not beside_python.exists() else str(beside_python)
