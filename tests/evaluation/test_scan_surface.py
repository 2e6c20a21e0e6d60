"""Surfaces of masks and their files, against the geometry of a sphere and an independent reader of meshes."""

import numpy as np
import pytest
import trimesh

from spleen.errors import InputError
from spleen.evaluation.scan.case import Scan
from spleen.evaluation.scan.mesh_distance import distance_to_mesh_mm
from spleen.evaluation.scan.surface import surface_meshes
from spleen.evaluation.scan.viewer import write_scan_mesh
from tests._helpers.nifti import ras_affine

SPACING_MM = (1.0, 0.8, 1.5)


def sphere(radius_mm, affine, shape=(44, 55, 30)):
    """The voxels whose centre lies within the radius of the middle of the grid."""
    indices = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), axis=-1)
    from_middle_mm = (indices - (np.array(shape) - 1) / 2) @ affine[:3, :3].T
    return (np.linalg.norm(from_middle_mm, axis=-1) <= radius_mm).astype(np.uint8)


def scan_of(affine, **masks):
    shape = next(iter(masks.values())).shape
    return Scan("ball", np.zeros(shape, np.float32), affine, False, ("ball",), **masks)


def sheared(affine):
    affine = affine.copy()
    affine[1, 2] = 0.6  # planes move forward as they rise, as in a tilted gantry
    return affine


@pytest.mark.parametrize("suffix", [".stl", ".glb"])
@pytest.mark.parametrize("make_affine", [ras_affine, lambda *a: sheared(ras_affine(*a))], ids=["straight", "sheared"])
def test_the_mesh_of_a_sphere_encloses_its_volume_where_the_affine_puts_it(tmp_path, suffix, make_affine) -> None:
    affine = make_affine(SPACING_MM, (-7.0, 12.5, 40.0))
    mask = sphere(15.0, affine)
    write_scan_mesh(tmp_path / f"ball{suffix}", scan_of(affine, reference=mask))
    mesh = trimesh.load_mesh(tmp_path / f"ball{suffix}")
    if suffix == ".glb":  # metres, y up
        mesh = mesh.to_mesh() if isinstance(mesh, trimesh.Scene) else mesh
        mesh.apply_scale(1000)
        mesh.vertices = mesh.vertices[:, [0, 2, 1]] * (1, -1, 1)
        mesh.faces = mesh.faces  # rotation keeps their direction
    assert mesh.is_watertight
    assert mesh.volume == pytest.approx(4 / 3 * np.pi * 15**3, rel=0.02)
    middle = affine[:3, :3] @ ((np.array(mask.shape) - 1) / 2) + affine[:3, 3]
    assert mesh.center_mass == pytest.approx(middle, abs=0.1)
    assert np.linalg.norm(mesh.vertices - middle, axis=1) == pytest.approx(15.0, abs=1.0)


def test_a_mask_that_fills_the_grid_is_closed_at_its_border() -> None:
    (mesh,) = surface_meshes({"reference": np.ones((6, 5, 4), np.uint8)}, {"all": (1,)}, np.eye(4), None)
    closed = trimesh.Trimesh(mesh.vertices_mm, mesh.faces, process=False)
    assert closed.is_watertight
    assert closed.volume == pytest.approx(6 * 5 * 4, rel=0.1)


def test_distances_between_two_boxes_are_told_in_mm_on_both() -> None:
    first, second = np.zeros((2, 20, 20, 20), np.uint8)
    first[5:10, 5:15, 5:15] = 1
    second[5:12, 5:15, 5:15] = 1  # two voxels of 3 mm further along i
    affine = np.diag([3.0, 1.0, 1.0, 1.0])
    meshes = surface_meshes({"reference": first, "prediction": second}, {"box": (1,)}, affine, None)
    assert [(mesh.mask, mesh.name) for mesh in meshes] == [("reference", "box"), ("prediction", "box")]
    for mesh in meshes:
        far = mesh.vertices_mm[:, 0] > mesh.vertices_mm[:, 0].max() - 1
        inner = np.all(np.abs(mesh.vertices_mm[:, 1:] - 9.5) < 1, axis=1)
        # From the prediction's far face it is 6 mm back to the reference's. From the middle of that one it is 4.5 mm to
        # the sides of the prediction's longer box, and 0 from its edges: averaging may take half a voxel of that.
        if mesh.mask == "prediction":
            assert mesh.distance_mm[far & inner] == pytest.approx(6.0, abs=0.1)
        else:
            assert np.all((mesh.distance_mm[far & inner] > 3.0) & (mesh.distance_mm[far & inner] < 4.6))
        assert mesh.distance_mm[mesh.vertices_mm[:, 0] < 16].max() < 0.05


def test_two_concentric_spheres_are_as_far_apart_as_their_radii_everywhere() -> None:
    affine = np.diag([3.0, 3.0, 3.0, 1.0])
    masks = {
        name: sphere(radius_mm, affine, (14, 14, 14)) for name, radius_mm in (("reference", 10), ("prediction", 12))
    }
    for mesh in surface_meshes(masks, {"ball": (1,)}, affine, None):
        # between voxel centres it would be 0 or 3 mm
        assert mesh.distance_mm == pytest.approx(12 - 10, abs=0.5)


def test_distances_to_a_mesh_are_those_of_an_independent_library() -> None:
    ball = trimesh.creation.icosphere(subdivisions=2, radius=10)
    ball.vertices *= (1, 0.5, 2)
    points = np.random.default_rng(0).uniform(-20, 20, (200, 3))
    _, expected, _ = trimesh.proximity.closest_point_naive(ball, points)
    assert distance_to_mesh_mm(points, ball.vertices, ball.faces) == pytest.approx(expected, abs=1e-6)
    # The triangle (0, 0, 0), (4, 0, 0), (0, 3, 0): above it, beside its long edge and beyond a corner.
    corners, face = np.array([[0, 0, 0], [4, 0, 0], [0, 3, 0.0]]), np.array([[0, 1, 2]])
    points = np.array([[1, 1, 2], [1, -3, 4], [7, 0, 4.0]])
    assert distance_to_mesh_mm(points, corners, face) == pytest.approx([2, 5, 5])


def test_a_surface_without_a_partner_is_infinitely_far_away() -> None:
    mask = sphere(5.0, np.eye(4), (20, 20, 20))
    (mesh,) = surface_meshes({"reference": mask, "prediction": np.zeros_like(mask)}, {"ball": (1,)}, np.eye(4), None)
    assert np.isinf(mesh.distance_mm).all()


def test_a_large_surface_is_made_coarser_and_keeps_its_volume() -> None:
    mask = sphere(30.0, np.eye(4), (66, 66, 66))
    (fine,) = surface_meshes({"reference": mask}, {"ball": (1,)}, np.eye(4), None)
    (coarse,) = surface_meshes({"reference": mask}, {"ball": (1,)}, np.eye(4), 6_000)
    assert len(coarse.faces) < 9_000 < len(fine.faces)
    assert trimesh.Trimesh(coarse.vertices_mm, coarse.faces).volume == pytest.approx(4 / 3 * np.pi * 30**3, rel=0.02)


def test_a_glb_names_each_surface_and_an_stl_holds_the_prediction(tmp_path) -> None:
    affine = ras_affine(SPACING_MM)
    scan = scan_of(affine, reference=sphere(15.0, affine), prediction=sphere(10.0, affine))
    write_scan_mesh(tmp_path / "both.glb", scan)
    assert set(trimesh.load_scene(tmp_path / "both.glb").geometry) == {"ball, reference", "ball, prediction"}
    write_scan_mesh(tmp_path / "one.stl", scan)
    assert trimesh.load_mesh(tmp_path / "one.stl").volume == pytest.approx(4 / 3 * np.pi * 10**3, rel=0.02)


def test_an_stl_never_holds_the_reference_in_place_of_an_empty_prediction(tmp_path) -> None:
    mask = sphere(5.0, np.eye(4), (20, 20, 20))
    scan = scan_of(np.eye(4), reference=mask, prediction=np.zeros_like(mask))
    with pytest.raises(InputError, match=r"no surface.*the prediction is empty"):
        write_scan_mesh(tmp_path / "ball.stl", scan)
    assert not (tmp_path / "ball.stl").exists()
    write_scan_mesh(tmp_path / "ball.glb", scan)
    assert set(trimesh.load_scene(tmp_path / "ball.glb").geometry) == {"ball, reference"}


def test_no_surface_and_another_kind_of_file_are_refused(tmp_path) -> None:
    empty = scan_of(np.eye(4), reference=np.zeros((5, 5, 5), np.uint8))
    with pytest.raises(InputError, match="no surface"):
        write_scan_mesh(tmp_path / "none.stl", empty)
    with pytest.raises(InputError, match=r"\.stl, \.glb"):
        write_scan_mesh(tmp_path / "none.obj", scan_of(np.eye(4), reference=sphere(3.0, np.eye(4), (9, 9, 9))))
