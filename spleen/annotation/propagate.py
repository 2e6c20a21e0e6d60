"""Fill the rest of a label of which a few slices are drawn: train on these, predict the others."""

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float64, UInt8

from spleen.annotation.defaults import intensity_of, settings_of_run
from spleen.annotation.labelled import UNKNOWN_VALUE, SparseLabel, read_sparse_label
from spleen.annotation.numbering import parse_axis
from spleen.annotation.suggest import SuggestedSlice, by_uncertainty, read_scan
from spleen.annotation.uncertainty import SlicedPrediction, predict_slices, slice_confidence, slice_entropy_mm2
from spleen.config.override_values import as_overrides
from spleen.config.overrides import key_of
from spleen.errors import InputError
from spleen.imaging.files import SUFFIXES, case_name, is_volume_name
from spleen.imaging.geometry import align_axes, plane_distances_mm
from spleen.imaging.native import read_native, write_like
from spleen.imaging.nifti import write_volume
from spleen.imaging.slicing import AXES, to_slices
from spleen.reporting.outputs import check_outputs
from spleen.runs.api import TrainedRun, compose_typed, train_composed
from spleen.system.text import shortened
from spleen.types import LabelVolume

_OWN_SETTINGS = ("data", "axis", "fold", "init_from", "split")
"""What `propagate` sets itself, with all that is below these keys."""


@dataclass(frozen=True)
class FilledSlice:
    """One slice of a filled label."""

    slice_index: int
    """Its number, from 0, in the label's own array."""
    position_mm: float
    source: str
    """drawn: all of it was known; partly drawn; or predicted."""
    organ_mm2: tuple[float, ...]
    """Area of each class in the filled label."""
    confidence: float
    """Soft Dice of probabilities and mask; 1 where all was drawn, NaN where no probability is worth counting."""
    entropy_mm2: float
    """Predictive entropy summed over what was not drawn."""


@dataclass(frozen=True)
class Propagation:
    """A filled label, and how sure the network is of its slices."""

    output: Path
    run_folder: Path
    axis: str
    class_names: tuple[str, ...]
    slices: tuple[FilledSlice, ...]
    """All slices, in the order of the label's array."""
    next_slices: tuple[SuggestedSlice, ...]
    """What to look at, and to label next."""


def propagate(
    image: str | Path,
    label: str | Path,
    output: str | Path,
    *overrides: str,
    ignore_value: int = UNKNOWN_VALUE,
    axis: str | None = None,
    drawn: Sequence[int] | None = None,
    classes: Mapping[int, str] | None = None,
    run: str | Path | None = None,
    n_next: int = 4,
    allow_custom_code: bool = False,
) -> Propagation:
    """Train on the drawn slices of a label, predict its unknown voxels, and write the filled label to `output`.

    What is known stays as it is, voxel for voxel; the file has the label's own grid, codes and orientation. How unknown
    voxels are marked, and `axis` and `drawn`, is said by `read_sparse_label`; `classes` gives the label values that are
    learnt and their names, by default all. `run` is a run folder or checkpoint to start from; with `allow_custom_code`
    its network may be of any class. `overrides` are those of `train`, such as "epochs=24". All drawn slices are trained
    on, the last epoch is used, and nothing is held out: the confidence of a slice is the network's own, neither
    calibrated nor checked against anything.
    The run folder is in outputs/propagate/.
    Raises InputError, before the training, for files and settings that do not fit.
    """
    if n_next < 0:
        raise InputError(f"the number of slices to suggest (--next) must be 0 or more; got {n_next}")
    image_path, label_path, output_path = Path(image), Path(label), Path(output)
    _check_output(output_path, (image_path, label_path), drawn is not None)
    _check_overrides(overrides)
    native = read_scan(image_path)
    sparse = read_sparse_label(
        label_path, image_path, native, ignore_value, None if axis is None else parse_axis(axis), drawn
    )
    wanted = _classes(sparse, classes)
    training_label = completed_label_path(output_path) if sparse.was_completed else label_path
    start = intensity_of(native) if run is None else settings_of_run(Path(run), allow_custom_code)
    settings = _settings(image_path, training_label, sparse, wanted, start)
    given = {key_of(override) for override in overrides}
    config = compose_typed(["data=nifti", *_without(settings, given), *overrides])
    if sparse.was_completed:  # now that nothing is refused any more
        write_volume(training_label, sparse.volume.array, sparse.volume.affine)
    trained = train_composed(config)
    # Its settings are the user's own, or those of a run that was let through.
    predicted = predict_slices([trained.folder], image_path, allow_custom_code=True)
    filled = _filled(sparse, predicted)
    _write(output_path, filled, sparse)
    return _describe(sparse, predicted, filled, wanted, output_path, trained, n_next)


def _without(settings: Mapping[str, object], given: Collection[str]) -> list[str]:
    """The settings as overrides, without those that are given, and of a group that is given without its values."""
    overrides = as_overrides(settings)
    return [each for each in overrides if key_of(each) not in given and key_of(each).split(".")[0] not in given]


def completed_label_path(output: Path) -> Path:
    """Where the drawn slices are written as a label with unknown voxels, which `train` reads too."""
    return beside(output, "_drawn.nii.gz")


def beside(output: Path, suffix: str) -> Path:
    """The file beside a NIfTI file whose name continues that of the other."""
    return output.with_name(f"{case_name(output)}{suffix}")


def _check_output(output: Path, inputs: Collection[Path], writes_drawn: bool) -> None:
    """Raise InputError for a name that is not that of a NIfTI file, cannot be written, or is that of an input."""
    written = {"output": output, **({"the drawn slices": completed_label_path(output)} if writes_drawn else {})}
    read = {path.resolve() for path in inputs}
    for path in written.values():
        if path.resolve() in read:
            raise InputError(f"{path} is read, and would be replaced; give another name for the filled label")
    if not is_volume_name(output.name):
        raise InputError(f"output: {output} must end in one of {', '.join(SUFFIXES)}")
    check_outputs(written)


def _check_overrides(overrides: Sequence[str]) -> None:
    for override in overrides:
        key = key_of(override)
        if key.split(".")[0] in _OWN_SETTINGS or key == "trainer.early_stopping_patience":
            raise InputError(
                f"{override}: propagate sets {key} itself, as its arguments say and all drawn slices are trained on; "
                "leave it out, or use train and predict"
            )


def _classes(sparse: SparseLabel, classes: Mapping[int, str] | None) -> dict[str, list[int]]:
    """The label values of each class; several values may have one name."""
    present = sparse.values
    if not present:
        raise InputError(
            f"{sparse.path}: the {len(sparse.labelled)} drawn slice(s) show no organ, every known voxel is 0; draw it "
            "on at least one slice"
        )
    if classes is None:
        names = {present[0]: "organ"} if len(present) == 1 else {value: f"label_{value}" for value in present}
    else:
        names = dict(classes)
    if absent := [f"{names[value]} ({value})" for value in names if value not in present]:
        raise InputError(
            f"{sparse.path}: no drawn slice shows {shortened(absent)}, so it cannot be learnt; draw it on at least one "
            f"slice, or leave it out. The drawn slices hold {shortened(map(str, present))}"
        )
    by_name: dict[str, list[int]] = {}
    for value, name in names.items():
        by_name.setdefault(name, []).append(value)
    return by_name


def _settings(
    image: Path, label: Path, sparse: SparseLabel, classes: Mapping[str, list[int]], start: Mapping[str, object]
) -> dict[str, object]:
    data = {
        "image": image.absolute(),
        "label": label.absolute(),
        "label_values": classes,
        "ignore_value": sparse.unknown_value,
    }
    return {"study": "propagate", "data": data, "axis": sparse.numbering.axis, "fold": "all", **start}


def _filled(sparse: SparseLabel, predicted: SlicedPrediction) -> LabelVolume:
    """The known voxels as they are, and the prediction's label values in the others."""
    values = np.array([0, *(of_class[0] for of_class in predicted.label_values)], sparse.volume.array.dtype)
    filled: LabelVolume = np.where(sparse.known, sparse.volume.array, values[predicted.mask])
    return filled


def _write(path: Path, filled: LabelVolume, sparse: SparseLabel) -> None:
    """Write on the label's own grid, in its data type where that is one of integers."""
    own = read_native(sparse.path)
    stored = own.channels[0].dtype
    array, _ = align_axes(filled, sparse.volume.affine, own.affine)
    write_like(path, array.astype(stored if np.issubdtype(stored, np.integer) else np.int32), own)


def _describe(
    sparse: SparseLabel,
    predicted: SlicedPrediction,
    filled: LabelVolume,
    classes: Mapping[str, list[int]],
    output: Path,
    trained: TrainedRun,
    n_next: int,
) -> Propagation:
    numbering, known = sparse.numbering, sparse.known
    # What is drawn is certain, and known.
    probabilities = np.where(known, 0, predicted.probabilities)
    mask: UInt8[np.ndarray, "i j k"] = np.where(known, 0, predicted.mask).astype(np.uint8)
    entropy = slice_entropy_mm2(probabilities, sparse.volume.affine, numbering.axis)
    confidence = slice_confidence(probabilities, mask, numbering.axis)
    known_fraction = to_slices(known, numbering.axis).mean(axis=(1, 2))
    areas = _areas_mm2(filled, sparse, classes)
    rows = [
        FilledSlice(
            slice_index=numbering.file_index(index),
            position_mm=round(numbering.position_mm(index), 2),
            source="drawn" if known_fraction[index] == 1 else "partly drawn" if known_fraction[index] else "predicted",
            organ_mm2=tuple(round(float(area[index]), 2) for area in areas),
            confidence=1.0 if known_fraction[index] == 1 else _rounded(float(confidence[index])),
            entropy_mm2=round(float(entropy[index]), 2),
        )
        for index in range(numbering.n_slices)
    ]
    n_next = min(n_next, numbering.n_slices - len(sparse.labelled))
    return Propagation(
        output=output,
        run_folder=trained.folder,
        axis=numbering.axis,
        class_names=tuple(classes),
        slices=tuple(sorted(rows, key=lambda row: row.slice_index)),
        next_slices=tuple(by_uncertainty(entropy, numbering, n_next, sparse.labelled)),
    )


def _areas_mm2(
    filled: LabelVolume, sparse: SparseLabel, classes: Mapping[str, list[int]]
) -> list[Float64[np.ndarray, " n"]]:
    axis, volume = sparse.numbering.axis, sparse.volume
    pixel_mm2 = volume.voxel_volume_mm3 / plane_distances_mm(volume.affine)[AXES.index(axis)]
    return [
        np.count_nonzero(to_slices(np.isin(filled, values), axis), axis=(1, 2)) * pixel_mm2
        for values in classes.values()
    ]


def _rounded(value: float) -> float:
    return value if math.isnan(value) else round(value, 4)
