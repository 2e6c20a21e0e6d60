"""Predictions as DICOM: `predict(runs, inputs, output, settings, writer=DicomResults())`."""

import importlib.util
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

from spleen.dicom.codes import CodeTable, codes_of, read_codes
from spleen.dicom.segmentation import Algorithm, Segment, build_segmentation, lenient
from spleen.dicom.uids import uid_maker
from spleen.dicom.volume_report import build_report
from spleen.errors import InputError
from spleen.imaging.classes import ClassMap, in_class
from spleen.imaging.dicom.header import read_header, read_whole, text
from spleen.imaging.dicom.location import is_series
from spleen.imaging.files import case_name
from spleen.imaging.geometry import restore_orientation
from spleen.imaging.native import NativeImage, is_whole, write_channels_like
from spleen.inference.outputs import PredictedImage, Target
from spleen.inference.views.view import View
from spleen.system.files import write_bytes
from spleen.system.text import shortened

if TYPE_CHECKING:
    from pydicom import Dataset

REPORT_SUFFIX = "_report"
_RESULTS = ("SEG", "SR", "")
# Pixel Data of a segmentation, Content Sequence of a report.
_LAST = (0x7FE00010, 0x0040A730)


@dataclass(frozen=True)
class DicomResults:
    """Each mask as a DICOM Segmentation, CASE.dcm, with a structured report of its volumes, CASE_report.dcm."""

    codes: CodeTable = field(default_factory=read_codes)
    """Of each class that is predicted; see `spleen.dicom.codes.read_codes`."""
    seed: str | None = None
    """With a seed, UIDs follow from it and the series, the same each time; without one, each result has new ones."""
    report: bool = True
    """Whether the volumes are written too."""

    suffixes = (".dcm",)

    def companions(self, target: Target) -> tuple[Path, ...]:
        """The report beside the mask."""
        return (report_path(target.mask),) if self.report else ()

    def check(self, targets: Sequence[Target], classes: ClassMap, _probabilities: bool) -> None:
        """Raise InputError for an input that is not DICOM, a class without code, and an output that is a source."""
        if importlib.util.find_spec("highdicom") is None:
            raise InputError("DICOM results need the package highdicom; install it with: pip install 'spleen[dicom]'")
        others = [path for target in targets for path in target.image.paths if not is_series(path)]
        if others:
            raise InputError(
                f"a DICOM segmentation refers to the slices of a DICOM series, and {len(others)} input(s) are none: "
                f"{shortened(others)}; give DICOM folders, or --format nifti"
            )
        codes_of(classes.names, self.codes)
        for path in (path for target in targets for path in (target.mask, *self.companions(target)) if path.exists()):
            if _modality(path) not in _RESULTS:
                raise InputError(f"{path} is a DICOM image and would be lost; give another --output, or move it away")

    def check_image(self, target: Target, image: NativeImage, probabilities: bool) -> None:
        """Raise InputError for probabilities of unevenly spaced slices, which are NIfTI and have no place for them."""
        if probabilities and image.series is not None and not image.series.stack.is_even:
            raise InputError(
                f"{target.image_path}: its slices are unevenly spaced, and probabilities are written as NIfTI, which "
                "has no place for them; leave --probabilities out"
            )

    def write(self, target: Target, image: NativeImage, predicted: PredictedImage, views: Sequence[View]) -> None:
        """Write the segmentation, the report, and the probabilities as NIfTI if there are any."""
        segmentation, report = self.build(image, predicted, views)
        if predicted.probabilities is not None:
            write_channels_like(target.probabilities, predicted.probabilities, image)
        for earlier in self.companions(target):  # a report never stands beside a segmentation that it does not mean
            with suppress(FileNotFoundError):
                earlier.unlink()
        write_dataset(target.mask, segmentation)
        if report is not None:
            write_dataset(report_path(target.mask), report)

    def build(
        self, image: NativeImage, predicted: PredictedImage, views: Sequence[View]
    ) -> tuple["Dataset", "Dataset | None"]:
        """The segmentation and its report in memory."""
        series = image.series
        assert series is not None  # by `check`
        names, regions = views[0].model.classes.names, views[0].model.classes.regions
        segments = [Segment(*each) for each in zip(names, codes_of(names, self.codes), strict=True)]
        algorithm = Algorithm(tuple(view.model.name for view in views))
        first = series.frames[0]
        make_uid = uid_maker(self.seed, series.uid, first.instance.sop_instance_uid, str(first.index))
        for_review = any(each.review for each in predicted.confidence)
        mask = restore_orientation(predicted.mask, image.file_affine)
        segmentation = build_segmentation(
            series, mask, segments, algorithm, make_uid, regions=regions, for_review=for_review
        )
        if not self.report:
            return segmentation, None
        numbered = enumerate(names, start=1)
        volumes = {name: image.volume_mm3(in_class(predicted.mask, number, regions)) for number, name in numbered}
        confidence = {each.class_name: each for each in predicted.confidence}
        report = build_report(
            series, segmentation, segments, volumes, confidence, algorithm, make_uid, for_review=for_review
        )
        return segmentation, report

    def is_whole(self, path: Path) -> bool:
        """Whether a file is there to its last byte."""
        if path.suffix.lower() not in self.suffixes:
            return is_whole(path)
        try:
            dataset = read_whole(path)
        except (InputError, OSError):
            return False
        if not (tags := [tag for tag in _LAST if tag in dataset]):
            return False
        last = dataset.get_item(tags[0])  # not parsed yet, so that it tells the length that it should have
        return len(last.value or b"") == getattr(last, "length", -1)


def report_path(mask: Path) -> Path:
    """The report of a segmentation."""
    return mask.with_name(f"{case_name(mask)}{REPORT_SUFFIX}.dcm")


def write_dataset(path: Path, dataset: "Dataset") -> None:
    """Write a DICOM file, complete or not at all."""
    buffer = BytesIO()
    with lenient():
        dataset.save_as(buffer, enforce_file_format=True)
    write_bytes(path, buffer.getbuffer())


def _modality(path: Path) -> str:
    """Empty for what is no DICOM file, or a damaged one."""
    try:
        return text([read_header(path, ("Modality",)).dataset], "Modality")
    except (InputError, OSError):
        return ""
