"""Where predicted masks are written, which existing ones are kept, and the table predictions.csv."""

import csv
import math
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from spleen.errors import InputError
from spleen.imaging.files import ImageFiles, case_name
from spleen.inference.confidence import ClassConfidence
from spleen.inference.outputs import Target, missing_targets, plan_targets
from spleen.inference.record import read_record, record
from tests._helpers.nifti import save
from tests._helpers.small_run import REPOSITORY

SCORE = ClassConfidence(
    class_name="left kidney, cyst",  # a comma, which CSV must quote
    volume_mm3=151234.56,
    n_components=2,
    largest_component_fraction=0.75,
    soft_dice_confidence=0.9,
    agreement=math.nan,
    volume_to_training=1.0,
    confidence_score=0.675,
    review=True,
    reasons="fragmented mask (0.75)",
    soft_volume_mm3=150_000.0,
    volume_low_mm3=140_000.0,
    volume_high_mm3=163_000.0,
    expected_dice=0.91,
    dice_low=0.875,
    dice_high=0.95,
)


def image(path: Path) -> ImageFiles:
    return ImageFiles(case_name(path), (path,))


def images(*names: str) -> list[ImageFiles]:
    return [image(Path("scans", name)) for name in names]


@pytest.mark.parametrize("name", ["seg.nrrd", "seg.MHA", "seg.gz", "seg.dcm", "seg.png"])
def test_an_unsupported_mask_format_is_refused(name: str) -> None:
    with pytest.raises(InputError, match=rf"{name}: a mask is written as \.nii\.gz or \.nii"):
        plan_targets(images("a.nii.gz"), Path(name))


def test_a_folder_name_may_contain_a_dot_and_a_mask_suffix_capitals() -> None:
    assert plan_targets(images("a.nii.gz"), Path("masks_v0.5"))[0].mask == Path("masks_v0.5/a.nii.gz")
    assert plan_targets(images("a.nii.gz"), Path("A.NII.GZ"))[0].mask == Path("A.NII.GZ")


# Names --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("output", ["mask.nii.gz", "deep/er/mask.nii"])
def test_one_image_gives_the_requested_file(output: str) -> None:
    (target,) = plan_targets(images("a.nii.gz"), Path(output))
    assert (target.case_id, target.mask) == ("a", Path(output))
    assert target.probabilities == Path(output).with_name("mask_probabilities.nii.gz")


@pytest.mark.parametrize("names", [("a.nii.gz",), ("a.nii.gz", "b.nii", "c.hdr")])
def test_in_a_folder_each_mask_is_named_after_its_image(names: tuple[str, ...]) -> None:
    targets = plan_targets(images(*names), Path("out"))
    assert [target.mask for target in targets] == [Path("out", f"{name[0]}.nii.gz") for name in names]
    assert targets[0].probabilities == Path("out", "a_probabilities.nii.gz")


def test_without_an_output_one_image_gives_a_file_and_several_a_folder() -> None:
    assert [target.mask for target in plan_targets(images("a.nii"), None)] == [Path("out.nii.gz")]
    masks = [target.mask for target in plan_targets(images("a.nii", "b.nii"), None)]
    assert masks == [Path("predictions", "a.nii.gz"), Path("predictions", "b.nii.gz")]


def test_an_existing_folder_may_be_named_like_a_file(tmp_path: Path) -> None:
    (tmp_path / "odd.nii").mkdir()
    (target,) = plan_targets(images("a.nii"), tmp_path / "odd.nii")
    assert target.mask == tmp_path / "odd.nii" / "a.nii.gz"


def test_several_images_cannot_become_one_file() -> None:
    with pytest.raises(InputError, match=r"2 images cannot all become the one file out\.nii\.gz; give a folder"):
        plan_targets(images("a.nii", "b.nii"), Path("out.nii.gz"))


@pytest.mark.parametrize("second", [Path("other", "a.nii.gz"), Path("scans", "a.nii.gz"), Path("scans", "a.img")])
def test_two_images_with_the_same_name_are_refused(second: Path) -> None:
    with pytest.raises(InputError, match=r"scans/a\.nii and .*/a\..* have the same name.*out/a\.nii\.gz"):
        plan_targets([*images("a.nii"), image(second)], Path("out"))


@pytest.mark.parametrize("output", ["scans/a.nii.gz", "scans", "scans/../scans", "link"])
def test_an_image_is_never_overwritten_by_its_own_prediction(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, output: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("scans").mkdir()
    Path("scans", "a.nii.gz").touch()
    Path("link").symlink_to("scans")
    with pytest.raises(InputError, match=r"the prediction of scans/a\.nii\.gz would overwrite the image"):
        plan_targets(images("a.nii.gz"), Path(output))


def test_neither_another_image_nor_a_channel_is_overwritten_by_a_prediction() -> None:
    first, other = ImageFiles("a", (Path("scans", "a_0000.nii.gz"),)), image(Path("scans", "a.nii.gz"))
    with pytest.raises(InputError, match=r"the prediction of scans/a_0000\.nii\.gz would overwrite the image"):
        plan_targets([first, ImageFiles("b", other.paths)], Path("scans"))
    channels = ImageFiles("a", (Path("scans", "a_0000.nii.gz"), Path("scans", "a.nii.gz")))
    with pytest.raises(InputError, match=r"would overwrite the image"):
        plan_targets([channels], Path("scans"))


def test_a_mask_and_a_probability_map_with_the_same_name_are_refused() -> None:
    both = images("a.nii.gz", "a_probabilities.nii.gz")
    with pytest.raises(InputError, match=r"out/a_probabilities\.nii\.gz"):
        missing_targets(plan_targets(both, Path("out")), probabilities=True, overwrite=False, skip_existing=False)
    assert missing_targets(plan_targets(both, Path("out")), False, False, False)


# Existing outputs ---------------------------------------------------------------------------------------------------


def three_targets(folder: Path, *existing: str) -> list[Target]:
    folder.mkdir(exist_ok=True)
    targets = plan_targets(images("a.nii", "b.nii", "c.nii"), folder)
    for name in existing:
        save(folder / name, np.zeros((3, 4, 5), np.uint8), np.eye(4))
        for target in targets:
            if target.mask.name == name:
                record(target.image, target.mask, [SCORE], [(1,)])
    return targets


def wanted(targets: list[Target], **options: bool) -> list[str]:
    options = {"probabilities": False, "overwrite": False, "skip_existing": False, **options}
    return [target.case_id for target in missing_targets(targets, **options)]


def test_existing_outputs_are_overwritten_or_skipped_only_on_request(tmp_path: Path) -> None:
    assert wanted(three_targets(tmp_path / "new")) == ["a", "b", "c"]
    targets = three_targets(tmp_path, "a.nii.gz", "c.nii.gz")
    with pytest.raises(
        InputError, match=r"2 of 3 outputs exist already \(.*/a\.nii\.gz, .*/c\.nii\.gz\); add --overwrite"
    ):
        wanted(targets)
    assert wanted(targets, overwrite=True) == ["a", "b", "c"]
    assert wanted(targets, skip_existing=True) == ["b"]


def test_existing_probabilities_count_as_outputs_only_if_requested(tmp_path: Path) -> None:
    targets = three_targets(tmp_path, "b_probabilities.nii.gz")
    assert wanted(targets) == ["a", "b", "c"]
    with pytest.raises(InputError, match="1 of 3 outputs"):
        wanted(targets, probabilities=True)


def test_an_incomplete_output_is_computed_again(tmp_path: Path) -> None:
    """An interruption between writing the two files of a case must not leave it incomplete forever."""
    targets = three_targets(tmp_path, "a.nii.gz", "b_probabilities.nii.gz", "c.nii.gz", "c_probabilities.nii.gz")
    assert wanted(targets, probabilities=True, skip_existing=True) == ["a", "b"]


@pytest.mark.parametrize("suffix", [".nii.gz", ".nii"])
def test_a_damaged_output_is_computed_again(tmp_path: Path, suffix: str) -> None:
    targets = [Target(image(Path(f"{name}.nii")), tmp_path / f"{name}{suffix}") for name in "abcd"]
    random = np.random.default_rng(0).integers(0, 255, (13, 14, 15), dtype=np.uint8)
    for target in targets:
        save(target.mask, random, np.eye(4))
        record(target.image, target.mask, [SCORE], [(1,)])
    assert wanted(targets, skip_existing=True) == []
    content = targets[1].mask.read_bytes()
    targets[1].mask.write_bytes(content[:-9])  # truncated
    targets[2].mask.write_bytes(b"")
    assert wanted(targets, skip_existing=True) == ["b", "c"]
    if suffix == ".nii.gz":
        middle = len(content) // 2
        targets[3].mask.write_bytes(content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :])
        assert wanted(targets, skip_existing=True) == ["b", "c", "d"]  # found by its checksum


def test_an_unrecorded_output_is_computed_again(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    targets = three_targets(tmp_path, "a.nii.gz", "b.nii.gz", "c.nii.gz")
    lines = (tmp_path / "predictions.csv").read_text().splitlines()
    (tmp_path / "predictions.csv").write_text("\n".join(line for line in lines if not line.startswith("b,")) + "\n")
    assert wanted(targets, skip_existing=True) == ["b"]
    assert "1 existing outputs are damaged, or not in predictions.csv" in caplog.text
    assert "b.nii.gz" in caplog.text


PROGRAM = """
import sys
from pathlib import Path
from tests.inference.test_outputs import SCORE, image
from spleen.inference.outputs import Target
from spleen.inference.record import record
folder, process = Path(sys.argv[1]), sys.argv[2]
print("ready", flush=True)
sys.stdin.readline()
for number in range(20):
    name = f"case_{process}_{number}"
    record(image(Path(f"{name}.nii")), folder / f"{name}.nii.gz", [SCORE, SCORE], [(1,), (2,)])
"""


@pytest.mark.slow
def test_several_processes_write_one_table_and_no_row_is_lost(tmp_path: Path) -> None:
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", PROGRAM, str(tmp_path), str(number)],
            cwd=REPOSITORY, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )
        for number in range(4)
    ]  # fmt: skip
    for process in processes:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        process.communicate("go\n", timeout=120)
    assert [process.returncode for process in processes] == [0] * 4
    rows = read_record(tmp_path / "predictions.csv")
    assert len(rows) == 4 * 20 * 2
    assert {row["case_id"] for row in rows} == {f"case_{p}_{n}" for p in range(4) for n in range(20)}
    assert [path.name for path in tmp_path.iterdir()] == ["predictions.csv"]


def test_overwriting_and_skipping_together_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="either --overwrite or --skip-existing"):
        wanted(three_targets(tmp_path, "a.nii.gz"), overwrite=True, skip_existing=True)


# predictions.csv ----------------------------------------------------------------------------------------------------


def test_a_record_contains_all_scores_of_each_class(tmp_path: Path) -> None:
    target = Target(image(Path("scans", "a.nii")), tmp_path / "mask.nii.gz")
    record(
        target.image,
        target.mask,
        [SCORE, replace(SCORE, class_name="spleen", review=False, reasons="", agreement=0.5)],
        [(2, 5), (-1,)],
    )
    with (tmp_path / "predictions.csv").open(newline="") as file:
        first, second = csv.DictReader(file)
    assert first == {
        "case_id": "a",
        "image": str(Path.cwd() / "scans" / "a.nii"),
        "prediction": "mask.nii.gz",
        "label_values": "2;5",
        "class_name": "left kidney, cyst",
        "volume_mm3": "151235",
        "n_components": "2",
        "largest_component_fraction": "0.75",
        "soft_dice_confidence": "0.9",
        "agreement": "nan",
        "volume_to_training": "1",
        "confidence_score": "0.675",
        "review": "yes",
        "reasons": "fragmented mask (0.75)",
        "soft_volume_mm3": "150000",
        "view_low_mm3": "nan",
        "view_high_mm3": "nan",
        "volume_low_mm3": "140000",
        "volume_high_mm3": "163000",
        "expected_dice": "0.91",
        "dice_low": "0.875",
        "dice_high": "0.95",
    }
    values = {name: second[name] for name in ("class_name", "review", "reasons", "agreement")}
    assert values == {"class_name": "spleen", "review": "no", "reasons": "", "agreement": "0.5"}


def test_a_record_lists_all_files_of_an_image(tmp_path: Path) -> None:
    files = tuple(Path("scans", f"a_{number:04d}.nii") for number in range(2))
    record(ImageFiles("a", files), tmp_path / "a.nii.gz", [SCORE], [(1,)])
    (row,) = read_record(tmp_path / "predictions.csv")
    assert (row["case_id"], row["image"]) == ("a", ";".join(str(Path.cwd() / file) for file in files))


def test_a_new_prediction_replaces_only_its_own_rows(tmp_path: Path) -> None:
    a, b = (Target(image(Path(f"{name}.nii")), tmp_path / f"{name}.nii.gz") for name in "ab")
    record(a.image, a.mask, [SCORE, replace(SCORE, class_name="spleen")], [(1,), (2,)])
    record(b.image, b.mask, [SCORE], [(1,)])
    record(a.image, a.mask, [replace(SCORE, confidence_score=0.1)], [(1,)])
    rows = read_record(tmp_path / "predictions.csv")
    assert [(row["case_id"], row["confidence_score"]) for row in rows] == [("b", "0.675"), ("a", "0.1")]


def test_a_record_of_an_earlier_version_is_converted_to_the_current_columns(tmp_path: Path) -> None:
    path = tmp_path / "predictions.csv"
    path.write_text(
        "case_id,image,prediction,label_values,class_name,volume_mm3,n_components,largest_component_share,confidence,"
        "agreement,volume_to_training,trust,review,reasons\n"
        "old,/scans/old.nii,old.nii.gz,1,spleen,100,2,0.5,0.8,0.9,1,0.36,yes,scattered pieces (0.50)\n"
    )
    record(image(Path("new.nii")), tmp_path / "new.nii.gz", [SCORE], [(1,)])
    with path.open(newline="") as file:
        old, new = csv.DictReader(file)
    names = ("case_id", "largest_component_fraction", "soft_dice_confidence", "agreement", "confidence_score")
    assert [old[name] for name in names] == ["old", "0.5", "0.8", "0.9", "0.36"]
    assert (old["soft_volume_mm3"], old["volume_low_mm3"], old["dice_high"]) == ("nan", "nan", "nan")
    assert [new[name] for name in names] == ["new", "0.75", "0.9", "nan", "0.675"]


def test_a_folder_without_a_record_has_no_rows(tmp_path: Path) -> None:
    assert read_record(tmp_path / "predictions.csv") == []


@pytest.mark.parametrize(
    "content", [b"", b"case,dice\na,0.9\n", b"\xff\xfe\x00binary", b'case_id,"image\n', b"\x1f\x8b\x08\x00"]
)
def test_a_foreign_predictions_csv_is_refused_and_left_unchanged(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "predictions.csv"
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"predictions\.csv was not written by .*move it away first"):
        record(image(Path("a.nii")), tmp_path / "a.nii.gz", [SCORE], [(1,)])
    assert path.read_bytes() == content


def test_a_hand_edited_row_is_tolerated(tmp_path: Path) -> None:
    record(image(Path("a.nii")), tmp_path / "a.nii.gz", [SCORE], [(1,)])
    path = tmp_path / "predictions.csv"
    path.write_text(path.read_text().rstrip() + ",my remark\n")
    record(image(Path("b.nii")), tmp_path / "b.nii.gz", [SCORE], [(1,)])
    assert [row["case_id"] for row in read_record(path)] == ["a", "b"]


def test_image_names_that_differ_only_in_unicode_form_are_refused() -> None:
    with pytest.raises(InputError, match=r"form of its Unicode characters .*caf\\xe9.* and .*cafe\\u0301"):
        plan_targets(images("caf\u00e9.nii.gz", "cafe\u0301.nii.gz"), Path("out"))
