"""Suggesting slices without a run: numbering in the file, spans, outputs and wrong inputs."""

import csv
import json
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from typer.testing import CliRunner

from spleen.annotation.numbering import number_slices
from spleen.annotation.suggest import suggest_slices, write_template
from spleen.cli.main import app
from spleen.errors import InputError
from tests._helpers.nifti import ras_affine, save, save_stored_as
from tests._helpers.small_run import SPACING_MM, SmallCt, small_ct

Change = Callable[[np.ndarray], np.ndarray]


@pytest.fixture
def ct(tmp_path: Path) -> SmallCt:
    return small_ct(tmp_path, image_axes="LIP")


def sparse(ct: SmallCt, labelled: list[int], axes: str = "RAS") -> Path:
    """A label of which only these axial slices of the RAS grid are known."""
    values = np.full_like(ct.values, 255)
    values[:, :, labelled] = ct.values[:, :, labelled]
    return save_stored_as(ct.label.parent / "sparse.nii.gz", axes, values, ras_affine(SPACING_MM))


def test_slices_are_numbered_in_the_file_and_placed_in_mm(ct: SmallCt) -> None:
    """In an LIP file the axial slices run downwards along the second array axis: RAS slice 5 of 24 is number 18."""
    found = suggest_slices(ct.image, n_slices=2, axis="axial")
    assert (found.axis, found.array_axis, found.n_slices, found.numbered_by) == ("axial", 1, 24, ct.image)
    # The body fills all slices: RAS 6 and 18, which are 17 and 5 in the file.
    assert [each.slice_index for each in found.slices] == [5, 17]
    affine = ras_affine(SPACING_MM)
    assert [each.position_mm for each in found.slices] == pytest.approx(
        [affine[2, 3] + 18 * SPACING_MM[2], affine[2, 3] + 6 * SPACING_MM[2]], abs=0.01
    )
    assert [each.distance_mm for each in found.slices] == [36, 36]


def test_a_partly_labelled_scan_is_labelled_where_the_organ_may_be(ct: SmallCt) -> None:
    """Organs on slices 2 to 21: known empty on 0 and 23, shown on 8 and 10. The widest gap is 10 to 23, then 0 to 8."""
    found = suggest_slices(ct.image, sparse(ct, [0, 8, 10, 23]), n_slices=2)
    assert found.axis == "axial"
    assert found.labelled == (0, 8, 10, 23)
    assert [each.slice_index for each in found.slices] == [4, 17]
    assert {each.reason for each in found.slices} == {"where the organ is or ends"}


def test_a_label_may_be_stored_the_other_way_round(ct: SmallCt) -> None:
    found = suggest_slices(ct.image, sparse(ct, [0, 8, 10, 23], axes="LPI"), n_slices=2)
    assert found.labelled == (0, 13, 15, 23)
    assert [each.slice_index for each in found.slices] == [6, 19]


def test_drawn_slices_may_be_listed_in_an_ordinary_label(ct: SmallCt) -> None:
    found = suggest_slices(ct.image, ct.label, n_slices=2, axis="axial", drawn=[0, 8, 10, 23])
    assert found.labelled == (0, 8, 10, 23)
    assert [each.slice_index for each in found.slices] == [4, 17]


def test_csv_and_json_hold_the_table(ct: SmallCt) -> None:
    found = suggest_slices(ct.image, n_slices=2, axis="axial")
    rows = list(csv.DictReader(found.to_csv().splitlines()))
    assert [row["slice_index"] for row in rows] == ["5", "17"]
    assert [each["slice_index"] for each in json.loads(found.to_json())["slices"]] == [5, 17]
    assert "in their order: 5,17" in found.to_text()


def test_nothing_is_known_in_a_template(ct: SmallCt, tmp_path: Path) -> None:
    write_template(tmp_path / "t.nii.gz", ct.image)
    template, image = nib.load(tmp_path / "t.nii.gz"), nib.load(ct.image)
    assert (np.asarray(template.dataobj) == 255).all()
    np.testing.assert_allclose(template.affine, image.affine)
    with pytest.raises(InputError, match="slice 3 was not drawn"):
        suggest_slices(ct.image, tmp_path / "t.nii.gz", axis="axial", drawn=[3])


def test_the_command_that_follows_a_template_names_its_ignored_value(ct: SmallCt, tmp_path: Path) -> None:
    template = tmp_path / "t.nii.gz"
    arguments = [ct.image, "--axis", "axial", "-n", "2", "--template", template, "--ignore-value", "200"]
    done = CliRunner().invoke(app, ["suggest-slices", *map(str, arguments)])
    assert done.exit_code == 0, done.output
    assert f"spleen propagate {ct.image} {template} -o FILLED.nii.gz" in done.output
    assert "--axis axial --drawn 5,17 --ignore-value=200" in done.output


def test_oblique_slices_are_numbered_along_the_nearest_axis() -> None:
    """Turned by 30° about the first axis; the second array axis runs backwards, so its slices count from the end."""
    cosine, sine = np.cos(np.pi / 6), np.sin(np.pi / 6)
    file_affine = np.array([[1.0, 0, 0, 0], [0, -cosine, -sine, 0], [0, -sine, cosine, 0], [0, 0, 0, 1]])
    flip = np.diag([1.0, -1, 1, 1])
    flip[1, 3] = 6  # seven slices
    numbering = number_slices((5, 7, 3), file_affine @ flip, file_affine, "coronal")
    assert (numbering.array_axis, numbering.file_index(0), numbering.file_index(6)) == (1, 6, 0)
    # File voxel (2, 6, 1): y = -6 cos 30° - sin 30°.
    assert numbering.position_mm(0) == pytest.approx(-6 * cosine - sine)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ({"n_slices": 0}, "at least 1; got 0"),
        ({"n_slices": 49, "axis": "axial"}, "49 slices were asked for, but of the 24 axial slices only 24"),
        ({"axis": "axail"}, "axis must be one of sagittal, coronal, axial; got 'axail'"),
        ({"drawn": [3], "axis": "axial"}, "belongs to a label"),
    ],
)
def test_wrong_requests_are_refused(ct: SmallCt, arguments: dict, expected: str) -> None:
    with pytest.raises(InputError, match=expected):
        suggest_slices(ct.image, **arguments)


@pytest.mark.parametrize(
    ("change", "arguments", "expected"),
    [
        (lambda v: v, {}, "does not contain 255"),
        (lambda v: np.full_like(v, 255), {}, "every voxel is 255, so no slice is labelled"),
        (lambda v: np.where(v == 3, v, 255), {}, "no voxel is 0, so nothing is known to be background"),
        (lambda v: v[:, :, :23], {}, "on different grids"),
        (lambda v: v, {"drawn": [24], "axis": "axial"}, "no axial slice 24: they are numbered from 0 to 23"),
        (lambda v: v, {"drawn": [3]}, "needs their axis"),
        (lambda v: v, {"drawn": [], "axis": "axial"}, "list of drawn slices is empty"),
        (lambda v: v, {"ignore_value": 0}, "0 is the background"),
        (lambda v: v, {"ignore_value": 3_000_000_000}, "label values must be below 2.31"),
        # a template of another ignored value, on which one slice was drawn
        (lambda v: np.where(v == 3, v, 200), {"drawn": [8], "axis": "axial"}, "no voxel of the drawn slices is 0 or"),
    ],
)
def test_wrong_labels_are_refused(ct: SmallCt, change: Change, arguments: dict, expected: str) -> None:
    label = save(ct.label.parent / "wrong.nii.gz", change(ct.values).astype(np.uint8), ras_affine(SPACING_MM))
    with pytest.raises(InputError, match=expected):
        suggest_slices(ct.image, label, **arguments)


def test_an_image_with_channels_is_refused(ct: SmallCt, tmp_path: Path) -> None:
    image = save(tmp_path / "two.nii.gz", np.stack([ct.hu, ct.hu], -1), ras_affine(SPACING_MM))
    with pytest.raises(InputError, match="must be 3D, or 4D with a single channel"):
        suggest_slices(image)
