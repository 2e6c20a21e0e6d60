"""Padding of slices to the size multiple that a network requires, and the crop that undoes it."""

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from spleen.errors import InputError
from spleen.types import ImageBatch, Logits


def pad_to_multiple(image: ImageBatch, multiple: int) -> Float[Tensor, "b c padded_h padded_w"]:
    """Pad height and width, at the bottom and on the right, to the next multiple of ``multiple`` pixels.

    Edge pixels are replicated. Constant padding would need the intensity of air, which depends on the
    normalisation, and a wrong value creates an artificial edge; replication works with any normalisation.
    An image that already fits is returned without a copy. The memory format is preserved.
    """
    height, width = image.shape[-2:]
    bottom, right = -height % multiple, -width % multiple
    if bottom == 0 and right == 0:
        return image
    return F.pad(image, (0, right, 0, bottom), mode="replicate")


class PadToMultiple(nn.Module):
    """Lets a network that maps (b, c, h, w) to logits (b, classes, h, w) accept any height and width.

    Pads the image to the next multiple of ``multiple`` pixels, runs the network and crops its logits.

    Raises:
        InputError: ``multiple`` below 1, or a network that does not return one tensor of logits with the
            height and width of its input.
    """

    def __init__(self, network: nn.Module, multiple: int) -> None:
        super().__init__()
        if multiple < 1:
            raise InputError(f"size_multiple must be at least 1 pixel; got {multiple}")
        self.network = network
        self.multiple = multiple

    def forward(self, image: ImageBatch) -> Logits:
        """Logits (b, classes, h, w) with the image's height and width."""
        height, width = image.shape[-2:]
        padded = pad_to_multiple(image, self.multiple)
        logits: Tensor = self.network(padded)
        self._check(logits, padded)
        return logits if padded is image else logits[..., :height, :width]

    def _check(self, logits: object, padded: Tensor) -> None:
        name = type(self.network).__name__
        if not isinstance(logits, Tensor):
            raise InputError(
                f"the network must return one tensor of logits (b, classes, h, w); {name} returned a "
                f"{type(logits).__name__}. Disable its deep supervision, or wrap it to return one output"
            )
        if logits.ndim != 4 or logits.shape[-2:] != padded.shape[-2:]:
            raise InputError(
                f"the network must return logits (b, classes, h, w) with the height and width of its input "
                f"{tuple(padded.shape)}; {name} returned {tuple(logits.shape)}"
            )
