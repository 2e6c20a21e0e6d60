"""Where a training finds all of the explored cases: the layout that serves just these files."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from spleen.data.layouts.dataset import Dataset, Modality
from spleen.data.layouts.dataset_json import DATASET_JSON
from spleen.data.layouts.folder import pair_folders
from spleen.data.layouts.registry import DATASET_READERS
from spleen.errors import InputError
from spleen.exploration.facts.case import CaseFacts


@dataclass(frozen=True)
class TrainingData:
    """A dataset as a training reads it."""

    overrides: tuple[str, ...]
    class_names: tuple[str, ...]
    """The classes that the dataset's own files name; empty where none does."""
    modality: Modality | None
    """What the dataset's own files say."""


def training_data(cases: Sequence[CaseFacts]) -> TrainingData | None:
    """The layout that serves exactly these images with these labels.

    None for a single case, for cases without a label, and for files that lie otherwise, or beside further cases.
    """
    pairs = {(case.image.absolute(), case.label.absolute()) for case in cases if case.label is not None}
    folders = {(image.parent, label.parent) for image, label in pairs}
    if len(cases) < 2 or len(pairs) < len(cases) or len(folders) != 1:
        return None
    ((image_folder, label_folder),) = folders
    root = image_folder.parent
    candidates: list[tuple[Callable[[], Dataset], tuple[str, ...]]] = []
    if (root / DATASET_JSON).is_file():
        at_root = hydra_override("data.root", root)
        candidates += [(partial(read, root, True), (f"data={kind}", at_root)) for kind, read in DATASET_READERS.items()]
    named = (hydra_override("data.images", image_folder), hydra_override("data.labels", label_folder))
    candidates.append((partial(pair_folders, image_folder, label_folder), ("data=folder", *named)))
    for read, overrides in candidates:
        try:
            dataset = read()
        except InputError:  # of another layout
            continue
        if {(case.images[0].absolute(), case.label.absolute()) for case in dataset.cases} == pairs:
            return TrainingData(overrides, tuple(dataset.label_values or ()), dataset.modality)
    return None


def hydra_override(key: str, path: Path) -> str:
    """An override that gives Hydra this very path, absolute, whatever characters it has; not yet quoted for a shell."""
    text = str(path.absolute())
    if re.fullmatch(r"[A-Za-z0-9_/.+\-]+", text):
        return f"{key}={text}"
    from hydra.core.override_parser.types import Quote  # most paths need none of Hydra

    from spleen.config.overrides import quoted

    return f"{key}={quoted(text, Quote.double)}"
