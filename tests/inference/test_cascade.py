"""Prediction in the box that a coarse network finds, with networks whose output is known voxel by voxel."""

import logging
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from spleen.imaging.classes import ClassMap
from spleen.imaging.geometry import Box
from spleen.imaging.native import NativeImage, read_native
from spleen.inference.ensemble import find_organ, predict_volume
from spleen.inference.views.view import View
from spleen.models.spec import RoiSettings
from tests._helpers.handmade import Pointwise, model, nothing, probability, view
from tests._helpers.nifti import save

SHAPE = (16, 9, 12)
SPACING_MM = (1.0, 2.0, 4.0)
# The coarse network finds intensities above 0.5, the second one those above 0.
COARSE = Pointwise([40.0], [-20.0])
FINE = Pointwise([4.0], [0.0])


def intensities() -> np.ndarray:
    """Everywhere 0.25, so that the second network finds organ everywhere; a bright block and a bright speck."""
    array = np.full(SHAPE, 0.25)
    array[4:8, 3:6, 5:8] = 0.75  # 36 voxels
    array[6, 4, 6] = -0.5
    array[15, 8, 11] = 0.75  # a speck
    return array


def in_the_box() -> np.ndarray:
    """The block with a margin of 4 mm: 4, 2 and 1 voxels."""
    inside = np.zeros(SHAPE, bool)
    inside[0:12, 1:8, 4:9] = True
    return inside


@pytest.fixture
def image(tmp_path: Path) -> NativeImage:
    return read_native(save(tmp_path / "ct.nii", intensities().astype(np.float32), np.diag([*SPACING_MM, 1.0])))


def cascade(axis: str = "axial", margin_mm: float = 4.0, classes: tuple[str, ...] = (), weight: float = 1.0) -> View:
    trained = model(FINE, axis, "native")
    roi = RoiSettings("coarse", margin_mm, classes)
    coarse = view(COARSE, "coronal", "native")
    spec = replace(trained.spec, roi=roi)
    return replace(
        view(FINE, axis, "native", weight), model=replace(trained, spec=spec, coarse=coarse.model), coarse=coarse
    )


@pytest.mark.parametrize("axis", ["axial", "coronal", "sagittal"])
def test_the_mask_lies_in_the_box_and_on_the_whole_grid(image: NativeImage, axis: str) -> None:
    done: list[int] = []
    found = predict_volume([cascade(axis)], image, "ct", 4, True, done.append)
    np.testing.assert_array_equal(found.mask, in_the_box() & (intensities() > 0))
    expected = np.where(in_the_box(), probability(intensities(), 4.0), 0)
    assert found.probabilities is not None
    np.testing.assert_allclose(found.probabilities[0], expected, atol=1e-5)
    n_fine = SHAPE[["sagittal", "coronal", "axial"].index(axis)]
    assert sum(done) == n_fine + SHAPE[1]  # the coarse network looks at coronal slices


def test_a_cascade_is_averaged_with_a_view_of_the_whole_volume(image: NativeImage) -> None:
    """Beyond the box the cascade's vote is background."""
    views = [cascade(weight=0.25), cascade("sagittal", weight=0.25), view(FINE, "coronal", "native", 0.5)]
    found = predict_volume(views, image, "ct", 4, True, nothing)
    whole = probability(intensities(), 4.0)
    assert found.probabilities is not None
    np.testing.assert_allclose(found.probabilities[0], np.where(in_the_box(), whole, 0.5 * whole), atol=1e-5)


def test_views_of_one_coarse_network_look_for_the_organ_once(image: NativeImage) -> None:
    done: list[int] = []
    predict_volume([cascade(weight=0.5), cascade("sagittal", 20.0, weight=0.5)], image, "ct", 4, False, done.append)
    assert sum(done) == SHAPE[2] + SHAPE[0] + SHAPE[1]


def test_the_organ_is_found_without_specks_but_with_its_like(image: NativeImage) -> None:
    coarse = view(COARSE, "coronal", "native")
    assert find_organ(coarse, (), image, "ct", 4, nothing) == Box((4, 3, 5), (8, 6, 8))
    image.channels[0][14, 0, 0:4] = 0.75  # 4 voxels of a second organ: more than a tenth of 35
    assert find_organ(coarse, (), image, "ct", 4, nothing) == Box((4, 0, 0), (15, 6, 8))


def test_the_box_may_be_that_of_some_classes(image: NativeImage) -> None:
    """The second class is where the intensity is below -0.25."""
    coarse = replace(
        view(COARSE, "coronal", "native"),
        model=model(Pointwise([40.0, -40.0], [-20.0, -10.0]), "coronal", "native", ("bright", "dark")),
    )
    assert find_organ(coarse, ("dark",), image, "ct", 4, nothing) == Box((6, 4, 6), (7, 5, 7))
    assert find_organ(coarse, (), image, "ct", 4, nothing) == Box((4, 3, 5), (8, 6, 8))


def test_each_class_has_specks_of_its_own(image: NativeImage) -> None:
    """Two dark voxels are few beside the bright block, but not beside the one dark voxel in it."""
    coarse = replace(
        view(COARSE, "coronal", "native"),
        model=model(Pointwise([40.0, -40.0], [-20.0, -10.0]), "coronal", "native", ("bright", "dark")),
    )
    image.channels[0][12:14, 0, 0] = -0.5
    assert find_organ(coarse, (), image, "ct", 4, nothing) == Box((4, 0, 0), (14, 6, 8))


def test_the_box_of_a_region_is_around_what_covers_it_too(image: NativeImage) -> None:
    """A whole tumour with intensities above 0.4 whose core, above 0.5, lies at its side."""
    image.channels[0][:] = 0.25
    image.channels[0][4:7, 3:6, 5:8], image.channels[0][7:10, 3:6, 5:8] = 0.45, 0.75
    trained = model(Pointwise([40.0, 40.0], [-16.0, -20.0]), "coronal", "native", ("whole", "core"))
    classes = ClassMap(("whole", "core"), ((1, 2), (2,)))
    spec = replace(trained.spec, preprocessing=replace(trained.preprocessing, classes=classes))
    coarse = replace(view(COARSE, "coronal", "native"), model=replace(trained, spec=spec))
    assert find_organ(coarse, ("whole",), image, "ct", 4, nothing) == Box((4, 3, 5), (10, 6, 8))
    assert find_organ(coarse, ("core",), image, "ct", 4, nothing) == Box((7, 3, 5), (10, 6, 8))


def test_where_the_coarse_network_finds_nothing_the_whole_volume_is_predicted_with_a_warning(
    image: NativeImage, caplog: pytest.LogCaptureFixture
) -> None:
    image.channels[0][image.channels[0] > 0.5] = 0.25
    with caplog.at_level(logging.WARNING):
        found = predict_volume([cascade()], image, "ct", 4, False, nothing)
    np.testing.assert_array_equal(found.mask, image.channels[0] > 0)
    assert "ct: the coarse run of axial finds nothing, so the whole volume is predicted" in caplog.text
