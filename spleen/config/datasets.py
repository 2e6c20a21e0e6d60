"""The cases of a run from its configuration, and the settings from their files: classes, ignored value, channels, …

Imports nothing heavy at the top: the plan of a multirun uses this.
"""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import cast

from omegaconf import OmegaConf

from spleen.config.schema import (
    INTENSITIES,
    AutoIntensity,
    CasesData,
    CtConfig,
    DatasetData,
    FolderData,
    MrConfig,
    NiftiData,
    PhantomData,
    TableData,
    TrainConfig,
)
from spleen.data.cases import Case, case_from_files
from spleen.data.layouts.dataset import Dataset
from spleen.data.layouts.folder import pair_folders
from spleen.data.layouts.registry import DATASET_READERS
from spleen.data.layouts.table import read_groups, read_table
from spleen.data.phantom.case import phantom_case, phantom_files
from spleen.errors import InputError
from spleen.imaging.files import is_there
from spleen.imaging.foreign import describe_folder
from spleen.system.resources import conf_folder
from spleen.system.text import shortened

log = logging.getLogger(__name__)


def find_dataset(config: TrainConfig) -> Dataset:
    """The labelled cases of the configuration; the files of a phantom may not exist yet (see `compute_phantom`).

    Raises InputError for an invalid layout.
    """
    data = config.data
    if isinstance(data, PhantomData):
        return Dataset(cases=(phantom_files(*_phantom(config)),), label_values=None, channels=(), modality="ct")
    if isinstance(data, NiftiData):
        case = case_from_files(Path(str(data.image)), Path(str(data.label)))
        return Dataset(cases=(case,), label_values=None, channels=(), modality=None)
    assert isinstance(data, CasesData)
    return _with_labelled(_with_groups(_read_layout(data), data.groups), data.labelled_classes)


def check_files_exist(config: TrainConfig, cases: Sequence[Case]) -> None:
    """Raise InputError for a case without a file, before any is read; with `data.skip_bad` such cases are skipped."""
    if isinstance(config.data, PhantomData) or (isinstance(config.data, CasesData) and config.data.skip_bad):
        return
    files = ((path, case) for case in cases for path in (*case.images, case.label))
    missing = [(path, case) for path, case in files if not (path.exists() or is_there(path))]
    if isinstance(config.data, NiftiData):
        for path in (*cases[0].images, cases[0].label):
            if path.is_dir() and not is_there(path):
                raise InputError(f"{path} is a folder; expected a NIfTI file: {describe_folder(path)}")
    if missing:
        path, case = missing[0]
        more = f", and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise InputError(f"{path}: no such file (case '{case.case_id}'){more}")


def compute_phantom(config: TrainConfig) -> None:
    """Compute the phantom's files if it is used and not cached. Raises InputError if that fails."""
    if isinstance(config.data, PhantomData):
        phantom_case(*_phantom(config))


def _phantom(config: TrainConfig) -> tuple[Path, int, int, int, float]:
    data = config.data
    return Path(config.cache_dir), data.matrix, data.n_slices, data.seed, data.noise_hu


def _read_layout(data: CasesData) -> Dataset:
    if isinstance(data, DatasetData):
        return DATASET_READERS[data.kind](Path(str(data.root)), data.label_values is None)
    if isinstance(data, FolderData):
        return pair_folders(Path(str(data.images)), Path(str(data.labels)))
    assert isinstance(data, TableData)
    return read_table(Path(str(data.table)))


def _with_groups(dataset: Dataset, path: str | None) -> Dataset:
    if path is None:
        return dataset
    groups = read_groups(Path(path))
    lacking = [case.case_id for case in dataset.cases if case.case_id not in groups]
    if lacking:
        raise InputError(f"{path} has no group for {len(lacking)} cases, for example {lacking[0]}")
    return replace(dataset, cases=tuple(replace(case, group=groups[case.case_id]) for case in dataset.cases))


def _with_labelled(dataset: Dataset, labelled_classes: Mapping[str, Sequence[str]] | None) -> Dataset:
    """The cases with the classes that they label; a case that no pattern matches labels all of them."""
    if not labelled_classes:
        return dataset
    cases = []
    for case in dataset.cases:
        matching = [pattern for pattern in labelled_classes if fnmatchcase(case.case_id, pattern)]
        if len(matching) > 1:
            shown = " and ".join(f"'{pattern}'" for pattern in matching)
            raise InputError(f"data.labelled_classes: {shown} both match case '{case.case_id}'; make one narrower")
        if matching and case.labelled is not None:
            raise InputError(
                f"data.labelled_classes and the column labelled of the table both say what case '{case.case_id}' "
                "labels; use one of them"
            )
        cases.append(replace(case, labelled=tuple(labelled_classes[matching[0]])) if matching else case)
    for pattern in labelled_classes:
        if not any(fnmatchcase(case.case_id, pattern) for case in cases):
            known = shortened([case.case_id for case in cases], 5)
            raise InputError(f"data.labelled_classes: '{pattern}' matches no case; the cases are {known}")
    return replace(dataset, cases=tuple(cases))


def complete(config: TrainConfig, dataset: Dataset) -> TrainConfig:
    """The configuration with the unset classes, channels and intensity taken from the dataset's own files.

    The record of a run is thereby complete, and a prediction does not need the training data.
    Raises InputError for files that cannot be read, or that do not contain the information.
    """
    data, intensity = config.data, config.intensity
    if isinstance(intensity, AutoIntensity):
        intensity = _intensity(dataset.modality, data.kind)
        if isinstance(data, CasesData):
            log.info("intensity=%s, since the data's files say %s", intensity.kind, ", ".join(dataset.channels))
    if not isinstance(data, CasesData):
        return replace(config, intensity=intensity)
    label_values, order = data.label_values, data.regions_class_order
    if label_values is None and dataset.label_values is not None:
        label_values = {name: list(values) for name, values in dataset.label_values.items()}
        if order is None and dataset.regions_class_order is not None:
            order = list(dataset.regions_class_order)
    channels = data.channels or _count_channels(dataset)
    ignore_value, of_dataset = data.ignore_value, dataset.ignore_value
    if ignore_value is None and of_dataset is not None:
        from spleen.config.preprocessing import build_classes  # imports PyTorch

        ignore_value = None if any(of_dataset in each for each in build_classes(config).values) else of_dataset
    data = replace(data, label_values=label_values, channels=channels, ignore_value=ignore_value)
    data = replace(data, regions_class_order=order)
    return replace(config, data=data, intensity=intensity)


def _intensity(kind: str | None, source: str) -> CtConfig | MrConfig:
    """The default values of an intensity, from its file in conf/."""
    if kind is None:
        raise InputError(
            f"intensity=auto: the files of data={source} do not say whether the images are CT or MR; "
            "choose intensity=ct, mr or zscore"
        )
    values = OmegaConf.load(conf_folder() / "intensity" / f"{kind}.yaml")
    return cast(
        CtConfig | MrConfig, OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(INTENSITIES[kind]), values))
    )


def _count_channels(dataset: Dataset) -> int:
    """Channels of an image: its number of files, or the fourth dimension of the first readable file."""
    if len(dataset.cases[0].images) > 1:
        return len(dataset.cases[0].images)
    import nibabel as nib

    for case in dataset.cases:
        try:
            shape = cast(nib.nifti1.Nifti1Image, nib.load(case.images[0])).shape
        except Exception:  # the slice store gives the better error message
            continue
        return int(shape[3]) if len(shape) > 3 else 1
    return max(1, len(dataset.channels))
