"""Leakage-safe splits of many cases: whole cases or groups, deterministic, of like organ volumes."""

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import numpy as np

from spleen.errors import InputError
from spleen.layouts.splits_file import FoldCases
from spleen.listing import few

Fold = int | Literal["all"] | None


@dataclass(frozen=True)
class CaseFacts:
    """What a split needs to know of a case."""

    case_id: str
    group: str
    volume_mm3: float
    """Of the organ, all classes together."""
    fingerprint: str
    """Equal for equal images."""


@dataclass(frozen=True)
class CaseSplit:
    """The case_ids of each part, sorted."""

    train: tuple[str, ...]
    val: tuple[str, ...]
    test: tuple[str, ...]

    def part_of(self) -> dict[str, str]:
        """The part of each case."""
        return {case_id: part for part in ("train", "val", "test") for case_id in getattr(self, part)}


@dataclass(frozen=True)
class CaseSplitSettings:
    """How cases are split. Shares are of the cases."""

    val_share: float
    test_share: float
    n_folds: int
    seed: int


def make_folds(cases: Sequence[CaseFacts], n_folds: int, seed: int) -> tuple[FoldCases, ...]:
    """Folds of which each holds out other cases, all of them once; no group is torn apart.

    Groups are sorted by organ volume and dealt out in rounds, one to each fold, so that each fold has small and large
    organs; within a round the largest group goes to the fold with the fewest cases, and the seed decides ties.
    Raises InputError for fewer groups than folds.
    """
    groups = _groups(cases)
    if len(groups) < n_folds:
        raise InputError(f"{len(groups)} cases or groups cannot make {n_folds} folds; set split.folds lower")
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
    cases: Sequence[CaseFacts],
    fold: Fold,
    settings: CaseSplitSettings,
    given_folds: Sequence[FoldCases] | None = None,
    test_cases: Collection[str] = (),
) -> CaseSplit:
    """Give every case its part.

    None: validation and test by shares. A fold: its cases test, and of the others a share validates. "all": all train.
    `given_folds` replace folds of our own. `test_cases` are never trained or validated on; without a fold they are the
    test.
    Raises InputError for unknown cases, a fold that does not exist, too few cases, and for the same image or the same
    group in two parts, `test_cases` being one of them whatever the fold.
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
            raise InputError(f"{few(sorted(both))} stand both in split.test_cases and in split.splits_file")
        held_out, pool = chosen.held_out, [case for case in pool if case.case_id in set(chosen.train)]
    elif fold is None and not test_cases and settings.test_share:
        held_out = _share(pool, settings.test_share, settings.seed, "split.test_share")
        pool = [case for case in pool if case.case_id not in set(held_out)]
    validates = fold != "all" and settings.val_share
    val = _share(pool, settings.val_share, settings.seed + 1, "split.val_share") if validates else ()
    train = [case.case_id for case in pool if case.case_id not in set(val)]
    split = CaseSplit(tuple(sorted(train)), tuple(sorted(val)), tuple(sorted(held_out)))
    if not split.train:
        raise InputError(
            f"none of the {len(cases)} cases is left for training: {len(val)} validate and {len(held_out)} test. "
            "Name fewer test cases, or add cases"
        )
    _check_leaks({**dict.fromkeys(test_cases, "split.test_cases"), **split.part_of()}, cases)
    return split


def _groups(cases: Sequence[CaseFacts]) -> list[list[CaseFacts]]:
    """The cases by group, groups with the smallest mean organ first."""
    by_name: dict[str, list[CaseFacts]] = defaultdict(list)
    for case in sorted(cases, key=lambda case: case.case_id):
        by_name[case.group].append(case)
    return sorted(by_name.values(), key=lambda group: (np.mean([case.volume_mm3 for case in group]), group[0].case_id))


def _share(cases: Sequence[CaseFacts], share: float, seed: int, key: str) -> tuple[str, ...]:
    """About this share of the cases, at least one group, from all over the range of volumes.

    Groups, sorted by volume, are cut into as many stretches as groups are wanted; one of each is drawn.
    Raises InputError, with the `key` of the share, unless a group is left for training.
    """
    groups = _groups(cases)
    wanted = max(1, round(share * len(groups)))
    if len(groups) < 2:
        raise InputError(
            f"{key}={share:g} cannot be had: {len(groups)} cases or groups are left, and one must train. Set {key}=0"
        )
    random = np.random.default_rng(seed)
    edges = np.linspace(0, len(groups), wanted + 1).round().astype(int)
    drawn = [groups[random.integers(low, high)] for low, high in pairwise(edges)]
    return tuple(case.case_id for group in drawn for case in group)


def _check_known(wanted: Collection[str], cases: Sequence[CaseFacts], source: str) -> None:
    if unknown := set(wanted) - {case.case_id for case in cases}:
        raise InputError(f"{source} names {few(sorted(unknown))}, which the data do not hold")


def _check_leaks(part_of: Mapping[str, str], cases: Sequence[CaseFacts]) -> None:
    for kind, value_of in (
        ("the same image", {case.case_id: case.fingerprint for case in cases}),
        ("the same group", {case.case_id: case.group for case in cases}),
    ):
        torn = _torn(value_of, part_of)
        if torn:
            pairs = "; ".join(", ".join(f"{case_id} ({part_of[case_id]})" for case_id in ids) for ids in torn[:5])
            raise InputError(
                f"{len(torn)} time(s) {kind} stands in two parts of the split, so a score would be of what was trained "
                f"on: {pairs}. Remove the copies, or put them into one group with data.groups"
            )


def _torn(value_of: Mapping[str, str], part_of: Mapping[str, str]) -> list[list[str]]:
    """The cases that share a value over several parts."""
    sharing: dict[str, list[str]] = defaultdict(list)
    for case_id, value in value_of.items():
        if case_id in part_of:
            sharing[value].append(case_id)
    return [ids for ids in sharing.values() if len({part_of[case_id] for case_id in ids}) > 1]
