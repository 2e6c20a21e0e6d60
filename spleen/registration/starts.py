"""Where an alignment begins: the likely positions of one image relative to the other."""

from collections.abc import Iterator
from itertools import product
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float64

if TYPE_CHECKING:
    from SimpleITK import Image, Transform


_FEWEST_VOXELS = 10
"""For principal axes; a smaller body is taken to be in the middle."""


def starts(fixed: "Image", moving: "Image") -> "Iterator[Transform]":
    """As the scanner placed both, centre on centre, mass on mass, and principal axes on each other."""
    import SimpleITK as sitk  # noqa: N813

    (fixed_mass, fixed_axes), (moving_mass, moving_axes) = _moments(fixed), _moments(moving)

    def start(shift: np.ndarray, rotation: np.ndarray) -> "Transform":
        transform = sitk.Euler3DTransform()
        transform.SetCenter(fixed_mass.tolist())
        transform.SetMatrix(rotation.ravel().tolist(), 1e-6)
        transform.SetTranslation(shift.tolist())
        return transform

    for shift in (np.zeros(3), _middle(moving) - _middle(fixed), moving_mass - fixed_mass):
        yield start(shift, np.eye(3))
    for signs in product((1, -1), repeat=2):  # an axis has no sign
        turned = moving_axes * [*signs, 1]
        turned[:, 2] *= np.linalg.det(turned @ fixed_axes.T)  # a rotation, no mirror image
        yield start(moving_mass - fixed_mass, turned @ fixed_axes.T)


def _moments(image: "Image") -> tuple[Float64[np.ndarray, "3"], Float64[np.ndarray, "3 3"]]:
    """Centre of what is brighter than Otsu's threshold, and its principal axes as columns, in mm (LPS)."""
    import SimpleITK as sitk  # noqa: N813

    body = np.argwhere(sitk.GetArrayFromImage(sitk.OtsuThreshold(image, 0, 1)))[:, ::-1]
    if len(body) < _FEWEST_VOXELS:
        return _middle(image), np.eye(3)
    directions = np.array(image.GetDirection()).reshape(3, 3) * image.GetSpacing()
    points = body @ directions.T + image.GetOrigin()
    _, axes = np.linalg.eigh(np.cov(points.T))
    return points.mean(axis=0), axes


def _middle(image: "Image") -> Float64[np.ndarray, "3"]:
    return np.array(image.TransformContinuousIndexToPhysicalPoint([(size - 1) / 2 for size in image.GetSize()]))
