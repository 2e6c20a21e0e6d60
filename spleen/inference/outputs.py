"""What a prediction writes: its files, their names, and what is overwritten."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Protocol, runtime_checkable
from unicodedata import normalize

import numpy as np
from jaxtyping import Float32, Integer, UInt8

from spleen.errors import InputError
from spleen.evaluation.class_names import CSV_NAME
from spleen.imaging.classes import ClassMap
from spleen.imaging.dicom.volume import check_even
from spleen.imaging.files import PROBABILITIES_SUFFIX, SUFFIXES, ImageFiles, case_name, told_apart
from spleen.imaging.native import NativeImage, is_whole, write_channels_like, write_like
from spleen.inference.confidence import ClassConfidence
from spleen.inference.record import read_record
from spleen.inference.views.view import View
from spleen.system.files import as_utf8
from spleen.system.text import shortened

log = logging.getLogger(__name__)

# Endings of files that are clearly not meant as a folder.
_OTHER_FILES = {
    ".nii", ".nrrd", ".nhdr", ".mha", ".mhd", ".img", ".hdr", ".mgz", ".mgh", ".mnc", ".dcm", ".gz", ".zip", ".tar",
    ".npy", ".npz", ".h5", ".png", ".jpg", ".jpeg", ".tif", ".tiff", ".csv", ".json", ".txt", ".stl", ".vtk", ".ckpt",
    ".pt",
}  # fmt: skip


@dataclass(frozen=True)
class Target:
    """One image and the output files of its prediction."""

    image: ImageFiles
    mask: Path

    @property
    def case_id(self) -> str:
        """The name of the image."""
        return self.image.case_id

    @property
    def image_path(self) -> Path:
        """The image's only file, or its first channel; used in messages."""
        return self.image.paths[0]

    @property
    def probabilities(self) -> Path:
        """The probability map, written on request."""
        return self.mask.with_name(f"{case_name(self.mask)}{PROBABILITIES_SUFFIX}.nii.gz")


@dataclass(frozen=True, eq=False)
class PredictedImage:
    """The prediction of one image in memory, on its RAS grid."""

    mask: UInt8[np.ndarray, "i j k"]
    """Class indices, after post-processing."""
    probabilities: Float32[np.ndarray, "organ i j k"] | None
    confidence: tuple[ClassConfidence, ...]
    """One entry per class, from the mask before post-processing."""
    implausible_units: str | None
    """Why the intensities do not match the training, if they do not."""


@runtime_checkable  # for the type checks of the tests
class ResultWriter(Protocol):
    """Writes what was predicted, in one format. `predict` calls `check` once, the others for each image."""

    @property
    def suffixes(self) -> tuple[str, ...]:
        """How a mask may be called, in lower case; the first is the default."""

    def companions(self, target: Target) -> tuple[Path, ...]:
        """The files that are written beside the mask, without its probability map."""

    def check(self, targets: Sequence[Target], classes: ClassMap, probabilities: bool) -> None:
        """Raise InputError, before anything is read, if a result could not be written."""

    def check_image(self, target: Target, image: NativeImage, probabilities: bool) -> None:
        """Raise InputError, before the image is predicted, if its result could not be written."""

    def write(self, target: Target, image: NativeImage, predicted: PredictedImage, views: Sequence[View]) -> None:
        """Write all files of one prediction; each is complete or not there at all."""

    def is_whole(self, path: Path) -> bool:
        """Whether a file that was written can be read to its end."""


class NiftiResults:
    """Masks on the grid of their images, as NIfTI files."""

    suffixes = SUFFIXES

    def companions(self, _target: Target) -> tuple[Path, ...]:
        """Nothing but the mask."""
        return ()

    def check(self, _targets: Sequence[Target], _classes: ClassMap, _probabilities: bool) -> None:
        """Any class can be written, of any image with a regular grid."""

    def check_image(self, target: Target, image: NativeImage, _probabilities: bool) -> None:
        """Raise InputError for unevenly spaced slices, which NIfTI has no place for."""
        if image.series is not None:
            check_even(image.series, target.image_path)

    def write(self, target: Target, image: NativeImage, predicted: PredictedImage, views: Sequence[View]) -> None:
        """Write the mask in the label values of the training, and the probabilities if there are any."""
        if predicted.probabilities is not None:
            write_channels_like(target.probabilities, predicted.probabilities, image)
        write_like(target.mask, to_label_values(predicted.mask, views[0].model.classes), image)

    def is_whole(self, path: Path) -> bool:
        """Whether a file can be read to its end."""
        return is_whole(path)


def to_label_values(mask: UInt8[np.ndarray, "i j k"], classes: ClassMap) -> Integer[np.ndarray, "i j k"]:
    """Map class indices to the label values of the training files, in the smallest type that represents them.

    A class merged from several values gets the first of them, as does each of several overlapping classes.
    """
    values = [0, *(of_class[0] for of_class in classes.values)]
    if values == list(range(len(values))):
        return mask
    dtype = np.dtype(np.int32) if min(values) < 0 else np.min_scalar_type(max(values))
    labels: Integer[np.ndarray, "i j k"] = np.array(values, dtype)[mask]
    return labels


def plan_targets(
    images: Sequence[ImageFiles], output: Path | None, suffixes: tuple[str, ...] = SUFFIXES
) -> list[Target]:
    """Name the output of each image: `output` itself if it ends in one of the suffixes, else a file in that folder.

    The default is out.nii.gz for one image, and the folder predictions for several. Raises InputError if two images
    would write the same file, or a prediction would overwrite an image.
    """
    if output is None:
        output = Path(f"out{suffixes[0]}" if len(images) == 1 else "predictions")
    is_file = output.name.lower().endswith(suffixes) and not output.is_dir()
    if output.suffix.lower() in _OTHER_FILES and not is_file and not output.is_dir():
        allowed = " or ".join(suffixes)
        raise InputError(f"--output {output}: a mask is written as {allowed}; any other name is a folder's")
    if is_file:
        if len(images) > 1:
            raise InputError(f"{len(images)} images cannot all become the one file {output}; give a folder as --output")
        targets = [Target(images[0], output)]
    else:
        targets = [Target(image, output / f"{image.case_id}{suffixes[0]}") for image in images]
    read = {path.resolve() for image in images for path in image.paths}
    by_mask: dict[Path, Path] = {}
    alike: dict[str, Target] = {}
    for target in targets:
        other = alike.setdefault(normalize("NFC", str(target.mask)), target)
        if other.mask != target.mask:
            raise InputError(told_apart(other.image_path.name, target.image_path.name))
        if target.mask in by_mask:
            raise InputError(
                f"{by_mask[target.mask]} and {target.image_path} have the same name, so both would become "
                f"{target.mask}; predict them into different folders"
            )
        by_mask[target.mask] = target.image_path
        if target.mask.resolve() in read:
            raise InputError(f"the prediction of {target.image_path} would overwrite the image; give another --output")
    return targets


def missing_targets(
    targets: Sequence[Target],
    probabilities: bool,
    overwrite: bool,
    skip_existing: bool,
    writer: ResultWriter | None = None,
) -> list[Target]:
    """The targets to compute; with `skip_existing`, only those whose files are not all there, whole, and recorded.

    Raises InputError if a file exists and neither `overwrite` nor `skip_existing` is set, or if both are.
    """
    if overwrite and skip_existing:
        raise InputError("give either --overwrite or --skip-existing, not both")
    writer = writer or NiftiResults()
    files = {
        target: [target.mask, *writer.companions(target), *([target.probabilities] if probabilities else [])]
        for target in targets
    }
    _check_apart(list(files.values()))
    if overwrite:
        return list(targets)
    if skip_existing:
        return _unfinished(files, writer)
    existing = [target for target in targets if any(path.exists() for path in files[target])]
    if not existing:
        return list(targets)
    names = shortened(target.mask for target in existing)
    raise InputError(
        f"{len(existing)} of {len(targets)} outputs exist already ({names}); add --overwrite to replace them, or "
        "--skip-existing to compute only the others"
    )


def _unfinished(files: Mapping[Target, Sequence[Path]], writer: ResultWriter) -> list[Target]:
    """The targets that are not done: a file is missing or damaged, or the mask is not in predictions.csv."""
    missing = [target for target, paths in files.items() if not all(path.exists() for path in paths)]
    there = [target for target in files if target not in missing]
    recorded = {folder: _recorded(folder) for folder in {target.mask.parent for target in there}}
    doubtful = [
        target
        for target in there
        if as_utf8(target.mask.name) not in recorded[target.mask.parent] or not all(map(writer.is_whole, files[target]))
    ]
    if doubtful:
        log.warning(
            "%d existing outputs are damaged, or not in %s, and are predicted again: %s",
            len(doubtful), CSV_NAME, shortened(target.mask for target in doubtful),
        )  # fmt: skip
    return [target for target in files if target in {*missing, *doubtful}]


def _recorded(folder: Path) -> set[str]:
    """The names of the masks in a folder's predictions.csv."""
    return {row["prediction"] for row in read_record(folder / CSV_NAME)}


def keep_unrecorded(target: Target) -> None:
    """Rename an existing mask that no prediction has recorded, since it may be somebody's own; a warning names it."""
    mask = target.mask
    if mask.exists() and as_utf8(mask.name) not in _recorded(mask.parent):
        names = (f"{mask.name}.earlier{'' if number == 1 else number}" for number in count(1))
        kept = next(path for path in map(mask.with_name, names) if not path.exists())
        mask.replace(kept)
        log.warning("%s is kept as %s: it is not in %s", mask, kept.name, CSV_NAME)


def _check_apart(outputs: Sequence[Sequence[Path]]) -> None:
    """Raise InputError if what belongs to a mask has the name of another image's mask."""
    masks = {paths[0] for paths in outputs}
    for _, *others in outputs:
        if twice := masks & set(others):
            raise InputError(
                f"{twice.pop()} would be both a mask and what belongs to another; predict into different folders"
            )
