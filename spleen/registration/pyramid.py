"""One level of the alignment: both images thinned to about the same voxel size, the metric and its optimiser."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from spleen.errors import InputError

if TYPE_CHECKING:
    from SimpleITK import Image, ImageRegistrationMethod, Transform

LEVELS_MM = (8.0, 4.0, 2.0)
"""Size of a voxel at each level, from coarse to fine; a finer grid is thinned to it."""

_BINS = 32
_SAMPLES = 60_000
_ITERATIONS = 200
_QUANTILES = (0.5, 99.5)
"""Intensities beyond are clipped: metal and padding would take most of the bins."""
_MASK_MARGIN_VOXELS = 2
_LEAST_OVERLAP = 0.05
_SEED = 1


@dataclass(frozen=True)
class Level:
    """Both images at one voxel size, and the mask on the fixed one's grid."""

    size_mm: float
    fixed: "Image"
    moving: "Image"
    mask: "Image | None"


@contextmanager
def one_thread() -> Iterator[None]:
    """With several, ITK adds sums in the order in which threads finish, and results differ from time to time."""
    import SimpleITK as sitk  # noqa: N813

    before = sitk.ProcessObject.GetGlobalDefaultNumberOfThreads()
    sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(1)
    try:
        yield
    finally:
        sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(before)


def clipped(image: "Image", name: str) -> "Image":
    """An image as float32 without its outermost intensities; raises InputError for a constant one."""
    import SimpleITK as sitk  # noqa: N813

    voxels = sitk.GetArrayFromImage(image)
    if voxels.min() == voxels.max():
        raise InputError(f"{name} is empty: every voxel has the intensity {voxels.min():g}, so nothing can be aligned")
    low, high = np.percentile(voxels[::2, ::2, ::2], _QUANTILES)
    if low == high:
        low, high = voxels.min(), voxels.max()
    return sitk.Clamp(sitk.Cast(image, sitk.sitkFloat32), sitk.sitkFloat32, float(low), float(high))


def level(fixed: "Image", moving: "Image", mask: "Image | None", size_mm: float) -> Level:
    """Thin both images; with a mask, the fixed one is cut to its bounding box: samples elsewhere would be lost."""
    import SimpleITK as sitk  # noqa: N813

    thinned = shrunk(fixed, size_mm)
    if mask is None:
        return Level(size_mm, thinned, shrunk(moving, size_mm), None)
    on_grid = sitk.Resample(mask, thinned, sitk.Transform(), sitk.sitkNearestNeighbor)
    inside = np.argwhere(sitk.GetArrayFromImage(on_grid))[:, ::-1]
    if len(inside) == 0:  # thinner than the voxels of this level
        return Level(size_mm, thinned, shrunk(moving, size_mm), None)
    low = np.maximum(inside.min(axis=0) - _MASK_MARGIN_VOXELS, 0)
    high = np.minimum(inside.max(axis=0) + 1 + _MASK_MARGIN_VOXELS, thinned.GetSize())
    box = (high - low).tolist(), low.tolist()
    return Level(
        size_mm,
        sitk.RegionOfInterest(thinned, *box),
        shrunk(moving, size_mm),
        sitk.RegionOfInterest(on_grid, *box),
    )


def shrunk(image: "Image", size_mm: float) -> "Image":
    """Averaged over blocks to voxels of about this size; axes that are coarser stay as they are."""
    import SimpleITK as sitk  # noqa: N813

    spacings, sizes = image.GetSpacing(), image.GetSize()
    factors = [max(1, min(round(size_mm / mm), size // 4)) for mm, size in zip(spacings, sizes, strict=True)]
    return image if max(factors) == 1 else sitk.BinShrink(image, factors)


def metric(at: Level, bins: int = _BINS) -> "ImageRegistrationMethod":
    """Mattes' mutual information on the same random samples each time."""
    import SimpleITK as sitk  # noqa: N813

    method = sitk.ImageRegistrationMethod()
    method.SetMetricAsMattesMutualInformation(bins)
    method.SetInterpolator(sitk.sitkLinear)
    method.SetMetricSamplingStrategy(method.RANDOM)
    method.SetMetricSamplingPercentage(sampled_fraction(at.fixed), _SEED)
    if at.mask is not None:
        method.SetMetricFixedMask(at.mask)
    return method


def sampled_fraction(image: "Image", samples: int = _SAMPLES) -> float:
    """The fraction of the voxels that gives so many samples, at most all."""
    return float(min(1.0, samples / image.GetNumberOfPixels()))


def optimised(at: Level, start: "Transform") -> "tuple[float, Any]":
    """Mutual information in nats, and the transform found from `start`, which is not changed."""
    method = metric(at)
    method.SetOptimizerAsRegularStepGradientDescent(
        learningRate=at.size_mm / 4,
        minStep=1e-3,  # mm
        numberOfIterations=_ITERATIONS,
        relaxationFactor=0.6,
        gradientMagnitudeTolerance=1e-7,
    )
    method.SetOptimizerScalesFromPhysicalShift()
    method.SetInitialTransform(start, inPlace=False)
    found = method.Execute(at.fixed, at.moving)
    inner = found.GetNthTransform(0) if found.GetName() == "CompositeTransform" else found
    return -float(method.GetMetricValue()), type(start)(inner)


def information(at: Level, transform: "Transform") -> float | None:
    """Mutual information in nats; None where less than a twentieth of the fixed image lies in the moving one."""
    if _overlap(at, transform) < _LEAST_OVERLAP:
        return None
    method = metric(at)
    method.SetInitialTransform(transform)
    try:
        return -float(method.MetricEvaluate(at.fixed, at.moving))
    except RuntimeError:  # too few samples lie in both
        return None


def _overlap(at: Level, transform: "Transform") -> float:
    import SimpleITK as sitk  # noqa: N813

    everywhere = sitk.Image(at.moving.GetSize(), sitk.sitkUInt8) + 1
    everywhere.CopyInformation(at.moving)
    inside = sitk.Resample(everywhere, at.fixed, transform, sitk.sitkNearestNeighbor, 0)
    return float(sitk.GetArrayFromImage(inside).mean())
