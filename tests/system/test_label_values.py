"""Unexplained label values are never silently trained as background."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch

from spleen.config.datasets import find_dataset
from spleen.errors import InputError
from spleen.exploration.explore import explore
from spleen.runs.api import compose_config
from spleen.runs.resume import find_unfinished
from spleen.training.checkpoints import best_row
from tests._helpers.nifti import ras_affine, save
from tests._helpers.small_run import rows, small, train

SHAPE = (24, 20, 12)


def dataset(folder: Path, organ_values: list[int], others: dict[int, int] | None = None) -> Path:
    """A raw nnU-Net dataset; case n stores the organ as organ_values[n] and, if in `others`, one more structure."""
    (folder / "imagesTr").mkdir(parents=True)
    (folder / "labelsTr").mkdir()
    for number, value in enumerate(organ_values):
        random = np.random.default_rng(number)
        label = np.zeros(SHAPE, np.int16)
        label[6:18, 5:15, 2:10] = value
        if others and number in others:
            label[20:23, 16:19, 4:8] = others[number]
        hu = np.where(label > 0, 120.0, -60.0) + random.normal(0, 10, SHAPE)
        save(folder / "imagesTr" / f"c{number}_0000.nii.gz", hu.astype(np.int16), ras_affine())
        save(folder / "labelsTr" / f"c{number}.nii.gz", label, ras_affine())
    content = {
        "channel_names": {"0": "CT"},
        "labels": {"background": 0, "organ": 1},
        "numTraining": len(organ_values),
        "file_ending": ".nii.gz",
    }
    (folder / "dataset.json").write_text(json.dumps(content))
    return folder


def overrides(root: Path, kind: str, *more: str) -> tuple[str, ...]:
    """Train on three quarters of the cases, validate on the rest."""
    folders = (f"data.images={root / 'imagesTr'}", f"data.labels={root / 'labelsTr'}", "data.label_values=[1]")
    files = (f"data.root={root}",) if kind == "nnunet" else folders
    rest = ("split.test_fraction=0", "split.val_fraction=0.25", "epochs=1")
    return (f"data={kind}", *files, "intensity=ct", *rest, *more)


@pytest.mark.parametrize("kind", ["nnunet", "folder"])
def test_an_unexplained_label_value_is_an_error_that_lists_its_cases(tmp_path: Path, kind: str) -> None:
    root = dataset(tmp_path / "data", [1, 255, 1, 255, 1, 1, 1, 1])
    expected = r"(?s)2 of 8 cases cannot be used:\n  c1, c3: its label contains 255, but .*background_values=\[255\]"
    with pytest.raises(InputError, match=expected):
        train(tmp_path, *overrides(root, kind))
    run = train(tmp_path, *overrides(root, kind, "data.skip_bad=true"), name="without")
    split = json.loads((run / "split.json").read_text())
    assert set(split["skipped"]) == {"c1", "c3"}
    assert {*split["train"], *split["val"]} == {"c0", "c2", "c4", "c5", "c6", "c7"}
    run = train(tmp_path, *overrides(root, kind, "data.background_values=[255]"), name="on purpose")
    assert (run / "summary.json").is_file()


def test_other_structures_beside_the_organ_are_an_error_only_with_dataset_json(tmp_path: Path) -> None:
    """Value 7 occurs beside the organ, so a patient without the organ may have it as well."""
    root = dataset(tmp_path / "data", [1, 1, 1, 1, 1, 1, 1, 0], others={0: 7, 7: 7})
    assert (train(tmp_path, *overrides(root, "folder")) / "summary.json").is_file()
    with pytest.raises(InputError, match=r"c0, c7: its label contains 7, but dataset\.json defines 1"):
        train(tmp_path, *overrides(root, "nnunet"), name="nnunet")


def test_a_validation_split_without_the_organ_keeps_the_last_epoch(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    root = dataset(tmp_path / "data", [0, 0, 0, 1, 1])
    (tmp_path / "splits.json").write_text(json.dumps([{"train": ["c0", "c1", "c2", "c3"], "val": ["c4"]}]))
    split = ("fold=0", f"split.splits_file={tmp_path / 'splits.json'}", "split.val_fraction=0.25", "epochs=4")
    patience = "trainer.early_stopping_patience=1"
    run = train(tmp_path, *overrides(root, "folder", *split, patience))
    assert "the validation split does not contain organ: nothing can select an epoch, and the last" in caplog.text
    steps = [row["step"] for row in rows(run / "metrics.csv")]
    assert len(steps) == 4  # and no early stop
    best = torch.load(run / "checkpoints" / "best.ckpt", weights_only=True)
    assert best["global_step"] == float(steps[-1])
    assert find_unfinished(run) is None


def test_best_row_is_the_last_one_when_no_score_can_select(tmp_path: Path) -> None:
    rows = [{"epoch": float(epoch), "step": 10.0 * epoch, "val/dice": dice} for epoch, dice in enumerate([0, math.nan])]
    assert best_row(rows, can_select=False) is rows[1]
    assert best_row(rows) is rows[0]


def test_explore_reports_unknown_label_values(tmp_path: Path) -> None:
    root = dataset(tmp_path / "data", [1, 255, 1])
    cases = explore(root / "imagesTr", root / "labelsTr").cases
    topics = {case.case_id: [each.topic for each in case.findings if each.severity == "error"] for case in cases}
    assert topics == {"c0": [], "c1": ["unknown label value"], "c2": []}


def test_dataset_json_values_are_known_even_when_label_values_are_set(tmp_path: Path) -> None:
    root = dataset(tmp_path / "data", [1, 1])
    settings = small("data=nnunet", f"data.root={root}", "data.label_values=[1]", "fold=0")
    assert find_dataset(compose_config(settings)).known_values == {1}
