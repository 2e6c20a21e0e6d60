"""What of a scan goes into its page: cropped, rounded and downsampled until it fits, and honest about it."""

import base64
import gzip
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Num, Shaped, UInt8, UInt16

from spleen.errors import InputError
from spleen.evaluation.scan.case import Scan
from spleen.imaging.geometry import spacing_mm
from spleen.types import Affine, SpacingMm

MOST_BYTES = 10_500_000
"""Of the compressed image: 14 MB in base64, so that the page stays below 15 MB."""

Box = tuple[slice, slice, slice]
Factors = tuple[int, int, int]

_AIR_HU = -500.0  # what lies above is body, or table
_BODY_PLANE_FRACTION = 0.005  # a plane with fewer body voxels holds noise
_BODY_MARGIN_MM, _MASK_MARGIN_MM = 5.0, 30.0
_CT_RANGE_HU = (-1024.0, 3071.0)  # 12 bits, as scanners store it
_OUTSIDE_PERCENT = 0.02  # of the voxels at either end of other images, clipped: single outliers eat up all levels
_LEVELS = 4096
_COARSEST_STEP = 4  # in steps of the finest: 4 HU are 20 shades of the brain window, and below the noise of a CT
_SAME_SPACING = 1.3
_SAMPLED_PLANES = 8


@dataclass(frozen=True)
class EmbeddedScan:
    """The voxels that a page holds. Voxel e of an axis covers the native voxels first + e × factor and following."""

    box: Box
    """Of the native grid."""
    factors: Factors
    """Native voxels per embedded one."""
    affine: Affine
    """From embedded voxels to mm."""
    levels: UInt16[np.ndarray, "i j k"]
    low: float
    """Intensity of level 0."""
    step: float
    """Intensity per level."""
    packed: str
    masks: dict[str, UInt8[np.ndarray, "i j k"]]
    unlabelled: Bool[np.ndarray, "i j k"] | None = None
    """Voxels of unknown class."""

    @property
    def spacing_mm(self) -> SpacingMm:
        """Of the embedded voxels."""
        return spacing_mm(self.affine)

    def from_native(self, voxel: tuple[float, ...]) -> tuple[int, ...]:
        """The embedded voxel that holds a native one, or the nearest."""
        places = zip(voxel, self.box, self.factors, self.levels.shape, strict=True)
        return tuple(int(np.clip((each - box.start) // factor, 0, n - 1)) for each, box, factor, n in places)


def embed(scan: Scan, most_bytes: int = MOST_BYTES) -> EmbeddedScan:
    """Crop to the body and the masks, then round and, if need be, downsample until the image fits `most_bytes`."""
    box = body_box(scan)
    low, high, finest = _range(scan)
    for factors, step in _attempts(scan, box, finest):
        levels = _levels(_block_mean(scan.image[box], factors), low, high, step)
        sample = levels[:, :, :: max(1, levels.shape[2] // _SAMPLED_PLANES)]
        if len(_compressed(sample)) * levels.shape[2] / sample.shape[2] < 1.05 * most_bytes:
            compressed = _compressed(levels)
            if len(compressed) <= most_bytes:
                break
    else:
        raise InputError(f"{scan.case_id}: not even a coarse picture of the image fits {most_bytes} bytes")
    offset = [each.start + (factor - 1) / 2 for each, factor in zip(box, factors, strict=True)]
    to_native = np.diag([*map(float, factors), 1.0])
    to_native[:3, 3] = offset
    centre = tuple(
        slice(each.start + (f - 1) // 2, each.start + (each.stop - each.start) // f * f, f)
        for each, f in zip(box, factors, strict=True)
    )
    masks = {name: np.ascontiguousarray(mask[centre]) for name, mask in scan.masks.items()}
    packed = base64.b64encode(compressed).decode()
    unlabelled = None if scan.unlabelled is None else np.ascontiguousarray(scan.unlabelled[centre])
    return EmbeddedScan(box, factors, scan.affine @ to_native, levels, low, step, packed, masks, unlabelled)


def pack(array: Shaped[np.ndarray, "..."]) -> str:
    """The array in base64 of gzip, i running fastest; of 16-bit numbers first all low bytes, then all high bytes."""
    return base64.b64encode(_compressed(array)).decode()


def _compressed(array: Shaped[np.ndarray, "..."]) -> bytes:
    raw = np.ascontiguousarray(array.T)
    content = raw.tobytes()
    if raw.dtype == np.uint16:
        planes = raw.astype("<u2").view(np.uint8).reshape(-1, 2)
        content = planes[:, 0].tobytes() + planes[:, 1].tobytes()
    return gzip.compress(content, 3, mtime=0)  # of noise, the slower levels save nothing


def body_box(scan: Scan) -> Box:
    """The box around the body, and around the masks with a wider margin."""
    spacing = spacing_mm(scan.affine)
    coarse = scan.image[::2, ::2, ::2]
    body = coarse > (_AIR_HU if scan.is_ct else _dark(coarse))
    labelled = np.zeros(scan.image.shape, dtype=bool)
    for mask in scan.masks.values():
        labelled |= mask > 0
    box = []
    for axis, (n, length_mm) in enumerate(zip(scan.image.shape, spacing, strict=True)):
        others = tuple(other for other in range(3) if other != axis)
        ends = []
        for places, step, margin_mm in (
            (np.flatnonzero(body.mean(axis=others) > _BODY_PLANE_FRACTION), 2, _BODY_MARGIN_MM),
            (np.flatnonzero(labelled.any(axis=others)), 1, _MASK_MARGIN_MM),
        ):
            if places.size:
                margin = round(margin_mm / length_mm)
                first, last = step * int(places[0]) - (step - 1), step * int(places[-1]) + step
                ends.append((max(0, first - margin), min(n, last + margin)))
        box.append(slice(min(first for first, _ in ends), max(last for _, last in ends)) if ends else slice(0, n))
    return box[0], box[1], box[2]


def _dark(image: Num[np.ndarray, "i j k"]) -> float:
    """What an image without Hounsfield units shows around the body lies below: a tenth of its bright voxels."""
    low, bright = np.percentile(image, [1, 99])
    return float(low + 0.1 * (bright - low))


def _range(scan: Scan) -> tuple[float, float, float]:
    """Lowest and highest intensity that is told apart, and the finest step."""
    smallest, largest = float(scan.image.min()), float(scan.image.max())
    if scan.is_ct:
        return max(smallest, _CT_RANGE_HU[0]), min(largest, _CT_RANGE_HU[1]), 1.0
    low, high = (float(p) for p in np.percentile(scan.image, [_OUTSIDE_PERCENT, 100 - _OUTSIDE_PERCENT]))
    if low == high:
        low, high = smallest, max(largest, smallest + 1)
    is_whole = bool((scan.image[:: max(1, len(scan.image) // 8)] % 1 == 0).all())
    return low, high, 1.0 if is_whole and high - low < _LEVELS else (high - low) / (_LEVELS - 1)


def _attempts(scan: Scan, box: Box, finest: float) -> Iterator[tuple[Factors, float]]:
    """From all that there is to ever less: coarser steps first, then larger voxels along the finest axes."""
    factors: list[int] = [1, 1, 1]
    spacing = np.array(spacing_mm(scan.affine))
    size = [each.stop - each.start for each in box]
    while True:
        step = 1
        while step <= _COARSEST_STEP:
            yield (factors[0], factors[1], factors[2]), finest * step
            step *= 2
        divisible = [axis for axis in range(3) if 2 * factors[axis] <= size[axis]]
        if not divisible:
            return
        apart = spacing * factors
        finest_mm = apart[divisible].min()
        for axis in divisible:
            if apart[axis] <= _SAME_SPACING * finest_mm:
                factors[axis] *= 2


def _block_mean(array: Num[np.ndarray, "i j k"], factors: Factors) -> Num[np.ndarray, "I J K"]:
    """Means of blocks of voxels; what is left over at the far ends is dropped."""
    for axis, factor in enumerate(factors):
        if factor > 1:
            n = array.shape[axis] // factor
            kept = array[(slice(None),) * axis + (slice(n * factor),)]
            split = (*kept.shape[:axis], n, factor, *kept.shape[axis + 1 :])
            array = kept.reshape(split).mean(axis=axis + 1, dtype=np.float32)
    return array


def _levels(array: Num[np.ndarray, "i j k"], low: float, high: float, step: float) -> UInt16[np.ndarray, "i j k"]:
    levels: UInt16[np.ndarray, "i j k"] = np.rint((np.clip(array, low, high) - low) / step).astype(np.uint16)
    return levels
