"""`spleen explore --above` and `--window`: what is told and written, and what is refused."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from spleen.cli.main import app
from tests._helpers.nifti import ras_affine, save


def outlying(path: Path, value: float = 600_000) -> Path:
    """A grid of 0.8 × 0.8 × 5 mm whose last voxel stands out."""
    array = np.random.default_rng(0).integers(1, 900, (5, 7, 3)).astype(np.float32)
    array[4, 6, 2] = value
    return save(path, array, ras_affine())


def run(*arguments: object):
    return CliRunner().invoke(app, ["explore", *map(str, arguments)])


def test_voxels_above_a_value_are_in_text_json_and_csv(tmp_path):
    image = outlying(tmp_path / "a.nii")
    done = run(image, "--above", "500000", "--json", tmp_path / "a.json", "--csv", tmp_path / "a.csv")
    assert done.exit_code == 0, done.output
    assert "1 voxel in 1 component" in done.output
    assert "4, 6, 2" in done.output
    above = json.loads((tmp_path / "a.json").read_text())["cases"]["a"]["above"]
    place = {"value": 600_000, "voxel": [4, 6, 2], "position_mm": [-31 + 3.2, 12.5 + 4.8, 50]}
    assert above == {
        "above": 500_000, "n_voxels": 1, "n_components": 1, "highest": [place],
        "largest": {"n_voxels": 1, "first": [4, 6, 2], "last": [4, 6, 2], "centre_mm": place["position_mm"]},
    }  # fmt: skip
    (row,) = csv.DictReader((tmp_path / "a.csv").read_text().splitlines())
    assert (row["above_voxels"], row["above_highest_i"], row["above_highest_superior_mm"]) == ("1", "4", "50.0")


def test_of_several_cases_those_with_such_voxels_are_listed(tmp_path):
    for name, value in (("a", 3.0), ("b", 600_000), ("c", 700_000)):
        outlying(tmp_path / f"{name}.nii", value)
    text = run(tmp_path, "--above", "500000").output
    assert "such voxels in 2 of 3 cases, 2 in all" in text
    assert text.index("700,000") < text.index("600,000")


def test_nothing_above_is_said_so(tmp_path):
    assert "no voxel; the highest is 600,000" in run(outlying(tmp_path / "a.nii"), "--above", "1e6").output


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (("--above", "many"), "--above must be a number in the units of the image, such as 500000; got 'many'"),
        (("--above", "nan"), "got 'nan'"),
        (("--window", "liver", "--png", "a.png"), "abdomen, lung, bone, brain, or LEVEL,WIDTH"),
        (("--window", "lung"), "--window is for the slices of --output and --png"),
    ],
)
def test_a_wrong_option_is_refused_before_anything_is_read(tmp_path, monkeypatch, options, told):
    monkeypatch.chdir(tmp_path)
    outlying(tmp_path / "a.nii")
    done = run("a.nii", *options)
    assert done.exit_code == 2
    assert told in " ".join(done.output.split())
    assert "Verdict" not in done.output
