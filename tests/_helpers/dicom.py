"""DICOM series for tests: small phantoms, and changes to what is written of them."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pydicom

from spleen.dicom.write_series import write_series

SHAPE = (5, 7, 6)
"""Columns, rows, slices."""
AXIAL = np.array([[-0.8, 0, 0, 10], [0, -0.9, 0, 20], [0, 0, 2.5, -30], [0, 0, 0, 1.0]])
"""The first pixel is right and anterior, rows run to the left, as scanners write axial slices."""


def ramp(shape: tuple[int, int, int] = SHAPE, start: int = -1000) -> np.ndarray:
    """A volume in which every voxel is different."""
    return (np.arange(np.prod(shape)).reshape(shape) * 7 + start).astype(np.int16)


def edit(folder: Path, change: Callable[[Any, int], None]) -> None:
    """Change each file of a series; the change also gets its number from 0."""
    for number, path in enumerate(sorted(folder.iterdir())):
        dataset = pydicom.dcmread(path)
        change(dataset, number)
        dataset.save_as(path)


def write(folder: Path, array: np.ndarray | None = None, affine: np.ndarray = AXIAL, **options: Any) -> Path:
    """Write a series and give its folder."""
    write_series(folder, ramp() if array is None else array, affine, **options)
    return folder
