"""Two scans of one made-up body, whose movement from one to the other is known."""

import numpy as np
from scipy.ndimage import gaussian_filter

from spleen.imaging.nifti import Volume
from tests._helpers.nifti import ras_affine

SHAPE, SPACING_MM = (44, 40, 24), (4.0, 4.0, 6.0)
AFFINE = ras_affine(SPACING_MM, (-90.0, -75.0, 30.0))


def body(shift_mm=(0.0, 0.0, 0.0), shape=SHAPE, affine=AFFINE):
    """(hu, label): an ellipsoid with a spine, a lung and an organ (1), moved towards right, anterior, superior."""
    indices = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), axis=-1)
    points = indices @ affine[:3, :3].T + affine[:3, 3] - np.array(shift_mm)

    def ellipsoid(centre, radii):
        return (((points - np.array(centre)) / radii) ** 2).sum(axis=-1) < 1

    hu = np.full(shape, -1000.0)
    hu[ellipsoid((-4, 3, 100), (70, 55, 80))] = 40
    hu[ellipsoid((30, 10, 130), (25, 28, 30))] = -800
    hu[ellipsoid((-4, -35, 100), (12, 10, 70))] = 600
    organ = ellipsoid((-40, -10, 90), (20, 26, 30))
    hu[organ] = 130
    return np.rint(gaussian_filter(hu, 0.6)).astype(np.int16), organ.astype(np.uint8)


def volume(array, affine=AFFINE):
    return Volume(array, affine, affine)
