"""Find the transform that brings a moving image onto a fixed one: rigid, affine or deformable.

Mattes' mutual information (Mattes et al. 2003, IEEE TMI 22:120) is maximised from coarse to fine by SimpleITK, so CT
and MR can be aligned with each other.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, get_args

import numpy as np

from spleen.errors import InputError, check_choice
from spleen.imaging.nifti import Volume
from spleen.registration.grids import as_volume, check_grid, require_simpleitk, to_image
from spleen.registration.pyramid import (
    LEVELS_MM,
    clipped,
    information,
    level,
    metric,
    one_thread,
    optimised,
    sampled_fraction,
)
from spleen.registration.starts import starts
from spleen.registration.transforms import jacobian_range
from spleen.types import MaskVolume

if TYPE_CHECKING:
    from SimpleITK import Image, Transform

Kind = Literal["rigid", "affine", "deformable"]

_STARTS_TRIED = 2
_KNOTS_MM = 60.0
"""Distance of the knots of the cubic B-spline; then half of it."""
_SPLINE_SAMPLES = 20_000
_SPLINE_BINS = 24
"""The metric takes time in proportion to their square times the number of parameters."""
_STEP_MM = 2.0
"""First step of the B-spline, the mean over its knots in the image; it ends at a thirtieth of it."""
_SPLINE_ITERATIONS = 30
_LEAST_MASKED_VOXELS = 100

Progress = Callable[[str], None]


@dataclass(frozen=True)
class Alignment:
    """The transform found, and how alike the images were before and after."""

    kind: Kind
    transform: "Transform"
    """SimpleITK's: from points of the fixed image to points of the moving one, in mm, LPS."""
    before: float | None
    """Mutual information in nats where the scanner placed both; None where they do not overlap."""
    after: float
    """Mutual information in nats once aligned."""
    jacobian: tuple[float, float]
    """Smallest and largest determinant of the Jacobian: by how much space grows from the fixed to the moving image."""
    folded_fraction: float
    """Fraction of the fixed image where space folds, that is, where the determinant is not positive."""


def align(
    fixed: Volume,
    moving: Volume,
    kind: Kind = "rigid",
    mask: MaskVolume | None = None,
    names: tuple[str, str] = ("the fixed image", "the moving image"),
    progress: Progress = lambda _: None,
) -> Alignment:
    """Align two images; with a `mask` on the fixed image's grid, only what lies in it counts.

    The same images give the same transform, whatever the number of cores. `names` are for messages.
    Raises InputError for another kind, images that have nothing in common, grids that `check_grid` refuses, and an
    unsuitable mask.
    """
    check_choice("kind", kind, get_args(Kind))
    require_simpleitk()
    for volume, name in zip((fixed, moving), names, strict=True):
        check_grid(volume, name)
    where = None if mask is None else _mask_image(mask, fixed)
    images = clipped(to_image(fixed), names[0]), clipped(to_image(moving), names[1])
    try:
        with one_thread():
            return _aligned(*images, kind, where, progress)
    except RuntimeError as error:
        raise InputError(f"{names[1]} cannot be aligned with {names[0]}: {_reason(error)}") from error


def _aligned(fixed: "Image", moving: "Image", kind: Kind, mask: "Image | None", progress: Progress) -> Alignment:
    import SimpleITK as sitk  # noqa: N813

    judged = level(fixed, moving, mask, LEVELS_MM[1])
    transform = _rigid(fixed, moving, mask, progress)
    if kind != "rigid":
        transform = _affine(fixed, moving, mask, transform, progress)
    if kind == "deformable":
        progress("deformable")
        transform = _deformable(fixed, moving, mask, transform)
    after = information(judged, transform)
    if after is None:
        raise RuntimeError("nothing of it remains in the other image; do they show the same part of the body?")
    before = information(judged, sitk.Transform(3, sitk.sitkIdentity))
    smallest, largest, folded = jacobian_range(transform, judged.fixed)
    return Alignment(kind, transform, before, after, (smallest, largest), folded)


def _rigid(fixed: "Image", moving: "Image", mask: "Image | None", progress: Progress) -> "Transform":
    """Rotation and shift: the best of several starts at the coarsest level, then finer and finer."""
    progress("rigid")
    coarse = level(fixed, moving, mask, LEVELS_MM[0])
    scored = [(information(coarse, start), start) for start in starts(coarse.fixed, coarse.moving)]
    usable = sorted(((score, start) for score, start in scored if score is not None), key=lambda pair: -pair[0])
    if not usable:
        raise RuntimeError("wherever it is put, hardly anything lies in both; do they show the same part of the body?")
    found = [optimised(coarse, start) for _, start in usable[:_STARTS_TRIED]]
    transform: Transform = max(found, key=lambda result: result[0])[1]
    for size_mm in LEVELS_MM[1:]:
        transform = optimised(level(fixed, moving, mask, size_mm), transform)[1]
    return transform


def _affine(
    fixed: "Image", moving: "Image", mask: "Image | None", rigid: "Transform", progress: Progress
) -> "Transform":
    """From the rigid alignment on, the best of three.

    The coarse level finds a stretch that the finer ones cannot reach, but may also lose what the rigid alignment has
    found, so all levels, the finer ones alone, and no stretch at all are judged at the same level.
    """
    import SimpleITK as sitk  # noqa: N813

    progress("affine")
    start = sitk.AffineTransform(3)
    euler = sitk.Euler3DTransform(rigid)
    start.SetCenter(euler.GetCenter())
    start.SetMatrix(euler.GetMatrix())
    start.SetTranslation(euler.GetTranslation())
    levels = [level(fixed, moving, mask, size_mm) for size_mm in LEVELS_MM]
    found = [start]
    for used in (levels, levels[1:]):
        transform = start
        for at in used:
            transform = optimised(at, transform)[1]
        found.append(transform)
    return max(found, key=lambda transform: information(levels[1], transform) or -math.inf)


def _deformable(fixed: "Image", moving: "Image", mask: "Image | None", affine: "Transform") -> "Transform":
    """A cubic B-spline (Rueckert et al. 1999, IEEE TMI 18:712), applied before the affine transform."""
    import SimpleITK as sitk  # noqa: N813

    at = level(fixed, moving, mask, LEVELS_MM[1])
    spline = _spline_around(at.fixed)
    method = metric(at, _SPLINE_BINS)
    method.SetMovingInitialTransform(affine)
    method.SetInitialTransformAsBSpline(spline, inPlace=True, scaleFactors=[1, 2])
    shrink = 2 if min(at.fixed.GetSize()) >= 16 else 1
    method.SetShrinkFactorsPerLevel([shrink, 1])
    method.SetSmoothingSigmasPerLevel([LEVELS_MM[1] / 2 * shrink, 0])
    finer = sampled_fraction(at.fixed, _SPLINE_SAMPLES)
    method.SetMetricSamplingPercentagePerLevel([min(1.0, shrink**3 * finer), finer], 1)
    # The length of a step counts over all parameters; scales by physical shift take minutes for so many.
    step = _STEP_MM * math.sqrt(3 * math.prod(mesh + 3 for mesh in _mesh(at.fixed)))
    method.SetOptimizerAsRegularStepGradientDescent(
        learningRate=step, minStep=step / 30, numberOfIterations=_SPLINE_ITERATIONS, relaxationFactor=0.6
    )
    method.Execute(at.fixed, at.moving)
    return sitk.CompositeTransform([affine, spline])  # the last one is applied first


def _spline_around(image: "Image") -> "Transform":
    """A B-spline that reaches a knot beyond the image: at its end, where it becomes 0, it would tear space."""
    import SimpleITK as sitk  # noqa: N813

    margin = [math.ceil(_KNOTS_MM / spacing) for spacing in image.GetSpacing()]
    around = sitk.ConstantPad(image, margin, margin)
    return sitk.BSplineTransformInitializer(around, _mesh(around), order=3)


def _mesh(image: "Image") -> list[int]:
    """How many coarse knots fit along the axes."""
    extents = [size * spacing for size, spacing in zip(image.GetSize(), image.GetSpacing(), strict=True)]
    return [max(1, round(mm / _KNOTS_MM)) for mm in extents]


def _mask_image(mask: MaskVolume, fixed: Volume) -> "Image":
    if mask.shape != fixed.array.shape:
        raise InputError(
            f"the mask has the shape {mask.shape}, but the fixed image {fixed.array.shape}; it must be the same"
        )
    if (count := int(np.count_nonzero(mask))) < _LEAST_MASKED_VOXELS:
        raise InputError(f"the mask holds {count} voxels; at least {_LEAST_MASKED_VOXELS} are needed to align by them")
    return to_image(as_volume(mask.astype(np.uint8), fixed.affine))


def _reason(error: RuntimeError) -> str:
    """The last line of an error of ITK, without its place in the sources."""
    line = str(error).strip().splitlines()[-1]
    return line.rpartition("): ")[2] or line
