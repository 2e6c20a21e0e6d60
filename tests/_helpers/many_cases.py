"""Shared by the multi-case tests: a dataset of small volumes in Decathlon layout, and short trainings on it."""

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from spleen.config.checking.checks import check
from spleen.config.datasets import complete, find_dataset
from spleen.config.schema import TrainConfig
from spleen.runs.train import run
from tests._helpers.nifti import ras_affine, save
from tests._helpers.small_run import compose_config, small

SPACING_MM = (1.5, 1.25, 3.0)
VOXEL_MM3 = 1.5 * 1.25 * 3.0
SHAPE = (24, 20, 8)
# Trains in about a second; the smallest settings whose batches still contain several cases.
QUICK = ("epochs=1", "loader.slices_per_epoch=8", "img_size=16", "model.network.width=2", "split.val_fraction=0.25")


@dataclass(frozen=True)
class ManyCases:
    """A dataset on disk; `labels` holds the label map of each case_id."""

    root: Path
    labels: dict[str, np.ndarray]

    @property
    def decathlon(self) -> tuple[str, str]:
        return "data=decathlon", f"data.root={self.root}"

    @property
    def folder(self) -> tuple[str, str, str]:
        return "data=folder", f"data.images={self.root / 'imagesTr'}", f"data.labels={self.root / 'labelsTr'}"

    def image(self, case_id: str) -> Path:
        return self.root / "imagesTr" / f"{case_id}.nii.gz"

    def label(self, case_id: str) -> Path:
        return self.root / "labelsTr" / f"{case_id}.nii.gz"


def half_organ(size: int) -> np.ndarray:
    """A box of 8 × 6 × `size` voxels, with value 1 in the lower half along i and 2 in the upper."""
    label = np.zeros(SHAPE, dtype=np.uint8)
    label[6:10, 7:13, :size], label[10:14, 7:13, :size] = 1, 2
    return label


def many_cases(root: Path, n: int, names: Sequence[str] = ("front", "back"), channels: int = 1) -> ManyCases:
    """Cases c0, c1, …; case k has 4 × 6 × (k % 7 + 2) voxels of each class, visible in its image.

    The modality is CT. With two channels, both show the organ, on different scales.
    """
    for name in ("imagesTr", "labelsTr"):
        (root / name).mkdir(parents=True)
    labels, affine = {}, ras_affine(SPACING_MM)
    for number in range(n):
        label = half_organ(number % 7 + 2)
        noise = np.random.default_rng(number).normal(0, 10, SHAPE)
        image = np.select([label == 1, label == 2], [180.0, -60.0], 40.0) + noise
        image = np.stack([image, image / 100], -1) if channels == 2 else image
        save(root / "imagesTr" / f"c{number}.nii.gz", image.astype(np.float32), affine)
        save(root / "labelsTr" / f"c{number}.nii.gz", label, affine)
        labels[f"c{number}"] = label
    content = {
        "modality": {str(channel): "CT" for channel in range(channels)},
        "labels": {"0": "background", **{str(value): name for value, name in enumerate(names, start=1)}},
        "training": [{"image": f"./imagesTr/{case}.nii.gz", "label": f"./labelsTr/{case}.nii.gz"} for case in labels],
    }
    (root / "dataset.json").write_text(json.dumps(content))
    return ManyCases(root, labels)


def relabel(cases: ManyCases, case_id: str, change: Callable[[np.ndarray], np.ndarray]) -> None:
    """Replace the label of a case by `change(label)`."""
    cases.labels[case_id] = change(cases.labels[case_id])
    save(cases.label(case_id), cases.labels[case_id], ras_affine(SPACING_MM))


def quick(folder: Path, *overrides: str, name: str = "now") -> Path:
    """Train for about a second under `folder`, as train.py would; returns the run folder, called `name`."""
    run_folder = folder / "outputs" / "study" / name
    config = compose_config(*quick_settings(folder, *overrides))
    check(config)
    run(config, run_folder, time.time())
    return run_folder


def coronal_folds(folder: Path, data: ManyCases) -> Path:
    """A study of two coronal folds that find both classes; its folder."""
    learns = ("epochs=3", "loader.slices_per_epoch=48", "model.network.width=4", "lr=3e-2", "precision=32")
    for fold in range(2):
        quick(folder, *data.decathlon, *learns, "axis=coronal", "split.folds=2", f"fold={fold}", name=f"coronal{fold}")
    return folder / "outputs" / "study"


def quick_config(folder: Path, *overrides: str) -> TrainConfig:
    """The configuration of such a run, checked and completed from the files."""
    config = compose_config(*quick_settings(folder, *overrides))
    check(config)
    return complete(config, find_dataset(config))


def quick_settings(folder: Path, *overrides: str) -> list[str]:
    """The command-line overrides of such a run."""
    given = {override.split("=")[0] for override in overrides}
    folders = f"output_dir={folder / 'outputs'}", f"cache_dir={folder / 'cache'}", "study=study"
    kept = [text for text in small(*QUICK, *folders) if text.split("=")[0] not in given]
    return [*kept, *overrides]
