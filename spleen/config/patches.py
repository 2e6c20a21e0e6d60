"""The patches and levels of a 3D network, from the grids of the cases, where the configuration leaves them open."""

import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from spleen.config.datasets import compute_phantom
from spleen.config.preprocessing import build_classes, build_preprocessing
from spleen.config.schema import TrainConfig
from spleen.data.cases import Case
from spleen.errors import InputError
from spleen.imaging.nifti import read_shape
from spleen.imaging.slicing import slice_shape, slice_spacing_mm

log = logging.getLogger(__name__)

Sides = tuple[int, int, int]
Spacing = tuple[float, float, float]

_AUTO = "auto"
_PATCH_VOXELS = 64**3
"""Of an automatic patch, at most: two such patches train in 2 GiB with 16 filters."""
_MOST_LEVELS = 5
_WIDTH, _MOST_FILTERS = 16, 320
_FEWEST_VOXELS = 4
"""Of a side at the deepest level."""
_COARSER = 2.0
"""An axis is coarse if its voxels are so many times longer than the finest ones."""


@dataclass(frozen=True)
class Levels:
    """Kernels and strides of the levels of a 3D network, from full resolution down, along depth, height and width."""

    kernels: tuple[Sides, ...]
    strides: tuple[Sides, ...]

    @property
    def multiple(self) -> Sides:
        """What each side of a patch must be a multiple of."""
        depth, height, width = (math.prod(stride[axis] for stride in self.strides) for axis in range(3))
        return depth, height, width


def plan_levels(spacing_mm: Spacing, patch: Sides, most_levels: int = _MOST_LEVELS) -> Levels:
    """Kernels and strides for voxels of this spacing, by the rule of nnU-Net (Isensee et al. 2021).

    A level halves each axis that still has 8 voxels or more, and whose voxels are less than twice as long as the finest
    of such axes; it convolves along an axis from the level on at which its voxels are less than twice as long as the
    finest.
    """
    kernels: list[Sides] = []
    strides: list[Sides] = [(1, 1, 1)]
    spacing, size, convolved = list(spacing_mm), list(patch), [False] * 3
    while True:
        finest = min(spacing)
        convolved = [before or now < _COARSER * finest for before, now in zip(convolved, spacing, strict=True)]
        kernels.append(_sides(3 if each else 1 for each in convolved))
        divisible = [side >= 2 * _FEWEST_VOXELS for side in size]
        if len(kernels) == most_levels or not any(divisible):
            return Levels(tuple(kernels), tuple(strides))
        finest = min(mm for mm, is_divisible in zip(spacing, divisible, strict=True) if is_divisible)
        stride = [
            2 if is_divisible and mm < _COARSER * finest else 1
            for mm, is_divisible in zip(spacing, divisible, strict=True)
        ]
        strides.append(_sides(stride))
        spacing = [mm * factor for mm, factor in zip(spacing, stride, strict=True)]
        size = [-(-side // factor) for side, factor in zip(size, stride, strict=True)]


def plan_patch(grid: Sides, spacing_mm: Spacing, most_voxels: int = _PATCH_VOXELS) -> Sides:
    """A patch that covers the grid if that has at most `most_voxels`; otherwise as near to a cube in mm as fits."""
    extent = [side * mm for side, mm in zip(grid, spacing_mm, strict=True)]
    low, high = 0.0, max(extent)
    for _ in range(50):  # the longest side in mm, by bisection
        middle = (low + high) / 2
        voxels = math.prod(min(length, middle) / mm for length, mm in zip(extent, spacing_mm, strict=True))
        low, high = (middle, high) if voxels <= most_voxels else (low, middle)
    return _sides(max(1, round(min(length, high) / mm)) for length, mm in zip(extent, spacing_mm, strict=True))


def complete_patches(config: TrainConfig, cases: Sequence[Case], quiet: bool = False) -> TrainConfig:
    """The configuration with the size of the patches, and what is `auto`: kernels, strides, filters and voxel depth.

    They are computed from the median grid and spacing of the cases. A 2D network is left as it is; `quiet` says nothing
    of what is chosen. Raises InputError for a patch that cannot be halved as often as the network does, and for pixels
    that are not known yet.
    """
    if config.model.dimensions != 3:
        return config
    config = replace(config, context_slices=0)  # a patch is its own context
    network = config.model.network
    open_keys = [key for key, value in network.items() if value == _AUTO]
    if config.crop_size is not None:
        config = replace(config, crop_size=list(config.crop_size))
    strides = _given_strides(network.get("strides"))
    if config.crop_size is not None and strides is not None:
        _check_divisible(_sides(config.crop_size), Levels((), strides).multiple)
    patches_are_given = config.crop_size is not None and not open_keys
    if config.roi_from is not None and config.img_size != "native":
        if not patches_are_given:
            raise InputError(
                "the pixels of a 3D network in the box of roi_from are not known before its cases are predicted: use "
                f"img_size=native, or give crop_size and {', '.join(f'model.network.{key}' for key in open_keys)}"
            )
        return _with_voxel_depth(config, None)
    if patches_are_given and config.augment.get("voxel_depth") != _AUTO:
        return config
    compute_phantom(config)
    grid, spacing_mm = _median_grid(config, cases)
    config = _with_voxel_depth(config, 2 * spacing_mm[0] / (spacing_mm[1] + spacing_mm[2]))
    return config if patches_are_given else _with_patch(config, grid, spacing_mm, strides, quiet)


def _with_patch(
    config: TrainConfig, grid: Sides, spacing_mm: Spacing, strides: tuple[Sides, ...] | None, quiet: bool
) -> TrainConfig:
    """The configuration with a patch, and levels where they are `auto`; `strides` are those that are given."""
    network = dict(config.model.network)
    open_keys = [key for key, value in network.items() if value == _AUTO]
    if not quiet:
        _advise_axis(config, spacing_mm)
    patch = _sides(config.crop_size) if config.crop_size is not None else plan_patch(grid, spacing_mm)
    levels = plan_levels(spacing_mm, patch) if strides is None else _with_strides(spacing_mm, patch, strides)
    if config.crop_size is None:
        patch = _sides(-(-side // step) * step for side, step in zip(patch, levels.multiple, strict=True))
    else:
        _check_divisible(patch, levels.multiple)
    network.update({key: value for key, value in _arguments(levels).items() if key in open_keys})
    log.log(
        logging.DEBUG if quiet else logging.INFO,
        "3D patches of %d × %d × %d voxels of %s mm (slices, height, width); %d levels",
        *patch, " × ".join(f"{mm:.3g}" for mm in spacing_mm), len(levels.strides),
    )  # fmt: skip
    return replace(config, crop_size=list(patch), model=replace(config.model, network=network))


def _given_strides(strides: object) -> tuple[Sides, ...] | None:
    """Strides of a network's configuration; None if they are to be chosen, or wrong: the network itself tells that."""
    if not isinstance(strides, Sequence) or isinstance(strides, str):
        return None
    levels = [(each,) * 3 if isinstance(each, int) else each for each in strides]
    sound = [
        isinstance(each, Sequence) and len(each) == 3 and all(isinstance(n, int) and n > 0 for n in each)
        for each in levels
    ]
    return tuple(_sides(each) for each in levels) if levels and all(sound) else None


def _with_strides(spacing_mm: Spacing, patch: Sides, strides: tuple[Sides, ...]) -> Levels:
    """Levels with these strides, and kernels as far as they are planned; the deepest one for what is below."""
    kernels = plan_levels(spacing_mm, patch, len(strides)).kernels
    return Levels((*kernels, *[kernels[-1]] * (len(strides) - len(kernels))), strides)


def _check_divisible(patch: Sides, multiple: Sides) -> None:
    if any(side % step for side, step in zip(patch, multiple, strict=True)):
        raise InputError(
            f"crop_size={list(patch)} cannot be halved as often as the network does it: its sides must be multiples of "
            f"{list(multiple)}, such as {[-(-side // step) * step for side, step in zip(patch, multiple, strict=True)]}"
        )


def _with_voxel_depth(config: TrainConfig, voxel_depth: float | None) -> TrainConfig:
    """The configuration with this length of a voxel across the slices, in pixels, if that is `auto`."""
    if config.augment.get("voxel_depth") != _AUTO:
        return config
    rounded = None if voxel_depth is None else round(voxel_depth, 4)
    return replace(config, augment={**config.augment, "voxel_depth": rounded})


def _arguments(levels: Levels) -> dict[str, Any]:
    """The values of the arguments that may be `auto`; MONAI's names are used by our own network too."""
    return {
        "kernel_size": [list(kernel) for kernel in levels.kernels],
        "strides": [list(stride) for stride in levels.strides],
        "upsample_kernel_size": [list(stride) for stride in levels.strides[1:]],
        "filters": [min(_WIDTH * 2**level, _MOST_FILTERS) for level in range(len(levels.kernels))],
    }


def _median_grid(config: TrainConfig, cases: Sequence[Case]) -> tuple[Sides, Spacing]:
    """Median number of slices, height and width on the network's grid, and their spacing in mm."""
    preprocessing = build_preprocessing(config, build_classes(config))
    sizes, spacings = [], []
    for case in cases:
        try:
            shape, affine = read_shape(case.images[0])
        except InputError:  # the slice store gives the reason, and may skip the case
            continue
        grid = preprocessing.plan(shape[:3], affine)
        between, high, wide = slice_spacing_mm(affine, preprocessing.axis)
        scale = [native / resampled for native, resampled in zip(grid.native, grid.resampled, strict=True)]
        sizes.append((slice_shape(shape[:3], preprocessing.axis)[0], *grid.resampled))
        spacings.append((between, high * scale[0], wide * scale[1]))
    if not sizes:
        raise InputError("no image could be read, so that the patches of a 3D network cannot be chosen")
    depth, height, width = np.median(sizes, axis=0)
    mm = np.median(spacings, axis=0)
    return (round(depth), round(height), round(width)), (float(mm[0]), float(mm[1]), float(mm[2]))


def _advise_axis(config: TrainConfig, spacing_mm: Spacing) -> None:
    """The slices are not resampled along the axis, so that it should be the one of the coarsest voxels."""
    if 2 * spacing_mm[0] < min(spacing_mm[1:]):
        log.warning(
            "the %s slices are %.3g mm apart, but their pixels are %.3g mm: in 3D, choose as axis the one with the "
            "thickest slices (mostly axis=axial), or a larger img_size",
            config.axis, spacing_mm[0], min(spacing_mm[1:]),
        )  # fmt: skip


def _sides(values: Any) -> Sides:
    depth, height, width = values
    return int(depth), int(height), int(width)
