"""Settings to start a training with, each with its reason, as a command line that can be pasted."""

import math
import re
import shlex
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from spleen.errors import InputError
from spleen.exploration.case_facts import CaseFacts
from spleen.exploration.header_facts import GeometryFacts, PlaneFacts
from spleen.exploration.label_facts import LabelFacts, organ_diameter_mm
from spleen.exploration.modality import Modality
from spleen.folds import SplitSettings, split_one_volume
from spleen.slicing import AXES, slice_shape
from spleen.types import AxisName

# What conf/train.yaml and conf/intensity/ct.yaml say; a test holds the two together.
DEFAULT_SPLIT = SplitSettings(val_share=0.15, test_share=0.2, test_blocks=2, guard_mm=5.0, seed=0)
DEFAULT_CONTEXT_SLICES = 1
DEFAULT_WINDOW_HU = (-150.0, 250.0)

_DEFAULT_AXIS: AxisName = "coronal"
_SAME_PIXEL = 1.05  # pixels whose ratio is below are equally fine
_SIZE_STEP = 16  # slices are padded to the network's multiple of 16
_SMALLEST, _AFFORDABLE = 16, 256  # pixels
_ENOUGH_ORGAN_PIXELS = 24
_MOST_CLASSES = 8
_TOO_THIN = "on no axis does the organ show on enough slices for training, validation and test blocks"
_LABEL_PLACEHOLDER = "LABEL.nii.gz"

# What can be given up where the organ spans too few slices for the default split, the least first.
_CONCESSIONS: tuple[tuple[str, ...], ...] = (
    (),
    ("split.guard_mm=0",),
    ("split.guard_mm=0", "context_slices=0"),
)


@dataclass(frozen=True)
class Setting:
    """One setting and why it was chosen. An empty override leaves the default."""

    override: str
    reason: str


@dataclass(frozen=True)
class Suggestion:
    """Settings for a first training on one case."""

    case_id: str
    settings: tuple[Setting, ...]
    overrides: tuple[str, ...]
    command: str
    obstacle: str | None
    """Why a training with them would be refused, where no setting can help."""


@dataclass(frozen=True)
class _AxisChoice:
    """One slicing axis, and what it would take to train along it."""

    plane: PlaneFacts
    n_organ_slices: int
    concessions: int | None
    """Index into _CONCESSIONS; None where the organ spans too few slices whatever is given up."""


def suggest(cases: Sequence[CaseFacts], typical: CaseFacts, organ: tuple[int, ...]) -> Suggestion | None:
    """Suggest settings for a training on the case `typical`; modality and label values are judged over all `cases`.

    None without a readable image of three dimensions.
    """
    geometry = typical.image_header.geometry if typical.image_header is not None else None
    if geometry is None or typical.intensity is None:
        return None
    chosen, settings = _choose_axis(geometry, typical.labels)
    settings = [
        *settings,
        _choose_size(chosen, geometry, typical.labels),
        *_choose_intensity(cases, typical),
        *_choose_labels(cases, typical, organ),
    ]
    files = ["data=nifti", hydra_override("data.image", typical.image), _label_override(typical.label)]
    overrides = (*files, *(setting.override for setting in settings if setting.override))
    return Suggestion(
        case_id=typical.case_id,
        settings=tuple(settings),
        overrides=overrides,
        command=shlex.join(["python", "train.py", *overrides]),
        obstacle=_TOO_THIN if chosen.concessions is None else None,
    )


def typical_case(cases: Sequence[CaseFacts], outlying: set[str]) -> CaseFacts | None:
    """The sound case whose organ is nearest to the median volume, one that stands out in nothing if there is one."""
    sound = [case for case in cases if case.is_sound and case.intensity is not None]
    candidates = [case for case in sound if case.case_id not in outlying] or sound
    if not candidates:
        return None
    volumes = [case.organ_volume_mm3 for case in candidates]
    median = float(np.median(volumes))
    return min(zip(candidates, volumes, strict=True), key=lambda pair: abs(pair[1] - median))[0]


# Axis ---------------------------------------------------------------------------------------------------------------


def _choose_axis(geometry: GeometryFacts, labels: LabelFacts | None) -> tuple[_AxisChoice, list[Setting]]:
    """The axis with the finest pixels; among equals the one with most slices of the organ."""
    choices = [_axis_choice(plane, labels) for plane in geometry.planes]
    least = min((choice.concessions for choice in choices if choice.concessions is not None), default=None)
    possible = [choice for choice in choices if choice.concessions == least]
    finest = min(max(choice.plane.pixel_mm) for choice in possible)
    fine = [choice for choice in possible if _is_fine(choice.plane, finest)]
    chosen = max(fine, key=lambda choice: (choice.n_organ_slices, choice.plane.axis == _DEFAULT_AXIS))
    return chosen, [
        Setting(f"axis={chosen.plane.axis}", _axis_reason(chosen, choices, labels is not None)),
        *_concessions(chosen),
    ]


def _is_fine(plane: PlaneFacts, finest_mm: float) -> bool:
    return max(plane.pixel_mm) < _SAME_PIXEL * finest_mm


def _axis_choice(plane: PlaneFacts, labels: LabelFacts | None) -> _AxisChoice:
    if labels is None:
        return _AxisChoice(plane, 0, 0)
    shown = np.array(labels.organ_per_slice[AXES.index(plane.axis)]) > 0
    n_organ_slices = int(np.count_nonzero(shown))
    for number, concession in enumerate(_CONCESSIONS):
        settings = replace(DEFAULT_SPLIT, guard_mm=0.0) if "split.guard_mm=0" in concession else DEFAULT_SPLIT
        context_slices = 0 if "context_slices=0" in concession else DEFAULT_CONTEXT_SLICES
        try:
            split_one_volume(shown, plane.spacing_mm, context_slices, settings)
        except InputError:
            continue
        return _AxisChoice(plane, n_organ_slices, number)
    return _AxisChoice(plane, n_organ_slices, None)


def _axis_reason(chosen: _AxisChoice, choices: Sequence[_AxisChoice], has_label: bool) -> str:
    others = [choice for choice in choices if choice is not chosen]
    finest = min(max(choice.plane.pixel_mm) for choice in choices)
    n_fine = sum(_is_fine(choice.plane, finest) for choice in choices)
    pixels = f"pixels of {_pixel(chosen.plane)} mm"
    listed = ", ".join(f"{choice.plane.axis} {_pixel(choice.plane)}" for choice in others)
    if n_fine == len(choices):
        reason = f"{pixels} in every plane"
    elif not _is_fine(chosen.plane, finest):
        reason = f"{pixels}; finer planes ({listed}) show the organ on too few slices"
    else:
        reason = f"{'the finest ' if n_fine == 1 else ''}{pixels}{', as fine as any' if n_fine > 1 else ''} ({listed})"
    if not has_label:
        return reason
    if chosen.concessions is None:
        return f"{reason}; the organ shows on {chosen.n_organ_slices} slices, too few for training, validation and test"
    most = "the most " if chosen.n_organ_slices > max(choice.n_organ_slices for choice in others) else ""
    counts = ", ".join(f"{choice.plane.axis} {choice.n_organ_slices}" for choice in others)
    return f"{reason}; {most}slices with organ: {chosen.n_organ_slices} ({counts})"


def _concessions(chosen: _AxisChoice) -> list[Setting]:
    if not chosen.concessions:
        return []
    reasons = {
        "split.guard_mm=0": "the organ shows on too few slices for gaps of 5 mm between training and test blocks; "
        "expect a score that is a little too good",
        "context_slices=0": "neighbouring slices as context would need wider gaps",
    }
    return [Setting(override, reasons[override]) for override in _CONCESSIONS[chosen.concessions]]


def _pixel(plane: PlaneFacts) -> str:
    return " × ".join(f"{length:.3g}" for length in plane.pixel_mm)


# Size ---------------------------------------------------------------------------------------------------------------


def _choose_size(chosen: _AxisChoice, geometry: GeometryFacts, labels: LabelFacts | None) -> Setting:
    """As many pixels as the plane has, or fewer where they are many and the organ stays large enough."""
    plane = chosen.plane
    _, *counts = slice_shape(tuple(each.n_slices for each in geometry.planes), plane.axis)
    longest_mm = max(count * pixel for count, pixel in zip(counts, plane.pixel_mm, strict=True))
    # A hair more, because 407.00006 mm ÷ 0.794922 mm may come out as 511.99999.
    native = _native_size(math.floor(longest_mm / min(plane.pixel_mm) + 1e-3))
    diameter_mm = 0.0
    if labels is not None:
        diameter_mm = organ_diameter_mm(labels, AXES.index(plane.axis), math.prod(plane.pixel_mm))
    enough = _AFFORDABLE
    if diameter_mm:
        enough = max(enough, _SIZE_STEP * math.ceil(_ENOUGH_ORGAN_PIXELS * longest_mm / diameter_mm / _SIZE_STEP))
    size = min(native, enough)
    reason = f"a pixel of {longest_mm / size:.3g} mm"
    if size < native:
        cost = (native / size) ** 2
        reason += f"; the native {min(plane.pixel_mm):.3g} mm would take {native}, at {cost:.2g} times the cost"
    elif longest_mm / size < 0.999 * min(plane.pixel_mm):
        reason += f", finer than the native {min(plane.pixel_mm):.3g} mm, but fewer than {size} pixels are too few"
    else:
        reason += f", not finer than the native {min(plane.pixel_mm):.3g} mm"
    if diameter_mm:
        reason += f"; on its median slice the organ is {diameter_mm * size / longest_mm:.0f} pixels across"
    return Setting(f"img_size={size}", reason)


def _native_size(pixels: int) -> int:
    """A multiple of 16 that is not above the plane's own pixels, or their very number where that would lose a tenth."""
    below = pixels // _SIZE_STEP * _SIZE_STEP
    return max(_SMALLEST, below if below >= 0.9 * pixels else pixels)


# Intensity ----------------------------------------------------------------------------------------------------------


def _choose_intensity(cases: Sequence[CaseFacts], typical: CaseFacts) -> list[Setting]:
    modalities = Counter(case.intensity.modality for case in cases if case.intensity is not None)
    modality: Modality = modalities.most_common(1)[0][0]
    facts = typical.intensity
    assert facts is not None
    mixed = f" ({modalities[modality]} of {modalities.total()} cases)" if len(modalities) > 1 else ""
    if modality == "MR":
        return [Setting("intensity=mr", f"MR{mixed}: no fixed scale, so two percentiles of each volume set it")]
    if modality == "unknown":
        return [Setting("intensity=zscore", f"modality unknown{mixed}: zero mean and unit variance assume least")]
    low, high = DEFAULT_WINDOW_HU
    window = f"window of {_hu(low)} … {_hu(high)} HU"
    if facts.organ is None:
        return [Setting("intensity=ct", f"CT{mixed}: a {window} for abdominal soft tissue")]
    if low <= facts.organ.p5 and facts.organ.p95 <= high:
        reason = f"the organ lies at {_hu(facts.organ.p5)} … {_hu(facts.organ.p95)} HU (5th … 95th percentile)"
        return [Setting("intensity=ct", f"CT{mixed}: {reason}, inside the {window}")]
    margin = 0.25 * (facts.organ.p99_5 - facts.organ.p0_5) + 50
    low, high = (10 * math.floor((facts.organ.p0_5 - margin) / 10), 10 * math.ceil((facts.organ.p99_5 + margin) / 10))
    reason = f"the organ lies at {_hu(facts.organ.p5)} … {_hu(facts.organ.p95)} HU, outside the default window"
    return [
        Setting("intensity=ct", f"CT{mixed}"),
        Setting(f"intensity.window_level={(low + high) / 2:g}", reason),
        Setting(f"intensity.window_width={high - low:g}", f"{_hu(low)} … {_hu(high)} HU: with its surroundings"),
    ]


def _hu(value: float) -> str:
    return f"{value:.0f}".replace("-", "−")


# Labels -------------------------------------------------------------------------------------------------------------


def _choose_labels(cases: Sequence[CaseFacts], typical: CaseFacts, organ: tuple[int, ...]) -> list[Setting]:
    if typical.labels is None:
        missing = f"no label was given; put its path in the place of {_LABEL_PLACEHOLDER}"
        return [Setting("", missing)] if typical.label is None else []
    if organ:
        values = ",".join(map(str, organ))
        return [Setting(f"data.label_values=[{values}]", "the values that were asked for are the organ")]
    voxels: Counter[int] = Counter()
    for case in cases:
        for value in case.labels.values if case.labels is not None else ():
            voxels[value.value] += value.n_voxels
    present = sorted(voxels)
    if len(present) == 1:
        return [Setting("", f"data.label_values can stay unset: {present[0]} is the only value besides 0")]
    if len(present) <= _MOST_CLASSES:
        classes = ", ".join(f"label_{value}: {value}".replace("_-", "_minus_") for value in present)
        return [Setting(f"data.label_values={{{classes}}}", "one class per value; name them, or keep those you want")]
    largest = voxels.most_common(1)[0][0]
    return [Setting(f"data.label_values=[{largest}]", f"the largest of {len(present)} values; choose yours")]


# Command line -------------------------------------------------------------------------------------------------------


def _label_override(label: Path | None) -> str:
    return f"data.label={_LABEL_PLACEHOLDER}" if label is None else hydra_override("data.label", label)


def hydra_override(key: str, path: Path) -> str:
    """An override that gives Hydra this very path, absolute, whatever characters it has (not yet quoted for a shell).

    Grammar: https://hydra.cc/docs/1.3/advanced/override_grammar/basic/
    """
    text = str(path.absolute())
    if re.fullmatch(r"[A-Za-z0-9_/.+\-]+", text):
        return f"{key}={text}"
    # Backslashes count only before a quote, at the end, or before the ${ of an interpolation.
    text = re.sub(r'(\\*)("|$)', lambda match: 2 * match[1] + ("\\" + match[2] if match[2] else ""), text)
    text = re.sub(r"(\\*)\$\{", lambda match: 2 * match[1] + "\\${", text)
    return f'{key}="{text}"'
