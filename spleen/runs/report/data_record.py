"""What a run records for its page: slices.csv, and data.json with geometry and a histogram."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float

from spleen.data.loading.batches import CaseSlices
from spleen.data.loading.datamodule import SPLITS, SliceDataModule
from spleen.data.store.entry import StoredCase
from spleen.imaging.intensity import CtWindow, Intensity, MrPercentiles, ZScore
from spleen.imaging.labels import IGNORED
from spleen.records.folder import RunFolder
from spleen.records.slices import SliceRow, write_slices
from spleen.system.files import write_text
from spleen.system.nested import Json
from spleen.training.scores import SCORED_SPLITS, ScoredSplit
from spleen.training.slice_counts import SliceCount

_BINS = 80
_MOST_PLANES = 48  # of the histogram: enough for its shape, and read within milliseconds

Values = Float[np.ndarray, " _"]


def record_slices(
    run_folder: Path,
    data: SliceDataModule,
    counts: Mapping[ScoredSplit, list[SliceCount]],
    class_names: tuple[str, ...],
) -> None:
    """Write slices.csv from the counts of each split."""
    write_slices(run_folder, _slice_rows(data, counts, class_names))


def _slice_rows(
    data: SliceDataModule, counts: Mapping[ScoredSplit, list[SliceCount]], class_names: tuple[str, ...]
) -> Iterator[SliceRow]:
    for split in SCORED_SPLITS:
        cases = data.cases_in(split)
        for count in _with_outside(data.slices(split), counts.get(split, ())):
            yield SliceRow(
                split,
                cases[count.case_index].case_id,
                class_names[count.class_index - 1],
                count.slice_index,
                count.reference_voxels,
                count.prediction_voxels,
                count.overlap_voxels,
            )


def _with_outside(parts: Sequence[CaseSlices], counts: Sequence[SliceCount]) -> Iterator[SliceCount]:
    """The counts by the slices of the whole volumes, with the organ beyond the boxes of the cases, which is missed."""
    if all(part.case.box is None for part in parts):
        yield from counts
        return
    of_place: dict[tuple[int, int, int], SliceCount] = {}
    for count in counts:
        slice_index = count.slice_index + parts[count.case_index].case.first_slice
        of_place[count.case_index, slice_index, count.class_index] = replace(count, slice_index=slice_index)
    for case_index, part in enumerate(parts):
        outside = part.case.outside_of(part.indices)
        if outside is None:
            continue
        for slice_index, organ in np.argwhere(outside[:, 1:]).tolist():
            place = case_index, slice_index, organ + 1
            count = of_place.get(place, SliceCount(*place, 0, 0, 0))
            missed = int(outside[slice_index, organ + 1])
            of_place[place] = replace(count, reference_voxels=count.reference_voxels + missed)
    yield from sorted(of_place.values())


def record_data(run_folder: Path, data: SliceDataModule, intensity: Intensity) -> None:
    """Write data.json: shape, spacing and slices of every case, and the histogram of the first training case."""
    content: dict[str, Json] = {"cases": [_geometry(data, number) for number in range(len(data.cases))]}
    if training := data.cases_in("train"):
        content["histogram"] = _histogram(training[0], intensity)
    write_text(RunFolder(run_folder).data, json.dumps(content, allow_nan=False, ensure_ascii=False) + "\n")


def _geometry(data: SliceDataModule, number: int) -> Json:
    case, split = data.cases[number], data.splits[number]
    slices: dict[str, Json] = {name: len(getattr(split, name)) for name in SPLITS}
    height, width = case.reference.shape[1:]
    return {
        "case_id": case.case_id,
        "axis": case.axis,
        "slices": len(case.reference),
        "plane_voxels": [height, width],
        "spacing_mm": [float(f"{each:.7g}") for each in case.spacing_mm],  # between slices, rows, columns
        "network_pixels": list(case.grid.padded),
        "foreground_slices": int(case.foreground.sum()),
        "split_slices": {**slices, "guard": len(split.guard)},
    }


def _histogram(case: StoredCase, intensity: Intensity) -> Json:
    """Counts of pixels on the network's grid over the window, for the whole image and for all classes together.

    The ends of the window also count what lies beyond them. Slices with the organ come first, evenly chosen.
    """
    chosen = np.flatnonzero(case.foreground) if case.foreground.any() else np.arange(case.n_slices)
    chosen = chosen[:: -(-len(chosen) // _MOST_PLANES)]
    height, width = case.grid.resampled
    image = case.images[chosen, 0, :height, :width].astype(np.float32)
    labels = case.labels[chosen, :height, :width]
    organ = (labels > 0) & (labels != IGNORED)
    limit, level, scale, unit = _window(intensity)
    return {
        "case_id": case.case_id,
        "unit": unit,
        "low": level - limit * scale,
        "high": level + limit * scale,
        "planes": len(chosen),
        "image": _counts(image, np.ones_like(organ), limit),
        "organ": _counts(image, organ, limit),
    }


def _window(intensity: Intensity) -> tuple[float, float, float, str]:
    """Limit of the normalised intensities, and level, scale and unit that turn these back into those of the file."""
    match intensity:
        case CtWindow():
            return 1.0, intensity.window_level, intensity.window_width / 2, "HU"
        case MrPercentiles():
            return 1.0, 0.0, 1.0, "normalised"
        case ZScore():
            return intensity.clip, 0.0, 1.0, "standard deviations"


def _counts(image: Float[np.ndarray, "n h w"], region: Bool[np.ndarray, "n h w"], limit: float) -> Json:
    values: Values = image[region]
    within = values[np.abs(values) < limit]
    bins, _ = np.histogram(within, _BINS, (-limit, limit))
    below, above = int((values <= -limit).sum()), int((values >= limit).sum())
    return {"below": below, "above": above, "counts": bins.tolist()}
