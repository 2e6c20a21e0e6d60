"""The model specification: a versioned, self-contained description of the network in a checkpoint.

Written once by a training; read by prediction, export and resume. It names no file and no patient.
"""

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, get_args

from spleen.errors import InputError
from spleen.imaging.classes import ClassMap
from spleen.imaging.intensity import CtWindow, Intensity, MrPercentiles, ZScore
from spleen.imaging.preprocessing import Preprocessing
from spleen.imaging.slicing import Resize
from spleen.system.hardware import PRECISIONS
from spleen.types import AxisName

SPEC_VERSION = 1
"""Raised whenever a key changes its meaning, or a required key is added."""
_ROI_SPEC_VERSION = 2
"""That of a specification with `roi`, which earlier versions of the package would not notice."""
INTENSITY_KINDS: Mapping[str, type[CtWindow | MrPercentiles | ZScore]] = {
    "ct": CtWindow,
    "mr": MrPercentiles,
    "zscore": ZScore,
}
_SIZES = range(16, 4097)


@dataclass(frozen=True)
class RoiSettings:
    """The region of interest of the second network of a cascade: a box around what a coarse network finds."""

    checkpoint_sha256: str
    """Of the coarse network's checkpoint, which lies beside that of the network."""
    margin_mm: float
    """On all six sides of the box."""
    classes: tuple[str, ...] = ()
    """The classes of the coarse network that the box surrounds; empty for all."""


@dataclass(frozen=True)
class ModelSpec:
    """How to build a trained network, how volumes become its input, and what it was trained on."""

    network: Mapping[str, Any]
    """`_target_`, the dotted name of a class, and its arguments, including the numbers of channels."""
    preprocessing: Preprocessing
    """Its classes contain the label values of the training, even if the configuration left them open."""
    context_slices: int
    """Neighbouring slices on either side that are stacked with a slice."""
    crop_size: int | tuple[int, int, int] | None
    """Side in pixels of the training windows, or depth, height and width of 3D patches; None: whole slices."""
    precision: str
    """Of the training: auto, 32, bf16 or 16."""
    trained_flips: tuple[str, ...] = ()
    """Anatomical directions of random flips in the training."""
    training_volumes_mm3: tuple[tuple[float, float], ...] = ()
    """For each class, the smallest and largest volume in the training cases."""
    seen_images: tuple[str, ...] = ()
    """Fingerprints (`spleen.imaging.fingerprint`) of the train and val images, sorted; empty in older checkpoints."""
    spleen_version: str | None = None
    """The version of this package that trained it; None in older checkpoints."""
    roi: RoiSettings | None = None
    """The part of a volume that the network sees; None: all of it."""

    @property
    def patch_size(self) -> tuple[int, int, int] | None:
        """Depth in slices, height and width in pixels of the patches of a 3D network; None for a 2D one."""
        return self.crop_size if isinstance(self.crop_size, tuple) else None

    @property
    def n_input_channels(self) -> int:
        """Input channels of the network: those of a slice and its neighbours."""
        return self.preprocessing.n_channels * (1 + 2 * self.context_slices)

    def to_content(self) -> dict[str, Any]:
        """As plain values; docs/how-to/export.md explains each key."""
        preprocessing = self.preprocessing
        classes = zip(preprocessing.classes.names, preprocessing.classes.values, self.training_volumes_mm3, strict=True)
        roi = {} if self.roi is None else {"roi": {**asdict(self.roi), "classes": list(self.roi.classes)}}
        ignored = {} if preprocessing.ignore_value is None else {"ignore_value": preprocessing.ignore_value}
        return {
            "spec_version": _ROI_SPEC_VERSION if roi else SPEC_VERSION,
            "classes": [
                {"index": index, "name": name, "label_values": list(values), "training_volumes_mm3": list(volumes)}
                for index, (name, values, volumes) in enumerate(classes, start=1)
            ],
            "axis": preprocessing.axis,
            "channels": preprocessing.n_channels,
            "context_slices": self.context_slices,
            "intensity": _intensity_content(preprocessing.intensity),
            "img_size": preprocessing.img_size,
            "resize": preprocessing.resize,
            "size_multiple": preprocessing.size_multiple,
            "crop_size": list(self.crop_size) if isinstance(self.crop_size, tuple) else self.crop_size,
            "grid_tolerance_mm": preprocessing.grid_tolerance_mm,
            "network": dict(self.network),
            "precision": self.precision,
            "trained_flips": list(self.trained_flips),
            "seen_images": list(self.seen_images),
            "spleen_version": self.spleen_version,
            **ignored,
            **roi,
        }

    def to_json(self) -> str:
        """The JSON text stored in a checkpoint."""
        return json.dumps(self.to_content())

    @staticmethod
    def from_json(text: str) -> "ModelSpec":
        """The inverse of `to_json`, for an untrusted text.

        Raises InputError for another version, a missing key or an invalid value.
        """
        try:
            content = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise InputError(f"its model specification is not JSON: {error}") from error
        if not isinstance(content, dict):
            raise InputError(f"its model specification must be a JSON object; got {type(content).__name__}")
        return ModelSpec.from_content(content)

    @staticmethod
    def from_content(content: Mapping[str, Any]) -> "ModelSpec":
        """The inverse of `to_content`; raises InputError as `from_json` does."""
        version = _take(content, "spec_version", _is_whole, "a whole number")
        if version not in (SPEC_VERSION, _ROI_SPEC_VERSION):
            raise InputError(
                f"its model specification has version {version}, and this version of spleen reads versions "
                f"{SPEC_VERSION} and {_ROI_SPEC_VERSION}; update spleen"
            )
        classes, volumes = _classes(_take(content, "classes", _is_filled_list, "a list of one or more classes"))
        return ModelSpec(
            network=_take(content, "network", _is_network, "a network whose _target_ is the name of its class"),
            preprocessing=_preprocessing(content, classes),
            context_slices=_take(content, "context_slices", _within(0, 32), "a whole number from 0 to 32"),
            crop_size=_crop_size(content),
            precision=_take(content, "precision", *_one_of(PRECISIONS)),
            trained_flips=_texts(content, "trained_flips"),
            training_volumes_mm3=volumes,
            seen_images=_texts(content, "seen_images"),
            spleen_version=_take(content, "spleen_version", lambda v: v is None or isinstance(v, str), "null or text"),
            roi=_roi(content) if version == _ROI_SPEC_VERSION else None,
        )


def _intensity_content(intensity: Intensity) -> dict[str, str | float]:
    kinds = {record: kind for kind, record in INTENSITY_KINDS.items()}
    return {"kind": kinds[type(intensity)], **asdict(intensity)}


def _preprocessing(content: Mapping[str, Any], classes: ClassMap) -> Preprocessing:
    return Preprocessing(
        axis=_take(content, "axis", *_one_of(get_args(AxisName))),
        img_size=_take(content, "img_size", lambda size: size == "native" or _is_size(size), f"native or {_A_SIZE}"),
        resize=_take(content, "resize", *_one_of(get_args(Resize))),
        size_multiple=_take(content, "size_multiple", _within(1, 512), "from 1 to 512 pixels"),
        intensity=_intensity(_take(content, "intensity", lambda value: isinstance(value, dict), "an object")),
        classes=classes,
        grid_tolerance_mm=float(_take(content, "grid_tolerance_mm", _between(0, 10), "from 0 to 10 mm")),
        n_channels=_take(content, "channels", _within(1, 1000), "a whole number from 1 to 1000"),
        ignore_value=_ignore_value(content, classes),
    )


def _ignore_value(content: Mapping[str, Any], classes: ClassMap) -> int | None:
    """None where the key is missing: nothing was ignored, or an older version did not record it."""
    if "ignore_value" not in content:
        return None
    taken = {0, *(value for values in classes.values for value in values)}
    allowed = "a whole number that is neither 0 nor a value of a class"
    value: int = _take(content, "ignore_value", lambda value: _is_whole(value) and value not in taken, allowed)
    return value


def _crop_size(content: Mapping[str, Any]) -> int | tuple[int, int, int] | None:
    def is_valid(size: object) -> bool:
        return (
            size is None or _is_size(size) or (isinstance(size, list) and len(size) == 3 and all(map(_is_side, size)))
        )

    size = _take(content, "crop_size", is_valid, f"null, {_A_SIZE}, or the three sides of a 3D patch")
    return tuple(size) if isinstance(size, list) else size


def _intensity(content: Mapping[str, Any]) -> Intensity:
    kind = _take(content, "kind", *_one_of(INTENSITY_KINDS), where="intensity.")

    def number(key: str, low: float, high: float) -> float:
        value: float = _take(content, key, _between(low, high), f"from {low:g} to {high:g}", where="intensity.")
        return float(value)

    if kind == "ct":
        return CtWindow(number("window_level", -1e5, 1e5), number("window_width", 1e-9, 1e5))
    if kind == "mr":
        low = number("low_percentile", 0, 100)
        return MrPercentiles(low, number("high_percentile", math.nextafter(low, 101), 100))
    return ZScore(number("clip", 1e-9, 1000))


def _roi(content: Mapping[str, Any]) -> RoiSettings:
    roi = _take(content, "roi", lambda value: isinstance(value, dict), "an object")
    return RoiSettings(
        checkpoint_sha256=_take(roi, "checkpoint_sha256", lambda value: isinstance(value, str), "text", "roi."),
        margin_mm=float(_take(roi, "margin_mm", _between(0, 1000), "from 0 to 1000 mm", "roi.")),
        classes=_texts(roi, "classes", "roi."),
    )


def _classes(content: list[object]) -> tuple[ClassMap, tuple[tuple[float, float], ...]]:
    names: list[str] = []
    values: list[tuple[int, ...]] = []
    volumes: list[tuple[float, float]] = []
    for number, entry in enumerate(content, start=1):
        where = f"classes[{number - 1}]."
        if not isinstance(entry, dict):
            raise InputError(f"class {number} in its model specification must be an object; got {entry!r:.80}")
        _take(entry, "index", _within(number, number), str(number), where)
        names.append(_take(entry, "name", lambda name: isinstance(name, str) and name, "a name", where))
        values.append(tuple(_take(entry, "label_values", _are_label_values, "non-zero whole numbers", where)))
        low, high = _take(entry, "training_volumes_mm3", _is_range, "two numbers in ascending order, at least 0", where)
        volumes.append((float(low), float(high)))
    on_top = [of_class[0] for of_class in values]
    if len(set(on_top)) < len(on_top) or len(set(names)) < len(names):
        raise InputError("two classes in its model specification share a name or a label value of a mask")
    return ClassMap(tuple(names), tuple(values)), tuple(volumes)


# Validation ---------------------------------------------------------------------------------------------------------


def _take(content: Mapping[str, Any], key: str, valid: Callable[[Any], object], allowed: str, where: str = "") -> Any:
    """The value of a key; raises InputError if it is missing or invalid; `allowed` describes valid values."""
    if key not in content:
        raise InputError(f"its model specification lacks '{where}{key}'")
    value = content[key]
    if not valid(value):
        raise InputError(f"'{where}{key}' in its model specification must be {allowed}; got {value!r:.80}")
    return value


def _texts(content: Mapping[str, Any], key: str, where: str = "") -> tuple[str, ...]:
    def are_texts(value: object) -> bool:
        return isinstance(value, list) and all(isinstance(item, str) for item in value)

    return tuple(_take(content, key, are_texts, "a list of text", where))


def _one_of(allowed: object) -> tuple[Callable[[Any], bool], str]:
    names = tuple(map(str, allowed))  # type: ignore[call-overload]
    return lambda value: isinstance(value, str) and value in names, f"one of {', '.join(names)}"


def _is_whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _within(low: int, high: int) -> Callable[[Any], bool]:
    return lambda value: _is_whole(value) and low <= value <= high


def _between(low: float, high: float) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, int | float) and not isinstance(value, bool) and low <= value <= high


_is_size = _within(_SIZES.start, _SIZES[-1])
_is_side = _within(1, _SIZES[-1])
_A_SIZE = f"from {_SIZES.start} to {_SIZES[-1]} pixels"


def _is_filled_list(value: object) -> bool:
    return isinstance(value, list) and bool(value)


def _are_label_values(value: object) -> bool:
    return _is_filled_list(value) and all(_is_whole(number) and number != 0 for number in value)  # type: ignore[attr-defined]


def _is_range(value: object) -> bool:
    number = _between(0, math.inf)
    return isinstance(value, list) and len(value) == 2 and all(map(number, value)) and value[0] <= value[1] < math.inf


def _is_network(value: object) -> bool:
    return isinstance(value, dict) and isinstance(value.get("_target_"), str)
