"""Mirror of a run in Weights & Biases. wandb is imported only when a run starts.

The files in the run folder are the record. wandb mirrors them: online if an API key is configured, otherwise in
files under ``<run folder>/wandb/``. It never prompts, and its failures never stop a training.
"""

import shlex
import time
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Literal
from weakref import WeakSet

import psutil

from spleen.runs.tracking.init import init_run, wandb_command
from spleen.runs.tracking.media import Overlay, TableCell, log_checkpoint, wandb_image, wandb_page, wandb_table
from spleen.runs.tracking.mode import ResolvedMode, resolve_mode
from spleen.runs.tracking.parts import earlier_segments, forget_wandb, may_be_uploaded, remove_segments
from spleen.runs.tracking.settings import WandbSettings
from spleen.system.timeouts import run_with_timeout

if TYPE_CHECKING:
    import wandb

# Time limit for wandb's service process to accept a request; it answers within milliseconds unless it hangs.
_ANSWER_SECONDS = 20.0
# Which value of an epoch's metrics stays in the summary, where it is not the last one.
_BEST: dict[str, Literal["min", "max"]] = {"train/loss": "min", "val/loss": "min"}


class WandbRun:
    """An open wandb run. If there is none (disabled, or wandb failed to start), every method does nothing.

    `first_epoch` is the first epoch that wandb does not have yet; earlier epochs are not logged again. `epochs_kept` is
    the number of epochs that an earlier process has trained, so that nothing is known of their time.
    """

    def __init__(
        self,
        run: "wandb.Run | None",
        settings: WandbSettings,
        mode: ResolvedMode,
        first_epoch: int = 0,
        epochs_kept: int = 0,
    ) -> None:
        self.mode: ResolvedMode = mode
        self._run = run
        self._settings = settings
        self._finished = False
        self._first_step = first_epoch
        self._step = 0
        self._epochs_kept = epochs_kept
        self._last_epoch_ended = time.monotonic()
        self._defined: set[str] = set()

    @property
    def folder(self) -> Path | None:
        """The folder of this run's wandb files, or None if nothing is written."""
        return None if self._run is None else Path(str(self._run.dir)).resolve().parent

    @property
    def is_open(self) -> bool:
        """Whether anything that is logged is kept."""
        return self._run is not None

    @property
    def shows_images(self) -> bool:
        """Whether overlays are worth computing."""
        return self._run is not None and self._settings.log_images

    def log_epoch(self, metrics: Mapping[str, float], epoch: int) -> None:
        """Log the metrics of an epoch, counted from 0 here and from 1 on the dashboard, where it is the x-axis.

        Also logs the seconds since the previous epoch. wandb writes in another process: about 1 ms here.
        """
        values = {name: float(value) for name, value in metrics.items()}
        now = time.monotonic()
        if epoch >= self._epochs_kept:
            values["time/epoch_seconds"] = now - self._last_epoch_ended
        self._last_epoch_ended = now
        self._step = epoch
        if undefined := values.keys() - self._defined:
            self._attempt("define the metrics", lambda run: _define(run, sorted(undefined)))
            self._defined |= undefined
        self._log("metrics", lambda: {**values, "epoch": epoch + 1}, complete=True)
        self._step = epoch + 1

    def log_values(self, values: Mapping[str, float]) -> None:
        """Log final values, such as test scores, each of which becomes a panel that compares runs."""
        self._log("the final values", lambda: dict(values))

    def log_summary(self, values: Mapping[str, str | int | float | None]) -> None:
        """Set final values by which the dashboard can sort runs, without a panel."""
        self._attempt("log the summary", lambda run: run.summary.update(dict(values)))

    def log_config(self, values: Mapping[str, object]) -> None:
        """Add to the configuration what is known only at the end."""
        self._attempt("log the configuration", lambda run: run.config.update(dict(values), allow_val_change=True))

    def log_table(self, name: str, columns: Sequence[str], rows: Sequence[Sequence[TableCell]]) -> None:
        """Log a table, for example the scores of each case; a cell may be an image."""
        self._log(f"the table {name}", lambda: {name: wandb_table(columns, rows)})

    def log_overlays(self, overlays: Sequence[Overlay], name: str = "test/slices") -> None:
        """Log images with prediction and reference as toggleable layers, if log_images is set."""
        if overlays and self._settings.log_images:
            self._log("the overlays", lambda: {name: [wandb_image(overlay) for overlay in overlays]})

    def log_page(self, path: Path) -> None:
        """Log an HTML page as a panel, if it exists."""
        if path.is_file():
            self._log(path.name, lambda: {"report": wandb_page(path)})

    def log_checkpoints(
        self, best: Path, last: Path, best_is_last: bool, description: str, metadata: Mapping[str, object]
    ) -> None:
        """Log the checkpoints that the settings ask for as versions of one artifact; offline they wait for the upload.

        The files are sent without a copy, so they must not change until then.
        """
        settings = self._settings
        if settings.upload_last_checkpoint and last.is_file():
            self._attempt(f"log {last.name}", lambda run: log_checkpoint(run, last, ["last"], description, metadata))
            best_is_last = False  # the alias is taken
        if settings.upload_checkpoint:
            aliases = ["best", "last"] if best_is_last else ["best"]
            self._attempt(f"log {best.name}", lambda run: log_checkpoint(run, best, aliases, description, metadata))

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
        command, folder = shlex.quote(wandb_command()), shlex.quote(str(self.folder))
        return [f"{command} sync {folder}", f"{command} leet {folder}"]

    def _attempt(
        self, what: str, action: Callable[["wandb.Run"], object], timeout_seconds: float | None = None
    ) -> None:
        # No failure of the mirror (its process died or hangs, the disk is full) may stop the training.
        run = self._run
        if run is None:
            return
        try:
            run_with_timeout(_ANSWER_SECONDS if timeout_seconds is None else timeout_seconds, lambda: action(run))
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
            run = init_run(settings, attempt, run_folder, config)
        except Exception as error:
            _warn(f"wandb could not start {attempt}", error)
            remove_segments(
                part for part in earlier_segments(run_folder) if part not in earlier
            )  # the attempt's, empty
            forget_wandb(run_folder) if _open_runs else _end_service()
        else:
            first_epoch = _first_epoch(run, attempt, earlier, epochs_kept)
            opened = WandbRun(run, settings, attempt, first_epoch, epochs_kept)
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


def _define(run: "wandb.Run", names: Iterable[str]) -> None:
    """Give metrics the epoch as x-axis; the summary keeps the best value of losses and validation scores."""
    for name in names:
        best = _BEST.get(name, "max" if name.startswith("val/") else None)
        run.define_metric(name, step_metric="epoch", summary=best)


def _warn(what: str, error: Exception) -> None:
    reason = f"{type(error).__name__}: {error}".splitlines()[0]
    warnings.warn(
        f"{what} ({reason}). Training continues; the run folder contains all values.",
        stacklevel=3,
    )
