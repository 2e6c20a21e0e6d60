"""A segmentation for a node's prediction process; in a module of its own, so that the process starts quickly."""

import os
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from spleen.dicom.node.prediction import SegmentedSeries
from spleen.dicom.uids import uid_of

SEGMENTATION, REPORT = "1.2.840.10008.5.1.4.1.1.66.4", "1.2.840.10008.5.1.4.1.1.88.34"


@dataclass(frozen=True)
class Pretend:
    """Loads a segmentation that looks at nothing; the series' UID decides about the UIDs of its results."""

    seconds: float = 0.0
    needs_review: bool = False
    ending: str = ""
    """How it fails: "error", "crash" or "kill"."""

    def __call__(self) -> Callable[[Path, Path], SegmentedSeries]:
        return self.segment

    def segment(self, folder: Path, output: Path) -> SegmentedSeries:
        from pydicom import dcmread

        time.sleep(self.seconds)
        if self.ending == "error":
            raise ValueError("no such voxel")
        if self.ending == "crash":
            os._exit(3)
        if self.ending == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        files = sorted(folder.iterdir())
        source = dcmread(files[0], stop_before_pixels=True)
        written = []
        for name, sop_class, modality in (
            ("segmentation", SEGMENTATION, "SEG"),
            ("segmentation_report", REPORT, "SR"),
        ):
            source.SOPClassUID = source.file_meta.MediaStorageSOPClassUID = sop_class
            source.SOPInstanceUID = uid_of(source.StudyInstanceUID, *(path.name for path in files), modality)
            source.file_meta.MediaStorageSOPInstanceUID = source.SOPInstanceUID
            source.Modality = modality
            source.SeriesInstanceUID = uid_of(source.SOPInstanceUID)
            written.append(output / f"{name}.dcm")
            source.save_as(written[-1])
        return SegmentedSeries(tuple(written), self.needs_review, "small" if self.needs_review else "")
