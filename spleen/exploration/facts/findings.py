"""Findings about one case: an error makes training wrong or impossible, a warning deserves a look."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

from spleen.exploration.facts.dicom import DicomFacts
from spleen.exploration.facts.header import NOT_SET, UNKNOWN_CODE, GeometryFacts, HeaderFacts
from spleen.exploration.facts.intensity import IntensityFacts
from spleen.exploration.facts.label import LabelFacts
from spleen.imaging.geometry import SHEARED_DEGREES, shear_note
from spleen.system.text import shortened

Severity = Literal["error", "warning", "note"]

_FORM_TOLERANCE_MM = 0.1
_PIXDIM_TOLERANCE = 0.01  # relative
_OBLIQUE_DEGREES = 10.0
_ANISOTROPY = 3.0  # nnU-Net, too, calls a grid anisotropic from here on
_FEW_VALUES = 32
_AIR_HU, _PADDING_HU = -950.0, -1100.0


@dataclass(frozen=True)
class Finding:
    """One thing found. Findings with the same topic are shown together."""

    severity: Severity
    topic: str
    message: str
    case_id: str | None = None
    """None for what concerns all cases together."""


def header_findings(header: HeaderFacts) -> Iterator[Finding]:
    """Warnings about the header of an image."""
    if header.spatial_unit == NOT_SET:
        yield Finding("warning", "spatial unit not set", "the header names no unit of length; mm is assumed")
    elif header.spatial_unit.startswith(UNKNOWN_CODE):
        yield Finding(
            "warning", "spatial unit not set", "the header's code for units (xyzt_units) has no meaning; mm is assumed"
        )
    elif header.spatial_unit != "mm":
        yield Finding(
            "warning", "unit other than mm", f"the header gives positions in {header.spatial_unit}; converted to mm"
        )
    if header.dicom is not None:
        yield from _series_findings(header.dicom)
    if header.geometry is not None:
        yield from _form_findings(header.geometry)
        yield from _grid_findings(header.geometry)


def _series_findings(facts: DicomFacts) -> Iterator[Finding]:
    for note in facts.notes:
        if facts.is_even:
            yield Finding("note", "positions count", note)
        else:
            yield Finding(
                "error",
                "uneven slices",
                f"{note}. A training needs a regular grid: resample it first; spleen predict reads it as it is",
            )


def _form_findings(geometry: GeometryFacts) -> Iterator[Finding]:
    if geometry.sform_code is None:
        return
    if not geometry.sform_code and not geometry.qform_code:
        yield Finding(
            "warning",
            "neither sform nor qform set",
            "the header does not define the patient orientation; sagittal, coronal and axial may be wrong",
        )
    if geometry.form_distance_mm is not None and geometry.form_distance_mm > _FORM_TOLERANCE_MM:
        yield Finding(
            "warning",
            "sform and qform disagree",
            f"they place the same voxel up to {geometry.form_distance_mm:.3g} mm apart; the sform is used here, other "
            "programs may use the qform",
        )
    pairs = zip(geometry.spacing_mm, geometry.pixdim_mm, strict=True)
    if any(abs(pixdim - spacing) > _PIXDIM_TOLERANCE * spacing for spacing, pixdim in pairs):
        yield Finding(
            "warning",
            "pixdim disagrees with the affine",
            f"pixdim says {_times(geometry.pixdim_mm)} mm, the affine {_times(geometry.spacing_mm)} mm; the affine is "
            "used here, other programs may use pixdim",
        )


def _grid_findings(geometry: GeometryFacts) -> Iterator[Finding]:
    if geometry.shear_degrees > SHEARED_DEGREES:
        yield Finding(
            "warning",
            "sheared grid",
            shear_note(geometry.shear_degrees),
        )
    if geometry.oblique_degrees > _OBLIQUE_DEGREES:
        yield Finding(
            "warning",
            "oblique grid",
            f"the array is rotated by {geometry.oblique_degrees:.1f}° from the patient axes; slices are roughly axial",
        )
    if geometry.anisotropy >= _ANISOTROPY:
        coarse = max(geometry.planes, key=lambda plane: plane.spacing_mm)
        yield Finding(
            "warning",
            "anisotropic grid",
            f"spacing {_times(geometry.spacing_mm)} mm ({geometry.anisotropy:.1f} : 1); only {coarse.axis} slices have "
            "the fine pixels",
        )


def intensity_findings(facts: IntensityFacts) -> Iterator[Finding]:
    """Errors and warnings about the intensities of an image."""
    if facts.n_not_finite:
        yield Finding(
            "error",
            "NaN or Inf",
            f"{facts.n_not_finite:,} of {facts.n_not_finite + facts.whole.n_voxels:,} voxels are NaN or Inf; replace "
            "them with a real intensity (in CT −1024, air)",
        )
    if facts.whole.minimum == facts.whole.maximum:
        yield Finding("error", "constant image", f"{facts.modality_reason}; it carries no information")
    elif facts.n_distinct is not None and facts.n_distinct <= _FEW_VALUES:
        yield Finding(
            "warning",
            "looks like a label map",
            f"only {facts.n_distinct} different values; if this is a label, give it with --label",
        )
    elif facts.modality == "unknown":
        yield Finding("warning", "unknown modality", facts.modality_reason)
    if facts.modality == "CT" and facts.whole.minimum < _PADDING_HU:
        yield Finding(
            "note",
            "padding below air",
            f"the smallest value is {facts.whole.minimum:g}, below air: padding around the scanner's field of view, "
            "harmless with intensity=ct".replace("-", "−"),
        )
    if facts.modality == "CT" and facts.organ is not None and facts.organ.median < _AIR_HU:
        yield Finding(
            "warning",
            "organ in air",
            f"half of the organ lies below {facts.organ.median:.0f} HU, which is air; is the label flipped?",
        )


def label_findings(facts: LabelFacts, organ: tuple[int, ...]) -> Iterator[Finding]:
    """Errors and warnings about a label; `organ` are the values asked for, if any."""
    if not facts.values:
        yield Finding("error", "empty label", "every voxel of the label is 0; there is no organ to train on")
    elif not facts.organ_voxels:
        present = shortened((value.value for value in facts.values), 12)
        wanted = ", ".join(map(str, organ))
        yield Finding("error", "organ absent", f"no voxel has the value {wanted}; the label holds {present}")
    for value in facts.values:
        if organ and value.value not in organ:
            continue
        if value.value < 0:
            yield Finding("warning", "negative label value", f"the label holds {value.value}; usually all are above 0")
        if value.touches:
            yield Finding(
                "warning",
                "label touches the border",
                f"{value.title} reaches the {_listed(value.touches)} of the volume; part of it may be cut off",
            )
        if value.n_components > 1:
            yield Finding(
                "warning",
                "label in several components",
                f"{value.title} has {value.n_components} separate components, the largest with "
                f"{_below_all(value.largest_component_fraction)} of it; stray voxels, unless the organ is paired",
            )


def unknown_value_findings(facts: LabelFacts, class_names: Mapping[int, str]) -> Iterator[Finding]:
    """An error if the label contains values that its dataset.json, if there is one, does not define."""
    unknown = [value.value for value in facts.values if value.value not in class_names]
    if class_names and unknown:
        yield Finding(
            "error",
            "unknown label value",
            f"the label contains {shortened(unknown, 12)}, but dataset.json defines {shortened(class_names, 12)}; "
            "correct one of them",
        )


def _listed(faces: tuple[str, ...]) -> str:
    return f"{', '.join(faces[:-1])} and {faces[-1]} ends" if len(faces) > 1 else f"{faces[0]} end"


def _times(lengths: tuple[float, ...]) -> str:
    return " × ".join(f"{length:.4g}" for length in lengths)


def _below_all(fraction: float) -> str:
    """A fraction in per cent that never rounds up to 100 %."""
    return "over 99.9 %" if fraction > 0.999 else f"{100 * fraction:.1f} %"
