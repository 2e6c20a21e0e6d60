"""Implicit shapes for the synthetic CT: approximate signed distances in millimetres, negative inside.

A shape has a bounding box, so that a small organ costs little in a large volume. ``union``, ``subtract`` and
``intersect`` combine shapes and round the seams over a few millimetres, as in tissue. The ellipsoid bound and the
polynomial smooth minimum follow Inigo Quilez, "Distance functions" (iquilezles.org).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial, reduce
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

Field = NDArray[np.float32]
# Anatomy tables are written in whole millimetres, and run-time type checks do not accept an int as a float.
Number = int | float
Vector = tuple[Number, Number, Number]
RODS_PER_SEGMENT = 3


@dataclass(frozen=True)
class Points:
    """World positions in mm (RAS+) of the voxels in a box, after the patient's deformation.

    ``slice_mm`` is the undeformed height of each slice, shape (1, 1, k), for profiles given per height.
    """

    x: Field
    y: Field
    z: Field
    slice_mm: Field


@dataclass(frozen=True)
class Shape:
    """An implicit shape: approximate signed ``distance`` in mm, negative inside; bounds ``lower`` to ``upper``."""

    lower: Vector
    upper: Vector
    distance: Callable[[Points], Field]


@dataclass(frozen=True)
class Part:
    """One tissue to paint: mean HU, texture amplitude in HU and shape; ``rigid`` parts are not deformed."""

    name: str
    hu: Number
    texture_hu: Number
    shape: Shape
    rigid: bool = False


def smooth_minimum(a: Field, b: Field, blend_mm: Number) -> Field:
    """Polynomial smooth minimum of two distance fields of one shape; ``blend_mm`` is the width of the seam."""
    overlap = np.maximum(blend_mm - np.abs(a - b), 0)
    nearest: Field = np.minimum(a, b) - overlap * overlap * np.float32(0.25 / blend_mm)
    return nearest


def union(first: Shape, *others: Shape, blend_mm: Number = 6.0) -> Shape:
    """The union of the shapes."""
    shapes = (first, *others)
    lower = np.min([shape.lower for shape in shapes], axis=0)
    upper = np.max([shape.upper for shape in shapes], axis=0)
    return Shape(_vector(lower), _vector(upper), partial(_union_distance, shapes=shapes, blend_mm=blend_mm))


def _union_distance(p: Points, shapes: tuple[Shape, ...], blend_mm: Number) -> Field:
    distance = shapes[0].distance(p)
    for shape in shapes[1:]:
        distance = smooth_minimum(distance, shape.distance(p), blend_mm)
    return distance


def subtract(shape: Shape, *cutters: Shape, blend_mm: Number = 4.0) -> Shape:
    """``shape`` without the cutters."""
    distance = partial(_remainder_distance, shape=shape, others=cutters, sign=1, blend_mm=blend_mm)
    return replace(shape, distance=distance)


def intersect(shape: Shape, *others: Shape, blend_mm: Number = 4.0) -> Shape:
    """The intersection of the shapes, with the bounding box of the first."""
    distance = partial(_remainder_distance, shape=shape, others=others, sign=-1, blend_mm=blend_mm)
    return replace(shape, distance=distance)


def _remainder_distance(p: Points, shape: Shape, others: tuple[Shape, ...], sign: int, blend_mm: Number) -> Field:
    """The rest of the shape outside the others (sign 1) or inside them (sign -1)."""
    negative = -shape.distance(p)
    for other in others:
        distance = other.distance(p)
        negative = smooth_minimum(negative, distance if sign > 0 else -distance, blend_mm)
    return -negative


def grow(shape: Shape, margin_mm: Number) -> Shape:
    """The shape with its surface moved outwards by ``margin_mm`` (inwards when negative)."""
    reach = max(margin_mm, 0.0)
    lower, upper = np.subtract(shape.lower, reach), np.add(shape.upper, reach)
    return Shape(_vector(lower), _vector(upper), lambda p: shape.distance(p) - np.float32(margin_mm))


def shell(shape: Shape, thickness_mm: Number) -> Shape:
    """A layer of the given thickness, centred on the surface of the shape."""
    half = np.float32(thickness_mm / 2)
    return replace(shape, distance=lambda p: np.abs(shape.distance(p)) - half)


def moved(shape: Shape, shift_mm: Vector) -> Shape:
    """The shape translated by ``shift_mm``."""
    dx, dy, dz = (np.float32(d) for d in shift_mm)
    lower, upper = np.add(shape.lower, shift_mm), np.add(shape.upper, shift_mm)
    return Shape(
        _vector(lower),
        _vector(upper),
        lambda p: shape.distance(Points(p.x - dx, p.y - dy, p.z - dz, p.slice_mm - dz)),
    )


def region(distance: Callable[[Points], Field]) -> Shape:
    """An unbounded region of space, for use in ``intersect``."""
    return Shape((-1e4, -1e4, -1e4), (1e4, 1e4, 1e4), distance)


def above(offset_mm: Number, slope_y: Number = 0.0) -> Shape:
    """The half space z > offset + slope_y · y."""
    return region(lambda p: np.float32(offset_mm) + np.float32(slope_y) * p.y - p.z)


def in_front_of(offset_mm: Number) -> Shape:
    """The half space y > offset, where gas collects in a supine patient."""
    return region(lambda p: np.float32(offset_mm) - p.y)


def ellipsoid(centre: Vector, radii: Vector, turn_deg: Vector = (0, 0, 0), rise_only: bool = False) -> Shape:
    """An ellipsoid, rotated about x, then y, then z; with ``rise_only`` its lower half is an upright cylinder."""
    turned_axes = _rotation(turn_deg) * np.asarray(radii)
    reach = np.sqrt((turned_axes**2).sum(axis=1))
    rows = (turned_axes / np.asarray(radii) ** 2).T.astype(np.float32)
    distance = partial(
        _ellipsoid_distance,
        centre=np.asarray(centre, dtype=np.float32),
        rows=rows,
        scale=(1 / np.asarray(radii)).astype(np.float32),
        turned=any(turn_deg),
        rise_only=rise_only,
    )
    lower, upper = np.subtract(centre, reach), np.add(centre, reach)
    if rise_only:
        lower[2] = -1e4
    return Shape(_vector(lower), _vector(upper), distance)


def _ellipsoid_distance(p: Points, centre: Field, rows: Field, scale: Field, turned: bool, rise_only: bool) -> Field:
    x, y, z = p.x - centre[0], p.y - centre[1], p.z - centre[2]
    if rise_only:
        z = np.maximum(z, 0)
    if turned:
        u, v, w = (row[0] * x + row[1] * y + row[2] * z for row in rows)
    else:
        u, v, w = x * scale[0], y * scale[1], z * scale[2]
    near = np.sqrt(u * u + v * v + w * w)
    u, v, w = u * scale[0], v * scale[1], w * scale[2]
    slope = np.sqrt(u * u + v * v + w * w)
    value: Field = (near + np.float32(1e-6)) * (near - 1) / (slope + np.float32(1e-6))
    return value


def capsule(start: Vector, end: Vector, radius_start: Number, radius_end: Number) -> Shape:
    """A round rod from start to end whose radius changes linearly."""
    a, b = np.asarray(start), np.asarray(end)
    radius = max(radius_start, radius_end)
    distance = partial(
        _capsule_distance,
        start=a.astype(np.float32),
        axis=(b - a).astype(np.float32),
        radius=np.float32(radius_start),
        growth=np.float32(radius_end - radius_start),
    )
    return Shape(_vector(np.minimum(a, b) - radius), _vector(np.maximum(a, b) + radius), distance)


def _capsule_distance(p: Points, start: Field, axis: Field, radius: np.float32, growth: np.float32) -> Field:
    per_length = axis / max(float(axis @ axis), 1e-6)
    x, y, z = p.x - start[0], p.y - start[1], p.z - start[2]
    along = np.clip(x * per_length[0] + y * per_length[1] + z * per_length[2], 0, 1)
    x -= along * axis[0]
    y -= along * axis[1]
    z -= along * axis[2]
    value: Field = np.sqrt(x * x + y * y + z * z) - along * growth
    return value - radius


def barrel(centre: Vector, radius_x: Number, radius_y: Number, height: Number, waist: Number = 0.0) -> Shape:
    """An upright elliptic cylinder with rounded rims; ``waist`` narrows its middle by that fraction."""
    reach = np.array([radius_x, radius_y, height / 2])
    middle, half_size = np.asarray(centre, dtype=np.float32), reach.astype(np.float32)
    distance = partial(_barrel_distance, centre=middle, half_size=half_size, waist=np.float32(waist))
    return Shape(_vector(centre - reach), _vector(centre + reach), distance)


def _barrel_distance(p: Points, centre: Field, half_size: Field, waist: np.float32) -> Field:
    u, v, w = (p.x - centre[0]) / half_size[0], (p.y - centre[1]) / half_size[1], (p.z - centre[2]) / half_size[2]
    girth = 1 - waist * (1 - np.minimum(w * w, 1))
    side = (np.sqrt(u * u + v * v) - girth) * min(half_size[0], half_size[1])
    return -smooth_minimum(-side, (1 - np.abs(w)) * half_size[2], 3.0)


def tube(points: Sequence[Vector], radii: Sequence[Number] | Number) -> list[Shape]:
    """A round tube in segments of a few rods, so that a long thin path does not get one large bounding box."""
    sizes = [float(radii)] * len(points) if isinstance(radii, int | float) else list(radii)
    steps = zip(pairwise(points), pairwise(sizes), strict=True)
    rods = [capsule(start, end, r0, r1) for (start, end), (r0, r1) in steps]
    return [_joined(rods[first : first + RODS_PER_SEGMENT]) for first in range(0, len(rods), RODS_PER_SEGMENT)]


def _joined(rods: list[Shape]) -> Shape:
    lower = np.min([rod.lower for rod in rods], axis=0)
    upper = np.max([rod.upper for rod in rods], axis=0)
    distances = [rod.distance for rod in rods]
    return Shape(_vector(lower), _vector(upper), lambda p: reduce(np.minimum, (d(p) for d in distances)))


def curve(knots: Sequence[Sequence[Number]], n: int) -> NDArray[np.float64]:
    """``n`` points on a cubic Hermite spline through the knots (rows of x, y, z and optionally radius)."""
    table = np.asarray(knots, dtype=np.float64)
    t, fine = np.linspace(0, 1, len(table)), np.linspace(0, 1, n)
    tangents = np.gradient(table, t, axis=0)
    index = np.clip(np.searchsorted(t, fine, side="right") - 1, 0, len(t) - 2)
    step = t[1]
    s = ((fine - t[index]) / step)[:, None]
    p0, p1, m0, m1 = table[index], table[index + 1], tangents[index] * step, tangents[index + 1] * step
    from_start = (p0 * (1 + 2 * s) + m0 * s) * (1 - s) ** 2
    to_end = (p1 * (3 - 2 * s) + m1 * (s - 1)) * s * s
    return np.asarray(from_start + to_end)


def curved_tube(knots: Sequence[Sequence[Number]], n: int, thinner_mm: Number = 0.0) -> list[Shape]:
    """A tube through knots (x, y, z, radius), with each radius reduced by ``thinner_mm`` (for the lumen)."""
    path = curve(knots, n)
    return tube([_vector(row[:3]) for row in path], [max(float(r) - thinner_mm, 0.5) for r in path[:, 3]])


def _rotation(turn_deg: Vector) -> NDArray[np.float64]:
    """Rotation matrix, about x first, then y, then z; its columns are the rotated axes."""
    (ca, cb, cc), (sa, sb, sc) = np.cos(np.deg2rad(turn_deg)), np.sin(np.deg2rad(turn_deg))
    about_x = np.array([[1, 0, 0], [0, ca, -sa], [0, sa, ca]])
    about_y = np.array([[cb, 0, sb], [0, 1, 0], [-sb, 0, cb]])
    about_z = np.array([[cc, -sc, 0], [sc, cc, 0], [0, 0, 1]])
    return np.asarray(about_z @ about_y @ about_x)


def _vector(values: Sequence[Number] | NDArray[np.float64]) -> Vector:
    x, y, z = (float(v) for v in values)
    return x, y, z
