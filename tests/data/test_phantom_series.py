"""Phantoms of one patient at several times."""

import csv
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from typer.testing import CliRunner

from spleen.cli.main import app
from spleen.data.phantom.render import make_phantom
from spleen.data.phantom.series import PhantomSettings, write_phantoms
from spleen.data.phantom.visit import Visit, later_visit
from spleen.errors import InputError


def _quiet(_: str, __: int, ___: int) -> None:
    pass


def _ml(path: Path) -> float:
    label = nib.load(path)
    return float(np.asarray(label.dataobj).sum() * abs(np.linalg.det(label.affine[:3, :3])) / 1000)


def _centre_mm(mask: np.ndarray, affine: np.ndarray) -> np.ndarray:
    return nib.affines.apply_affine(affine, np.argwhere(mask)).mean(axis=0)


@pytest.mark.slow
def test_the_spleen_changes_as_asked_and_the_table_says_what_the_labels_hold(tmp_path: Path) -> None:
    table = write_phantoms(tmp_path, PhantomSettings((3,), (-0.25, 0.0, 0.4), 64, 60), _quiet)
    rows = list(csv.DictReader(table.open()))
    volumes = [_ml(tmp_path / row["label"]) for row in rows]
    assert np.allclose([float(row["spleen_ml"]) for row in rows], volumes, atol=1e-3)
    changes = np.array(volumes) / volumes[0] - 1
    assert np.allclose(changes, [0, -0.25, 0.0, 0.4], atol=0.03)  # voxels of 6.4 × 6.4 × 7.5 mm
    assert np.allclose([float(row["change_percent"]) for row in rows], 100 * changes, atol=0.006)
    assert [row["date"] for row in rows] == ["2024-01-15", "2024-07-15", "2025-01-13", "2025-07-14"]
    assert {row["subject"] for row in rows} == {row["group"] for row in rows} == {"phantom_3"}


def test_a_later_visit_is_another_scan_of_the_same_patient() -> None:
    first, again = (make_phantom(48, 30, 5, visit=visit) for visit in (Visit(), Visit(number=1)))
    body = first.hu > -200
    assert (first.label == again.label).all()
    assert not (first.hu == again.hu).all()
    assert np.corrcoef(first.hu[body], again.hu[body])[0, 1] > 0.95


def test_the_patient_moves_on_the_table() -> None:
    spacing_mm = 0.794922 * 512 / 64
    still = make_phantom(64, 45, 5, 0.0)
    moved = make_phantom(64, 45, 5, 0.0, Visit(shift_mm=(2 * spacing_mm, -spacing_mm, 10.0)))
    assert (moved.affine == still.affine).all()
    # Two voxels to the right, one back, one up; the point spread blurs across the edges of the field of view.
    difference = moved.hu[6:-4, 4:-5, 5:-4].astype(int) - still.hu[4:-6, 5:-4, 4:-5]
    assert (np.abs(difference) <= 1).mean() > 0.999
    assert (moved.label[2:, :-1, 1:] == still.label[:-2, 1:, :-1]).all()


def test_a_breath_lowers_the_spleen_but_not_the_skeleton() -> None:
    still, lowered = (make_phantom(64, 45, 5, 0.0, visit=visit) for visit in (Visit(), Visit(1, breath_mm=10)))
    of_spleen = [_centre_mm(each.label > 0, each.affine) for each in (still, lowered)]
    assert np.allclose(of_spleen[1] - of_spleen[0], (0, 0, -10), atol=1.5)
    back = slice(None), slice(0, 25)  # behind the organs
    assert (still.hu[back] > 200).sum() > 100
    same = np.abs(lowered.hu[back].astype(int) - still.hu[back]) <= 1
    assert same[still.hu[back] > 200].mean() > 0.9  # all but what organs touch


def test_a_seed_gives_the_same_visit() -> None:
    assert later_visit(3, 1, 0.1) == later_visit(3, 1, 0.1)
    assert later_visit(3, 1, 0.1).breath_mm != later_visit(3, 2, 0.1).breath_mm


@pytest.mark.parametrize("change", [-0.6, 1.5, float("nan")])
def test_an_impossible_change_is_refused(change: float) -> None:
    with pytest.raises(InputError, match="can change by −50 % to"):
        later_visit(0, 1, change)


@pytest.mark.slow
def test_the_command_writes_a_table_that_trains_and_never_replaces_one_unasked(tmp_path: Path) -> None:
    def run(*options: str) -> tuple[int, str]:
        result = CliRunner().invoke(app, ["phantom", str(tmp_path / "p"), "--matrix=32", "--n-slices=16", *options])
        return result.exit_code, result.output

    assert run("--series", "--changes=5", "--subjects=2")[0] == 0
    rows = list(csv.DictReader((tmp_path / "p" / "scans.csv").open()))
    assert [row["subject"] for row in rows] == ["phantom_0", "phantom_0", "phantom_1", "phantom_1"]
    code, output = run()
    assert code == 2
    assert "add --overwrite" in output
    assert run("--overwrite")[0] == 0
    assert len(list(csv.DictReader((tmp_path / "p" / "scans.csv").open()))) == 1


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (["--changes=3"], "add --series"),
        (["--series", "--changes=a"], "percentages separated by commas"),
        (["--series", "--changes=-80"], "−50 % to"),
        (["--matrix=10"], "from 32 to 512"),
        (["--seed=-1"], "zero or a positive integer; got -1"),
        (["--series", "--seed=-1"], "zero or a positive integer; got -1"),
        (["--subjects=0"], "at least 1"),
    ],
)
def test_the_command_refuses_what_cannot_be(tmp_path: Path, options: list[str], reason: str) -> None:
    result = CliRunner().invoke(app, ["phantom", str(tmp_path / "p"), *options])
    assert result.exit_code == 2
    assert reason in result.output
    assert not (tmp_path / "p").exists()
