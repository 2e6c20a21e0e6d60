"""roi.json: the box in which a run with `roi_from` sees each of its cases."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from spleen.records.folder import RunFolder
from spleen.system.files import write_text


@dataclass(frozen=True)
class CaseBox:
    """The box of a case on its RAS grid, in voxels from `start` up to, but without, `stop`."""

    start: tuple[int, int, int]
    stop: tuple[int, int, int]
    shape: tuple[int, int, int]
    """Of the whole volume."""
    outside_fraction: float | None
    """Of the reference's organ voxels, the part beyond the box; None without any."""


@dataclass(frozen=True)
class RoiRecord:
    """The coarse run, and what it has found."""

    source: str
    checkpoint_sha256: str
    margin_mm: float
    classes: tuple[str, ...]
    """Those that the boxes surround; empty for all."""
    cases: Mapping[str, CaseBox | None]
    """By case_id; None where the coarse run has found nothing, so that the whole volume is used."""


def write_roi(folder: Path, record: RoiRecord) -> None:
    """Write roi.json atomically."""
    write_text(RunFolder(folder).roi, json.dumps(asdict(record), indent=1, ensure_ascii=False) + "\n")
