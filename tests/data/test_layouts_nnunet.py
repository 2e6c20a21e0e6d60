"""nnU-Net v2 raw datasets."""

from pathlib import Path

import pytest

from spleen.data.cases import Case
from spleen.data.layouts.dataset import Dataset
from spleen.data.layouts.nnunet import read_nnunet
from spleen.errors import InputError
from tests.data.test_layouts import touch, write_json

LABELS = {"background": 0, "spleen": 1}


def make_nnunet(root: Path, *files: str, **changes: object) -> Path:
    content = {"channel_names": {"0": "CT"}, "labels": LABELS, "file_ending": ".nii.gz"} | changes
    write_json(root, {key: value for key, value in content.items() if value is not None})
    for folder in ("imagesTr", "labelsTr"):
        (root / folder).mkdir(exist_ok=True)
    touch(root, *files)
    return root


ONE_CASE = ("imagesTr/a_0000.nii.gz", "labelsTr/a.nii.gz")


def test_cases_are_found_by_file_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    more = ("imagesTr/._a_0000.nii.gz", "imagesTr/a.json", "labelsTr/notes.txt", "imagesTs/x_0000.nii.gz")
    make_nnunet(tmp_path / "D", *ONE_CASE, "imagesTr/B_1_0000.nii.gz", "labelsTr/B_1.nii.gz", *more)
    monkeypatch.chdir(tmp_path)
    root = tmp_path / "D"
    expected = tuple(
        Case(case_id=name, images=(root / f"imagesTr/{name}_0000.nii.gz",), label=root / "labelsTr" / f"{name}.nii.gz")
        for name in ("B_1", "a")
    )
    assert read_nnunet(Path("D")) == Dataset(expected, {"spleen": (1,)}, ("CT",), "ct", frozenset({1}))


def test_channels_become_images_in_order_of_their_numbers(tmp_path: Path) -> None:
    files = [f"imagesTr/p_{number}.nii" for number in ("0002", "0000", "0001")]
    channel_names = {"0": "T2", "1": "ADC", "2": "DWI"}
    root = make_nnunet(tmp_path, *files, "labelsTr/p.nii", channel_names=channel_names, file_ending=".nii")
    dataset = read_nnunet(root)
    assert [path.name for path in dataset.cases[0].images] == ["p_0000.nii", "p_0001.nii", "p_0002.nii"]
    assert (dataset.channels, dataset.modality) == (("T2", "ADC", "DWI"), "mr")


def test_all_mismatched_files_are_listed_in_one_message(tmp_path: Path) -> None:
    files = ["a_0000", "a_0001", "b_0001", "c_0000", "c_0001", "c_0002", "d", "e_0000", "f_0000", "f_0001"]
    labels = ["a", "b", "c", "d", "f"]
    root = make_nnunet(
        tmp_path,
        *(f"imagesTr/{name}.nii.gz" for name in files),
        *(f"labelsTr/{name}.nii.gz" for name in labels),
        channel_names={"0": "T1", "1": "T2"},
    )
    with pytest.raises(InputError) as raised:
        read_nnunet(root)
    first, *lines = str(raised.value).splitlines()
    assert first.startswith(f"{tmp_path}: every labelsTr/CASE.nii.gz needs one image per channel (T1, T2)")
    assert "6 file(s) are missing or surplus" in first
    assert lines == [
        "  no imagesTr/b_0000.nii.gz for labelsTr/b.nii.gz",
        "  no imagesTr/d_0000.nii.gz for labelsTr/d.nii.gz",
        "  no imagesTr/d_0001.nii.gz for labelsTr/d.nii.gz",
        "  imagesTr/c_0002.nii.gz: dataset.json names 2 channel(s), so there is no 0002",
        "  imagesTr/d.nii.gz: no channel number such as _0000 at the end",
        "  imagesTr/e_0000.nii.gz: no labelsTr/e.nii.gz",
    ]


def test_files_with_another_extension_are_ignored(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="contains no cases"):
        read_nnunet(make_nnunet(tmp_path, *ONE_CASE, file_ending=".nii"))


def test_missing_folders_are_reported(tmp_path: Path) -> None:
    root = make_nnunet(tmp_path, "imagesTr/a_0000.nii.gz")
    (root / "labelsTr").rmdir()
    with pytest.raises(InputError, match="labelsTr: no such folder"):
        read_nnunet(root)
    (root / "labelsTr").touch()
    with pytest.raises(InputError, match="labelsTr: no such folder"):
        read_nnunet(root)


# Explicit file lists --------------------------------------------------------------------------------------------------


def test_listed_files_may_be_outside_the_dataset_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    touch(tmp_path, "elsewhere/scan.nii.gz", "D/own/organ.nii.gz", "D/x.nii.gz", "by_name/y.nii.gz")
    monkeypatch.setenv("SCANS_OF_TEST", str(tmp_path / "by_name"))
    dataset = {
        "p2": {"images": [str(tmp_path / "elsewhere/scan.nii.gz")], "label": "own/organ.nii.gz"},
        "p1": {"images": ["x.nii.gz"], "label": "$SCANS_OF_TEST/y.nii.gz"},
    }
    root = make_nnunet(tmp_path / "D", dataset=dataset)
    assert read_nnunet(root).cases == (
        Case(case_id="p1", images=(root / "x.nii.gz",), label=tmp_path / "by_name" / "y.nii.gz"),
        Case(case_id="p2", images=(tmp_path / "elsewhere" / "scan.nii.gz",), label=root / "own" / "organ.nii.gz"),
    )


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"images": ["x.nii.gz", "y.nii.gz"], "label": "z.nii.gz"}, r"case 'p' must have 1 image\(s\)"),
        ({"images": "x.nii.gz", "label": "z.nii.gz"}, r"case 'p' must have 1 image\(s\)"),
        ({"images": ["x.nii.gz"]}, "case 'p' must be a file path; got None"),
        (["x.nii.gz", "z.nii.gz"], r"case 'p' must have 1 image\(s\)"),
        ({"images": ["x.nii.gz"], "label": "z.nii.gz"}, r"1 file\(s\) .* do not exist:\n.*/z\.nii\.gz"),
        ({"images": ["x.nii.gz"], "label": "x.nii.gz"}, "x.nii.gz is used twice"),
    ],
)
def test_an_invalid_list_entry_is_reported(tmp_path: Path, entry: object, message: str) -> None:
    with pytest.raises(InputError, match=message):
        read_nnunet(make_nnunet(tmp_path, "x.nii.gz", dataset={"p": entry}))


# Classes ----------------------------------------------------------------------------------------------------------


def test_a_list_of_label_values_is_merged_into_one_class(tmp_path: Path) -> None:
    labels = {"spleen": 9, "background": 0, "kidneys": [3, 2], "liver": [1]}
    dataset = read_nnunet(make_nnunet(tmp_path, *ONE_CASE, labels=labels))
    assert list((dataset.label_values or {}).items()) == [("liver", (1,)), ("kidneys", (2, 3)), ("spleen", (9,))]


REGIONS = {"background": 0, "whole": [1, 2, 3], "core": [2, 3], "enhancing": 3, "cyst": 4}


def test_overlapping_regions_are_read_with_the_order_of_their_values(tmp_path: Path) -> None:
    dataset = read_nnunet(make_nnunet(tmp_path, *ONE_CASE, labels=REGIONS, regions_class_order=[1, 2, 3, 4]))
    assert list((dataset.label_values or {}).items()) == [
        ("whole", (1, 2, 3)), ("core", (2, 3)), ("enhancing", (3,)), ("cyst", (4,))
    ]  # fmt: skip
    assert dataset.regions_class_order == (1, 2, 3, 4)
    assert dataset.known_values == {1, 2, 3, 4}


def test_an_order_without_overlap_means_merged_classes_as_before(tmp_path: Path) -> None:
    labels = {"background": 0, "kidneys": [2, 3], "liver": 1}
    dataset = read_nnunet(make_nnunet(tmp_path, *ONE_CASE, labels=labels, regions_class_order=[2, 1]))
    assert dataset.label_values == {"liver": (1,), "kidneys": (2, 3)}
    assert dataset.regions_class_order is None


@pytest.mark.parametrize("order", [[1, 2], [1, 1, 3, 4], [1, 2, 4, 3], [1, 2, 3, "four"], "1, 2, 3, 4"])
def test_a_wrong_order_of_regions_is_an_error(tmp_path: Path, order: object) -> None:
    with pytest.raises(InputError, match="regions_class_order"):
        read_nnunet(make_nnunet(tmp_path, *ONE_CASE, labels=REGIONS, regions_class_order=order))


def test_overlapping_regions_without_an_order_are_rejected_with_suggested_settings(tmp_path: Path) -> None:
    root = make_nnunet(tmp_path, *ONE_CASE, labels=REGIONS)
    with pytest.raises(InputError) as raised:
        read_nnunet(root)
    message = str(raised.value)
    assert "'whole', 'core', 'enhancing' overlap (they share the values 2, 3)" in message
    assert '"regions_class_order": [1, 2, 3, 4]' in message
    assert "'data.label_values={class_1: 1, class_2: 2, class_3: 3, class_4: 4}'" in message
    assert read_nnunet(root, classes_from_file=False).label_values is None


@pytest.mark.parametrize("classes_from_file", [True, False])
def test_an_ignore_label_is_no_class(tmp_path: Path, classes_from_file: bool) -> None:
    dataset = read_nnunet(make_nnunet(tmp_path, *ONE_CASE, labels=LABELS | {"ignore": 2}), classes_from_file)
    assert dataset.ignore_value == 2
    assert dataset.known_values == {1}
    assert dataset.label_values == ({"spleen": (1,)} if classes_from_file else None)


@pytest.mark.parametrize("entry", [0, [2, 3], "two"])
def test_an_ignore_label_that_is_not_one_value_is_rejected(tmp_path: Path, entry: object) -> None:
    with pytest.raises(InputError, match="ignore"):
        read_nnunet(make_nnunet(tmp_path, *ONE_CASE, labels=LABELS | {"ignore": entry}))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"labels": None}, "must map class names to values"),
        ({"labels": ["background", "spleen"]}, "must map class names to values"),
        ({"labels": {"0": "background", "1": "spleen"}}, "to integers, .* got '0': 'background'"),
        ({"labels": LABELS | {"liver": 1.5}}, "to integers, .* got 'liver': 1.5"),
        ({"labels": LABELS | {"liver": True}}, "to integers"),
        ({"labels": LABELS | {"liver": []}}, "to integers"),
        ({"labels": LABELS | {"liver": [0, 2]}}, "'liver' includes 0, which is the background"),
        ({"labels": {"background": 1, "spleen": 2}}, "the background must be 0; got 1"),
        ({"labels": {"background": 0}}, "no class besides the background"),
        ({"labels": LABELS | {"n_cases": 2}}, "'n_cases' is not allowed as a class name"),
        ({"labels": LABELS | {"organ": 1}}, "'spleen', 'organ' overlap"),
        ({"channel_names": None}, '"channel_names" in .* must name the channels by number'),
        ({"channel_names": ["CT"]}, '"channel_names" in .* must name the channels by number'),
        ({"file_ending": ".mha"}, r'must be "\.nii\.gz" or "\.nii"; got \'\.mha\'.*convert'),
        ({"file_ending": None}, "got None"),
        ({"dataset": []}, '"dataset" in .* must be of the form'),
        ({"dataset": {}}, "contains no cases"),
        ({"channel_names": None, "training": []}, "read it with data=decathlon"),
    ],
)
def test_an_invalid_dataset_json_is_reported(tmp_path: Path, changes: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        read_nnunet(make_nnunet(tmp_path, *ONE_CASE, **changes))
