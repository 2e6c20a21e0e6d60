"""The layouts with a dataset.json, by their name in `data=`."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from spleen.data.layouts.dataset import Dataset, checked_classes
from spleen.data.layouts.dataset_json import DATASET_JSON, read_dataset_json
from spleen.data.layouts.decathlon import decathlon_classes, read_decathlon
from spleen.data.layouts.nnunet import nnunet_classes, read_nnunet
from spleen.errors import InputError

DATASET_READERS: dict[str, Callable[[Path, bool], Dataset]] = {"decathlon": read_decathlon, "nnunet": read_nnunet}
_CLASS_READERS: Sequence[Callable[[Path, object], Mapping[str, Sequence[int]]]] = (decathlon_classes, nnunet_classes)


def classes_beside(labels: Path) -> dict[int, str] | None:
    """The class name of each label value, from the dataset.json next to a folder of labels.

    `labels` is that folder, or a file in it. None if there is no such file or it defines no classes.
    """
    root = (labels if labels.is_dir() else labels.parent).absolute().parent
    try:
        entry = read_dataset_json(root).get("labels") if (root / DATASET_JSON).exists() else None
    except InputError:
        return None
    for read in _CLASS_READERS:
        try:
            classes = checked_classes(root, read(root / DATASET_JSON, entry))
        except InputError:  # the other layout, or no usable classes
            continue
        return {value: name for name, values in classes.items() for value in values}
    return None
