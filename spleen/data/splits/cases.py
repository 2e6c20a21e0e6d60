"""Leakage-safe splits of many cases: by whole case or group, deterministic, stratified by organ volume."""

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import numpy as np

from spleen.data.splits.files import FoldCases
from spleen.errors import InputError
from spleen.system.text import shortened

Fold = int | Literal["all"] | None


@dataclass(frozen=True)
class SplitCase:
    """What a split needs to know about a case."""

    case_id: str
    group: str
    volume_mm3: float
    """Organ volume, all classes together."""
    fingerprint: str
    """Identical for identical images."""


@dataclass(frozen=True)
class CaseSplit:
    """The case_ids of each split, sorted."""

    train: tuple[str, ...]
    val: tuple[str, ...]
    test: tuple[str, ...]

    def part_of(self) -> dict[str, str]:
        """The split of each case."""
        return {case_id: split for split in ("train", "val", "test") for case_id in getattr(self, split)}


@dataclass(frozen=True)
class CaseSplitSettings:
    """How cases are split. `val_fraction` and `test_fraction` are fractions of the cases."""

    val_fraction: float
    test_fraction: float
    n_folds: int
    seed: int


def make_folds(cases: Sequence[SplitCase], n_folds: int, seed: int) -> tuple[FoldCases, ...]:
    """Cross-validation folds stratified by organ volume: each case is held out exactly once, groups stay together.

    Groups are sorted by organ volume and dealt out in rounds, one to each fold, so that every fold has small and large
    organs. Within a round the largest group goes to the fold with the fewest cases, and the seed decides ties.
    Raises InputError for fewer groups than folds.
    """
    groups = _groups(cases)
    if len(groups) < n_folds:
        raise InputError(f"cannot make {n_folds} folds from {len(groups)} cases or groups; lower split.folds")
    random = np.random.default_rng(seed)
    held_out: list[list[str]] = [[] for _ in range(n_folds)]
    for start in range(0, len(groups), n_folds):
        ties = random.permutation(n_folds)
        fewest_first = sorted(range(n_folds), key=lambda fold: (len(held_out[fold]), ties[fold]))
        largest_first = sorted(groups[start : start + n_folds], key=len, reverse=True)
        for fold, group in zip(fewest_first, largest_first, strict=False):
            held_out[fold] += [case.case_id for case in group]
    everyone = {case.case_id for case in cases}
    return tuple(FoldCases(tuple(sorted(everyone - set(fold))), tuple(sorted(fold))) for fold in held_out)


def split_cases(
    cases: Sequence[SplitCase],
    fold: Fold,
    settings: CaseSplitSettings,
    given_folds: Sequence[FoldCases] | None = None,
    test_cases: Collection[str] = (),
) -> CaseSplit:
    """Assign every case to train, val or test.

    `fold` None: val and test are drawn by fraction. A number: the fold's held-out cases are the test split, and val is
    a fraction of the others. "all": every case trains. `given_folds` replaces computed folds. `test_cases` are never
    trained or validated on; without a fold they are the test split.
    Raises InputError for unknown cases, a fold that does not exist, too few cases, and if the same image or group is in
    two splits; `test_cases` count as a split of their own whatever the fold.
    """
    _check_known(test_cases, cases, "split.test_cases")
    pool = [case for case in cases if case.case_id not in set(test_cases)]
    held_out: Collection[str] = test_cases
    if isinstance(fold, int):
        folds = given_folds if given_folds is not None else make_folds(pool, settings.n_folds, settings.seed)
        if fold >= len(folds):
            raise InputError(f"fold={fold}, but there are {len(folds)} folds, from 0 to {len(folds) - 1}")
        chosen = folds[fold]
        _check_known([*chosen.train, *chosen.held_out], cases, "split.splits_file")
        if both := set(chosen.held_out + chosen.train) & set(test_cases):
            raise InputError(f"{shortened(sorted(both))} are in both split.test_cases and split.splits_file")
        held_out, pool = chosen.held_out, [case for case in pool if case.case_id in set(chosen.train)]
    elif fold is None and not test_cases and settings.test_fraction:
        held_out = _draw_fraction(pool, settings.test_fraction, settings.seed, "split.test_fraction")
        pool = [case for case in pool if case.case_id not in set(held_out)]
    has_val = fold != "all" and settings.val_fraction
    val = _draw_fraction(pool, settings.val_fraction, settings.seed + 1, "split.val_fraction") if has_val else ()
    train = [case.case_id for case in pool if case.case_id not in set(val)]
    split = CaseSplit(tuple(sorted(train)), tuple(sorted(val)), tuple(sorted(held_out)))
    if not split.train:
        raise InputError(
            f"none of the {len(cases)} cases is left for training: {len(val)} val, {len(held_out)} test. "
            "Use fewer test cases, or add cases"
        )
    _check_leaks({**dict.fromkeys(test_cases, "split.test_cases"), **split.part_of()}, cases)
    return split


def _groups(cases: Sequence[SplitCase]) -> list[list[SplitCase]]:
    """The cases by group, in order of mean organ volume, smallest first."""
    by_name: dict[str, list[SplitCase]] = defaultdict(list)
    for case in sorted(cases, key=lambda case: case.case_id):
        by_name[case.group].append(case)
    return sorted(by_name.values(), key=lambda group: (np.mean([case.volume_mm3 for case in group]), group[0].case_id))


def _draw_fraction(cases: Sequence[SplitCase], fraction: float, seed: int, key: str) -> tuple[str, ...]:
    """About this fraction of the cases, at least one group, stratified by organ volume.

    Groups, sorted by volume, are divided into as many strata as groups are needed; one group is drawn from each.
    Raises InputError, which names the setting `key`, unless a group is left for training.
    """
    groups = _groups(cases)
    n_drawn = max(1, round(fraction * len(groups)))
    if len(groups) < 2:
        raise InputError(
            f"{key}={fraction:g} is not possible: {len(groups)} cases or groups are left, and one must train. "
            f"Set {key}=0"
        )
    random = np.random.default_rng(seed)
    edges = np.linspace(0, len(groups), n_drawn + 1).round().astype(int)
    drawn = [groups[random.integers(low, high)] for low, high in pairwise(edges)]
    return tuple(case.case_id for group in drawn for case in group)


def _check_known(case_ids: Collection[str], cases: Sequence[SplitCase], source: str) -> None:
    if unknown := set(case_ids) - {case.case_id for case in cases}:
        raise InputError(f"{source} lists {shortened(sorted(unknown))}, not found in the data")


def _check_leaks(split_of: Mapping[str, str], cases: Sequence[SplitCase]) -> None:
    for kind, value_of in (
        ("the same image", {case.case_id: case.fingerprint for case in cases}),
        ("the same group", {case.case_id: case.group for case in cases}),
    ):
        leaks = _across_splits(value_of, split_of)
        if leaks:
            pairs = "; ".join(", ".join(f"{case_id} ({split_of[case_id]})" for case_id in ids) for ids in leaks[:5])
            raise InputError(
                f"{kind} is in two splits {len(leaks)} time(s), so training data would leak into the scores: {pairs}. "
                "Remove the copies, or put them into one group with data.groups"
            )


def _across_splits(value_of: Mapping[str, str], split_of: Mapping[str, str]) -> list[list[str]]:
    """Cases that share a value but are in different splits."""
    sharing: dict[str, list[str]] = defaultdict(list)
    for case_id, value in value_of.items():
        if case_id in split_of:
            sharing[value].append(case_id)
    return [ids for ids in sharing.values() if len({split_of[case_id] for case_id in ids}) > 1]
