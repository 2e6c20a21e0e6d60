"""Paired image and label folders, and cases and groups from a table."""

from pathlib import Path

import pytest

from spleen.data.cases import Case
from spleen.data.layouts.dataset import Dataset
from spleen.data.layouts.folder import pair_folders
from spleen.data.layouts.table import read_groups, read_table
from spleen.errors import InputError
from tests.data.test_layouts import touch


def folders(root: Path, images: str, labels: str) -> tuple[Path, Path]:
    """Two folders of empty files, named in two space-separated lists."""
    for folder, names in (("images", images), ("labels", labels)):
        (root / folder).mkdir(parents=True)
        touch(root / folder, *names.split())
    return root / "images", root / "labels"


# Folders --------------------------------------------------------------------------------------------------------------


def test_files_are_paired_by_name_ignoring_the_extension(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    images, labels = folders(tmp_path, "b.nii a.nii.gz ._a.nii.gz notes.txt", "a.nii b.nii.gz")
    monkeypatch.chdir(tmp_path)
    expected = (
        Case(case_id="a", images=(images / "a.nii.gz",), label=labels / "a.nii"),
        Case(case_id="b", images=(images / "b.nii",), label=labels / "b.nii.gz"),
    )
    assert pair_folders(Path("images"), Path("labels")) == Dataset(expected, None, (), None)


def test_files_with_channel_numbers_are_grouped_into_one_case(tmp_path: Path) -> None:
    images, labels = folders(tmp_path, "p_0001.nii.gz p_0000.nii.gz q_0000.nii.gz q_0001.nii.gz", "q.nii.gz p.nii.gz")
    dataset = pair_folders(images, labels)
    assert [case.case_id for case in dataset.cases] == ["p", "q"]
    assert dataset.cases[0].images == (images / "p_0000.nii.gz", images / "p_0001.nii.gz")
    assert dataset.cases[0].label == labels / "p.nii.gz"


def test_a_channel_number_shared_with_the_label_is_part_of_the_case_id(tmp_path: Path) -> None:
    images, labels = folders(tmp_path, "p_0000.nii p_0001.nii", "p_0000.nii p_0001.nii")
    assert [case.case_id for case in pair_folders(images, labels).cases] == ["p_0000", "p_0001"]


def test_unpaired_files_are_listed(tmp_path: Path) -> None:
    images, labels = folders(tmp_path, "a.nii b.nii c_0001.nii", "b.nii d.nii")
    with pytest.raises(InputError) as raised:
        pair_folders(images, labels)
    first, *lines = str(raised.value).splitlines()
    assert first.startswith("3 file(s) in ")
    assert lines == ["  images/a.nii has no label", "  images/c_0001.nii has no label", "  labels/d.nii has no image"]


def test_missing_channels_are_listed(tmp_path: Path) -> None:
    images, labels = folders(tmp_path, "a_0000.nii a_0001.nii b_0000.nii c_0001.nii d.nii", "a.nii b.nii c.nii d.nii")
    with pytest.raises(InputError) as raised:
        pair_folders(images, labels)
    assert "; 3 are missing:" in str(raised.value)
    assert str(raised.value).splitlines()[1:] == ["  no b_0001", "  no c_0000", "  no d_0001"]


@pytest.mark.parametrize(
    ("images", "labels", "message"),
    [
        ("a.nii a_0000.nii", "a.nii", "a.nii and a_0000.nii are both channel 0 of case 'a'"),
        ("a.nii a.nii.gz", "a.nii", "contains both a.nii and a.nii.gz"),
        ("a.mha", "a.nii", "images contains no .nii or .nii.gz file"),
        ("a_2019.nii", "a.nii", "no a_0000"),
    ],
)
def test_files_that_cannot_be_paired_are_reported(tmp_path: Path, images: str, labels: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        pair_folders(*folders(tmp_path, images, labels))


def test_both_folders_must_exist_and_differ(tmp_path: Path) -> None:
    images, _ = folders(tmp_path, "a.nii", "a.nii")
    with pytest.raises(InputError, match="nowhere: no such folder"):
        pair_folders(images, tmp_path / "nowhere")
    with pytest.raises(InputError, match=r"a\.nii: no such folder"):
        pair_folders(images / "a.nii", images)
    with pytest.raises(InputError, match="are the same folder"):
        pair_folders(images, tmp_path / "labels" / ".." / "images")


# Table ----------------------------------------------------------------------------------------------------------------


def table(root: Path, *lines: str, encoding: str = "utf-8", end: str = "\n") -> Path:
    root.mkdir(parents=True, exist_ok=True)
    (root / "cases.csv").write_bytes((end.join(lines) + end).encode(encoding))
    return root / "cases.csv"


def test_a_table_defines_cases_and_groups(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    touch(tmp_path, "t/i/b.nii.gz", "t/l/b.nii.gz", "t/a.nii", "far/a.nii.gz")
    table(
        tmp_path / "t", "group,image,age,label,case_id", "p1,i/b.nii.gz,70,l/b.nii.gz,", "p2,a.nii,,../far/a.nii.gz,z"
    )
    monkeypatch.chdir(tmp_path)
    root = tmp_path / "t"
    expected = (
        Case(case_id="b", images=(root / "i" / "b.nii.gz",), label=root / "l" / "b.nii.gz", group="p1"),
        Case(case_id="z", images=(root / "a.nii",), label=root / ".." / "far" / "a.nii.gz", group="p2"),
    )
    assert read_table(Path("t/cases.csv")) == Dataset(expected, None, (), None)


def test_semicolons_separate_channels(tmp_path: Path) -> None:
    touch(tmp_path, "a_0000.nii", "a_0001.nii", "b_t1.nii", "b_t2.nii", "la.nii", "lb.nii")
    path = table(tmp_path, "image,label", "a_0000.nii; a_0001.nii,la.nii", "b_t1.nii;b_t2.nii,lb.nii")
    cases = read_table(path).cases
    assert [case.case_id for case in cases] == ["a", "b_t1"]
    assert cases[0].images == (tmp_path / "a_0000.nii", tmp_path / "a_0001.nii")


@pytest.mark.parametrize(
    ("image", "label", "case_id"),
    [
        ("p1/image.nii.gz", "p1/label.nii.gz", "p1"),
        ("scan.v2.nii.gz", "other.nii", "scan.v2"),
        ("a_0000.nii", "labels/a.nii", "a"),
        ("a_0000.nii", "labels/other.nii", "a_0000"),
        ("a_0001.nii", "labels/a.nii", "a_0001"),
    ],
)
def test_a_case_is_named_after_its_image(tmp_path: Path, image: str, label: str, case_id: str) -> None:
    touch(tmp_path, image, label)
    assert read_table(table(tmp_path, "image,label", f"{image},{label}")).cases[0].case_id == case_id


def test_a_table_saved_by_excel_is_read(tmp_path: Path) -> None:
    touch(tmp_path, "a, b.nii", "ä.nii")
    path = table(tmp_path, "Image,Label,", '"a, b.nii",ä.nii,', ",,", "", encoding="utf-8-sig", end="\r\n")
    (case,) = read_table(path).cases
    assert (case.case_id, case.label, case.group) == ("a, b", tmp_path / "ä.nii", None)


def test_missing_files_are_reported_with_their_line_numbers(tmp_path: Path) -> None:
    touch(tmp_path, "a.nii", "b.nii")
    path = table(tmp_path, "image,label", "a.nii,b.nii", "", "c.nii,d.nii")
    with pytest.raises(InputError) as raised:
        read_table(path)
    assert str(raised.value).splitlines() == [
        f"2 file(s) listed in {path} do not exist:",
        f"  line 4: {tmp_path / 'c.nii'}",
        f"  line 4: {tmp_path / 'd.nii'}",
    ]


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["image,segmentation", "a.nii,b.nii"], "has no column label; it has image, segmentation$"),
        (["scan,mask"], "has no column image and no label; it has scan, mask$"),
        (["image;label;group"], "it has image;label;group; it seems to use semicolons or tabs as separators"),
        (["image,label,image"], "has the column image more than once"),
        (["image,label"], "contains no cases, only the header"),
        ([""], "is empty; it must be a CSV file with the columns image, label"),
        (["image,label", "a.nii,"], "line 2: label must not be empty"),
        (["image,label", "a.nii"], "line 2: label must not be empty"),
        (["image,label", "a.nii,b.nii", "x,y.nii,z.nii"], "line 3 has 3 cells, the header 2"),
        (["image,label", "a.nii;;c.nii,b.nii"], "line 2, image must be a file path; got ''"),
        (["image,label", '"a.nii,b.nii'], "line 2: .*is there an unclosed quote"),
        (
            ["image,label", "a.nii,b.nii", "x/a.nii,x/b.nii"],
            r"1 case\(s\) appear more than once.*\n  'a' on lines 2, 3",
        ),
        (["image,label,case_id", "a.nii,b.nii,x/y"], "'x/y' contains a slash"),
        (["image,label,group", "a.nii,b.nii,p1", "c.nii,d.nii,"], r"1 line\(s\) have no group .*\(line 3\)"),
        (["image,label", "a.nii,b.nii", "c.nii,b.nii"], "b.nii is used twice, for case 'a' and case 'c'"),
        (["image,label", "a.nii,b.nii", "c.nii;d.nii,x/b.nii"], r"case 'a' has 1 image\(s\), case 'c' has 2"),
    ],
)
def test_an_invalid_table_is_reported(tmp_path: Path, lines: list[str], message: str) -> None:
    touch(tmp_path, "a.nii", "b.nii", "c.nii", "d.nii", "x/a.nii", "x/b.nii")
    with pytest.raises(InputError, match=message):
        read_table(table(tmp_path, *lines))


def test_an_unreadable_table_is_reported(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"cases\.csv cannot be read: No such file"):
        read_table(tmp_path / "cases.csv")
    with pytest.raises(InputError, match="cannot be read: Is a directory"):
        read_table(tmp_path)
    with pytest.raises(InputError, match="is not UTF-8 text"):
        read_table(table(tmp_path, "image,label", "ä.nii,ö.nii", encoding="utf-16"))


# Groups ---------------------------------------------------------------------------------------------------------------


def test_groups_are_read(tmp_path: Path) -> None:
    path = table(tmp_path, "group,case_id,site", "p1,a,x", "p2, b ,y", "p1,c,")
    assert read_groups(path) == {"a": "p1", "b": "p2", "c": "p1"}


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["case_id,patient", "a,p1"], "has no column group; it has case_id, patient"),
        (["case_id,group", "a,p1", "b,"], "line 3: group must not be empty"),
        (["case_id,group", "a,p1", "b,p1", "a,p2"], "'a' on lines 2, 4"),
    ],
)
def test_invalid_groups_are_reported(tmp_path: Path, lines: list[str], message: str) -> None:
    with pytest.raises(InputError, match=message):
        read_groups(table(tmp_path, *lines))
