"""Names for the arrays that travel through the package, with their shapes.

Letters: ``i j k`` are the voxel axes of a volume; ``n`` counts slices; ``b`` counts the samples of a batch; ``c``
counts channels or classes; ``h w`` are the in-plane axes of a slice, rows first, on the network's grid, and ``H W`` on
the native one; ``d`` counts the slices of a patch in 3D, 1 for a slice. Class 0 is always the background.
"""

from typing import Literal

import numpy as np
from jaxtyping import Bool, Float, Float64, Integer, Num
from torch import Tensor

VolumeArray = Num[np.ndarray, "i j k"]
LabelVolume = Integer[np.ndarray, "i j k"]
MaskVolume = Bool[np.ndarray, "i j k"]
Affine = Float64[np.ndarray, "4 4"]

ImageBatch = Float[Tensor, "b c h w"]
LabelBatch = Integer[Tensor, "b d h w"]
LabelPlanes = Integer[Tensor, "b H W"]
Logits = Float[Tensor, "b classes h w"]

PatchBatch = Float[Tensor, "b c d h w"]
PatchLogits = Float[Tensor, "b classes d h w"]

AxisName = Literal["sagittal", "coronal", "axial"]
SpacingMm = tuple[float, float, float]
