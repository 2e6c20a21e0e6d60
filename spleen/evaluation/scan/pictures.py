"""Still pictures of slices: what a page shows before, and without, its scripts."""

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO

import numpy as np
from jaxtyping import Bool, Float32, Num, UInt8
from matplotlib.colors import to_rgb
from PIL import Image

from spleen.evaluation.scan.colours import ClassColours
from spleen.imaging.slicing import AXES, slice_spacing_mm, to_slices
from spleen.reporting.figures import HATCH_COLOUR, VEIL_COLOUR, VEIL_OPACITY, to_display
from spleen.types import Affine, AxisName

_FILLED = 0.25  # opacity of a mask within its outline
_STRIPE_APART, _STRIPE_WIDTH = 9, 2  # of unlabelled pixels, in pixels across


@dataclass(frozen=True)
class Picture:
    """One slice as a data URL, with the text that stands for it."""

    title: str
    alternative: str
    png: str


def slice_picture(
    image: Num[np.ndarray, "i j k"],
    masks: Mapping[str, UInt8[np.ndarray, "i j k"]],
    affine: Affine,
    place: tuple[AxisName, int],
    window: tuple[float, float],
    colours: Sequence[ClassColours],
    most_pixels: int = 512,
    unlabelled: Bool[np.ndarray, "i j k"] | None = None,
) -> Picture:
    """One slice in radiological orientation, on square pixels, with the masks in the colours of their classes.

    `window` is the intensity shown black and the one shown white. What is `unlabelled` lies under a hatched veil.
    """
    axis, index = place
    low, high = window
    plane = to_display(np.asarray(to_slices(image, axis)[index], dtype=np.float32))
    grey = np.clip((plane - low) / (high - low), 0, 1)
    labels = {name: to_display(to_slices(mask, axis)[index]) for name, mask in masks.items()}
    height, width = _size(plane.shape, affine, axis, most_pixels)
    shown = Image.fromarray(np.rint(255 * grey).astype(np.uint8)).resize((width, height), Image.Resampling.BILINEAR)
    rgb = np.repeat(np.asarray(shown, dtype=np.float32)[..., None], 3, axis=2)
    hatched = unlabelled is not None and _veil(rgb, to_display(to_slices(unlabelled, axis)[index]))
    present: list[str] = []
    for name, label in labels.items():
        large = np.asarray(Image.fromarray(label).resize((width, height), Image.Resampling.NEAREST))
        present += [name] if large.any() else []
        for number, colour in enumerate(colours, start=1):
            region = large == number
            tint = 255 * np.array(to_rgb(colour.prediction if name == "prediction" else colour.reference))
            opacity = np.where(_outline(region), 1.0, _FILLED)[region][:, None]
            rgb[region] += opacity * (tint - rgb[region])
    buffer = BytesIO()
    Image.fromarray(np.rint(rgb).astype(np.uint8)).save(buffer, "PNG")
    title = f"{axis} slice {index}"
    alternative = f"{title}, {' and '.join(present) + ' in colour' if present else 'no mask here'}"
    alternative += ", hatched where nobody has labelled" if hatched else ""
    return Picture(title, alternative, f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}")


def _veil(rgb: Float32[np.ndarray, "h w 3"], unlabelled: Bool[np.ndarray, "H W"]) -> bool:
    """Hatch the unlabelled pixels of a picture in place; whether there are any."""
    height, width = rgb.shape[:2]
    region = np.asarray(Image.fromarray(unlabelled).resize((width, height), Image.Resampling.NEAREST))
    rows, columns = np.indices((height, width))
    stripes = (rows + columns) % _STRIPE_APART < _STRIPE_WIDTH
    for part, colour, opacity in ((region, VEIL_COLOUR, VEIL_OPACITY), (region & stripes, HATCH_COLOUR, 1.0)):
        rgb[part] += opacity * (255 * np.array(to_rgb(colour), np.float32) - rgb[part])
    return bool(region.any())


def fullest_slice(mask: UInt8[np.ndarray, "i j k"] | None, shape: tuple[int, ...], axis: AxisName) -> int:
    """The slice with most of a mask, or the middle one."""
    number = AXES.index(axis)
    if mask is None or not mask.any():
        return shape[number] // 2
    others = tuple(other for other in range(3) if other != number)
    return int(np.count_nonzero(mask, axis=others).argmax())


def _size(shape: tuple[int, ...], affine: Affine, axis: AxisName, most_pixels: int) -> tuple[int, int]:
    """Height and width in square pixels, not longer than `most_pixels`."""
    _, height_mm, width_mm = slice_spacing_mm(affine, axis)
    size_mm = shape[0] * height_mm, shape[1] * width_mm
    pixel_mm = max(min(height_mm, width_mm), max(size_mm) / most_pixels)
    return max(1, round(size_mm[0] / pixel_mm)), max(1, round(size_mm[1] / pixel_mm))


def _outline(region: Bool[np.ndarray, "h w"]) -> Bool[np.ndarray, "h w"]:
    """The pixels of a region that have a neighbour outside."""
    padded = np.pad(region, 1)
    inside = padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:]
    edge: Bool[np.ndarray, "h w"] = region & ~inside
    return edge
