"""The surface of a mask as triangles in world coordinates, and how far it lies from another mask's."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float64, Int64, UInt8
from scipy.sparse import coo_array, diags_array
from scipy.spatial import cKDTree

from spleen.evaluation.metrics.surface import box_around, surface_distances, surface_voxels
from spleen.imaging.geometry import distance_axes_mm, spacing_mm
from spleen.types import Affine, MaskVolume

# Taubin 1995, "A signal processing approach to fair surface design", SIGGRAPH: a step inwards, then a longer one
# outwards, so that steps of voxels vanish and the volume stays.
_INWARDS, _OUTWARDS, _ROUNDS = 0.5, -0.53, 10


@dataclass(frozen=True)
class Mesh:
    """A closed surface; the normals of its triangles point outwards."""

    name: str
    """Of the class."""
    mask: str
    """"reference" or "prediction"."""
    vertices_mm: Float64[np.ndarray, "n 3"]
    """In RAS."""
    faces: Int64[np.ndarray, "m 3"]
    distance_mm: Float64[np.ndarray, " n"] | None = None
    """Of each vertex to the surface of the other mask, inf where that is empty; None where there is no other."""


def surface_meshes(
    masks: dict[str, UInt8[np.ndarray, "i j k"]], classes: tuple[str, ...], affine: Affine, most_faces: int | None
) -> tuple[Mesh, ...]:
    """One mesh for each class of each mask that holds it; with `most_faces` of each, large ones are made coarser.

    The distances are those of the surface metrics, measured on the native grid.
    """
    meshes: list[Mesh] = []
    if not masks:
        return ()
    for number, name in enumerate(classes, start=1):
        regions = {mask: array == number for mask, array in masks.items()}
        both = list(regions.values())
        box = box_around(both[0], both[-1])
        if box is None:
            continue
        moved = affine.copy()
        moved[:3, 3] += affine[:3, :3] @ [each.start for each in box]
        cropped = {mask: np.ascontiguousarray(region[box]) for mask, region in regions.items()}
        distances = _distances(cropped, moved)
        for mask, region in cropped.items():
            if region.any():
                vertices_mm, faces = _triangles(region, moved, most_faces)
                found = distances.get(mask)
                of_vertex = None if found is None else _at_vertices(vertices_mm, region, found, moved)
                meshes.append(Mesh(name, mask, vertices_mm, faces, of_vertex))
    return tuple(meshes)


def _distances(regions: dict[str, MaskVolume], affine: Affine) -> dict[str, Float64[np.ndarray, " n"]]:
    """Of the surface voxels of either mask, in C order, where there are both."""
    if len(regions) < 2:
        return {}
    found = surface_distances(regions["prediction"], regions["reference"], distance_axes_mm(affine))
    return {"prediction": found.prediction_to_reference_mm, "reference": found.reference_to_prediction_mm}


def _at_vertices(
    vertices_mm: Float64[np.ndarray, "n 3"], region: MaskVolume, distance_mm: Float64[np.ndarray, " m"], affine: Affine
) -> Float64[np.ndarray, " n"]:
    """The distance of the nearest surface voxel of the same mask."""
    places_mm = surface_voxels(region) @ affine[:3, :3].T + affine[:3, 3]
    _, nearest = cKDTree(places_mm).query(vertices_mm)
    of_vertex: Float64[np.ndarray, " n"] = distance_mm[nearest]
    return of_vertex


def _triangles(
    region: Bool[np.ndarray, "i j k"], affine: Affine, most_faces: int | None
) -> tuple[Float64[np.ndarray, "n 3"], Int64[np.ndarray, "m 3"]]:
    """Marching cubes (Lewiner et al. 2003), smoothed; what touches the border of the array is closed there."""
    from skimage.measure import marching_cubes  # deferred: slow to import

    factors = _coarser(region, spacing_mm(affine), most_faces)
    filled = _block_mean(region, factors)
    vertices, faces, _, _ = marching_cubes(np.pad(filled, 1), 0.5 if filled.max() > 0.5 else filled.max() / 2)
    voxels = (vertices - 1) * factors + (np.array(factors) - 1) / 2
    smooth = _smoothed(voxels @ affine[:3, :3].T + affine[:3, 3], faces.astype(np.int64))
    corners = smooth[faces]
    is_inside_out = np.einsum("ij,ij->", corners[:, 0], np.cross(corners[:, 1], corners[:, 2])) < 0
    return smooth, np.ascontiguousarray(faces[:, ::-1] if is_inside_out else faces, dtype=np.int64)


def _coarser(region: MaskVolume, spacing: tuple[float, float, float], most_faces: int | None) -> tuple[int, int, int]:
    """Voxels per block along each axis, the finest first, until the surface has about `most_faces` triangles."""
    factors = np.ones(3, dtype=int)
    padded = np.pad(region, 1).view(np.int8)
    exposed = np.array([np.count_nonzero(np.diff(padded, axis=axis)) for axis in range(3)])
    # Marching cubes makes about two triangles of each voxel face between inside and outside.
    while most_faces is not None and 2 * (exposed * factors).sum() / factors.prod() > most_faces:
        factors[np.argmin(np.array(spacing) * factors)] += 1
    i, j, k = (int(factor) for factor in factors)
    return i, j, k


def _block_mean(region: MaskVolume, factors: tuple[int, int, int]) -> Float64[np.ndarray, "I J K"]:
    """The fraction of each block that the mask fills; blocks at the far ends are completed with nothing."""
    padding = [(0, -n % factor) for n, factor in zip(region.shape, factors, strict=True)]
    padded = np.pad(region, padding)
    i, j, k = (n // factor for n, factor in zip(padded.shape, factors, strict=True))
    blocks = padded.reshape(i, factors[0], j, factors[1], k, factors[2])
    means: Float64[np.ndarray, "I J K"] = blocks.mean(axis=(1, 3, 5))
    return means


def _smoothed(vertices: Float64[np.ndarray, "n 3"], faces: Int64[np.ndarray, "m 3"]) -> Float64[np.ndarray, "n 3"]:
    """Taubin's smoothing: each vertex towards the mean of its neighbours, and back."""
    edges = np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]])
    ones = np.ones(2 * len(edges))
    rows, columns = np.concatenate([edges, edges[:, ::-1]]).T
    neighbours = coo_array((ones, (rows, columns)), shape=(len(vertices),) * 2).tocsr()
    neighbours.data[:] = 1.0
    mean = diags_array(1 / np.maximum(neighbours.sum(axis=1), 1)) @ neighbours
    for _ in range(_ROUNDS):
        for weight in (_INWARDS, _OUTWARDS):
            vertices = vertices + weight * (mean @ vertices - vertices)
    return vertices
