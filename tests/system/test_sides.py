"""A mirrored image shows a left organ on the right: classes with a side are never mirrored."""

from pathlib import Path

import numpy as np
import pytest

from spleen.config.factory import build_augment_settings
from spleen.errors import InputError
from spleen.imaging.classes import check_flips
from spleen.inference.model import load_model
from spleen.runs.api import as_overrides, compose_config
from tests._helpers.forged_checkpoints import forge_spec
from tests._helpers.nifti import ras_affine
from tests._helpers.small_run import SPACING_MM, small_ct
from tests._helpers.trained_runs import BRIGHT, trained


@pytest.mark.parametrize(
    ("name", "flip"),
    [
        ("left_kidney", "left_right"),
        ("Kidney right", "left_right"),
        ("kidney_l", "left_right"),
        ("R-lung", "left_right"),
        ("Anterior", "anterior_posterior"),
        ("lung_upper_lobe", "superior_inferior"),
    ],
)
def test_a_flip_that_moves_a_class_to_its_other_side_is_refused(name: str, flip: str) -> None:
    with pytest.raises(InputError, match=rf"flips={flip} mirrors the class '{name}' to its other side"):
        check_flips(["liver", name], [flip], "flips")
    others = {"left_right", "anterior_posterior", "superior_inferior"} - {flip}
    check_flips(["liver", name], others, "flips")


@pytest.mark.parametrize("name", ["liver", "kidneys", "leftovers", "bright", "gallbladder", "upright"])
def test_words_that_only_contain_a_side_are_none(name: str) -> None:
    check_flips([name], ["left_right", "anterior_posterior", "superior_inferior"], "flips")


@pytest.mark.parametrize(("axis", "is_refused"), [("axial", True), ("coronal", True), ("sagittal", False)])
def test_a_training_is_refused_if_the_flip_lies_in_its_slices(axis: str, is_refused: bool) -> None:
    settings = {
        "data": "folder",
        "data.images": "images",
        "data.labels": "labels",
        "data.label_values": {"left_kidney": 1, "right_kidney": 2},
        "intensity": "ct",
        "augment": "light_mirrored",
        "axis": axis,
        "logger": "none",
    }
    config = compose_config(as_overrides(settings))
    if is_refused:
        with pytest.raises(InputError, match=r"augment\.flips=left_right mirrors the class 'left_kidney'"):
            build_augment_settings(config)
    else:
        assert build_augment_settings(config).flips == ("left_right",)


def test_a_prediction_mirrors_no_class_with_a_side(
    tmp_path_factory: pytest.TempPathFactory, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run = trained(tmp_path_factory, "axial", *BRIGHT, "axis=axial", "split.guard_mm=1")

    def rename(spec: dict) -> None:
        spec["classes"][0]["name"] = "left bright"
        spec["trained_flips"] = ["left_right"]

    model = load_model(forge_spec(run, tmp_path / "sided.ckpt", rename))
    hu = small_ct(tmp_path).hu
    with pytest.raises(InputError, match="--flip=left_right mirrors the class 'left bright'"):
        model.predict(hu, ras_affine(SPACING_MM), tta=True, flips="left_right")
    found = model.predict(hu, ras_affine(SPACING_MM), tta=True)
    assert "was trained with a flip that is left out here" in caplog.text
    plain = load_model(run).predict(hu, ras_affine(SPACING_MM), tta=True)
    np.testing.assert_array_equal(found.mask, plain.mask)
