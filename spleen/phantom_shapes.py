"""Implicit shapes for the synthetic CT: functions of position that are negative inside, about in millimetres.

A shape knows a box outside which it is empty, so that a small organ costs little in a large volume. Combine shapes
with ``union``, ``subtract`` and ``intersect``, which round the seams over a few millimetres, as tissue does. The
ellipsoid bound and the polynomial smooth minimum follow Inigo Quilez, "Distance functions" (iquilezles.org).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

Field = NDArray[np.float32]
Vector = tuple[float, float, float]


@dataclass(frozen=True)
class Points:
    """World positions in mm (RAS+) of the voxels of a box, after the patient's own deformation.

    ``slice_mm`` is the undeformed height of each slice, shape (1, 1, k), for profiles that are given per height.
    """

    x: Field
    y: Field
    z: Field
    slice_mm: Field


@dataclass(frozen=True)
class Shape:
    """An implicit shape: ``distance`` is negative inside and about in mm, ``lower`` to ``upper`` encloses it."""

    lower: Vector
    upper: Vector
    distance: Callable[[Points], Field]


@dataclass(frozen=True)
class Part:
    """One tissue to paint: its mean HU, the strength of its mottle in HU, where it is; ``rigid`` if not of flesh."""

    name: str
    hu: float
    texture_hu: float
    shape: Shape
    rigid: bool = False


def smooth_minimum(a: Field, b: Field, blend_mm: float) -> Field:
    """Polynomial smooth minimum of two distance fields of one shape; ``blend_mm`` is the width of the seam."""
    overlap = np.maximum(blend_mm - np.abs(a - b), 0)
    nearest: Field = np.minimum(a, b) - overlap * overlap * np.float32(0.25 / blend_mm)
    return nearest


def union(first: Shape, *others: Shape, blend_mm: float = 6.0) -> Shape:
    """What lies in any of the shapes."""
    result = first
    for other in others:
        lower = np.minimum(result.lower, other.lower)
        upper = np.maximum(result.upper, other.upper)
        result = Shape(_vector(lower), _vector(upper), _joined(result.distance, other.distance, blend_mm))
    return result


def _joined(a: Callable[[Points], Field], b: Callable[[Points], Field], blend_mm: float) -> Callable[[Points], Field]:
    return lambda p: smooth_minimum(a(p), b(p), blend_mm)


def subtract(shape: Shape, *cutters: Shape, blend_mm: float = 4.0) -> Shape:
    """What lies in ``shape`` and in none of the cutters."""

    def distance(p: Points) -> Field:
        negative = -shape.distance(p)
        for cutter in cutters:
            negative = smooth_minimum(negative, cutter.distance(p), blend_mm)
        return -negative

    return replace(shape, distance=distance)


def intersect(shape: Shape, *others: Shape, blend_mm: float = 4.0) -> Shape:
    """What lies in all the shapes; the box stays that of the first."""

    def distance(p: Points) -> Field:
        negative = -shape.distance(p)
        for other in others:
            negative = smooth_minimum(negative, -other.distance(p), blend_mm)
        return -negative

    return replace(shape, distance=distance)


def grow(shape: Shape, margin_mm: float) -> Shape:
    """The shape with its surface moved outwards by ``margin_mm`` (inwards when negative)."""
    reach = max(margin_mm, 0.0)
    lower, upper = np.subtract(shape.lower, reach), np.add(shape.upper, reach)
    return Shape(_vector(lower), _vector(upper), lambda p: shape.distance(p) - np.float32(margin_mm))


def shell(shape: Shape, thickness_mm: float) -> Shape:
    """A layer of the given thickness, centred on the surface of the shape."""
    half = np.float32(thickness_mm / 2)
    return replace(shape, distance=lambda p: np.abs(shape.distance(p)) - half)


def moved(shape: Shape, shift_mm: Vector) -> Shape:
    """The shape at another place."""
    dx, dy, dz = (np.float32(d) for d in shift_mm)
    lower, upper = np.add(shape.lower, shift_mm), np.add(shape.upper, shift_mm)

    def distance(p: Points) -> Field:
        return shape.distance(Points(p.x - dx, p.y - dy, p.z - dz, p.slice_mm - dz))

    return Shape(_vector(lower), _vector(upper), distance)


def region(distance: Callable[[Points], Field]) -> Shape:
    """A part of space without bounds of its own, for use inside ``intersect``."""
    return Shape((-1e4, -1e4, -1e4), (1e4, 1e4, 1e4), distance)


def above(offset_mm: float, slope_y: float = 0.0) -> Shape:
    """The half space z > offset + slope_y · y."""
    return region(lambda p: np.float32(offset_mm) + np.float32(slope_y) * p.y - p.z)


def in_front_of(offset_mm: float) -> Shape:
    """The half space y > offset, where gas collects in a patient who lies on the back."""
    return region(lambda p: np.float32(offset_mm) - p.y)


def ellipsoid(centre: Vector, radii: Vector, turn_deg: Vector = (0, 0, 0), rise_only: bool = False) -> Shape:
    """An ellipsoid, turned about x, then y, then z; with ``rise_only`` its lower half is an upright cylinder."""
    rows = (_rotation(turn_deg).T / np.asarray(radii)[:, None]).astype(np.float32)
    scale = (1 / np.asarray(radii)).astype(np.float32)
    reach = np.sqrt(((_rotation(turn_deg) * np.asarray(radii)) ** 2).sum(axis=1))
    cx, cy, cz = (np.float32(c) for c in centre)

    def distance(p: Points) -> Field:
        x, y, z = p.x - cx, p.y - cy, p.z - cz
        if rise_only:
            z = np.maximum(z, 0)
        if any(turn_deg):
            u, v, w = (row[0] * x + row[1] * y + row[2] * z for row in rows)
        else:
            u, v, w = x * scale[0], y * scale[1], z * scale[2]
        near = np.sqrt(u * u + v * v + w * w)
        u, v, w = u * scale[0], v * scale[1], w * scale[2]
        slope = np.sqrt(u * u + v * v + w * w)
        value: Field = (near + np.float32(1e-6)) * (near - 1) / (slope + np.float32(1e-6))
        return value

    lower, upper = np.subtract(centre, reach), np.add(centre, reach)
    if rise_only:
        lower[2] = -1e4
    return Shape(_vector(lower), _vector(upper), distance)


def capsule(start: Vector, end: Vector, radius_start: float, radius_end: float) -> Shape:
    """A round rod from start to end whose radius changes linearly."""
    a, b = np.asarray(start), np.asarray(end)
    radius = max(radius_start, radius_end)
    axis = (b - a).astype(np.float32)
    inverse = np.float32(1 / max(float(axis @ axis), 1e-6))
    ax, ay, az = (np.float32(c) for c in a)

    def distance(p: Points) -> Field:
        x, y, z = p.x - ax, p.y - ay, p.z - az
        along = np.clip((x * axis[0] + y * axis[1] + z * axis[2]) * inverse, 0, 1)
        x, y, z = x - along * axis[0], y - along * axis[1], z - along * axis[2]
        value: Field = np.sqrt(x * x + y * y + z * z) - along * np.float32(radius_end - radius_start)
        return value - np.float32(radius_start)

    return Shape(_vector(np.minimum(a, b) - radius), _vector(np.maximum(a, b) + radius), distance)


def barrel(centre: Vector, radius_x: float, radius_y: float, height: float, waist: float = 0.0) -> Shape:
    """An upright elliptic cylinder with rounded rims; ``waist`` narrows its middle by that share."""
    cx, cy, cz = (np.float32(c) for c in centre)
    half, size = np.float32(height / 2), np.float32(min(radius_x, radius_y))

    def distance(p: Points) -> Field:
        z = (p.z - cz) / half
        girth = 1 - np.float32(waist) * (1 - np.minimum(z * z, 1))
        u, v = (p.x - cx) / np.float32(radius_x), (p.y - cy) / np.float32(radius_y)
        side = (np.sqrt(u * u + v * v) - girth) * size
        return -smooth_minimum(-side, (1 - np.abs(z)) * half, 3.0)

    reach = np.array([radius_x, radius_y, height / 2])
    return Shape(_vector(centre - reach), _vector(centre + reach), distance)


def tube(points: Sequence[Vector], radii: Sequence[float] | float) -> list[Shape]:
    """Rods along a path, one shape each so that a long thin path does not fill a large box."""
    sizes = [float(radii)] * len(points) if isinstance(radii, int | float) else list(radii)
    steps = zip(pairwise(points), pairwise(sizes), strict=True)
    return [capsule(start, end, r0, r1) for (start, end), (r0, r1) in steps]


def curve(knots: Sequence[Sequence[float]], n: int) -> NDArray[np.float64]:
    """``n`` points on a smooth path through the knots (rows of x, y, z and, if any, radius)."""
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


def curved_tube(knots: Sequence[Sequence[float]], n: int, thinner_mm: float = 0.0) -> list[Shape]:
    """A tube through knots (x, y, z, radius), each radius less ``thinner_mm`` (for the inside of a wall)."""
    path = curve(knots, n)
    return tube([_vector(row[:3]) for row in path], [max(float(r) - thinner_mm, 0.5) for r in path[:, 3]])


def _rotation(turn_deg: Vector) -> NDArray[np.float64]:
    """Columns are the turned axes: about x first, then y, then z."""
    (ca, cb, cc), (sa, sb, sc) = np.cos(np.deg2rad(turn_deg)), np.sin(np.deg2rad(turn_deg))
    about_x = np.array([[1, 0, 0], [0, ca, -sa], [0, sa, ca]])
    about_y = np.array([[cb, 0, sb], [0, 1, 0], [-sb, 0, cb]])
    about_z = np.array([[cc, -sc, 0], [sc, cc, 0], [0, 0, 1]])
    return np.asarray(about_z @ about_y @ about_x)


def _vector(values: Sequence[float] | NDArray[np.float64]) -> Vector:
    x, y, z = (float(v) for v in values)
    return x, y, z
