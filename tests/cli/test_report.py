"""`spleen report` and `spleen predict --page` as commands: which files they write, what they refuse."""

import shutil

import numpy as np
import pytest
from typer.testing import CliRunner

from spleen.cli.main import app
from spleen.inference.report.masks import write_case_pages
from tests._helpers.browser import opened
from tests._helpers.nifti import box, ras_affine, save
from tests._helpers.trained_runs import BRIGHT, trained

SHAPE = (24, 20, 12)
AFFINE = ras_affine((3.0, 3.0, 5.0))


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")


@pytest.fixture
def ct(tmp_path):
    """A CT with a label and a prediction that is one voxel larger."""
    image = np.full(SHAPE, -1000, np.int16)
    image[2:22, 2:18] = 40
    save(tmp_path / "ct.nii.gz", image, AFFINE)
    save(tmp_path / "label.nii.gz", box(SHAPE, (6, 6, 3), (12, 12, 8)), AFFINE)
    save(tmp_path / "mask.nii.gz", box(SHAPE, (6, 6, 3), (13, 12, 8)), AFFINE)
    return tmp_path / "ct.nii.gz"


@pytest.fixture
def masks(tmp_path, ct):
    """What `spleen predict` leaves of two cases, one image of which has gone."""
    folder = tmp_path / "predictions"
    folder.mkdir()
    header = (
        "case_id,image,prediction,label_values,class_name,volume_mm3,n_components,largest_component_fraction,"
        "soft_dice_confidence,agreement,volume_to_training,confidence_score,review,reasons"
    )
    rows = [
        f"one,{ct},one.nii.gz,1,spleen,9450,1,1,0.95,nan,1,0.95,no,",
        f"two,{tmp_path / 'gone.nii.gz'},two.nii.gz,1,spleen,12600,3,0.5,0.9,0.8,1,0.36,yes,parts",
    ]
    (folder / "predictions.csv").write_text("\n".join([header, *rows]) + "\n")
    for name in ("one", "two"):
        shutil.copy(tmp_path / "mask.nii.gz", folder / f"{name}.nii.gz")
    return folder


def run(*arguments):
    return CliRunner().invoke(app, ["report", *map(str, arguments)])


def test_an_image_becomes_a_page_named_after_it_with_its_scores(ct, tmp_path) -> None:
    done = run(ct, "--label", "label.nii.gz", "--prediction", "mask.nii.gz", "--mesh", "m.stl")
    assert done.exit_code == 0, done.output
    assert done.output == "wrote ct.html\nwrote m.stl\n"
    page = (tmp_path / "ct.html").read_text()
    # 6 × 6 × 5 of 7 × 6 × 5 voxels.
    assert f"{2 * 180 / (180 + 210):.4g}" in page
    assert str(tmp_path) not in page
    assert (tmp_path / "m.stl").stat().st_size > 1000


def test_paths_stand_on_the_page_only_when_asked_for(ct, tmp_path) -> None:
    assert run(ct, "-o", "page.html", "--identifying").exit_code == 0
    assert str(ct) in (tmp_path / "page.html").read_text()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["missing.nii.gz"], "no such file"),
        (["ct.nii.gz", "-o", "folder"], "is a folder"),
        (["ct.nii.gz", "-o", "ct.nii.gz"], "must end in .html"),
        (["ct.nii.gz", "--label", "other_grid.nii.gz"], "different grids"),
        (["ct.nii.gz", "--label", "ct.nii.gz"], "is an image and not a label map"),
        (["series"], "contains no DICOM image"),
        (["slice.dcm"], "DICOM"),
        (["notes.txt"], "cannot be read as NIfTI"),
        (["folder"], "is neither a run folder, nor a folder of runs, nor one that spleen predict has written"),
        (["ct.nii.gz", "--mesh", "m.stl"], "needs a mask"),
        (["ct.nii.gz", "--label", "label.nii.gz", "--mesh", "m.obj"], ".stl, .glb"),
        (["ct.nii.gz", "--images", "folder"], "--images is not for an image"),
        (["predictions", "--prediction", "label.nii.gz"], "--prediction is not for a folder of masks"),
        (["predictions", "--images", "folder"], "contains no .nii"),
        (["predictions", "--label", "others"], "no file in others is called after a case; the cases are one, two"),
    ],
)
def test_wrong_input_is_told_in_words(masks, tmp_path, arguments, words) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "series").mkdir()
    (tmp_path / "others").mkdir()
    shutil.copy(tmp_path / "label.nii.gz", tmp_path / "others" / "three.nii.gz")
    for name in ("slice.dcm", "series/1.dcm"):
        (tmp_path / name).write_bytes(b"\0" * 128 + b"DICM" + b"\0" * 400)
    (tmp_path / "notes.txt").write_text("no volume " * 100)
    save(tmp_path / "other_grid.nii.gz", box(SHAPE, (6, 6, 3), (12, 12, 8)), ras_affine((1.0, 1.0, 1.0)))
    done = run(*arguments)
    assert done.exit_code == 2, done.output
    assert words in done.output
    assert "Traceback" not in done.output
    assert not list(tmp_path.glob("*.html"))


@pytest.mark.slow
def test_a_folder_of_masks_becomes_an_overview_with_a_page_for_each_case(masks, ct, tmp_path) -> None:
    (tmp_path / "labels").mkdir()
    shutil.copy(tmp_path / "label.nii.gz", tmp_path / "labels" / "one.nii.gz")
    done = run(masks, "--label", "labels")
    assert done.exit_code == 1
    assert "failed: two: its image is no longer where predictions.csv says" in done.output
    with opened(masks / "report.html") as page:
        rows = page.locator("tbody tr")
        assert rows.nth(0).locator("td").all_inner_texts() == [
            "one", "spleen", "9.45", "1", "0.95", "–", f"{360 / 390:.4f}", "no",
        ]  # fmt: skip
        assert rows.nth(1).locator("td").all_inner_texts() == [
            "two", "spleen", "12.6", "3", "0.36", "0.8", "–", "parts",
        ]  # fmt: skip
        assert page.locator(".gallery img").count() == 1
        assert "1 masks need a review" in page.locator("main").inner_text()
        page.locator("tbody a").first.click()
        page.wait_for_selector(".viewer[data-ready]")
        assert page.locator("h1").inner_text() == "one"
        page.get_by_text("all cases").click()
        assert page.locator("h1").inner_text() == "2 predicted cases"
    assert str(tmp_path) not in (masks / "report.html").read_text()


def test_images_that_have_moved_are_found_in_their_new_folder(masks, ct, tmp_path) -> None:
    (tmp_path / "moved").mkdir()
    shutil.copy(ct, tmp_path / "moved" / "two_0000.nii.gz")
    done = run(masks, "--images", "moved", "-o", "overview.html")
    assert done.exit_code == 0, done.output
    assert sorted(path.name for path in (tmp_path / "overview").iterdir()) == ["one.html", "two.html"]


def test_a_page_that_fails_loses_neither_masks_nor_the_other_pages(masks) -> None:
    pages, failures = write_case_pages([masks / "one.nii.gz", masks / "two.nii.gz"])
    assert pages == [masks / "one_page.html"]
    assert len(failures) == 1
    assert "two_page.html: its image is no longer" in failures[0]
    assert (masks / "two.nii.gz").exists()


def test_a_run_folder_and_a_folder_of_runs_have_pages_of_their_own(tmp_path, tmp_path_factory) -> None:
    study = tmp_path / "study"
    for name in ("one", "two"):
        shutil.copytree(trained(tmp_path_factory, "axial", *BRIGHT, "axis=axial", "split.guard_mm=1"), study / name)
        (study / name / "report.html").unlink(missing_ok=True)
    assert run(study / "one").exit_code == 0
    assert run(study).exit_code == 0
    with opened(study / "report.html") as page:
        links = page.locator("a[href$='report.html']")
        assert {links.nth(number).get_attribute("href") for number in range(links.count())} == {"one/report.html"}
        links.first.click()
        assert "bright" in page.locator("h1").inner_text()
    assert run(study / "two", "-o", "two.html").exit_code == 0
    assert (tmp_path / "two.html").exists()


@pytest.mark.parametrize("option", ["--label", "--prediction", "--images", "--mesh"])
def test_options_of_scans_are_rejected_for_runs(tmp_path, tmp_path_factory, option) -> None:
    folder = trained(tmp_path_factory, "axial", *BRIGHT, "axis=axial", "split.guard_mm=1")
    done = run(folder, option, "x.nii.gz")
    assert done.exit_code == 2
    assert f"{option} is not for a run" in done.output


def test_unlabelled_voxels_of_the_reference_are_not_scored(ct, masks, tmp_path) -> None:
    label = box(SHAPE, (6, 6, 3), (12, 12, 8)).astype(np.uint8)
    label[12:] = 255  # with all voxels that the mask has beyond the label
    (tmp_path / "labels").mkdir()
    save(tmp_path / "labels" / "one.nii.gz", label, AFFINE)
    done = run(ct, "--label", "labels/one.nii.gz", "--prediction", "mask.nii.gz", "--ignore-value", "255")
    assert done.exit_code == 0, done.output
    page = (tmp_path / "ct.html").read_text()
    assert "Hatched: 50 % of the voxels are not labelled in the reference (value 255)" in page
    assert "label 255" not in page
    assert run(masks, "--label", "labels", "--ignore-value", "255").exit_code == 1  # the image of one case has gone
    overview = (masks / "report.html").read_text()
    assert "not labelled in the reference, and not scored" in overview
    assert 'data-value="1.0">1<' in overview  # the Dice


def test_an_ignored_value_without_a_reference_is_an_error(ct) -> None:
    done = run(ct, "--ignore-value", "255")
    assert done.exit_code == 2
    assert "add the reference with --label" in done.output
