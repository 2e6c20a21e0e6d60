"""What a class is in coded terms: a table of class names and their SNOMED CT codes, and the user's own.

The built-in table is conf/segment_codes.yaml, which explains the form of an entry.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml

from spleen.errors import InputError
from spleen.system.resources import conf_folder
from spleen.system.text import bullets

FILE = "segment_codes.yaml"
SNOMED_CT = "SCT"
_KEYS = ("code", "meaning", "scheme", "category", "modifier", "color")
# DICOM's limits for a code value and its scheme (SH) and for a meaning (LO).
_MOST_CHARACTERS = {"code": 16, "scheme": 16, "meaning": 64}
_SEPARATORS = re.compile(r"[\s_-]+")


@dataclass(frozen=True)
class Concept:
    """A coded term."""

    value: str
    meaning: str
    scheme: str = SNOMED_CT


# CID 7150, Segmentation Property Category.
_CATEGORIES = {
    "anatomy": Concept("91723000", "Anatomical Structure"),
    "tissue": Concept("85756007", "Tissue"),
    "lesion": Concept("49755003", "Morphologically Abnormal Structure"),
}
# CID 244, Laterality, and two directions of CID 2, Anatomic Modifier.
_MODIFIERS = {
    "left": Concept("7771000", "Left"),
    "right": Concept("24028007", "Right"),
    "bilateral": Concept("51440002", "Bilateral"),
    "anterior": Concept("255549009", "Anterior"),
    "posterior": Concept("255551008", "Posterior"),
}
SIDES = (_MODIFIERS["left"], _MODIFIERS["right"], _MODIFIERS["bilateral"])


@dataclass(frozen=True)
class SegmentCode:
    """What a class is."""

    type: Concept
    category: Concept = _CATEGORIES["anatomy"]
    modifier: Concept | None = None
    color: tuple[int, int, int] | None = None
    """Red, green and blue, 0 to 255."""


CodeTable = Mapping[str, SegmentCode]
"""Codes by class name, in the form that `folded` gives it."""


def folded(name: str) -> str:
    """A class name by which it is found: lower case, its words in alphabetical order."""
    return " ".join(sorted(_SEPARATORS.split(name.strip().casefold())))


def read_codes(own: Path | None = None) -> CodeTable:
    """The built-in codes, and those of the user's own file, which replace built-in ones of the same name.

    Raises InputError for a file that cannot be read, with all that is wrong in it.
    """
    table = _read_file(conf_folder() / FILE)
    return table if own is None else {**table, **_read_file(own)}


def codes_of(classes: Sequence[str], table: CodeTable) -> list[SegmentCode]:
    """The code of each class. Raises InputError, naming what to add and where, if one has none."""
    missing = [name for name in classes if folded(name) not in table]
    if missing:
        raise InputError(
            f"no DICOM code is known for {', '.join(map(repr, missing))}. Add --codes my_codes.yaml (a node's key "
            f"codes), a file with a line for each as below, or predict with --class {missing[0]}=spleen, a class of "
            f"{conf_folder() / FILE}\n"
            f'  {missing[0]}: {{code: "78961009", meaning: Spleen}}'
        )
    return [table[folded(name)] for name in classes]


def _read_file(path: Path) -> dict[str, SegmentCode]:
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path} cannot be read: {getattr(error, 'strerror', None) or 'it is no text'}") from error
    except yaml.YAMLError as error:
        raise InputError(f"{path} is not valid YAML: {error}") from error
    if not isinstance(content, dict) or not content:
        raise InputError(f'{path} must hold class names with their codes, such as\n  spleen: {{code: "78961009", …}}')
    problems = [f"{name}: {problem}" for name, entry in content.items() if (problem := _problem(entry))]
    names = [folded(str(name)) for name in content]
    problems += [f"{name}: comes twice" for name in sorted({name for name in names if names.count(name) > 1})]
    if problems:
        raise InputError(f"{path}: {len(problems)} of its entries cannot be used:{bullets(problems, 20)}")
    return {folded(str(name)): _parsed(entry) for name, entry in content.items()}


def _problem(entry: object) -> str | None:
    if not isinstance(entry, dict):
        return 'must be of the form {code: "78961009", meaning: Spleen}'
    if unknown := [key for key in entry if key not in _KEYS]:
        return f"unknown key {unknown[0]!r}; allowed are {', '.join(_KEYS)}"
    for key, most in _MOST_CHARACTERS.items():
        text = str(entry.get(key, SNOMED_CT if key == "scheme" else "")).strip()
        if not 1 <= len(text) <= most or "\\" in text or not text.isprintable():
            return f"{key} must be 1 to {most} characters without \\; got {text!r}"
    for key, known in (("category", _CATEGORIES), ("modifier", _MODIFIERS)):
        if key in entry and str(entry[key]) not in known:
            return f"{key} must be one of {', '.join(known)}; got {entry[key]!r}"
    return _problem_of_color(entry.get("color"))


def _problem_of_color(color: object) -> str | None:
    if color is None:
        return None
    parts = color if isinstance(color, list) else []
    if len(parts) == 3 and all(type(part) is int and 0 <= part <= 255 for part in parts):
        return None
    return f"color must be [red, green, blue], each 0 to 255; got {color!r}"


def _parsed(entry: Mapping[str, object]) -> SegmentCode:
    color = entry.get("color")
    value, meaning, scheme = (str(entry.get(key, SNOMED_CT)).strip() for key in ("code", "meaning", "scheme"))
    return SegmentCode(
        Concept(value, meaning, scheme),
        _CATEGORIES[str(entry.get("category", "anatomy"))],
        _MODIFIERS[str(entry["modifier"])] if "modifier" in entry else None,
        (int(color[0]), int(color[1]), int(color[2])) if isinstance(color, list) else None,
    )
