"""Names of run folders, and outputs/latest."""

import logging
import os
from contextlib import suppress
from datetime import datetime
from pathlib import Path

import psutil

from spleen.runs.launch_environment import launch_environment
from spleen.system.files import temporary_sibling

log = logging.getLogger(__name__)


def run_stamp() -> str:
    """Name of the run folder: the time, or with a launcher a name shared by all its processes."""
    given = launch_environment()
    if given is not None and given.launcher == "srun":
        return f"slurm-{os.environ.get('SLURM_JOB_ID')}.{os.environ.get('SLURM_STEP_ID', '0')}"
    if given is not None and os.environ.get("GROUP_WORLD_SIZE", "1") != "1":
        return f"torchrun-{os.environ.get('TORCHELASTIC_RUN_ID')}"
    parent = psutil.Process().parent() if given is not None else None  # torchrun itself
    moment = datetime.now() if parent is None else datetime.fromtimestamp(parent.create_time())
    return moment.strftime("%Y-%m-%d_%H-%M-%S-%f")[:-3]


def point_latest(output_dir: Path, run_folder: Path) -> None:
    """Make outputs/latest point to the run folder; without symbolic links it is a file that contains the path.

    Where that is impossible, such as for a folder of that name, a warning says so: it must not cost a run.
    """
    link = output_dir / "latest"
    temporary = temporary_sibling(link)
    try:
        output_dir.mkdir(parents=True, exist_ok=True)  # the run folder may be elsewhere
        try:
            temporary.symlink_to(os.path.relpath(run_folder, output_dir), target_is_directory=True)
        except OSError:
            temporary.write_text(str(run_folder), encoding="utf-8")
        temporary.replace(link)
    except OSError as error:
        log.warning(
            "%s does not point to this run (%s); remove it to have it point to the next one", link, error.strerror
        )
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


def followed(path: Path) -> Path:
    """The folder that outputs/latest points to, also as a file; any other path as it is."""
    if path.is_symlink():
        return path.resolve()
    if path.is_file() and path.name == "latest":
        return Path(os.fsdecode(path.read_bytes().partition(b"\0")[0]))
    return path
