"""Mirror of a run in Weights & Biases; the only module that imports wandb, and only once a run starts.

The run folder's own files are the record. wandb copies it: online where an API key is configured, else into
files under ``<run folder>/wandb/``. It never prompts, and no failure of it stops a training.
"""

import configparser
import netrc
import os
import shlex
import shutil
import sys
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal
from urllib.parse import urlsplit

import numpy as np
from jaxtyping import UInt8

from spleen.errors import InputError

if TYPE_CHECKING:
    import wandb

WandbMode = Literal["auto", "online", "offline", "disabled"]
ResolvedMode = Literal["online", "offline", "disabled"]
TableCell = str | int | float | bool | None

# What wandb takes in WANDB_MODE and in its settings files; "run" and "dryrun" are older spellings.
_MODE_NAMES: dict[str, ResolvedMode] = {
    "online": "online",
    "run": "online",
    "offline": "offline",
    "dryrun": "offline",
    "disabled": "disabled",
}
# wandb's own cloud by its present name and by its former one, under which stored keys are still read.
_CLOUD_HOSTS = ("api.forge.coreweave.com", "api.wandb.ai")


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


@dataclass(frozen=True)
class Overlay:
    """One slice as an 8-bit grey image, with the prediction and the reference as label maps over it."""

    caption: str
    image: UInt8[np.ndarray, "h w"]
    prediction: UInt8[np.ndarray, "h w"]
    reference: UInt8[np.ndarray, "h w"]
    class_names: dict[int, str]


def resolve_mode(mode: WandbMode) -> ResolvedMode:
    """Settle ``auto``, without importing wandb, touching the network or asking anyone.

    ``auto`` follows WANDB_MODE, then wandb's own settings file where that says offline or disabled. Otherwise
    it means online where an API key is configured for the server in use, and offline where none is.

    Raises:
        InputError: online was asked for (by ``mode`` or by WANDB_MODE) and no key is configured, or the value
            of WANDB_MODE is unknown.
    """
    asked_by = "logger.mode=online"
    if mode == "auto":
        asked_by = "WANDB_MODE=online"
        mode = _environment_mode() or _unasked_mode()
    if mode == "online" and not _has_api_key():
        raise InputError(
            f"{asked_by} needs a wandb API key for {_base_url()}, and none is configured. "
            "Run `wandb login` once, or set WANDB_API_KEY, or use logger.mode=offline."
        )
    return mode


class WandbRun:
    """One open wandb run. Without one (disabled, or wandb failed to start) every method does nothing."""

    def __init__(self, run: "wandb.Run | None", settings: WandbSettings, mode: ResolvedMode) -> None:
        self.mode: ResolvedMode = mode
        self._run = run
        self._settings = settings
        self._finished = False

    @property
    def folder(self) -> Path | None:
        """The folder that holds this run's files, or None when nothing is written."""
        return None if self._run is None else Path(str(self._run.dir)).resolve().parent

    def log_epoch(self, metrics: Mapping[str, float], epoch: int) -> None:
        """Add one epoch's metrics, drawn over ``epoch``. Another process writes them: about 1 ms here."""
        values = {name: float(value) for name, value in metrics.items()}
        self._attempt("log metrics", lambda run: run.log({**values, "epoch": epoch}))

    def log_summary(self, values: Mapping[str, TableCell]) -> None:
        """Set final values, such as test scores, by which the dashboard's table of runs can be sorted."""
        self._attempt("log the summary", lambda run: run.summary.update(dict(values)))

    def log_table(self, name: str, columns: Sequence[str], rows: Sequence[Sequence[TableCell]]) -> None:
        """Add a table, for instance the scores of each case."""
        self._attempt(f"log the table {name}", lambda run: run.log({name: _table(columns, rows)}))

    def log_overlays(self, overlays: Sequence[Overlay], name: str = "overlays") -> None:
        """Add images whose prediction and reference can be switched on and off, where log_images is set."""
        if overlays and self._settings.log_images:
            self._attempt("log the overlays", lambda run: run.log({name: [_image(o) for o in overlays]}))

    def log_checkpoint(self, path: Path, alias: str = "best") -> None:
        """Upload a checkpoint, only when online and where upload_checkpoint is set.

        The file is sent from where it lies, so it must stay unchanged until ``finish``.
        """
        if self.mode == "online" and self._settings.upload_checkpoint:
            self._attempt(f"upload {path.name}", lambda run: _log_checkpoint(run, path, alias))

    def finish(self, exit_code: int = 0) -> None:
        """Close the run; any exit code but 0 marks it as failed. Only the first call counts."""
        if not self._finished:
            self._finished = True
            self._attempt("finish the run", lambda run: run.finish(exit_code=exit_code))

    def how_to_look(self) -> list[str]:
        """When online the run's address; offline the commands that upload it and show it in the terminal."""
        if self._run is None:
            return []
        if self.mode == "online":
            return [str(self._run.url)]
        command, folder = shlex.quote(_wandb_command()), shlex.quote(str(self.folder))
        return [f"{command} sync {folder}", f"{command} leet {folder}"]

    def _attempt(self, what: str, action: Callable[["wandb.Run"], object]) -> None:
        # Whatever goes wrong in the mirror (its process died, the disk is full), the training is not lost.
        if self._run is None:
            return
        try:
            action(self._run)
        except Exception as error:
            _warn(f"wandb could not {what}", error)


def start_wandb_run(settings: WandbSettings, run_folder: Path, config: dict[str, object]) -> WandbRun:
    """Open a run of its own under ``<run_folder>/wandb/``; an open earlier run stays apart from it.

    Where online fails (no network, a rejected key) it warns and goes on offline; if that fails too, without.

    Raises:
        InputError: see `resolve_mode`.
    """
    mode = resolve_mode(settings.mode)
    if mode == "disabled":
        return WandbRun(None, settings, mode)
    attempts: tuple[ResolvedMode, ...] = ("online", "offline") if mode == "online" else (mode,)
    for attempt in attempts:
        try:
            return WandbRun(_init_run(settings, attempt, run_folder, config), settings, attempt)
        except Exception as error:
            _warn(f"wandb could not start {attempt}", error)
    return WandbRun(None, settings, "disabled")


def _init_run(settings: WandbSettings, mode: ResolvedMode, run_folder: Path, config: dict[str, object]) -> "wandb.Run":
    # wandb reads these only from the environment. Silent also rules out its login prompt. Error reporting
    # would make an offline run look up a host; a user who has set it keeps what was set. The data folder
    # keeps tables until they are uploaded; its default, in the home folder, would outlive the run.
    os.environ["WANDB_SILENT"] = "true"
    os.environ["WANDB_DATA_DIR"] = str(run_folder.resolve() / "wandb")
    os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
    import wandb

    run = wandb.init(
        dir=str(run_folder),
        mode=mode,
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


def _environment_mode() -> ResolvedMode | None:
    value = os.environ.get("WANDB_MODE", "")
    if value and value not in _MODE_NAMES:
        raise InputError(f"WANDB_MODE must be online, offline or disabled; got {value!r}. Change it.")
    return _MODE_NAMES.get(value)


def _unasked_mode() -> ResolvedMode:
    stored = _MODE_NAMES.get(_settings_file_values().get("mode", ""))
    if stored == "offline" or stored == "disabled":
        return stored
    return "online" if _has_api_key() else "offline"


def _has_api_key() -> bool:
    # The places where wandb's own login looks.
    if os.environ.get("WANDB_API_KEY") or os.environ.get("WANDB_IDENTITY_TOKEN_FILE"):
        return True
    host = urlsplit(_base_url()).netloc
    hosts = _CLOUD_HOSTS if host == _CLOUD_HOSTS[0] else (host,)
    return any(_netrc_has_key(name) for name in hosts) or bool(_settings_file_values().get("api_key"))


def _base_url() -> str:
    configured = os.environ.get("WANDB_BASE_URL") or _settings_file_values().get("base_url")
    return configured or f"https://{_CLOUD_HOSTS[0]}"


def _netrc_has_key(host: str) -> bool:
    named = os.environ.get("NETRC")
    name = named or ("~/.netrc" if Path("~/.netrc").expanduser().exists() else "~/_netrc")
    try:
        # Not authenticators(): it would hand out the file's default entry, a password for any other host.
        entry = netrc.netrc(Path(name).expanduser()).hosts.get(host)
    except (OSError, netrc.NetrcParseError, UnicodeDecodeError):
        return False
    return entry is not None and bool(entry[2])


def _settings_file_values() -> dict[str, str]:
    """The settings that `wandb login`, `wandb offline` and `wandb init` store, the working folder's last."""
    user_folder = Path(os.environ.get("WANDB_CONFIG_DIR") or "~/.config/wandb").expanduser()
    local_folder = Path(".wandb") if Path(".wandb").exists() else Path("wandb")
    parser = configparser.ConfigParser(interpolation=None)
    try:
        parser.read([user_folder / "settings", local_folder / "settings"])
    except (OSError, configparser.Error, UnicodeDecodeError):
        return {}
    return dict(parser["default"]) if parser.has_section("default") else {}


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
