"""A 3D network on the patches that it was trained on, and on the slices of a whole case by sliding windows."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from spleen.errors import InputError
from spleen.models.windows import gaussian_weights, window_places
from spleen.types import ImageBatch, Logits, PatchBatch, PatchLogits


class PatchWindows(nn.Module):
    """Lets a network for patches of one size accept smaller patches, and consecutive slices of any number and size.

    Patches (b, c, d, h, w) are padded at their far ends to `patch_size` and their logits cropped. Slices (n, c, h, w)
    are one volume: it is cut into overlapping patches, whose logits are averaged with Gaussian weights as those of
    `OverlappingWindows` are. The network therefore only ever sees patches of the one size that it can be halved from.

    Args:
        network: maps (b, c, d, h, w) to logits (b, classes, d, h, w), for the patch size.
        patch_size: depth in slices, height and width in pixels.
        overlap: fraction of its side that a patch shares with the next, 0 to below 1.
    """

    def __init__(self, network: nn.Module, patch_size: tuple[int, int, int], overlap: float = 0.5) -> None:
        super().__init__()
        self.network = network
        self.patch_size = patch_size
        self.overlap = overlap

    def forward(self, image: ImageBatch | PatchBatch) -> Logits | PatchLogits:
        """Logits of patches (b, classes, d, h, w), or of the slices of one volume (n, classes, h, w)."""
        if image.ndim == 5:
            return self._of_patch(image)
        return self._of_volume(image.transpose(0, 1)).transpose(0, 1)

    def compile(self, *args: object, **kwargs: object) -> None:
        """Compile only the network: all patches have the same size, but a graph of the whole loop would be huge."""
        self.network.compile(*args, **kwargs)

    def _of_patch(self, patch: PatchBatch) -> PatchLogits:
        size = patch.shape[-3:]
        missing = [full - side for full, side in zip(self.patch_size, size, strict=True)]
        if min(missing) < 0:
            raise InputError(f"a patch of {tuple(size)} is larger than the patches of the training, {self.patch_size}")
        if any(missing):
            patch = F.pad(patch, [0, missing[2], 0, missing[1], 0, missing[0]], mode="replicate")
        logits = self.network(patch.contiguous(memory_format=torch.channels_last_3d))
        self._check(logits, patch)
        cropped: Tensor = logits[..., : size[0], : size[1], : size[2]]
        return cropped

    def _of_volume(self, volume: Tensor) -> Tensor:
        """Logits (classes, n, h, w) of a volume (c, n, h, w); accumulated in float32 whatever the precision."""
        size = volume.shape[1:]
        places = window_places(size, self.patch_size, self.overlap)
        if len(places) == 1:
            return self._of_patch(volume.unsqueeze(0))[0].float()
        weights = gaussian_weights([part.stop - part.start for part in places[0]], volume.device)
        sum_of_weights = torch.zeros(size, device=volume.device)
        sum_of_logits: Tensor | None = None
        for place in places:
            logits = self._of_patch(volume[:, *place].unsqueeze(0))[0]
            if sum_of_logits is None:
                sum_of_logits = torch.zeros((len(logits), *size), device=volume.device)
            sum_of_logits[:, *place] += weights * logits
            sum_of_weights[*place] += weights
        assert sum_of_logits is not None  # a volume has at least one window
        return sum_of_logits.div_(sum_of_weights)

    def _check(self, logits: object, patch: Tensor) -> None:
        name = type(self.network).__name__
        if not isinstance(logits, Tensor) or logits.ndim != 5 or logits.shape[-3:] != patch.shape[-3:]:
            found = tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
            raise InputError(
                f"the network must return logits (b, classes, d, h, w) with the size of its input "
                f"{tuple(patch.shape)}; {name} returned {found}"
            )
