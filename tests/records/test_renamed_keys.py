"""Names of earlier versions in recorded configurations and on the command line mean what they are called today."""

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


def test_keys_and_classes_of_earlier_versions_get_their_current_names_in_place() -> None:
    earlier = {"split": {"val_share": 0.15, "seed": 0}, "loss": {"_target_": "spleen.losses.DiceCrossEntropyLoss"}}
    current = with_current_keys(earlier)
    assert current == {
        "split": {"val_fraction": 0.15, "seed": 0},
        "loss": {"_target_": "spleen.models.losses.DiceCrossEntropyLoss"},
    }
    assert list(current["split"]) == ["val_fraction", "seed"]
    assert with_current_keys(current) == current


def test_another_class_keeps_its_name() -> None:
    mine = {"loss": {"_target_": "mine.losses.DiceCrossEntropyLoss", "kind": "spleen.losses.DiceCrossEntropyLoss"}}
    assert with_current_keys(mine) == mine


def test_a_setting_under_both_names_is_refused() -> None:
    with pytest.raises(InputError, match=r"split\.val_share and split\.val_fraction are the same setting"):
        with_current_keys({"split": {"val_share": 0.15, "val_fraction": 0.2}})


def test_the_settings_of_an_earlier_run_are_those_of_a_run_of_today(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(EARLIER)
    assert read_settings(path) == {
        "split.val_fraction": 0.15,
        "split.seed": 0,
        "loss._target_": "spleen.models.losses.DiceCrossEntropyLoss",
        "loss.dice_weight": 1.0,
    }
