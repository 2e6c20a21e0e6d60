"""A mask as a DICOM Segmentation: on the slices of its source, segment by segment, with coded terms.

Frames without any foreground are left out, as is usual; of an empty mask they are all there, so that it is valid too.
"""

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import UInt8

from spleen import __version__
from spleen.dicom.codes import Concept, SegmentCode
from spleen.dicom.source import frame_headers, instances, refer_to_frames
from spleen.dicom.uids import MakeUid, uid_of
from spleen.imaging.classes import Regions, in_class
from spleen.imaging.dicom.series import Series

if TYPE_CHECKING:
    from pydicom import Dataset

RESEARCH_USE = "For research use only, not for diagnosis"
PRODUCT = "spleen"
_MOST_CHARACTERS = 64
_LARGEST_NUMBER = 2**31 - 1


@dataclass(frozen=True)
class Segment:
    """One class of a mask."""

    name: str
    code: SegmentCode


@dataclass(frozen=True)
class Algorithm:
    """What made a mask: the names of the runs, and the version of this program."""

    runs: tuple[str, ...]
    version: str = __version__

    @property
    def name(self) -> str:
        """The program and the runs, in the length that DICOM allows."""
        return f"{PRODUCT}: {', '.join(self.runs)}"[:_MOST_CHARACTERS]


def build_segmentation(
    series: Series,
    mask: UInt8[np.ndarray, "columns rows frames"],
    segments: Sequence[Segment],
    algorithm: Algorithm,
    make_uid: MakeUid,
    *,
    regions: Regions | None = None,
    for_review: bool = False,
) -> "Dataset":
    """A BINARY Segmentation of a mask whose values 1, 2, … are the `segments` and whose grid is that of the series.

    With `regions`, the segments overlap: each holds all voxels of its class, also those where another one is on top.
    Slices may be tilted or unevenly spaced: each frame lies where its own slice lies, and refers to it.
    `for_review` marks it in its series description. Raises InputError as `frame_headers` does.
    """
    from highdicom.seg import Segmentation

    with lenient():
        dataset: Dataset = Segmentation(
            source_images=frame_headers(series),
            pixel_array=_pixels(mask, len(segments), regions),
            segmentation_type="BINARY",
            omit_empty_frames=bool(mask.any()),
            segment_descriptions=[
                _description(number, segment, algorithm, make_uid) for number, segment in enumerate(segments, start=1)
            ],
            series_instance_uid=make_uid("segmentation series"),
            sop_instance_uid=make_uid("segmentation"),
            series_number=series_number(series.number, 1),
            instance_number=1,
            series_description=series_description("Segmentation", for_review),
            content_label="SEGMENTATION",
            content_description=RESEARCH_USE,
            content_creator_name=PRODUCT,
            **equipment(),
        )
        _set_organization(dataset, make_uid("dimensions"))
        _refer_to_source(dataset, series)
        pixels = dataset.Rows * dataset.Columns * dataset.NumberOfFrames
        dataset.PixelData = _padded(dataset.PixelData[: -(-pixels // 8)])
    return dataset


def series_number(source: str, result: int) -> int:
    """A number beside that of the source: 401 for the first result of series 4."""
    number = 100 * int(source) + result if source.isdecimal() else result
    return number if number <= _LARGEST_NUMBER else result


def series_description(what: str, for_review: bool) -> str:
    """What a list of series shows."""
    return f"{what} by {PRODUCT}, research use{', REVIEW' if for_review else ''}"


def equipment() -> dict[str, str]:
    """The device that made a result (Enhanced General Equipment, all values required)."""
    return {
        "manufacturer": PRODUCT,
        "manufacturer_model_name": PRODUCT,
        "software_versions": __version__,
        "device_serial_number": f"{PRODUCT}-{__version__}",
    }


def device_uid() -> str:
    """The UID of this version of the program."""
    return uid_of("device", __version__)


def coded(concept: Concept) -> Any:
    """A term as highdicom takes it."""
    from highdicom.sr import CodedConcept

    return CodedConcept(concept.value, concept.scheme, concept.meaning)


@contextmanager
def lenient() -> Iterator[None]:
    """Without pydicom's checks of values, which are the source's own, and without highdicom's remarks on them."""
    from pydicom.config import disable_value_validation

    with disable_value_validation(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _pixels(
    mask: UInt8[np.ndarray, "columns rows frames"], n_segments: int, regions: Regions | None
) -> UInt8[np.ndarray, "frames rows columns *segments"]:
    """The mask as highdicom takes it: segment numbers, or of overlapping segments a plane for each."""
    numbers = np.ascontiguousarray(mask.transpose(2, 1, 0))
    if regions is None:
        return numbers
    planes = np.empty((*numbers.shape, n_segments), np.uint8)
    for number in range(1, 1 + n_segments):
        planes[..., number - 1] = in_class(numbers, number, regions)
    return planes


def _description(number: int, segment: Segment, algorithm: Algorithm, make_uid: MakeUid) -> Any:
    from highdicom import AlgorithmIdentificationSequence
    from highdicom.color import CIELabColor
    from highdicom.seg import SegmentDescription
    from pydicom.sr.codedict import codes

    code = segment.code
    description = SegmentDescription(
        segment_number=number,
        segment_label=segment.name[:_MOST_CHARACTERS],
        segmented_property_category=coded(code.category),
        segmented_property_type=coded(code.type),
        algorithm_type="AUTOMATIC",
        algorithm_identification=AlgorithmIdentificationSequence(
            name=algorithm.name, family=codes.DCM.ArtificialIntelligence, version=algorithm.version
        ),
        tracking_id=segment.name[:_MOST_CHARACTERS],
        tracking_uid=make_uid(f"tracking {segment.name}"),
        display_color=None if code.color is None else CIELabColor.from_rgb(*code.color),
    )
    if code.modifier is not None:
        of_type = description.SegmentedPropertyTypeCodeSequence[0]
        of_type.SegmentedPropertyTypeModifierCodeSequence = [coded(code.modifier)]
    return description


def _padded(pixels: bytes) -> bytes:
    """An even number of bytes, as DICOM asks for; highdicom 0.28 pads with the digit 0 instead of a null."""
    return pixels + bytes(len(pixels) % 2)


def _set_organization(dataset: "Dataset", uid: str) -> None:
    """One UID for how frames are ordered, where highdicom makes a new one each time."""
    for item in (*dataset.DimensionOrganizationSequence, *dataset.DimensionIndexSequence):
        item.DimensionOrganizationUID = uid


def _refer_to_source(dataset: "Dataset", series: Series) -> None:
    from pydicom import Dataset

    groups = dataset.PerFrameFunctionalGroupsSequence
    derivations = chain.from_iterable(group.DerivationImageSequence for group in groups)
    refer_to_frames(list(chain.from_iterable(each.SourceImageSequence for each in derivations)), series.frames)
    references = []
    for instance in instances(series, dataset):
        reference = Dataset()
        reference.ReferencedSOPClassUID = instance.SOPClassUID
        reference.ReferencedSOPInstanceUID = instance.SOPInstanceUID
        references.append(reference)
    dataset.SourceImageSequence = references
    dataset.ReferencedSeriesSequence[0].ReferencedInstanceSequence = references
