"""A synthetic abdominal CT with a spleen label: the built-in default data.

Every organ is an analytic shape, warped by one smooth random deformation. The phantom reproduces what makes slice-wise
organ segmentation non-trivial (neighbouring tissues with the same HU, partial volume across thick slices, correlated
noise), but not what makes it hard in the clinic: real anatomical variety, disease, motion, metal, beam hardening,
streaks, reconstruction kernels, contrast phases, and ambiguous organ borders. A score on it shows that the program
works, and nothing about patients.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64, Int16, UInt8
from numpy.typing import NDArray
from scipy import ndimage

from spleen.data.phantom.anatomy import abdomen
from spleen.data.phantom.shapes import Field, Part, Points, Shape
from spleen.data.phantom.visit import Visit, check_seed
from spleen.errors import InputError

FIELD_OF_VIEW_MM = (0.794922 * 512, 0.794922 * 512, 450.0)
FIELD_CENTRE_MM = (0.0, 0.0, 225.0)
HU_RANGE = (-1024, 3071)
# Standard deviation of the deformation, per axis.
DEFORMATION_MM = 2.4
DEFORMATION_WAVELENGTH_MM = 110.0
# The texture also displaces every surface by this much, so that no border is perfectly smooth.
ROUGHNESS_MM = np.float32(0.8)
# Random fields are clipped at this many standard deviations, which bounds how far a shape can leave its box.
CUT_OFF = 3.0
REACH_MM = CUT_OFF * (DEFORMATION_MM + float(ROUGHNESS_MM))
SLAB_VOXELS = 1_000_000
POINT_SPREAD_MM = 0.7
NOISE_CORRELATION_MM = 0.7
FIRST_VISIT = Visit()


@dataclass(frozen=True)
class Phantom:
    """A CT volume and its label: ``hu`` in Hounsfield units, ``label`` 1 in the spleen, ``affine`` RAS+ in mm."""

    hu: Int16[np.ndarray, "i j k"]
    label: UInt8[np.ndarray, "i j k"]
    affine: Float64[np.ndarray, "4 4"]


def make_phantom(
    matrix: int = 128, n_slices: int = 90, seed: int = 0, noise_hu: float = 12.0, visit: Visit = FIRST_VISIT
) -> Phantom:
    """Generate a synthetic abdominal CT in the portal venous phase.

    The field of view is always 407 × 407 × 450 mm: ``matrix=512`` and 90 slices give voxels of 0.794922 × 0.794922 ×
    5 mm. ``seed`` varies the anatomy slightly and sets the noise; a seed gives the same patient at every matrix size.
    ``noise_hu`` is the standard deviation of the noise at mid-depth of the body. A voxel is labelled if the spleen
    fills at least half of it. At a later `visit` the same patient is scanned again.

    Raises InputError for a matrix outside 32..512, slices outside 16..450, a negative seed, or noise outside 0..200.
    """
    _check_arguments(matrix, n_slices, seed, noise_hu)
    shape = (matrix, matrix, n_slices)
    spacing_mm = np.array(FIELD_OF_VIEW_MM) / shape
    affine = np.diag([*spacing_mm, 1.0])
    affine[:3, 3] = [-(matrix - 1) / 2 * spacing_mm[0], -(matrix - 1) / 2 * spacing_mm[1], spacing_mm[2] / 2]
    axes = [affine[d, 3] - visit.shift_mm[d] + spacing_mm[d] * np.arange(shape[d]) for d in range(3)]
    stream = [1, visit.number] if visit.number else [1]
    anatomy_rng, noise_rng = np.random.default_rng([seed, 0]), np.random.default_rng([seed, *stream])
    canvas = _Canvas(axes, _deformed_points(axes, seed), _texture(axes, seed))
    for part in abdomen(anatomy_rng, _volume_meter(seed), visit):
        canvas.paint(part)
    hu = canvas.hu
    sigma = (POINT_SPREAD_MM / spacing_mm[0], POINT_SPREAD_MM / spacing_mm[1])
    ndimage.gaussian_filter(hu, sigma, axes=(0, 1), output=hu, truncate=3.0)
    _add_noise(hu, noise_rng, noise_hu * visit.noise_factor, axes)
    np.clip(np.rint(hu, out=hu), *HU_RANGE, out=hu)
    return Phantom(hu.astype(np.int16), (canvas.spleen_fraction >= 0.5).astype(np.uint8), affine)


def _check_arguments(matrix: int, n_slices: int, seed: int, noise_hu: float) -> None:
    allowed = {"matrix": (matrix, 32, 512), "n_slices": (n_slices, 16, 450), "noise_hu": (noise_hu, 0, 200)}
    for name, (value, low, high) in allowed.items():
        if not low <= value <= high:
            raise InputError(f"phantom {name} must be from {low} to {high}; got {value}.")
    check_seed(seed)


def smooth_field(axes: list[NDArray[np.float64]], wavelength_mm: float, rng: np.random.Generator) -> Field:
    """Gaussian random field of unit variance over the grid, smooth on the scale of ``wavelength_mm``.

    White noise on coarse knots fixed in the field of view, smoothed by a Gaussian kernel along each axis: the same
    generator state gives the same field at every resolution. The memory order is NIfTI's, first axis fastest.
    """
    weights = []
    for axis, extent, centre in zip(axes, FIELD_OF_VIEW_MM, FIELD_CENTRE_MM, strict=True):
        n_knots = int(np.ceil(extent / (wavelength_mm / 2))) + 5
        knots = centre + (np.arange(n_knots) - (n_knots - 1) / 2) * wavelength_mm / 2
        kernel = np.exp(-0.5 * ((axis[:, None] - knots) / (wavelength_mm / 2.5)) ** 2)
        weights.append((kernel / np.sqrt((kernel**2).sum(axis=1, keepdims=True))).astype(np.float32))
    along_i, along_j, along_k = weights
    values = rng.standard_normal([w.shape[1] for w in reversed(weights)], dtype=np.float32)
    values = np.tensordot(along_k, values, axes=(1, 0))
    field: Field = (along_j @ values) @ along_i.T
    return field.T


def _deformed_points(axes: list[NDArray[np.float64]], seed: int) -> tuple[Field, Field, Field]:
    """Grid positions, each coordinate displaced by its own smooth field: the same deformation on every grid."""
    rng = np.random.default_rng([seed, 2])
    moved = []
    for dimension, axis in enumerate(axes):
        field = smooth_field(axes, DEFORMATION_WAVELENGTH_MM, rng)
        np.clip(field, -CUT_OFF, CUT_OFF, out=field)
        field *= DEFORMATION_MM
        field += axis.astype(np.float32).reshape([-1 if d == dimension else 1 for d in range(3)])
        moved.append(field)
    return moved[0], moved[1], moved[2]


def _volume_meter(seed: int) -> Callable[[Shape], float]:
    """A function that returns the volume of a shape near the spleen, after deformation, in mm³ (3 mm grid)."""
    axes = [np.arange(-165.0, -35.0, 3.0), np.arange(-110.0, 60.0, 3.0), np.arange(180.0, 370.0, 3.0)]
    x, y, z = _deformed_points(axes, seed)
    points = Points(x, y, z, axes[2].astype(np.float32).reshape(1, 1, -1))
    roughness = _texture(axes, seed) * ROUGHNESS_MM

    def volume_mm3(shape: Shape) -> float:
        return 27.0 * float(filled_fraction(shape.distance(points) - roughness).sum(dtype=np.float64))

    return volume_mm3


def _texture(axes: list[NDArray[np.float64]], seed: int) -> Field:
    """Unit-variance texture at two scales, shared by all tissues; each tissue has its own amplitude."""
    rng = np.random.default_rng([seed, 3])
    texture = smooth_field(axes, 60.0, rng)
    texture *= 0.7
    fine = smooth_field(axes, 12.0, rng)
    fine *= 0.7
    texture += fine
    return np.clip(texture, -CUT_OFF, CUT_OFF, out=texture)


class _Canvas:
    """The volume being painted, tissue over tissue, and the spleen fraction of each voxel."""

    def __init__(self, axes: list[NDArray[np.float64]], deformed: tuple[Field, Field, Field], texture: Field) -> None:
        self.axes, self.deformed, self.texture = axes, deformed, texture
        self.hu: Field = np.full_like(texture, -1000)
        self.spleen_fraction: Field = np.zeros_like(texture)

    def paint(self, part: Part) -> None:
        """Blend the part over the existing tissue, weighted by the fraction of each voxel that it fills."""
        i, j, k = self._box(part)
        area = max((i.stop - i.start) * (j.stop - j.start), 1)
        step = max(SLAB_VOXELS // area, 1)
        for first in range(k.start, k.stop, step):
            self._paint_slab(part, i, j, slice(first, min(first + step, k.stop)))

    def _paint_slab(self, part: Part, i: slice, j: slice, k: slice) -> None:
        # One extra slice on either side, for the finite differences between slices.
        wide = slice(max(k.start - 1, 0), min(k.stop + 1, len(self.axes[2])))
        distance = part.shape.distance(self._points(part, (i, j, wide)))
        if not part.rigid:
            distance = distance - self.texture[i, j, wide] * ROUGHNESS_MM
        fraction = filled_fraction(distance)[:, :, k.start - wide.start : k.stop - wide.start]
        hu, spleen = self.hu[i, j, k], self.spleen_fraction[i, j, k]
        colour = self.texture[i, j, k] * np.float32(part.texture_hu)
        colour += np.float32(part.hu)
        colour -= hu
        colour *= fraction
        hu += colour
        if part.name == "spleen":
            np.maximum(spleen, fraction, out=spleen)
        else:
            spleen *= 1 - fraction

    def _points(self, part: Part, box: tuple[slice, slice, slice]) -> Points:
        x, y, z = (
            axis[s].astype(np.float32).reshape([-1 if d == dimension else 1 for d in range(3)])
            for dimension, (axis, s) in enumerate(zip(self.axes, box, strict=True))
        )
        if part.rigid:
            shape = np.broadcast_shapes(x.shape, y.shape, z.shape)
            return Points(np.broadcast_to(x, shape), np.broadcast_to(y, shape), np.broadcast_to(z, shape), z)
        x, y, deformed_z = (field[box] for field in self.deformed)
        return Points(x, y, deformed_z, z)

    def _box(self, part: Part) -> tuple[slice, slice, slice]:
        bounds = []
        for axis, low, high in zip(self.axes, part.shape.lower, part.shape.upper, strict=True):
            margin = REACH_MM + axis[1] - axis[0]
            first, last = np.searchsorted(axis, [low - margin, high + margin])
            bounds.append(slice(int(first), int(last)))
        return bounds[0], bounds[1], bounds[2]


def filled_fraction(distance: Field) -> Field:
    """Fraction of each voxel inside the shape, from its implicit function at the voxel centres.

    Across one voxel the function changes by the sum of its differences along the three axes. Dividing by that sum gives
    the partial volume at a flat border, for thick slices too, independent of the function's scale.
    """
    width = np.full_like(distance, 1e-3)
    for dimension in range(3):
        head = (slice(None),) * dimension + (slice(None, -1),)
        tail = (slice(None),) * dimension + (slice(1, None),)
        step = np.abs(distance[tail] - distance[head])
        step *= 0.5
        width[head] += step
        width[tail] += step
    fraction: Field = distance / -width
    fraction += 0.5
    return np.clip(fraction, 0, 1, out=fraction)


def _add_noise(hu: Field, rng: np.random.Generator, noise_hu: float, axes: list[NDArray[np.float64]]) -> None:
    """Add noise that is correlated in plane and, as in a scanner, stronger where the rays cross more tissue."""
    sigma = max(NOISE_CORRELATION_MM / (axes[0][1] - axes[0][0]), 0.45)
    depth = np.exp(-(axes[0][:, None] ** 2 + 1.6 * axes[1][None, :] ** 2) / (2 * 130.0**2)).astype(np.float32)
    profile = noise_hu * (0.65 + 0.55 * depth)
    for k in range(hu.shape[2]):
        noise = rng.standard_normal(hu.shape[1::-1], dtype=np.float32).T
        noise = ndimage.gaussian_filter(noise, sigma, mode="wrap")
        hu[:, :, k] += noise * (profile / noise.std())
