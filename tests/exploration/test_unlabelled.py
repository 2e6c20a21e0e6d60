"""A label of which a part is unknown, explored: what nobody has labelled is hatched and is no organ."""

import json
from pathlib import Path

import numpy as np
import pytest

from spleen.errors import InputError
from spleen.exploration.explore import Exploration, explore
from spleen.exploration.report.figure import exploration_figure
from spleen.exploration.report.page import to_page
from spleen.exploration.report.views import middle_slices
from tests._helpers.nifti import ras_affine, save

SHAPE, AFFINE = (24, 20, 12), ras_affine((2.0, 2.0, 5.0))
UNKNOWN = 255


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path]:
    """An image, and its label in labelsTr: 6 × 5 × 4 voxels of the organ (1); slices from 8 on are unknown."""
    image, label = np.random.default_rng(3).normal(40, 10, SHAPE).astype(np.int16), np.zeros(SHAPE, np.uint8)
    label[6:12, 5:10, 3:7] = 1
    label[:, :, 8:] = UNKNOWN
    for name in ("imagesTr", "labelsTr"):
        (tmp_path / name).mkdir()
    return (
        save(tmp_path / "imagesTr" / "a_0000.nii.gz", image, AFFINE),
        save(tmp_path / "labelsTr" / "a.nii.gz", label, AFFINE),
    )


def legend(exploration: Exploration) -> list[str]:
    return [text.get_text() for each in exploration_figure(exploration).legends for text in each.get_texts()]


def test_what_nobody_has_labelled_is_hatched_on_page_and_picture(files: tuple[Path, Path]) -> None:
    exploration = explore(*files, ignore_value=UNKNOWN)
    sagittal, _, axial = middle_slices(exploration.cases[0], ())
    assert sagittal.unlabelled is not None
    assert sagittal.unlabelled[8:].all()  # rows are axial slices
    assert not sagittal.unlabelled[:8].any()
    assert axial.unlabelled is None or not axial.unlabelled.any()
    page = to_page(exploration)
    assert page.count('fill="url(#unlabelled-') == 2  # not on the axial slice
    assert "not labelled</span>" in page
    assert legend(exploration) == ["label 1", "not labelled"]


def test_where_all_is_labelled_nothing_is_said_of_it(files: tuple[Path, Path]) -> None:
    label = np.zeros(SHAPE, np.uint8)
    label[6:12, 5:10, 3:7] = 1
    save(files[1], label, AFFINE)
    exploration = explore(*files, ignore_value=UNKNOWN)
    assert "not labelled" not in to_page(exploration)
    assert legend(exploration) == ["label 1"]


# nnU-Net's ignore label ---------------------------------------------------------------------------------------------


def write_dataset(files: tuple[Path, Path], **labels: object) -> None:
    content = {"channel_names": {"0": "CT"}, "labels": {"background": 0, "spleen": 1, **labels}}
    (files[1].parent.parent / "dataset.json").write_text(json.dumps(content))


def test_the_ignore_label_of_the_dataset_is_no_organ(files: tuple[Path, Path]) -> None:
    write_dataset(files, ignore=UNKNOWN)
    exploration = explore(*files)
    (case,) = exploration.cases
    assert case.labels is not None
    assert [(value.value, value.name, value.n_voxels) for value in case.labels.values] == [(1, "spleen", 6 * 5 * 4)]
    assert case.labels.organ_voxels == 6 * 5 * 4
    assert "unknown label value" not in [finding.topic for finding in case.findings]
    (note,) = [finding.message for finding in case.findings if finding.topic == "partly labelled"]
    assert note.startswith("66.7 % of the voxels are not 255")
    assert exploration.suggestion is not None
    (setting,) = [each for each in exploration.suggestion.settings if "ignore_value" in (each.override or "")]
    assert (setting.override, setting.reason) == ("data.ignore_value=255", "the ignore label of dataset.json")


def test_an_explicit_value_or_organ_takes_precedence_over_the_dataset(files: tuple[Path, Path]) -> None:
    write_dataset(files, ignore=7)
    assert explore(*files, ignore_value=UNKNOWN).cases[0].ignore_value == UNKNOWN
    write_dataset(files, ignore=UNKNOWN)
    (case,) = explore(*files, organ=(1, UNKNOWN)).cases
    assert case.labels is not None
    assert case.labels.organ_voxels == 6 * 5 * 4 + 24 * 20 * 4


def test_an_unclear_ignore_label_is_an_error(files: tuple[Path, Path]) -> None:
    write_dataset(files, ignore=[7, 8])
    with pytest.raises(InputError, match=r'"ignore" must be one value .*--ignore-value'):
        explore(*files)
    assert explore(*files, ignore_value=UNKNOWN).cases[0].ignore_value == UNKNOWN


def test_a_dataset_without_an_ignore_label_makes_the_value_an_error(files: tuple[Path, Path]) -> None:
    write_dataset(files)
    (case,) = explore(*files).cases
    assert "unknown label value" in [finding.topic for finding in case.findings]


def test_a_gap_is_counted_in_labelled_slices(tmp_path: Path) -> None:
    """The organ is drawn on 12 axial slices, every fourth, so none lies within the gap of 5 mm of another one.

    12 such slices in a row would be too few for gaps of two slices on either side of the blocks.
    """
    shape, affine = (40, 40, 50), ras_affine((1.0, 1.0, 2.0))
    label = np.full(shape, UNKNOWN, np.uint8)
    label[:, :, 2:50:4] = 0
    label[8:32, 8:32, 2:50:4] = 1
    image = np.random.default_rng(3).normal(40, 10, shape).astype(np.int16)
    paths = save(tmp_path / "image.nii.gz", image, affine), save(tmp_path / "label.nii.gz", label, affine)
    suggestion = explore(*paths, ignore_value=UNKNOWN).suggestion
    assert suggestion is not None
    assert "axis=axial" in suggestion.overrides
    assert "split.guard_mm=0" not in suggestion.overrides
