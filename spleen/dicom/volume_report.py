"""The volumes of a segmentation as a structured report, Imaging Measurement Report (PS3.16 TID 1500)."""

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from spleen.dicom.codes import SIDES, Concept
from spleen.dicom.segmentation import (
    PRODUCT,
    RESEARCH_USE,
    Algorithm,
    Segment,
    coded,
    device_uid,
    equipment,
    lenient,
    series_description,
    series_number,
)
from spleen.dicom.source import instances
from spleen.dicom.uids import MakeUid
from spleen.imaging.dicom.series import Series
from spleen.inference.confidence import ClassConfidence

if TYPE_CHECKING:
    from pydicom import Dataset

_OWN = "99SPLEEN"
CONFIDENCE_SCORE = Concept("confidence-score", "Confidence score", _OWN)
REVIEW = Concept("needs-review", "Needs review", _OWN)
_YES, _NO = Concept("373066001", "Yes"), Concept("373067005", "No")
_VOLUME, _MILLILITRE = Concept("118565006", "Volume"), Concept("mL", "milliliter", "UCUM")
_ONE = Concept("1", "no units", "UCUM")
# CID 100, Quantitative Diagnostic Imaging Procedures.
_PROCEDURES = {"CT": "CTUnspecifiedBodyRegion", "MR": "MRIUnspecifiedBodyRegion"}


def build_report(
    series: Series,
    segmentation: "Dataset",
    segments: Sequence[Segment],
    volumes_mm3: Mapping[str, float],
    confidence: Mapping[str, ClassConfidence],
    algorithm: Algorithm,
    make_uid: MakeUid,
    *,
    for_review: bool = False,
) -> "Dataset":
    """A report of what a segmentation of `build_segmentation` holds; volumes and confidence are by class name.

    For each segment its volume in ml, its confidence score, 0 to 1, and whether it needs a review, with the reasons.
    """
    from highdicom.sr import Comprehensive3DSR

    with lenient():
        report: Dataset = Comprehensive3DSR(
            evidence=[segmentation, *instances(series, segmentation)],
            content=_content(series, segmentation, segments, volumes_mm3, confidence, algorithm),
            series_instance_uid=make_uid("report series"),
            sop_instance_uid=make_uid("report"),
            series_number=series_number(series.number, 2),
            instance_number=1,
            is_complete=True,
            is_final=False,
            series_description=series_description("Volumes", for_review),
            **equipment(),
        )
        # highdicom takes the maker of the first evidence, the segmentation, for the scanner.
        report.ContributingEquipmentSequence = [
            each for each in report.ContributingEquipmentSequence if each.Manufacturer != PRODUCT
        ]
    return report


def _content(
    series: Series,
    segmentation: "Dataset",
    segments: Sequence[Segment],
    volumes_mm3: Mapping[str, float],
    confidence: Mapping[str, ClassConfidence],
    algorithm: Algorithm,
) -> Any:
    from highdicom.sr import MeasurementReport, TextContentItem
    from pydicom.sr.codedict import codes

    groups = [
        _group(series, segmentation, number, segment, volumes_mm3[segment.name], confidence[segment.name], algorithm)
        for number, segment in enumerate(segments, start=1)
    ]
    content = MeasurementReport(
        observation_context=_observer(),
        procedure_reported=getattr(codes.cid100, _PROCEDURES.get(series.modality, "ImagingProcedure")),
        imaging_measurements=groups,
    )
    remark = TextContentItem(codes.DCM.Comment, f"{RESEARCH_USE}. {PRODUCT} {algorithm.version}", "CONTAINS")
    content[0].ContentSequence.append(remark)
    return content[0]


def _observer() -> Any:
    from highdicom.sr import DeviceObserverIdentifyingAttributes, ObservationContext, ObserverContext
    from pydicom.sr.codedict import codes

    made_by = equipment()
    device = DeviceObserverIdentifyingAttributes(
        uid=device_uid(),
        name=PRODUCT,
        manufacturer_name=made_by["manufacturer"],
        model_name=made_by["manufacturer_model_name"],
        serial_number=made_by["device_serial_number"],
    )
    return ObservationContext(observer_device_context=ObserverContext(codes.DCM.Device, device))


def _group(
    series: Series,
    segmentation: "Dataset",
    number: int,
    segment: Segment,
    volume_mm3: float,
    confidence: ClassConfidence,
    algorithm: Algorithm,
) -> Any:
    """The measurements of one segment (TID 1411)."""
    from highdicom.sr import (
        AlgorithmIdentification,
        Measurement,
        QualitativeEvaluation,
        ReferencedSegment,
        SourceSeriesForSegmentation,
        TextContentItem,
        TrackingIdentifier,
        VolumetricROIMeasurementsAndQualitativeEvaluations,
    )
    from pydicom.sr.codedict import codes

    measured = [Measurement(coded(_VOLUME), _rounded(volume_mm3 / 1000), coded(_MILLILITRE))]
    if not math.isnan(confidence.confidence_score):
        measured.append(Measurement(coded(CONFIDENCE_SCORE), _rounded(confidence.confidence_score), coded(_ONE)))
    description = segmentation.SegmentSequence[number - 1]
    group = VolumetricROIMeasurementsAndQualitativeEvaluations(
        tracking_identifier=TrackingIdentifier(uid=description.TrackingUID, identifier=description.TrackingID),
        referenced_segment=ReferencedSegment(
            segmentation.SOPClassUID,
            segmentation.SOPInstanceUID,
            number,
            source_series=SourceSeriesForSegmentation(series.uid),
        ),
        finding_category=coded(segment.code.category),
        finding_type=coded(segment.code.type),
        finding_sites=_sites(segment),
        algorithm_id=AlgorithmIdentification(algorithm.name, algorithm.version),
        measurements=measured,
        qualitative_evaluations=[QualitativeEvaluation(coded(REVIEW), coded(_YES if confidence.review else _NO))],
    )
    if confidence.reasons:
        group[0].ContentSequence.append(TextContentItem(codes.DCM.Comment, confidence.reasons, "CONTAINS"))
    return group


def _sites(segment: Segment) -> list[Any] | None:
    """Where a structure lies, if its code says the side or the end of it only by a modifier."""
    from highdicom.sr import FindingSite

    modifier = segment.code.modifier
    if modifier is None:
        return None
    kind = "laterality" if modifier in SIDES else "topographical_modifier"
    return [FindingSite(coded(segment.code.type), **{kind: coded(modifier)})]


def _rounded(value: float) -> float:
    """Six digits: what a decimal string holds, and more than is known."""
    return float(f"{value:.6g}")
