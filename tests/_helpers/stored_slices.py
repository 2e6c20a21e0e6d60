"""Small cases of several sizes, opened from a slice store on the native grid."""

from dataclasses import replace
from pathlib import Path

import numpy as np

from spleen.data.cases import Case
from spleen.data.loading.batches import CaseSlices
from spleen.data.store.store import open_case
from spleen.imaging.classes import ClassMap
from spleen.imaging.intensity import CtWindow
from spleen.imaging.preprocessing import Preprocessing
from tests._helpers.nifti import ras_affine, save

_SETTINGS = Preprocessing(
    axis="axial",
    img_size="native",
    resize="keep_aspect",
    size_multiple=1,
    intensity=CtWindow(window_level=0.0, window_width=200.0),
    classes=ClassMap(("organ",), ((1,),)),
    grid_tolerance_mm=0.1,
)
SHAPES = [(5, 7, 12), (7, 6, 9), (4, 4, 6)]


def case_slices(folder: Path, n_channels: int) -> tuple[CaseSlices, ...]:
    """All axial slices but the first of random cases with these shapes, whose labels are random, too."""
    return tuple(_case(folder, shape, seed, n_channels) for seed, shape in enumerate(SHAPES))


def _case(folder: Path, shape: tuple[int, int, int], seed: int, n_channels: int) -> CaseSlices:
    random = np.random.default_rng(seed)
    images = tuple(
        save(folder / f"{seed}-{channel}.nii", random.integers(-90, 90, shape).astype(np.int16), ras_affine())
        for channel in range(n_channels)
    )
    label = save(folder / f"{seed}-label.nii", random.integers(0, 2, shape).astype(np.uint8), ras_affine())
    settings = replace(_SETTINGS, n_channels=n_channels)
    case = open_case(Case(str(seed), images, label), settings, folder / "cache")
    return CaseSlices(case, np.arange(1, case.n_slices, dtype=np.int64))
