"""Readers of DICOM results that know nothing of the package: highdicom, pydicom and dciodvfy."""

import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

import highdicom
import numpy as np
import pydicom
import pytest

from tests._helpers.small_run import SmallCt
from tests._helpers.trained_runs import scan, trained

TWO_CODED = ("data.label_values={spleen: [3, 4], left_kidney: 7}",)


def int16(ct: SmallCt) -> np.ndarray:
    """The voxels of the small CT as a scanner stores them."""
    return np.rint(ct.hu).clip(-1024).astype(np.int16)


def coded_run(factory: pytest.TempPathFactory) -> Path:
    """A run along the axial axis whose two classes, spleen and left_kidney, have codes."""
    return trained(factory, "coded", *TWO_CODED)


def ct_of(factory: pytest.TempPathFactory) -> SmallCt:
    """The CT that the run was trained on."""
    return scan(factory)


def sop_uids(files: Sequence[Path]) -> list[str]:
    """The SOP Instance UIDs of some files, in their order."""
    return [pydicom.dcmread(path, stop_before_pixels=True).SOPInstanceUID for path in files]


def class_indices(segmentation: Path, sources: Sequence[str]) -> np.ndarray:
    """The segment number of each pixel (column, row, source), 0 for none, on these instances in their order."""
    read = highdicom.seg.segread(segmentation)
    pixels = read.get_pixels_by_source_instance(
        sources, combine_segments=True, assert_missing_frames_are_empty=True, ignore_spatial_locations=True
    )
    return np.asarray(pixels).transpose(2, 1, 0)


def errors_of_dciodvfy(path: Path) -> list[str]:
    """What dciodvfy, of David Clunie's dicom3tools, calls an error; it ends with 0 whatever it finds."""
    program = shutil.which("dciodvfy")
    if program is None:
        pytest.skip("dciodvfy is not installed (Debian: dicom3tools)")
    done = subprocess.run([program, str(path)], capture_output=True, text=True)
    lines = (done.stdout + done.stderr).splitlines()
    assert any(line in ("Segmentation", "Comprehensive3DSR") for line in lines), lines  # it knows what it looks at
    return [line for line in lines if line.startswith("Error")]
