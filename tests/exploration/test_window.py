"""The window through which slices are shown: what is read from the option, and what becomes black and white."""

import numpy as np
import pytest

from spleen.errors import InputError
from spleen.exploration.explore import explore
from spleen.exploration.report.views import display_range, middle_slices
from spleen.exploration.window import parse_window
from spleen.imaging.intensity import DisplayWindow
from tests._helpers.nifti import ras_affine, save
from tests._helpers.small_run import small_ct


@pytest.mark.parametrize(
    ("text", "window"),
    [
        ("lung", DisplayWindow(-600, 1500, "lung")),
        ("Brain", DisplayWindow(40, 80, "brain")),
        ("abdomen", DisplayWindow(50, 400, "abdomen")),
        ("bone", DisplayWindow(400, 1800, "bone")),
        ("40,400", DisplayWindow(40, 400)),
        ("-0.5, 2e3", DisplayWindow(-0.5, 2000)),
    ],
)
def test_presets_and_numbers_are_read(text: str, window: DisplayWindow):
    assert parse_window(text) == window


@pytest.mark.parametrize("text", ["liver", "", "40", "40,0", "40,-5", "nan,4", "1,inf", "1,2,3", "a,b"])
def test_anything_else_is_refused(text: str):
    with pytest.raises(InputError, match=r"--window must be abdomen, lung, bone, brain, or LEVEL,WIDTH"):
        parse_window(text)


def test_a_ct_is_shown_through_the_window(tmp_path):
    ct = small_ct(tmp_path)
    (case,) = explore(ct.image).cases
    (view, *_) = middle_slices(case, (), DisplayWindow(-600, 1500, "lung"))  # from -1350 to 150 HU
    plane = ct.hu[24].T  # the middle one of 48 sagittal slices, rows from inferior to superior
    np.testing.assert_allclose(view.image, np.clip((plane + 1350) / 1500, 0, 1), atol=1e-5)
    assert view.shown == "lung: level −600, width 1,500 HU"


def test_a_preset_is_not_for_mr_but_numbers_are(tmp_path):
    image = save(tmp_path / "mr.nii", np.arange(105.0).reshape(5, 7, 3), ras_affine())
    (case,) = explore(image).cases
    given, preset, default = (
        display_range(case, w) for w in (DisplayWindow(50, 40), DisplayWindow(-600, 1500, "lung"), None)
    )
    assert (given.low, given.high, given.words) == (30, 70, "level 50, width 40")
    assert (preset.low, preset.high) == (default.low, default.high)
    assert preset.words == f"no CT, so not the preset; {default.words}"
