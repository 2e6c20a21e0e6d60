"""Everything about one case: both headers, the intensities, the label, and what is wrong with them."""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from jaxtyping import Num

from spleen.errors import InputError
from spleen.exploration.facts.above import AboveFacts, above_facts
from spleen.exploration.facts.findings import (
    Finding,
    header_findings,
    intensity_findings,
    label_findings,
    unknown_value_findings,
)
from spleen.exploration.facts.header import HeaderFacts
from spleen.exploration.facts.intensity import IntensityFacts, intensity_facts
from spleen.exploration.facts.label import LabelFacts, label_facts, organ_mask
from spleen.exploration.facts.reading import ReadFile, read_image_file, read_label_file
from spleen.exploration.inputs import CaseFiles
from spleen.imaging.fingerprint import fingerprint
from spleen.imaging.foreign import looks_like_label, swapped
from spleen.imaging.geometry import GRID_TOLERANCE_MM, check_same_grid
from spleen.imaging.nifti import Volume
from spleen.imaging.slicing import AXES
from spleen.types import MaskVolume

_NO_LABEL = ReadFile(None, None, ())


@dataclass(frozen=True)
class CaseFacts:
    """What was found out about one case. What could not be read is None, and the findings say why."""

    case_id: str
    image: Path
    label: Path | None
    image_header: HeaderFacts | None
    label_header: HeaderFacts | None
    intensity: IntensityFacts | None
    labels: LabelFacts | None
    image_fingerprint: str | None
    """Hash of shape and intensities on the RAS grid: the same for a renamed, recompressed or reoriented copy."""
    label_fingerprint: str | None
    findings: tuple[Finding, ...]
    above: AboveFacts | None = None
    """The voxels above a value, where one was asked for."""
    ignore_value: int | None = None
    """The label value of voxels that nobody has labelled; None for none."""

    @property
    def is_sound(self) -> bool:
        """Whether nothing about it is an error."""
        return all(finding.severity != "error" for finding in self.findings)

    @property
    def organ_volume_mm3(self) -> float:
        """Volume of the organ; 0 without a label."""
        return self.labels.organ_voxels * self.labels.voxel_mm3 if self.labels is not None else 0.0


def explore_case(
    files: CaseFiles,
    organ: tuple[int, ...] = (),
    above: float | None = None,
    identifying: bool = False,
    ignore_value: int | None = None,
    channels: bool = False,
) -> CaseFacts:
    """Read one case and collect its facts. Nothing wrong with its files raises: it becomes a finding.

    `organ` are the label values that make up the organ, by default all but 0; the voxels above `above` are looked for,
    if it is given; `identifying` adds what identifies the patient in DICOM. Voxels with `ignore_value` are no part of
    any organ. With `channels` the image may have several in its fourth dimension, and the facts are those of the first.
    Needs about 22 bytes per voxel.
    """
    image = read_image_file(files.image, identifying, channels)
    label = read_label_file(files.label, image.volume) if files.label is not None else _NO_LABEL
    label, ignored = _without_ignored(label, ignore_value)
    apart = _grids_apart(image.volume, label.volume, files)
    labels = label_facts(label.volume, organ, files.class_names, ignored) if label.volume is not None else None
    intensity = _intensity(image.volume, None if apart else label.volume, organ)
    findings = [*image.findings, *label.findings, *apart, *_swapped(image, label, files)]
    if image.header is not None:
        findings += header_findings(image.header)
    if intensity is not None:
        findings += intensity_findings(intensity)
    elif image.volume is not None:
        findings.append(Finding("error", "NaN or Inf", "every voxel of the image is NaN or Inf"))
    if labels is not None:
        findings += label_findings(labels, organ)
        findings += unknown_value_findings(labels, files.class_names)
        if ignored is not None:
            findings.append(_partly_labelled(ignored, labels, ignore_value))
    return CaseFacts(
        case_id=files.case_id,
        image=files.image,
        label=files.label,
        image_header=image.header,
        label_header=label.header,
        intensity=intensity,
        labels=labels,
        image_fingerprint=_fingerprint(image.volume, np.float32),
        label_fingerprint=_fingerprint(label.volume, np.int32),
        findings=tuple(replace(finding, case_id=files.case_id) for finding in findings),
        above=above_facts(image.volume, above) if above is not None and image.volume is not None else None,
        ignore_value=ignore_value,
    )


def _without_ignored(label: ReadFile, ignore_value: int | None) -> tuple[ReadFile, MaskVolume | None]:
    """The label with background where it is ignored, and where that is."""
    if label.volume is None or ignore_value is None:
        return label, None
    ignored: MaskVolume = label.volume.array == ignore_value
    array = np.where(ignored, 0, label.volume.array)
    return replace(label, volume=replace(label.volume, array=array)), ignored


def _partly_labelled(ignored: MaskVolume, labels: LabelFacts, ignore_value: int | None) -> Finding:
    labelled = ", ".join(
        f"{total - len(unlabelled)} of {total} {axis}"
        for unlabelled, total, axis in zip(labels.unlabelled_slices, ignored.shape, AXES, strict=True)
    )
    known = 100 * (1 - ignored.mean())
    note = f"{known:.3g} % of the voxels are not {ignore_value}; slices with a label: {labelled}"
    return Finding("note", "partly labelled", note)


def _swapped(image: ReadFile, label: ReadFile, files: CaseFiles) -> list[Finding]:
    if files.label is None or image.volume is None or not looks_like_label(image.volume.array):
        return []
    read = label.volume or read_image_file(files.label).volume  # a label of fractions is not read as one
    if read is None or looks_like_label(read.array):
        return []
    return [Finding("error", "image and label swapped", swapped(files.image, files.label))]


def _grids_apart(image: Volume | None, label: Volume | None, files: CaseFiles) -> list[Finding]:
    if image is None or label is None:
        return []
    try:
        check_same_grid(
            (image.array.shape, label.array.shape),
            (image.affine, label.affine),
            GRID_TOLERANCE_MM,
            (str(files.image), str(files.label)),
        )
    except InputError as error:
        return [Finding("error", "grids disagree", str(error))]
    return []


def _intensity(image: Volume | None, label: Volume | None, organ: tuple[int, ...]) -> IntensityFacts | None:
    if image is None:
        return None
    within: Num[np.ndarray, " m"] | None = None
    if label is not None:
        within = image.array[organ_mask(label.array, organ)]
    return intensity_facts(image.array, within)


def _fingerprint(volume: Volume | None, dtype: type[np.number]) -> str | None:
    return None if volume is None else fingerprint([volume.array], dtype)[:32]
