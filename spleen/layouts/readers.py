"""The layouts whose folder holds a dataset.json, by the name that `data=` gives them."""

from collections.abc import Callable
from pathlib import Path

from spleen.layouts.dataset import Dataset
from spleen.layouts.decathlon import read_decathlon
from spleen.layouts.nnunet import read_nnunet

DATASET_READERS: dict[str, Callable[[Path, bool], Dataset]] = {"decathlon": read_decathlon, "nnunet": read_nnunet}
