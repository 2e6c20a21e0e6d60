from pathlib import Path

import pytest

from spleen.errors import InputError
from spleen.pairing import case_name, find_volumes, pair_by_name


def touch(folder: Path, *names: str) -> list[Path]:
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        (folder / name).touch()
    return [folder / name for name in names]


@pytest.mark.parametrize(
    ("name", "case"),
    [("a.nii.gz", "a"), ("a.nii", "a"), ("scan.v2.nii.gz", "scan.v2"), (".nii.gz", ""), ("a.hdr", "a"), ("a.img", "a")],
)
def test_a_case_is_called_as_its_file_without_the_ending(name: str, case: str) -> None:
    assert case_name(Path("some.nii", name)) == case


# Inputs -------------------------------------------------------------------------------------------------------------


def test_a_folder_gives_its_volumes_in_order_and_nothing_else(tmp_path: Path) -> None:
    touch(tmp_path / "scans", "b.nii.gz", "a.nii", ".hidden.nii.gz", "notes.txt", "c.nii.gz.part", "._a.nii")
    touch(tmp_path / "scans" / "deeper", "d.nii.gz")
    (tmp_path / "scans" / "folder.nii").mkdir()
    assert [path.name for path in find_volumes([tmp_path / "scans"])] == ["a.nii", "b.nii.gz"]


def test_a_pattern_gives_its_volumes_in_order(tmp_path: Path) -> None:
    touch(tmp_path / "b", "scan.nii.gz", "scan.json")
    touch(tmp_path / "a", "scan.nii.gz")
    touch(tmp_path / "a" / "deep", "scan.nii")
    found = find_volumes([tmp_path / "*" / "scan*"])
    assert found == [tmp_path / "a" / "scan.nii.gz", tmp_path / "b" / "scan.nii.gz"]
    assert len(find_volumes([tmp_path / "**" / "scan.nii*"])) == 3
    assert find_volumes([tmp_path / "[b]" / "scan.ni?.gz"]) == [tmp_path / "b" / "scan.nii.gz"]


def test_inputs_stay_in_their_order_and_come_once(tmp_path: Path) -> None:
    a, b, c = touch(tmp_path, "a.nii.gz", "b.nii.gz", "c.nii.gz")
    assert find_volumes([c, tmp_path / "b*", tmp_path]) == [c, b, a]


def test_a_file_is_itself_even_where_its_name_looks_like_a_pattern(tmp_path: Path) -> None:
    odd, _ = touch(tmp_path, "scan[1].nii.gz", "scan1.nii.gz")
    assert find_volumes([odd]) == [odd]


def test_a_relative_pattern_is_looked_up_from_the_current_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    touch(tmp_path / "scans", "a.nii.gz")
    monkeypatch.chdir(tmp_path)
    assert find_volumes([Path("scans/*.nii.gz")]) == [Path("scans/a.nii.gz")]


@pytest.mark.parametrize(
    ("entry", "told"),
    [
        ("nowhere", r"nowhere: no such file or folder \(looked from "),
        ("*.mha", r"\*\.mha: no \.nii or \.nii\.gz file matches this pattern \(looked from "),
        ("empty", r"empty holds no \.nii or \.nii\.gz file"),
        ("twice", r"twice holds both a\.nii and a\.nii\.gz; which one is case 'a'\?"),
    ],
)
def test_an_input_that_names_nothing_is_told(tmp_path: Path, entry: str, told: str) -> None:
    touch(tmp_path, "x.mha")
    touch(tmp_path / "empty")
    touch(tmp_path / "twice", "a.nii", "a.nii.gz")
    with pytest.raises(InputError, match=told):
        find_volumes([tmp_path / entry])


# Pairs --------------------------------------------------------------------------------------------------------------


def test_two_folders_are_paired_by_name_whatever_the_ending(tmp_path: Path) -> None:
    a, b = touch(tmp_path / "images", "a.nii.gz", "b.nii")
    a_label, b_label = touch(tmp_path / "labels", "a.nii", "b.nii.gz")
    assert pair_by_name(tmp_path / "images", tmp_path / "labels") == {"a": (a, a_label), "b": (b, b_label)}


def test_two_files_are_a_pair_whatever_their_names(tmp_path: Path) -> None:
    first, second = touch(tmp_path, "scan.nii.gz", "organ.nii")
    assert pair_by_name(first, second) == {"scan": (first, second)}


def test_nnunets_channel_number_is_no_part_of_a_name(tmp_path: Path) -> None:
    images = touch(tmp_path / "images", "case1_0000.nii.gz", "case2_0000.nii.gz", "case_0000.nii.gz")
    labels = touch(tmp_path / "labels", "case1.nii.gz", "case2.nii.gz", "case_0000.nii.gz")
    expected = dict(zip(("case1", "case2", "case_0000"), zip(images, labels, strict=True), strict=True))
    assert pair_by_name(tmp_path / "images", tmp_path / "labels") == expected
    turned = pair_by_name(tmp_path / "labels", tmp_path / "images")
    assert turned == {name: (label, image) for name, (image, label) in expected.items()}


def test_files_without_a_partner_are_listed(tmp_path: Path) -> None:
    touch(tmp_path / "images", "a.nii.gz", "b.nii.gz", "c.nii.gz")
    touch(tmp_path / "labels", "b.nii.gz", "d.nii.gz")
    with pytest.raises(InputError) as raised:
        pair_by_name(tmp_path / "images", tmp_path / "labels")
    message = str(raised.value)
    assert message.startswith("3 file(s) have no partner of the same name")
    assert f"only in {tmp_path / 'images'}: a.nii.gz" in message
    assert f"only in {tmp_path / 'images'}: c.nii.gz" in message
    assert f"only in {tmp_path / 'labels'}: d.nii.gz" in message
    assert "b.nii.gz" not in message


def test_a_long_list_of_lonely_files_is_cut(tmp_path: Path) -> None:
    touch(tmp_path / "images", *(f"case{number:02d}.nii.gz" for number in range(25)))
    touch(tmp_path / "labels", "other.nii.gz")
    with pytest.raises(InputError, match=r"(?s)26 file\(s\).*case19\.nii\.gz\n  … and 6 more$"):
        pair_by_name(tmp_path / "images", tmp_path / "labels")


@pytest.mark.parametrize(
    ("first", "second", "told"),
    [
        ("images", "images/a.nii.gz", "give two files or two folders; .* are one of each"),
        ("images", "nowhere", "nowhere: no such file or folder"),
        ("nowhere", "images", "nowhere: no such file or folder"),
        ("images", "empty", "empty holds no"),
    ],
)
def test_what_cannot_be_paired_is_told(tmp_path: Path, first: str, second: str, told: str) -> None:
    touch(tmp_path / "images", "a.nii.gz")
    touch(tmp_path / "empty")
    with pytest.raises(InputError, match=told):
        pair_by_name(tmp_path / first, tmp_path / second)
