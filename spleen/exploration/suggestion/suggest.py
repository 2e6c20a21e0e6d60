"""Settings to start a training with, each with its reason, as a command line that can be pasted."""

import math
import re
import shlex
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from spleen.data.layouts.dataset import Modality as ToldModality
from spleen.data.layouts.dataset_json import DATASET_JSON
from spleen.data.modality import Modality
from spleen.data.splits.blocks import SliceSplitSettings, split_one_volume
from spleen.errors import InputError
from spleen.exploration.facts.case import CaseFacts
from spleen.exploration.facts.header import GeometryFacts, PlaneFacts
from spleen.exploration.facts.label import LabelFacts
from spleen.exploration.suggestion.layout import TrainingData, hydra_override, training_data
from spleen.exploration.suggestion.size import SAME_PIXEL, Setting, choose_size, native_grid, pixel_in_words
from spleen.imaging.intensity import CT_PRESETS
from spleen.imaging.slicing import AXES
from spleen.types import AxisName

# What conf/train.yaml and conf/intensity/ct.yaml say; a test holds the two together.
DEFAULT_SPLIT = SliceSplitSettings(val_fraction=0.15, test_fraction=0.2, test_blocks=2, guard_mm=5.0, seed=0)
DEFAULT_CONTEXT_SLICES = 1
DEFAULT_WINDOW_HU = CT_PRESETS["abdomen"].ends

_DEFAULT_AXIS: AxisName = "coronal"
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
class Suggestion:
    """Settings for a first training."""

    case_id: str
    """The case that was judged."""
    n_cases: int
    """How many cases the command trains on: all that were explored, or this one alone."""
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


def suggest(
    cases: Sequence[CaseFacts],
    typical: CaseFacts,
    organ: tuple[int, ...],
    ignore_value: int | None = None,
    data: TrainingData | None = None,
    ignore_reason: str = "the value that was given as unknown",
    may_be_native: bool = True,
) -> Suggestion | None:
    """Suggest settings for a training on all cases, or on `typical` alone where no layout serves just those.

    `data` is where the training finds its cases, of which `cases` may then be a part; by default, the layout that
    serves just the cases. `may_be_native` says whether the voxel grid may be kept, which resize=stretch excludes.

    Axis and size are judged on `typical`, modality and label values on all cases without an error. None if the image of
    `typical` has no three dimensions or cannot be read.
    """
    geometry = typical.image_header.geometry if typical.image_header is not None else None
    if geometry is None or typical.intensity is None:
        return None
    sound, data = [case for case in cases if case.is_sound], data or training_data(cases)
    chosen, settings = _choose_axis(geometry, typical.labels, whole_cases=data is not None)
    settings = [
        *settings,
        (native_grid(chosen.plane.axis, sound) if data and may_be_native else None)
        or choose_size(chosen.plane, geometry, typical.labels),
        *_choose_intensity(sound, typical, data.modality if data else None),
        *_choose_labels(sound, typical, organ, data.class_names if data else ()),
        *(_choose_cases(cases) if data else []),
    ]
    if ignore_value is not None:
        settings.append(Setting(f"data.ignore_value={ignore_value}", ignore_reason))
    files = data.overrides if data else _single_case(typical)
    overrides = (*files, *(setting.override for setting in settings if setting.override))
    return Suggestion(
        case_id=typical.case_id,
        n_cases=len(sound) if data else 1,
        settings=tuple(settings),
        overrides=overrides,
        command=shlex.join(["spleen", "train", *overrides]),
        obstacle=_TOO_THIN if chosen.concessions is None else None,
    )


def typical_case(cases: Sequence[CaseFacts], outlying: set[str]) -> CaseFacts | None:
    """The sound case whose organ is nearest to the median volume, one that is no outlier if there is one."""
    sound = [case for case in cases if case.is_sound and case.intensity is not None]
    candidates = [case for case in sound if case.case_id not in outlying] or sound
    if not candidates:
        return None
    volumes = [case.organ_volume_mm3 for case in candidates]
    median = float(np.median(volumes))
    return min(zip(candidates, volumes, strict=True), key=lambda pair: abs(pair[1] - median))[0]


# Axis ---------------------------------------------------------------------------------------------------------------


def _choose_axis(
    geometry: GeometryFacts, labels: LabelFacts | None, whole_cases: bool
) -> tuple[_AxisChoice, list[Setting]]:
    """The axis with the finest pixels; among equals the one with most slices of the organ."""
    choices = [_axis_choice(plane, labels, whole_cases) for plane in geometry.planes]
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
    return max(plane.pixel_mm) < SAME_PIXEL * finest_mm


def _axis_choice(plane: PlaneFacts, labels: LabelFacts | None, whole_cases: bool) -> _AxisChoice:
    if labels is None:
        return _AxisChoice(plane, 0, 0)
    number = AXES.index(plane.axis)
    shown, unlabelled = np.array(labels.organ_per_slice[number]) > 0, labels.unlabelled_slices[number]
    n_organ_slices = int(np.count_nonzero(shown))
    if whole_cases:  # no slice is split from its neighbours
        return _AxisChoice(plane, n_organ_slices, 0)
    for number, concession in enumerate(_CONCESSIONS):
        settings = replace(DEFAULT_SPLIT, guard_mm=0.0) if "split.guard_mm=0" in concession else DEFAULT_SPLIT
        context_slices = 0 if "context_slices=0" in concession else DEFAULT_CONTEXT_SLICES
        try:
            split_one_volume(shown, plane.spacing_mm, context_slices, settings, unlabelled)
        except InputError:
            continue
        return _AxisChoice(plane, n_organ_slices, number)
    return _AxisChoice(plane, n_organ_slices, None)


def _axis_reason(chosen: _AxisChoice, choices: Sequence[_AxisChoice], has_label: bool) -> str:
    others = [choice for choice in choices if choice is not chosen]
    finest = min(max(choice.plane.pixel_mm) for choice in choices)
    n_fine = sum(_is_fine(choice.plane, finest) for choice in choices)
    pixels = f"pixels of {pixel_in_words(chosen.plane)} mm"
    listed = ", ".join(f"{choice.plane.axis} {pixel_in_words(choice.plane)}" for choice in others)
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
        "expect a slightly inflated score",
        "context_slices=0": "neighbouring slices as context would need wider gaps",
    }
    return [Setting(override, reasons[override]) for override in _CONCESSIONS[chosen.concessions]]


# Intensity ----------------------------------------------------------------------------------------------------------


def _choose_intensity(cases: Sequence[CaseFacts], typical: CaseFacts, told: ToldModality | None) -> list[Setting]:
    facts = typical.intensity
    assert facts is not None
    modality, source = _modality(cases, told)
    if modality == "MR":
        return [Setting("intensity=mr", f"MR{source}: no fixed scale, so two percentiles of each volume set it")]
    if modality == "unknown":
        return [Setting("intensity=zscore", f"modality unknown{source}: zero mean and unit variance assume least")]
    low, high = DEFAULT_WINDOW_HU
    window = f"window of {_hu(low)} … {_hu(high)} HU"
    if facts.organ is None:
        return [Setting("intensity=ct", f"CT{source}: a {window} for abdominal soft tissue")]
    if low <= facts.organ.p5 and facts.organ.p95 <= high:
        reason = f"the organ lies at {_hu(facts.organ.p5)} … {_hu(facts.organ.p95)} HU (5th … 95th percentile)"
        return [Setting("intensity=ct", f"CT{source}: {reason}, inside the {window}")]
    margin = 0.25 * (facts.organ.p99_5 - facts.organ.p0_5) + 50
    low, high = (10 * math.floor((facts.organ.p0_5 - margin) / 10), 10 * math.ceil((facts.organ.p99_5 + margin) / 10))
    reason = f"the organ lies at {_hu(facts.organ.p5)} … {_hu(facts.organ.p95)} HU, outside the default window"
    return [
        Setting("intensity=ct", f"CT{source}"),
        Setting(f"intensity.window_level={(low + high) / 2:g}", reason),
        Setting(f"intensity.window_width={high - low:g}", f"{_hu(low)} … {_hu(high)} HU: with its surroundings"),
    ]


def _modality(cases: Sequence[CaseFacts], told: ToldModality | None) -> tuple[Modality, str]:
    """The modality to go by, and where it comes from.

    An MR is whatever the dataset says is one, as it needs no scale. A CT is one only if its values are in HU.
    """
    guessed = Counter(case.intensity.modality for case in cases if case.intensity is not None)
    if told == "mr":
        return "MR", f", as {DATASET_JSON} says"
    modality: Modality = guessed.most_common(1)[0][0]
    mixed = f" ({guessed[modality]} of {guessed.total()} cases)" if len(guessed) > 1 else ""
    if told is None:
        return modality, mixed
    return modality, mixed + (f", as {DATASET_JSON} says" if modality == "CT" else f", though {DATASET_JSON} says CT")


def _hu(value: float) -> str:
    return f"{value:.0f}".replace("-", "−")


# Labels -------------------------------------------------------------------------------------------------------------


def _choose_labels(
    cases: Sequence[CaseFacts], typical: CaseFacts, organ: tuple[int, ...], named: tuple[str, ...]
) -> list[Setting]:
    if typical.labels is None:
        missing = f"no label was given; put its path in the place of {_LABEL_PLACEHOLDER}"
        return [Setting("", missing)] if typical.label is None else []
    if organ:
        values = ",".join(map(str, organ))
        return [Setting(f"data.label_values=[{values}]", "the values that were asked for are the organ")]
    if named:
        return [Setting("", f"data.label_values can stay unset: dataset.json names {', '.join(named)}")]
    voxels: Counter[int] = Counter()
    names: dict[int, str | None] = {}
    for case in cases:
        for value in case.labels.values if case.labels is not None else ():
            voxels[value.value] += value.n_voxels
            names[value.value] = value.name
    present = sorted(voxels)
    if len(present) == 1:
        return [Setting("", f"data.label_values can stay unset: {present[0]} is the only value besides 0")]
    if len(present) <= _MOST_CLASSES:
        return [_one_class_per_value({value: names[value] for value in present})]
    largest = voxels.most_common(1)[0][0]
    return [Setting(f"data.label_values=[{largest}]", f"the largest of {len(present)} values; choose yours")]


def _one_class_per_value(names: Mapping[int, str | None]) -> Setting:
    """Called as the dataset's own file calls them, where it has a different name for each that needs no quotes."""
    told = [name for name in names.values() if name and re.fullmatch(r"[A-Za-z_]\w*", name, re.ASCII)]
    if len(set(told)) == len(names):
        classes, reason = dict(zip(told, names, strict=True)), "one class per value, as dataset.json names them"
    else:
        classes = {f"label_{value}".replace("_-", "_minus_"): value for value in names}
        reason = "one class per value; name them, or keep those you want"
    written = ", ".join(f"{name}: {value}" for name, value in classes.items())
    return Setting(f"data.label_values={{{written}}}", reason)


# Data ---------------------------------------------------------------------------------------------------------------


def _single_case(case: CaseFacts) -> tuple[str, ...]:
    label = f"data.label={_LABEL_PLACEHOLDER}" if case.label is None else hydra_override("data.label", case.label)
    return "data=nifti", hydra_override("data.image", case.image), label


def _choose_cases(cases: Sequence[CaseFacts]) -> list[Setting]:
    bad = sum(not case.is_sound for case in cases)
    if not bad:
        return []
    return [Setting("data.skip_bad=true", f"{bad} of {len(cases)} cases have errors; fixing them is better")]
