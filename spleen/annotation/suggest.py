"""Which slices of a scan to label next."""

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from spleen.annotation.labelled import UNKNOWN_VALUE, SparseLabel, check_unknown_value, read_sparse_label
from spleen.annotation.numbering import SliceNumbering, number_slices, parse_axis
from spleen.annotation.spread import body_span, organ_span, spread_slices
from spleen.annotation.uncertainty import predict_slices, slice_entropy_mm2, uncertain_slices
from spleen.errors import InputError
from spleen.imaging.dicom.volume import check_even
from spleen.imaging.geometry import plane_distances_mm
from spleen.imaging.native import NativeImage, read_native, write_like
from spleen.imaging.slicing import AXES
from spleen.inference.predict import Paths, listed
from spleen.reporting.csv_text import to_csv_by_name
from spleen.reporting.tables import Cell, Column, render_table
from spleen.types import AxisName

_COLUMNS = ("slice_index", "position_mm", "distance_mm", "entropy_mm2", "reason")


@dataclass(frozen=True)
class SuggestedSlice:
    """One slice to label."""

    slice_index: int
    """Its number, from 0, in the array of the file that the suggestion is numbered by."""
    position_mm: float
    """World coordinate of its centre along the axis, towards right, anterior or superior."""
    distance_mm: float | None
    """To the nearest slice that is labelled or suggested, with a run: suggested before; None without any."""
    entropy_mm2: float | None
    """Predictive entropy summed over the slice; None without a run."""
    reason: str


@dataclass(frozen=True)
class SliceSuggestion:
    """Slices to label next; without a run in their order along the axis, with one the most important first."""

    numbered_by: Path
    """The file whose array numbers the slices: the label if there is one, else the image."""
    axis: AxisName
    array_axis: int
    """The axis of that array, from 0."""
    n_slices: int
    labelled: tuple[int, ...]
    """Slices that are labelled already, in the same numbering."""
    slices: tuple[SuggestedSlice, ...]

    def to_text(self) -> str:
        """A table for the terminal."""
        title = f"{self.axis} slices of {self.numbered_by.name} to label next"
        listed = ",".join(str(each.slice_index) for each in sorted(self.slices, key=lambda each: each.slice_index))
        return (
            f"{suggestion_table(title, self.slices)}\n"
            f"slices count from 0 along axis {self.array_axis} of the file's array; {len(self.labelled)} of "
            f"{self.n_slices} are labelled\nin their order: {listed}"
        )

    def to_csv(self) -> str:
        """One row per slice."""
        return to_csv_by_name(_COLUMNS, [asdict(each) for each in self.slices])

    def to_json(self) -> str:
        """All fields."""
        content = {**asdict(self), "numbered_by": str(self.numbered_by)}
        return json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def suggestion_table(title: str, slices: Sequence[SuggestedSlice]) -> str:
    """The slices as a table for the terminal, with their entropy where a run has given it."""
    has_entropy = any(each.entropy_mm2 is not None for each in slices)
    columns = [Column("slice"), Column("mm", ".1f"), Column("distance mm", ".1f")]
    rows: list[list[Cell]] = []
    for each in slices:
        entropy: list[Cell] = [each.entropy_mm2] if has_entropy else []
        rows.append([each.slice_index, each.position_mm, each.distance_mm, *entropy, each.reason])
    if has_entropy:
        columns.append(Column("entropy mm²", ".1f"))
    return render_table(title, [*columns, Column("why")], rows)


def suggest_slices(
    image: str | Path,
    label: str | Path | None = None,
    *,
    runs: Paths = (),
    n_slices: int = 8,
    axis: str | None = None,
    ignore_value: int = UNKNOWN_VALUE,
    drawn: Sequence[int] | None = None,
    advance: Callable[[int], None] = lambda _: None,
    allow_custom_code: bool = False,
) -> SliceSuggestion:
    """Suggest `n_slices` slices of an image to label next.

    Without `runs`, slices are spread evenly: over the body in a scan without a label, and where the organ can be, up to
    the nearest labelled slices without it, in a label of which some slices are drawn (see `read_sparse_label` for
    `ignore_value` and `drawn`). With `runs`, those slices come first of which the prediction is least sure and which
    are far from those labelled. `axis` is coronal by default, or that of the label. `allow_custom_code` builds
    networks of any class that `runs` name.
    Raises InputError for files that do not fit, and for more slices than are left.
    """
    image_path = Path(image)
    chosen_axis = None if axis is None else parse_axis(axis)
    check_unknown_value(ignore_value)
    if n_slices < 1:
        raise InputError(f"the number of slices must be at least 1; got {n_slices}")
    native = read_scan(image_path)
    sparse = None
    if label is not None:
        sparse = read_sparse_label(Path(label), image_path, native, ignore_value, chosen_axis, drawn)
    elif drawn is not None:
        raise InputError("a list of drawn slices belongs to a label; give the label too")
    numbering = sparse.numbering if sparse else number_slices(
        native.shape, native.affine, native.file_affine, chosen_axis or "coronal"
    )  # fmt: skip
    labelled = sparse.labelled if sparse else ()
    if n_slices > numbering.n_slices - len(labelled):
        raise InputError(
            f"{n_slices} slices were asked for, but of the {numbering.n_slices} {numbering.axis} slices only "
            f"{numbering.n_slices - len(labelled)} are not labelled; ask for fewer"
        )
    if runs:
        predicted = predict_slices(listed(runs, "run"), image_path, advance, allow_custom_code=allow_custom_code)
        entropy = slice_entropy_mm2(predicted.probabilities, native.affine, numbering.axis)
        found = by_uncertainty(np.asarray(entropy), numbering, n_slices, labelled)
    else:
        found = _by_spread(native, sparse, numbering, n_slices)
    return SliceSuggestion(
        numbered_by=sparse.path if sparse else image_path,
        axis=numbering.axis,
        array_axis=numbering.array_axis,
        n_slices=numbering.n_slices,
        labelled=tuple(sorted(numbering.file_index(index) for index in labelled)),
        slices=tuple(found),
    )


def read_scan(path: Path) -> NativeImage:
    """Read an image of one channel on a regular grid; raises InputError for anything else."""
    image = read_native(path)
    if image.series is not None:
        check_even(image.series, path)
    return image


def _by_spread(
    native: NativeImage, sparse: SparseLabel | None, numbering: SliceNumbering, n_slices: int
) -> list[SuggestedSlice]:
    labelled = sparse.labelled if sparse else ()
    chosen: dict[int, str] = {}
    for span, reason in _spans(native, sparse, numbering):
        free = spread_slices(n_slices - len(chosen), span, {*labelled, *chosen})
        chosen.update(dict.fromkeys(free, reason))
    known, step_mm = {*labelled, *chosen}, _step_mm(numbering)
    found = []
    for index in sorted(chosen, key=numbering.file_index):
        others = known - {index}
        distance = round(min(abs(index - other) for other in others) * step_mm, 2) if others else None
        position = round(numbering.position_mm(index), 2)
        found.append(SuggestedSlice(numbering.file_index(index), position, distance, None, chosen[index]))
    return found


def _spans(
    native: NativeImage, sparse: SparseLabel | None, numbering: SliceNumbering
) -> list[tuple[tuple[int, int], str]]:
    """Where to look for slices, the most important part first."""
    spans: list[tuple[tuple[int, int], str]] = []
    if sparse is not None:
        organ = organ_span(numbering.n_slices, sparse.labelled, sparse.with_values(sparse.values))
        if organ is not None:
            spans.append((organ, "where the organ is or ends"))
    spans.append((body_span(native.channels[0], numbering.axis), "spread over the body"))
    return [*spans, ((0, numbering.n_slices - 1), "spread over the scan")]


def _step_mm(numbering: SliceNumbering) -> float:
    return plane_distances_mm(numbering.affine)[AXES.index(numbering.axis)]


def by_uncertainty(
    entropy_mm2: np.ndarray, numbering: SliceNumbering, n_slices: int, labelled: Sequence[int]
) -> list[SuggestedSlice]:
    """The next slices by the entropy of each, given on the RAS grid; `labelled` are numbered on it too."""
    step_mm = _step_mm(numbering)
    return [
        SuggestedSlice(
            numbering.file_index(each.index),
            round(numbering.position_mm(each.index), 2),
            round(each.distance * step_mm, 2) if math.isfinite(each.distance) else None,
            round(each.entropy_mm2, 2),
            "uncertain and far from labelled slices" if each.entropy_mm2 > 0 else "far from labelled slices",
        )
        for each in uncertain_slices(entropy_mm2, n_slices, labelled)
    ]


def write_template(path: Path, image: str | Path, ignore_value: int = UNKNOWN_VALUE) -> None:
    """Write a label on the grid of the image in which every voxel is unknown.

    The suggested slices are not zero in it: a slice that is then forgotten would pass for one without the organ.
    """
    native = read_scan(Path(image))
    dtype = np.uint8 if 0 <= ignore_value <= np.iinfo(np.uint8).max else np.int32
    write_like(path, np.full(native.shape, ignore_value, dtype), native)
