"""The facts about one case in words, the same for terminal, page and picture."""

import math
from collections import Counter
from collections.abc import Sequence

from spleen.exploration.above_wording import above_in_set, above_in_words
from spleen.exploration.facts.case import CaseFacts
from spleen.exploration.facts.dicom import dicom_rows
from spleen.exploration.facts.findings import Finding
from spleen.exploration.facts.header import NOT_SET, GeometryFacts, HeaderFacts
from spleen.exploration.facts.label import Extent
from spleen.exploration.outliers import Distribution, kinds_of
from spleen.exploration.suggestion.suggest import Suggestion
from spleen.exploration.verdict import Verdict
from spleen.reporting.numbers import format_number
from spleen.system.text import shortened

_DIRECTIONS = {
    "R": "Right", "L": "Left", "A": "Anterior", "P": "Posterior", "S": "Superior", "I": "Inferior",
}  # fmt: skip
# Meaning of the sform and qform codes: https://nifti.nimh.nih.gov/nifti-1/documentation/nifti1fields/nifti1fields_pages/qsform.html
_FORM_CODES = {1: "scanner", 2: "aligned", 3: "Talairach", 4: "MNI 152", 5: "template"}
_OBLIQUE_DEGREES, _SHEAR_DEGREES = 0.1, 0.1
_SAME, _NEARLY = 1 + 1e-6, 1.01
_MOST_COUNTED = 4


def facts_of(case: CaseFacts) -> list[tuple[str, str]]:
    """Name and value of each fact of the image: file, shape, data type, units, grid, orientation, modality."""
    header = case.image_header
    facts = [("image", str(case.image))]
    if case.label is not None:
        facts.append(("label", str(case.label) + _label_storage(case)))
    if header is None:
        return facts
    facts += [
        ("file", f"{_format(header)}, {size_in_words(header.file_bytes)}"),
        ("shape", f"{times(header.shape)} voxels"),
        ("data type", _data_type(header)),
        ("units", f"space: {header.spatial_unit}, time: {header.temporal_unit}"),
    ]
    if header.geometry is not None:
        facts += [
            ("grid spacing", _spacing(header.geometry, header.dicom is None or header.dicom.is_even)),
            ("orientation", _orientation(header.geometry.orientation)),
        ]
        if header.dicom is None:
            facts.append(("sform, qform", _forms(header.geometry)))
    if header.dicom is not None:
        facts += dicom_rows(header.dicom)
    if case.intensity is not None:
        facts.append(("modality", f"{case.intensity.modality}: {case.intensity.modality_reason}"))
    return facts + above_in_words(case)


def whose_suggestion(suggestion: Suggestion, n_cases: int) -> str:
    """What is trained with the suggested settings, of several cases that were explored."""
    if suggestion.n_cases == 1:
        return f"for the most typical case, {suggestion.case_id}"
    how_many = "all" if suggestion.n_cases == n_cases else "the valid"
    return f"for {how_many} {suggestion.n_cases} cases, judged on the most typical, {suggestion.case_id}"


def facts_of_set(cases: Sequence[CaseFacts]) -> list[tuple[str, str]]:
    """Name and values of what can be counted over several cases."""
    headers = [case.image_header for case in cases if case.image_header is not None]
    facts = [("shape", _shapes([header.shape for header in headers]))]
    facts += [(name, _counted(Counter(kinds.values()))) for name, kinds in kinds_of(cases).items()]
    facts.append(("spatial unit", _counted(Counter(header.spatial_unit for header in headers))))
    devices = [f"{header.dicom.manufacturer} {header.dicom.model}".strip() for header in headers if header.dicom]
    if devices:
        facts.append(("DICOM device", _counted(Counter(device or "not said" for device in devices))))
    return facts + above_in_set(cases)


def _shapes(shapes: Sequence[tuple[int, ...]]) -> str:
    counts = Counter(times(shape) for shape in shapes)
    if len(counts) <= _MOST_COUNTED or len({len(shape) for shape in shapes}) > 1:
        return _counted(counts)
    ranges = (f"{min(sizes)}–{max(sizes)}" for sizes in zip(*shapes, strict=True))
    return f"{' × '.join(ranges)}, {len(counts)} different ones"


def _counted(counts: Counter[str]) -> str:
    """Values with the number of cases that have them, the most frequent first."""
    if len(counts) == 1:
        return next(iter(counts))
    shown = "; ".join(f"{value} ({counted(count, 'case')})" for value, count in counts.most_common(_MOST_COUNTED))
    return shown + (f"; {len(counts) - _MOST_COUNTED} others" if len(counts) > _MOST_COUNTED else "")


def _label_storage(case: CaseFacts) -> str:
    header = case.label_header
    if header is None:
        return ""
    text = f" ({header.data_type}, {header.bits_per_voxel} bits"
    geometry, image = header.geometry, case.image_header
    if geometry is not None and image is not None and image.geometry is not None:
        same = geometry.orientation == image.geometry.orientation
        text += "" if same else f"; stored {geometry.orientation}"
    return text + ")"


def _format(header: HeaderFacts) -> str:
    return header.format if header.dicom is None else f"DICOM, {counted(header.dicom.n_files, 'file')}"


def _data_type(header: HeaderFacts) -> str:
    scaling = "no scaling"
    if math.isnan(header.scl_slope):
        scaling = "each slice scaled by its own slope and intercept"
    elif (header.scl_slope, header.scl_inter) != (1.0, 0.0):
        scaling = f"scaled: stored value × {header.scl_slope:g} + {header.scl_inter:g}"
    return f"{header.data_type}, {header.bits_per_voxel} bits per voxel, {scaling}"


def _spacing(geometry: GeometryFacts, is_even: bool) -> str:
    spacing, regular = geometry.spacing_mm, "regular" if is_even else "on the mean of uneven slices"
    if geometry.is_isotropic:
        kind = f"{regular}, isotropic" + ("" if geometry.anisotropy < _SAME else " but for rounding")
    else:
        ratio = f"{geometry.anisotropy:.1f}" if geometry.anisotropy < 100 else f"{geometry.anisotropy:.0f}"
        kind = f"{regular}, anisotropic {ratio} : 1"
        first, second, _ = sorted(spacing)
        if _SAME < second / first < _NEARLY:
            kind += f" (two spacings differ slightly, {first:.8g} and {second:.8g} mm)"
    turned = "aligned with the body"
    if geometry.oblique_degrees > _OBLIQUE_DEGREES:
        turned = f"oblique by {geometry.oblique_degrees:.1f}°"
    if geometry.shear_degrees > _SHEAR_DEGREES:
        turned += f", sheared by {geometry.shear_degrees:.1f}°"
    return f"{times(spacing)} mm; {kind}, {turned}"


def _orientation(codes: str) -> str:
    return f"{codes}: array axes 0, 1, 2 run to the patient's " + ", ".join(_DIRECTIONS[code] for code in codes)


def _forms(geometry: GeometryFacts) -> str:
    def said(code: int | None) -> str:
        return f"{code} ({_FORM_CODES.get(code, 'unknown code')})" if code else NOT_SET

    text = f"sform {said(geometry.sform_code)}, qform {said(geometry.qform_code)}"
    if geometry.form_distance_mm is None:
        return text
    return f"{text}; at most {format_number(round(geometry.form_distance_mm, 4))} mm apart"


def name_with_unit(distribution: Distribution) -> str:
    """The name of a quantity as a heading."""
    return f"{distribution.name} ({distribution.unit})" if distribution.unit else distribution.name


def times(sizes: Sequence[float]) -> str:
    """Sizes as 512 × 512 × 90."""
    return " × ".join(f"{size:.6g}" for size in sizes)


def counted(number: int, word: str) -> str:
    """1 error, 2 errors."""
    return f"{number} {word}{'s' * (number != 1)}"


def verdict_in_words(verdict: Verdict) -> str:
    """How many errors and warnings, and of how many kinds where the same ones come again."""
    kinds = len({finding.topic for finding in verdict.findings if finding.severity == "warning"})
    text = f"{counted(verdict.n_errors, 'error')}, {counted(verdict.n_warnings, 'warning')}"
    return f"{text} of {counted(kinds, 'kind')}" if kinds < verdict.n_warnings else text


def distinct_messages(group: Sequence[Finding], n_cases: int) -> list[str]:
    """The messages of findings of one topic, each once, with the cases that it is about unless these are all."""
    cases: dict[str, list[str]] = {}
    for finding in group:
        cases.setdefault(finding.message, []).extend([finding.case_id] if finding.case_id is not None else [])
    return [
        message if len(case_ids) in (0, n_cases) else f"{shortened(case_ids, 3)}: {message}"
        for message, case_ids in cases.items()
    ]


def size_in_words(n_bytes: int) -> str:
    """A number of bytes as kB or MB, of a thousand and a million bytes."""
    return f"{n_bytes / 1e6:,.1f} MB" if n_bytes >= 1e6 else f"{n_bytes / 1e3:,.1f} kB"


def extent_in_words(extent: Extent) -> str:
    """Slices as 12–47, and how many hold the value if there are gaps."""
    span = extent.last - extent.first + 1
    gaps = f" ({extent.n_slices} of {span})" if extent.n_slices < span else ""
    return f"{extent.first}–{extent.last}{gaps}"
