"""Training on labels of which only a part is known."""

import csv
import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch

from spleen.config.identity import settings_with_effect
from spleen.errors import InputError
from spleen.exploration.explore import explore
from spleen.training.module import SegmentationModule
from tests._helpers.nifti import ras_affine, save
from tests._helpers.small_run import SPACING_MM, SmallCt, compose_config, small, small_ct, summary, train

UNKNOWN = 255


@pytest.fixture
def ct(tmp_path: Path) -> SmallCt:
    return small_ct(tmp_path)


def relabelled(ct: SmallCt, values: np.ndarray) -> str:
    """The setting of a label file with these values."""
    return f"data.label={save(ct.label.parent / 'sparse.nii.gz', values, ras_affine(SPACING_MM))}"


@pytest.mark.parametrize("on_device", ["true", "false"])
def test_a_training_draws_and_scores_labelled_slices_only(
    ct: SmallCt, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, on_device: str
) -> None:
    labelled = set(range(0, 24, 2))
    values = ct.values.copy()
    values[:, :, [number for number in range(24) if number not in labelled]] = UNKNOWN
    drawn = _labels_drawn(monkeypatch)
    caplog.set_level("INFO")
    run = train(
        tmp_path, ct.overrides[0], relabelled(ct, values), f"data.ignore_value={UNKNOWN}", "data.label_values=[3,4]",
        f"loader.on_device={on_device}", "epochs=2", "augment=none", "split.guard_mm=0", "split.test_blocks=1",
    )  # fmt: skip
    (split,) = json.loads((run / "split.json").read_text())["cases"].values()
    used = [set(split[part]) for part in ("train", "val", "test")]
    assert set.union(*used) <= labelled
    assert all(used)
    assert drawn
    assert not any((label == UNKNOWN).any() for label in drawn)
    assert 0 < summary(run)["test"]["dice"] <= 1
    assert "12 of 24 axial slices are labelled" in caplog.text
    assert "could not be" not in caplog.text  # of pictures and tables


def test_ignored_voxels_count_in_no_score(ct: SmallCt, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """After one epoch the whole slice is predicted, so that a volume of the prediction shows what was counted."""
    values = ct.values.copy()
    values[:24] = UNKNOWN
    run = train(
        tmp_path, ct.overrides[0], relabelled(ct, values), f"data.ignore_value={UNKNOWN}", "data.label_values=[7]",
        "epochs=1", "loss=tversky",
    )  # fmt: skip
    (split,) = json.loads((run / "split.json").read_text())["cases"].values()
    with (run / "cases.csv").open(newline="") as file:
        (row,) = [row for row in csv.DictReader(file) if row["split"] == "test"]
    assert "could not be" not in caplog.text  # of pictures and tables
    known = values[:, :, split["test"]]
    assert float(row["volume_reference_mm3"]) == pytest.approx((known == 7).sum() * math.prod(SPACING_MM))
    assert float(row["volume_prediction_mm3"]) <= (known != UNKNOWN).sum() * math.prod(SPACING_MM)


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        (("data.ignore_value=3", "data.label_values=[3,4]"), "data.ignore_value=3 is a value of the class 'organ'"),
        (("data.ignore_value=0", "data.label_values=[3]"), "data.ignore_value=0 is a value of the background"),
    ],
)
def test_an_ignored_value_with_another_meaning_is_an_error(
    ct: SmallCt, tmp_path: Path, overrides: tuple[str, ...], expected: str
) -> None:
    with pytest.raises(InputError, match=expected):
        train(tmp_path, *ct.overrides, *overrides)


def test_an_ignored_value_that_never_occurs_is_a_warning(
    ct: SmallCt, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    train(tmp_path, *ct.overrides, "data.label_values=[3,4]", "data.ignore_value=99", "epochs=1")
    assert "no label contains data.ignore_value=99" in caplog.text


def test_jobs_without_an_ignored_value_keep_their_identity(ct: SmallCt) -> None:
    config = compose_config(*small(*ct.overrides))
    assert "data.ignore_value" not in settings_with_effect(config)
    assert "data.ignore_value" in settings_with_effect(compose_config(*small(*ct.overrides, "data.ignore_value=255")))


def _labels_drawn(monkeypatch: pytest.MonkeyPatch) -> list[torch.Tensor]:
    """The labels of all training steps, of one-step-at-a-time batches and of steps on the device."""
    drawn: list[torch.Tensor] = []
    loss_of = SegmentationModule._loss_of

    def noted(module: SegmentationModule, image: torch.Tensor, label: torch.Tensor) -> torch.Tensor:
        drawn.append(label.clone())
        return loss_of(module, image, label)

    monkeypatch.setattr(SegmentationModule, "_loss_of", noted)
    return drawn


def test_explore_takes_the_ignored_value_for_no_organ(ct: SmallCt) -> None:
    """In the label two of three axial slices are unknown, and so is half of another one."""
    values = ct.values.copy()
    values[:, :, [number for number in range(24) if number % 3]] = UNKNOWN
    values[24:, :, 0] = UNKNOWN
    label = relabelled(ct, values).split("=")[1]
    exploration = explore(ct.image, label, ignore_value=UNKNOWN)
    (case,) = exploration.cases
    assert case.labels is not None
    assert [value.value for value in case.labels.values] == [3, 4, 7]
    assert case.labels.organ_voxels == np.isin(values, (3, 4, 7)).sum()
    (note,) = [finding for finding in case.findings if finding.topic == "partly labelled"]
    # 8 of 24 slices less half a one: 31.25 %
    assert note.message == (
        "31.2 % of the voxels are not 255; slices with a label: 48 of 48 sagittal, 40 of 40 coronal, 8 of 24 axial"
    )
    assert exploration.suggestion is not None
    assert "data.ignore_value=255" in exploration.suggestion.overrides
    with pytest.raises(InputError, match="4 cannot be ignored"):
        explore(ct.image, label, (3, 4), ignore_value=4)
