"""Distances in mm between the surfaces of two masks, and the scores that are made of them.

A surface voxel is a voxel of the mask with at least one of its six face neighbours outside it, and what lies outside
the volume counts as outside the mask: a mask that touches the border has surface there. Distances run between voxel
centres. MONAI defines both in the same way; SimpleITK leaves the border out unless the mask is padded first.

Empty masks: both empty → NaN (excluded from means, counted as empty); only one of them empty → every distance is inf
and the surface Dice 0, never dropped. (MONAI's HD95 is NaN there, so that a missed organ drops out of its mean.)
"""

import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float64, Int64
from scipy.spatial import cKDTree

from spleen.errors import InputError
from spleen.types import MaskVolume, SpacingMm

# A spacing read from a float32 header is off by some 1e-7 of itself: without this, voxels that are 0.8 mm apart would
# miss a tolerance of 0.8 mm.
_RELATIVE_SLACK = 1e-6

Box = tuple[slice, slice, slice]


@dataclass(frozen=True)
class SurfaceDistances:
    """Distance in mm from every surface voxel of one mask to the nearest surface voxel of the other.

    A mask without voxels has no distances of its own, and all distances to it are inf.
    """

    prediction_to_reference_mm: Float64[np.ndarray, "predicted"]
    reference_to_prediction_mm: Float64[np.ndarray, "expected"]

    @property
    def both_directions_mm(self) -> Float64[np.ndarray, "both"]:
        """The distances of both surfaces in one array: empty if both masks are, inf if one of them is."""
        return np.concatenate([self.prediction_to_reference_mm, self.reference_to_prediction_mm])


def surface_distances(
    prediction: MaskVolume,
    reference: MaskVolume,
    spacing_mm: SpacingMm | Float64[np.ndarray, "3 3"],
    ignored: MaskVolume | None = None,
) -> SurfaceDistances:
    """Measure once what all scores below need; `spacing_mm` runs along the array axes i, j, k.

    On a sheared grid it is the matrix from index differences to mm (the upper left 3 × 3 of the affine).
    `ignored` voxels belong to neither mask, and where a mask borders on them it has no surface: nobody knows whether it
    ends there. Only the box around both masks is looked at. Raises InputError for masks of different shapes, and for a
    spacing that is not positive and finite.
    """
    _check_input(prediction.shape, reference.shape, spacing_mm)
    axes_mm = np.diag(spacing_mm) if isinstance(spacing_mm, tuple) else spacing_mm
    if ignored is not None:
        prediction, reference = prediction & ~ignored, reference & ~ignored
    box = box_around(prediction, reference)
    if box is None:
        return SurfaceDistances(np.empty(0), np.empty(0))
    if ignored is None:
        predicted, expected = _surface(prediction[box]), _surface(reference[box])
    else:
        box = grown(box)
        predicted, expected = (_surface(mask[box] | ignored[box]) & mask[box] for mask in (prediction, reference))
    return SurfaceDistances(
        _nearest_mm(predicted, expected, axes_mm),
        _nearest_mm(expected, predicted, axes_mm),
    )


def hausdorff_mm(distances: SurfaceDistances) -> float:
    """The largest distance in mm of either direction (Hausdorff 1914): one stray voxel decides it."""
    both = distances.both_directions_mm
    return float(both.max()) if both.size else math.nan


def hausdorff95_mm(distances: SurfaceDistances) -> float:
    """HD95 in mm: the 95th percentile of each direction, and the larger of the two.

    As in MONAI, percentiles are interpolated linearly and every surface voxel counts the same. Other programs take one
    percentile of both directions together (MedPy), or weight voxels by their area (DeepMind's surface-distance).
    """
    directions = distances.prediction_to_reference_mm, distances.reference_to_prediction_mm
    if not all(direction.size for direction in directions):
        return hausdorff_mm(distances)
    return max(float(np.percentile(direction, 95)) for direction in directions)


def average_surface_distance_mm(distances: SurfaceDistances) -> float:
    """The mean in mm over the surface voxels of both masks together (MONAI: symmetric=True).

    The larger surface has more voxels and so more weight; the mean of the two directed means is another number.
    """
    both = distances.both_directions_mm
    return float(both.mean()) if both.size else math.nan


def surface_dice(distances: SurfaceDistances, tolerance_mm: float) -> float:
    """The fraction of both surfaces, from 0 to 1, that lies within `tolerance_mm` of the other surface.

    The normalised surface Dice of Nikolov et al. 2021, "Clinically Applicable Segmentation of Head and Neck Anatomy for
    Radiotherapy", JMIR 23(7):e26151, with every surface voxel counted as one (MONAI: use_subvoxels=False) in place of
    its area in mm². A distance equal to the tolerance is within it. Raises InputError unless 0 ≤ tolerance < ∞.
    """
    if not 0 <= tolerance_mm < math.inf:
        raise InputError(
            f"the tolerance of the surface Dice must be 0 mm or more, and finite; got {tolerance_mm}. Choose how far "
            "two experts' contours lie apart, for example 2"
        )
    both = distances.both_directions_mm
    return float(np.mean(both <= tolerance_mm * (1 + _RELATIVE_SLACK))) if both.size else math.nan


def _check_input(
    prediction: tuple[int, ...], reference: tuple[int, ...], spacing_mm: SpacingMm | Float64[np.ndarray, "3 3"]
) -> None:
    if prediction != reference:
        raise InputError(
            f"prediction and reference must lie on one grid; their shapes are {prediction} and {reference}. "
            "Resample one of them onto the other's grid (nearest neighbour)"
        )
    lengths = spacing_mm if isinstance(spacing_mm, tuple) else np.linalg.norm(spacing_mm, axis=0)
    if not all(0 < length < math.inf for length in lengths):
        raise InputError(f"spacing_mm must be three positive lengths in mm; got {spacing_mm}. Repair the affine")


def box_around(prediction: MaskVolume, reference: MaskVolume) -> Box | None:
    """The smallest box that holds both masks, or None if both are empty.

    The axis with the longest stride comes first: it is searched in whole blocks of memory, the others in what is left.
    """
    order = sorted(range(3), key=lambda axis: -abs(prediction.strides[axis]))
    masks = prediction.transpose(order), reference.transpose(order)
    first = _extent(_shadow(masks[0], (1, 2)) | _shadow(masks[1], (1, 2)))
    plane = _shadow(masks[0][first], (0,)) | _shadow(masks[1][first], (0,))
    if not plane.any():
        return None
    extents = dict(zip(order, (first, _extent(_shadow(plane, (1,))), _extent(_shadow(plane, (0,)))), strict=True))
    return extents[0], extents[1], extents[2]


def grown(box: Box) -> Box:
    """The box with one more voxel on each side, as far as there are any."""
    i, j, k = (slice(max(0, side.start - 1), side.stop + 1) for side in box)
    return i, j, k


def _shadow(mask: Bool[np.ndarray, "..."], axes: tuple[int, ...]) -> Bool[np.ndarray, "..."]:
    """True where anything along `axes` is."""
    return np.asarray(mask.any(axis=axes))


def _extent(occupied: Bool[np.ndarray, "n"]) -> slice:
    """From the first to the last True; an empty slice without one."""
    places = np.flatnonzero(occupied)
    return slice(int(places[0]), int(places[-1]) + 1) if places.size else slice(0, 0)


def _surface(mask: MaskVolume) -> MaskVolume:
    """The mask without its erosion by the six face neighbours."""
    padded = np.pad(mask, 1)
    centre = slice(1, -1)
    inside = padded[centre, centre, centre].copy()
    for before_or_after in (slice(None, -2), slice(2, None)):
        inside &= padded[before_or_after, centre, centre]
        inside &= padded[centre, before_or_after, centre]
        inside &= padded[centre, centre, before_or_after]
    surface: MaskVolume = padded[centre, centre, centre] & ~inside
    return surface


def _nearest_mm(start: MaskVolume, goal: MaskVolume, axes_mm: Float64[np.ndarray, "3 3"]) -> Float64[np.ndarray, "n"]:
    """Distance in mm from every voxel of `start`, in C order, to the nearest voxel of `goal`; inf without a goal.

    A k-d tree of the surface voxels alone, because a distance transform would fill the whole box.
    """
    voxels, goals = _indices(start), _indices(goal)
    if not goals.size:
        return np.full(len(voxels), math.inf)
    nearest_mm = np.zeros(len(voxels))  # where the surfaces coincide, which is common, it stays 0
    apart = ~goal[start]
    # Neither balanced nor compact: asked only once, such a tree saves more in its making than it costs in the search.
    tree = cKDTree(goals @ axes_mm.T, leafsize=32, balanced_tree=False, compact_nodes=False)
    nearest_mm[apart], _ = tree.query(voxels[apart] @ axes_mm.T)
    return nearest_mm


def _indices(mask: MaskVolume) -> Int64[np.ndarray, "n 3"]:
    """Indices i, j, k of the voxels of a mask, in C order: numpy's argwhere, many times faster in a large box."""
    return np.stack(np.unravel_index(np.flatnonzero(mask), mask.shape), axis=1)
