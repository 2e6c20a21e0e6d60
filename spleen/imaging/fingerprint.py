"""A hash of voxels that identifies an image independently of file name, orientation and compression."""

import hashlib
from collections.abc import Sequence

import numpy as np
from jaxtyping import Num
from numpy.typing import DTypeLike

# Planes converted at a time, so that the whole image is never copied.
_PLANES = 16


def fingerprint(channels: Sequence[Num[np.ndarray, "i j k"]], dtype: DTypeLike = np.float32) -> str:
    """SHA-256 of the shape and all voxels, converted to `dtype`, of RAS arrays on one grid."""
    digest = hashlib.sha256(repr(channels[0].shape).encode())
    for channel in channels:
        for start in range(0, len(channel), _PLANES):
            digest.update(np.ascontiguousarray(channel[start : start + _PLANES], dtype).data)
    return digest.hexdigest()
