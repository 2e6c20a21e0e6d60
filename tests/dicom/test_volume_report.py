"""The report says what a reader can count by hand, in the terms of TID 1500."""

import math
from pathlib import Path

import highdicom
import numpy as np
import pydicom
import pytest

from spleen.dicom.results import DicomResults, report_path
from spleen.dicom.write_series import write_series
from spleen.imaging.classes import ClassMap
from spleen.imaging.files import ImageFiles
from spleen.imaging.native import read_native
from spleen.inference.confidence import ClassConfidence
from spleen.inference.outputs import PredictedImage, Target
from tests._helpers.dicom_results import errors_of_dciodvfy
from tests._helpers.handmade import Places, view
from tests._helpers.nifti import counting, ras_affine


def confidence(name: str, score: float, reasons: str = "") -> ClassConfidence:
    return ClassConfidence(name, 1.0, 1, 1.0, score, math.nan, 1.0, score, bool(reasons), reasons)


@pytest.fixture
def written(tmp_path: Path) -> tuple[Path, Path]:
    """A segmentation of 6 spleen voxels and 2 of the right kidney, and its report."""
    return written_of(tmp_path, ((1,), (2,)))


def written_of(tmp_path: Path, values: tuple[tuple[int, ...], ...]) -> tuple[Path, Path]:
    """The same with these label values of both.

    Voxels of 0.8 × 0.8 mm; slices at 0, 5 and 20 mm, which stand for 5, 10 and 15 mm of the patient.
    """
    write_series(tmp_path / "case", counting(dtype=np.int16), ras_affine(), places=[0, 1, 4], thickness_mm=12)
    image = read_native(tmp_path / "case")
    mask = np.zeros(image.shape, np.uint8)
    mask[1:4, 2, 0], mask[1:3, 2, 1], mask[1, 2, 2] = 1, 1, 1
    mask[4, 5:7, 2] = 2
    names = ("Spleen", "kidney right")
    scores = confidence("Spleen", 0.93), confidence("kidney right", 0.4, "fragmented mask (0.40)")
    trained = view(Places(), "axial", 8)
    object.__setattr__(trained.model.spec.preprocessing, "classes", ClassMap(names, values))
    target = Target(ImageFiles("case", (tmp_path / "case",)), tmp_path / "seg.dcm")
    DicomResults().write(target, image, PredictedImage(mask, None, scores, None), [trained])
    return target.mask, report_path(target.mask)


def test_volumes_scores_and_reviews_are_in_the_report(written: tuple[Path, Path]) -> None:
    segmentation, report = (pydicom.dcmread(path) for path in written)
    read = highdicom.sr.srread(written[1])
    groups = read.content.get_volumetric_roi_measurement_groups()
    spleen, kidney = groups
    # 3 voxels in the first slice, 2 in the second, 1 in the third: (3 × 5 + 2 × 10 + 1 × 15) mm × 0.64 mm² = 32 mm³.
    assert values(spleen) == {"Volume": (0.032, "mL"), "Confidence score": (0.93, "1")}
    # 2 voxels in the third slice: 2 × 15 mm × 0.64 mm² = 19.2 mm³.
    assert values(kidney) == {"Volume": (0.0192, "mL"), "Confidence score": (0.4, "1")}
    needs_review = highdicom.sr.CodedConcept("needs-review", "99SPLEEN", "Needs review")
    reviews = [group.get_qualitative_evaluations(needs_review) for group in groups]
    assert [evaluation.value.meaning for (evaluation,) in reviews] == ["No", "Yes"]
    assert [group.finding_type.value for group in groups] == ["78961009", "64033007"]
    (site,) = kidney.finding_sites
    assert (site.topographical_modifier, site.laterality.meaning) == (None, "Right")
    for number, group in enumerate(groups, start=1):
        (referred,) = group.referenced_segment[0].ReferencedSOPSequence
        assert referred.ReferencedSOPInstanceUID == segmentation.SOPInstanceUID
        assert referred.ReferencedSegmentNumber == number
        assert group.tracking_uid == segmentation.SegmentSequence[number - 1].TrackingUID
    evidence = report.CurrentRequestedProcedureEvidenceSequence[0].ReferencedSeriesSequence
    assert len(evidence) == 2  # the segmentation and its source
    texts = [each.value for each in report.iterall() if each.keyword == "TextValue"]
    assert "For research use only, not for diagnosis. spleen 0.1.0" in texts
    assert "fragmented mask (0.40)" in texts
    assert (report.SoftwareVersions, report.SeriesNumber) == ("0.1.0", 102)
    assert report.SeriesDescription.endswith("REVIEW")
    assert (report.CompletionFlag, report.VerificationFlag, report.PreliminaryFlag) == (
        "COMPLETE", "UNVERIFIED", "PRELIMINARY",
    )  # fmt: skip
    assert report.StudyInstanceUID == segmentation.StudyInstanceUID


def test_the_volume_of_a_region_counts_all_its_voxels(tmp_path: Path) -> None:
    """As if the kidney were a part of the spleen, which then has its 19.2 mm³ besides its own 32."""
    _, report = written_of(tmp_path, ((1, 2), (2,)))
    spleen, kidney = highdicom.sr.srread(report).content.get_volumetric_roi_measurement_groups()
    assert values(spleen)["Volume"] == (0.0512, "mL")
    assert values(kidney)["Volume"] == (0.0192, "mL")


def values(group: highdicom.sr.VolumetricROIMeasurementsAndQualitativeEvaluations) -> dict[str, tuple[float, str]]:
    return {each.name.meaning: (float(each.value), each.unit.value) for each in group.get_measurements()}


def test_the_report_is_valid(written: tuple[Path, Path]) -> None:
    assert errors_of_dciodvfy(written[0]) == errors_of_dciodvfy(written[1]) == []
