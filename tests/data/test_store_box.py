"""Slice-store entries of a part of the volume: what is in the box, and what is counted beyond it."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from spleen.data.cases import Case
from spleen.data.loading.batches import CaseSlices, ScoredSlices
from spleen.data.store.entry import StoredCase
from spleen.data.store.store import open_case
from spleen.errors import InputError
from spleen.imaging.classes import ClassMap
from spleen.imaging.geometry import Box
from spleen.imaging.intensity import CtWindow, MrPercentiles
from spleen.imaging.preprocessing import Preprocessing
from tests._helpers.nifti import ras_affine, save_stored_as

SHAPE = (6, 7, 9)
BOX = Box((1, 2, 3), (5, 6, 7))
SETTINGS = Preprocessing(
    axis="axial",
    img_size="native",
    resize="keep_aspect",
    size_multiple=1,
    intensity=CtWindow(window_level=0.0, window_width=200.0),
    classes=ClassMap(("organ",), ((1,),)),
    grid_tolerance_mm=0.1,
    ignore_value=9,
)


def volumes() -> tuple[np.ndarray, np.ndarray]:
    """An image in RAS, and its label: 3 × 3 × 3 voxels of organ from (2, 3, 5), which reach k = 7 beyond the box."""
    hu = np.random.default_rng(0).integers(-90, 90, SHAPE).astype(np.int16)
    label = np.zeros(SHAPE, np.uint8)
    label[2:5, 3:6, 5:8] = 1
    label[5, 4, 3] = 1  # in a slice of the box, but beside the box
    label[0, 0, :] = 9
    return hu, label


@pytest.fixture
def case(tmp_path: Path) -> Case:
    hu, label = volumes()
    image = save_stored_as(tmp_path / "ct.nii.gz", "LPS", hu, ras_affine())
    return Case("a", (image,), save_stored_as(tmp_path / "seg.nii.gz", "PIR", label, ras_affine()), box=BOX)


@pytest.fixture
def stored(case: Case, tmp_path: Path) -> StoredCase:
    return open_case(case, SETTINGS, tmp_path / "cache")


def test_an_entry_shows_the_box_and_refers_to_the_whole_label(stored: StoredCase) -> None:
    hu, label = volumes()
    assert (stored.n_slices, stored.first_slice, stored.grid.native) == (4, 3, (4, 4))
    np.testing.assert_allclose(stored.images[:, 0], hu[1:5, 2:6, 3:7].transpose(2, 1, 0) / 100, atol=1e-3)
    np.testing.assert_array_equal(stored.labels[:], label[1:5, 2:6, 3:7].transpose(2, 1, 0) == 1)
    np.testing.assert_array_equal(stored.reference[:] == 1, label.transpose(2, 1, 0) == 1)
    assert stored.foreground.tolist() == [False, False, True, True]
    assert stored.volumes_mm3 == (pytest.approx(28 * 0.8 * 0.8 * 5),)  # all of the organ


def test_voxels_beyond_the_box_are_counted_slice_by_slice_without_ignored_ones(stored: StoredCase) -> None:
    """A slice has 42 voxels, of which one is ignored and 16 are in the box from k = 3 to 6."""
    expected = [[41, 0]] * 3 + [[25, 1], [25, 0], [25, 0], [25, 0]] + [[41, 9], [41, 0]]  # all, and of the organ
    assert stored.outside is not None
    assert stored.outside.tolist() == expected
    first, second = (stored.outside_of(np.array(part)) for part in ([0, 1], [2, 3]))
    assert first is not None
    assert second is not None
    # The slices before the box belong to its first slice, those behind it to its last.
    assert first.tolist() == [*expected[:5], *[[0, 0]] * 4]
    assert second.tolist() == [*[[0, 0]] * 5, *expected[5:]]


def test_scored_slices_have_the_reference_of_the_box(stored: StoredCase) -> None:
    _, label = volumes()
    (batch,) = ScoredSlices([CaseSlices(stored, np.array([1, 2, 3]))], context_slices=0, batch_size=8)
    np.testing.assert_array_equal(batch.reference.numpy(), label[1:5, 2:6, 4:7].transpose(2, 1, 0))


def test_a_box_makes_another_entry_and_none_that_of_before(case: Case, stored: StoredCase, tmp_path: Path) -> None:
    whole = open_case(replace(case, box=None), SETTINGS, tmp_path / "cache")
    other = open_case(replace(case, box=Box((1, 2, 3), (5, 6, 8))), SETTINGS, tmp_path / "cache")
    folders = {each.images.path.parent for each in (stored, whole, other)}
    assert len(folders) == 3
    assert (whole.outside, whole.outside_of(np.array([0]))) == (None, None)


def test_intensities_are_normalised_by_the_whole_image(case: Case, tmp_path: Path) -> None:
    settings = replace(SETTINGS, intensity=MrPercentiles(0.0, 100.0))
    hu, _ = volumes()
    inside = hu[1:5, 2:6, 3:7].transpose(2, 1, 0).astype(float)
    stored = open_case(case, settings, tmp_path / "cache")
    expected = 2 * (inside - hu.min()) / (hu.max() - hu.min()) - 1
    np.testing.assert_allclose(stored.images[:, 0], expected, atol=2e-3)


@pytest.mark.parametrize("box", [Box((0, 0, 0), (7, 7, 9)), Box((2, 2, 2), (2, 5, 5)), Box((-1, 0, 0), (3, 3, 3))])
def test_a_box_that_is_no_part_of_the_grid_is_refused(case: Case, tmp_path: Path, box: Box) -> None:
    with pytest.raises(InputError, match="is not part of a grid"):
        open_case(replace(case, box=box), SETTINGS, tmp_path / "cache")
