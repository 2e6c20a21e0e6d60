"""Filling a label from a few drawn slices: what is drawn stays, and what cannot work is refused before the training."""

import csv
import json
import math
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import yaml
from typer.testing import CliRunner

from spleen.annotation.defaults import intensity_of
from spleen.annotation.propagate import FilledSlice, Propagation, propagate
from spleen.annotation.suggest import read_scan, suggest_slices
from spleen.annotation.text import to_csv_text, to_text
from spleen.cli.main import app
from spleen.errors import InputError
from tests._helpers.nifti import ras_affine, save, save_stored_as
from tests._helpers.small_run import SPACING_MM, SmallCt, small, small_ct

LABELLED = (1, 5, 9, 13, 17, 22)
TRAINING = tuple(
    setting for setting in small() if setting.split("=")[0] not in ("data", "axis") and not setting.startswith("split.")
)


@pytest.fixture
def ct(tmp_path: Path) -> SmallCt:
    return small_ct(tmp_path)


def folders(folder: Path) -> tuple[str, str]:
    return f"output_dir={folder / 'outputs'}", f"cache_dir={folder / 'cache'}"


@pytest.mark.slow
def test_the_rest_of_a_label_is_filled(ct: SmallCt, tmp_path: Path) -> None:
    """Axial slices of the first organ (3 and 4 are one) and the second (7), in a file of another orientation."""
    values = np.full(ct.values.shape, 255, np.int16)
    values[:, :, LABELLED] = ct.values[:, :, LABELLED]
    values[3, 4, 10] = 7  # one drawn voxel of an otherwise unknown slice
    label = save_stored_as(tmp_path / "sparse.nii.gz", "LPI", values, ras_affine(SPACING_MM))
    result = propagate(
        ct.image, label, tmp_path / "full.nii.gz", *TRAINING, *folders(tmp_path), "epochs=12", "report=true",
        classes={3: "bright", 4: "bright", 7: "dark"},
    )  # fmt: skip
    drawn, filled = nib.load(label), nib.load(tmp_path / "full.nii.gz")
    before, after = np.asarray(drawn.dataobj), np.asarray(filled.dataobj)
    np.testing.assert_array_equal(filled.affine, drawn.affine)
    assert after.dtype == before.dtype
    np.testing.assert_array_equal(after[before != 255], before[before != 255])
    assert set(np.unique(after)) <= {0, 3, 4, 7}
    truth = np.asarray(nib.load(ct.label).dataobj)[::-1, ::-1, ::-1]
    for found, expected in ((np.isin(after, (3, 4)), np.isin(truth, (3, 4))), (after == 7, truth == 7)):
        unknown = before == 255
        overlap = np.count_nonzero(found & expected & unknown)
        assert 2 * overlap / (np.count_nonzero(found & unknown) + np.count_nonzero(expected & unknown)) > 0.8
    # Axial slice 1 is number 22 in the file, whose third axis runs downwards.
    sources = {row.slice_index: row.source for row in result.slices}
    assert [index for index, source in sources.items() if source == "drawn"] == sorted(23 - each for each in LABELLED)
    assert sources[13] == "partly drawn"
    assert not {each.slice_index for each in result.next_slices} & {13, *(23 - each for each in LABELLED)}
    area = np.count_nonzero(after[:, :, 8] == 7) * SPACING_MM[0] * SPACING_MM[1]
    assert result.slices[8].organ_mm2[1] == pytest.approx(area, abs=0.01)
    assert (result.run_folder / "report.html").exists()
    (split,) = json.loads((result.run_folder / "split.json").read_text())["cases"].values()
    assert split["train"] == sorted([10, *LABELLED])
    assert not split["val"]
    assert not split["test"]


@pytest.mark.slow
def test_listed_slices_of_an_ordinary_label_and_another_run_are_a_start(ct: SmallCt, tmp_path: Path) -> None:
    values = np.where(ct.values == 7, 1, 0).astype(np.uint8)
    values[:, :, 6] = 99  # not drawn, and never looked at
    label = save(tmp_path / "ordinary.nii.gz", values, ras_affine(SPACING_MM))
    first, second = (
        propagate(
            ct.image, label, tmp_path / f"{name}.nii.gz", *TRAINING, *folders(tmp_path), axis="axial", drawn=LABELLED
        )
        for name in ("first", "second")
    )
    again = propagate(
        ct.image, label, tmp_path / "again.nii.gz",
        *(each for each in TRAINING if not each.startswith(("model", "intensity", "img_size", "context", "resize"))),
        *folders(tmp_path), "epochs=1", axis="axial", drawn=LABELLED, run=first.run_folder,
    )  # fmt: skip
    assert json.loads((again.run_folder / "warm_start.json").read_text())["layers"]
    models = [yaml.safe_load((each.run_folder / "config.yaml").read_text())["model"] for each in (first, again)]
    assert models[0] == models[1]
    known = np.asarray(nib.load(tmp_path / "first_drawn.nii.gz").dataobj)
    assert [k for k in range(24) if (known[:, :, k] != 255).any()] == list(LABELLED)
    filled = [np.asarray(nib.load(each.output).dataobj) for each in (first, second)]
    np.testing.assert_array_equal(*filled)  # the same seed
    assert not (filled[0] == 99).any()


OWN_NETWORK = """
import torch
class Own(torch.nn.Conv2d):
    def __init__(self, in_channels, out_channels):
        super().__init__(in_channels, out_channels, 1)
"""


@pytest.mark.slow
def test_a_network_of_ones_own_is_used_in_its_own_training_and_later_when_asked_for(
    ct: SmallCt, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "own_annotators.py").write_text(OWN_NETWORK)
    monkeypatch.syspath_prepend(tmp_path)
    label = save(tmp_path / "label.nii.gz", _sparse(ct.values), ras_affine(SPACING_MM))
    own = "~model.network", "+model.network={_target_: own_annotators.Own}"
    first = propagate(ct.image, label, tmp_path / "a.nii.gz", *TRAINING, *own, *folders(tmp_path), "epochs=1")
    assert not (np.asarray(nib.load(first.output).dataobj) == 255).any()
    with pytest.raises(InputError, match="add --allow-custom-code"):
        suggest_slices(ct.image, label, runs=str(first.run_folder), n_slices=2)
    with pytest.raises(InputError, match="add --allow-custom-code"):
        propagate(ct.image, label, tmp_path / "b.nii.gz", *folders(tmp_path), run=first.run_folder)
    short = "epochs=1", "trainer=cpu", "logger=none", "report=false", *folders(tmp_path)
    for command in (
        ["suggest-slices", ct.image, "--label", label, "-n", "2"],
        ["propagate", ct.image, label, *short, "-o", tmp_path / "b.nii.gz"],
    ):
        trusted = [*map(str, command), "--run", str(first.run_folder), "--allow-custom-code"]
        done = CliRunner().invoke(app, trusted)
        assert done.exit_code == 0, done.output


Change = Callable[[np.ndarray], np.ndarray]


def _sparse(values: np.ndarray) -> np.ndarray:
    values = values.copy()
    values[:, :, [k for k in range(24) if k not in LABELLED]] = 255
    return values


@pytest.mark.parametrize(
    ("change", "overrides", "arguments", "expected"),
    [
        (lambda v: v, (), {}, "does not contain 255"),
        (lambda v: np.where(_sparse(v) == 255, 255, 0), (), {}, "6 drawn slice.* show no organ"),
        (_sparse, (), {"classes": {3: "low", 9: "gall"}}, "no drawn slice shows gall .9., so it cannot be learnt"),
        (_sparse, ("data.label=x",), {}, "data.label=x: propagate sets data.label itself"),
        (_sparse, ("axis=axial",), {}, "propagate sets axis itself"),
        (_sparse, ("epoch=3",), {}, "epoch"),
        (_sparse, (), {"run": "nowhere"}, "nowhere: no such run folder"),
        (_sparse, (), {"n_next": -3}, "must be 0 or more; got -3"),
        (lambda v: _sparse(v)[:, 1:], (), {}, "on different grids"),
    ],
)
def test_what_cannot_work_is_refused_before_the_training(
    ct: SmallCt, tmp_path: Path, change: Change, overrides: tuple[str, ...], arguments: dict, expected: str
) -> None:
    label = save(tmp_path / "label.nii.gz", change(ct.values).astype(np.uint8), ras_affine(SPACING_MM))
    with pytest.raises(InputError, match=expected):
        propagate(ct.image, label, tmp_path / "full.nii.gz", *overrides, *folders(tmp_path), **arguments)
    assert not (tmp_path / "outputs").exists()


def test_the_label_itself_is_never_replaced(ct: SmallCt) -> None:
    with pytest.raises(InputError, match="would be replaced; give another name"):
        propagate(ct.image, ct.label, ct.label)


def test_a_label_that_is_called_as_the_drawn_slices_would_be_is_never_replaced(ct: SmallCt) -> None:
    label = ct.label.rename(ct.label.with_name("full_drawn.nii.gz"))
    before = label.read_bytes()
    with pytest.raises(InputError, match=r"full_drawn\.nii\.gz is read, and would be replaced"):
        propagate(ct.image, label, label.with_name("full.nii.gz"), axis="axial", drawn=[1, 5])
    assert label.read_bytes() == before


def test_an_output_that_is_no_nifti_file_is_refused_before_the_training(ct: SmallCt, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"full must end in one of \.nii\.gz, \.nii"):
        propagate(ct.image, ct.label, tmp_path / "full", *folders(tmp_path), axis="axial", drawn=[1, 5])
    assert not (tmp_path / "outputs").exists()


def test_what_is_refused_leaves_no_drawn_slices_in_the_way(ct: SmallCt, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="epoch"):
        propagate(ct.image, ct.label, tmp_path / "full.nii.gz", "epoch=3", axis="axial", drawn=[1, 5, 9])
    assert not (tmp_path / "full_drawn.nii.gz").exists()


def test_the_intensities_of_a_scan_choose_their_normalisation(ct: SmallCt, tmp_path: Path) -> None:
    assert intensity_of(read_scan(ct.image)) == {"intensity": "ct"}
    mr = save(tmp_path / "mr.nii.gz", np.clip(ct.hu + 1000, 0, None), ras_affine(SPACING_MM))
    assert intensity_of(read_scan(mr)) == {"intensity": "mr"}


def test_the_table_says_which_slices_are_least_sure(tmp_path: Path) -> None:
    rows = (
        FilledSlice(0, 1.5, "predicted", (0.0,), math.nan, 0.0),
        FilledSlice(1, 4.5, "drawn", (120.0,), 1.0, 0.0),
        FilledSlice(2, 7.5, "predicted", (90.0,), 0.7, 31.0),
    )
    result = Propagation(tmp_path / "full.nii.gz", tmp_path, "axial", ("spleen",), rows, ())
    assert "3 axial slices: 1 drawn and kept as they are, 2 filled, 1 of these with an organ" in to_text(result)
    assert "not calibrated" in to_text(result)
    table = list(csv.DictReader(to_csv_text(result).splitlines()))
    assert [row["confidence"] for row in table] == ["", "1.0", "0.7"]
    assert [row["spleen_mm2"] for row in table] == ["0.0", "120.0", "90.0"]
