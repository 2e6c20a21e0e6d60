"""How frames stack to a volume: their order along the normal of the slices, and the affine.

DICOM places voxels in LPS (PS3.3 C.7.6.2.1.1: x to the patient's left, y to the back, z to the head); here, and only
here, they become RAS. A stack may be sheared (a tilted gantry) and its slices unevenly far apart.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64

from spleen.errors import InputError
from spleen.imaging.dicom.frame import Frame
from spleen.imaging.geometry import GRID_TOLERANCE_MM
from spleen.types import Affine

LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])
# Directions are written with few digits.
_DIRECTION_TOLERANCE = 1e-3
# Closer than this, two slices are at one place.
_SAME_PLACE_MM = 1e-3
# A distance of this many usual ones or more, that the thickness of the slices does not explain, is a gap.
_GAP = 1.5
_EXPLAINED = 0.75

Distances = Float64[np.ndarray, " n"]


@dataclass(frozen=True)
class Stack:
    """The grid of a volume: array axes are (column, row, frame), frames in the order of their positions."""

    frames: tuple[Frame, ...]
    affine: Affine
    """From (column, row, frame) to mm in RAS; where slices are uneven, with their mean distance."""
    distances_mm: tuple[float, ...]
    """Of each frame along the normal of the slices."""
    is_even: bool
    """Whether the affine places every frame."""
    notes: tuple[str, ...]
    """What the user should know."""

    @property
    def spacing_mm(self) -> float:
        """Perpendicular distance between neighbouring slices, the mean one where they are uneven."""
        if len(self.frames) == 1:
            return float(np.linalg.norm(self.affine[:3, 2]))
        return (self.distances_mm[-1] - self.distances_mm[0]) / (len(self.frames) - 1)

    @property
    def slab_mm(self) -> tuple[float, ...]:
        """How much of the normal each frame stands for: half the way to its neighbours on either side."""
        if self.is_even:
            return (self.spacing_mm,) * len(self.frames)
        gaps = np.diff(self.distances_mm)
        before, after = np.r_[gaps[0], gaps], np.r_[gaps, gaps[-1]]
        return tuple(((before + after) / 2).tolist())


def check_alike(frames: Sequence[Frame]) -> None:
    """Raise InputError unless all frames have one size, pixel spacing and orientation."""
    sizes = Counter((frame.instance.pixels.rows, frame.instance.pixels.columns) for frame in frames)
    if len(sizes) > 1:
        raise InputError(_mixed("sizes", {f"{rows} × {columns}": count for (rows, columns), count in sizes.items()}))
    spacings = Counter(tuple(round(each, 4) for each in frame.pixel_spacing_mm) for frame in frames)
    if len(spacings) > 1:
        raise InputError(_mixed("pixel spacings", {f"{a:g} × {b:g} mm": n for (a, b), n in spacings.items()}))
    directions = orientations(frames)
    if len(directions) > 1:
        localiser = " It looks like a localiser." if any(frame.is_localiser for frame in frames) else ""
        raise InputError(_mixed("orientations", {str(list(each)): n for each, n in directions.items()}) + localiser)


def orientations(frames: Sequence[Frame]) -> Counter[tuple[float, ...]]:
    """How many frames have each orientation, to two decimals."""
    return Counter(
        tuple(round(each, 2) + 0.0 for each in (*frame.row_direction, *frame.column_direction)) for frame in frames
    )


def _mixed(what: str, counts: dict[str, int]) -> str:
    listed = ", ".join(f"{count} of {name}" for name, count in counts.items())
    return f"its slices have different {what}: {listed}; keep those of one volume"


def along_normal(frames: Sequence[Frame]) -> Distances:
    """The distance in mm of each frame along the normal of the first one."""
    _, _, normal = _directions(frames[0])
    positions = np.array([frame.position_mm for frame in frames])
    distances: Distances = positions @ normal
    return distances


def share_a_place(frames: Sequence[Frame]) -> bool:
    """Whether two frames are at one place."""
    return bool((np.diff(np.sort(along_normal(frames))) < _SAME_PLACE_MM).any())


def stack(frames: Sequence[Frame]) -> Stack:
    """Order frames of one size and orientation, each at a place of its own, and find their grid.

    Raises InputError for slices at one place, for slices that are missing or that do not lie on one line, and for a
    single slice whose thickness is unknown.
    """
    row, column, normal = _directions(frames[0])
    if share_a_place(frames):
        raise InputError(
            f"several of its {len(frames)} images are at one place, and no element tells the volumes apart (b-value, "
            "echo, time point, acquisition, …); export one volume"
        )
    distances = along_normal(frames)
    order = np.argsort(distances, kind="stable")
    ordered = tuple(frames[number] for number in order)
    distances = distances[order]
    positions = np.array([frame.position_mm for frame in ordered])
    step, is_even, notes = (
        (normal * _lone_thickness(ordered[0]), True, [])
        if len(ordered) == 1
        else _step(positions, distances, normal, ordered)
    )
    lps = np.eye(4)
    between_rows, between_columns = ordered[0].pixel_spacing_mm
    lps[:3, :3] = np.column_stack([row * between_columns, column * between_rows, step])
    lps[:3, 3] = positions[0]
    return Stack(ordered, LPS_TO_RAS @ lps, tuple(distances.tolist()), is_even, tuple(notes))


def _directions(frame: Frame) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    row, column = np.array(frame.row_direction), np.array(frame.column_direction)
    lengths = np.linalg.norm(row), np.linalg.norm(column)
    if max(abs(length - 1) for length in lengths) > _DIRECTION_TOLERANCE or abs(row @ column) > _DIRECTION_TOLERANCE:
        raise InputError(
            f"{frame.instance.path}: Image Orientation (Patient) must be two perpendicular directions of length 1; got "
            f"{[*frame.row_direction, *frame.column_direction]}"
        )
    return row, column, np.cross(row, column)


def _lone_thickness(frame: Frame) -> float:
    thickness = frame.spacing_between_mm or frame.thickness_mm
    if thickness is None:
        raise InputError(
            f"{frame.instance.path} is a single slice without Slice Thickness, so its volume is unknown; give the "
            "whole series"
        )
    return thickness


def _step(
    positions: np.ndarray, distances: Distances, normal: np.ndarray, frames: Sequence[Frame]
) -> tuple[np.ndarray, bool, list[str]]:
    """The way from one frame to the next, whether it is the same everywhere, and notes."""
    n = len(frames)
    whole = positions[-1] - positions[0]
    depth = distances[-1] - distances[0]
    drift = whole - depth * normal  # what a tilted gantry adds within the plane
    if np.linalg.norm(drift) <= GRID_TOLERANCE_MM:
        drift = np.zeros(3)
    line = positions[0] + np.outer(distances - distances[0], normal + drift / depth)
    if (off := np.linalg.norm(positions - line, axis=1).max()) > GRID_TOLERANCE_MM:
        raise InputError(
            f"its slices do not lie on one line: one is {off:.2g} mm beside it within its plane; are they of several "
            "acquisitions?"
        )
    gaps = np.diff(distances)
    step = (depth * normal + drift) / (n - 1)
    even = distances[0] + np.arange(n) * depth / (n - 1)
    is_even = bool(np.abs(distances - even).max() <= GRID_TOLERANCE_MM)
    if not is_even:
        _check_complete(gaps, frames)
    return step, is_even, _notes(gaps, is_even, frames)


def _check_complete(gaps: Distances, frames: Sequence[Frame]) -> None:
    """Raise InputError for distances of several usual ones that the thickness of the slices does not explain."""
    usual = float(np.median(gaps))
    wide = [
        number
        for number, gap in enumerate(gaps)
        if gap >= _GAP * usual
        and abs(gap / usual - round(gap / usual)) * usual <= max(GRID_TOLERANCE_MM, 0.05 * usual)
        and not any((frame.thickness_mm or 0) >= _EXPLAINED * gap for frame in frames[number : number + 2])
    ]
    if wide:
        missing = sum(round(gaps[number] / usual) - 1 for number in wide)
        where = ", ".join(
            f"{frames[number].instance.path.name} and {frames[number + 1].instance.path.name}" for number in wide[:3]
        )
        raise InputError(
            f"{missing} slice(s) are missing: neighbours are {usual:g} mm apart, but {gaps[wide[0]]:g} mm between "
            f"{where}; copy or send the series again"
        )


def _notes(gaps: Distances, is_even: bool, frames: Sequence[Frame]) -> list[str]:
    notes = []
    if not is_even:
        notes.append(
            f"slices are unevenly spaced, {gaps.min():.4g} to {gaps.max():.4g} mm apart; each counts with its own share"
        )
    thickness = frames[0].thickness_mm
    mean = float(gaps.mean())
    if is_even and thickness is not None and abs(thickness - mean) > max(GRID_TOLERANCE_MM, 0.01 * mean):
        notes.append(f"Slice Thickness is {thickness:g} mm, but slices are {mean:.4g} mm apart; their positions count")
    return notes
