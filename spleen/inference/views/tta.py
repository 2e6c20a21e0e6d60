"""Test-time augmentation: the variants of an image that are averaged."""

from collections.abc import Sequence
from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from spleen.errors import InputError
from spleen.imaging.slicing import FLIP_DIRECTIONS, IN_PLANE_DIRECTIONS
from spleen.types import AxisName, ImageBatch

# Odd, so that every level of a network that halves the resolution samples other pixels.
_SHIFT_PIXELS = 3


@dataclass(frozen=True)
class Variant:
    """One transform of the slices, undone on the logits: mirrored dimensions, then a shift in pixels."""

    flipped_dims: tuple[int, ...] = ()
    shift: tuple[int, int] = (0, 0)
    swapped: tuple[int, ...] = ()
    """For each class index, the class that it is in the mirrored slices; empty if all keep theirs."""

    def apply(self, image: ImageBatch) -> ImageBatch:
        """The transformed slices; a shift replicates the edge."""
        return _shift(image.flip(self.flipped_dims) if self.flipped_dims else image, self.shift)

    def undo(self, logits: Float[Tensor, "b classes h w"]) -> Float[Tensor, "b classes h w"]:
        """Logits of transformed slices, aligned with the original ones."""
        height, width = self.shift
        back = _shift(logits, (-height, -width))
        back = back.flip(self.flipped_dims) if self.flipped_dims else back
        return back[:, list(self.swapped)] if self.swapped else back


def _shift(planes: Float[Tensor, "b c h w"], shift: tuple[int, int]) -> Float[Tensor, "b c h w"]:
    down, right = shift
    if (down, right) == (0, 0):
        return planes
    height, width = planes.shape[2:]
    padded = F.pad(planes, (max(right, 0), max(-right, 0), max(down, 0), max(-down, 0)), mode="replicate")
    return padded[:, :, max(-down, 0) :, max(-right, 0) :][:, :, :height, :width]


def variants(axis: AxisName, flips: Sequence[str], swapped: Sequence[int] = ()) -> tuple[Variant, ...]:
    """The variants of the test-time augmentation: unchanged, shifted four ways, and mirrored along each of `flips`.

    `flips` are anatomical directions; those outside the slice plane of this axis are ignored. `swapped` are the classes
    after mirroring along left_right, as by `swapped_classes`. Raises InputError for an unknown direction.
    """
    check_flips(flips)
    shifts = ((_SHIFT_PIXELS, 0), (-_SHIFT_PIXELS, 0), (0, _SHIFT_PIXELS), (0, -_SHIFT_PIXELS))
    dim_of = dict(zip(IN_PLANE_DIRECTIONS[axis], (2, 3), strict=True))
    dims = [dim for direction, dim in dim_of.items() if direction in flips]
    mirrored = [*((dim,) for dim in dims), *([tuple(dims)] if len(dims) == 2 else [])]
    left_right = dim_of.get("left_right")
    return (
        Variant(),
        *(Variant(shift=shift) for shift in shifts),
        *(Variant(dims, swapped=tuple(swapped) if left_right in dims else ()) for dims in mirrored),
    )


def check_flips(flips: Sequence[str]) -> None:
    """Raise InputError for an unknown direction."""
    for direction in flips:
        if direction not in FLIP_DIRECTIONS:
            raise InputError(f"a flip must be among {', '.join(FLIP_DIRECTIONS)}; got {direction!r}")
