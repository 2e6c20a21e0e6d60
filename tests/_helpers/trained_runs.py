"""Shared by the prediction tests: small trainings, each run once per session, and readers of their files."""

import hashlib
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from tests._helpers.small_run import SmallCt, small_ct, train

BRIGHT = ("data.label_values=[3,4]", "data.organ=bright")
TWO_CLASSES = ("data.label_values={dark: 7, bright: [3, 4]}",)


def scan(factory: pytest.TempPathFactory) -> SmallCt:
    """The small CT that all of these trainings use."""
    folder = factory.getbasetemp() / "scan"
    folder.mkdir(exist_ok=True)
    return small_ct(folder)


def trained(factory: pytest.TempPathFactory, name: str, *overrides: str) -> Path:
    """The run folder of a training on the small CT; later calls with the same name and settings get the same run."""
    settings = hashlib.sha256(repr(overrides).encode()).hexdigest()[:8]
    folder = factory.getbasetemp() / f"trained_{settings}"
    run_folder = folder / "outputs" / "small" / name
    if not (run_folder / "summary.json").is_file():
        train(folder, *scan(factory).overrides, *overrides, name=name)
    return run_folder


def three_views(factory: pytest.TempPathFactory) -> list[Path]:
    """Three runs on the bright organ, one per slice axis."""
    axes = "axial", "coronal", "sagittal"
    return [trained(factory, axis, *BRIGHT, f"axis={axis}", "split.guard_mm=1") for axis in axes]


def voxels(path: Path) -> np.ndarray:
    """The array of a file, as stored."""
    return np.asarray(nib.load(path).dataobj)


def file_names(folder: Path) -> set[str]:
    """The names of everything in a folder, including hidden files."""
    return {path.name for path in folder.iterdir()}
