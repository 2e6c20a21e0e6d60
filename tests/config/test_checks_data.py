"""Checks of the dataset and split settings: which values are rejected, and with which message."""

import pytest

from spleen.config.checking.checks import check
from spleen.errors import InputError
from tests._helpers.small_run import compose_config

CASES = ("data=decathlon", "data.root=Task09_Spleen")


def refusal(*overrides: str) -> list[str]:
    with pytest.raises(InputError) as caught:
        check(compose_config(*overrides))
    return str(caught.value).splitlines()


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (("data=decathlon",), "data.root is missing: data=decathlon needs data.root=Task09_Spleen"),
        (("data=nnunet",), "data.root is missing: data=nnunet needs data.root=Dataset009_Spleen"),
        (("data=folder", "data.images=a"), "data.labels is missing: data=folder needs data.images=IMAGES"),
        (("data=folder", "data.labels=a"), "data.images is missing"),
        (("data=table",), "data.table is missing: data=table needs data.table=CASES.csv, with the columns"),
        ((*CASES, "data.channels=0"), "data.channels must be from 1 to 64; got 0"),
        ((*CASES, "split.folds=1", "fold=0"), "split.folds must be from 2 to 1000 folds; got 1"),
        ((*CASES, "split.val_fraction=-0.1"), "split.val_fraction must be from 0 to 0.5; got -0.1"),
        ((*CASES, "split.test_fraction=0.51"), "split.test_fraction must be from 0 to 0.5; got 0.51"),
        ((*CASES, "fold=5"), "fold must be 0 to 4 with split.folds=5, or all; got 5"),
        ((*CASES, "fold=-1"), "fold must be a number from 0, all, or null for one split by fraction; got '-1'"),
        ((*CASES, "fold=1.0"), "fold must be a number from 0, all, or null for one split by fraction; got '1.0'"),
        ((*CASES, "fold=true"), "fold must be a number from 0, all, or null for one split by fraction; got 'True'"),
        ((*CASES, "fold=every"), "fold must be a number from 0, all, or null for one split by fraction; got 'every'"),
        ((*CASES, "split.splits_file=s.json"), "split.splits_file defines folds: choose one with fold=0, fold=1, …"),
        (("fold=0",), "fold needs many cases; data=phantom is a single volume, split into blocks"),
        (("split.splits_file=s.json",), "split.splits_file needs many cases; data=phantom is a single volume"),
        (("split.test_cases=t.txt",), "split.test_cases needs many cases; data=phantom is a single volume"),
        (("split.val_fraction=0",), "split.val_fraction must be above 0 to 0.5; got 0"),
        (
            (*CASES, "fold=all", "trainer.early_stopping_patience=3"),
            "trainer.early_stopping_patience needs validation cases; without any, use null",
        ),
        (
            (*CASES, "split.val_fraction=0", "trainer.early_stopping_patience=3"),
            "trainer.early_stopping_patience needs validation cases; without any, use null",
        ),
        (
            (*CASES, "fold=all", "search={storage: a, name: b, trial: 0}"),
            "a search needs validation cases: set split.val_fraction above 0, and do not use fold=all",
        ),
        ((*CASES, "crop_size=0"), "crop_size must be from 16 to 4096 pixels; got 0"),
        ((*CASES, "crop_size=33"), "crop_size must be a multiple of 16 (model.size_multiple), or each window"),
        ((*CASES, "img_size=natve"), "img_size must be a whole number of pixels, or native to keep the voxel grid"),
        ((*CASES, "img_size=true"), "img_size must be a whole number of pixels, or native to keep the voxel grid"),
        ((*CASES, "img_size=native", "resize=stretch"), "img_size=native keeps the voxel grid, so resize=stretch"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else None,
)  # fmt: skip
def test_an_invalid_value_is_reported_in_one_line(overrides: tuple[str, ...], message: str) -> None:
    (line,) = refusal(*overrides)
    assert line.startswith(message), line


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("data.skip_bad=perhaps", "data.skip_bad"),
        ("crop_size=large", "crop_size"),
        ("split.folds=many", "split.folds"),
        ("data.channels=two", "data.channels"),
        ("data.image=a.nii", "'data.image' belongs to data=nifti, which is not selected; add data=nifti to use it"),
        ("split.fold=1", "unknown key 'split.fold'"),
    ],
)
def test_a_value_of_the_wrong_type_or_a_misplaced_key_is_reported_by_key(override: str, message: str) -> None:
    plus = "+" if override.startswith(("data.image", "split.fold=")) else ""
    (line,) = refusal(*CASES, f"{plus}{override}")
    assert line.startswith(message), line


@pytest.mark.parametrize(
    "overrides",
    [
        (*CASES, "fold=0"),
        (*CASES, "fold=4"),
        (*CASES, "fold=all"),
        (*CASES, "fold=9", "split.splits_file=s.json"),  # the number of folds comes from the file
        (*CASES, "fold=1", "split.test_cases=t.txt"),
        (*CASES, "split.val_fraction=0", "split.test_fraction=0"),
        (*CASES, "img_size=native", "crop_size=32"),
        (*CASES, "data.skip_bad=true", "data.channels=64", "data.groups=g.csv"),
        ("img_size=native",),
    ],
    ids=" ".join,
)
def test_valid_combinations_pass(overrides: tuple[str, ...]) -> None:
    check(compose_config(*overrides))
