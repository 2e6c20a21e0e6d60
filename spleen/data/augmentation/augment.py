"""Random augmentation of a batch of slices and their label maps, on the batch's device."""

from collections.abc import Sequence

import torch
from torch import Generator

from spleen.data.augmentation.draws import Draws, draw_augmentation
from spleen.data.augmentation.intensity import (
    add_noise,
    change_brightness_and_contrast,
    change_gamma,
    simulate_low_resolution,
)
from spleen.data.augmentation.settings import AugmentSettings
from spleen.data.augmentation.spatial import deform, mirror
from spleen.imaging.slicing import IN_PLANE_DIRECTIONS
from spleen.types import AxisName, ImageBatch, LabelBatch


def augment_batch(
    image: ImageBatch,
    label: LabelBatch,
    settings: AugmentSettings,
    axis: AxisName,
    generator: Generator,
    swapped: Sequence[int] = (),
) -> tuple[ImageBatch, LabelBatch]:
    """A randomly augmented copy of a batch; draws are per slice and shared by its channels.

    Affine and elastic deformation are applied in one resampling: linear for the image, nearest for the label,
    so that no new label values appear. Both are extended beyond the edge by replicating edge pixels, so that
    an organ cut by the edge continues in image and label. If nothing is drawn, the tensors are returned as
    they are; the input is never modified.

    Args:
        image: slices (b, c, h, w), normalised to about -1 to 1.
        label: label maps (b, d, h, w): one for a slice, or d for a patch of d slices, which are moved alike.
        settings: strengths and probabilities.
        axis: the slicing axis, which determines the image dimension of a flip.
        generator: source of all randomness, on the CPU: decisions then do not wait for a GPU. Noise for a batch on a
            GPU is drawn there, from the GPU's own generator.
        swapped: the class of each class index after mirroring along left_right (`swapped_classes`), so that a mirrored
            left kidney becomes a right one; empty if all stay.
    """
    draws = draw_augmentation(
        (image.shape[0], image.shape[1], image.shape[2], image.shape[3]),
        settings,
        axis,
        generator,
        with_noise=image.device.type == "cpu",
    )
    return apply_draws(image, label, draws, settings, axis, swapped)


@torch.no_grad()
def apply_draws(
    image: ImageBatch,
    label: LabelBatch,
    draws: Draws,
    settings: AugmentSettings,
    axis: AxisName,
    swapped: Sequence[int] = (),
    everywhere: bool = False,
) -> tuple[ImageBatch, LabelBatch]:
    """The batch changed as drawn.

    With `everywhere` the draws lie on the batch's device and each transform is computed for all slices, also for those
    that it does not change: nothing then waits for the device. The results are the same up to rounding.
    """
    d = draws
    # A deformation or a blur in bf16 would be too coarse.
    with torch.autocast(image.device.type, enabled=False):
        image, label = mirror_in_plane(image, label, draws, axis, swapped, everywhere)
        if d.deformed is not None and d.matrix is not None and d.shift is not None:
            spacing = settings.elastic_spacing
            image, label = deform(image, label, d.deformed, d.matrix, d.shift, d.control_points, spacing, everywhere)
        return change_intensity(image, draws, everywhere), label


def mirror_in_plane(
    image: ImageBatch,
    label: LabelBatch,
    draws: Draws,
    axis: AxisName,
    swapped: Sequence[int],
    everywhere: bool = False,
) -> tuple[ImageBatch, LabelBatch]:
    """The slices mirrored along height and width as drawn."""
    mirrored = draws.mirrored_h, draws.mirrored_w
    for dim, direction, chosen in zip((2, 3), IN_PLANE_DIRECTIONS[axis], mirrored, strict=True):
        if chosen is not None:
            exchanged = swapped if direction == "left_right" else ()
            image, label = mirror(image, label, chosen, dim, exchanged, everywhere)
    return image, label


def change_intensity(image: ImageBatch, draws: Draws, everywhere: bool = False) -> ImageBatch:
    """The slices in lower resolution, with noise, and with other brightness, contrast and gamma, as drawn."""
    d = draws
    if d.coarse is not None and d.coarse_size is not None:
        image = simulate_low_resolution(image, d.coarse, d.coarse_size, everywhere)
    if d.noisy is not None and d.noise_std is not None:
        image = add_noise(image, d.noisy, d.noise_std, d.noise, everywhere)
    image = change_brightness_and_contrast(image, d.brightness, d.contrast, everywhere)
    if d.curved is not None and d.exponent is not None:
        image = change_gamma(image, d.curved, d.exponent, everywhere)
    return image
