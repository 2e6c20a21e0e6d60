"""roi_from: a run that sees of each volume the box around what another, coarse run finds in it."""

import hashlib
import json
import logging
import os
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np

from spleen.config.schema import CasesData, TrainConfig
from spleen.config.warm_start import check_held_out
from spleen.data.cases import Case
from spleen.data.store.entry import StoredCase
from spleen.data.store.store import image_hash
from spleen.errors import InputError
from spleen.imaging.geometry import Box
from spleen.imaging.native import read_native
from spleen.imaging.slicing import in_slice_order
from spleen.inference.choice import one_checkpoint, run_name
from spleen.inference.ensemble import find_organ
from spleen.inference.loading import TrainedModel, load_trained
from spleen.inference.settings import PredictSettings
from spleen.inference.views.build import make_views
from spleen.inference.views.view import View
from spleen.models.spec import ModelSpec, RoiSettings
from spleen.records.folder import RunFolder
from spleen.records.roi import CaseBox, RoiRecord
from spleen.system.files import temporary_sibling, write_text
from spleen.system.hashing import file_sha256
from spleen.system.progress import ProgressBar, announced
from spleen.system.text import shortened

log = logging.getLogger(__name__)

# Increase whenever the box of the same image and network changes.
_FORMAT = 2


@dataclass(frozen=True)
class Coarse:
    """The coarse run, and how the run uses it."""

    source: str
    """The name of the run, or of the checkpoint outside of one."""
    model: TrainedModel
    settings: RoiSettings


def open_coarse(config: TrainConfig, run_folder: Path, resumed: bool) -> Coarse | None:
    """The coarse run of `roi_from`; None without it. A resumed run has its network in its own folder.

    Raises InputError for a run that cannot be read, that is a cascade itself, or that does not fit the images.
    """
    if config.roi_from is None:
        return None
    kept = RunFolder(run_folder).roi_checkpoint
    path = kept if resumed else one_checkpoint("roi_from", Path(config.roi_from), config.fold)
    if not resumed and path.resolve().is_relative_to(run_folder.resolve()):
        raise InputError(f"roi_from={config.roi_from} is the folder of this run, whose results it would replace")
    try:
        model = load_trained(path, own_network=config.model.network)
        _check(config, model)
    except InputError as error:
        raise InputError(f"roi_from={config.roi_from}: {error}") from error
    settings = RoiSettings(file_sha256(path), config.roi_margin_mm, tuple(config.roi_classes or ()))
    return Coarse(Path(config.roi_from).name if resumed else run_name(path), model, settings)


def _check(config: TrainConfig, model: TrainedModel) -> None:
    if model.spec.roi is not None:
        raise InputError("this run is the second network of a cascade itself; give its own coarse run, or another one")
    n_channels = (config.data.channels or 1) if isinstance(config.data, CasesData) else 1
    if model.preprocessing.n_channels != n_channels:
        raise InputError(
            f"this run was trained on {model.preprocessing.n_channels} channel(s), and the images have {n_channels}; "
            "give a run on the same channels"
        )
    names = model.classes.names
    if unknown := [name for name in config.roi_classes or () if name not in names]:
        raise InputError(f"roi_classes: this run has no class '{unknown[0]}'; it has {', '.join(names)}")


def keep_coarse(coarse: Coarse, run_folder: Path) -> None:
    """Keep the coarse network beside the checkpoints of the run, which needs it: as a hard link where possible.

    Raises InputError if it is no longer the network that was read, as where the coarse run is still training.
    """
    path = RunFolder(run_folder).roi_checkpoint
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = temporary_sibling(path)
    try:
        try:  # checkpoints are replaced, never changed, so a link stays what it is
            os.link(coarse.model.checkpoint, temporary)
        except OSError:
            shutil.copyfile(coarse.model.checkpoint, temporary)
        if file_sha256(temporary) != coarse.settings.checkpoint_sha256:
            raise InputError(
                f"roi_from: {coarse.model.checkpoint} has just been replaced; start again once that run has finished"
            )
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def with_roi(spec: ModelSpec, coarse: Coarse | None) -> ModelSpec:
    """The specification with the box, and with the images that the coarse network has seen."""
    if coarse is None:
        return spec
    seen = {*spec.seen_images, *coarse.model.spec.seen_images}
    return replace(spec, roi=coarse.settings, seen_images=tuple(sorted(seen)))


def check_coarse_held_out(
    coarse: Coarse,
    training: Sequence[StoredCase],
    validation: Sequence[StoredCase],
    test: Sequence[StoredCase],
    allow_seen_test: bool,
) -> None:
    """As `check_held_out`; also say where the boxes of training cases may be better than those of new cases."""
    seen = coarse.model.spec.seen_images
    check_held_out("roi_from", coarse.source, seen, validation, test, allow_seen_test)
    if known := [case.case_id for case in training if case.fingerprint in seen]:
        log.info(
            "%d of %d train images were train or val images of the coarse run too, so their boxes are as exact as "
            "those of new images may not be; roi_margin_mm makes up for it",
            len(known), len(training),
        )  # fmt: skip


# Boxes --------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Found:
    """What the coarse network finds in an image: the box without margin, on the image's RAS grid."""

    box: Box | None
    shape: tuple[int, int, int]
    affine: list[list[float]]


def with_boxes(config: TrainConfig, cases: Sequence[Case], coarse: Coarse) -> tuple[Case, ...]:
    """The cases with the boxes in which the run sees them, found by the coarse network unless they are in the cache.

    A case without anything found keeps its whole volume, with a warning. So does one whose image cannot be read; if no
    training can read it, the slice store tells.
    """
    settings = PredictSettings(device=config.trainer.accelerator)  # type: ignore[arg-type]  # checked by `check`
    (view,) = make_views([coarse.model], settings)
    boxed, empty, unread = [], [], {}
    with (
        announced(f"finding the organ in {len(cases)} case{'s' if len(cases) > 1 else ''}"),
        ProgressBar("case") as bar,
    ):
        for case in cases:
            try:
                found = _found(case, view, coarse.settings, Path(config.cache_dir), config.grid_tolerance_mm)
            except InputError as error:
                unread[case.case_id] = str(error)
                found = None
            if found is not None and found.box is None:
                empty.append(case.case_id)
            boxed.append(case if found is None or found.box is None else replace(case, box=_with_margin(found, coarse)))
            bar.advance("boxes", 1, len(cases))
    coarse.model.network.to("cpu")  # the memory of a GPU is for the training
    if unread:
        case_id, reason = next(iter(unread.items()))
        log.warning(
            "the coarse run cannot be used for %d of %d cases, whose whole volumes are used: %s: %s",
            len(unread), len(cases), case_id, reason,
        )  # fmt: skip
    if empty:
        log.warning(
            "the coarse run finds nothing in %d of %d cases (%s), whose whole volumes are used; is it a run on such "
            "images?",
            len(empty), len(cases), shortened(empty, 3),
        )  # fmt: skip
    return tuple(boxed)


def _with_margin(found: _Found, coarse: Coarse) -> Box:
    assert found.box is not None
    return found.box.grown(coarse.settings.margin_mm, np.array(found.affine), found.shape)


def _found(case: Case, coarse: View, roi: RoiSettings, cache: Path, tolerance_mm: float) -> _Found:
    try:
        images = [image_hash(image, cache / "hashes") for image in case.images]
    except OSError as error:
        raise InputError(f"{error.filename}: {error.strerror}") from error
    key = json.dumps([_FORMAT, images, roi.checkpoint_sha256, sorted(roi.classes)])
    note = cache / "boxes" / f"{hashlib.sha256(key.encode()).hexdigest()[:32]}.json"
    if (remembered := _read(note)) is not None:
        return remembered
    n_channels = coarse.model.preprocessing.n_channels
    image = read_native(*case.images, n_channels=n_channels, tolerance_mm=tolerance_mm)
    box = find_organ(coarse, roi.classes, image, str(case.images[0]), PredictSettings.batch_size, lambda _: None)
    found = _Found(box, image.shape, image.affine.tolist())
    write_text(note, json.dumps(asdict(found)))
    return found


def _read(note: Path) -> _Found | None:
    try:
        content = json.loads(note.read_bytes())
        box = content["box"] and Box(tuple(content["box"]["start"]), tuple(content["box"]["stop"]))
        return _Found(box, tuple(content["shape"]), content["affine"])
    except (OSError, ValueError, KeyError, TypeError):  # absent, or damaged: the organ is looked for again
        return None


def record_of(coarse: Coarse, cases: Sequence[StoredCase]) -> RoiRecord:
    """What is recorded of the boxes; warns of references that they cut."""
    boxes = {case.case_id: _case_box(case) for case in cases}
    cut = {case_id: box.outside_fraction for case_id, box in boxes.items() if box and box.outside_fraction}
    if cut:
        worst = sorted(cut.items(), key=lambda item: -item[1])
        log.warning(
            "the box cuts the reference of %d of %d cases (%s): what is beyond it counts as missed. A larger "
            "roi_margin_mm or a better coarse run helps",
            len(cut), len(cases), shortened((f"{case_id} by {part:.1%}" for case_id, part in worst), 3),
        )  # fmt: skip
    settings = coarse.settings
    return RoiRecord(coarse.source, settings.checkpoint_sha256, settings.margin_mm, settings.classes, boxes)


def _case_box(case: StoredCase) -> CaseBox | None:
    if case.box is None or case.outside is None:
        return None
    voxels = sum(case.volumes_mm3) / case.voxel_volume_mm3
    outside = int(case.outside[:, 1:].sum())
    sizes = dict(zip(in_slice_order((0, 1, 2), case.axis), case.reference.shape, strict=True))
    return CaseBox(case.box.start, case.box.stop, (sizes[0], sizes[1], sizes[2]), outside / voxels if voxels else None)
