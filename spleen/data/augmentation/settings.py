"""Strength and probability of every random change to a training slice."""

from dataclasses import dataclass

from spleen.errors import InputError
from spleen.imaging.slicing import FLIP_DIRECTIONS

# Control points that move by less than this fraction of their spacing cannot fold the image
# (Choi and Lee 2000, injectivity of 2D cubic B-spline deformations: 0.48).
LARGEST_FOLD_FREE_SHARE = 0.48


@dataclass(frozen=True)
class AugmentSettings:
    """Strength and probability (per sample, 0 to 1) of each transform. The default changes nothing.

    Spatial transforms, of image and label together:
        flips: anatomical directions that may be mirrored: left_right, anterior_posterior, superior_inferior.
            A direction perpendicular to the slice is ignored, but for patches.
        flip_probability: of each of those directions.
        affine_probability: of rotation, scale, translation and shear together.
        rotation_deg: largest angle in either direction, in degrees.
        scale: 0.1 draws a factor between 1 / 1.1 and 1.1.
        translation: largest shift, as a fraction of the side (height or width).
        shear: largest shift of a row, in pixels per pixel of distance from the centre row.
        elastic_probability: of a smooth random deformation.
        elastic_amplitude: largest shift of a control point along either side, as a fraction of the longer
            side; pixels move by about a third of it.
        elastic_spacing: distance between control points, as a fraction of the longer side.
        voxel_depth: of patches, the length of a voxel across the slices, in pixels; None moves all slices alike.

    Intensity transforms, of the image only (normalised to about -1 to 1):
        low_resolution_probability, low_resolution_factor: largest downsampling factor, at least 1.
        noise_probability, noise_std: largest standard deviation of the noise, in normalised intensity.
        brightness_probability, brightness: largest shift, in normalised intensity.
        contrast_probability, contrast: 0.2 draws a factor between 1 / 1.2 and 1.2, about the mean.
        gamma_probability, gamma: 0.3 draws an exponent between 1 / 1.3 and 1.3.

    Raises:
        InputError: a value outside its range.
    """

    flips: tuple[str, ...] = ()
    flip_probability: float = 0.5
    affine_probability: float = 0.0
    rotation_deg: float = 0.0
    scale: float = 0.0
    translation: float = 0.0
    shear: float = 0.0
    elastic_probability: float = 0.0
    elastic_amplitude: float = 0.0
    elastic_spacing: float = 0.25
    voxel_depth: float | None = None
    low_resolution_probability: float = 0.0
    low_resolution_factor: float = 1.0
    noise_probability: float = 0.0
    noise_std: float = 0.0
    brightness_probability: float = 0.0
    brightness: float = 0.0
    contrast_probability: float = 0.0
    contrast: float = 0.0
    gamma_probability: float = 0.0
    gamma: float = 0.0

    def __post_init__(self) -> None:
        for direction in self.flips:
            if direction not in FLIP_DIRECTIONS:
                raise InputError(f"flips must be among {', '.join(FLIP_DIRECTIONS)}; got {direction!r}")
        for name, value in vars(self).items():
            if name.endswith("probability") and not 0 <= value <= 1:
                raise InputError(f"augment.{name} must be between 0 and 1; got {value}")
            if name not in ("flips", "voxel_depth") and not value >= 0:
                raise InputError(f"augment.{name} must be at least 0; got {value}")
        if self.voxel_depth is not None and not self.voxel_depth > 0:
            raise InputError(
                f"augment.voxel_depth must be above 0, null (patches are moved in the plane only) or auto; got "
                f"{self.voxel_depth}"
            )
        if self.low_resolution_factor < 1:
            raise InputError(f"augment.low_resolution_factor must be at least 1; got {self.low_resolution_factor}")
        if self.elastic_spacing <= 0 or self.elastic_amplitude > LARGEST_FOLD_FREE_SHARE * self.elastic_spacing:
            raise InputError(
                f"augment.elastic_amplitude must be at most {LARGEST_FOLD_FREE_SHARE} × elastic_spacing, otherwise "
                f"the image may fold; got {self.elastic_amplitude} and {self.elastic_spacing}"
            )
