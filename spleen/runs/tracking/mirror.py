"""Mirror of a run in Weights & Biases; the only module that imports wandb, and only when a run starts.

The files in the run folder are the record. wandb mirrors them: online if an API key is configured, otherwise in
files under ``<run folder>/wandb/``. It never prompts, and its failures never stop a training.
"""

import os
import shlex
import shutil
import sys
import warnings
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from weakref import WeakSet

import numpy as np
import psutil
from jaxtyping import UInt8

from spleen.records.folder import RunFolder
from spleen.runs.tracking.mode import ResolvedMode, resolve_mode
from spleen.runs.tracking.parts import earlier_segments, forget_wandb, may_be_uploaded, remove_segments, wandb_id
from spleen.runs.tracking.settings import WandbSettings
from spleen.system.timeouts import run_with_timeout

if TYPE_CHECKING:
    import wandb

TableCell = str | int | float | bool | None


# Time limit for wandb's service process to accept a request; it answers within milliseconds unless it hangs.
_ANSWER_SECONDS = 20.0


@dataclass(frozen=True)
class Overlay:
    """One slice as an 8-bit greyscale image, overlaid with prediction and reference as label maps."""

    caption: str
    image: UInt8[np.ndarray, "h w"]
    prediction: UInt8[np.ndarray, "h w"]
    reference: UInt8[np.ndarray, "h w"]
    class_names: dict[int, str]


class WandbRun:
    """An open wandb run. If there is none (disabled, or wandb failed to start), every method does nothing.

    `first_epoch` is the first epoch that wandb does not have yet; earlier epochs are not logged again.
    """

    def __init__(
        self, run: "wandb.Run | None", settings: WandbSettings, mode: ResolvedMode, first_epoch: int = 0
    ) -> None:
        self.mode: ResolvedMode = mode
        self._run = run
        self._settings = settings
        self._finished = False
        self._first_step = first_epoch
        self._step = 0

    @property
    def folder(self) -> Path | None:
        """The folder of this run's wandb files, or None if nothing is written."""
        return None if self._run is None else Path(str(self._run.dir)).resolve().parent

    def log_epoch(self, metrics: Mapping[str, float], epoch: int) -> None:
        """Log one epoch's metrics with ``epoch`` as the x-axis. wandb writes in another process: about 1 ms here."""
        values = {name: float(value) for name, value in metrics.items()}
        self._step = epoch
        self._log("metrics", lambda: {**values, "epoch": epoch}, complete=True)
        self._step = epoch + 1

    def log_summary(self, values: Mapping[str, TableCell]) -> None:
        """Set final values, such as test scores, by which the dashboard can sort runs."""
        self._attempt("log the summary", lambda run: run.summary.update(dict(values)))

    def log_table(self, name: str, columns: Sequence[str], rows: Sequence[Sequence[TableCell]]) -> None:
        """Log a table, for example the scores of each case."""
        self._log(f"the table {name}", lambda: {name: _table(columns, rows)})

    def log_overlays(self, overlays: Sequence[Overlay], name: str = "overlays") -> None:
        """Log images with prediction and reference as toggleable layers, if log_images is set."""
        if overlays and self._settings.log_images:
            self._log("the overlays", lambda: {name: [_image(overlay) for overlay in overlays]})

    def log_checkpoint(self, path: Path, alias: str = "best") -> None:
        """Upload a checkpoint, if online and upload_checkpoint is set.

        The file is sent without a copy, so it must not change until ``finish``.
        """
        if self.mode == "online" and self._settings.upload_checkpoint:
            self._attempt(f"upload {path.name}", lambda run: _log_checkpoint(run, path, alias))

    def finish(self, exit_code: int = 0, timeout_seconds: float | None = None) -> None:
        """Close the run; a non-zero exit code marks it as not finished. Later calls have no effect.

        Waits for the upload for finish_timeout_seconds, or for `timeout_seconds` if that is shorter.
        """
        if self._finished:
            return
        self._finished = True
        _open_runs.discard(self)
        # wandb respects its own timeout unless its process hangs.
        patience = self._settings.finish_timeout_seconds + _ANSWER_SECONDS
        if timeout_seconds is not None:
            patience = min(patience, timeout_seconds)
        self._attempt("finish the run", lambda run: run.finish(exit_code=exit_code), patience)

    def _log(self, what: str, values: Callable[[], dict[str, object]], complete: bool = False) -> None:
        """Log values at the current step, unless wandb has that step from an earlier segment of the run.

        A step that is not `complete` accepts more values and is sent when the run is finished.
        """
        step = self._step
        if step >= self._first_step:
            self._attempt(f"log {what}", lambda run: run.log(values(), step=step, commit=complete))

    def view_instructions(self) -> list[str]:
        """Online, the run's URL; offline, the commands that upload it and show it in the terminal."""
        if self._run is None:
            return []
        if self.mode == "online":
            return [str(self._run.url)]
        command, folder = shlex.quote(_wandb_command()), shlex.quote(str(self.folder))
        return [f"{command} sync {folder}", f"{command} leet {folder}"]

    def _attempt(
        self, what: str, action: Callable[["wandb.Run"], object], timeout_seconds: float = _ANSWER_SECONDS
    ) -> None:
        # No failure of the mirror (its process died or hangs, the disk is full) may stop the training.
        run = self._run
        if run is None:
            return
        try:
            run_with_timeout(timeout_seconds, lambda: action(run))
        except TimeoutError as error:
            self._run = None
            _end_service()
            _warn(f"wandb could not {what} and is disabled from here on", error)
        except Exception as error:
            _warn(f"wandb could not {what}", error)


_open_runs: "WeakSet[WandbRun]" = WeakSet()


def _end_service() -> None:
    """Kill wandb's service process: if it hangs it blocks Python's exit, and after a failed start it keeps the id."""
    for child in psutil.Process().children():
        with suppress(psutil.Error):
            if child.name() == "wandb-core":
                child.kill()
    with suppress(Exception, SystemExit):  # wandb exits with the killed process's exit code
        import wandb

        run_with_timeout(_ANSWER_SECONDS, wandb.teardown)


def start_wandb_run(
    settings: WandbSettings, run_folder: Path, config: dict[str, object], epochs_kept: int = 0
) -> WandbRun:
    """Open the wandb run of a run folder, under ``<run_folder>/wandb/``, independent of other open runs.

    A folder has one wandb run and keeps its id: a resumed training continues it. `epochs_kept` is the number of epochs
    that a resumed training has kept; pass them all to `log_epoch`, which skips those that wandb already has.
    If online fails (no network, a rejected key), it warns and continues offline; if that fails too, without wandb.

    Raises:
        InputError: see `resolve_mode`.
    """
    mode = resolve_mode(settings.mode)
    if mode == "disabled":
        return WandbRun(None, settings, mode)
    attempts: tuple[ResolvedMode, ...] = ("online", "offline") if mode == "online" else (mode,)
    for attempt in attempts:
        earlier = earlier_segments(run_folder)
        try:
            run = _init_run(settings, attempt, run_folder, config)
        except Exception as error:
            _warn(f"wandb could not start {attempt}", error)
            remove_segments(
                part for part in earlier_segments(run_folder) if part not in earlier
            )  # the attempt's, empty
            forget_wandb(run_folder) if _open_runs else _end_service()
        else:
            opened = WandbRun(run, settings, attempt, _first_epoch(run, attempt, earlier, epochs_kept))
            _open_runs.add(opened)
            return opened
    return WandbRun(None, settings, "disabled")


def _first_epoch(run: "wandb.Run", mode: ResolvedMode, earlier: Sequence[Path], epochs_kept: int) -> int:
    """The first epoch that wandb does not have yet, reported by the server if online.

    Offline it is unknown, since a killed process may have written only part of its file. The new file then gets all
    epochs and replaces the earlier files, unless these may have been uploaded: then it gets only the new epochs.
    """
    if mode == "online":
        return int(run.starting_step)
    if any(map(may_be_uploaded, earlier)):
        return epochs_kept
    remove_segments(earlier)
    return 0


def _init_run(settings: WandbSettings, mode: ResolvedMode, run_folder: Path, config: dict[str, object]) -> "wandb.Run":
    # wandb reads these only from the environment. Silent also prevents the login prompt. Error reporting would
    # trigger a DNS lookup in an offline run; a user's own setting is respected. The data folder keeps tables
    # until they are uploaded; its default, in the home folder, would outlive the run.
    os.environ["WANDB_SILENT"] = "true"
    os.environ["WANDB_DATA_DIR"] = str(RunFolder(run_folder.resolve()).wandb)
    os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
    # A wandb service started by a parent program would keep our id if we were killed.
    os.environ.pop("WANDB_SERVICE", None)
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
            console="off",
            disable_code=True,
            disable_git=True,
            # Listing all installed packages takes 0.2 s per start.
            x_save_requirements=False,
        ),
    )
    run.define_metric("epoch")
    run.define_metric("*", step_metric="epoch")
    return run


def _table(columns: Sequence[str], rows: Sequence[Sequence[TableCell]]) -> "wandb.Table":
    import wandb

    return wandb.Table(columns=list(columns), data=[list(row) for row in rows], allow_mixed_types=True)


def _image(overlay: Overlay) -> "wandb.Image":
    import wandb

    label_maps = {"prediction": overlay.prediction, "reference": overlay.reference}
    masks = {
        layer: {"mask_data": label_map, "class_labels": overlay.class_names} for layer, label_map in label_maps.items()
    }
    return wandb.Image(overlay.image, caption=overlay.caption, masks=masks)


def _log_checkpoint(run: "wandb.Run", path: Path, alias: str) -> None:
    import wandb

    artifact = wandb.Artifact(name=f"model-{run.id}", type="model")
    # Immutable: uploaded in place, without a copy in the home folder.
    artifact.add_file(str(path), policy="immutable")
    run.log_artifact(artifact, aliases=[alias])


def _wandb_command() -> str:
    """`wandb` if it is on the PATH, otherwise the one installed next to the running Python."""
    beside_python = Path(sys.executable).parent / "wandb"
    return "wandb" if shutil.which("wandb") or not beside_python.exists() else str(beside_python)


def _warn(what: str, error: Exception) -> None:
    reason = f"{type(error).__name__}: {error}".splitlines()[0]
    warnings.warn(
        f"{what} ({reason}). Training continues; the run folder contains all values.",
        stacklevel=3,
    )
