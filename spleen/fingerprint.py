"""A hash of voxels, by which an image is known again, however its file is called, oriented or compressed."""

import hashlib
from collections.abc import Sequence

import numpy as np
from jaxtyping import Num
from numpy.typing import DTypeLike

# Planes that are brought into one order and type at a time, so that no second array of the whole image is made.
_PLANES = 16


def fingerprint(channels: Sequence[Num[np.ndarray, "i j k"]], dtype: DTypeLike = np.float32) -> str:
    """SHA-256 of the shape and of all voxels as `dtype`, of RAS arrays on one grid."""
    digest = hashlib.sha256(repr(channels[0].shape).encode())
    for channel in channels:
        for start in range(0, len(channel), _PLANES):
            digest.update(np.ascontiguousarray(channel[start : start + _PLANES], dtype).data)
    return digest.hexdigest()
