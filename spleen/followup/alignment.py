"""Bring the scans of a subject onto the grid of one, and tell voxel by voxel where an organ has grown or shrunk."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Num, UInt8

from spleen.errors import InputError
from spleen.followup.scans import Scan
from spleen.imaging.native import read_native
from spleen.imaging.nifti import Volume, read_label, write_volume
from spleen.registration.align import align
from spleen.registration.grids import as_volume, grid_of
from spleen.registration.resampling import resample_onto
from spleen.registration.transforms import Motion, motion, write_transform
from spleen.types import Affine, MaskVolume, SpacingMm

UNCHANGED, GAIN, LOSS = 1, 2, 3
"""Values in a map of changes."""
_MARGIN_MM = 25.0
"""Around the organ; what lies there decides the alignment, so that organs are compared and not the position of the
patient."""


@dataclass(frozen=True)
class AlignedScan:
    """One scan on the grid that all scans of the subject share."""

    scan: Scan
    image: Num[np.ndarray, "i j k"]
    affine: Affine
    changes: Mapping[str, UInt8[np.ndarray, "i j k"]]
    """By class: unchanged, gain and loss; everything is unchanged where there is nothing to compare it with."""
    gain_ml: Mapping[str, float]
    """By class, since its first counted scan; without the classes that have none before this scan."""
    loss_ml: Mapping[str, float]
    motion: Motion | None
    """How the patient has moved; None for the scan that the others are aligned to."""


@dataclass(frozen=True)
class Failed:
    """A scan that could not be aligned."""

    scan: Scan
    reason: str


def aligned_scans(
    scans: Sequence[Scan],
    masks: Mapping[Scan, Path],
    values: Mapping[str, Sequence[int]],
    baselines: Mapping[str, Scan],
    folder: Path,
    n_channels: int | None = None,
) -> Iterator[AlignedScan | Failed]:
    """The scans that have a mask, each rigidly aligned to one of them, which comes first, in one interpolation.

    `baselines` are the first counted scan of each class that has one; a class of the scans after it has gained and lost
    since then. The scan that stays is the first of them, or the first with a mask where nothing counts. `values` are
    the label values of each class, which overlapping classes share; `n_channels` are those of an image, by default one
    for each file, of which the first is aligned. Writes changes/NAME_CLASS.nii.gz and transforms/NAME.tfm into the
    folder; the image of the scan that stays and one other are in memory at a time.
    """
    usable = [scan for scan in scans if scan in masks]
    if not usable:
        return
    stays = next((scan for scan in usable if scan in baselines.values()), usable[0])
    try:
        fixed, fixed_label = _read(stays, masks, n_channels)
    except (InputError, OSError) as error:
        yield Failed(stays, str(error))
        return
    near = _near(fixed_label)
    before: dict[str, MaskVolume] = {}
    for scan in (stays, *(other for other in usable if other is not stays)):
        try:
            if scan is stays:
                moved, label, moves = fixed.array, fixed_label.array, None
            else:
                names = str(stays.images[0]), str(scan.images[0])
                file = folder / "transforms" / f"{scan.name}.tfm"
                moved, label, moves = _onto(fixed, *_read(scan, masks, n_channels), near, names, file)
            after = {name: np.isin(label, of_class) for name, of_class in values.items()}
            before |= {name: after[name] for name, baseline in baselines.items() if baseline is scan}
            since = {name: mask for name, mask in before.items() if baselines[name].day < scan.day}
            yield _compared(scan, moved, fixed, (since, after), moves, folder)
        except (InputError, OSError) as error:
            yield Failed(scan, str(error))


def change_map(before: MaskVolume, after: MaskVolume) -> UInt8[np.ndarray, "i j k"]:
    """Where a mask is the same, has grown and has shrunk."""
    changes = np.zeros(before.shape, dtype=np.uint8)
    changes[before & after], changes[~before & after], changes[before & ~after] = UNCHANGED, GAIN, LOSS
    return changes


def _read(scan: Scan, masks: Mapping[Scan, Path], n_channels: int | None) -> tuple[Volume, Volume]:
    image = read_native(*scan.images, n_channels=n_channels or len(scan.images))
    return as_volume(image.channels[0], image.affine), read_label(masks[scan], image.affine)


def box_around(mask: MaskVolume, spacing: SpacingMm, margin_mm: float) -> tuple[slice, slice, slice]:
    """The voxels around a mask that is not empty."""
    box = []
    for axis in range(3):
        places = np.flatnonzero(mask.any(axis=tuple(other for other in range(3) if other != axis)))
        margin = round(margin_mm / spacing[axis])
        box.append(slice(max(0, int(places[0]) - margin), int(places[-1]) + margin + 1))
    return box[0], box[1], box[2]


def _near(label: Volume) -> MaskVolume | None:
    """A box around the organ; None where nothing was found."""
    organ = label.array != 0
    if not organ.any():
        return None
    inside = np.zeros(organ.shape, dtype=bool)
    inside[box_around(organ, label.spacing_mm, _MARGIN_MM)] = True
    return inside


def _onto(
    fixed: Volume, moving: Volume, label: Volume, near: MaskVolume | None, names: tuple[str, str], file: Path
) -> tuple[Num[np.ndarray, "i j k"], Num[np.ndarray, "i j k"], Motion]:
    """Image and label on the grid of the fixed image, and how the patient has moved; writes the transform."""
    transform = align(fixed, moving, "rigid", near, names).transform
    file.parent.mkdir(parents=True, exist_ok=True)
    write_transform(file, transform)
    grid = grid_of(fixed)
    return (
        resample_onto(moving, grid, transform),
        resample_onto(label, grid, transform, "nearest"),
        motion(transform, grid),
    )


def _compared(
    scan: Scan,
    image: Num[np.ndarray, "i j k"],
    fixed: Volume,
    regions: tuple[Mapping[str, MaskVolume], Mapping[str, MaskVolume]],
    moves: Motion | None,
    folder: Path,
) -> AlignedScan:
    """`regions` are those of the baselines that this scan is compared with, and its own."""
    before, after = regions
    changes = {name: change_map(before.get(name, mask), mask) for name, mask in after.items()}
    if before:
        (folder / "changes").mkdir(parents=True, exist_ok=True)
    for name in before:
        write_volume(folder / "changes" / f"{scan.name}_{name}.nii.gz", changes[name], fixed.affine)
    gain, loss = (
        {name: float((changes[name] == kind).sum()) * fixed.voxel_volume_mm3 / 1000 for name in before}
        for kind in (GAIN, LOSS)
    )
    return AlignedScan(scan, image, fixed.affine, changes, gain, loss, moves)
