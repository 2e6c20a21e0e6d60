"""What the viewer of a page needs: the voxels, masks and surfaces as data, the words around them, still pictures."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from spleen.evaluation.scan.case import Scan
from spleen.evaluation.scan.colours import (
    ClassColours,
    class_colours,
    colour_bar,
    largest_shown_mm,
    vertex_colours,
)
from spleen.evaluation.scan.embedding import MOST_BYTES, EmbeddedScan, embed, pack
from spleen.evaluation.scan.errors import WorstSlice, worst_slices
from spleen.evaluation.scan.mesh_files import write_mesh
from spleen.evaluation.scan.pictures import Picture, fullest_slice, slice_picture
from spleen.evaluation.scan.surface import Mesh, labelled_distances, surface_meshes
from spleen.imaging.geometry import spacing_mm
from spleen.imaging.intensity import CT_PRESETS, DisplayWindow
from spleen.imaging.slicing import AXES
from spleen.reporting.html import page_file
from spleen.reporting.numbers import format_number
from spleen.types import SpacingMm

_FACES_ON_A_PAGE = 60_000


@dataclass(frozen=True)
class LegendEntry:
    """A class with the colours of its masks."""

    name: str
    colours: ClassColours


@dataclass(frozen=True)
class Viewer:
    """The block that `viewer.html.jinja` shows; `data` is what viewer.js reads."""

    data: dict[str, object]
    pictures: tuple[Picture, ...]
    windows: tuple[DisplayWindow, ...]
    masks: tuple[str, ...]
    legend: tuple[LegendEntry, ...]
    has_error: bool
    has_surface: bool
    largest_mm: float | None
    """The end of the colour bar of the distances."""
    bar: str
    has_unlabelled: bool
    notes: tuple[str, ...]
    """What the page holds of the image, and what it does not."""


def make_viewer(scan: Scan, most_bytes: int = MOST_BYTES) -> Viewer:
    """Everything for the viewer of one scan; raises InputError where nothing of the image fits `most_bytes`."""
    embedded = embed(scan, most_bytes)
    windows = _windows(scan)
    colours = class_colours(len(scan.classes), both_masks=len(scan.masks) == 2)
    meshes = _meshes(scan, _FACES_ON_A_PAGE)
    largest_mm = largest_shown_mm(meshes)
    worst: tuple[WorstSlice, ...] = ()
    if scan.reference is not None and scan.scored_prediction is not None:
        worst = worst_slices(scan.scored_prediction, scan.reference, scan.affine)
    start = _start(scan)
    data: dict[str, object] = {
        "shape": embedded.levels.shape,
        "affine": embedded.affine.tolist(),
        "first": [each.start for each in embedded.box],
        "factors": embedded.factors,
        "nativeShape": scan.image.shape,
        "unit": "HU" if scan.is_ct else "",
        "low": embedded.low,
        "step": embedded.step,
        "image": embedded.packed,
        "masks": {name: pack(mask) for name, mask in embedded.masks.items()},
        "unlabelled": None if embedded.unlabelled is None else pack(embedded.unlabelled.astype(np.uint8)),
        "classes": [{"name": name, **vars(colour)} for name, colour in zip(scan.classes, colours, strict=True)],
        "windows": [vars(window) for window in windows],
        "start": embedded.from_native(start),
        "worst": [_worst(each, embedded) for each in worst],
        "meshes": [_mesh(mesh, _colours_of(scan, mesh, colours), largest_mm) for mesh in meshes],
    }
    return Viewer(
        data=data,
        pictures=_pictures(scan, start, windows[0], colours),
        windows=windows,
        masks=tuple(scan.masks),
        legend=tuple(LegendEntry(name, colour) for name, colour in zip(scan.classes, colours, strict=True)),
        has_error=bool(worst),
        has_surface=bool(meshes),
        largest_mm=largest_mm,
        bar=colour_bar(),
        has_unlabelled=embedded.unlabelled is not None,
        notes=tuple(_notes(scan, embedded)),
    )


def write_scan_mesh(path: Path, scan: Scan) -> None:
    """Write the surfaces of the masks at full resolution; raises InputError as `write_mesh` does.

    STL holds the prediction where one is given, even an empty one: never the reference in its place.
    """
    meshes = _meshes(scan, None)
    colours = class_colours(len(scan.classes), both_masks=len(scan.masks) == 2)
    largest_mm = largest_shown_mm(meshes)
    of_mesh = [_colour(mesh, _colours_of(scan, mesh, colours)) for mesh in meshes]
    stl_mask = "reference" if scan.prediction is None else "prediction"
    vertices = [vertex_colours(m, c, largest_mm) for m, c in zip(meshes, of_mesh, strict=True)]
    write_mesh(path, meshes, vertices, stl_mask)


def _meshes(scan: Scan, most_faces: int | None) -> tuple[Mesh, ...]:
    meshes = surface_meshes(scan.masks, scan.scored_classes, scan.affine, most_faces)
    return labelled_distances(meshes, scan.unlabelled, scan.affine)


def viewer_scripts() -> tuple[str, ...]:
    """The scripts of the viewer, for `render_page`."""
    return page_file("surface.js"), page_file("viewer.js")


def _windows(scan: Scan) -> tuple[DisplayWindow, ...]:
    if scan.is_ct:
        return tuple(CT_PRESETS.values())
    sample = scan.image[::2, ::2, ::2]
    low, high = (float(p) for p in np.percentile(sample, [1, 99]))
    smallest, largest = float(scan.image.min()), float(scan.image.max())
    ends = {
        "automatic": (low, high),
        "bright": ((low + high) / 2, high),
        "dark": (low, (low + high) / 2),
        "all": (smallest, largest),
    }
    return tuple(
        DisplayWindow((first + last) / 2, max(last - first, 1e-6 * abs(last), 1e-12), name)
        for name, (first, last) in ends.items()
    )


def _start(scan: Scan) -> tuple[int, int, int]:
    """Where the crosshair begins: in the middle of the reference, else of the prediction, else of the image."""
    mask = next((each for each in scan.masks.values() if each.any()), None)
    i, j, k = (fullest_slice(mask, scan.image.shape, axis) for axis in AXES)
    if mask is None or mask[i, j, k]:
        return i, j, k
    inside = np.argwhere(mask[:, :, k])
    i, j = (int(each) for each in inside[np.abs(inside - (i, j)).sum(axis=1).argmin()])
    return i, j, k


def _pictures(
    scan: Scan, start: tuple[int, int, int], window: DisplayWindow, colours: Sequence[ClassColours]
) -> tuple[Picture, ...]:
    places = dict(zip(AXES, start, strict=True))
    return tuple(
        slice_picture(
            scan.image,
            scan.masks,
            scan.affine,
            (axis, places[axis]),
            window.ends,
            colours,
            unlabelled=scan.unlabelled,
        )
        for axis in reversed(AXES)
    )


def thumbnail(scan: Scan, most_pixels: int) -> Picture:
    """The axial slice with most of a mask."""
    colours = class_colours(len(scan.classes), both_masks=len(scan.masks) == 2)
    place = _start(scan)[AXES.index("axial")]
    return slice_picture(
        scan.image,
        scan.masks,
        scan.affine,
        ("axial", place),
        _windows(scan)[0].ends,
        colours,
        most_pixels,
        scan.unlabelled,
    )


def _worst(each: WorstSlice, embedded: EmbeddedScan) -> dict[str, object]:
    voxel = embedded.from_native(each.voxel)
    text = f"{each.axis} slice {each.index}: {each.n_wrong:,d} wrong voxels, {format_number(each.volume_ml)} ml"
    return {"axis": each.axis, "voxel": voxel, "text": text}


def _mesh(mesh: Mesh, colours: ClassColours, largest_mm: float | None) -> dict[str, object]:
    """A mesh for the page: its vertices as 16-bit numbers between its ends."""
    low, high = mesh.vertices_mm.min(axis=0), mesh.vertices_mm.max(axis=0)
    levels = np.rint((mesh.vertices_mm - low) / np.maximum(high - low, 1e-9) * 65535).astype(np.uint16)
    return {
        "name": mesh.name,
        "mask": mesh.mask,
        "low": low.tolist(),
        "high": high.tolist(),
        "vertices": pack(levels.T),
        "faces": pack(mesh.faces.astype("<u4").T),
        "colours": pack(vertex_colours(mesh, _colour(mesh, colours), largest_mm).T),
    }


def _colours_of(scan: Scan, mesh: Mesh, colours: Sequence[ClassColours]) -> ClassColours:
    """Those of the class, or of its first part."""
    return colours[scan.scored_classes[mesh.name][0] - 1]


def _colour(mesh: Mesh, colours: ClassColours) -> str:
    return colours.prediction if mesh.mask == "prediction" else colours.reference


def _notes(scan: Scan, embedded: EmbeddedScan) -> list[str]:
    unit = " HU" if scan.is_ct else ""
    native, shown = times(scan.image.shape), times(embedded.levels.shape)
    cropped = tuple(each.stop - each.start for each in embedded.box)
    notes = [f"The image has {native} voxels of {_mm(spacing_mm(scan.affine))} mm."]
    if cropped != scan.image.shape:
        first, last = ([getattr(each, end) for each in embedded.box] for end in ("start", "stop"))
        spans = ", ".join(f"{axis} {a} to {b - 1}" for axis, a, b in zip(AXES, first, last, strict=True))
        notes.append(f"The page holds the {times(cropped)} around body and masks: slices {spans}.")
    if embedded.factors != (1, 1, 1):
        notes.append(
            f"Downsampled by {times(embedded.factors)} to {shown} voxels of {_mm(embedded.spacing_mm)} mm, so that the "
            "page stays small: intensities are means, masks the voxel in the middle."
        )
    else:
        notes.append("It is shown at full resolution.")
    top = embedded.low + embedded.step * int(embedded.levels.max())
    low, high = (f"{value:.6g}".replace("-", "−") for value in (embedded.low, top))
    notes.append(
        f"Intensities run from {low} to {high}{unit} in steps of {embedded.step:.3g}{unit}; others are clipped."
    )
    if scan.n_channels > 1:
        notes.append(f"Of the image's {scan.n_channels} channels the first is shown.")
    if scan.masks:
        notes.append("Scores and slices of largest error are measured on the image's own grid.")
    if scan.unlabelled is not None:
        marked = "" if scan.unlabelled_value is None else f" (value {scan.unlabelled_value})"
        scored = ", and neither scored nor counted as errors" if scan.prediction is not None else ""
        percent = f"{100 * scan.unlabelled.mean():.3g}"
        notes.append(f"Hatched: {percent} % of the voxels are not labelled in the reference{marked}{scored}.")
        if scored:
            notes.append("Surfaces are grey there.")
    return notes


def times(numbers: Sequence[int]) -> str:
    """A size in words, such as 512 × 512 × 90."""
    return " × ".join(map(str, numbers))


def _mm(spacing: SpacingMm) -> str:
    return " × ".join(f"{length:.4g}" for length in spacing)
