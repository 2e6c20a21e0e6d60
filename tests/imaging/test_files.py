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


def test_a_series_in_the_current_folder_is_named_after_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "patient7" / "series").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "patient7" / "series")
    assert [case_name(Path(path)) for path in (".", "..", "../series")] == ["series", "patient7", "series"]


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


# Unicode ------------------------------------------------------------------------------------------------------------

COMPOSED, DECOMPOSED = "caf\u00e9", "cafe\u0301"  # é as one code point, and e with a combining accent


def test_names_that_differ_only_in_unicode_form_are_rejected(tmp_path: Path) -> None:
    for name in (COMPOSED, DECOMPOSED):
        (tmp_path / f"{name}.nii.gz").touch()
    with pytest.raises(InputError, match=r"of its Unicode .*'cafe\\u0301\.nii\.gz' and 'caf\\xe9\.nii\.gz'; rename"):
        volumes_by_name(tmp_path)
