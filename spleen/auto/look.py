"""A look at the data before any training: what `spleen explore` suggests, from as many cases as there is time for."""

import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from spleen.config.datasets import check_files_exist, complete, compute_phantom, find_dataset
from spleen.config.overrides import key_of
from spleen.config.preprocessing import build_classes, ignore_value
from spleen.config.schema import CasesData, TrainConfig
from spleen.data.cases import Case
from spleen.data.layouts.dataset import Dataset
from spleen.errors import InputError
from spleen.exploration.facts.case import CaseFacts, explore_case
from spleen.exploration.facts.header import PlaneFacts
from spleen.exploration.inputs import CaseFiles
from spleen.exploration.suggestion.layout import TrainingData
from spleen.exploration.suggestion.suggest import Suggestion, suggest, typical_case
from spleen.imaging.slicing import AXES, slice_shape

_COARSEST = 2.0
"""Times the finest pixel: a view with coarser ones is not worth its time."""


@dataclass(frozen=True)
class Look:
    """What the data are like, and the settings that follow."""

    settings: tuple[tuple[str, str], ...]
    """Overrides that the user has not given, and why."""
    axes: tuple[str, ...]
    """Worth a view, the suggested one first."""
    native: tuple[int, int]
    """Height and width of the typical case's slices, pixels."""
    pixel_mm: tuple[float, float]
    n_training_slices: int
    n_val_slices: int
    n_test_slices: int


def look(config: TrainConfig, given: Collection[str], seconds: float) -> Look:
    """Explore cases spread over the dataset for so many seconds, at least one, and suggest settings.

    `given` are the keys that the user has set. Raises InputError where no case can be used.
    """
    dataset = find_dataset(config)
    check_files_exist(config, dataset.cases)
    compute_phantom(config)
    organ = tuple(value for values in build_classes(config).values or () for value in values)
    ignored = ignore_value(complete(config, dataset))
    found = _explored(config, dataset.cases, organ, ignored, seconds)
    suggestion, planes = _suggested(config, dataset, found, organ, ignored)
    settings = tuple(
        (each.override, each.reason) for each in suggestion.settings if _is_open(each.override, given, config)
    )
    axis = config.axis if "axis" in given else next(_value(each) for each, _ in settings if key_of(each) == "axis")
    grid = tuple(plane.n_slices for plane in planes)
    plane = planes[AXES.index(axis)]
    train, val, test = _fractions(config)
    n_cases = len(dataset.cases)
    return Look(
        settings=settings,
        axes=(axis,) if "axis" in given else _axes(axis, planes),
        native=slice_shape(grid, axis)[1:],  # type: ignore[arg-type]
        pixel_mm=plane.pixel_mm,
        n_training_slices=max(1, round(train * n_cases * plane.n_slices)),
        n_val_slices=round(val * n_cases * plane.n_slices),
        n_test_slices=round(test * n_cases * plane.n_slices),
    )


def _explored(
    config: TrainConfig, cases: Sequence[Case], organ: tuple[int, ...], ignored: int | None, seconds: float
) -> list[CaseFacts]:
    """The facts of cases in an order that spreads them over the dataset, until the time is over."""
    began, found = time.monotonic(), []
    may_have_channels = isinstance(config.data, CasesData)
    n_parts = 1
    while n_parts * 2 <= len(cases):
        n_parts *= 2
    order = list(dict.fromkeys(number for part in _halves(n_parts) for number in range(part, len(cases), n_parts)))
    for number in order:
        case = cases[number]
        files = CaseFiles(case.case_id, case.images[0], case.label)
        found.append(explore_case(files, organ, ignore_value=ignored, channels=may_have_channels))
        if time.monotonic() - began > seconds and any(each.is_sound for each in found):
            break
    return found


def _halves(n_parts: int) -> list[int]:
    """0 … n_parts - 1 with the middle of every gap before its neighbours, such as 0, 2, 1, 3 (bits reversed)."""
    bits = n_parts.bit_length() - 1
    return [int(f"{number:0{bits}b}"[::-1], 2) if bits else 0 for number in range(n_parts)]


def _suggested(
    config: TrainConfig, dataset: Dataset, found: Sequence[CaseFacts], organ: tuple[int, ...], ignored: int | None
) -> tuple[Suggestion, Sequence[PlaneFacts]]:
    typical = typical_case(found, set())
    if typical is None:
        errors = [finding.message for case in found for finding in case.findings if finding.severity == "error"]
        raise InputError(f"no case can be trained on: {errors[0]}")
    data = None
    if isinstance(config.data, CasesData):
        data = TrainingData((), tuple(dataset.label_values or ()), dataset.modality)
    suggestion = suggest(found, typical, organ, ignored, data, may_be_native=config.resize != "stretch")
    if suggestion is None or typical.image_header is None or typical.image_header.geometry is None:
        raise InputError(f"{typical.image} has no three dimensions that could be sliced")
    if suggestion.obstacle is not None:
        raise InputError(suggestion.obstacle)
    return suggestion, typical.image_header.geometry.planes


def _is_open(override: str, given: Collection[str], config: TrainConfig) -> bool:
    """Whether a suggested setting is one, and the user has said nothing else."""
    key = key_of(override)
    is_known = key == "data.label_values" and config.data.label_values is not None
    return bool(override) and not is_known and not {key, key.split(".")[0]} & set(given)


def _axes(first: str, planes: Sequence[PlaneFacts]) -> tuple[str, ...]:
    finest = min(max(plane.pixel_mm) for plane in planes)
    others = [plane for plane in planes if plane.axis != first and max(plane.pixel_mm) <= _COARSEST * finest]
    return (first, *(plane.axis for plane in sorted(others, key=lambda plane: max(plane.pixel_mm))))


def _fractions(config: TrainConfig) -> tuple[float, float, float]:
    """About the shares of the training, the validation and the test split."""
    split = config.split
    test = 1 / split.folds if isinstance(config.fold, int) else split.test_fraction
    val = split.val_fraction * (1 - test) if isinstance(config.data, CasesData) else split.val_fraction
    return 1 - test - val, val, test


def _value(override: str) -> str:
    return override.partition("=")[2]
