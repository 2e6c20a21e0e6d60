"""An exploration as JSON (everything, nested) and as CSV (one row per case)."""

from collections.abc import Iterator, Mapping
from dataclasses import asdict

from spleen.exploration.explore import Exploration
from spleen.exploration.facts.above import AboveFacts
from spleen.exploration.facts.case import CaseFacts
from spleen.exploration.facts.dicom import DicomFacts
from spleen.exploration.facts.header import GeometryFacts, HeaderFacts
from spleen.exploration.facts.intensity import IntensityFacts
from spleen.exploration.facts.label import LabelFacts
from spleen.imaging.slicing import AXES
from spleen.reporting.numbers import Value, csv_text, json_text


def to_json(exploration: Exploration) -> str:
    """Every fact as strict JSON: `cases.<id>.…`, distributions, outliers, duplicates, suggestion and verdict.

    What is not known is null.
    """
    verdict = exploration.verdict
    content = {
        "cases": {case.case_id: _case(case) for case in exploration.cases},
        "organ": exploration.organ,
        "distributions": {each.name: _without(asdict(each), "name") for each in exploration.distributions},
        "outliers": [asdict(outlier) for outlier in exploration.outliers],
        "duplicates": [asdict(group) for group in exploration.duplicates],
        "suggestion": None if exploration.suggestion is None else asdict(exploration.suggestion),
        "verdict": {
            "n_errors": verdict.n_errors,
            "n_warnings": verdict.n_warnings,
            "findings": [asdict(finding) for finding in verdict.findings],
        },
    }
    return json_text(content)


def _case(case: CaseFacts) -> dict[str, object]:
    content = _without(asdict(case), "case_id")
    labels = content["labels"]
    if isinstance(labels, dict):
        content["labels"] = _without(labels, "organ_per_slice") | {
            f"n_{axis}_slices_with_organ": sum(count > 0 for count in counts)
            for axis, counts in zip(AXES, labels["organ_per_slice"], strict=True)
        }
    return content


def _without(content: Mapping[str, object], key: str) -> dict[str, object]:
    return {name: value for name, value in content.items() if name != key}


def to_csv(exploration: Exploration) -> str:
    """One row per case; a column that a case lacks is empty in its row."""
    rows = [_row(case, exploration) for case in exploration.cases]
    found = dict.fromkeys(name for row in rows for name in row)
    columns = [*(name for name in found if name not in _LAST), *_LAST]
    return csv_text(columns, [[row.get(name) for name in columns] for row in rows])


_LAST = ("stands_out_in", "errors", "warnings")


def _row(case: CaseFacts, exploration: Exploration) -> dict[str, Value]:
    row: dict[str, Value] = {
        "case_id": case.case_id,
        "image": str(case.image),
        "label": str(case.label) if case.label is not None else None,
    }
    if case.image_header is not None:
        row.update(_header(case.image_header))
    if case.intensity is not None:
        row.update(_intensity(case.intensity))
    if case.above is not None:
        row.update(_above(case.above))
    if case.labels is not None:
        row.update(_labels(case.labels))
    row["image_fingerprint"], row["label_fingerprint"] = case.image_fingerprint, case.label_fingerprint
    outliers = [outlier.quantity for outlier in exploration.outliers if outlier.case_id == case.case_id]
    row["stands_out_in"] = "; ".join(outliers)
    for severity in ("error", "warning"):
        topics = [finding.topic for finding in case.findings if finding.severity == severity]
        row[f"{severity}s"] = "; ".join(dict.fromkeys(topics))
    return row


def _header(header: HeaderFacts) -> Iterator[tuple[str, Value]]:
    yield "shape", "x".join(map(str, header.shape))
    for name in ("data_type", "bits_per_voxel", "scl_slope", "scl_inter", "spatial_unit", "temporal_unit"):
        yield name, getattr(header, name)
    if header.geometry is not None:
        yield from _geometry(header.geometry)
    if header.dicom is not None:
        yield from _dicom(header.dicom)


def _geometry(geometry: GeometryFacts) -> Iterator[tuple[str, Value]]:
    for name in ("orientation", "oblique_degrees", "shear_degrees", "sform_code", "qform_code", "form_distance_mm"):
        yield name, getattr(geometry, name)
    for plane in geometry.planes:
        yield f"{plane.axis}_array_axis", plane.array_axis
        yield f"{plane.axis}_slices", plane.n_slices
        yield f"{plane.axis}_spacing_mm", plane.spacing_mm


def _dicom(facts: DicomFacts) -> Iterator[tuple[str, Value]]:
    for name, value in asdict(facts).items():
        if name in ("elements", "identifying", "notes"):
            continue
        if isinstance(value, tuple):
            yield f"dicom_{name}", "\\".join(f"{each:.6g}" for each in value)
        else:
            yield f"dicom_{name}", value
    yield from ((element.keyword, element.value) for element in facts.identifying)


def _intensity(facts: IntensityFacts) -> Iterator[tuple[str, Value]]:
    yield "modality", facts.modality
    yield "n_not_finite", facts.n_not_finite
    yield "body_threshold", facts.body_threshold
    for part, spread in (("image", facts.whole), ("body", facts.body), ("organ", facts.organ)):
        if spread is not None:
            yield from ((f"{part}_{name}", value) for name, value in asdict(spread).items())


def _above(facts: AboveFacts) -> Iterator[tuple[str, Value]]:
    yield "above", facts.above
    yield "above_voxels", facts.n_voxels
    yield "above_components", facts.n_components
    for place in facts.highest[:1]:
        yield from zip(("above_highest_i", "above_highest_j", "above_highest_k"), place.voxel, strict=True)
        for direction, mm in zip(("right", "anterior", "superior"), place.position_mm, strict=True):
            yield f"above_highest_{direction}_mm", mm


def _labels(facts: LabelFacts) -> Iterator[tuple[str, Value]]:
    yield "label_values", " ".join(str(value.value) for value in facts.values)
    for value in facts.values:
        prefix = f"label_{value.value}"
        yield f"{prefix}_name", value.name
        yield f"{prefix}_voxels", value.n_voxels
        yield f"{prefix}_volume_mm3", value.volume_mm3
        yield f"{prefix}_components", value.n_components
        yield f"{prefix}_touches", " ".join(value.touches)
        for axis, extent in zip(AXES, value.extents, strict=True):
            yield f"{prefix}_{axis}_first", extent.first
            yield f"{prefix}_{axis}_last", extent.last
            yield f"{prefix}_{axis}_slices", extent.n_slices
