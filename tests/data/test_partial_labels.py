"""Cases in which only some classes are labelled, from their files to the batches."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from spleen.data.augmentation.crop import crop_batch
from spleen.data.cases import Case
from spleen.data.layouts.table import read_table
from spleen.data.loading.batches import CaseSlices, ScoredSlices, SliceTable, TrainingSlices
from spleen.data.loading.on_device import DeviceSlices
from spleen.data.partial_labels import check_labelled, mark_unlabelled, unlabelled_codes, with_mirrored
from spleen.data.store.entry import StoredCase
from spleen.data.store.store import open_case
from spleen.errors import InputError
from spleen.imaging.classes import ClassMap
from spleen.imaging.intensity import CtWindow
from spleen.imaging.preprocessing import Preprocessing
from tests._helpers.nifti import SHAPE, counting, ras_affine, save

NAMES = ("liver", "spleen", "kidney")
SETTINGS = Preprocessing(
    axis="axial",
    img_size="native",
    resize="keep_aspect",
    size_multiple=1,
    intensity=CtWindow(window_level=0.0, window_width=200.0),
    classes=ClassMap(NAMES, ((1,), (2,), (3,))),
    grid_tolerance_mm=0.1,
)


def opened(folder: Path, case_id: str, value: int, labelled: tuple[str, ...] | None) -> tuple[Case, StoredCase]:
    """A case with 2 × 2 voxels of this value in the second of its axial slices."""
    label = np.zeros(SHAPE, np.uint8)
    label[1:3, 2:4, 1] = value
    image = save(folder / f"{case_id}.nii.gz", (counting() - 60).astype(np.int16), ras_affine())
    case = Case(case_id, (image,), save(folder / f"{case_id}-seg.nii.gz", label, ras_affine()), labelled=labelled)
    return case, open_case(case, SETTINGS, folder / "cache", allow_empty_label=True)


def marked(folder: Path, *cases: tuple[str, int, tuple[str, ...] | None]) -> tuple[StoredCase, ...]:
    pairs = [opened(folder, *case) for case in cases]
    return mark_unlabelled([stored for _, stored in pairs], [case for case, _ in pairs], NAMES)


def test_background_has_a_code_for_each_set_of_unlabelled_classes(tmp_path: Path) -> None:
    cases = marked(
        tmp_path, ("a", 2, ("spleen",)), ("b", 1, None), ("c", 2, ("spleen", "liver")), ("d", 2, ("spleen",))
    )
    assert [case.unlabelled for case in cases] == [{1, 3}, set(), {3}, {1, 3}]
    codes = unlabelled_codes(cases)
    assert sorted(codes) == [253, 254]
    assert [codes.get(case.background_code) for case in cases] == [{1, 3}, None, {3}, {1, 3}]


def test_batches_have_the_code_in_the_loss_and_background_in_the_reference(tmp_path: Path) -> None:
    (case,) = marked(tmp_path, ("a", 2, ("spleen",)))
    index = np.arange(case.n_slices)
    expected = np.full((SHAPE[2], SHAPE[1], SHAPE[0]), 254)
    expected[1, 2:4, 1:3] = 2
    part = CaseSlices(case, index)
    training = TrainingSlices([part], context_slices=0)[index]
    (scored,) = ScoredSlices([part], context_slices=0, batch_size=len(index))
    for label in (training.label, scored.label):
        np.testing.assert_array_equal(label[:, 0], expected)
    np.testing.assert_array_equal(scored.reference, np.where(expected == 254, 0, expected))
    on_device = DeviceSlices(SliceTable((part,), 0), torch.device("cpu"))
    np.testing.assert_array_equal(on_device.labels, expected.ravel())


def test_a_window_around_foreground_is_not_one_around_the_code() -> None:
    label = torch.full((40, 1, 9, 9), 254, dtype=torch.uint8)
    label[:, :, 7, 6] = 3
    image = torch.zeros(40, 1, 9, 9)
    _, windows = crop_batch(image, label, 2, 1.0, torch.Generator().manual_seed(0), n_classes=3)
    assert (windows == 3).flatten(1).any(1).all()


def test_mirroring_exchanges_the_sides_of_unlabelled_classes_too() -> None:
    """Class 1 is the liver, 2 and 3 are left and right kidney: where only the left one is known, 3 is unlabelled."""
    codes, swapped = with_mirrored({254: frozenset({3}), 253: frozenset({1})}, (0, 1, 3, 2))
    assert codes == {254: {3}, 253: {1}, 252: {2}}
    assert swapped[:4] == (0, 1, 3, 2)
    assert (swapped[254], swapped[252], swapped[253], swapped[255]) == (252, 254, 253, 255)
    assert with_mirrored({}, (0, 2, 1)) == ({}, (0, 2, 1))
    assert with_mirrored({254: frozenset({1})}, ()) == ({254: frozenset({1})}, ())


def test_a_label_with_a_class_that_is_not_said_to_be_labelled_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"1 label\(s\) contain classes .*\n.*b: liver"):
        marked(tmp_path, ("a", 2, ("spleen",)), ("b", 1, ("spleen",)))


@pytest.mark.parametrize(
    ("labelled", "expected"),
    [
        ([("spleen",), ("tail",)], "case 'c1' is said to be labelled for 'tail', but the classes are liver, spleen"),
        ([None, ()], "case 'c1' is labelled for no class"),
        ([("spleen",), ("spleen", "kidney")], "'liver' is labelled in none of the 2 cases"),
    ],
)
def test_wrong_lists_of_labelled_classes_are_errors(labelled: list[tuple[str, ...] | None], expected: str) -> None:
    cases = [Case(f"c{number}", (), Path(), labelled=names) for number, names in enumerate(labelled)]
    with pytest.raises(InputError, match=expected):
        check_labelled(cases, NAMES)


def test_too_many_sets_for_a_byte_are_an_error(tmp_path: Path) -> None:
    """Each of 250 classes is the unlabelled one of some case."""
    names = tuple(f"organ{number}" for number in range(250))
    case, stored = opened(tmp_path, "a", 0, None)
    stored = replace(stored, volumes_mm3=(0.0,) * 250)
    cases = [replace(case, case_id=name, labelled=tuple(n for n in names if n != name)) for name in names]
    with pytest.raises(InputError, match="too many different sets"):
        mark_unlabelled([replace(stored, case_id=name) for name in names], cases, names)


def table(folder: Path, *lines: str) -> Path:
    for name in ("a", "b"):
        save(folder / f"{name}.nii.gz", counting(), ras_affine())
        save(folder / f"{name}-seg.nii.gz", counting(), ras_affine())
    path = folder / "cases.csv"
    path.write_text("\n".join(["image,label,labelled", *lines]))
    return path


def test_a_table_says_which_classes_each_case_labels(tmp_path: Path) -> None:
    path = table(tmp_path, "a.nii.gz,a-seg.nii.gz,spleen", "b.nii.gz,b-seg.nii.gz,liver; spleen;")
    assert [case.labelled for case in read_table(path).cases] == [("spleen",), ("liver", "spleen")]


def test_an_empty_cell_of_a_table_is_an_error_if_others_are_filled_in(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"1 line\(s\) do not say which classes are labelled while others do \(line 3"):
        read_table(table(tmp_path, "a.nii.gz,a-seg.nii.gz,spleen", "b.nii.gz,b-seg.nii.gz,"))
