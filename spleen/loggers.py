"""Mirror of a run in Weights & Biases; the only module that imports wandb, and only once a run starts.

The run folder's own files are the record. wandb copies it: online where an API key is configured, else into
files under ``<run folder>/wandb/``. It never prompts, and no failure of it stops a training.
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

from spleen.patience import within
from spleen.records.folder import RunFolder
from spleen.wandb_mode import ResolvedMode, WandbMode, resolve_mode
from spleen.wandb_parts import drop_parts, earlier_parts, forget_wandb, may_be_uploaded, wandb_id

if TYPE_CHECKING:
    import wandb

TableCell = str | int | float | bool | None

# How long wandb's own process may take to accept something; it answers within milliseconds unless it hangs.
_ANSWER_SECONDS = 20.0


@dataclass(frozen=True)
class WandbSettings:
    """How one run is mirrored: where it goes, what it is called and what goes along."""

    project: str
    mode: WandbMode
    name: str
    group: str
    tags: tuple[str, ...] = ()
    entity: str | None = None
    log_images: bool = True
    upload_checkpoint: bool = True
    init_timeout_seconds: float = 20.0
    finish_timeout_seconds: float = 300.0


_open_runs: "WeakSet[WandbRun]" = WeakSet()


@dataclass(frozen=True)
class Overlay:
    """One slice as an 8-bit grey image, with the prediction and the reference as label maps over it."""

    caption: str
    image: UInt8[np.ndarray, "h w"]
    prediction: UInt8[np.ndarray, "h w"]
    reference: UInt8[np.ndarray, "h w"]
    class_names: dict[int, str]


class WandbRun:
    """One open wandb run. Without one (disabled, or wandb failed to start) every method does nothing.

    `first_epoch` is the first one that wandb has not been told of: what it knows already is not logged again.
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
        """The folder that holds this run's files, or None when nothing is written."""
        return None if self._run is None else Path(str(self._run.dir)).resolve().parent

    def log_epoch(self, metrics: Mapping[str, float], epoch: int) -> None:
        """Add one epoch's metrics, drawn over ``epoch``. Another process writes them: about 1 ms here."""
        values = {name: float(value) for name, value in metrics.items()}
        self._step = epoch
        self._log("metrics", lambda: {**values, "epoch": epoch}, complete=True)
        self._step = epoch + 1

    def log_summary(self, values: Mapping[str, TableCell]) -> None:
        """Set final values, such as test scores, by which the dashboard's table of runs can be sorted."""
        self._attempt("log the summary", lambda run: run.summary.update(dict(values)))

    def log_table(self, name: str, columns: Sequence[str], rows: Sequence[Sequence[TableCell]]) -> None:
        """Add a table, for instance the scores of each case."""
        self._log(f"the table {name}", lambda: {name: _table(columns, rows)})

    def log_overlays(self, overlays: Sequence[Overlay], name: str = "overlays") -> None:
        """Add images whose prediction and reference can be switched on and off, where log_images is set."""
        if overlays and self._settings.log_images:
            self._log("the overlays", lambda: {name: [_image(overlay) for overlay in overlays]})

    def log_checkpoint(self, path: Path, alias: str = "best") -> None:
        """Upload a checkpoint, only when online and where upload_checkpoint is set.

        The file is sent from where it lies, so it must stay unchanged until ``finish``.
        """
        if self.mode == "online" and self._settings.upload_checkpoint:
            self._attempt(f"upload {path.name}", lambda run: _log_checkpoint(run, path, alias))

    def finish(self, exit_code: int = 0, patience_seconds: float | None = None) -> None:
        """Close the run; any exit code but 0 marks it as not finished. Only the first call counts.

        Waits for the upload for finish_timeout_seconds, or for `patience_seconds` where that is shorter.
        """
        if self._finished:
            return
        self._finished = True
        _open_runs.discard(self)
        # wandb keeps to its timeout by itself unless its process hangs.
        patience = self._settings.finish_timeout_seconds + _ANSWER_SECONDS
        if patience_seconds is not None:
            patience = min(patience, patience_seconds)
        self._attempt("finish the run", lambda run: run.finish(exit_code=exit_code), patience)

    def _log(self, what: str, values: Callable[[], dict[str, object]], complete: bool = False) -> None:
        """Log values at the present step, unless wandb got that step from an earlier part of the run.

        A step that is not `complete` takes more values, and is sent when the run is finished.
        """
        step = self._step
        if step >= self._first_step:
            self._attempt(f"log {what}", lambda run: run.log(values(), step=step, commit=complete))

    def how_to_look(self) -> list[str]:
        """When online the run's address; offline the commands that upload it and show it in the terminal."""
        if self._run is None:
            return []
        if self.mode == "online":
            return [str(self._run.url)]
        command, folder = shlex.quote(_wandb_command()), shlex.quote(str(self.folder))
        return [f"{command} sync {folder}", f"{command} leet {folder}"]

    def _attempt(
        self, what: str, action: Callable[["wandb.Run"], object], patience_seconds: float = _ANSWER_SECONDS
    ) -> None:
        # Whatever goes wrong in the mirror (its process died or hangs, the disk is full), the training is not lost.
        run = self._run
        if run is None:
            return
        try:
            within(patience_seconds, lambda: action(run))
        except TimeoutError as error:
            self._run = None
            _end_service()
            _warn(f"wandb could not {what} and is left alone from here on", error)
        except Exception as error:
            _warn(f"wandb could not {what}", error)


def _end_service() -> None:
    """End wandb's own process: a hanging one would keep Python from exiting, one that failed to start keeps the id."""
    for child in psutil.Process().children():
        with suppress(psutil.Error):
            if child.name() == "wandb-core":
                child.kill()
    with suppress(Exception, SystemExit):  # it leaves with the killed process's exit code
        import wandb

        within(_ANSWER_SECONDS, wandb.teardown)


def start_wandb_run(
    settings: WandbSettings, run_folder: Path, config: dict[str, object], epochs_kept: int = 0
) -> WandbRun:
    """Open the wandb run of a run folder, under ``<run_folder>/wandb/``; it stays apart from other open runs.

    A folder has one wandb run, whose id it keeps: a resumed training goes on with it. `epochs_kept` is the number of
    epochs that a resumed training has kept; hand them all to `log_epoch`, which leaves out what wandb has got already.
    Where online fails (no network, a rejected key) it warns and goes on offline; if that fails too, without.

    Raises:
        InputError: see `resolve_mode`.
    """
    mode = resolve_mode(settings.mode)
    if mode == "disabled":
        return WandbRun(None, settings, mode)
    attempts: tuple[ResolvedMode, ...] = ("online", "offline") if mode == "online" else (mode,)
    for attempt in attempts:
        earlier = earlier_parts(run_folder)
        try:
            run = _init_run(settings, attempt, run_folder, config)
        except Exception as error:
            _warn(f"wandb could not start {attempt}", error)
            drop_parts(part for part in earlier_parts(run_folder) if part not in earlier)  # the attempt's, empty
            forget_wandb(run_folder) if _open_runs else _end_service()
        else:
            opened = WandbRun(run, settings, attempt, _first_epoch(run, attempt, earlier, epochs_kept))
            _open_runs.add(opened)
            return opened
    return WandbRun(None, settings, "disabled")


def _first_epoch(run: "wandb.Run", mode: ResolvedMode, earlier: Sequence[Path], epochs_kept: int) -> int:
    """The first epoch that wandb has not got: online its server knows.

    Offline nobody does, a killed process may have written half of its file. So the new file gets all epochs in place
    of the earlier ones, unless these may have been uploaded: then it gets the epochs after those that were kept.
    """
    if mode == "online":
        return int(run.starting_step)
    if any(map(may_be_uploaded, earlier)):
        return epochs_kept
    drop_parts(earlier)
    return 0


def _init_run(settings: WandbSettings, mode: ResolvedMode, run_folder: Path, config: dict[str, object]) -> "wandb.Run":
    # wandb reads these only from the environment. Silent also rules out its login prompt. Error reporting
    # would make an offline run look up a host; a user who has set it keeps what was set. The data folder
    # keeps tables until they are uploaded; its default, in the home folder, would outlive the run.
    os.environ["WANDB_SILENT"] = "true"
    os.environ["WANDB_DATA_DIR"] = str(RunFolder(run_folder.resolve()).wandb)
    os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
    # A process of wandb's that a program above us has started would keep our id if we were killed.
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
            # Listing every installed package takes 0.2 s at each start.
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
    # Immutable: sent from its place, without a second copy under the home folder.
    artifact.add_file(str(path), policy="immutable")
    run.log_artifact(artifact, aliases=[alias])


def _wandb_command() -> str:
    """`wandb` where the shell finds it, else the one installed beside the running Python."""
    beside_python = Path(sys.executable).parent / "wandb"
    return "wandb" if shutil.which("wandb") or not beside_python.exists() else str(beside_python)


def _warn(what: str, error: Exception) -> None:
    reason = f"{type(error).__name__}: {error}".splitlines()[0]
    warnings.warn(
        f"{what} ({reason}). Training goes on; the run folder holds every value.",
        stacklevel=3,
    )
