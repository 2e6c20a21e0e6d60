"""Meshes as files: binary STL in mm, and glTF 2.0 in its binary form (.glb) with names and colours."""

import json
import struct
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float64, UInt8

from spleen.errors import InputError
from spleen.evaluation.scan.surface import Mesh
from spleen.system.files import write_bytes

MESH_SUFFIXES = (".stl", ".glb")
_FLOAT, _UINT32, _UINT8 = 5126, 5125, 5121  # glTF's component types
_VERTICES, _INDICES = 34962, 34963  # glTF's buffer targets


def check_mesh_name(path: Path) -> None:
    """Raise InputError unless the name ends in .stl or .glb."""
    if path.suffix.lower() not in MESH_SUFFIXES:
        raise InputError(f"--mesh: {path} must end in one of {', '.join(MESH_SUFFIXES)}")


def write_mesh(path: Path, meshes: Sequence[Mesh], colours: Sequence[UInt8[np.ndarray, "_ 3"]], stl_mask: str) -> None:
    """Write meshes: STL those of `stl_mask` as one body, GLB each under its name, with the colours of its vertices.

    STL is in mm, RAS. GLB is in metres with y up, as glTF demands: x to the patient's right, y superior, z posterior.
    Raises InputError for another name, and where there is no surface, of STL none of `stl_mask`.
    """
    check_mesh_name(path)
    if not meshes:
        raise InputError(f"--mesh: there is no surface to write to {path}; the masks are empty, or none was given")
    if path.suffix.lower() == ".glb":
        write_bytes(path, _glb(meshes, colours))
        return
    of_mask = [mesh for mesh in meshes if mesh.mask == stl_mask]
    if not of_mask:
        raise InputError(
            f"--mesh: there is no surface to write to {path}: the {stl_mask} is empty; write .glb for the surface "
            "of the other mask"
        )
    write_bytes(path, _stl(of_mask))


def _stl(meshes: Sequence[Mesh]) -> bytes:
    corners = np.concatenate([mesh.vertices_mm[mesh.faces] for mesh in meshes])
    normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    normals /= np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), 1e-30)
    triangles = np.zeros(len(corners), dtype=[("normal", "<f4", 3), ("corners", "<f4", (3, 3)), ("unused", "<u2")])
    triangles["normal"], triangles["corners"] = normals, corners
    # 3D Slicer reads from the header which way the axes run.
    header = b"binary STL; SPACE=RAS; unit mm".ljust(80)
    return header + struct.pack("<I", len(triangles)) + triangles.tobytes()


def _glb(meshes: Sequence[Mesh], colours: Sequence[UInt8[np.ndarray, "_ 3"]]) -> bytes:
    views: list[dict[str, int]] = []
    accessors: list[dict[str, object]] = []
    chunks: list[bytes] = []

    def add(array: np.ndarray, kind: str, component: int, target: int, **more: object) -> int:
        content = array.tobytes()
        views.append({"buffer": 0, "byteOffset": sum(map(len, chunks)), "byteLength": len(content), "target": target})
        count = array.size if kind == "SCALAR" else len(array)
        accessors.append(
            {"bufferView": len(views) - 1, "componentType": component, "count": count, "type": kind, **more}
        )
        chunks.append(content + b"\0" * (-len(content) % 4))
        return len(accessors) - 1

    entries = []
    for mesh, colour in zip(meshes, colours, strict=True):
        places = _y_up_metres(mesh.vertices_mm).astype("<f4")
        ends: dict[str, object] = {"min": places.min(axis=0).tolist(), "max": places.max(axis=0).tolist()}
        rgba = np.column_stack([colour, np.full(len(colour), 255, np.uint8)]).astype(np.uint8)
        attributes = {
            "POSITION": add(places, "VEC3", _FLOAT, _VERTICES, **ends),
            "COLOR_0": add(rgba, "VEC4", _UINT8, _VERTICES, normalized=True),
        }
        indices = add(mesh.faces.astype("<u4").ravel(), "SCALAR", _UINT32, _INDICES)
        primitive = {"attributes": attributes, "indices": indices}
        entries.append({"name": f"{mesh.name}, {mesh.mask}", "primitives": [primitive]})
    binary = b"".join(chunks)
    document = {
        "asset": {"version": "2.0", "generator": "spleen"},
        "scene": 0,
        "scenes": [{"nodes": list(range(len(entries)))}],
        "nodes": [{"mesh": number, "name": entry["name"]} for number, entry in enumerate(entries)],
        "meshes": entries,
        "accessors": accessors,
        "bufferViews": views,
        "buffers": [{"byteLength": len(binary)}],
    }
    text = json.dumps(document, ensure_ascii=True).encode()
    text += b" " * (-len(text) % 4)
    length = 12 + 8 + len(text) + 8 + len(binary)
    head = struct.pack("<4sII", b"glTF", 2, length) + struct.pack("<I4s", len(text), b"JSON")
    return head + text + struct.pack("<I4s", len(binary), b"BIN\0") + binary


def _y_up_metres(vertices_mm: Float64[np.ndarray, "n 3"]) -> Float64[np.ndarray, "n 3"]:
    x, y, z = vertices_mm.T / 1000
    return np.column_stack([x, z, -y])
