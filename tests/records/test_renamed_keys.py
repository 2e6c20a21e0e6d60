"""Names from earlier versions in recorded configurations are mapped to their current names."""

from pathlib import Path

import pytest

from spleen.errors import InputError
from spleen.records.reading import read_settings
from spleen.records.renamed_keys import with_current_keys

EARLIER = """
split:
  val_share: 0.15
  seed: 0
loss:
  _target_: spleen.losses.DiceCrossEntropyLoss
  dice_weight: 1.0
"""


def test_old_keys_and_class_paths_are_renamed_in_place() -> None:
    earlier = {"split": {"val_share": 0.15, "seed": 0}, "loss": {"_target_": "spleen.losses.DiceCrossEntropyLoss"}}
    current = with_current_keys(earlier)
    assert current == {
        "split": {"val_fraction": 0.15, "seed": 0},
        "loss": {"_target_": "spleen.models.losses.DiceCrossEntropyLoss"},
    }
    assert list(current["split"]) == ["val_fraction", "seed"]
    assert with_current_keys(current) == current


def test_other_class_paths_are_unchanged() -> None:
    mine = {"loss": {"_target_": "mine.losses.DiceCrossEntropyLoss", "kind": "spleen.losses.DiceCrossEntropyLoss"}}
    assert with_current_keys(mine) == mine


def test_the_loss_that_was_monais_is_the_one_that_knows_ignored_pixels() -> None:
    earlier = {"loss": {"_target_": "monai.losses.DiceFocalLoss", "gamma": 2.0}}
    assert with_current_keys(earlier)["loss"]["_target_"] == "spleen.models.losses.DiceFocalLoss"


def test_a_setting_given_under_both_names_is_rejected() -> None:
    with pytest.raises(InputError, match=r"split\.val_share and split\.val_fraction are the same setting"):
        with_current_keys({"split": {"val_share": 0.15, "val_fraction": 0.2}})


def test_settings_of_an_old_run_are_read_under_their_current_names(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(EARLIER)
    assert read_settings(path) == {
        "split.val_fraction": 0.15,
        "split.seed": 0,
        "loss._target_": "spleen.models.losses.DiceCrossEntropyLoss",
        "loss.dice_weight": 1.0,
    }
