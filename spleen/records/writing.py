"""Writing split.json and summary.json."""

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

from spleen.data.splits.blocks import SliceSplit, SliceSplitSettings
from spleen.data.splits.cases import CaseSplit, CaseSplitSettings, Fold
from spleen.records.folder import RunFolder
from spleen.system.files import write_text
from spleen.system.nested import Json
from spleen.types import AxisName


def write_split(folder: Path, splits: Mapping[str, SliceSplit], axis: AxisName, settings: SliceSplitSettings) -> None:
    """Write the slices of each split, by case."""
    cases = {
        case_id: {name: list(indices) for name, indices in asdict(split).items()} for case_id, split in splits.items()
    }
    _write(folder, {"kind": "slice_blocks", "axis": axis, **asdict(settings), "cases": cases})


def write_case_split(
    folder: Path, split: CaseSplit, fold: Fold, settings: CaseSplitSettings, skipped: Mapping[str, str]
) -> None:
    """Write the cases of each split, and the reasons why others were skipped."""
    parts = {part: list(case_ids) for part, case_ids in asdict(split).items()}
    _write(folder, {"kind": "cases", "fold": fold, **asdict(settings), **parts, "skipped": dict(skipped)})


def _write(folder: Path, record: Mapping[str, object]) -> None:
    write_text(RunFolder(folder).split, json.dumps(record, indent=1, ensure_ascii=False) + "\n")


def write_summary(folder: Path, summary: Mapping[str, Json]) -> None:
    """Write summary.json atomically."""
    write_text(RunFolder(folder).summary, json.dumps(summary, indent=1, allow_nan=False, ensure_ascii=False) + "\n")
