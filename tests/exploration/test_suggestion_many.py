"""Settings suggested for many cases: the command trains on all explored cases, whatever their layout."""

import csv
import json
import re
import shlex
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from spleen.config.checking.checks import check
from spleen.config.datasets import complete, find_dataset
from spleen.config.schema import TrainConfig
from spleen.exploration.explore import Exploration, explore
from spleen.exploration.report.files import to_csv
from spleen.exploration.report.page import to_page
from tests._helpers.many_cases import ManyCases, many_cases, relabel
from tests._helpers.nifti import ras_affine, save
from tests._helpers.small_run import compose_config


@pytest.fixture
def data(tmp_path: Path) -> ManyCases:
    return many_cases(tmp_path / "data set", 6)


def explored(data: ManyCases, images: str = "*") -> Exploration:
    labels = data.root / "labelsTr"
    return explore(data.root / "imagesTr" / f"{images}.nii.gz", labels / f"{images}.nii.gz")


def config_of(exploration: Exploration) -> TrainConfig:
    """The configuration that results from pasting the suggested command."""
    assert exploration.suggestion is not None
    config = compose_config(*shlex.split(exploration.suggestion.command)[2:])
    check(config)
    return config


def test_a_dataset_with_dataset_json_is_trained_on_all_cases_with_its_classes(data: ManyCases) -> None:
    exploration = explored(data)
    config = config_of(exploration)
    assert (config.data.kind, exploration.suggestion.n_cases) == ("decathlon", 6)
    assert [case.case_id for case in find_dataset(config).cases] == ["c0", "c1", "c2", "c3", "c4", "c5"]
    assert complete(config, find_dataset(config)).data.label_values == {"front": [1], "back": [2]}
    assert "for all 6 cases, judged on the most typical, " in str(exploration)


def test_tables_findings_and_pages_use_the_label_names_of_the_dataset(data: ManyCases) -> None:
    relabel(data, "c1", lambda label: np.where(np.arange(24)[:, None, None] == 0, 2, label))
    assert "label 1 (front) volume" in str(explored(data))
    (case,) = explored(data, "c1").cases
    assert any(finding.message.startswith("label 2 (back) reaches") for finding in case.findings)
    one = explored(data, "c0")
    assert re.search(r"label +voxels.*\n[─━ ]+\n *1 front ", str(one))
    assert config_of(one).data.label_values == {"front": 1, "back": 2}
    assert "</i>label 2 (back)</span>" in to_page(one)
    (row,) = csv.DictReader(to_csv(one).splitlines())
    assert (row["label_1_name"], row["label_2_name"]) == ("front", "back")


def test_a_label_name_that_needs_quoting_in_an_override_is_replaced(tmp_path: Path) -> None:
    data = many_cases(tmp_path, 1, names=("left lung", "liver"))
    one = explored(data)
    assert "label 1 (left lung)" in to_page(one)
    assert config_of(one).data.label_values == {"label_1": 1, "label_2": 2}


def scale_images(data: ManyCases, factor: float) -> None:
    for case_id in data.labels:
        image = nib.load(data.image(case_id))
        save(data.image(case_id), (image.get_fdata() * factor).astype(np.float32), image.affine)


def set_modality(data: ManyCases, modality: str) -> None:
    content = json.loads((data.root / "dataset.json").read_text())
    (data.root / "dataset.json").write_text(json.dumps({**content, "modality": {"0": modality}}))


def test_mr_in_dataset_json_is_trusted_if_the_values_are_inconclusive(data: ManyCases) -> None:
    scale_images(data, 0.1)  # about −6 to 18: looks like neither CT nor MR
    assert config_of(explored(data)).intensity.kind == "zscore"
    set_modality(data, "MRI")
    exploration = explored(data)
    assert config_of(exploration).intensity.kind == "mr"
    assert "MR, as dataset.json says" in str(exploration)


def test_ct_in_dataset_json_is_not_trusted_if_the_values_are_not_hu(data: ManyCases) -> None:
    assert "CT, as dataset.json says" in str(explored(data))
    scale_images(data, 0.1)
    exploration = explored(data)
    assert "modality unknown, though dataset.json says CT: " in re.sub(r"\s+", " ", str(exploration))


def test_an_unsupported_modality_in_dataset_json_is_not_cited(data: ManyCases) -> None:
    set_modality(data, "PET")
    assert "dataset.json says" not in str(explored(data))


def test_an_nnunet_dataset_is_recognised(data: ManyCases) -> None:
    for path in list((data.root / "imagesTr").iterdir()):
        path.rename(path.with_name(path.name.replace(".nii", "_0000.nii")))
    content = {"channel_names": {"0": "CT"}, "labels": {"background": 0, "front": 1, "back": 2}, "numTraining": 6}
    (data.root / "dataset.json").write_text(json.dumps({**content, "file_ending": ".nii.gz"}))
    exploration = explore(data.root / "imagesTr", data.root / "labelsTr")
    config = config_of(exploration)
    assert (config.data.kind, len(find_dataset(config).cases)) == ("nnunet", 6)


def test_two_folders_without_dataset_json_are_paired(data: ManyCases) -> None:
    (data.root / "dataset.json").unlink()
    config = config_of(explored(data))
    assert (config.data.kind, len(find_dataset(config).cases)) == ("folder", 6)
    assert complete(config, find_dataset(config)).data.label_values == {"label_1": 1, "label_2": 2}


def test_for_part_of_a_folder_the_command_trains_on_the_most_typical_case(data: ManyCases) -> None:
    exploration = explored(data, "c[0-4]")
    config = config_of(exploration)
    assert (config.data.kind, exploration.suggestion.n_cases) == ("nifti", 1)
    assert f"for the most typical case, {exploration.suggestion.case_id}" in str(exploration)


def test_a_case_with_an_error_is_skipped_and_reported(data: ManyCases) -> None:
    data.image("c2").write_bytes(b"no image")
    exploration = explored(data)
    config = config_of(exploration)
    assert config.data.skip_bad
    assert exploration.suggestion.n_cases == 5
    assert "1 of 6 cases have errors" in str(exploration)


@pytest.mark.parametrize(("spacing_mm", "img_size"), [((1, 1, 1), "native"), ((1.2, 1, 1), 20)])
def test_small_volumes_keep_their_native_grid_only_if_all_spacings_agree(
    tmp_path: Path, spacing_mm: tuple[float, float, float], img_size: str | int
) -> None:
    for name in ("images", "labels"):
        (tmp_path / name).mkdir()
    for number in range(3):
        shape = (20 + number, 24, 18)
        label = np.zeros(shape, np.uint8)
        label[5:12, 6:14, 4:11] = 1
        noise = np.random.default_rng(number).gamma(3, 100, shape)
        # Only the last case has the spacing under test.
        affine = ras_affine(spacing_mm if number == 2 else (1, 1, 1))
        save(tmp_path / "images" / f"{number}.nii", noise.astype(np.float32), affine)
        save(tmp_path / "labels" / f"{number}.nii", label, affine)
    config = config_of(explore(tmp_path / "images", tmp_path / "labels"))
    assert (config.data.kind, config.img_size) == ("folder", img_size)
