"""Peak memory while opening many cases: it must not grow with the number of cases, good or bad."""

import gc
import tracemalloc
from contextlib import nullcontext
from dataclasses import replace

import nibabel as nib
import numpy as np
import pytest
import torch

from spleen.data.cases import Case
from spleen.data.store.build import open_cases
from spleen.data.store.store import open_case
from spleen.errors import InputError
from spleen.imaging.classes import ClassMap
from spleen.imaging.intensity import CtWindow
from spleen.imaging.preprocessing import Preprocessing
from spleen.system.memory import MemoryBudget
from tests._helpers.nifti import ras_affine, save

SIDE = 64
SETTINGS = Preprocessing(
    axis="axial",
    img_size=16,
    resize="keep_aspect",
    size_multiple=1,
    intensity=CtWindow(window_level=0.0, window_width=200.0),
    classes=ClassMap(("organ",), ((1,),)),
    grid_tolerance_mm=0.1,
)


@pytest.fixture
def cases(tmp_path):
    """12 cases of 64 × 64 × 64 voxels that share one image; each has its own label."""
    image = np.arange(SIDE**3, dtype=np.float32).reshape(SIDE, SIDE, SIDE) % 97
    path = save(tmp_path / "ct.nii", image, ras_affine())
    labels = [(image > 80 + number).astype(np.uint8) for number in range(12)]
    return [
        Case(f"c{number}", (path,), save(tmp_path / f"seg{number}.nii", label, ras_affine()))
        for number, label in enumerate(labels)
    ]


@pytest.fixture(autouse=True)
def one_thread():
    """One case at a time, so that the peak does not depend on chance."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def _peak_bytes(cases, settings, cache, expected):
    gc.disable()  # objects in reference cycles count too: a collection may come too late
    tracemalloc.start()
    try:
        with expected:
            open_cases(cases, settings, cache, skip_bad=True)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
        gc.enable()


@pytest.mark.parametrize("bad", [False, True], ids=["good cases", "bad cases"])
def test_peak_memory_does_not_grow_with_the_number_of_cases(cases, tmp_path, bad):
    settings = replace(SETTINGS, n_channels=2) if bad else SETTINGS  # the files hold one channel
    few, many = (
        _peak_bytes(
            cases[:count],
            settings,
            tmp_path / f"cache-{count}",
            pytest.raises(InputError, match=f"none of the {count} cases") if bad else nullcontext(),
        )
        for count in (3, 12)
    )
    one_volume = SIDE**3 * 4
    assert few > 2 * one_volume  # so the volumes were indeed measured
    assert many < few + one_volume


def test_cases_that_do_not_fit_into_memory_together_are_built_sequentially(cases, tmp_path, monkeypatch):
    alone = _peak_bytes(cases[:3], SETTINGS, tmp_path / "alone", nullcontext())
    torch.set_num_threads(4)
    together = _peak_bytes(cases, SETTINGS, tmp_path / "together", nullcontext())
    monkeypatch.setattr("spleen.data.store.build.free_memory_bytes", lambda: 2**20)
    limited = _peak_bytes(cases, SETTINGS, tmp_path / "limited", nullcontext())
    assert together > 1.5 * alone  # so there is memory to save
    assert limited < 1.2 * alone


@pytest.mark.parametrize(("n_channels", "img_size"), [(1, 16), (1, 256), (4, 64)])
def test_the_memory_estimate_covers_the_measured_peak(cases, tmp_path, n_channels, img_size):
    image = np.stack([np.asarray(nib.load(cases[0].images[0]).dataobj)] * n_channels, axis=-1)
    case = replace(cases[0], images=(save(tmp_path / "channels.nii.gz", image, ras_affine()),))
    settings = replace(SETTINGS, n_channels=n_channels, img_size=img_size)
    budget = _RecordingBudget(2**40)
    tracemalloc.start()
    open_case(case, settings, tmp_path / "cache", budget)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < budget.requested[0] < 2 * peak


class _RecordingBudget(MemoryBudget):
    """Records the amounts requested."""

    def __init__(self, n_bytes):
        super().__init__(n_bytes)
        self.requested = []

    def taken(self, n_bytes):
        self.requested.append(n_bytes)
        return super().taken(n_bytes)


@pytest.mark.parametrize("n_cases", [1, 3])
def test_the_number_of_pytorch_threads_is_restored(cases, tmp_path, n_cases):
    torch.set_num_threads(4)
    open_cases(cases[:n_cases], SETTINGS, tmp_path / "cache", skip_bad=False)
    assert torch.get_num_threads() == 4
