"""The page of `spleen explore` for a single case holds the viewer of scans."""

import numpy as np
import pytest

from spleen.exploration.explore import explore
from spleen.exploration.report.page import to_page
from tests._helpers.browser import opened
from tests._helpers.nifti import box, ras_affine, save

SHAPE = (20, 18, 12)


@pytest.mark.parametrize("with_label", [True, False])
def test_a_single_case_can_be_moved_through_even_with_voxels_that_are_no_numbers(tmp_path, with_label) -> None:
    image = np.random.default_rng(0).normal(40, 10, SHAPE).astype(np.float32)
    image[:4] = -1000
    image[10, 10, 5], image[11, 10, 5], image[12, 10, 5] = np.nan, np.inf, -np.inf
    save(tmp_path / "ct.nii.gz", image, ras_affine())
    save(tmp_path / "label.nii.gz", box(SHAPE, (6, 6, 2), (12, 12, 8), value=3), ras_affine())
    labels = tmp_path / "label.nii.gz" if with_label else ()
    (tmp_path / "page.html").write_text(to_page(explore(tmp_path / "ct.nii.gz", labels)))
    with opened(tmp_path / "page.html") as page:
        page.wait_for_selector(".viewer[data-ready]")
        page.locator("[data-part=axial-slice]").fill("3")
        page.evaluate("new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))")
        assert page.evaluate("viewer.state.native[2]") == 3
        assert page.locator("[data-part=show-reference]").count() == with_label


def test_an_image_without_a_number_has_no_viewer(tmp_path) -> None:
    save(tmp_path / "ct.nii.gz", np.full(SHAPE, np.nan, np.float32), ras_affine())
    assert 'class="viewer"' not in to_page(explore(tmp_path / "ct.nii.gz"))
