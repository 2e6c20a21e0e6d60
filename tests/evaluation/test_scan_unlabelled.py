"""A scan whose reference is labelled in part: the rest is hatched, and neither scored nor an error."""

from base64 import b64decode
from dataclasses import replace
from io import BytesIO
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from PIL import Image

from spleen.errors import InputError
from spleen.evaluation.scan.case import Scan, read_scan
from spleen.evaluation.scan.colours import class_colours, vertex_colours
from spleen.evaluation.scan.errors import worst_slices
from spleen.evaluation.scan.page import to_page
from spleen.evaluation.scan.pictures import slice_picture
from spleen.evaluation.scan.scores import scan_scores
from spleen.evaluation.scan.surface import labelled_distances, surface_meshes
from spleen.evaluation.scan.viewer import make_viewer
from tests._helpers.browser import opened
from tests._helpers.nifti import ras_affine, save
from tests.evaluation.test_ignored_voxels import write_dataset
from tests.evaluation.test_scan_page import SHAPE, SPACING_MM, ct, ready, state


def partly_labelled() -> Scan:
    """Of the scan with a box of 10 × 10 × 8 voxels as organ, the slices from 10 on are unlabelled.

    Labelled are 4 slices with 100 voxels of the organ; in slice 9 the prediction has 4 × 10 too many.
    """
    scan = ct()
    unlabelled = np.zeros(SHAPE, bool)
    unlabelled[:, :, 10:] = True
    assert scan.reference is not None
    reference = np.where(unlabelled, np.uint8(0), scan.reference)
    return replace(scan, reference=reference, unlabelled=unlabelled, unlabelled_value=255)


def test_scores_and_largest_errors_leave_unlabelled_voxels_out() -> None:
    scan = partly_labelled()
    (score,) = scan_scores(scan, 1.0)
    assert score.dice == pytest.approx(2 * 400 / (400 + 440))
    assert score.volume_prediction_mm3 == pytest.approx(440 * 20)
    assert scan.scored_prediction is not None
    assert scan.reference is not None
    worst = {each.axis: each for each in worst_slices(scan.scored_prediction, scan.reference, scan.affine)}
    assert (worst["axial"].index, worst["axial"].n_wrong) == (9, 40)
    assert worst["sagittal"].n_wrong == 10


def test_the_page_says_what_is_hatched_only_where_something_is() -> None:
    # 14 of 24 slices
    assert "Hatched: 58.3 % of the voxels are not labelled in the reference (value 255), and neither scored" in to_page(
        partly_labelled()
    )
    plain = make_viewer(ct())
    assert not plain.has_unlabelled
    assert plain.data["unlabelled"] is None
    assert "Hatched" not in " ".join(plain.notes)


def test_a_still_picture_is_hatched_where_nobody_has_labelled() -> None:
    """Of a black image with two slices, the patient's right is unlabelled in the first: the left of the picture."""
    image, unlabelled = np.zeros((40, 30, 2), np.float32), np.zeros((40, 30, 2), bool)
    unlabelled[20:, :, 0] = True
    masks = {"reference": np.zeros(image.shape, np.uint8)}
    affine = ras_affine((1.0, 1.0, 5.0))
    shown = [
        slice_picture(image, masks, affine, ("axial", k), (0.0, 1.0), class_colours(1, False), unlabelled=unlabelled)
        for k in (0, 1)
    ]
    hatched, plain = (np.asarray(Image.open(_file(each.png))) for each in shown)
    assert hatched.shape == (30, 40, 3)
    assert not hatched[:, 20:].any()
    assert hatched[:, :20].min() > 40
    assert {tuple(pixel) for pixel in hatched[:, :20].reshape(-1, 3).tolist()} == {(48, 50, 53), (217, 220, 225)}
    assert not plain.any()
    assert shown[0].alternative.endswith(", hatched where nobody has labelled")
    assert "hatched" not in shown[1].alternative


def _file(url: str) -> BytesIO:
    return BytesIO(b64decode(url.split(",")[1]))


@pytest.mark.slow
def test_the_viewer_hatches_every_plane_and_can_leave_that_off(tmp_path: Path) -> None:
    (tmp_path / "page.html").write_text(to_page(partly_labelled()))
    with opened(tmp_path / "page.html") as page:
        ready(page)
        assert page.locator(".colours").get_by_text("not labelled").is_visible()
        state(page)
        assert _striped(page, "axial") == 0  # slice 6 is labelled
        assert 0.05 < _striped(page, "coronal") < 0.5
        page.get_by_label("not labelled").uncheck()
        assert state(page)["shown"]["unlabelled"] is False
        assert _striped(page, "coronal") == 0
        page.get_by_label("not labelled").check()
        page.locator("[data-part=axial-slice]").fill("20")
        state(page)
        assert _striped(page, "axial") > 0.1
        assert _striped(page, "oblique") > 0.1


def _striped(page, name: str) -> float:
    """The fraction of pixels that are stripes of the veil; counted in the browser, which is faster."""
    counted = "pixels.filter((value, n) => n % 4 === 0 && value === 217 && pixels[n + 2] === 225).length"
    return page.evaluate(
        f"(() => {{ const pixels = viewer.pixels('{name}'); return {counted} * 4 / pixels.length; }})()"
    )


def test_a_surface_is_grey_where_the_reference_is_unlabelled() -> None:
    scan = partly_labelled()
    meshes = surface_meshes(scan.masks, scan.scored_classes, scan.affine, None)
    (prediction,) = (m for m in labelled_distances(meshes, scan.unlabelled, scan.affine) if m.mask == "prediction")
    assert prediction.distance_mm is not None
    slices = (prediction.vertices_mm[:, 2] - 100) / 5  # the origin of the scan is at 100 mm
    assert np.isnan(prediction.distance_mm[slices > 9.6]).all()
    assert not np.isnan(prediction.distance_mm[slices < 9.4]).any()
    colours = vertex_colours(prediction, "#ff0000", 10.0)
    assert (colours[slices > 9.6] == (138, 143, 152)).all()
    assert labelled_distances(meshes, None, scan.affine) == meshes


# Reading ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path]:
    """An image, and labelsTr/ct.nii.gz with a spleen (1) and unlabelled voxels (255) in slices 10 and above."""
    scan = ct()
    assert scan.reference is not None
    label = scan.reference.copy()
    label[:, :, 10:] = 255
    (tmp_path / "labelsTr").mkdir()
    image = save(tmp_path / "ct.nii.gz", scan.image, ras_affine(SPACING_MM))
    return image, save(tmp_path / "labelsTr" / "ct.nii.gz", label, ras_affine(SPACING_MM))


@pytest.mark.parametrize("told_by_dataset", [False, True])
def test_the_ignored_value_of_a_label_is_no_class(files: tuple[Path, Path], told_by_dataset: bool) -> None:
    if told_by_dataset:
        write_dataset(files[1].parent.parent, background=0, spleen=1, ignore=255)
    scan = read_scan(*files, ignore_value=None if told_by_dataset else 255)
    assert scan.classes == (("spleen",) if told_by_dataset else ("label 1",))
    assert scan.reference is not None
    assert scan.unlabelled is not None
    assert scan.unlabelled[:, :, 10:].all()
    assert not scan.unlabelled[:, :, :10].any()
    assert np.unique(scan.reference).tolist() == [0, 1]
    assert not scan.reference[:, :, 10:].any()
    assert scan.unlabelled_value == 255


def test_any_value_can_be_ignored(files: tuple[Path, Path]) -> None:
    image, label = files
    values = np.where(np.asarray(nib.load(label).dataobj) == 255, -100, 1).astype(np.int16)
    save(label, values, ras_affine(SPACING_MM))
    assert read_scan(image, label, ignore_value=-100).classes == ("label 1",)


def test_a_label_without_the_ignored_value_is_labelled_everywhere(files: tuple[Path, Path]) -> None:
    assert read_scan(*files, ignore_value=7).unlabelled is None


@pytest.mark.parametrize(("value", "words"), [(0, "the background"), (1, "the class spleen")])
def test_the_ignored_value_of_a_page_is_no_other_value(files: tuple[Path, Path], value: int, words: str) -> None:
    write_dataset(files[1].parent.parent, background=0, spleen=1)
    with pytest.raises(InputError, match=f"{value} cannot be ignored: it is {words}"):
        read_scan(*files, ignore_value=value)
