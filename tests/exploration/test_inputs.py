"""Pairing images with labels."""

import math

import pytest

from spleen.errors import InputError
from spleen.exploration.explore import explore
from spleen.exploration.inputs import find_cases


def touch(folder, *names):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()


def pairs(cases, folder):
    return [(case.case_id, *(str(path.relative_to(folder)) for path in (case.image, case.label))) for case in cases]


def test_a_single_image_and_label_are_paired_whatever_their_names(tmp_path):
    touch(tmp_path, "a.nii.gz", "b.nii")
    cases = find_cases([tmp_path / "a.nii.gz"], [tmp_path / "b.nii"])
    assert pairs(cases, tmp_path) == [("a", "a.nii.gz", "b.nii")]


def test_the_only_image_and_label_of_two_folders_are_paired_whatever_their_names(tmp_path):
    touch(tmp_path, "images/ct.nii.gz", "labels/spleen.nii.gz")
    cases = find_cases([tmp_path / "images"], [tmp_path / "labels"])
    assert pairs(cases, tmp_path) == [("images", "images/ct.nii.gz", "labels/spleen.nii.gz")]
    touch(tmp_path, "imagesTr/c1_0000.nii.gz", "labelsTr/c1.nii.gz")
    cases = find_cases([tmp_path / "imagesTr"], [tmp_path / "labelsTr"])
    assert pairs(cases, tmp_path) == [("c1", "imagesTr/c1_0000.nii.gz", "labelsTr/c1.nii.gz")]


def test_folders_are_paired_by_name_without_the_nnunet_channel_suffix(tmp_path):
    touch(tmp_path, "imagesTr/c2_0000.nii.gz", "imagesTr/c1_0000.nii.gz", "labelsTr/c1.nii.gz", "labelsTr/c2.nii.gz")
    cases = find_cases([tmp_path / "imagesTr"], [tmp_path / "labelsTr"])
    assert pairs(cases, tmp_path) == [
        ("c1", "imagesTr/c1_0000.nii.gz", "labelsTr/c1.nii.gz"),
        ("c2", "imagesTr/c2_0000.nii.gz", "labelsTr/c2.nii.gz"),
    ]


def test_patterns_are_paired_by_name(tmp_path):
    touch(tmp_path, "i/c1_0000.nii.gz", "i/c2_0000.nii.gz", "l/c2.nii", "l/c1.nii")
    cases = find_cases([tmp_path / "i" / "*.nii.gz"], [tmp_path / "l" / "*.nii"])
    assert [(case.image.name, case.label.name) for case in cases] == [
        ("c1_0000.nii.gz", "c1.nii"),
        ("c2_0000.nii.gz", "c2.nii"),
    ]


def test_files_with_the_same_name_are_paired_by_folder(tmp_path):
    touch(tmp_path, "p1/image.nii.gz", "p1/label.nii.gz", "p2/image.nii.gz", "p2/label.nii.gz")
    cases = find_cases([tmp_path / "*" / "image.nii.gz"], [tmp_path / "*" / "label.nii.gz"])
    assert pairs(cases, tmp_path) == [
        ("p1", "p1/image.nii.gz", "p1/label.nii.gz"),
        ("p2", "p2/image.nii.gz", "p2/label.nii.gz"),
    ]


def test_unpaired_files_are_listed(tmp_path):
    touch(tmp_path, "i/c1.nii", "i/c2.nii", "l/c1.nii", "l/c3.nii")
    with pytest.raises(InputError, match=r"(?s)image without label: .*c2\.nii.*label without image: .*c3\.nii"):
        find_cases([tmp_path / "i" / "*.nii"], [tmp_path / "l" / "*.nii"])
    with pytest.raises(InputError, match=r"(?s)2 file\(s\) have no counterpart.*c2\.nii.*c3\.nii"):
        find_cases([tmp_path / "i"], [tmp_path / "l"])


def test_a_missing_path_an_empty_folder_and_no_path_are_rejected(tmp_path):
    (tmp_path / "empty").mkdir()
    for images in ([tmp_path / "gone.nii"], [tmp_path / "empty"], [tmp_path / "*.nii"], []):
        with pytest.raises(InputError):
            find_cases(images, [])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"organ": (3, 0)}, "organ must be label values other than 0, the background; got 3, 0"),
        ({"above": math.nan}, "above must be a finite number in the units of the image; got nan"),
        ({"above": math.inf}, "above must be a finite number .*; got inf"),
    ],
    ids=str,
)
def test_an_organ_of_background_and_a_value_that_is_no_number_are_rejected(tmp_path, settings, message):
    touch(tmp_path, "a.nii.gz")
    with pytest.raises(InputError, match=message):
        explore(tmp_path / "a.nii.gz", **settings)
