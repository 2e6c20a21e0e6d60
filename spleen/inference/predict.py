"""Predict with one or several trained runs: `from spleen import predict`."""

import logging
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from spleen.errors import InputError
from spleen.imaging.classes import ClassMap
from spleen.imaging.files import find_volumes, group_channels
from spleen.imaging.geometry import SHEARED_DEGREES, shear_degrees, shear_note
from spleen.imaging.intensity import implausible_units
from spleen.imaging.native import NativeImage
from spleen.imaging.postprocessing import PostprocessSettings, postprocess
from spleen.inference.calibration.applies import find_calibration
from spleen.inference.calibration.calibration import Calibration
from spleen.inference.confidence import ClassConfidence, confidence_scores
from spleen.inference.ensemble import counting, predict_volume, read_for
from spleen.inference.leakage import (
    check_unseen,
    named_like_training_cases,
    views_that_held_out,
    views_that_saw,
    warn_of_same_images,
    warn_of_same_names,
)
from spleen.inference.loading import TrainedModel, load_ensemble
from spleen.inference.outputs import (
    NiftiResults,
    PredictedImage,
    ResultWriter,
    Target,
    keep_unrecorded,
    missing_targets,
    plan_targets,
)
from spleen.inference.record import check_folder, record
from spleen.inference.settings import PredictSettings, postprocess_settings
from spleen.inference.views.build import make_views
from spleen.inference.views.probabilities import n_slices
from spleen.inference.views.view import View
from spleen.system.repeated_warnings import folded_warnings
from spleen.system.text import first_problem

log = logging.getLogger(__name__)

Paths = str | Path | Sequence[str | Path]
Advance = Callable[[str, int, int], None]
"""Called with the case_id, the slices just done, and all slices of the case over all views."""


@dataclass(frozen=True)
class PredictedCase:
    """One finished prediction."""

    case_id: str
    mask: Path
    confidence: tuple[ClassConfidence, ...]
    """One entry per class."""
    implausible_units: str | None
    """Why the intensities of the image do not match the training, if they do not."""
    shear_degrees: float
    """Largest departure of two voxel axes from the right angle."""
    is_seen: bool
    """Whether a run was trained on this very image, regardless of the file name."""


@dataclass(frozen=True)
class FailedImage:
    """One image that could not be predicted, and why."""

    image: Path
    """Its only file, or its first channel."""
    reason: str


@dataclass(frozen=True)
class PredictionReport:
    """The result of a call of `predict`."""

    cases: tuple[PredictedCase, ...]
    failures: tuple[FailedImage, ...]
    kept: int
    """Outputs that existed and were kept."""
    left_out: int
    """Images skipped because no run held them out; 0 without `held_out`."""
    slices: int
    """Slices predicted, summed over views but not over variants."""
    seconds: float
    uncalibrated: str = ""
    """Why the confidence has no calibrated intervals; empty if it has."""
    kept_masks: tuple[Path, ...] = ()
    """The outputs that were kept."""


def predict(
    runs: Paths,
    inputs: Paths,
    output: str | Path | None = None,
    settings: PredictSettings | None = None,
    advance: Advance | None = None,
    writer: ResultWriter | None = None,
) -> PredictionReport:
    """Predict images with a trained run, or with several whose probabilities are averaged.

    `runs` are run folders, folders of runs of one arm (which differ in axis, fold and seed only; for others see
    `PredictSettings.choose`) or checkpoints; `inputs` are NIfTI files, DICOM folders, folders of either, or glob
    patterns; `output` is a file for one image, a folder otherwise. For runs trained on several channels, an image is
    one file with all channels, or the files CASE_0000.nii.gz, CASE_0001.nii.gz, …. Each mask is on the grid of its
    image, in the label values of the training; `writer` may be `spleen.dicom.results.DicomResults` for DICOM instead of
    NIfTI. An image that fails does not stop the others and is listed in the report. Runs that `calibrate` has seen give
    95 % intervals of volume and Dice, if they predict as they were calibrated.
    Raises InputError, before anything is computed, for invalid runs, settings or outputs.
    """
    settings, started = settings or PredictSettings(), time.perf_counter()
    models = load_ensemble(listed(runs, "run"), settings.allow_custom_code, settings.choose, settings.rename_classes)
    found = find_targets(inputs, output, models[0].preprocessing.n_channels, writer)
    report = predict_targets(models, found, settings, advance, writer)
    return replace(report, seconds=time.perf_counter() - started)


def predict_targets(
    models: Sequence[TrainedModel],
    found: Sequence[Target],
    settings: PredictSettings,
    advance: Advance | None = None,
    writer: ResultWriter | None = None,
) -> PredictionReport:
    """As `predict`, of models that are loaded and images whose outputs are planned."""
    started, writer = time.perf_counter(), writer or NiftiResults()
    views = make_views(models, settings)
    case_ids = [target.case_id for target in found]
    views_of = views_that_held_out(views, case_ids) if settings.held_out else dict.fromkeys(case_ids, views)
    targets = [target for target in found if target.case_id in views_of]
    cleanup = postprocess_settings(views[0].model.classes, settings)
    missing = to_compute(targets, views[0].model.classes, settings, writer)
    found_calibration = find_calibration(models, settings)
    calibration = found_calibration.calibration
    named = [] if settings.held_out else named_like_training_cases(views, case_ids)
    warn_of_same_names(named, len(found))
    cases: list[PredictedCase] = []
    failures: list[FailedImage] = []
    slices = 0
    with folded_warnings("spleen.imaging.nifti"):
        for target in missing:
            try:
                used = views_of[target.case_id]
                case, done = _predict_one(target, used, settings, cleanup, calibration, advance, writer)
                cases.append(case)
                slices += done
            except (InputError, OSError) as error:
                failures.append(FailedImage(target.image_path, str(error)))
            except Exception as error:  # out of memory, or a bug: the other images continue
                failures.append(FailedImage(target.image_path, f"{type(error).__name__}: {error}"))
    _warn(cases, named)
    kept = tuple(target.mask for target in targets if target not in set(missing))
    return PredictionReport(
        cases=tuple(cases),
        failures=tuple(failures),
        kept=len(kept),
        left_out=len(found) - len(targets),
        slices=slices,
        seconds=time.perf_counter() - started,
        uncalibrated=found_calibration.reason,
        kept_masks=kept,
    )


def _warn(cases: Sequence[PredictedCase], named: Collection[str]) -> None:
    """Warn of implausible intensities, sheared grids and training images, but not of the `named` ones once more."""
    if implausible := {case.case_id: case.implausible_units for case in cases if case.implausible_units}:
        log.warning("%s; the runs expect Hounsfield units", first_problem(implausible, len(cases)))
    if sheared := {case.case_id: case.shear_degrees for case in cases if case.shear_degrees > SHEARED_DEGREES}:
        log.warning("%s", first_problem({name: shear_note(each) for name, each in sheared.items()}, len(cases)))
    warn_of_same_images([case.case_id for case in cases if case.is_seen and case.case_id not in named], len(cases))


def find_targets(
    inputs: Paths, output: str | Path | None, n_channels: int, writer: ResultWriter | None = None
) -> list[Target]:
    """The images, with `n_channels` channels each, and their output files.

    Raises InputError for invalid inputs and outputs.
    """
    images = group_channels(find_volumes(listed(inputs, "image")), n_channels)
    return plan_targets(images, None if output is None else Path(output), (writer or NiftiResults()).suffixes)


def to_compute(
    targets: Sequence[Target], classes: ClassMap, settings: PredictSettings, writer: ResultWriter
) -> list[Target]:
    """The targets that `predict` computes, whose folders are there then.

    Raises InputError for what `writer` cannot write, as `missing_targets` does, and for a folder without permission.
    """
    writer.check(targets, classes, settings.probabilities)
    missing = missing_targets(targets, settings.probabilities, settings.overwrite, settings.skip_existing, writer)
    for folder in {target.mask.parent for target in missing}:
        check_folder(folder)
    return missing


def _predict_one(
    target: Target,
    views: Sequence[View],
    settings: PredictSettings,
    cleanup: PostprocessSettings,
    calibration: Calibration | None,
    advance: Advance | None,
    writer: ResultWriter,
) -> tuple[PredictedCase, int]:
    classes = views[0].model.classes
    has_box = any(view.coarse is not None for view in views)
    needed = _bytes_per_voxel(len(views), len(classes.names), settings.probabilities, has_box)
    image = read_for(views, target.image, needed)
    seen_by = views_that_saw(views, image)
    if settings.held_out:
        check_unseen(seen_by, target.image_path)
    writer.check_image(target, image, settings.probabilities)
    slices = sum(n_slices(model, image) for model in _networks(views))
    predicted = predict_image(
        views,
        image,
        str(target.image_path),
        settings,
        cleanup,
        lambda done: advance(target.case_id, done, slices) if advance else None,
        calibration,
    )
    if settings.skip_existing:
        keep_unrecorded(target)
    writer.write(target, image, predicted, views)
    record(target.image, target.mask, predicted.confidence, classes.values)
    case = PredictedCase(
        target.case_id,
        target.mask,
        predicted.confidence,
        predicted.implausible_units,
        shear_degrees(image.affine),
        bool(seen_by),
    )
    return case, slices


def _networks(views: Sequence[View]) -> list[TrainedModel]:
    """Those that predict an image: of the views that count, and of each of their boxes."""
    views = counting(views)
    coarse = {
        (view.model.spec.roi.checkpoint_sha256, view.model.spec.roi.classes): view.coarse.model
        for view in views
        if view.model.spec.roi is not None and view.coarse is not None
    }
    return [*(view.model for view in views), *coarse.values()]


def predict_image(
    views: Sequence[View],
    image: NativeImage,
    name: str,
    settings: PredictSettings,
    cleanup: PostprocessSettings,
    advance: Callable[[int], None],
    calibration: Calibration | None = None,
) -> PredictedImage:
    """Predict one image in memory; `name` is used in messages, `advance` receives the number of slices just done.

    `calibration` is that of `find_calibration` for these views and settings.
    """
    prediction = predict_volume(views, image, name, settings.batch_size, settings.probabilities, advance)
    classes, ranges = views[0].model.classes, _training_volumes(views)
    confidence = confidence_scores(prediction, classes.names, ranges, image.volume_mm3, calibration, classes.regions)
    mask = postprocess(prediction.mask, image.voxel_volume_mm3, cleanup)
    return PredictedImage(mask, prediction.probabilities, confidence, _intensity_doubt(views, image))


def _intensity_doubt(views: Sequence[View], image: NativeImage) -> str | None:
    intensities = {view.model.preprocessing.intensity for view in views}
    return next(filter(None, (implausible_units(image.channels, intensity) for intensity in intensities)), None)


def _training_volumes(views: Sequence[View]) -> list[tuple[float, float]]:
    """For each class, the smallest and largest volume in the training cases of all runs."""
    of_class = zip(*(view.model.spec.training_volumes_mm3 for view in views), strict=True)
    return [(min(low for low, _ in ranges), max(high for _, high in ranges)) for ranges in of_class]


def _bytes_per_voxel(n_views: int, n_organs: int, probabilities: bool, has_box: bool) -> int:
    """Peak memory per voxel besides the image: the masks, and what fusing or keeping probabilities adds."""
    fused = 5 * n_organs if n_views > 1 else 4 * n_organs * probabilities
    return 2 + 3 * has_box + fused


def listed(paths: Paths, what: str) -> list[Path]:
    """One path or several, as a list; raises InputError if there are none."""
    listed = [Path(path) for path in ([paths] if isinstance(paths, str | Path) else paths)]
    if not listed:
        raise InputError(f"give at least one {what}; the list is empty")
    return listed
