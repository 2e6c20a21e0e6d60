"""Which settings become columns, with handwritten configurations and the shipped options."""

from pathlib import Path

import pytest
import yaml

from spleen.records.reading import read_settings
from spleen.runs.results.results import StudyResults, results
from tests._helpers.run_folders import write_run
from tests._helpers.small_run import REPOSITORY


def extra(study: StudyResults) -> list[str]:
    """The headings beyond model, axis, image size and learning rate."""
    assert [column.title for column in study.columns[:4]] == ["model", "axis", "image size", "learning rate"]
    return [column.title for column in study.columns[4:]]


def test_settings_that_differ_become_columns_named_by_their_keys(tmp_path: Path) -> None:
    write_run(tmp_path / "a", 0.9, context_slices=0, loader={"foreground_fraction": 0.5}, compile=False)
    write_run(tmp_path / "b", 0.8, context_slices=1, loader={"foreground_fraction": 0.25}, compile=False)
    write_run(tmp_path / "c", 0.7, context_slices=1, loader={"foreground_fraction": 0.5}, compile=True)
    study = results(tmp_path)
    assert extra(study) == ["context_slices", "loader.foreground_fraction", "compile"]
    assert [arm.label for arm in study.arms] == [
        "context_slices 0, foreground_fraction 0.5, compile false",
        "context_slices 1, foreground_fraction 0.25, compile false",
        "context_slices 1, foreground_fraction 0.5, compile true",
    ]


def test_model_keys_implied_by_the_model_name_are_not_columns(tmp_path: Path) -> None:
    write_run(tmp_path / "a", 0.9, model={"name": "unet", "size_multiple": 16, "network": {"width": 16}})
    write_run(
        tmp_path / "b", 0.8, model={"name": "wide", "size_multiple": 8, "network": {"width": 32, "norm": "batch"}}
    )
    assert extra(results(tmp_path)) == []
    write_run(tmp_path / "c", 0.7, model={"name": "unet", "size_multiple": 16, "network": {"width": 8}})
    study = results(tmp_path)
    assert extra(study) == ["model.network.width"]
    assert [arm.settings["model.network.width"] for arm in study.arms] == [16, 32, 8]


@pytest.mark.parametrize("group", ["augment", "loss", "intensity"])
def test_shipped_options_of_a_group_are_shown_by_name(tmp_path: Path, group: str) -> None:
    options = sorted((REPOSITORY / "conf" / group).glob("*.yaml"))
    assert len(options) >= 3
    for rank, option in enumerate(options):
        write_run(tmp_path / option.stem, val=0.9 - 0.1 * rank, **{group: yaml.safe_load(option.read_text())})
    study = results(tmp_path)
    assert extra(study) == [group]
    assert [arm.settings[group] for arm in study.arms] == [option.stem for option in options]


def test_a_modified_option_is_shown_by_its_changed_keys(tmp_path: Path) -> None:
    light = yaml.safe_load((REPOSITORY / "conf" / "augment" / "light.yaml").read_text())
    write_run(tmp_path / "a", augment=light)
    write_run(tmp_path / "b", augment={**light, "noise_std": 0.5, "shear": 0.25})
    study = results(tmp_path)
    assert extra(study) == ["augment.shear", "augment.noise_std"]


def test_two_randomly_drawn_settings_are_both_shown(tmp_path: Path) -> None:
    for number, (noise, shear) in enumerate([(0.11, 0.031), (0.42, 0.017), (0.27, 0.055)]):
        write_run(tmp_path / str(number), augment={"noise_std": noise, "shear": shear}, lr=10.0**-number)
    assert extra(results(tmp_path)) == ["augment.noise_std", "augment.shear"]


def test_long_paths_are_shortened_to_the_part_that_differs(tmp_path: Path) -> None:
    for name in ("ct/one.nii.gz", "mr/one.nii.gz"):
        data = {"kind": "nifti", "image": f"/data/hospital/{name}", "label": f"/data/hospital/label/{name}"}
        write_run(tmp_path / name[:2], data=data)
    study = results(tmp_path)
    assert extra(study) == ["data.image"]
    assert {arm.settings["data.image"] for arm in study.arms} == {"ct/one.nii.gz", "mr/one.nii.gz"}


def test_the_configuration_is_read_as_standard_yaml(tmp_path: Path) -> None:
    text = """# comment
lr: 1e-4
quoted: "1: 2"
tags:
- a
- b: 1
long: one
  two
anchor: &width
  deep: {x: 1, y: null, z: true}
copy: *width
empty: {}
number: '32'
"""
    (tmp_path / "config.yaml").write_text(text)
    assert yaml.safe_load(text)["copy"] == {"deep": {"x": 1, "y": None, "z": True}}
    assert read_settings(tmp_path / "config.yaml") == {
        "lr": 1e-4,  # a string in PyYAML, as it has no dot; a number in Hydra
        "quoted": "1: 2",
        "tags": "['a', {'b': 1}]",
        "long": "one two",
        "anchor.deep.x": 1,
        "anchor.deep.y": None,
        "anchor.deep.z": True,
        "copy.deep.x": 1,
        "copy.deep.y": None,
        "copy.deep.z": True,
        "empty": "{}",
        "number": "32",
    }


@pytest.mark.parametrize(
    "setting",
    ["loader__num_workers", "trainer__strategy", "trainer__progress", "logger__mode", "cache_dir", "debug", "study"],
)
def test_settings_that_cannot_change_the_result_do_not_make_an_arm(tmp_path: Path, setting: str) -> None:
    for seed, value in enumerate(("one", "other")):
        write_run(tmp_path / value, 0.5, seed=seed, **{setting: value})
    (arm,) = results(tmp_path).arms
    assert arm.n_runs == 2


@pytest.mark.parametrize("setting", ["data__image", "data__root", "split__splits_file", "trainer__devices"])
def test_different_files_or_numbers_of_processes_make_different_arms(tmp_path: Path, setting: str) -> None:
    """The content of the files is not recorded, so different names may mean different data."""
    for seed, value in enumerate(("one", "other")):
        write_run(tmp_path / value, 0.5, seed=seed, **{setting: value})
    assert len(results(tmp_path).arms) == 2
