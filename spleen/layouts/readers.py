"""The layouts whose folder holds a dataset.json, by the name that `data=` gives them."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from spleen.errors import InputError
from spleen.layouts.dataset import DATASET_JSON, Dataset, checked_classes, read_dataset_json
from spleen.layouts.decathlon import decathlon_classes, read_decathlon
from spleen.layouts.nnunet import nnunet_classes, read_nnunet

DATASET_READERS: dict[str, Callable[[Path, bool], Dataset]] = {"decathlon": read_decathlon, "nnunet": read_nnunet}
_CLASS_READERS: Sequence[Callable[[Path, object], Mapping[str, Sequence[int]]]] = (decathlon_classes, nnunet_classes)


def classes_beside(labels: Path) -> dict[int, str] | None:
    """The name of each label value, as the dataset.json beside a folder of labels tells it.

    `labels` is that folder, or a file in it. None where no such file tells any.
    """
    root = (labels if labels.is_dir() else labels.parent).absolute().parent
    try:
        told = read_dataset_json(root).get("labels") if (root / DATASET_JSON).exists() else None
    except InputError:
        return None
    for read in _CLASS_READERS:
        try:
            classes = checked_classes(root, read(root / DATASET_JSON, told))
        except InputError:  # of the other layout, or no classes to work with
            continue
        return {value: name for name, values in classes.items() for value in values}
    return None
