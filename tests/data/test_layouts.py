"""Checks shared by all dataset layouts, and the Decathlon layout."""

import json
import logging
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from spleen.data.cases import Case
from spleen.data.layouts.dataset import Dataset, make_dataset, missing_files, modality_of
from spleen.data.layouts.dataset_json import read_json
from spleen.data.layouts.decathlon import read_decathlon
from spleen.errors import InputError
from tests.conftest import SHARED_DATA


def touch(folder: Path, *names: str) -> list[Path]:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    return [folder / name for name in names]


def write_json(folder: Path, content: object) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "dataset.json").write_text(json.dumps(content))


def case(name: str, images: int = 1) -> Case:
    paths = tuple(Path(f"/images/{name}_{number:04d}.nii.gz") for number in range(images))
    return Case(case_id=name, images=paths, label=Path(f"/labels/{name}.nii.gz"))


# Modality -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("names", [["CT"], ["ct"], [" Ct "], ["CT", "CT"]])
def test_ct_is_recognised_by_its_name(names: list[str]) -> None:
    assert modality_of(names) == "ct"


# Names used by the ten Decathlon tasks and the BraTS challenges.
@pytest.mark.parametrize(
    "names",
    [
        ["MRI"],
        ["mr"],
        ["FLAIR", "T1w", "t1gd", "T2w"],
        ["T2", "ADC"],
        ["t1n", "t1c", "t2w", "t2f"],
        ["T1ce"],
        ["T2-FLAIR"],
        ["T1_post contrast"],
        ["cine MR"],
        ["DWI b1000"],
        ["PDw"],
    ],
)
def test_mr_is_recognised_by_the_names_of_its_contrasts(names: list[str]) -> None:
    assert modality_of(names) == "mr"


@pytest.mark.parametrize(
    "names", [[], ["PET"], ["CT", "PET"], ["CT", "MRI"], ["T1", "noNorm"], ["CTA"], ["T10"], ["CT/MR"], ["dt1"], [""]]
)
def test_other_names_and_mixed_modalities_give_no_modality(names: list[str]) -> None:
    assert modality_of(names) is None


# Every dataset --------------------------------------------------------------------------------------------------------


def test_cases_are_sorted_by_id_and_classes_by_value() -> None:
    dataset = make_dataset(Path("source"), [case("b"), case("a"), case("B")], {"late": [7], "early": [5, 2]}, ("PET",))
    assert [one.case_id for one in dataset.cases] == ["B", "a", "b"]  # ids that differ only in case are distinct
    assert list((dataset.label_values or {}).items()) == [("early", (2, 5)), ("late", (7,))]
    assert (dataset.channels, dataset.modality) == (("PET",), None)


def test_one_file_may_hold_all_channels() -> None:
    assert make_dataset(Path("source"), [case("a")], channels=("T1", "T2")).modality == "mr"
    assert len(make_dataset(Path("source"), [case("a", images=2)], channels=("T1", "T2")).cases[0].images) == 2
    with pytest.raises(InputError, match="source names 3 channels, but its cases have 2 images each"):
        make_dataset(Path("source"), [case("a", images=2)], channels=("T1", "T2", "ADC"))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("", "is empty"),
        ("a/b", "contains a slash"),
        ("a\\b", "contains a slash, a backslash"),
        ("a\nb", "control character"),
        ("a\ud800", "an invalid character"),
        (".a", "starts with a dot"),
        ("..", "starts with a dot"),
        ("a ", "ends with a space"),
        ("é" * 101, "longer than 200 bytes"),
    ],
)
def test_a_case_id_must_be_usable_as_a_file_name(name: str, message: str) -> None:
    one = Case(case_id=name, images=(Path("/images/a.nii.gz"),), label=Path("/labels/a.nii.gz"))
    with pytest.raises(InputError, match=message):
        make_dataset(Path("source"), [one])


def test_a_case_id_may_be_long_and_non_ascii() -> None:
    name = "é" * 100  # 200 bytes
    one = Case(case_id=name, images=(Path("/images/a.nii.gz"),), label=Path("/labels/a.nii.gz"))
    assert make_dataset(Path("source"), [one]).cases[0].case_id == name


def _case(name: str, image: str, label: str) -> Case:
    return Case(case_id=name, images=(Path(image),), label=Path(label))


@pytest.mark.parametrize(
    ("cases", "message"),
    [
        ([], "source contains no cases"),
        ([_case("a", "/x.nii", "/y.nii"), _case("a", "/v.nii", "/w.nii")], r"case 'a' twice.*\n  /x.nii\n  /v.nii"),
        ([_case("a", "/x.nii", "/y.nii"), _case("b", "/x.nii", "/w.nii")], "/x.nii is used twice.*'a' and case 'b'"),
        ([_case("a", "/x.nii", "/y.nii"), _case("b", "/v.nii", "/y.nii")], "/y.nii is used twice"),
        ([_case("a", "/x.nii", "/x.nii")], "/x.nii is used twice, for case 'a' and case 'a'"),
        (
            [_case("a", "/x.mha", "/y.nii")],
            "case 'a': x.mha is neither a .nii or .nii.gz file nor a DICOM series; convert it",
        ),
        ([case("a"), case("b", images=2)], r"case 'a' has 1 image\(s\), case 'b' has 2"),
    ],
)
def test_an_invalid_set_of_cases_is_rejected(cases: list[Case], message: str) -> None:
    with pytest.raises(InputError, match=message):
        make_dataset(Path("source"), cases)


def test_a_reserved_class_name_is_rejected_with_its_file() -> None:
    with pytest.raises(InputError, match=r'"labels" of source: \'dice\' is not allowed .* data\.label_values='):
        make_dataset(Path("source"), [case("a")], {"dice": [1]})


def test_missing_files_include_folders_and_dead_links(tmp_path: Path) -> None:
    existing, _ = touch(tmp_path, "a/x.nii", "a/y.nii/z")
    (tmp_path / "a" / "link.nii").symlink_to("x.nii")
    (tmp_path / "a" / "dead.nii").symlink_to("nowhere")
    missing = [tmp_path / "a" / "y.nii", tmp_path / "a" / "dead.nii", tmp_path / "b" / "x.nii", existing / "x.nii"]
    missing += [tmp_path / "a" / ("x" * 300 + ".nii"), tmp_path / ("b" * 300) / "x.nii"]
    assert missing_files([existing, *missing, tmp_path / "a" / "link.nii"]) == missing


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b'{"a": 1,', "is not valid JSON"),
        (b'{"a": [{"left": 1, "left": 2}]}', 'duplicate key "left"'),
        (b"\xff\xfe\x00", "is not valid JSON: 'utf-8'"),
        (b"[" * 100_000, "is not valid JSON"),
    ],
)
def test_invalid_or_ambiguous_json_is_rejected(tmp_path: Path, text: bytes, message: str) -> None:
    (tmp_path / "a.json").write_bytes(text)
    with pytest.raises(InputError, match=message):
        read_json(tmp_path / "a.json")


# Decathlon ------------------------------------------------------------------------------------------------------------


def decathlon(*names: str, **changes: object) -> dict[str, object]:
    training = [{"image": f"./imagesTr/{name}.nii.gz", "label": f"./labelsTr/{name}.nii.gz"} for name in names]
    labels = {"0": "background", "1": "Anterior", "2": "Posterior"}
    content = {"modality": {"0": "MRI"}, "labels": labels, "numTraining": len(names), "training": training, "test": []}
    return content | changes


def make_decathlon(root: Path, *names: str, **changes: object) -> Path:
    write_json(root, decathlon(*names, **changes))
    touch(root, *(f"{folder}/{name}.nii.gz" for name in names for folder in ("imagesTr", "labelsTr")))
    return root


def test_a_decathlon_dataset_contains_the_cases_listed_in_dataset_json(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_decathlon(tmp_path / "Task", "b", "a")
    touch(tmp_path / "Task", "imagesTr/._a.nii.gz", "imagesTr/c.nii.gz", "imagesTs/d.nii.gz", "labelsTr/._b.nii.gz")
    monkeypatch.chdir(tmp_path)
    expected = tuple(
        Case(
            case_id=name,
            images=(tmp_path / "Task" / "imagesTr" / f"{name}.nii.gz",),
            label=tmp_path / "Task" / "labelsTr" / f"{name}.nii.gz",
        )
        for name in ("a", "b")
    )
    assert read_decathlon(Path("Task")) == Dataset(
        expected, {"Anterior": (1,), "Posterior": (2,)}, ("MRI",), "mr", frozenset({0, 1, 2})
    )


def test_label_values_with_the_same_name_are_one_class(tmp_path: Path) -> None:
    labels = {"0": "background", "10": "spleen", "2": "kidney", "3": "kidney"}
    dataset = read_decathlon(make_decathlon(tmp_path, "a", labels=labels))
    assert list((dataset.label_values or {}).items()) == [("kidney", (2, 3)), ("spleen", (10,))]


def test_channels_are_ordered_by_number(tmp_path: Path) -> None:
    modality = {str(number): f"T1_{number}" for number in reversed(range(11))}
    dataset = read_decathlon(make_decathlon(tmp_path, "a", modality=modality))
    assert dataset.channels == tuple(f"T1_{number}" for number in range(11))


def test_fields_missing_from_dataset_json_are_left_unset(tmp_path: Path) -> None:
    content = decathlon("a")
    make_decathlon(tmp_path, "a")
    write_json(tmp_path, {"training": content["training"]})
    dataset = read_decathlon(tmp_path)
    assert (dataset.label_values, dataset.channels, dataset.modality) == (None, (), None)


def test_class_names_of_the_file_are_ignored_when_classes_are_configured(tmp_path: Path) -> None:
    root = make_decathlon(tmp_path, "a", labels={"0": "background", "1": "dice"})
    with pytest.raises(InputError, match="'dice' is not allowed as a class name"):
        read_decathlon(root)
    assert read_decathlon(root, classes_from_file=False).label_values is None


def test_missing_files_are_counted_and_the_first_few_listed(tmp_path: Path) -> None:
    names = [f"case{number:02d}" for number in range(30)]
    make_decathlon(tmp_path, *names)
    for name in names[5:]:
        (tmp_path / "labelsTr" / f"{name}.nii.gz").unlink()
    with pytest.raises(InputError) as raised:
        read_decathlon(tmp_path)
    lines = str(raised.value).splitlines()
    assert lines[0] == f"25 file(s) listed in {tmp_path / 'dataset.json'} do not exist:"
    assert lines[1] == f"  {tmp_path / 'labelsTr' / 'case05.nii.gz'}"
    assert (len(lines), lines[-1]) == (12, "  … and 15 more")


def test_the_nnunet_v1_format_is_recognised(tmp_path: Path) -> None:
    write_json(tmp_path, decathlon("a"))
    touch(tmp_path, "imagesTr/a_0000.nii.gz", "labelsTr/a.nii.gz")
    with pytest.raises(InputError, match=r"(?s)1 file\(s\) .*\na_0000\.nii\.gz exists, .* data=folder data\.images="):
        read_decathlon(tmp_path)


def test_a_wrong_number_of_training_cases_logs_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        read_decathlon(make_decathlon(tmp_path, "a", "b", numTraining=3))
    assert "numTraining 3, but there are 2 training cases" in caplog.text
    caplog.clear()
    with caplog.at_level(logging.WARNING):
        read_decathlon(make_decathlon(tmp_path, "a", "b"))
    assert caplog.text == ""


@pytest.mark.parametrize("image", ["C:\\data\\imagesTr\\a.nii.gz", "imagesTr\\a.nii.gz", "D:/Task/imagesTr/a.nii.gz"])
def test_a_windows_path_is_rejected_with_the_path_to_use_instead(tmp_path: Path, image: str) -> None:
    make_decathlon(tmp_path / "Task", "a", training=[{"image": image, "label": "labelsTr/a.nii.gz"}])
    with pytest.raises(InputError, match=r"path of Windows; write it relative to .*, such as imagesTr/a\.nii\.gz"):
        read_decathlon(tmp_path / "Task")


def test_an_absolute_path_is_rejected_with_the_path_to_use_instead(tmp_path: Path) -> None:
    root = make_decathlon(tmp_path / "Task", "a")
    absolute = str(root / "imagesTr" / "a.nii.gz")
    write_json(root, decathlon("a", training=[{"image": absolute, "label": "labelsTr/a.nii.gz"}]))
    with pytest.raises(InputError, match=r"inside it; write imagesTr/a\.nii\.gz$"):
        read_decathlon(root)


@pytest.mark.parametrize("image", ["/etc/a.nii.gz", "../a.nii.gz", "imagesTr/../../a.nii.gz"])
def test_a_path_outside_the_dataset_is_rejected(tmp_path: Path, image: str) -> None:
    make_decathlon(tmp_path / "Task", "a", training=[{"image": image, "label": "labelsTr/a.nii.gz"}])
    touch(tmp_path, "a.nii.gz")
    with pytest.raises(InputError, match=f"training entry 1: {image} is outside"):
        read_decathlon(tmp_path / "Task")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"training": []}, '"training" in .* must be a list of cases'),
        ({"training": {"image": "a"}}, '"training" in .* must be a list of cases'),
        ({"training": ["imagesTr/a.nii.gz"]}, "training entry 1 must be of the form"),
        ({"training": [{"image": "imagesTr/a.nii.gz"}]}, "training entry 1 must be of the form"),
        ({"training": [{"image": 3, "label": "a.nii.gz"}]}, "training entry 1 must be a file path; got 3"),
        ({"training": [{"image": "a\0.nii", "label": "b.nii"}]}, "must be a file path"),
        ({"training": [{"image": "a\ud800.nii", "label": "b.nii"}]}, "must be a file path"),
        ({"training": decathlon("a", "b", "a")["training"]}, "contains case 'a' twice"),
        ({"labels": {"background": 0, "spleen": 1}}, "must map values to class names"),
        ({"labels": ["background", "spleen"]}, "must map values to class names"),
        ({"labels": {"0": "background"}}, "no class besides the background"),
        ({"labels": {"0": "other", "1": "background"}}, "'background' is not allowed as a class name"),
        ({"modality": "CT"}, '"modality" in .* must name the channels by number'),
        ({"modality": {"1": "CT"}}, "must name the channels by number"),
        ({"modality": {}}, "must name the channels by number"),
        ({"modality": {"0": 1}}, "must name the channels by number"),
    ],
)
def test_an_invalid_dataset_json_is_reported(tmp_path: Path, changes: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        read_decathlon(make_decathlon(tmp_path, "a", **changes))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "contains no dataset.json"),
        ([], r"must contain an object, \{…\}; got a list"),
        ({"channel_names": {"0": "CT"}}, "read it with data=nnunet"),
    ],
)
def test_a_folder_without_a_decathlon_dataset_json_is_reported(tmp_path: Path, content: object, message: str) -> None:
    if content is not None:
        write_json(tmp_path, content)
    with pytest.raises(InputError, match=message):
        read_decathlon(tmp_path)


def test_a_missing_folder_is_reported(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"nowhere: no such folder \(relative to"):
        read_decathlon(tmp_path / "nowhere")


def test_the_real_hippocampus_dataset() -> None:
    root = SHARED_DATA / "Task04_Hippocampus"
    if not root.is_dir():
        pytest.skip("the hippocampus dataset is not on this machine (it is not part of the repository)")
    dataset = read_decathlon(root)
    assert len(dataset.cases) == 200
    assert dataset.label_values == {"Anterior": (1,), "Posterior": (2,)}
    assert (dataset.channels, dataset.modality) == (("MRI",), "mr")
    first = dataset.cases[0]
    assert (first.case_id, first.group) == ("hippocampus_001", None)
    assert first.images == (root / "imagesTr" / "hippocampus_001.nii.gz",)
    image, label = (nib.load(path) for path in (*first.images, first.label))
    assert image.shape == label.shape
    assert np.unique(np.asarray(label.dataobj)).tolist() == [0, 1, 2]
