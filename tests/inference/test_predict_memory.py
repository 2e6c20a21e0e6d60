"""Predicting a volume of 512 × 512 × 1000 voxels takes less than 4 GiB of memory."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

from tests._helpers.forged_checkpoints import forge_spec
from tests._helpers.trained_runs import file_names, three_views

SPLEEN = str(Path(sys.executable).with_name("spleen"))
SHAPE = (512, 512, 1000)
LIMIT_GIB = 4.0


@pytest.fixture(scope="module")
def large_ct(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A body in air with an organ along half of its length, in voxels of 0.8 mm."""
    i, j = np.mgrid[: SHAPE[0], : SHAPE[1]]
    hu = np.full(SHAPE, -1000, np.int16, order="F")
    hu[((i - 256) / 200) ** 2 + ((j - 256) / 170) ** 2 < 1] = 40
    organ = ((i - 180) / 80) ** 2 + ((j - 270) / 90) ** 2 < 1
    hu[..., 250:750][organ] = 180
    path = tmp_path_factory.mktemp("large") / "ct.nii.gz"
    nib.save(nib.Nifti1Image(hu, np.diag([0.8, 0.8, 0.8, 1.0])), path)
    return path


def peak_gib(folder: Path, *arguments: str | Path) -> float:
    """Peak resident memory of one `spleen predict` process."""
    command = [SPLEEN, "predict", *map(str, arguments)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(command, cwd=folder, env=environment, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 0
    unit = 1 if sys.platform == "darwin" else 1024  # bytes on a Mac, KiB elsewhere
    return usage.ru_maxrss * unit / 2**30


@pytest.mark.slow
@pytest.mark.parametrize(
    ("n_views", "options"),
    [(1, []), (3, []), (3, ["--probabilities", "--keep-largest", "all", "--fill-holes"])],
    ids=["one run", "three runs", "three runs with all options"],
)
def test_a_volume_of_1000_slices_is_predicted_within_4_gib(
    large_ct: Path, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, n_views: int, options: list[str]
) -> None:
    def change(spec: dict[str, Any]) -> None:
        spec["img_size"] = 64

    runs = [forge_spec(run, tmp_path / f"{run.name}.ckpt", change) for run in three_views(tmp_path_factory)]
    used = peak_gib(tmp_path, *runs[:n_views], large_ct, "--output", "out/mask.nii.gz", *options)
    assert used < LIMIT_GIB
    mask = nib.load(tmp_path / "out" / "mask.nii.gz")
    assert (mask.shape, mask.get_data_dtype()) == (SHAPE, np.uint8)
    assert "predictions.csv" in file_names(tmp_path / "out")
