"""calibration.json: the calibrating cases, beside the runs, without anything that names a patient."""

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from spleen.errors import InputError
from spleen.inference.calibration.calibration import CalibratingCase, Calibration, ClassCalibration, Conditions
from spleen.records.folder import run_folder_of
from spleen.system.files import write_text

FILE_NAME = "calibration.json"
_VERSION = 1
_MOST_BYTES = 2**26


def calibration_path(checkpoint: Path) -> Path:
    """Where the calibration of a checkpoint lies: in its run folder, else beside it as NAME.calibration.json."""
    folder = run_folder_of(checkpoint)
    return checkpoint.with_name(f"{checkpoint.stem}.{FILE_NAME}") if folder is None else folder / FILE_NAME


def write_calibration(path: Path, calibration: Calibration) -> None:
    """Write it atomically."""
    write_text(path, to_json(calibration))


def to_json(calibration: Calibration) -> str:
    """The text of the file. The cases of each class are sorted by volume, so that they tell nothing of each other."""
    classes = []
    for each in calibration.classes:
        cases = sorted(each.cases, key=_volumes_and_score)
        rows = [{**asdict(case), "dice": None if math.isnan(case.dice) else case.dice} for case in cases]
        classes.append({"class_name": each.class_name, "label_values": each.label_values, "cases": rows})
    gate = {"min_dice": calibration.classes[0].min_dice, "error_rate": calibration.classes[0].error_rate}
    content = {"version": _VERSION, **asdict(calibration.conditions), **gate, "classes": classes}
    return json.dumps(content, indent=1, allow_nan=False) + "\n"


def _volumes_and_score(case: CalibratingCase) -> tuple[float, float, float]:
    return case.predicted_mm3, -1.0 if case.reference_mm3 is None else case.reference_mm3, case.confidence_score


def read_calibration(path: Path) -> Calibration:
    """Read a file of `write_calibration`. Raises InputError for anything else, OSError where it cannot be read."""
    try:
        if path.stat().st_size > _MOST_BYTES:
            raise InputError(f"it is larger than {_MOST_BYTES // 2**20} MiB")
        return from_json(path.read_text(encoding="utf-8"))
    except (InputError, UnicodeDecodeError) as error:
        raise InputError(f"{path} is not a calibration of this version: {error}; calibrate again") from error


def from_json(text: str) -> Calibration:
    """The calibration of a file's text; raises InputError with what is wrong."""
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InputError(f"it is not JSON ({error})") from error
    fields = _Fields(content, "the file")
    if (version := fields.get("version", _is_count)) != _VERSION:
        raise InputError(f"its version is {version}, and only {_VERSION} is known")
    checkpoints, axes = fields.texts("checkpoints"), fields.texts("axes")
    weights = fields.numbers("weights", _is_fraction)
    tta, flips, held_out = fields.get("tta", _is_flag), fields.texts("flips"), fields.get("held_out", _is_flag)
    if not checkpoints or not axes or len(weights) != len(axes) or not (held_out or len(checkpoints) == len(axes)):
        raise InputError("its checkpoints, axes and weights do not match")
    conditions = Conditions(checkpoints, axes, weights, tta, flips, held_out)
    gate = fields.get("min_dice", _is_fraction), fields.get("error_rate", _is_fraction)
    classes = tuple(_class(_Fields(each, "a class"), *gate) for each in fields.items("classes"))
    if not classes or len({each.class_name for each in classes}) != len(classes):
        raise InputError("it has no classes, or one twice")
    return Calibration(conditions, classes)


def _class(fields: "_Fields", min_dice: float, error_rate: float) -> ClassCalibration:
    name = fields.get("class_name", _is_text)
    values = tuple(int(value) for value in fields.numbers("label_values", _is_whole))
    return ClassCalibration(name, values, tuple(map(_case, fields.items("cases"))), min_dice, error_rate)


def _case(content: Any) -> CalibratingCase:
    fields = _Fields(content, "a case")
    predicted = float(fields.get("predicted_mm3", _is_amount))
    reference = fields.get("reference_mm3", lambda value: value is None or _is_amount(value))
    dice = fields.get("dice", lambda value: value is None or _is_fraction(value))
    if reference is not None and (dice is None) != (predicted == 0 == reference):
        raise InputError("dice of a case is missing or not valid")
    return CalibratingCase(
        predicted,
        None if reference is None else float(reference),
        float(fields.get("confidence_score", _is_fraction)),
        math.nan if dice is None else float(dice),
    )


class _Fields:
    """The values of a JSON object, checked one by one."""

    def __init__(self, content: Any, what: str) -> None:
        if not isinstance(content, Mapping):
            raise InputError(f"{what} is not a JSON object")
        self._content, self._what = content, what

    def get(self, name: str, is_valid: Callable[[Any], bool]) -> Any:
        if name not in self._content or not is_valid(self._content[name]):
            raise InputError(f"{name} of {self._what} is missing or not valid")
        return self._content[name]

    def items(self, name: str) -> list[Any]:
        found: list[Any] = self.get(name, lambda value: isinstance(value, list))
        return found

    def texts(self, name: str) -> tuple[str, ...]:
        return tuple(self.get(name, lambda value: isinstance(value, list) and all(map(_is_text, value))))

    def numbers(self, name: str, is_valid: Callable[[Any], bool]) -> tuple[float, ...]:
        return tuple(self.get(name, lambda value: isinstance(value, list) and all(map(is_valid, value))))


def _is_flag(value: Any) -> bool:
    return isinstance(value, bool)


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and value != ""


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_count(value: Any) -> bool:
    return _is_whole(value) and value >= 0


def _is_amount(value: Any) -> bool:
    # Not math.isfinite, which fails for an integer too large for a float.
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < 1e300


def _is_fraction(value: Any) -> bool:
    return _is_amount(value) and value <= 1
