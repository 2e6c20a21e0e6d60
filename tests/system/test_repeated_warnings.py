"""The same warning about many files is logged as one line."""

import logging
from contextlib import suppress
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from spleen.imaging.nifti import read_image
from spleen.system.repeated_warnings import folded_warnings

NAME = "spleen.imaging.nifti"


def test_the_same_warning_about_two_images_is_one_line(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for name, unit in (("a", "meter"), ("b", "meter"), ("c", "micron")):
        nifti = nib.Nifti1Image(np.zeros((5, 7, 3), np.int16), np.diag([0.8, 0.8, 5.0, 1.0]))
        nifti.header.set_xyzt_units(unit)
        nib.save(nifti, tmp_path / f"{name}.nii")
    with caplog.at_level(logging.WARNING), folded_warnings(NAME):
        for name in "abc":
            read_image(tmp_path / f"{name}.nii")
        assert caplog.messages == []
    assert caplog.messages == [
        f"{tmp_path / 'a.nii'}: the header's unit of length is meter; converting to mm "
        f"(the same in 1 more: {tmp_path / 'b.nii'})",
        f"{tmp_path / 'c.nii'}: the header's unit of length is micron; converting to mm",
    ]
    read_image(tmp_path / "a.nii")  # logged immediately again
    assert len(caplog.messages) == 3


def test_warnings_before_an_error_are_not_lost(caplog: pytest.LogCaptureFixture) -> None:
    with suppress(ValueError), folded_warnings(NAME):
        logging.getLogger(NAME).warning("%s: doubtful", "a.nii")
        raise ValueError
    assert caplog.messages == ["a.nii: doubtful"]
