"""Slice-store entries of labels with ignored voxels."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from spleen.data.cases import Case
from spleen.data.loading.batches import CaseSlices, ScoredSlices, TrainingSlices, native_reference
from spleen.data.store.store import open_case
from spleen.errors import InputError
from spleen.imaging.classes import ClassMap
from spleen.imaging.intensity import CtWindow
from spleen.imaging.labels import IGNORED
from spleen.imaging.preprocessing import Preprocessing
from tests._helpers.nifti import SHAPE, box, counting, ras_affine, save

SETTINGS = Preprocessing(
    axis="axial",
    img_size=7,
    resize="keep_aspect",
    size_multiple=4,
    intensity=CtWindow(window_level=0.0, window_width=200.0),
    classes=ClassMap(("organ",), ((1,),)),
    grid_tolerance_mm=0.1,
    ignore_value=-1,
)


@pytest.fixture
def case(tmp_path: Path) -> Case:
    """Of the axial slices the first has no label; in the second, a row of 5 voxels has none; the third has an organ."""
    label = np.zeros(SHAPE, np.int16)
    label[:, :, 0], label[:, 4, 1] = -1, -1
    label[1:3, 2:4, 2] = 1
    label[3:5, 2, 1] = 1
    image = save(tmp_path / "ct.nii.gz", counting().astype(np.int16), ras_affine())
    return Case("a", (image,), save(tmp_path / "seg.nii.gz", label, ras_affine()))


def test_few_intensities_beside_a_negative_ignored_value_are_not_taken_for_a_label(case: Case, tmp_path: Path) -> None:
    assert open_case(case, SETTINGS, tmp_path / "cache").n_slices == SHAPE[2]
    with pytest.raises(InputError, match="swapped"):
        open_case(case, replace(SETTINGS, ignore_value=None), tmp_path / "cache")


def test_an_entry_knows_its_ignored_voxels(case: Case, tmp_path: Path) -> None:
    stored = open_case(case, SETTINGS, tmp_path / "cache")
    i, j, k = SHAPE
    voxel_mm3 = stored.voxel_volume_mm3
    assert stored.ignored_slices == (0,)
    assert stored.labelled_slices == tuple(range(1, k))
    assert stored.ignored_volume_mm3 == pytest.approx((i * j + i) * voxel_mm3)
    assert stored.volumes_mm3 == (pytest.approx(6 * voxel_mm3),)
    assert stored.foreground.tolist() == [False, *(number in (1, 2) for number in range(1, k))]
    assert stored.other_values == ()
    reference = stored.reference[:]
    assert np.count_nonzero(reference == IGNORED) == i * j + i
    assert (reference[1, 4] == IGNORED).all()


def test_batches_hold_the_ignored_voxels(case: Case, tmp_path: Path) -> None:
    stored = open_case(case, SETTINGS, tmp_path / "cache")
    part = CaseSlices(stored, np.array(stored.labelled_slices))
    (first, *_) = ScoredSlices([part], context_slices=0, batch_size=1)
    assert set(first.reference.unique().tolist()) == {0, 1, IGNORED}
    label = TrainingSlices([part], context_slices=0)[np.array([0])].label
    assert set(label.unique().tolist()) == {0, 1, IGNORED}


def test_the_ignored_index_is_damage_in_a_case_without_ignored_voxels(case: Case, tmp_path: Path) -> None:
    stored = open_case(case, SETTINGS, tmp_path / "cache")
    with pytest.raises(InputError, match="class index 255"):
        native_reference(replace(stored, ignored_volume_mm3=0.0), np.arange(1))


def test_another_ignored_value_is_another_entry_and_none_is_the_entry_of_before(case: Case, tmp_path: Path) -> None:
    label = np.zeros(SHAPE, np.uint8)
    label[1:3, 2:4, 2] = 1
    label[:, :, 0] = 7
    case = replace(case, label=save(tmp_path / "seg7.nii.gz", label, ras_affine()))
    entries = {value: _entry(case, value, tmp_path) for value in (7, 8, None)}
    assert len(set(entries.values())) == 3
    facts = {value: json.loads((entry / "entry.json").read_text()) for value, entry in entries.items()}
    assert set(facts[7]) - set(facts[None]) == {"ignored_slices", "ignored_volume_mm3"}
    assert facts[None]["other_values"] == facts[8]["other_values"] == [7]


def test_without_an_ignored_value_the_entry_has_the_name_that_it_had_before_there_was_one(tmp_path: Path) -> None:
    image = save(tmp_path / "ct.nii", (counting() - 60).astype(np.int16), ras_affine())
    case = Case("a", (image,), save(tmp_path / "seg.nii", box(), ras_affine()))
    assert _entry(case, None, tmp_path).name == "99e4f46233fe79903dd4f13356e9ad47"  # as written by version 0.1


def _entry(case: Case, ignore_value: int | None, folder: Path) -> Path:
    return open_case(case, replace(SETTINGS, ignore_value=ignore_value), folder / "cache").reference.path.parent
