"""`spleen predict` with DICOM results: its options, and what is refused before anything is computed."""

from pathlib import Path
from shutil import copyfile

import numpy as np
import pydicom
import pytest
from click.testing import Result
from typer.testing import CliRunner

from spleen.cli.main import app
from spleen.dicom.write_series import write_series
from tests._helpers.dicom_results import class_indices, coded_run, ct_of, int16, sop_uids
from tests._helpers.nifti import ras_affine, save
from tests._helpers.small_run import SPACING_MM
from tests._helpers.trained_runs import file_names

AFFINE = ras_affine(SPACING_MM)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return coded_run(tmp_path_factory)


@pytest.fixture
def case(tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The files of a series in scans/a; a shorter one is in scans/b, and both are in the folder case."""
    monkeypatch.chdir(tmp_path)
    array = int16(ct_of(tmp_path_factory))
    files = write_series(Path("scans", "a"), array, AFFINE, series_number=4)
    Path("case").mkdir()
    for path in (*files, *write_series(Path("scans", "b"), array[:, :, 4:10], AFFINE, series_number=5)):
        copyfile(path, Path("case", f"{path.parent.name}_{path.name}"))
    return files


def spleen_predict(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, ["predict", *map(str, arguments)])


def refused(*arguments: str | Path) -> str:
    done = spleen_predict(*arguments)
    assert done.exit_code == 2, done.output
    assert "Traceback" not in done.output
    return " ".join(done.output.split())


def test_an_output_that_ends_in_dcm_is_a_segmentation_with_a_report(run: Path, case: list[Path]) -> None:
    done = spleen_predict(run, "case", "--series", "4", "-o", "results/seg.dcm")
    assert done.exit_code == 0, done.output
    assert "1 predicted, 0 kept, 0 failed" in done.output
    assert file_names(Path("results")) == {"seg.dcm", "seg_report.dcm", "predictions.csv"}
    assert class_indices(Path("results", "seg.dcm"), sop_uids(case)).max() == 2


def test_the_format_is_chosen_for_folders_and_for_the_default_output(run: Path, case: list[Path]) -> None:
    assert spleen_predict(run, "scans/a", "--format", "dicom-seg").exit_code == 0
    assert file_names(Path()) == {"case", "scans", "out.dcm", "out_report.dcm", "predictions.csv"}
    assert spleen_predict(run, "scans/a", "scans/b", "--format", "dicom-seg", "-o", "masks").exit_code == 0
    assert file_names(Path("masks")) == {"a.dcm", "a_report.dcm", "b.dcm", "b_report.dcm", "predictions.csv"}
    assert spleen_predict(run, "scans/a", "-o", "nifti").exit_code == 0
    assert file_names(Path("nifti")) == {"a.nii.gz", "predictions.csv"}


def test_own_codes_come_from_a_file(run: Path, case: list[Path]) -> None:
    renamed = run, "scans/b", "-o", "seg.dcm", "--class", "spleen=caudate lobe"
    assert "no DICOM code is known for 'caudate lobe'" in refused(*renamed)
    Path("codes.yaml").write_text("Caudate_lobe: {code: 71133005, meaning: Caudate lobe}")
    assert spleen_predict(*renamed, "--codes", "codes.yaml").exit_code == 0
    (concept,) = pydicom.dcmread("seg.dcm").SegmentSequence[0].SegmentedPropertyTypeCodeSequence
    assert (concept.CodeValue, concept.CodeMeaning) == ("71133005", "Caudate lobe")


def test_options_that_do_not_go_together_are_refused(run: Path, case: list[Path]) -> None:
    save(Path("ct.nii"), np.zeros((3, 4, 5), np.int16), AFFINE)
    assert "a mask is written as .nii.gz or .nii" in refused(run, "scans/a", "-o", "seg.dcm", "--format", "nifti")
    assert "a mask is written as .dcm" in refused(run, "scans/a", "-o", "seg.nii.gz", "--format", "dicom-seg")
    assert "--codes belongs to DICOM" in refused(run, "scans/a", "-o", "masks", "--codes", "codes.yaml")
    assert "--page shows a NIfTI mask" in refused(run, "scans/a", "-o", "seg.dcm", "--page")
    assert "none.yaml cannot be read" in refused(run, "scans/a", "-o", "seg.dcm", "--codes", "none.yaml")
    assert "1 input(s) are none: ct.nii" in refused(run, "ct.nii", "-o", "seg.dcm")
    assert "ct.nii leaves nothing to choose" in refused(run, "ct.nii", "--series", "4")
    assert "case#4 leaves nothing to choose" in refused(run, "case#4", "--series", "4")
    assert file_names(Path()) == {"case", "scans", "ct.nii"}


def test_several_series_without_a_choice_and_an_unknown_one_are_failures_that_list_them(
    run: Path, case: list[Path]
) -> None:
    for arguments in ((), ("--series", "9")):
        done = spleen_predict(run, "case", "-o", "seg.dcm", *arguments)
        assert done.exit_code == 1
        assert "4: CT phantom, 24 slices" in done.output
        assert "5: CT phantom, 6 slices" in done.output
        assert not Path("seg.dcm").exists()


def test_the_current_folder_may_be_the_series(run: Path, case: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir("case")
    assert spleen_predict(run, ".", "--series", "5", "-o", "../seg.dcm").exit_code == 0
    assert Path("../seg.dcm").is_file()
