"""Predict with one or several trained runs: `from spleen.inference.predict import predict`."""

import logging
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Integer, UInt8

from spleen.errors import InputError
from spleen.imaging.classes import ClassMap
from spleen.imaging.files import find_volumes, group_channels
from spleen.imaging.intensity import describe_implausible_units, doubt
from spleen.imaging.native import NativeImage, write_channels_like, write_like
from spleen.imaging.postprocessing import PostprocessSettings, postprocess
from spleen.inference.confidence import ClassConfidence, confidence_scores
from spleen.inference.ensemble import View, predict_volume, read_for
from spleen.inference.leakage import (
    called_as_seen,
    check_unseen,
    views_that_held_out,
    views_that_saw,
    warn_of_same_images,
    warn_of_same_names,
)
from spleen.inference.loading import TrainedModel, load_ensemble
from spleen.inference.outputs import Target, check_folder, missing_targets, plan_targets, record
from spleen.inference.tta import Variant, variants
from spleen.inference.view import n_slices
from spleen.system.hardware import DeviceName, choose_hardware

log = logging.getLogger(__name__)

Paths = str | Path | Sequence[str | Path]
Advance = Callable[[str, int, int], None]
"""Called with the case, the slices done now, and all slices of the case over all views."""


@dataclass(frozen=True)
class PredictSettings:
    """How to predict; the defaults are those of `spleen predict`."""

    weights: tuple[float, ...] | None = None
    """Share of each run in the average, in their order; equal shares without."""
    tta: bool = False
    """Test-time augmentation: small shifts, and the flips that a run was trained with."""
    flips: tuple[str, ...] = ()
    """Further anatomical directions to mirror along, whether trained with or not."""
    probabilities: bool = False
    keep_largest: tuple[str, ...] = ()
    """Classes of which only the largest component is kept; "all" stands for every class."""
    fill_holes: bool = False
    min_volume_mm3: float = 0.0
    batch_size: int = 8
    device: DeviceName = "auto"
    precision: str | None = None
    """auto, 32, bf16 or 16; without, that of each run's training."""
    allow_custom_code: bool = False
    """Build networks of any class that a checkpoint names, which runs that class's code."""
    overwrite: bool = False
    skip_existing: bool = False
    held_out: bool = False
    """Predict only cases that runs held out, each by those runs alone: scores that no training has seen."""


@dataclass(frozen=True)
class PredictedCase:
    """One finished prediction."""

    case_id: str
    mask: Path
    confidence: tuple[ClassConfidence, ...]
    """One entry per class."""
    doubt: str | None
    """Why the image's intensities cannot be what the runs were trained on."""
    is_seen: bool
    """Whether a run learnt from this very image, whatever its file is called."""


@dataclass(frozen=True)
class Failure:
    """One image that could not be predicted, and why."""

    image: Path
    """Its only file, or its first channel."""
    reason: str


@dataclass(frozen=True)
class PredictionReport:
    """What a call of `predict` did."""

    cases: tuple[PredictedCase, ...]
    failures: tuple[Failure, ...]
    kept: int
    """Outputs that existed and were left alone."""
    left_out: int
    """Images that no run held out, where only such were wanted."""
    slices: int
    """Slices through a network, over all views, each counted once whatever its variants."""
    seconds: float


def predict(
    runs: Paths,
    inputs: Paths,
    output: str | Path | None = None,
    settings: PredictSettings | None = None,
    advance: Advance | None = None,
) -> PredictionReport:
    """Predict NIfTI images with a trained run, or with several whose probabilities are averaged.

    `runs` are run folders, folders of runs or checkpoints; `inputs` are files, folders or glob patterns; `output` is a
    file for one image, a folder otherwise. For runs that were trained on several channels, an image is a file that
    holds them, or the files CASE_0000.nii.gz, CASE_0001.nii.gz, …. Each mask lies on its image's own grid, in the label
    values of the training. An image that fails stops no other one and stands in the report.
    Raises InputError, before anything is computed, for runs, settings or outputs that are wrong.
    """
    settings = settings or PredictSettings()
    started = time.perf_counter()
    models = load_ensemble(_listed(runs, "run"), settings.allow_custom_code)
    found = find_targets(inputs, output, models[0].preprocessing.n_channels)
    views = make_views(models, settings)
    case_ids = [target.case_id for target in found]
    views_of = views_that_held_out(views, case_ids) if settings.held_out else dict.fromkeys(case_ids, views)
    targets = [target for target in found if target.case_id in views_of]
    wanted = to_compute(targets, settings)
    cleaning = _postprocess_settings(views[0].model.classes, settings)
    for folder in {target.mask.parent for target in wanted}:
        check_folder(folder)
    named = [] if settings.held_out else called_as_seen(views, case_ids)
    warn_of_same_names(named, len(found))
    cases: list[PredictedCase] = []
    failures: list[Failure] = []
    slices = 0
    for target in wanted:
        try:
            case, done = _predict_one(target, views_of[target.case_id], settings, cleaning, advance or _silently)
            cases.append(case)
            slices += done
        except (InputError, OSError) as error:
            failures.append(Failure(target.image_path, str(error)))
        except Exception as error:  # out of memory, or a fault: the others go on
            failures.append(Failure(target.image_path, f"{type(error).__name__}: {error}"))
    _warn(cases, named)
    kept, left_out, seconds = len(targets) - len(wanted), len(found) - len(targets), time.perf_counter() - started
    return PredictionReport(tuple(cases), tuple(failures), kept, left_out, slices, seconds)


def _warn(cases: Sequence[PredictedCase], named: Collection[str]) -> None:
    """Tell what the images turned out to be; it is known already that those `named` are called as training cases."""
    if doubts := {case.case_id: case.doubt for case in cases if case.doubt}:
        log.warning("%s; the runs expect Hounsfield units", describe_implausible_units(doubts, len(cases)))
    warn_of_same_images([case.case_id for case in cases if case.is_seen and case.case_id not in named], len(cases))


def find_targets(inputs: Paths, output: str | Path | None, n_channels: int) -> list[Target]:
    """The images, and what their predictions become.

    `n_channels` is how many channels the runs see in an image. Raises InputError for inputs and outputs that are wrong.
    """
    images = group_channels(find_volumes(_listed(inputs, "image")), n_channels)
    return plan_targets(images, None if output is None else Path(output))


def to_compute(targets: Sequence[Target], settings: PredictSettings) -> list[Target]:
    """Those of the targets that `predict` computes; InputError where outputs exist and it is not said what to do."""
    return missing_targets(targets, settings.probabilities, settings.overwrite, settings.skip_existing)


def make_views(models: Sequence[TrainedModel], settings: PredictSettings) -> list[View]:
    """Give each model its weight, its variants and its hardware.

    Raises InputError for weights that do not fit, or hardware that is not there.
    """
    weights = _normalised(settings.weights, len(models))
    return [
        View(
            model,
            weight,
            _variants(model, settings),
            choose_hardware(settings.device, _precision(model, settings)),
        )
        for model, weight in zip(models, weights, strict=True)
    ]


def _variants(model: TrainedModel, settings: PredictSettings) -> tuple[Variant, ...]:
    if not settings.tta:
        return (Variant(),)
    return variants(model.preprocessing.axis, (*model.spec.trained_flips, *settings.flips))


def _precision(model: TrainedModel, settings: PredictSettings) -> str:
    """What was asked for, or that of the training; the 16-bit floats of a GPU exist there alone."""
    if settings.precision is not None:
        return settings.precision
    on_gpu = choose_hardware(settings.device, "32").device.type == "cuda"
    return "auto" if model.spec.precision == "16" and not on_gpu else model.spec.precision


def _normalised(weights: Sequence[float] | None, count: int) -> list[float]:
    if weights is None:
        return [1 / count] * count
    if len(weights) != count:
        raise InputError(f"{len(weights)} weights were given for {count} runs; give one for each, in their order")
    if not all(0 <= weight < np.inf for weight in weights) or not sum(weights) > 0:
        raise InputError(f"weights must be 0 or more and not all 0; got {', '.join(f'{w:g}' for w in weights)}")
    return [weight / sum(weights) for weight in weights]


def _postprocess_settings(classes: ClassMap, settings: PredictSettings) -> PostprocessSettings:
    known = {name: index for index, name in enumerate(classes.names, start=1)}
    wanted = tuple(known) if "all" in settings.keep_largest else settings.keep_largest
    unknown = [name for name in wanted if name not in known]
    if unknown:
        raise InputError(f"keep-largest: no class '{unknown[0]}'; the run knows {', '.join(known)}, or say all")
    if not settings.min_volume_mm3 >= 0:
        raise InputError(f"min-volume-mm3 must be 0 or more; got {settings.min_volume_mm3:g}")
    if settings.batch_size < 1:
        raise InputError(f"batch-size must be at least 1 slice; got {settings.batch_size}")
    return PostprocessSettings(tuple(known[name] for name in wanted), settings.fill_holes, settings.min_volume_mm3)


def _predict_one(
    target: Target,
    views: Sequence[View],
    settings: PredictSettings,
    cleaning: PostprocessSettings,
    advance: Advance,
) -> tuple[PredictedCase, int]:
    classes = views[0].model.classes
    image = read_for(views, target.image, _bytes_per_voxel(len(views), len(classes.names), settings.probabilities))
    seen_by = views_that_saw(views, image)
    if settings.held_out:
        check_unseen(seen_by, target.image_path)
    slices = sum(n_slices(view.model, image) for view in views)
    prediction = predict_volume(
        views,
        image,
        str(target.image_path),
        settings.batch_size,
        settings.probabilities,
        lambda done: advance(target.case_id, done, slices),
    )
    voxel_volume_mm3 = float(np.prod(image.spacing_mm))
    confidence = confidence_scores(prediction, classes.names, _training_volumes(views), voxel_volume_mm3)
    if prediction.probabilities is not None:
        write_channels_like(target.probabilities, prediction.probabilities, image)
    mask = postprocess(prediction.mask, voxel_volume_mm3, cleaning)
    write_like(target.mask, to_label_values(mask, classes), image)
    record(target, confidence, classes.values)
    return PredictedCase(target.case_id, target.mask, confidence, _doubt(views, image), bool(seen_by)), slices


def _doubt(views: Sequence[View], image: NativeImage) -> str | None:
    intensities = {view.model.preprocessing.intensity for view in views}
    return next(filter(None, (doubt(image.channels, intensity) for intensity in intensities)), None)


def _training_volumes(views: Sequence[View]) -> list[tuple[float, float]]:
    """For each class, the smallest and largest volume that any of the runs was trained with."""
    of_class = zip(*(view.model.spec.training_volumes_mm3 for view in views), strict=True)
    return [(min(low for low, _ in ranges), max(high for _, high in ranges)) for ranges in of_class]


def to_label_values(mask: UInt8[np.ndarray, "i j k"], classes: ClassMap) -> Integer[np.ndarray, "i j k"]:
    """Class indices as the label values of the training files, in the smallest type that holds them.

    A class that stands for several values gets the first of them.
    """
    values = [0, *(of_class[0] for of_class in classes.values)]
    if values == list(range(len(values))):
        return mask
    dtype = np.dtype(np.int32) if min(values) < 0 else np.min_scalar_type(max(values))
    labels: Integer[np.ndarray, "i j k"] = np.array(values, dtype)[mask]
    return labels


def _bytes_per_voxel(n_views: int, n_organs: int, probabilities: bool) -> int:
    """Memory of one voxel at most, besides the image: mask, and what fusing or keeping probabilities adds."""
    fused = 5 * n_organs if n_views > 1 else 4 * n_organs * probabilities
    return 2 + fused


def _listed(paths: Paths, what: str) -> list[Path]:
    listed = [Path(path) for path in ([paths] if isinstance(paths, str | Path) else paths)]
    if not listed:
        raise InputError(f"give at least one {what}; the list is empty")
    return listed


def _silently(case_id: str, done: int, total: int) -> None:
    """Show nothing."""
