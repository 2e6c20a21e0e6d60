"""`spleen explore` on DICOM: what it tells of a series by its headers, and that nothing of the patient gets out."""

import csv
import json
import math

import numpy as np
import pydicom
import pytest
from pydicom.uid import RLELossless
from typer.testing import CliRunner

from spleen.cli.main import app
from spleen.dicom.write_series import write_series
from spleen.exploration.explore import explore
from spleen.exploration.facts.case import explore_case
from spleen.exploration.inputs import CaseFiles
from tests._helpers.nifti import ras_affine

SHAPE = (24, 20, 6)
SECRETS = {
    "PatientName": "Muster^Erika", "PatientID": "ID-48151623", "PatientBirthDate": "19590427", "AccessionNumber":
    "ACC-7741", "InstitutionName": "Klinikum Nirgendwo", "ReferringPhysicianName": "Haus^Gregor", "StudyDate":
    "20230219", "StudyDescription": "Abdomen Erika M", "SeriesDescription": "Milz von Erika", "StationName": "RAUM17",
    "OperatorsName": "Schmitt^A", "DeviceSerialNumber": "SN-90210", "PatientComments": "Cousine von Hans",
}  # fmt: skip


def voxels():
    return np.random.default_rng(0).integers(-1000, 900, SHAPE).astype(np.int16)


def edited(files, **elements):
    """Set elements of all files."""
    for file in files:
        dataset = pydicom.dcmread(file)
        for keyword, value in elements.items():
            setattr(dataset, keyword, value)
        dataset.save_as(file)


def series(folder, **options):
    files = write_series(folder, voxels(), options.pop("affine", ras_affine()), **options)
    edited(files, **SECRETS)
    return files


def case_of(folder, **options):
    return explore_case(CaseFiles("case", folder, None), **options)


def topics(case, severity):
    return [finding.topic for finding in case.findings if finding.severity == severity]


def run(*arguments):
    return CliRunner().invoke(app, ["explore", *map(str, arguments)])


def test_the_headers_of_a_series_become_facts(tmp_path):
    files = series(tmp_path / "scan1")
    edited(files, Manufacturer="Maker", ManufacturerModelName="Model 7", BitsStored=12, HighBit=11)
    edited(files, SpacingBetweenSlices=2.5, GantryDetectorTilt=0)
    header = case_of(tmp_path / "scan1").image_header
    assert (header.format, header.shape) == ("DICOM", SHAPE)
    assert header.file_bytes == sum(file.stat().st_size for file in files)
    assert (header.data_type, header.bits_per_voxel) == ("uint16", 16)
    assert (header.scl_slope, header.scl_inter) == (1, -1024)
    facts = header.dicom
    assert (facts.modality, facts.manufacturer, facts.model) == ("CT", "Maker", "Model 7")
    assert (facts.sop_class, facts.transfer_syntax) == ("CT Image Storage", "Explicit VR Little Endian")
    assert (facts.n_files, facts.n_frames) == (6, 6)
    assert facts.photometric_interpretation == "MONOCHROME2"
    assert (facts.bits_allocated, facts.bits_stored, facts.high_bit, facts.is_signed) == (16, 12, 11, False)
    assert (facts.rescale_slope, facts.rescale_intercept) == ((1, 1), (-1024, -1024))
    # RAS to LPS turns the first two axes around; the origin of `ras_affine` is (-31, 12.5, 40), 5 mm between slices.
    assert facts.image_orientation == (-1, 0, 0, 0, -1, 0)
    assert (facts.position_low_mm, facts.position_high_mm) == ((31, -12.5, 40), (31, -12.5, 65))
    assert facts.apart_mm == pytest.approx((5, 5))
    assert (facts.slice_thickness_mm, facts.spacing_between_slices_mm) == ((5, 5), (2.5, 2.5))
    assert (facts.tilt_degrees, facts.declared_tilt_degrees) == (0, 0)


def test_elements_are_listed_by_tag_with_the_first_and_last_value_where_slices_differ(tmp_path):
    series(tmp_path / "scan1")
    elements = {each.keyword: each for each in case_of(tmp_path / "scan1").image_header.dicom.elements}
    assert elements["ImagePositionPatient"].tag == "(0020,0032)"
    assert elements["ImagePositionPatient"].value == r"31\-12.5\40 … 31\-12.5\65 (6 different)"
    assert (elements["PixelSpacing"].tag, elements["PixelSpacing"].value) == ("(0028,0030)", r"0.8\0.8")
    assert (elements["RescaleIntercept"].tag, elements["RescaleIntercept"].value) == ("(0028,1052)", "-1024")
    assert "SpacingBetweenSlices" not in elements


def test_the_tilt_of_a_gantry_is_measured_by_the_positions(tmp_path):
    affine = ras_affine()
    affine[1, 2] = 5 * math.tan(math.radians(12))
    edited(series(tmp_path / "scan1", affine=affine), GantryDetectorTilt=-12)
    case = case_of(tmp_path / "scan1")
    facts = case.image_header.dicom
    assert facts.tilt_degrees == pytest.approx(12, abs=1e-3)
    assert facts.declared_tilt_degrees == -12
    assert facts.apart_mm == pytest.approx((5, 5))
    assert "sheared grid" in topics(case, "warning")
    assert "12.0° by the positions; Gantry/Detector Tilt -12°" in run(tmp_path / "scan1").output


def test_slices_with_scales_of_their_own_are_said_to_have_them(tmp_path):
    files = series(tmp_path / "scan1")
    edited(files[:1], RescaleSlope=2)
    header = case_of(tmp_path / "scan1").image_header
    assert math.isnan(header.scl_slope)
    assert header.dicom.rescale_slope == (1, 2)
    text = run(tmp_path / "scan1", "--json", tmp_path / "a.json").output
    assert "each slice scaled by its own slope and intercept" in " ".join(text.split())
    assert json.loads((tmp_path / "a.json").read_text())["cases"]["scan1"]["image_header"]["scl_slope"] is None


def test_uneven_slices_are_a_finding_and_the_rest_is_told(tmp_path):
    series(tmp_path / "scan1", places=[0, 1, 2, 3, 4.3, 5.3])
    case = case_of(tmp_path / "scan1")
    assert topics(case, "error") == ["uneven slices"]
    assert case.image_header.dicom.apart_mm == pytest.approx((5, 6.5))
    assert case.intensity.whole.n_voxels == np.prod(SHAPE)
    assert "on the mean of uneven slices" in " ".join(run(tmp_path / "scan1").output.split())


def test_a_slice_thickness_that_contradicts_the_positions_is_noted(tmp_path, caplog):
    series(tmp_path / "scan1", thickness_mm=7.5)
    case = case_of(tmp_path / "scan1")
    assert "positions count" in topics(case, "note")
    assert caplog.records == []  # said once


def test_a_series_that_cannot_be_stacked_is_an_error_of_the_verdict(tmp_path):
    files = series(tmp_path / "a" / "scan1")
    series(tmp_path / "a" / "whole")
    files[2].unlink()
    done = run(tmp_path / "a")
    assert done.exit_code == 1
    assert "1 slice(s) are missing" in " ".join(done.output.split())


def test_a_compressed_transfer_syntax_is_named(tmp_path):
    files = series(tmp_path / "scan1")
    for file in files:
        dataset = pydicom.dcmread(file)
        dataset.compress(RLELossless, generate_instance_uid=False)
        dataset.save_as(file)
    assert case_of(tmp_path / "scan1").image_header.dicom.transfer_syntax == RLELossless.name


# The patient --------------------------------------------------------------------------------------------------------


def outputs_of(tmp_path, *arguments):
    """Everything that is printed and written."""
    names = {"--csv": "a.csv", "--json": "a.json", "--output": "a.html", "--png": "a.svg"}
    options = [each for option, name in names.items() for each in (option, tmp_path / name)]
    done = run(*arguments, *options)
    return {"text": done.output} | {
        name: (tmp_path / name).read_text() for name in names.values() if (tmp_path / name).exists()
    }


def test_nothing_of_the_patient_is_told_unless_asked_for(tmp_path):
    files = series(tmp_path / "scan1")
    found = outputs_of(tmp_path, tmp_path / "scan1")
    assert found.keys() == {"text", "a.csv", "a.json", "a.html", "a.svg"}
    dataset = pydicom.dcmread(files[0])
    uids = {each: str(dataset[each].value) for each in ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID")}
    for keyword, secret in (SECRETS | uids).items():
        for name, content in found.items():
            assert secret not in content, f"{keyword} in {name}"
            assert secret.split("^")[0] not in content, f"{keyword} in {name}"


def test_with_identifying_everything_of_the_patient_is_told(tmp_path):
    series(tmp_path / "scan1")
    found = outputs_of(tmp_path, tmp_path / "scan1", "--identifying")
    (row,) = csv.DictReader(found["a.csv"].splitlines())
    elements = json.loads(found["a.json"])["cases"]["scan1"]["image_header"]["dicom"]["identifying"]
    in_json = {each["keyword"]: each["value"] for each in elements}
    for keyword, secret in SECRETS.items():
        assert secret in found["text"]
        assert secret in found["a.html"]
        assert row[keyword] == in_json[keyword] == secret


def test_the_listing_of_several_series_leaves_out_descriptions_and_times(tmp_path):
    for number, time in ((1, "101112"), (2, "131415")):
        folder = tmp_path / "part" / str(number)
        edited(series(folder, series_number=number), AcquisitionTime=time)
    double = series(tmp_path / "part" / "3", series_number=3)
    edited(double, AcquisitionTime="161718")
    edited(series(tmp_path / "part" / "4", series_number=3, seed="other"), AcquisitionTime="192021")
    uid = pydicom.dcmread(double[0]).SeriesInstanceUID
    edited((tmp_path / "part" / "4").iterdir(), SeriesInstanceUID=uid)  # told apart by the time alone
    (tmp_path / "study").mkdir()
    for number, file in enumerate(sorted((tmp_path / "part").rglob("*.dcm"))):
        file.rename(tmp_path / "study" / f"{number}.dcm")
    done = run(tmp_path / "study")
    assert done.exit_code == 2
    assert "holds several series; choose one with --series" in done.output
    for secret in ("101112", "161718", "192021", "Erika"):
        assert secret not in done.output
    assert "3:2" in done.output


# Choosing -----------------------------------------------------------------------------------------------------------


def two_series(folder):
    for number in (1, 2):
        for file in series(folder / "part", series_number=number):
            file.rename(folder / f"{number}_{file.name}")
    (folder / "part").rmdir()
    return folder


def test_a_series_is_chosen_by_its_number(tmp_path):
    folder = two_series(tmp_path / "study")
    found = explore(f"{folder}#2")
    assert found.cases[0].image_header.dicom.n_files == 6
    chosen = run(folder, "--series", "2")
    assert chosen.output.startswith("study_2")
    assert "DICOM, 6 files" in chosen.output
    assert "has no series 7; it has:" in run(folder, "--series", "7").output


def test_of_many_folders_one_with_several_series_is_an_error_of_the_verdict(tmp_path):
    two_series(tmp_path / "cases" / "a")
    series(tmp_path / "cases" / "b")
    found = explore(tmp_path / "cases")
    assert [topics(case, "error") for case in found.cases] == [["several series"], []]
    assert "Erika" not in str(found)


def test_series_needs_a_folder_to_choose_in(tmp_path):
    folder = two_series(tmp_path / "study")
    done = run(f"{folder}#1", "--series", "2")
    assert done.exit_code == 2
    assert "leaves nothing to choose" in done.output
