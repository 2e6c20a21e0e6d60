"""Pairs of images and labels by the names of their files."""

from pathlib import Path

import pytest

from spleen.data.pairing import pair_by_name, pair_images
from spleen.errors import InputError
from spleen.imaging.files import ImageFiles
from tests.imaging.test_files import COMPOSED, DECOMPOSED, touch


def test_an_image_beside_its_own_mask_is_not_scored_in_its_place(tmp_path: Path) -> None:
    """As after predicting a folder into itself: a_0000 is the image, a the mask."""
    masks = touch(tmp_path / "masks", "a.nii.gz", "a_0000.nii.gz")
    touch(tmp_path / "labels", "a.nii.gz")
    with pytest.raises(InputError, match=r"(?s)1 file.s. have no counterpart .*a_0000.nii.gz"):
        pair_by_name(tmp_path / "masks", tmp_path / "labels")
    masks[1].unlink()
    assert pair_by_name(tmp_path / "masks", tmp_path / "labels")["a"][0] == masks[0]


def test_images_in_several_files_are_paired_with_labels(tmp_path: Path) -> None:
    files = touch(tmp_path / "images", "a_0000.nii", "a_0001.nii", "b.nii.gz")
    a, b = touch(tmp_path / "labels", "a.nii.gz", "b.nii")
    expected = {"a": (ImageFiles("a", tuple(files[:2])), a), "b": (ImageFiles("b", (files[2],)), b)}
    assert pair_images(tmp_path / "images", tmp_path / "labels", 2) == expected
    assert pair_images(files[2], b, 2) == pair_images(files[2], b, 1) == {"b": expected["b"]}
    touch(tmp_path / "images", "b_0000.nii")
    with pytest.raises(InputError, match=r"images contains case 'b' twice"):
        pair_images(tmp_path / "images", tmp_path / "labels", 2)
    with pytest.raises(InputError, match=r"(?s)no counterpart.*only in .*images: a_0001\.nii"):
        pair_images(tmp_path / "images", tmp_path / "labels", 1)


def test_two_folders_are_paired_by_name_ignoring_the_extension(tmp_path: Path) -> None:
    a, b = touch(tmp_path / "images", "a.nii.gz", "b.nii")
    a_label, b_label = touch(tmp_path / "labels", "a.nii", "b.nii.gz")
    assert pair_by_name(tmp_path / "images", tmp_path / "labels") == {"a": (a, a_label), "b": (b, b_label)}


def test_two_files_are_paired_regardless_of_their_names(tmp_path: Path) -> None:
    first, second = touch(tmp_path, "scan.nii.gz", "organ.nii")
    assert pair_by_name(first, second) == {"scan": (first, second)}


def test_the_nnunet_channel_number_is_not_part_of_the_case_id(tmp_path: Path) -> None:
    images = touch(tmp_path / "images", "case1_0000.nii.gz", "case2_0000.nii.gz", "case_0000.nii.gz")
    labels = touch(tmp_path / "labels", "case1.nii.gz", "case2.nii.gz", "case_0000.nii.gz")
    expected = dict(zip(("case1", "case2", "case_0000"), zip(images, labels, strict=True), strict=True))
    assert pair_by_name(tmp_path / "images", tmp_path / "labels") == expected
    swapped = pair_by_name(tmp_path / "labels", tmp_path / "images")
    assert swapped == {name: (label, image) for name, (image, label) in expected.items()}


def test_unpaired_files_are_listed(tmp_path: Path) -> None:
    touch(tmp_path / "images", "a.nii.gz", "b.nii.gz", "c.nii.gz")
    touch(tmp_path / "labels", "b.nii.gz", "d.nii.gz")
    with pytest.raises(InputError) as raised:
        pair_by_name(tmp_path / "images", tmp_path / "labels")
    message = str(raised.value)
    assert message.startswith("3 file(s) have no counterpart with the same name")
    assert f"only in {tmp_path / 'images'}: a.nii.gz" in message
    assert f"only in {tmp_path / 'images'}: c.nii.gz" in message
    assert f"only in {tmp_path / 'labels'}: d.nii.gz" in message
    assert "b.nii.gz" not in message


def test_a_long_list_of_unpaired_files_is_truncated(tmp_path: Path) -> None:
    touch(tmp_path / "images", *(f"case{number:02d}.nii.gz" for number in range(25)))
    touch(tmp_path / "labels", "other.nii.gz")
    with pytest.raises(InputError, match=r"(?s)26 file\(s\).*case19\.nii\.gz\n  … and 6 more$"):
        pair_by_name(tmp_path / "images", tmp_path / "labels")


@pytest.mark.parametrize(
    ("first", "second", "message"),
    [
        ("images", "images/a.nii.gz", "expected two files or two folders; .* are one of each"),
        ("images", "nowhere", "nowhere: no such file or folder"),
        ("nowhere", "images", "nowhere: no such file or folder"),
        ("images", "empty", "empty contains no"),
    ],
)
def test_inputs_that_cannot_be_paired_are_reported(tmp_path: Path, first: str, second: str, message: str) -> None:
    touch(tmp_path / "images", "a.nii.gz")
    touch(tmp_path / "empty")
    with pytest.raises(InputError, match=message):
        pair_by_name(tmp_path / first, tmp_path / second)


def test_files_are_paired_across_unicode_forms(tmp_path: Path) -> None:
    """macOS may store é as two code points; Linux keeps the name as given."""
    for folder, name in (("images", COMPOSED), ("labels", DECOMPOSED)):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / f"{name}.nii.gz").touch()
    pairs = pair_by_name(tmp_path / "images", tmp_path / "labels")
    image, label = tmp_path / "images" / f"{COMPOSED}.nii.gz", tmp_path / "labels" / f"{DECOMPOSED}.nii.gz"
    assert pairs == {COMPOSED: (image, label)}
