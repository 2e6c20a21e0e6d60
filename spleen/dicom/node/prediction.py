"""The prediction of a node, in a process of its own: whatever happens to it, the node goes on receiving."""

import hashlib
import logging
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from importlib import import_module
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TYPE_CHECKING

from spleen.dicom.node.quiet import silence_libraries
from spleen.errors import InputError

if TYPE_CHECKING:
    from spleen.inference.outputs import PredictedImage

log = logging.getLogger(__name__)

_STOP_SECONDS = 5.0


@dataclass(frozen=True)
class SegmentedSeries:
    """The results of a series."""

    files: tuple[Path, ...]
    """In the order in which they are sent."""
    needs_review: bool
    reason: str
    """Why it needs a review; empty if it needs none."""


Segment = Callable[[Path, Path], SegmentedSeries]
"""Segments the series in a folder, and writes its results into another; raises InputError for one that cannot be."""
Load = Callable[[], Segment]
"""Loads what is needed, once for a process. It is passed to the process, so it must be a picklable object."""


class PredictionError(Exception):
    """A prediction failed, with the reason."""


@dataclass(frozen=True)
class LoadRuns:
    """Loads trained runs, which are averaged. Results have UIDs that follow from the runs and the instances."""

    runs: tuple[Path, ...]
    device: str = "auto"
    codes: Path | None = None

    def __call__(self) -> Segment:
        """Raises InputError for runs that cannot be used, and for classes without a code."""
        from spleen.dicom.codes import codes_of, read_codes
        from spleen.dicom.results import DicomResults
        from spleen.imaging.dicom.series import candidates
        from spleen.imaging.files import ImageFiles
        from spleen.inference.calibration.applies import find_calibration
        from spleen.inference.ensemble import read_for
        from spleen.inference.loading import load_ensemble
        from spleen.inference.outputs import Target
        from spleen.inference.predict import predict_image
        from spleen.inference.settings import PredictSettings, postprocess_settings
        from spleen.inference.views.build import make_views
        from spleen.system.hardware import limit_threads
        from spleen.system.process import usable_cores

        import_module("highdicom.seg")  # now, so that the first series does not wait for it
        import_module("highdicom.sr")
        limit_threads(usable_cores())
        settings = PredictSettings(device=self.device)  # type: ignore[arg-type]
        models = load_ensemble(self.runs, False, None, {})
        if (n_channels := models[0].preprocessing.n_channels) != 1:
            raise InputError(f"a node segments series by themselves; {models[0].name} needs {n_channels} channels")
        views = make_views(models, settings)
        cleanup = postprocess_settings(models[0].classes, settings)
        calibration = find_calibration(models, settings).calibration
        codes = read_codes(self.codes)
        codes_of(models[0].classes.names, codes)
        runs = hashlib.sha256(b"".join(_digest(model.checkpoint) for model in models)).hexdigest()

        def segment(folder: Path, output: Path) -> SegmentedSeries:
            if (found := len(candidates(folder))) != 1:
                raise InputError(f"the series holds {found} volumes, such as phases or b-values; send one of them")
            seed = f"{runs} {' '.join(sorted(path.name for path in folder.iterdir()))}"
            writer = DicomResults(codes, seed=seed)
            target = Target(ImageFiles("segmentation", (folder,)), output / "segmentation.dcm")
            image = read_for(views, target.image, 2 + 5 * len(models[0].classes.names))
            writer.check_image(target, image, False)
            predicted = predict_image(views, image, "the series", settings, cleanup, lambda _: None, calibration)
            predicted = _doubted(predicted)
            writer.write(target, image, predicted, views)
            reasons = [f"{each.class_name}: {each.reasons}" for each in predicted.confidence if each.review]
            files = (target.mask, *writer.companions(target))
            return SegmentedSeries(files, bool(reasons), "; ".join(reasons))

        return segment


def _doubted(predicted: "PredictedImage") -> "PredictedImage":
    """The prediction, marked for review if the intensities are not those of the training."""
    doubt = predicted.implausible_units
    if doubt is None:
        return predicted
    confidence = tuple(
        replace(each, review=True, reasons="; ".join(filter(None, (each.reasons, doubt))))
        for each in predicted.confidence
    )
    return replace(predicted, confidence=confidence)


def _digest(path: Path) -> bytes:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").digest()


class Predictor:
    """A process that segments series, started when it is first needed and again after a crash."""

    def __init__(self, load: Load, timeout_seconds: float) -> None:
        self._load, self._timeout_seconds = load, timeout_seconds
        self._process: multiprocessing.process.BaseProcess | None = None
        self._jobs: Connection | None = None
        self._life: Connection | None = None

    def start(self) -> None:
        """Start the process and wait until everything is loaded. Raises PredictionError with the reason if it fails."""
        context = multiprocessing.get_context("spawn")
        self._jobs, jobs = context.Pipe()
        life, self._life = context.Pipe(duplex=False)
        self._process = context.Process(target=_serve, args=(self._load, jobs, life), daemon=True, name="prediction")
        self._process.start()
        jobs.close()
        life.close()
        answer = self._answer(self._timeout_seconds)
        if isinstance(answer, str):
            self.stop()
            raise PredictionError(answer)

    def segment(self, folder: Path, output: Path) -> SegmentedSeries:
        """Segment one series. Raises PredictionError with the reason if that fails, or the process ends."""
        if self._process is None or not self._process.is_alive():
            self.start()
        assert self._jobs is not None
        try:
            self._jobs.send((folder, output))
        except OSError as error:
            raise PredictionError(f"the prediction process has gone: {error}") from error
        answer = self._answer(self._timeout_seconds)
        if not isinstance(answer, SegmentedSeries):
            raise PredictionError(str(answer))
        return answer

    def stop(self) -> None:
        """End the process, also in the middle of a prediction."""
        process, self._process = self._process, None
        if process is not None:
            process.terminate()
            process.join(_STOP_SECONDS)
            if process.is_alive():
                process.kill()
                process.join(_STOP_SECONDS)
        for end in (self._jobs, self._life):
            if end is not None:
                end.close()
        self._jobs = self._life = None

    def _answer(self, timeout_seconds: float) -> object:
        """What the process answers; a text is a reason for a failure."""
        assert self._jobs is not None
        try:
            if self._jobs.poll(timeout_seconds):
                return self._jobs.recv()
            reason = f"the prediction took longer than {timeout_seconds:g} s (limits.predict_seconds)"
        except (EOFError, OSError):
            reason = self._how_it_ended()
        self.stop()
        return reason

    def _how_it_ended(self) -> str:
        process = self._process
        if process is None:
            return "the prediction was stopped"
        process.join(_STOP_SECONDS)
        code = process.exitcode
        if code is not None and code < 0:
            name = signal.Signals(-code).name
            memory = "; the memory may not suffice" if -code == signal.SIGKILL else ""
            return f"the prediction process was ended by {name}{memory}"
        return f"the prediction process ended with exit code {code}"


def _serve(load: Load, jobs: Connection, life: Connection) -> None:
    """The process: load, then segment what comes, one series at a time."""
    os.umask(0o077)
    silence_libraries()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches it too; the node ends it
    threading.Thread(target=_end_with, args=(life,), daemon=True).start()
    try:
        segment = load()
    except Exception as error:
        jobs.send(_reason(error))
        return
    jobs.send(None)
    while True:
        try:
            folder, output = jobs.recv()
        except (EOFError, OSError):
            return
        try:
            answer: object = segment(folder, output)
        except Exception as error:
            answer = _reason(error)
        jobs.send(answer)


def _end_with(life: Connection) -> None:
    """End as soon as the node does, however that ends: nobody is left to take the result."""
    try:
        life.recv()
    except (EOFError, OSError):
        os._exit(1)


def _reason(error: Exception) -> str:
    is_clear = isinstance(error, InputError | OSError)
    return str(error) if is_clear else f"{type(error).__name__}: {error}"
