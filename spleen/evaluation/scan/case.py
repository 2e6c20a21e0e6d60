"""The scan that a page shows: an image and up to two masks on its grid."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import nibabel as nib
import numpy as np
from jaxtyping import Bool, Num, UInt8

from spleen.data.modality import guess_modality
from spleen.errors import InputError
from spleen.evaluation.case_scores import label_values
from spleen.evaluation.class_names import classes_to_score
from spleen.evaluation.ignored import value_to_ignore
from spleen.imaging.dicom.location import is_series
from spleen.imaging.files import case_name, split_channel
from spleen.imaging.geometry import GRID_TOLERANCE_MM, check_same_grid
from spleen.imaging.nifti import Volume, read_channels, read_label
from spleen.types import Affine, LabelVolume

# A mask is stored with 8 bits; with more values, or with negative ones, the file is an image.
_MOST_CLASSES = 255
UNKNOWN = -1
"""The value of unlabelled voxels in `Scan.scored_reference`: one that no class has."""
_VOXELS_LOOKED_AT = 1_000_000
_HEADER_TEXTS = ("descrip", "aux_file", "intent_name")


@dataclass(frozen=True)
class Scan:
    """An image on its RAS grid and its masks, in which 1, 2, … are classes, or parts of classes that overlap."""

    case_id: str
    image: Num[np.ndarray, "i j k"]
    affine: Affine
    is_ct: bool
    """Whether the intensities are Hounsfield units."""
    classes: tuple[str, ...] = ()
    """The names of 1, 2, … in the masks."""
    reference: UInt8[np.ndarray, "i j k"] | None = None
    prediction: UInt8[np.ndarray, "i j k"] | None = None
    n_channels: int = 1
    """Of the image's file; the first is shown."""
    unlabelled: Bool[np.ndarray, "i j k"] | None = None
    """Voxels of unknown class in the reference, which is 0 there; None if there are none."""
    unlabelled_value: int | None = None
    """What marks them in the reference's file."""
    origin: tuple[tuple[str, str], ...] = ()
    """Paths and header texts, which may tell who the patient is: names and values."""
    regions: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    """Where classes overlap: which of 1, 2, … each consists of."""

    @property
    def scored_classes(self) -> Mapping[str, tuple[int, ...]]:
        """What is scored, measured and has a surface: which of 1, 2, … in the masks each class consists of."""
        return self.regions or {name: (number,) for number, name in enumerate(self.classes, start=1)}

    @property
    def scored_reference(self) -> LabelVolume | None:
        """The reference with `UNKNOWN` where it is unlabelled."""
        if self.reference is None or self.unlabelled is None:
            return self.reference
        return np.where(self.unlabelled, UNKNOWN, self.reference.astype(np.int16))

    @property
    def scored_prediction(self) -> UInt8[np.ndarray, "i j k"] | None:
        """The prediction without what lies where the reference is unlabelled."""
        if self.prediction is None or self.unlabelled is None:
            return self.prediction
        return np.where(self.unlabelled, np.uint8(0), self.prediction)

    @property
    def masks(self) -> dict[str, UInt8[np.ndarray, "i j k"]]:
        """Those that there are, under "reference" and "prediction"."""
        both = {"reference": self.reference, "prediction": self.prediction}
        return {name: mask for name, mask in both.items() if mask is not None}


def read_scan(
    image: Path,
    label: Path | None = None,
    prediction: Path | None = None,
    class_names: Mapping[int, str] | None = None,
    case_id: str | None = None,
    ignore_value: int | None = None,
) -> Scan:
    """Read an image with its reference and its prediction, each reoriented to RAS by its own affine.

    `class_names` are those of label values; by default those that predictions.csv beside the prediction or a
    dataset.json beside the label's folder tells. The case is called like the image's file. `ignore_value` marks
    voxels of the label whose class is unknown; by default it is the ignore label of that dataset.json.
    Raises InputError for a file that cannot be read, for different grids, for a mask that is an image, and for an
    ignored value that is 0 or a class.
    """
    channels = read_channels([image], GRID_TOLERANCE_MM)
    array, affine = channels.arrays[0], channels.affine
    read: dict[str, LabelVolume] = {}
    for name, path in (("reference", label), ("prediction", prediction)):
        if path is not None:
            read[name] = _read_mask(path, image, Volume(array, affine, affine), ignore_value)
    told = [] if prediction is None else [prediction]
    values = (classes_to_score(class_names, None, told, label or prediction or image) if read else None) or {}
    unlabelled = ignored = None
    if label is not None:
        ignored = value_to_ignore(ignore_value, values, False, label).value
    if ignored is not None:
        unlabelled = read["reference"] == ignored
        read["reference"] = np.where(unlabelled, 0, read["reference"])
    classes, regions, numbered = number_classes(read, values)
    return Scan(
        case_id=case_id or _case_id(image),
        image=array,
        affine=affine,
        is_ct=is_hounsfield(array),
        classes=classes,
        reference=numbered.get("reference"),
        prediction=numbered.get("prediction"),
        n_channels=len(channels.arrays),
        origin=_origin({"image": image, "label": label, "prediction": prediction}),
        regions=regions,
        unlabelled=unlabelled if unlabelled is not None and unlabelled.any() else None,
        unlabelled_value=ignored,
    )


def is_hounsfield(array: Num[np.ndarray, "i j k"]) -> bool:
    """Whether the intensities are those of a CT, judged by some of the voxels."""
    sample = np.sort(array.ravel()[:: max(1, array.size // _VOXELS_LOOKED_AT)])
    return guess_modality(sample)[0] == "CT"


def number_classes(
    masks: Mapping[str, LabelVolume], classes: Mapping[str, Sequence[int]]
) -> tuple[tuple[str, ...], dict[str, tuple[int, ...]], dict[str, UInt8[np.ndarray, "i j k"]]]:
    """Number what the masks hold: its names, the numbers of each class where classes overlap, and masks of numbers.

    `classes` are label values by name; a value of none is "label 7". Values of the same classes get one number, named
    after the last of these classes, or after all of them where other values have the same last one.
    """
    values = sorted({value for mask in masks.values() for value in label_values(mask)})
    of_value = {
        value: tuple(name for name, own in classes.items() if value in own) or (f"label {value}",) for value in values
    }
    parts = list(dict.fromkeys(of_value.values()))
    n_last = Counter(part[-1] for part in parts)
    names = tuple(part[-1] if n_last[part[-1]] == 1 else " and ".join(part) for part in parts)
    regions = {}
    if any(len(part) > 1 for part in parts):
        for name in dict.fromkeys(name for part in parts for name in part):
            regions[name] = tuple(number for number, part in enumerate(parts, start=1) if name in part)
    numbered = {}
    for mask_name, mask in masks.items():
        numbered[mask_name] = np.zeros(mask.shape, dtype=np.uint8)
        for value, part in of_value.items():
            numbered[mask_name][mask == value] = parts.index(part) + 1
    return names, regions, numbered


def _read_mask(path: Path, image: Path, volume: Volume, ignore_value: int | None) -> LabelVolume:
    mask = read_label(path, volume.affine)
    names = str(image), str(path)
    check_same_grid((volume.array.shape, mask.array.shape), (volume.affine, mask.affine), GRID_TOLERANCE_MM, names)
    values = [value for value in label_values(mask.array) if value != ignore_value]
    if len(values) > _MOST_CLASSES or (values and values[0] < -1):
        raise InputError(
            f"{path} is an image and not a label map: it holds {len(values)} values from {values[0]} to {values[-1]}"
        )
    return mask.array


def _case_id(image: Path) -> str:
    name = case_name(image)
    channel = split_channel(name)
    return channel[0] if channel else name


def _origin(paths: Mapping[str, Path | None]) -> tuple[tuple[str, str], ...]:
    given = {name: path for name, path in paths.items() if path is not None}
    texts = {}
    if not is_series(given["image"]):
        header = nib.load(given["image"]).header
        assert isinstance(header, nib.nifti1.Nifti1Header)
        texts = {field: header[field].tobytes().rstrip(b"\0").decode("latin-1") for field in _HEADER_TEXTS}
    told = {f"header {field}": text.strip() for field, text in texts.items() if text.strip()}
    return tuple({**{name: str(path.absolute()) for name, path in given.items()}, **told}.items())
