"""A predicted segmentation lies on the slices of its series, and equals the mask that NIfTI gets of the same volume."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import highdicom
import nibabel as nib
import numpy as np
import pydicom
import pytest

from spleen.dicom.results import DicomResults
from spleen.dicom.write_series import write_series
from spleen.errors import InputError
from spleen.inference.predict import predict
from spleen.inference.record import read_record
from spleen.inference.settings import PredictSettings
from tests._helpers.dicom_results import class_indices, coded_run, ct_of, errors_of_dciodvfy, int16, sop_uids
from tests._helpers.nifti import ORIENTATIONS, ras_affine, save, stored_as
from tests._helpers.small_run import SPACING_MM, SmallCt
from tests._helpers.trained_runs import file_names, voxels

AFFINE = ras_affine(SPACING_MM)
# Rotated by 11°, -9° and 17°.
OBLIQUE = nib.affines.from_matvec(nib.eulerangles.euler2mat(0.2, -0.15, 0.3), [3, -2, 1]) @ AFFINE
# A gantry tilted by 15°: each slice lies a little further back than the one below.
TILTED = AFFINE.copy()
TILTED[1, 2] = -np.tan(np.radians(15)) * SPACING_MM[2]
UNEVEN = (*np.arange(10.0), *(9 + 1.3 * np.arange(1, 15)))
DICOM = DicomResults(seed="test")


@pytest.fixture(scope="module")
def ct(tmp_path_factory: pytest.TempPathFactory) -> SmallCt:
    return ct_of(tmp_path_factory)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return coded_run(tmp_path_factory)


@pytest.fixture(scope="module")
def series(ct: SmallCt, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Path]]:
    """The folder and the files of one axial series."""
    folder = tmp_path_factory.mktemp("series") / "case7"
    return folder, write_series(folder, int16(ct), AFFINE)


def to_nifti(run: Path, array: np.ndarray, affine: np.ndarray, folder: Path) -> np.ndarray:
    """The mask of a NIfTI file, as class indices: the training's label values are 3 (and 4) and 7."""
    folder.mkdir(parents=True, exist_ok=True)
    report = predict(run, save(folder / "ct.nii", array, affine), folder / "mask.nii.gz")
    assert report.failures == ()
    mask = voxels(folder / "mask.nii.gz")
    assert set(np.unique(mask)) == {0, 3, 7}
    return np.select([mask == 3, mask == 7], [1, 2])


# The same mask as in NIfTI ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("affine", "orientations"),
    [pytest.param(AFFINE, ORIENTATIONS, marks=pytest.mark.slow), (OBLIQUE, ORIENTATIONS[::7])],
    ids=["axis-aligned", "oblique"],
)
def test_in_every_orientation_the_segmentation_equals_the_mask_in_nifti(
    run: Path, ct: SmallCt, tmp_path: Path, affine: np.ndarray, orientations: list[str]
) -> None:
    coarse, affine = int16(ct)[1::3, 1::3, 1::3], affine @ np.diag([3, 3, 3, 1])  # a third of the files
    mask = to_nifti(run, coarse, affine, tmp_path / "nifti")
    files = {
        orientation: write_series(tmp_path / "scans" / orientation, *stored_as(orientation, coarse, affine))
        for orientation in orientations
    }
    report = predict(run, tmp_path / "scans", tmp_path / "masks", writer=DicomResults(report=False))
    assert (report.failures, len(report.cases)) == ((), len(files))
    for orientation, written in files.items():
        expected, _ = stored_as(orientation, mask, affine)
        found = class_indices(tmp_path / "masks" / f"{orientation}.dcm", sop_uids(written))
        np.testing.assert_array_equal(found, expected, err_msg=orientation)


def test_a_tilted_gantry_gives_the_mask_of_the_sheared_nifti_file(run: Path, ct: SmallCt, tmp_path: Path) -> None:
    files = write_series(tmp_path / "tilted", int16(ct), TILTED)
    assert predict(run, tmp_path / "tilted", tmp_path / "seg.dcm", writer=DICOM).failures == ()
    expected = to_nifti(run, int16(ct), TILTED, tmp_path / "nifti")
    np.testing.assert_array_equal(class_indices(tmp_path / "seg.dcm", sop_uids(files)), expected)
    _check_places(tmp_path / "seg.dcm", files)
    assert errors_of_dciodvfy(tmp_path / "seg.dcm") == errors_of_dciodvfy(tmp_path / "seg_report.dcm") == []


def test_uneven_slices_are_predicted_one_by_one_as_on_a_regular_grid(run: Path, ct: SmallCt, tmp_path: Path) -> None:
    files = write_series(tmp_path / "uneven", int16(ct), AFFINE, places=UNEVEN)
    assert predict(run, tmp_path / "uneven", tmp_path / "seg.dcm", writer=DICOM).failures == ()
    # The run looks at one axial slice at a time, so how far apart they are is nothing to it.
    expected = to_nifti(run, int16(ct), AFFINE, tmp_path / "nifti")
    np.testing.assert_array_equal(class_indices(tmp_path / "seg.dcm", sop_uids(files)), expected)
    _check_places(tmp_path / "seg.dcm", files)
    assert errors_of_dciodvfy(tmp_path / "seg.dcm") == errors_of_dciodvfy(tmp_path / "seg_report.dcm") == []
    # Voxels of 1.5 × 1.25 mm; a slice stands for coarse the way to each neighbour: 3 mm, 3.9 mm, and 3.45 mm between.
    slabs_mm = np.array([3.0] * 9 + [3.45] + [3.9] * 14)
    counts = (expected == 1).sum(axis=(0, 1))
    (row,) = [row for row in read_record(tmp_path / "predictions.csv") if row["class_name"] == "spleen"]
    assert float(row["volume_mm3"]) == pytest.approx(counts @ slabs_mm * 1.5 * 1.25, rel=1e-5)


def _check_places(segmentation: Path, files: list[Path]) -> None:
    """Each frame lies where the instance lies that it refers to."""
    sources = {each.SOPInstanceUID: each for each in map(pydicom.dcmread, files)}
    dataset = pydicom.dcmread(segmentation)
    (orientation,) = dataset.SharedFunctionalGroupsSequence[0].PlaneOrientationSequence
    for group in dataset.PerFrameFunctionalGroupsSequence:
        (reference,) = group.DerivationImageSequence[0].SourceImageSequence
        source = sources[reference.ReferencedSOPInstanceUID]
        assert group.PlanePositionSequence[0].ImagePositionPatient == source.ImagePositionPatient
        assert orientation.ImageOrientationPatient == source.ImageOrientationPatient


def test_an_enhanced_multi_frame_file_is_referred_to_frame_by_frame(
    run: Path, ct: SmallCt, series: tuple[Path, list[Path]], tmp_path: Path
) -> None:
    datasets = [pydicom.dcmread(path) for path in series[1]]
    enhanced = highdicom.legacy.LegacyConvertedEnhancedCTImage(
        datasets[::-1], "1.2.3.4", 9, "1.2.3.4.5", 1
    )  # its frames in another order than the stack
    enhanced.save_as(tmp_path / "scan.dcm")
    assert predict(run, tmp_path / "scan.dcm", tmp_path / "out", writer=DICOM).failures == ()
    assert file_names(tmp_path / "out") == {"scan.dcm", "scan_report.dcm", "predictions.csv"}
    positions = [
        frame.PlanePositionSequence[0].ImagePositionPatient[2] for frame in enhanced.PerFrameFunctionalGroupsSequence
    ]
    expected = to_nifti(run, int16(ct), AFFINE, tmp_path / "nifti")[:, :, np.argsort(positions).argsort()]
    read = highdicom.seg.segread(tmp_path / "out" / "scan.dcm")
    pixels = read.get_pixels_by_source_frame(
        "1.2.3.4.5", list(range(1, 25)), combine_segments=True, assert_missing_frames_are_empty=True
    )
    np.testing.assert_array_equal(np.asarray(pixels).transpose(2, 1, 0), expected)
    assert [str(each.ReferencedSOPInstanceUID) for each in read.SourceImageSequence] == ["1.2.3.4.5"]
    assert errors_of_dciodvfy(tmp_path / "out" / "scan.dcm") == []


# What is written ----------------------------------------------------------------------------------------------------


def test_segments_algorithm_and_study_are_named(run: Path, series: tuple[Path, list[Path]], tmp_path: Path) -> None:
    predict(run, series[0], tmp_path / "seg.dcm", writer=DICOM)
    dataset, source = pydicom.dcmread(tmp_path / "seg.dcm"), pydicom.dcmread(series[1][0])
    assert (dataset.Modality, dataset.SegmentationType, dataset.BitsAllocated) == ("SEG", "BINARY", 1)
    spleen, kidney = dataset.SegmentSequence
    for segment, label, code in ((spleen, "spleen", "78961009"), (kidney, "left_kidney", "64033007")):
        assert (segment.SegmentLabel, segment.SegmentAlgorithmType) == (label, "AUTOMATIC")
        assert segment.SegmentedPropertyTypeCodeSequence[0].CodeValue == code
        assert segment.SegmentedPropertyTypeCodeSequence[0].CodingSchemeDesignator == "SCT"
        assert segment.SegmentationAlgorithmIdentificationSequence[0].AlgorithmName == "spleen: coded"
        assert segment.SegmentationAlgorithmIdentificationSequence[0].AlgorithmVersion == "0.1.0"
        assert segment.TrackingID == label
    assert spleen.TrackingUID != kidney.TrackingUID
    (modifier,) = kidney.SegmentedPropertyTypeCodeSequence[0].SegmentedPropertyTypeModifierCodeSequence
    assert (modifier.CodeValue, modifier.CodeMeaning) == ("7771000", "Left")
    for keyword in ("PatientID", "PatientName", "StudyInstanceUID", "FrameOfReferenceUID", "StudyDate"):
        assert dataset[keyword].value == source[keyword].value
    (referred,) = dataset.ReferencedSeriesSequence
    assert referred.SeriesInstanceUID == source.SeriesInstanceUID
    assert [each.ReferencedSOPInstanceUID for each in referred.ReferencedInstanceSequence] == sop_uids(series[1])
    assert (dataset.SeriesNumber, dataset.SeriesDescription[:22]) == (101, "Segmentation by spleen")
    assert "research use" in dataset.SeriesDescription
    assert errors_of_dciodvfy(tmp_path / "seg.dcm") == []


def test_a_seed_gives_the_same_uids_and_none_gives_new_ones(
    run: Path, series: tuple[Path, list[Path]], tmp_path: Path
) -> None:
    def uids(name: str, seed: str | None) -> list[str]:
        predict(run, series[0], tmp_path / name / "seg.dcm", writer=DicomResults(seed=seed))
        read = [pydicom.dcmread(tmp_path / name / file) for file in ("seg.dcm", "seg_report.dcm")]
        found = [str(each[keyword].value) for each in read for keyword in ("SOPInstanceUID", "SeriesInstanceUID")]
        segments = [segment.TrackingUID for segment in read[0].SegmentSequence]
        return [*found, *segments, read[0].DimensionOrganizationSequence[0].DimensionOrganizationUID]

    first, again, other, new = uids("a", "s"), uids("b", "s"), uids("c", "t"), uids("d", None)
    assert first == again
    assert len({*first, *other, *new, *uids("e", None)}) == 4 * len(first)


def test_an_empty_mask_is_a_valid_segmentation_of_nothing(run: Path, ct: SmallCt, tmp_path: Path) -> None:
    files = write_series(tmp_path / "case", int16(ct), AFFINE)
    nothing = PredictSettings(min_volume_mm3=1e9)
    assert predict(run, tmp_path / "case", tmp_path / "seg.dcm", nothing, writer=DICOM).failures == ()
    assert not class_indices(tmp_path / "seg.dcm", sop_uids(files)).any()
    assert errors_of_dciodvfy(tmp_path / "seg.dcm") == errors_of_dciodvfy(tmp_path / "seg_report.dcm") == []


def test_a_series_whose_header_breaks_the_standard_gets_valid_results(run: Path, ct: SmallCt, tmp_path: Path) -> None:
    for path in write_series(tmp_path / "case", int16(ct), AFFINE):
        dataset = pydicom.dcmread(path)
        dataset.SpecificCharacterSet = "ISO_IR 100"
        dataset.PatientName = "Müller^Jürgen"
        for keyword in ("FrameOfReferenceUID", "AccessionNumber", "StudyID", "ReferringPhysicianName", "SeriesNumber"):
            delattr(dataset, keyword)
        with pydicom.config.disable_value_validation():
            dataset.PatientSex, dataset.StudyDate, dataset.StudyTime = "X", "1.4.1999", "noon"
            dataset.save_as(path)
    assert predict(run, tmp_path / "case", tmp_path / "seg.dcm", writer=DICOM).failures == ()
    for name in ("seg.dcm", "seg_report.dcm"):
        found = pydicom.dcmread(tmp_path / name)
        assert str(found.PatientName) == "Müller^Jürgen"
        assert (found.PatientSex, found.StudyDate, found.StudyTime) == ("", "", "")
        assert found.FrameOfReferenceUID if name == "seg.dcm" else True
        assert errors_of_dciodvfy(tmp_path / name) == []


# Refused before anything is computed --------------------------------------------------------------------------------


def refused(match: str, *arguments, writer: DicomResults = DICOM, **settings) -> None:
    def advance(*_: object) -> None:
        raise AssertionError("a slice was predicted")

    with pytest.raises(InputError, match=match):
        predict(*arguments, PredictSettings(**settings), advance, writer)


def test_what_cannot_be_written_is_refused(
    run: Path, ct: SmallCt, series: tuple[Path, list[Path]], tmp_path: Path
) -> None:
    folder, _ = series
    image = save(tmp_path / "ct.nii", int16(ct), AFFINE)
    refused(r"1 input\(s\) are none: .*ct\.nii; give DICOM folders", run, [folder, image], tmp_path / "out")
    renamed = {"spleen": "tail of the lion"}
    refused(
        r"no DICOM code is known for 'tail of the lion'.*--codes my_codes\.yaml.*line for each.*segment_codes\.yaml",
        run, folder, tmp_path / "out", rename_classes=renamed,
    )  # fmt: skip
    write_series(tmp_path / "other", int16(ct)[:, :, :4], AFFINE, series_number=2)
    refused(
        r"2 images cannot all become the one file .*seg\.dcm", run, [folder, tmp_path / "other"], tmp_path / "seg.dcm"
    )
    refused(r"seg\.nii\.gz: a mask is written as \.dcm", run, folder, tmp_path / "seg.nii.gz")
    assert file_names(tmp_path) == {"ct.nii", "other"}


def test_a_source_is_never_overwritten(run: Path, ct: SmallCt, tmp_path: Path) -> None:
    first, *_ = write_series(tmp_path / "case", int16(ct), AFFINE)
    content = first.read_bytes()
    refused(r"IM0001\.dcm is a DICOM image and would be lost", run, tmp_path / "case", first, overwrite=True)
    assert first.read_bytes() == content
    # A result may lie beside its source, though.
    for _ in range(2):
        settings = PredictSettings(overwrite=True)
        assert not predict(run, tmp_path / "case", tmp_path / "case" / "seg.dcm", settings, writer=DICOM).failures


def test_probabilities_are_nifti_and_refused_for_uneven_slices(
    run: Path, ct: SmallCt, series: tuple[Path, list[Path]], tmp_path: Path
) -> None:
    write_series(tmp_path / "uneven", int16(ct), AFFINE, places=UNEVEN)
    done: list[str] = []
    report = predict(
        run, [series[0], tmp_path / "uneven"], tmp_path / "out", PredictSettings(probabilities=True),
        lambda case, *_: done.append(case), DICOM,
    )  # fmt: skip
    (failure,) = report.failures
    assert "uneven: its slices are unevenly spaced, and probabilities are written as NIfTI" in failure.reason
    assert "uneven" not in done
    assert file_names(tmp_path / "out") == {
        "case7.dcm", "case7_report.dcm", "case7_probabilities.nii.gz", "predictions.csv"
    }  # fmt: skip
    assert voxels(tmp_path / "out" / "case7_probabilities.nii.gz").shape == (48, 40, 24, 2)


# Files --------------------------------------------------------------------------------------------------------------


def test_only_what_is_missing_damaged_or_without_report_is_predicted_again(
    run: Path, series: tuple[Path, list[Path]], tmp_path: Path
) -> None:
    def predicted(**settings: bool) -> tuple[int, int]:
        report = predict(run, series[0], tmp_path, PredictSettings(**settings), writer=DICOM)
        assert report.failures == ()
        return len(report.cases), report.kept

    mask, report = tmp_path / "case7.dcm", tmp_path / "case7_report.dcm"
    assert predicted() == (1, 0)
    with pytest.raises(InputError, match="1 of 1 outputs exist already"):
        predicted()
    whole = mask.read_bytes(), report.read_bytes()
    assert predicted(skip_existing=True) == (0, 1)
    report.unlink()
    assert predicted(skip_existing=True) == (1, 0)
    mask.write_bytes(whole[0][:-40])
    assert predicted(skip_existing=True) == (1, 0)
    report.write_bytes(whole[1][:-40])
    assert predicted(skip_existing=True) == (1, 0)
    assert predicted(skip_existing=True) == (0, 1)
    assert file_names(tmp_path) == {"case7.dcm", "case7_report.dcm", "predictions.csv"}
    assert {row["prediction"] for row in read_record(tmp_path / "predictions.csv")} == {"case7.dcm"}


def test_without_highdicom_the_error_says_what_to_install(
    run: Path, series: tuple[Path, list[Path]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "highdicom", None)  # makes the import fail
    refused(r"need the package highdicom.*pip install 'spleen\[dicom\]'", run, series[0], tmp_path / "seg.dcm")


# By dcmqi -------------------------------------------------------------------------------------------------------------


def on_grid(path: Path, affine: np.ndarray) -> np.ndarray:
    """The indices, on the grid with this affine, of the voxels of a mask; dcmqi leaves out the slices without any."""
    image = nib.load(path)
    here = np.linalg.inv(affine) @ image.affine
    indices = nib.affines.apply_affine(here, np.argwhere(np.asarray(image.dataobj)))
    np.testing.assert_allclose(indices, np.rint(indices), atol=1e-3)
    return np.unique(np.rint(indices).astype(int), axis=0)


@pytest.mark.parametrize("affine", [AFFINE, OBLIQUE], ids=["axis-aligned", "oblique"])
def test_dcmqi_reads_the_voxels_of_the_nifti_mask(run: Path, ct: SmallCt, tmp_path: Path, affine: np.ndarray) -> None:
    program = shutil.which("segimage2itkimage", path=f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    if program is None:
        pytest.skip("dcmqi is not installed (pip install dcmqi)")
    write_series(tmp_path / "case", int16(ct), affine)
    assert predict(run, tmp_path / "case", tmp_path / "seg.dcm", writer=DICOM).failures == ()
    assert predict(run, tmp_path / "case", tmp_path / "mask.nii.gz").failures == ()
    (tmp_path / "read").mkdir()
    subprocess.run(
        [program, "--inputDICOM", tmp_path / "seg.dcm", "--outputDirectory", tmp_path / "read", "-t", "nii"],
        check=True, capture_output=True,
    )  # fmt: skip
    mask = nib.load(tmp_path / "mask.nii.gz")
    for number, value in ((1, 3), (2, 7)):
        expected = np.argwhere(voxels(tmp_path / "mask.nii.gz") == value)
        assert len(expected) > 100
        np.testing.assert_array_equal(on_grid(tmp_path / "read" / f"{number}.nii.gz", mask.affine), expected)
