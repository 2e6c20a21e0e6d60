"""Test-time augmentation: the variants of an image that are averaged."""

from collections.abc import Sequence
from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from spleen.errors import InputError
from spleen.imaging.slicing import FLIP_DIRECTIONS, IN_PLANE_DIRECTIONS
from spleen.types import AxisName, ImageBatch

# Shifts of the test-time augmentation. Odd, so that every level of a network that halves sees other pixels.
_SHIFT_PIXELS = 3


@dataclass(frozen=True)
class Variant:
    """One way of showing a slice to the network, undone on its output: mirrored axes, then a shift in pixels."""

    flipped_dims: tuple[int, ...] = ()
    shift: tuple[int, int] = (0, 0)

    def show(self, image: ImageBatch) -> ImageBatch:
        """The slices as the network is to see them; what a shift leaves open repeats the edge."""
        return _shift(image.flip(self.flipped_dims) if self.flipped_dims else image, self.shift)

    def undo(self, logits: Float[Tensor, "b classes h w"]) -> Float[Tensor, "b classes h w"]:
        """The network's answer, back in the place of the unchanged slices."""
        height, width = self.shift
        back = _shift(logits, (-height, -width))
        return back.flip(self.flipped_dims) if self.flipped_dims else back


def _shift(planes: Float[Tensor, "b c h w"], shift: tuple[int, int]) -> Float[Tensor, "b c h w"]:
    down, right = shift
    if (down, right) == (0, 0):
        return planes
    height, width = planes.shape[2:]
    padded = F.pad(planes, (max(right, 0), max(-right, 0), max(down, 0), max(-down, 0)), mode="replicate")
    return padded[:, :, max(-down, 0) :, max(-right, 0) :][:, :, :height, :width]


def variants(axis: AxisName, flips: Sequence[str]) -> tuple[Variant, ...]:
    """The variants of the test-time augmentation: unchanged, shifted four ways, and mirrored along each of `flips`.

    `flips` are anatomical directions; those that do not lie in the plane of this axis are left out.
    Raises InputError for a direction that does not exist.
    """
    for direction in flips:
        if direction not in FLIP_DIRECTIONS:
            raise InputError(f"a flip must be among {', '.join(FLIP_DIRECTIONS)}; got {direction!r}")
    shifts = ((_SHIFT_PIXELS, 0), (-_SHIFT_PIXELS, 0), (0, _SHIFT_PIXELS), (0, -_SHIFT_PIXELS))
    dims = [dim for dim, direction in zip((2, 3), IN_PLANE_DIRECTIONS[axis], strict=True) if direction in flips]
    mirrored = [*((dim,) for dim in dims), *([tuple(dims)] if len(dims) == 2 else [])]
    return (Variant(), *(Variant(shift=shift) for shift in shifts), *(Variant(dims) for dims in mirrored))
