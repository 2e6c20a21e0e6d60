"""What all layouts share, and the Decathlon's."""

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
def test_ct_is_called_ct(names: list[str]) -> None:
    assert modality_of(names) == "ct"


# As the ten Decathlon tasks and the BraTS challenges call them.
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
def test_mr_is_known_by_its_contrasts(names: list[str]) -> None:
    assert modality_of(names) == "mr"


@pytest.mark.parametrize(
    "names", [[], ["PET"], ["CT", "PET"], ["CT", "MRI"], ["T1", "noNorm"], ["CTA"], ["T10"], ["CT/MR"], ["dt1"], [""]]
)
def test_other_names_and_mixtures_say_nothing(names: list[str]) -> None:
    assert modality_of(names) is None


# What every dataset must be -------------------------------------------------------------------------------------------


def test_cases_are_sorted_and_classes_come_in_order_of_value() -> None:
    dataset = make_dataset(Path("source"), [case("b"), case("a"), case("B")], {"late": [7], "early": [5, 2]}, ("PET",))
    assert [one.case_id for one in dataset.cases] == ["B", "a", "b"]  # names that differ in case alone are two names
    assert list((dataset.label_values or {}).items()) == [("early", (2, 5)), ("late", (7,))]
    assert (dataset.channels, dataset.modality) == (("PET",), None)


def test_one_file_may_hold_all_channels() -> None:
    assert make_dataset(Path("source"), [case("a")], channels=("T1", "T2")).modality == "mr"
    assert len(make_dataset(Path("source"), [case("a", images=2)], channels=("T1", "T2")).cases[0].images) == 2
    with pytest.raises(InputError, match="source names 3 channels, but its cases have 2 images each"):
        make_dataset(Path("source"), [case("a", images=2)], channels=("T1", "T2", "ADC"))


@pytest.mark.parametrize(
    ("name", "told"),
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
def test_a_case_id_must_be_usable_as_a_file_name(name: str, told: str) -> None:
    one = Case(case_id=name, images=(Path("/images/a.nii.gz"),), label=Path("/labels/a.nii.gz"))
    with pytest.raises(InputError, match=told):
        make_dataset(Path("source"), [one])


def test_a_case_id_may_be_long_and_foreign() -> None:
    name = "é" * 100  # 200 bytes
    one = Case(case_id=name, images=(Path("/images/a.nii.gz"),), label=Path("/labels/a.nii.gz"))
    assert make_dataset(Path("source"), [one]).cases[0].case_id == name


def _case(name: str, image: str, label: str) -> Case:
    return Case(case_id=name, images=(Path(image),), label=Path(label))


@pytest.mark.parametrize(
    ("cases", "told"),
    [
        ([], "source contains no cases"),
        ([_case("a", "/x.nii", "/y.nii"), _case("a", "/v.nii", "/w.nii")], r"case 'a' twice.*\n  /x.nii\n  /v.nii"),
        ([_case("a", "/x.nii", "/y.nii"), _case("b", "/x.nii", "/w.nii")], "/x.nii is used twice.*'a' and case 'b'"),
        ([_case("a", "/x.nii", "/y.nii"), _case("b", "/v.nii", "/y.nii")], "/y.nii is used twice"),
        ([_case("a", "/x.nii", "/x.nii")], "/x.nii is used twice, for case 'a' and case 'a'"),
        ([_case("a", "/x.mha", "/y.nii")], "case 'a': x.mha is not a .nii or .nii.gz file; convert it"),
        ([case("a"), case("b", images=2)], r"case 'a' has 1 image\(s\), case 'b' has 2"),
    ],
)
def test_what_is_no_dataset_is_refused(cases: list[Case], told: str) -> None:
    with pytest.raises(InputError, match=told):
        make_dataset(Path("source"), cases)


def test_a_class_name_that_the_results_need_is_refused_with_its_file() -> None:
    with pytest.raises(InputError, match=r'"labels" of source: \'dice\' is not allowed .* data\.label_values='):
        make_dataset(Path("source"), [case("a")], {"dice": [1]})


def test_missing_files_are_found_with_folders_for_files_among_them(tmp_path: Path) -> None:
    there, _ = touch(tmp_path, "a/x.nii", "a/y.nii/z")
    (tmp_path / "a" / "link.nii").symlink_to("x.nii")
    (tmp_path / "a" / "dead.nii").symlink_to("nowhere")
    missing = [tmp_path / "a" / "y.nii", tmp_path / "a" / "dead.nii", tmp_path / "b" / "x.nii", there / "x.nii"]
    missing += [tmp_path / "a" / ("x" * 300 + ".nii"), tmp_path / ("b" * 300) / "x.nii"]
    assert missing_files([there, *missing, tmp_path / "a" / "link.nii"]) == missing


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (b'{"a": 1,', "is not valid JSON"),
        (b'{"a": [{"left": 1, "left": 2}]}', 'duplicate key "left"'),
        (b"\xff\xfe\x00", "is not valid JSON: 'utf-8'"),
        (b"[" * 100_000, "is not valid JSON"),
    ],
)
def test_json_that_is_broken_or_ambiguous_is_refused(tmp_path: Path, text: bytes, told: str) -> None:
    (tmp_path / "a.json").write_bytes(text)
    with pytest.raises(InputError, match=told):
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


def test_a_decathlon_dataset_is_what_its_list_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
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


def test_values_with_one_name_are_one_class(tmp_path: Path) -> None:
    labels = {"0": "background", "10": "spleen", "2": "kidney", "3": "kidney"}
    dataset = read_decathlon(make_decathlon(tmp_path, "a", labels=labels))
    assert list((dataset.label_values or {}).items()) == [("kidney", (2, 3)), ("spleen", (10,))]


def test_channels_come_in_order_of_their_numbers(tmp_path: Path) -> None:
    modality = {str(number): f"T1_{number}" for number in reversed(range(11))}
    dataset = read_decathlon(make_decathlon(tmp_path, "a", modality=modality))
    assert dataset.channels == tuple(f"T1_{number}" for number in range(11))


def test_what_the_file_does_not_say_stays_open(tmp_path: Path) -> None:
    content = decathlon("a")
    make_decathlon(tmp_path, "a")
    write_json(tmp_path, {"training": content["training"]})
    dataset = read_decathlon(tmp_path)
    assert (dataset.label_values, dataset.channels, dataset.modality) == (None, (), None)


def test_own_classes_make_the_files_irrelevant(tmp_path: Path) -> None:
    root = make_decathlon(tmp_path, "a", labels={"0": "background", "1": "dice"})
    with pytest.raises(InputError, match="'dice' is not allowed as a class name"):
        read_decathlon(root)
    assert read_decathlon(root, classes_from_file=False).label_values is None


def test_missing_files_are_counted_and_the_first_few_named(tmp_path: Path) -> None:
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


def test_nnunets_first_version_is_recognised(tmp_path: Path) -> None:
    write_json(tmp_path, decathlon("a"))
    touch(tmp_path, "imagesTr/a_0000.nii.gz", "labelsTr/a.nii.gz")
    with pytest.raises(InputError, match=r"(?s)1 file\(s\) .*\na_0000\.nii\.gz exists, .* data=folder data\.images="):
        read_decathlon(tmp_path)


def test_a_count_that_differs_is_warned_of(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        read_decathlon(make_decathlon(tmp_path, "a", "b", numTraining=3))
    assert "numTraining 3, but there are 2 training cases" in caplog.text
    caplog.clear()
    with caplog.at_level(logging.WARNING):
        read_decathlon(make_decathlon(tmp_path, "a", "b"))
    assert caplog.text == ""


@pytest.mark.parametrize("image", ["C:\\data\\imagesTr\\a.nii.gz", "imagesTr\\a.nii.gz", "D:/Task/imagesTr/a.nii.gz"])
def test_a_path_of_windows_comes_with_the_one_to_write(tmp_path: Path, image: str) -> None:
    make_decathlon(tmp_path / "Task", "a", training=[{"image": image, "label": "labelsTr/a.nii.gz"}])
    with pytest.raises(InputError, match=r"path of Windows; write it relative to .*, such as imagesTr/a\.nii\.gz"):
        read_decathlon(tmp_path / "Task")


def test_an_absolute_path_comes_with_the_one_to_write(tmp_path: Path) -> None:
    root = make_decathlon(tmp_path / "Task", "a")
    absolute = str(root / "imagesTr" / "a.nii.gz")
    write_json(root, decathlon("a", training=[{"image": absolute, "label": "labelsTr/a.nii.gz"}]))
    with pytest.raises(InputError, match=r"inside it; write imagesTr/a\.nii\.gz$"):
        read_decathlon(root)


@pytest.mark.parametrize("image", ["/etc/a.nii.gz", "../a.nii.gz", "imagesTr/../../a.nii.gz"])
def test_a_path_that_leaves_the_dataset_is_refused(tmp_path: Path, image: str) -> None:
    make_decathlon(tmp_path / "Task", "a", training=[{"image": image, "label": "labelsTr/a.nii.gz"}])
    touch(tmp_path, "a.nii.gz")
    with pytest.raises(InputError, match=f"training entry 1: {image} is outside"):
        read_decathlon(tmp_path / "Task")


@pytest.mark.parametrize(
    ("changes", "told"),
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
def test_a_dataset_json_of_another_form_is_told(tmp_path: Path, changes: dict[str, object], told: str) -> None:
    with pytest.raises(InputError, match=told):
        read_decathlon(make_decathlon(tmp_path, "a", **changes))


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (None, "contains no dataset.json"),
        ([], r"must contain an object, \{…\}; got a list"),
        ({"channel_names": {"0": "CT"}}, "read it with data=nnunet"),
    ],
)
def test_another_kind_of_folder_is_told(tmp_path: Path, content: object, told: str) -> None:
    if content is not None:
        write_json(tmp_path, content)
    with pytest.raises(InputError, match=told):
        read_decathlon(tmp_path)


def test_a_folder_that_is_not_there_is_told(tmp_path: Path) -> None:
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
