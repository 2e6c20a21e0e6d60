from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from spleen.errors import InputError
from spleen.imaging.files import (
    ImageFiles,
    case_name,
    find_volumes,
    group_channels,
    pair_by_name,
    pair_images,
    split_channel,
    volumes_by_name,
)


def touch(folder: Path, *names: str) -> list[Path]:
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        (folder / name).touch()
    return [folder / name for name in names]


@pytest.mark.parametrize(
    ("name", "case"),
    [("a.nii.gz", "a"), ("a.nii", "a"), ("scan.v2.nii.gz", "scan.v2"), (".nii.gz", ""), ("a.hdr", "a"), ("a.img", "a")],
)
def test_a_case_is_named_after_its_file_without_the_extension(name: str, case: str) -> None:
    assert case_name(Path("some.nii", name)) == case


# Inputs -------------------------------------------------------------------------------------------------------------


def test_a_folder_yields_only_its_volumes_sorted_by_name(tmp_path: Path) -> None:
    touch(tmp_path / "scans", "b.nii.gz", "a.nii", ".hidden.nii.gz", "notes.txt", "c.nii.gz.part", "._a.nii")
    touch(tmp_path / "scans" / "deeper", "d.nii.gz")
    (tmp_path / "scans" / "folder.nii").mkdir()
    assert [path.name for path in find_volumes([tmp_path / "scans"])] == ["a.nii", "b.nii.gz"]


def test_a_pattern_yields_its_volumes_sorted_by_path(tmp_path: Path) -> None:
    touch(tmp_path / "b", "scan.nii.gz", "scan.json")
    touch(tmp_path / "a", "scan.nii.gz")
    touch(tmp_path / "a" / "deep", "scan.nii")
    found = find_volumes([tmp_path / "*" / "scan*"])
    assert found == [tmp_path / "a" / "scan.nii.gz", tmp_path / "b" / "scan.nii.gz"]
    assert len(find_volumes([tmp_path / "**" / "scan.nii*"])) == 3
    assert find_volumes([tmp_path / "[b]" / "scan.ni?.gz"]) == [tmp_path / "b" / "scan.nii.gz"]


def test_inputs_keep_their_order_without_duplicates(tmp_path: Path) -> None:
    a, b, c = touch(tmp_path, "a.nii.gz", "b.nii.gz", "c.nii.gz")
    assert find_volumes([c, tmp_path / "b*", tmp_path]) == [c, b, a]


def test_an_existing_file_is_not_treated_as_a_pattern(tmp_path: Path) -> None:
    odd, _ = touch(tmp_path, "scan[1].nii.gz", "scan1.nii.gz")
    assert find_volumes([odd]) == [odd]


def test_a_relative_pattern_is_resolved_from_the_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    touch(tmp_path / "scans", "a.nii.gz")
    monkeypatch.chdir(tmp_path)
    assert find_volumes([Path("scans/*.nii.gz")]) == [Path("scans/a.nii.gz")]


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ("nowhere", r"nowhere: no such file or folder \(relative to "),
        ("*.mha", r"\*\.mha: no \.nii or \.nii\.gz file and no DICOM folder matches this pattern \(relative to "),
        ("empty", r"empty contains no \.nii or \.nii\.gz file"),
        ("twice", r"twice contains both a\.nii and a\.nii\.gz; keep one for case 'a'"),
    ],
)
def test_an_input_without_usable_volumes_is_reported(tmp_path: Path, entry: str, message: str) -> None:
    touch(tmp_path, "x.mha")
    touch(tmp_path / "empty")
    touch(tmp_path / "twice", "a.nii", "a.nii.gz")
    with pytest.raises(InputError, match=message):
        find_volumes([tmp_path / entry])


# Channels -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        ("case_0000", ("case", 0)), ("case_0012", ("case", 12)), ("a_b_0001_0002", ("a_b_0001", 2)), ("case", None),
        ("case_000", None), ("case_00000", None), ("case0000", None), ("_0000", None), ("case_००००", None),
    ],
)  # fmt: skip
def test_a_channel_number_is_four_trailing_digits(name: str, parts: tuple[str, int] | None) -> None:
    assert split_channel(name) == parts


def grouped(files: list[Path], n_channels: int) -> list[tuple[str, list[str]]]:
    return [(image.case_id, [path.name for path in image.paths]) for image in group_channels(files, n_channels)]


def test_numbered_files_of_a_folder_are_grouped_into_one_multichannel_image(tmp_path: Path) -> None:
    files = touch(tmp_path / "x", "b_0001.nii.gz", "c.nii.gz", "b_0000.nii.gz", "a_0000.nii", "a_0001.nii.gz")
    files += touch(tmp_path / "y", "b_0000.nii.gz")
    assert grouped(files, 2) == [
        ("b", ["b_0000.nii.gz", "b_0001.nii.gz"]),
        ("c", ["c.nii.gz"]),
        ("a", ["a_0000.nii", "a_0001.nii.gz"]),
        ("b", ["b_0000.nii.gz"]),
    ]


def test_multichannel_files_are_not_grouped_even_if_numbered(tmp_path: Path) -> None:
    files = [tmp_path / f"patient_{number:04d}.nii" for number in range(3)]
    for path in files:
        nib.save(nib.Nifti1Image(np.zeros((2, 3, 4, 2), np.uint8), np.eye(4)), path)
    assert grouped(files, 2) == [(f"patient_{number:04d}", [path.name]) for number, path in enumerate(files)]
    assert grouped(files[:1], 2) == [("patient", [files[0].name])]
    nib.save(nib.Nifti1Image(np.zeros((2, 3, 4, 1), np.uint8), np.eye(4)), files[0])
    assert grouped(files, 2) == [("patient", [path.name for path in files])]


def test_with_one_channel_every_file_is_an_image_and_the_suffix_0000_is_dropped(tmp_path: Path) -> None:
    files = touch(tmp_path, "a_0000.nii.gz", "b_0000.nii", "c_0001.nii", "d.nii")
    assert grouped(files, 1) == [
        ("a", ["a_0000.nii.gz"]), ("b", ["b_0000.nii"]), ("c_0001", ["c_0001.nii"]), ("d", ["d.nii"]),
    ]  # fmt: skip


@pytest.mark.parametrize("other", ["a.nii", "a_0001.nii", "a_0007.nii"])
def test_the_suffix_0000_is_kept_where_it_distinguishes_two_cases(tmp_path: Path, other: str) -> None:
    files = touch(tmp_path, "a_0000.nii", other)
    assert grouped(files, 1) == [(name.removesuffix(".nii"), [name]) for name in ("a_0000.nii", other)]
    elsewhere = touch(tmp_path / "deeper", "a_0000.nii")
    assert grouped([*files, *elsewhere], 1)[2] == ("a", ["a_0000.nii"])


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["a_0000.nii", "a_0002.nii"], "has the channels 0000, 0002, but the run was trained on 2: a_0000 to a_0001"),
        (["a_0001.nii", "a_0002.nii"], "has the channels 0001, 0002"),
        (["a_0000.nii", "a_0001.nii", "a_0002.nii"], "has the channels 0000, 0001, 0002"),
        (["a_0000.nii", "a_0000.nii.gz"], "has the channels 0000, 0000"),
    ],
)
def test_missing_or_extra_channels_are_reported(tmp_path: Path, names: list[str], message: str) -> None:
    (image,) = group_channels(touch(tmp_path, *names), 2)
    with pytest.raises(InputError, match=f"{tmp_path}/{names[0]}: the image 'a' {message}"):
        image.check_channels(2)


def test_the_files_of_a_list_are_channels_in_its_order_whatever_their_names(tmp_path: Path) -> None:
    image = ImageFiles("a", tuple(touch(tmp_path, "b_t1.nii", "b_flair.nii")))
    image.check_channels(2)
    with pytest.raises(InputError, match=r"the image 'a' has 2 files .b_t1, b_flair., but the run was trained on 3"):
        image.check_channels(3)


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


# Pairs --------------------------------------------------------------------------------------------------------------


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


# Unicode ------------------------------------------------------------------------------------------------------------

COMPOSED, DECOMPOSED = "caf\u00e9", "cafe\u0301"  # é as one code point, and e with a combining accent


def test_names_that_differ_only_in_unicode_form_are_rejected(tmp_path: Path) -> None:
    for name in (COMPOSED, DECOMPOSED):
        (tmp_path / f"{name}.nii.gz").touch()
    with pytest.raises(InputError, match=r"of its Unicode .*'cafe\\u0301\.nii\.gz' and 'caf\\xe9\.nii\.gz'; rename"):
        volumes_by_name(tmp_path)


def test_files_are_paired_across_unicode_forms(tmp_path: Path) -> None:
    """macOS may store é as two code points; Linux keeps the name as given."""
    for folder, name in (("images", COMPOSED), ("labels", DECOMPOSED)):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / f"{name}.nii.gz").touch()
    pairs = pair_by_name(tmp_path / "images", tmp_path / "labels")
    image, label = tmp_path / "images" / f"{COMPOSED}.nii.gz", tmp_path / "labels" / f"{DECOMPOSED}.nii.gz"
    assert pairs == {COMPOSED: (image, label)}
