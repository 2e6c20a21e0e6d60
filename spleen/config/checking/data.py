"""Checks of the data, of its split and of the fold."""

from collections.abc import Iterator, Mapping

from spleen.config.checking.ranges import between, is_whole
from spleen.config.schema import (
    CasesData,
    DatasetData,
    FolderData,
    NiftiData,
    PhantomData,
    TableData,
    TrainConfig,
)

# The required settings of each kind of data, and an example.
_NEEDED = {
    NiftiData: ("image", "label"),
    DatasetData: ("root",),
    FolderData: ("images", "labels"),
    TableData: ("table",),
}
_EXAMPLES = {
    "nifti": "data.image=IMAGE.nii.gz and data.label=LABEL.nii.gz",
    "decathlon": "data.root=Task09_Spleen, the folder with dataset.json",
    "nnunet": "data.root=Dataset009_Spleen, the folder with dataset.json",
    "folder": "data.images=IMAGES and data.labels=LABELS, two folders",
    "table": "data.table=CASES.csv, with the columns image, label and optionally group",
}


def data_problems(config: TrainConfig) -> Iterator[str]:
    """An error message for each invalid value."""
    data = config.data
    if isinstance(data, PhantomData):
        yield from between("data.matrix", data.matrix, 32, 512, unit="pixels")
        yield from between("data.n_slices", data.n_slices, 16, 450, unit="slices")
        yield from between("data.noise_hu", data.noise_hu, 0, 200, unit="HU")
        yield from between("data.seed", data.seed, 0, 2**32 - 1)
    for name in _NEEDED.get(type(data), ()):
        if not getattr(data, name):
            yield f"data.{name} is missing: data={data.kind} needs {_EXAMPLES[data.kind]}"
    if isinstance(data, CasesData) and data.channels is not None:
        yield from between("data.channels", data.channels, 1, 64)
    if isinstance(data, CasesData) and not _is_mapping_of_lists(data.labelled_classes):
        yield (
            "data.labelled_classes must map patterns of case names to lists of classes, such as "
            f"{{spleen_*: [spleen], amos_*: [spleen, liver]}}; got {data.labelled_classes}"
        )
    yield from _split(config)
    yield from _fold(config)


def _is_mapping_of_lists(setting: object) -> bool:
    if setting is None:
        return True
    return isinstance(setting, Mapping) and all(
        isinstance(names, list) and all(isinstance(name, str) for name in names) for names in setting.values()
    )


def _split(config: TrainConfig) -> Iterator[str]:
    split = config.split
    many = isinstance(config.data, CasesData)
    yield from between("split.val_fraction", split.val_fraction, 0, 0.5, low_included=many)
    yield from between("split.test_fraction", split.test_fraction, 0, 0.5, low_included=many)
    yield from between("split.test_blocks", split.test_blocks, 1, 16, unit="blocks")
    yield from between("split.guard_mm", split.guard_mm, 0, 1000, unit="mm")
    yield from between("split.seed", split.seed, 0, 2**32 - 1)
    yield from between("split.folds", split.folds, 2, 1000, unit="folds")
    if split.val_fraction + split.test_fraction > 0.8:
        yield (
            f"split.val_fraction + split.test_fraction is {split.val_fraction + split.test_fraction:g}; "
            "it must be at most 0.8, to leave enough for training"
        )


def _fold(config: TrainConfig) -> Iterator[str]:
    fold, split = config.fold, config.split
    if not isinstance(config.data, CasesData):
        number = None if fold == "all" else fold
        given = {"fold": number, "split.splits_file": split.splits_file, "split.test_cases": split.test_cases}
        for name in [name for name, value in given.items() if value is not None]:
            yield (
                f"{name} needs many cases; data={config.data.kind} is a single volume, split into blocks, or with "
                "fold=all trained on as a whole"
            )
    elif fold is not None and fold != "all":
        if not is_whole(fold) or fold < 0:
            yield f"fold must be a number from 0, all, or null for one split by fraction; got '{fold}'"
        elif split.splits_file is None and fold >= split.folds:
            yield f"fold must be 0 to {split.folds - 1} with split.folds={split.folds}, or all; got {fold}"
    elif fold is None and split.splits_file is not None:
        yield "split.splits_file defines folds: choose one with fold=0, fold=1, …"
    if _has_no_validation(config):
        if config.trainer.early_stopping_patience is not None:
            yield "trainer.early_stopping_patience needs validation cases; without any, use null"
        if config.search is not None:
            yield "a search needs validation cases: set split.val_fraction above 0, and do not use fold=all"


def _has_no_validation(config: TrainConfig) -> bool:
    return config.fold == "all" or config.split.val_fraction == 0
