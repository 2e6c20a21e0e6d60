"""The layouts with a dataset.json, by their name in `data=`."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from spleen.data.layouts.dataset import Dataset, checked_classes
from spleen.data.layouts.dataset_json import DATASET_JSON, read_dataset_json
from spleen.data.layouts.decathlon import decathlon_classes, read_decathlon
from spleen.data.layouts.nnunet import nnunet_classes, read_nnunet, regions_class_order, without_ignore
from spleen.errors import InputError
from spleen.imaging.classes import regions_of

DATASET_READERS: dict[str, Callable[[Path, bool], Dataset]] = {"decathlon": read_decathlon, "nnunet": read_nnunet}
_CLASS_READERS: Sequence[Callable[[Path, object], Mapping[str, Sequence[int]]]] = (decathlon_classes, nnunet_classes)


def classes_beside(labels: Path) -> dict[int, str] | None:
    """The class name of each label value, from the dataset.json in or next to a folder of labels.

    `labels` is that folder, or a file in it. None if there is no such file, or it defines no classes or overlapping
    ones.
    """
    classes = label_values_beside(labels)
    if classes is None or regions_of(tuple(classes.values())) is not None:
        return None
    return {value: name for name, values in classes.items() for value in values}


def label_values_beside(labels: Path) -> dict[str, tuple[int, ...]] | None:
    """The label values of each class, which may overlap, from the dataset.json in or next to a folder of labels.

    `labels` is that folder, or a file in it. None if there is no such file or it defines no classes.
    """
    path, content = _dataset_beside(labels)
    entry = content.get("labels")
    named = {name: values for name, values in entry.items() if name != "ignore"} if isinstance(entry, dict) else entry
    for read in _CLASS_READERS:
        try:
            classes = read(path, named)
            order = regions_class_order(path, classes, content.get("regions_class_order"))
            return checked_classes(path.parent, classes, order)
        except InputError:  # the other layout, or no usable classes
            continue
    return None


def ignore_value_beside(labels: Path) -> int | None:
    """The ignore label in the dataset.json in or next to a folder of labels, as nnU-Net writes it; None without one.

    `labels` is that folder, or a file in it. Raises InputError for an ignore label that is not one value other than 0.
    """
    path, content = _dataset_beside(labels)
    return without_ignore(path, content.get("labels"))[1]


def _dataset_beside(labels: Path) -> tuple[Path, dict[str, object]]:
    """The dataset.json in a folder of labels, or else the one next to it, and what it says; nothing if unreadable."""
    folder = (labels if labels.is_dir() else labels.parent).absolute()
    root = folder if (folder / DATASET_JSON).exists() else folder.parent
    try:
        return root / DATASET_JSON, read_dataset_json(root) if (root / DATASET_JSON).exists() else {}
    except InputError:
        return root / DATASET_JSON, {}
