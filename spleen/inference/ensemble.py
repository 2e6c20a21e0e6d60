"""Fusion of several views of one volume on its native grid, with their agreement."""

import logging
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Float32, Float64, Integer, Num, UInt8
from torch import Tensor

from spleen.errors import InputError
from spleen.imaging.classes import Regions, in_class
from spleen.imaging.files import ImageFiles
from spleen.imaging.geometry import Box, box_around
from spleen.imaging.native import NativeImage, read_native
from spleen.imaging.postprocessing import without_specks
from spleen.imaging.probabilities import most_probable_class
from spleen.imaging.slicing import in_slice_order, to_slices
from spleen.inference.views.probabilities import n_slices, view_probabilities
from spleen.inference.views.view import View
from spleen.types import AxisName

log = logging.getLogger(__name__)

# Probabilities below this are noise; summed over a whole volume they would outweigh the organ.
_NOISE_FLOOR = 0.05
# Of the largest component of a coarse mask.
_SPECK_FRACTION = 0.1
# Largest voxel of an image as `read_native` returns it, per channel.
_LARGEST_VOXEL_BYTES = 4


@dataclass(frozen=True)
class VolumePrediction:
    """Prediction of one volume by one or several views."""

    mask: UInt8[np.ndarray, "i j k"]
    """Class indices on the RAS grid."""
    probabilities: Float32[np.ndarray, "organ i j k"] | None
    """Averaged foreground probabilities on the RAS grid, if requested."""
    soft_dice_confidence: tuple[float, ...]
    """For each class, the soft Dice between the probabilities and the resulting mask; NaN without foreground."""
    agreement: tuple[float, ...]
    """For each class, the mean pairwise Dice of all views and variants; NaN with a single one or without foreground."""
    soft_volume_mm3: tuple[float, ...]
    """For each class, the sum of its probabilities above the noise times the volume of a (mean) voxel."""
    view_volumes_mm3: tuple[tuple[float, ...], ...]
    """For each view, the volume of each class in its own mask; empty with a single view."""


Place = tuple[slice, slice, slice]
"""A part of a stack of slices (n, H, W) of the whole volume."""
Slices = Iterator[tuple[View, Place, Float[Tensor, "variant b organ H W"]]]
"""Foreground probabilities of a range of slices, or of the part of them in a box, predicted by a view."""


class _Tally:
    """Sums per class from which agreement, soft-Dice confidence and soft volume are computed."""

    def __init__(self, n_organs: int, regions: Regions | None) -> None:
        self._regions = regions
        self._votes = np.zeros(n_organs)
        self._pairs = np.zeros(n_organs)
        self._inside = np.zeros(n_organs)
        self._soft = np.zeros(n_organs)
        self._hard = np.zeros(n_organs)

    def add_votes(self, votes: Integer[Tensor, "b organ *voxels"]) -> None:
        """Add the number of views and variants that chose each class, voxel by voxel.

        With v of n votes, v (v - 1) ordered pairs agree on the voxel, and each mask is part of n - 1 pairs: the sums
        over all voxels give the mean Dice of all pairs, weighted by their sizes.
        """
        votes = votes.movedim(1, 0).flatten(1).float()
        self._votes += votes.sum(1).cpu().numpy()
        self._pairs += (votes * (votes - 1)).sum(1).cpu().numpy()

    def add_decision(
        self, foreground: Float[Tensor, "b organ *voxels"], decision: Integer[Tensor, "b *voxels"]
    ) -> None:
        """Add probabilities and the classes decided from them."""
        for organ, probability in enumerate(foreground.unbind(1)):
            chosen = in_class(decision, organ + 1, self._regions)
            self._inside[organ] += float((probability * chosen).sum())
            above = torch.where(probability > _NOISE_FLOOR, probability, 0)
            self._soft[organ] += float(above.sum())
            self._hard[organ] += int(chosen.sum())

    def agreement(self, n_votes: int) -> tuple[float, ...]:
        """Mean pairwise Dice of each class."""
        return _ratios(self._pairs, self._votes * (n_votes - 1))

    def soft_dice_confidence(self) -> tuple[float, ...]:
        """Soft Dice of each class."""
        return _ratios(2 * self._inside, self._soft + self._hard)

    def soft_volume_mm3(self, voxel_volume_mm3: float) -> tuple[float, ...]:
        """Probability-weighted volume of each class."""
        return tuple(float(count) * voxel_volume_mm3 for count in self._soft)


def _ratios(numerator: Float64[np.ndarray, " n"], denominator: Float64[np.ndarray, " n"]) -> tuple[float, ...]:
    with np.errstate(invalid="ignore"):
        return tuple(float(value) for value in numerator / denominator)


def read_for(views: Sequence[View], image: ImageFiles, bytes_per_voxel: int) -> NativeImage:
    """Read an image for the views of one ensemble, with as many channels as they were trained on.

    `bytes_per_voxel` is the memory that the caller needs per voxel besides the image itself. Raises InputError as
    `read_native` does, if the number of channels differs, and for slices unevenly apart that a view would look across.
    """
    n_channels = views[0].model.preprocessing.n_channels
    image.check_channels(n_channels)
    native = read_native(
        *image.paths,
        n_channels=n_channels,
        tolerance_mm=min(view.model.preprocessing.grid_tolerance_mm for view in views),
        bytes_per_voxel=_LARGEST_VOXEL_BYTES * n_channels + bytes_per_voxel,
    )
    models = [view.model for each in views for view in (each, each.coarse) if view is not None]
    across = [model for model in models if model.preprocessing.axis != native.uneven_axis]
    if native.uneven_axis is not None and across:
        raise InputError(
            f"{image.paths[0]}: its {native.uneven_axis} slices are unevenly spaced, and {across[0].name} would look "
            f"across them, along the {across[0].preprocessing.axis} axis; use {native.uneven_axis} runs only"
        )
    return native


def counting(views: Sequence[View]) -> Sequence[View]:
    """The views with a weight: the others would count in the agreement, and cost their time."""
    return [view for view in views if view.weight > 0]


def predict_volume(
    views: Sequence[View],
    image: NativeImage,
    name: str,
    batch_size: int,
    keep_probabilities: bool,
    advance: Callable[[int], None],
) -> VolumePrediction:
    """Average the probabilities of the views and decide on the native grid; those of weight 0 are left out.

    A view of a cascade predicts in the box of its coarse view, and background beyond it. Where the coarse view finds
    nothing, the whole volume is predicted, with a warning.
    Memory: 1 byte per voxel for a single view, which is decided slice by slice; several views need 5 more per voxel
    and class, kept probabilities 4. `name` is used in messages; `advance` receives the number of slices just done.
    """
    views = counting(views)
    decide = _single if len(views) == 1 else _fused
    return decide(views, image, _slices(views, image, name, batch_size, advance), keep_probabilities)


def _slices(
    views: Sequence[View], image: NativeImage, name: str, batch_size: int, advance: Callable[[int], None]
) -> Slices:
    found: dict[tuple[str, tuple[str, ...]], Box | None] = {}
    for view in views:
        box = _box(view, image, name, batch_size, advance, found) or Box((0, 0, 0), image.shape)
        first, rows, columns = in_slice_order(box.slices, view.model.preprocessing.axis)
        view.model.network.to(view.hardware.device)
        if beyond := n_slices(view.model, image) - (first.stop - first.start):
            advance(beyond)
        predicted = view_probabilities(view.model, image, name, view.variants, view.hardware, batch_size, box)
        for part, planes in predicted:
            yield view, (slice(first.start + part.start, first.start + part.stop), rows, columns), planes
            advance(part.stop - part.start)


def _box(
    view: View,
    image: NativeImage,
    name: str,
    batch_size: int,
    advance: Callable[[int], None],
    found: dict[tuple[str, tuple[str, ...]], Box | None],
) -> Box | None:
    """Where the view predicts; None: everywhere. `found` keeps what each coarse network has found."""
    roi = view.model.spec.roi
    if roi is None or view.coarse is None:
        return None
    key = roi.checkpoint_sha256, roi.classes
    if key not in found:
        found[key] = find_organ(view.coarse, roi.classes, image, name, batch_size, advance)
        if found[key] is None:
            log.warning(
                "%s: the coarse run of %s finds nothing, so the whole volume is predicted", name, view.model.name
            )
    box = found[key]
    return None if box is None else box.grown(roi.margin_mm, image.affine, image.shape)


def find_organ(
    coarse: View,
    classes: Collection[str],
    image: NativeImage,
    name: str,
    batch_size: int,
    advance: Callable[[int], None],
) -> Box | None:
    """The box around these classes, or around all if there are none, in the mask of a view; None without a voxel.

    Components of less than a tenth of the largest one of their class are left out: a speck far away would make the box
    useless, while the second of a pair of organs must stay in it, and a small organ beside a large one.
    """
    mask = predict_volume([coarse], image, name, batch_size, False, advance).mask
    known = coarse.model.classes
    found = np.zeros(mask.shape, dtype=bool)
    for number, class_name in enumerate(known.names, start=1):
        if not classes or class_name in classes:
            found |= without_specks(in_class(mask, number, known.regions), _SPECK_FRACTION)
    return box_around(found)


def _single(views: Sequence[View], image: NativeImage, slices: Slices, keep_probabilities: bool) -> VolumePrediction:
    (view,) = views
    axis, n_organs = view.model.preprocessing.axis, len(view.model.classes.names)
    regions = view.model.classes.regions
    mask = _zeros(image, np.uint8)
    kept = _zeros(image, np.float32, n_organs) if keep_probabilities else None
    tally = _Tally(n_organs, regions)
    for _, place, planes in slices:
        foreground = planes.mean(0)
        decision = most_probable_class(foreground, regions)
        tally.add_decision(foreground, decision)
        if len(view.variants) > 1:
            tally.add_votes(_votes(planes, regions))
        to_slices(mask, axis)[place] = decision.cpu().numpy()
        if kept is not None:
            _add(kept, foreground, axis, place)
    return VolumePrediction(
        mask,
        kept,
        tally.soft_dice_confidence(),
        tally.agreement(len(view.variants)),
        tally.soft_volume_mm3(image.voxel_volume_mm3),
        (),
    )


def _fused(views: Sequence[View], image: NativeImage, slices: Slices, keep_probabilities: bool) -> VolumePrediction:
    n_organs, regions = len(views[0].model.classes.names), views[0].model.classes.regions
    n_votes = sum(len(view.variants) for view in views)
    fused = _zeros(image, np.float32, n_organs)
    votes = _zeros(image, np.uint8 if n_votes < 256 else np.uint16, n_organs)
    own = {id(view): np.zeros(n_organs) for view in views}
    for view, place, planes in slices:
        of_view, of_variants = planes.mean(0), _votes(planes, regions)
        _add(fused, of_view * view.weight, view.model.preprocessing.axis, place)
        _add(votes, of_variants, view.model.preprocessing.axis, place)
        chosen = of_variants if len(planes) == 1 else _votes(of_view[None], regions)
        own[id(view)] += chosen.sum((0, 2, 3)).cpu().numpy()
    mask, tally = _zeros(image, np.uint8), _Tally(n_organs, regions)
    for k in range(mask.shape[2]):
        foreground = torch.from_numpy(fused[None, ..., k])
        decision = most_probable_class(foreground, regions)
        tally.add_decision(foreground, decision)
        tally.add_votes(torch.from_numpy(votes[None, ..., k]))
        mask[..., k] = decision[0].numpy()
    kept = fused if keep_probabilities else None
    voxel_mm3 = image.voxel_volume_mm3
    return VolumePrediction(
        mask,
        kept,
        tally.soft_dice_confidence(),
        tally.agreement(n_votes),
        tally.soft_volume_mm3(voxel_mm3),
        tuple(tuple(float(count) * voxel_mm3 for count in counts) for counts in own.values()),
    )


def _zeros(image: NativeImage, dtype: type[np.number], n_organs: int | None = None) -> np.ndarray:
    """Zeros on the image's RAS grid, once or per class; i varies fastest, as in NIfTI."""
    reversed_shape = image.shape[::-1]
    if n_organs is None:
        return np.zeros(reversed_shape, dtype).transpose()
    return np.zeros((n_organs, *reversed_shape), dtype).transpose(0, 3, 2, 1)


def _add(volumes: np.ndarray, planes: Num[Tensor, "b organ H W"], axis: AxisName, place: Place) -> None:
    for volume, of_class in zip(volumes, planes.unbind(1), strict=True):
        to_slices(volume, axis)[place] += of_class.cpu().numpy()


def _votes(planes: Float[Tensor, "variant b organ H W"], regions: Regions | None) -> UInt8[Tensor, "b organ H W"]:
    """Number of variants that chose each class."""
    decision = most_probable_class(planes.flatten(0, 1), regions).unflatten(0, planes.shape[:2])
    numbers = range(1, 1 + planes.shape[2])
    return torch.stack([in_class(decision, number, regions).sum(0) for number in numbers], dim=1).to(torch.uint8)
