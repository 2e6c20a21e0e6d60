"""A scan whose classes overlap: each is scored, measured and drawn as all of its region."""

from pathlib import Path

import numpy as np
import pytest

from spleen.evaluation.evaluate import evaluate
from spleen.evaluation.scan.case import Scan, number_classes, read_scan
from spleen.evaluation.scan.page import to_page
from spleen.evaluation.scan.scores import scan_scores
from spleen.evaluation.scan.surface import Mesh, surface_meshes
from spleen.evaluation.scan.viewer import make_viewer
from tests._helpers.nifti import box, ras_affine, save

SHAPE = (16, 14, 12)
AFFINE = ras_affine((1.0, 2.0, 3.0))
REGIONS = {"whole": (1, 2, 3), "core": (2, 3), "enhancing": (3,)}


def nested(*sides: int) -> np.ndarray:
    """Boxes inside each other of values 1, 2 and 3."""
    mask = np.zeros(SHAPE, np.uint8)
    for value, side in enumerate(sides, start=1):
        mask[box(SHAPE, (2, 2, 2), (2 + side, 2 + side, 2 + side)) > 0] = value
    return mask


@pytest.fixture
def files(tmp_path: Path) -> dict[str, Path]:
    """An image, its reference, and a prediction with predictions.csv that tells overlapping classes."""
    rows = [f"mask.nii.gz,{name},{';'.join(map(str, values))}" for name, values in REGIONS.items()]
    (tmp_path / "predictions.csv").write_text("\n".join(["prediction,class_name,label_values", *rows]) + "\n")
    return {
        "image": save(tmp_path / "mr.nii.gz", np.ones(SHAPE, np.int16), AFFINE),
        "label": save(tmp_path / "label.nii.gz", nested(8, 6, 4), AFFINE),
        "prediction": save(tmp_path / "mask.nii.gz", nested(8, 5, 3), AFFINE),
    }


def enclosed_mm3(mesh: Mesh) -> float:
    """By the divergence theorem: the volumes of the tetrahedra between the origin and each triangle."""
    return float(np.linalg.det(mesh.vertices_mm[mesh.faces]).sum() / 6)


def test_scores_are_those_of_evaluate(files: dict[str, Path]) -> None:
    scores = scan_scores(read_scan(**files), 1.0)
    assert {score.class_name: score.dice for score in scores} == {
        "whole": 1.0,
        "core": pytest.approx(2 * 5**3 / (6**3 + 5**3)),
        "enhancing": pytest.approx(2 * 3**3 / (4**3 + 3**3)),
    }
    evaluated = evaluate(files["prediction"], files["label"]).scores
    assert [(s.class_name, s.dice, s.hausdorff95_mm) for s in scores] == [
        (s.class_name, s.dice, s.hausdorff95_mm) for s in evaluated
    ]


def test_volumes_and_surfaces_are_those_of_the_regions(files: dict[str, Path]) -> None:
    scan = read_scan(files["image"], prediction=files["prediction"])
    page = to_page(scan)
    for n_voxels in (8**3, 5**3, 3**3):
        assert f">{n_voxels}<" in page
    whole, core, _ = surface_meshes(scan.masks, scan.scored_classes, AFFINE, None)
    # Without what lies inside, they would hold 387 and 98 voxels.
    assert enclosed_mm3(whole) == pytest.approx(512 * 6, rel=0.14)
    assert enclosed_mm3(core) == pytest.approx(125 * 6, rel=0.14)
    meshes = make_viewer(scan).data["meshes"]
    assert isinstance(meshes, list)
    assert [mesh["name"] for mesh in meshes] == list(REGIONS)


def test_a_region_of_which_only_the_inside_is_there_is_that_inside(files: dict[str, Path]) -> None:
    save(files["prediction"], np.where(nested(8, 6, 4) == 3, 3, 0).astype(np.uint8), AFFINE)
    scan = read_scan(files["image"], prediction=files["prediction"])
    assert scan.classes == ("enhancing",)
    assert dict(scan.scored_classes) == {"whole": (1,), "core": (1,), "enhancing": (1,)}
    assert [entry.name for entry in make_viewer(scan).legend] == ["enhancing"]


def test_classes_that_overlap_in_part_have_a_number_for_what_they_share() -> None:
    mask = np.array([[[0, 1, 2, 3, 9]]], np.uint8)
    names, regions, masks = number_classes({"reference": mask}, {"left": (1, 2), "right": (2, 3)})
    assert names == ("left", "left and right", "right", "label 9")
    assert regions == {"left": (1, 2), "right": (2, 3), "label 9": (4,)}
    assert masks["reference"].ravel().tolist() == [0, 1, 2, 3, 4]


def test_classes_that_do_not_overlap_are_numbered_by_value() -> None:
    mask = np.array([[[0, 2, 3, 5]]], np.uint8)
    names, regions, masks = number_classes({"prediction": mask}, {"kidneys": (3, 2), "spleen": (5,)})
    assert (names, regions) == (("kidneys", "spleen"), {})
    assert masks["prediction"].ravel().tolist() == [0, 1, 1, 2]
    scan = Scan("a", np.zeros(mask.shape), AFFINE, True, names, prediction=masks["prediction"])
    assert dict(scan.scored_classes) == {"kidneys": (1,), "spleen": (2,)}
