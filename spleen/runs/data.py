"""The data of a run: its cases opened from the slice store, split, and served."""

import logging
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np

from spleen.config import factory as build
from spleen.config.cascade import Coarse, with_boxes
from spleen.config.datasets import compute_phantom
from spleen.config.schema import CasesData, TrainConfig
from spleen.data.cases import Case
from spleen.data.loading.datamodule import SPLITS, SliceDataModule
from spleen.data.partial_labels import check_labelled, mark_unlabelled
from spleen.data.splits.blocks import SliceSplit, split_one_volume
from spleen.data.splits.cases import CaseSplit, CaseSplitSettings, SplitCase, make_folds, split_cases
from spleen.data.splits.files import FoldCases, read_case_list, read_splits, write_splits
from spleen.data.store.build import ExpectedValues, LoadedCases, open_cases
from spleen.data.store.entry import StoredCase
from spleen.errors import InputError
from spleen.imaging.classes import in_class
from spleen.imaging.preprocessing import Preprocessing
from spleen.records.folder import RunFolder
from spleen.records.writing import write_case_split, write_split
from spleen.system.text import shortened
from spleen.training.scores import SCORED_SPLITS

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class RunData:
    """The data of a run."""

    slices: SliceDataModule
    folds: tuple[FoldCases, ...] | None
    """All folds of the cross-validation that the run is part of; None if it is not part of one."""


def open_data(
    config: TrainConfig,
    cases: Sequence[Case],
    preprocessing: Preprocessing,
    known_values: frozenset[int] | None = None,
    verify: bool = False,
    coarse: Coarse | None = None,
) -> RunData:
    """Open the cases from the slice store (built if needed, checked with `verify`) and split them.

    `known_values` are the label values that the dataset defines. With a `coarse` run, the slices show the box that it
    finds in each case.
    Raises InputError if the files or the split are invalid.
    """
    many, names = isinstance(config.data, CasesData), preprocessing.classes.names
    check_labelled(cases, names)
    if preprocessing.classes.regions is not None and any(case.labelled is not None for case in cases):
        raise InputError(
            "classes that share label values (data.regions_class_order) need cases that label all of them; leave "
            "data.labelled_classes or the column labelled out"
        )
    compute_phantom(config)
    opened = open_cases(
        cases if coarse is None else with_boxes(config, cases, coarse),
        preprocessing,
        Path(config.cache_dir),
        skip_bad=many and config.data.skip_bad,
        allow_empty_label=many,
        verify=verify or config.verify,
        values=ExpectedValues(known_values, tuple(config.data.background_values or ()) if many else ()),
        restore=partial(compute_phantom, config),
    )
    _check_same_values(opened.cases)
    opened = replace(opened, cases=mark_unlabelled(opened.cases, cases, names))
    _warn_of_nothing_ignored(opened.cases, preprocessing.ignore_value)
    splits, folds = _split_cases(config, opened) if many else ([_split_slices(config, opened.cases[0])], None)
    data = SliceDataModule(opened.cases, splits, build.build_loader_settings(config), opened.skipped)
    if many:
        _check_classes(data, names)
        _warn_of_unlabelled(data, names)
    _warn_of_unvalidated(data, names)
    _describe(data, config)
    return RunData(data, folds)


def _check_same_values(cases: tuple[StoredCase, ...]) -> None:
    """If the single non-zero label value of each file is used, it must be the same in all files."""
    differing = {case.label_values: case.case_id for case in cases}
    if len(differing) > 1:
        shown = "; ".join(f"{case_id}: {list(map(list, values))}" for values, case_id in list(differing.items())[:3])
        raise InputError(
            f"the label files contain different values ({shown}), so it is unclear which one is the organ. "
            "Set data.label_values, for example data.label_values=[1]"
        )


def _warn_of_nothing_ignored(cases: tuple[StoredCase, ...], ignore_value: int | None) -> None:
    if ignore_value is not None and not any(case.ignored_volume_mm3 for case in cases):
        log.warning("no label contains data.ignore_value=%d, so nothing is ignored; is it right?", ignore_value)


def _check_classes(data: SliceDataModule, names: tuple[str, ...]) -> None:
    """Single labels may be empty, but the training cases must contain foreground, and label every class."""
    training = data.cases_in("train")
    if unlabelled := _labelled_nowhere(training, names):
        raise InputError(
            f"{', '.join(unlabelled)}: labelled in none of the {len(training)} training cases, so not to be told from "
            "the background; choose another split, such as with split.seed, or leave the class out of data.label_values"
        )
    absent = [
        name for name, *volumes in zip(names, *(case.volumes_mm3 for case in training), strict=True) if not any(volumes)
    ]
    values = dict(zip(names, training[0].label_values, strict=True))
    shown = ", ".join(f"{name} (label values {list(values[name])})" for name in absent)
    if len(absent) == len(names):
        raise InputError(f"no label of the {len(training)} training cases contains {shown}; correct data.label_values")
    if absent:
        log.warning("no label of the %d training cases contains %s, so it cannot be learned", len(training), shown)


def _labelled_nowhere(cases: Sequence[StoredCase], names: tuple[str, ...]) -> list[str]:
    return [name for number, name in enumerate(names, start=1) if all(number in case.unlabelled for case in cases)]


def _warn_of_unlabelled(data: SliceDataModule, names: tuple[str, ...]) -> None:
    """Warn of classes that no case of the validation or test split labels, which are not scored there."""
    for split in SCORED_SPLITS:
        cases = data.cases_in(split)
        if cases and (unlabelled := _labelled_nowhere(cases, names)):
            log.warning("no case of the %s split labels %s: not scored there", split, ", ".join(unlabelled))


def _warn_of_unvalidated(data: SliceDataModule, names: tuple[str, ...]) -> None:
    """Warn of classes that the validation split does not contain: its scores say nothing about them."""
    parts = data.slices("val")
    found = {names.index(name) + 1 for name in _labelled_nowhere(data.cases_in("val"), names)}  # said already
    for part in parts:
        if len(part.indices) == part.case.n_slices:
            found |= {index for index, volume in enumerate(part.case.volumes_mm3, start=1) if volume}
        else:
            reference = part.case.reference[part.case.in_volume(part.indices)]
            numbers = range(1, 1 + len(names))
            found |= {number for number in numbers if in_class(reference, number, part.case.regions).any()}
    if absent := [name for index, name in enumerate(names, start=1) if parts and index not in found]:
        consequence = (
            "nothing can select an epoch, and the last one is kept"
            if len(absent) == len(names)
            else ("it takes no part in selecting an epoch")
        )
        log.warning("the validation split does not contain %s: %s", ", ".join(absent), consequence)


def _split_slices(config: TrainConfig, case: StoredCase) -> SliceSplit:
    """One volume: split into blocks of slices, or with fold=all trained on as a whole."""
    if config.fold == "all":
        return SliceSplit(train=case.labelled_slices, val=(), test=(), guard=())
    settings = build.build_split_settings(config)
    try:
        return split_one_volume(
            case.foreground, case.spacing_mm[0], config.context_slices, settings, case.ignored_slices
        )
    except InputError as error:
        raise InputError(f"{case.case_id}, {case.axis} slices: {error}") from error


def _split_cases(config: TrainConfig, opened: LoadedCases) -> tuple[list[SliceSplit], tuple[FoldCases, ...] | None]:
    """Many cases: all slices of a case are in one split, or in none. Also the folds, if the run is one of them."""
    test_cases = _test_cases(config, opened.skipped)
    facts, folds = _facts(opened.cases), _given_folds(config, opened.skipped)
    if not isinstance(config.fold, int):
        folds = None
    elif folds is None:
        pool = [case for case in facts if case.case_id not in set(test_cases)]
        folds = make_folds(pool, config.split.folds, config.split.seed)
    part_of = split_cases(facts, config.fold, _settings(config), folds, test_cases).part_of()
    splits = []
    for case in opened.cases:
        parts = {part: case.labelled_slices if part_of.get(case.case_id) == part else () for part in SPLITS}
        splits.append(SliceSplit(**parts, guard=()))
    return splits, folds


def _settings(config: TrainConfig) -> CaseSplitSettings:
    split = config.split
    return CaseSplitSettings(split.val_fraction, split.test_fraction, split.folds, split.seed)


def _facts(cases: tuple[StoredCase, ...]) -> list[SplitCase]:
    return [
        SplitCase(case.case_id, case.group or case.case_id, float(np.sum(case.volumes_mm3)), case.fingerprint)
        for case in cases
    ]


def _given_folds(config: TrainConfig, skipped: Collection[str]) -> tuple[FoldCases, ...] | None:
    if not config.split.splits_file:
        return None
    folds = read_splits(Path(config.split.splits_file))
    if isinstance(config.fold, int) and config.fold < len(folds) and set(folds[config.fold].held_out) <= set(skipped):
        raise InputError(
            f"fold={config.fold}: {shortened(folds[config.fold].held_out)}, all that it holds out, is skipped "
            "(data.skip_bad=true), so nothing is left to test"
        )
    return tuple(FoldCases(_without(fold.train, skipped), _without(fold.held_out, skipped)) for fold in folds)


def _test_cases(config: TrainConfig, skipped: Collection[str]) -> tuple[str, ...]:
    return _without(read_case_list(Path(config.split.test_cases)), skipped) if config.split.test_cases else ()


def _without(case_ids: tuple[str, ...], skipped: Collection[str]) -> tuple[str, ...]:
    return tuple(case_id for case_id in case_ids if case_id not in skipped)


def record_split(run_folder: Path, data: RunData, config: TrainConfig) -> None:
    """Write split.json with the slices or cases of train, val and test; with folds, also splits_final.json."""
    slices = data.slices
    if not isinstance(config.data, CasesData):
        (case,), (of_case,) = slices.cases, slices.splits
        splits = {case.case_id: of_case.shifted(case.first_slice)}
        write_split(run_folder, splits, case.axis, build.build_split_settings(config))
        return
    train, val, test = (tuple(case.case_id for case in slices.cases_in(split)) for split in SPLITS)
    split = CaseSplit(train=train, val=val, test=test)
    write_case_split(run_folder, split, config.fold, _settings(config), slices.skipped)
    if data.folds is not None:
        write_splits(RunFolder(run_folder).folds, data.folds, may_be_empty=bool(slices.skipped))


def _describe(data: SliceDataModule, config: TrainConfig) -> None:
    if partly := [case for case in data.cases if case.unlabelled]:
        log.info("%d of %d cases label only some of the classes", len(partly), len(data.cases))
    if n_ignored := sum(len(case.ignored_slices) for case in data.cases):
        n_slices = sum(case.n_slices for case in data.cases)
        log.info("%d of %d %s slices are labelled; only these are used", n_slices - n_ignored, n_slices, config.axis)
    if not isinstance(config.data, CasesData):
        case = data.cases[0]
        height, width = case.grid.padded
        log.info(
            "%s: %d %s slices, %d with %s; network input %d × %d pixels",
            case.case_id, case.n_slices, case.axis, case.foreground.sum(), config.data.organ, height, width,
        )  # fmt: skip
        return
    counts = {split: len(data.slices(split)) for split in SPLITS}
    sides = np.array([case.grid.padded for case in data.cases])
    log.info(
        "%d cases: %d train, %d val, %d test; %s slices; network input up to %d × %d pixels",
        len(data.cases), *counts.values(), config.axis, *sides.max(axis=0),
    )  # fmt: skip
