"""A folder of runs is averaged only if its runs are one arm, unless asked otherwise."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import yaml
from typer.testing import CliRunner

import spleen
from spleen.cli.main import app
from spleen.errors import InputError
from spleen.inference.loading import load_ensemble
from tests._helpers.forged_checkpoints import forge_spec
from tests._helpers.nifti import ras_affine, save
from tests._helpers.small_run import SPACING_MM
from tests._helpers.trained_runs import BRIGHT, scan, trained, voxels


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two arms, lr=0.03 with two seeds and axes and lr=0.01 with one run, which validated best."""
    axial = trained(tmp_path_factory, "axial", *BRIGHT, "axis=axial", "split.guard_mm=1")
    coronal = trained(tmp_path_factory, "coronal", *BRIGHT, "axis=coronal", "split.guard_mm=1")
    folder = tmp_path_factory.mktemp("study")
    for name, source, changes, val_dice in (
        ("a", axial, {}, 0.7),
        ("b", coronal, {"seed": 1}, 0.8),
        ("c", axial, {"lr": 0.01, "loader.num_workers": 2}, 0.9),
    ):
        run = Path(shutil.copytree(source, folder / name))
        config = yaml.safe_load((run / "config.yaml").read_text())
        for key, value in changes.items():
            section, _, last = key.rpartition(".")
            (config[section] if section else config)[last] = value
        (run / "config.yaml").write_text(yaml.safe_dump(config))
        summary = json.loads((run / "summary.json").read_text())
        summary["val"]["dice"] = val_dice
        (run / "summary.json").write_text(json.dumps(summary))
    return folder


def names(study: Path, choice: str) -> list[str]:
    return [model.name for model in load_ensemble([study], study=choice)]


def test_several_arms_are_refused_with_what_differs_unless_one_is_chosen(study: Path) -> None:
    with pytest.raises(
        InputError, match=r"3 runs of 2 arms with different lr \(0\.03, 0\.01\)\. Add --best"
    ) as refused:
        load_ensemble([study])
    assert "num_workers" not in str(refused.value)  # without effect on the result
    assert names(study, "best") == ["c"]
    assert names(study, "all") == ["a", "b", "c"]
    assert len(spleen.load_model(study, study="all").networks) == 3
    assert [model.name for model in load_ensemble([study / "a", study / "c"])] == ["a", "c"]  # named one by one


def test_one_arm_is_averaged_and_named(study: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    arm = tmp_path / "arm"
    for name in "ab":
        shutil.copytree(study / name, arm / name)
    with caplog.at_level("INFO", "spleen.inference.study"):
        assert names(arm, "one_arm") == ["a", "b"]
    assert f"averaging 2 runs of {arm}: a, b (one arm, with different axis and seed)" in caplog.text


def test_the_command_says_which_runs_it_averages(
    study: Path, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    image = save(tmp_path / "ct.nii.gz", scan(tmp_path_factory).hu, ras_affine(SPACING_MM))
    arguments = ["predict", str(study), str(image), "-o", str(tmp_path / "mask.nii.gz")]
    refused = CliRunner().invoke(app, arguments)
    assert refused.exit_code == 2
    assert "2 arms" in refused.output
    assert not (tmp_path / "mask.nii.gz").exists()
    assert CliRunner().invoke(app, [*arguments, "--best", "--all"]).exit_code == 2
    done = CliRunner().invoke(app, [*arguments, "--best"])
    assert done.exit_code == 0, done.output
    spleen.predict(study / "c", image, tmp_path / "alone.nii.gz")
    np.testing.assert_array_equal(voxels(tmp_path / "mask.nii.gz"), voxels(tmp_path / "alone.nii.gz"))


def test_runs_that_call_a_class_differently_are_fused_under_one_name(study: Path, tmp_path: Path) -> None:
    other = forge_spec(study / "b", tmp_path / "other.ckpt", lambda spec: spec["classes"][0].update(name="organ"))
    with pytest.raises(InputError, match="if only the names differ, add --class OLD=NEW"):
        load_ensemble([study / "a", other])
    fused = load_ensemble([study / "a", other], class_names={"organ": "spleen", "bright": "spleen"})
    assert [model.classes.names for model in fused] == [("spleen",), ("spleen",)]
    with pytest.raises(InputError, match="the runs have no class 'liver'; they have bright, organ"):
        load_ensemble([study / "a", other], class_names={"liver": "spleen"})
