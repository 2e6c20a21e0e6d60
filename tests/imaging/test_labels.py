import numpy as np
import pytest

from spleen.errors import InputError
from spleen.imaging.classes import ClassMap, parse_label_values
from spleen.imaging.labels import resolve, to_class_indices
from tests._helpers.nifti import SHAPE


def _label(**voxels_of_value):
    """A label map with the given number of voxels of each value: v3=5 means five voxels of 3."""
    label = np.zeros(SHAPE, dtype=np.int32)
    values = [int(name[1:]) for name, count in voxels_of_value.items() for _ in range(count)]
    label.flat[: len(values)] = values
    return label


def _counts(label, label_values):
    indices = to_class_indices(label, resolve(label, parse_label_values(label_values, "spleen")))
    assert indices.dtype == np.uint8
    return np.bincount(indices.ravel()).tolist()


def test_all_listed_values_form_the_organ():
    assert _counts(_label(v1=4, v2=3, v117=2), [1, 117]) == [99, 6]


def test_a_mapping_defines_classes_in_its_own_order():
    classes = parse_label_values({"right": [2, 5], "left": 1}, "kidney")
    assert classes == ClassMap(("right", "left"), ((2, 5), (1,)))
    label = _label(v1=4, v2=3, v3=1, v5=2)
    indices = to_class_indices(label, classes)
    np.testing.assert_array_equal(indices == 1, (label == 2) | (label == 5))
    np.testing.assert_array_equal(indices == 2, label == 1)


@pytest.mark.parametrize("value", [1, 7, 300])
def test_without_label_values_the_only_value_in_the_file_is_the_organ(value):
    assert _counts(_label(**{f"v{value}": 6}), None) == [99, 6]


def test_without_label_values_several_values_in_the_file_are_rejected():
    with pytest.raises(
        InputError, match=r"contains the values 3, 7, so it is unclear which one.*data\.label_values=\[3\]"
    ):
        _counts(_label(v3=1, v7=2), None)


@pytest.mark.parametrize("label_values", [None, [1], {"left": 1, "right": 2}])
def test_an_empty_label_is_rejected(label_values):
    with pytest.raises(InputError, match="the label is empty"):
        _counts(_label(), label_values)


def test_a_value_missing_from_the_file_is_rejected_with_the_values_present():
    with pytest.raises(InputError, match=r"no voxels with 9 .*it contains 3, 7"):
        _counts(_label(v3=1, v7=2), [9])


def test_one_absent_class_of_several_only_logs_a_warning(caplog):
    assert _counts(_label(v1=4), {"left": 1, "right": 2}) == [101, 4]
    assert "no voxel of the label belongs to the class 'right' (values [2])" in caplog.text


@pytest.mark.parametrize(
    "label_values",
    [[], [0], [1, 1], [1.5], ["1"], [True], {}, {"a": []}, {"a": 1, "b": 1}, {"a": 0}, "1", 1],
    ids=str,
)
def test_invalid_values_are_rejected_with_the_allowed_form(label_values):
    with pytest.raises(InputError, match=r"must be a list of non-zero integers such as \[1\]"):
        parse_label_values(label_values, "spleen")


@pytest.mark.parametrize("name", ["dice", "background", ""])
def test_a_reserved_class_name_is_rejected(name):
    with pytest.raises(InputError, match="is not allowed as a class name"):
        parse_label_values({name: 1}, "spleen")
