"""The surface of a mask as triangles in world coordinates, and how far it lies from another mask's."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Bool, Float64, Int64, UInt8
from scipy.sparse import coo_array, csr_array, diags_array

from spleen.evaluation.metrics.surface import box_around
from spleen.evaluation.scan.mesh_distance import distance_to_mesh_mm
from spleen.imaging.geometry import spacing_mm
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
    """Of each vertex to the surface of the other mask, inf where that is empty, NaN where the reference is unknown;
    None where there is no other."""


def surface_meshes(
    masks: dict[str, UInt8[np.ndarray, "i j k"]],
    classes: Mapping[str, Sequence[int]],
    affine: Affine,
    most_faces: int | None,
) -> tuple[Mesh, ...]:
    """One mesh for each class of each mask that holds it; with `most_faces` of each, large ones are made coarser.

    `classes` are the values of each in the masks.

    The distances run between these surfaces, which lie between voxels: those of the surface metrics, from voxel to
    voxel, would jump by a voxel's length from one vertex to the next.
    """
    if not masks:
        return ()
    meshes: list[Mesh] = []
    for name, numbers in classes.items():
        regions = {mask: np.isin(array, numbers) for mask, array in masks.items()}
        both = list(regions.values())
        box = box_around(both[0], both[-1])
        if box is None:
            continue
        moved = affine.copy()
        moved[:3, 3] += affine[:3, :3] @ [each.start for each in box]
        cropped = {mask: np.ascontiguousarray(region[box]) for mask, region in regions.items()}
        of_mask = {
            mask: Mesh(name, mask, *_triangles(region, moved, most_faces))
            for mask, region in cropped.items()
            if region.any()
        }
        if len(masks) == 2:
            first, second = (of_mask.get(mask) for mask in masks)
            pairs = [(mesh, other) for mesh, other in ((first, second), (second, first)) if mesh is not None]
            meshes += [replace(mesh, distance_mm=_distance_mm(mesh, other, affine)) for mesh, other in pairs]
        else:
            meshes += of_mask.values()
    return tuple(meshes)


def labelled_distances(
    meshes: tuple[Mesh, ...], unlabelled: Bool[np.ndarray, "i j k"] | None, affine: Affine
) -> tuple[Mesh, ...]:
    """The meshes with distances only where the reference is labelled; elsewhere there is no surface to compare with."""
    if unlabelled is None:
        return meshes
    to_voxels, last = np.linalg.inv(affine), np.array(unlabelled.shape) - 1
    known = []
    for mesh in meshes:
        if mesh.distance_mm is not None:
            places = np.rint(mesh.vertices_mm @ to_voxels[:3, :3].T + to_voxels[:3, 3]).astype(int)
            is_unknown = unlabelled[tuple(np.clip(places, 0, last).T)]
            mesh = replace(mesh, distance_mm=np.where(is_unknown, np.nan, mesh.distance_mm))
        known.append(mesh)
    return tuple(known)


def _distance_mm(mesh: Mesh, other: Mesh | None, affine: Affine) -> Float64[np.ndarray, " n"]:
    """Of each vertex to the other surface; inf without another.

    A mask tells where its surface is to half a voxel only, so the distances are averaged over neighbours, which changes
    none by more than half of the voxel's extent across the surface. Without that they jump from step to step.
    """
    if other is None:
        return np.full(len(mesh.vertices_mm), np.inf)
    distance_mm = distance_to_mesh_mm(mesh.vertices_mm, other.vertices_mm, other.faces)
    mean, averaged = _neighbour_mean(len(mesh.vertices_mm), mesh.faces), distance_mm
    for _ in range(_ROUNDS):
        averaged = (averaged + mean @ averaged) / 2
    half_mm = np.abs(_normals(mesh) @ affine[:3, :3]).sum(axis=1) / 2
    bounded: Float64[np.ndarray, " n"] = np.clip(averaged, distance_mm - half_mm, distance_mm + half_mm)
    return bounded


def _normals(mesh: Mesh) -> Float64[np.ndarray, "n 3"]:
    """The unit normal of each vertex: the mean of its triangles', weighted by their areas."""
    a, b, c = mesh.vertices_mm[mesh.faces.T]
    of_corner = np.repeat(np.arange(len(mesh.faces)), 3)
    ones = np.ones(len(of_corner))
    corners = coo_array((ones, (mesh.faces.ravel(), of_corner)), shape=(len(mesh.vertices_mm), len(mesh.faces)))
    normals: Float64[np.ndarray, "n 3"] = corners.tocsr() @ np.cross(b - a, c - a)
    normals /= np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), 1e-12)
    return normals


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
    mean = _neighbour_mean(len(vertices), faces)
    for _ in range(_ROUNDS):
        for weight in (_INWARDS, _OUTWARDS):
            vertices = vertices + weight * (mean @ vertices - vertices)
    return vertices


def _neighbour_mean(n_vertices: int, faces: Int64[np.ndarray, "m 3"]) -> csr_array:
    """The matrix that turns values at vertices to the means over their neighbours."""
    edges = np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]])
    rows, columns = np.concatenate([edges, edges[:, ::-1]]).T
    neighbours = coo_array((np.ones(len(rows)), (rows, columns)), shape=(n_vertices, n_vertices)).tocsr()
    neighbours.data[:] = 1.0
    return csr_array(diags_array(1 / np.maximum(neighbours.sum(axis=1), 1)) @ neighbours)
