"""How far points lie from a surface of triangles."""

import numpy as np
from jaxtyping import Float64, Int64
from scipy.spatial import cKDTree

# Triangles are found by points on them: their centre, and one towards each corner, because those of thick slices are
# long. More candidates do not change the distances of organs by 0.01 mm.
_PLACES = np.array([(4, 4, 4), (8, 2, 2), (2, 8, 2), (2, 2, 8)]) / 12
_CANDIDATES = 6
_POINTS_AT_ONCE = 50_000


def distance_to_mesh_mm(
    points_mm: Float64[np.ndarray, "n 3"], vertices_mm: Float64[np.ndarray, "v 3"], faces: Int64[np.ndarray, "m 3"]
) -> Float64[np.ndarray, " n"]:
    """Distance in mm from each point to the nearest of the triangles that lie around it."""
    corners = vertices_mm[faces]
    tree = cKDTree((_PLACES @ corners).reshape(-1, 3), balanced_tree=False, compact_nodes=False)
    distances = np.empty(len(points_mm))
    for start in range(0, len(points_mm), _POINTS_AT_ONCE):
        part = slice(start, start + _POINTS_AT_ONCE)
        _, nearest = tree.query(points_mm[part], k=min(_CANDIDATES, tree.n))
        candidates = corners[nearest // len(_PLACES)]
        distances[part] = _to_triangles_mm(points_mm[part, None], candidates).min(axis=1)
    return distances


def _to_triangles_mm(
    point: Float64[np.ndarray, "n 1 3"], corners: Float64[np.ndarray, "n k 3 3"]
) -> Float64[np.ndarray, "n k"]:
    """To the plane of each triangle where the point lies above it, else to the nearest of its three edges."""
    a, b = corners, np.roll(corners, -1, axis=-2)
    along, offset = b - a, point[..., None, :] - a
    normal = np.cross(along[..., 0, :], along[..., 1, :])
    is_above = (np.einsum("nkei,nki->nke", np.cross(along, offset), normal) >= 0).all(axis=-1)
    share = np.einsum("nkei,nkei->nke", offset, along) / np.maximum(np.einsum("nkei,nkei->nke", along, along), 1e-12)
    to_edges = np.linalg.norm(offset - np.clip(share, 0, 1)[..., None] * along, axis=-1).min(axis=-1)
    length = np.maximum(np.linalg.norm(normal, axis=-1), 1e-12)
    to_plane = np.abs(np.einsum("nki,nki->nk", offset[..., 0, :], normal)) / length
    distances: Float64[np.ndarray, "n k"] = np.where(is_above, to_plane, to_edges)
    return distances
