"""The colours of classes, reference and prediction, and of distances; told apart by colour-blind readers too."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64, UInt8
from matplotlib import colormaps
from matplotlib.colors import to_rgb

from spleen.evaluation.scan.surface import Mesh
from spleen.reporting.figures import LABEL_COLOURS, OKABE_ITO, VEIL_COLOUR

# As in the overlays of a run: a pair of hues for each of the first classes; with more, one hue for a class.
_PAIRS = (("sky blue", "orange"), ("bluish green", "reddish purple"), ("yellow", "vermillion"))
_COLOUR_MAP = "cividis"
_LARGEST_PERCENT = 99


@dataclass(frozen=True)
class ClassColours:
    """Hexadecimal colours of one class; where both are the same, the page draws the reference dashed."""

    reference: str
    prediction: str


def class_colours(n_classes: int, both_masks: bool) -> tuple[ClassColours, ...]:
    """The colours of classes 1, 2, …; a hue of its own for each mask where both are shown and the hues suffice."""
    if both_masks and n_classes <= len(_PAIRS):
        return tuple(ClassColours(OKABE_ITO[first], OKABE_ITO[second]) for first, second in _PAIRS[:n_classes])
    hues = [LABEL_COLOURS[number % len(LABEL_COLOURS)] for number in range(n_classes)]
    return tuple(ClassColours(hue, hue) for hue in hues)


def largest_shown_mm(meshes: Sequence[Mesh]) -> float | None:
    """The end of the colour bar: the 99th percentile of the distances, rounded up; None without distances."""
    distances = [mesh.distance_mm[np.isfinite(mesh.distance_mm)] for mesh in meshes if mesh.distance_mm is not None]
    values = np.concatenate(distances) if distances else np.empty(0)
    if not values.size:
        return None
    largest = max(1.0, float(np.percentile(values, _LARGEST_PERCENT)))
    power = 10.0 ** math.floor(math.log10(largest))
    return next(step * power for step in (1, 1.5, 2, 3, 4, 5, 7.5, 10) if step * power >= largest * (1 - 1e-9))


def vertex_colours(mesh: Mesh, colour: str, largest_mm: float | None) -> UInt8[np.ndarray, "n 3"]:
    """The distance of each vertex as its colour, or the colour of the class where there is no distance.

    Vertices whose distance is unknown (NaN) are grey.
    """
    if mesh.distance_mm is None or largest_mm is None:
        rgb = np.tile(np.array(to_rgb(colour)), (len(mesh.vertices_mm), 1))
    else:
        rgb = colormaps[_COLOUR_MAP](np.minimum(mesh.distance_mm, largest_mm) / largest_mm)[:, :3]
        rgb[np.isnan(mesh.distance_mm)] = to_rgb(VEIL_COLOUR)
    return _bytes(rgb)


def colour_bar() -> str:
    """The colours from no distance to the largest, as a CSS gradient."""
    stops = _bytes(colormaps[_COLOUR_MAP](np.linspace(0, 1, 9))[:, :3])
    return f"linear-gradient(to right, {', '.join(f'#{bytes(stop).hex()}' for stop in stops)})"


def _bytes(rgb: Float64[np.ndarray, "n 3"]) -> UInt8[np.ndarray, "n 3"]:
    whole: UInt8[np.ndarray, "n 3"] = np.rint(255 * rgb).astype(np.uint8)
    return whole
