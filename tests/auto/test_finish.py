"""What follows the final trainings of a search: what is calibrated on and scored, whatever the files are called."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from spleen.auto.finish import HeldOut, calibrate_on, held_out_cases, score_test
from spleen.auto.look import look
from spleen.config.schema import TrainConfig
from spleen.data.cases import Case
from spleen.records.cases import read_cases
from tests._helpers.many_cases import SHAPE, many_cases, quick, quick_config, relabel
from tests._helpers.nifti import ras_affine, save
from tests._helpers.small_run import compose_config

LEARNS = ("epochs=3", "loader.slices_per_epoch=48", "model.network.width=4", "lr=3e-2", "precision=32")


class Trained:
    """A run that has learnt to find "front", of labels in which "back" is unknown."""

    def __init__(self, folder: Path) -> None:
        data = many_cases(folder / "data", 8)
        settings = (*data.decathlon, *LEARNS, "data.label_values={front:[1]}", "split.test_fraction=0.4")
        self.run = quick(folder, *settings, "data.ignore_value=2")
        self.config: TrainConfig = quick_config(folder, *settings)
        self.cases: HeldOut = held_out_cases(self.config, self.run)
        self.dice = {row.case_id: row.dice for row in read_cases(self.run) if row.split == "test"}


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    return Trained(tmp_path_factory.mktemp("trained"))


def test_cases_are_scored_under_their_own_names_without_unknown_voxels(trained: Trained, tmp_path: Path) -> None:
    """As the run itself scored them, though all files are called alike and the search was not told what is unknown."""
    cases = []
    for case in trained.cases.test:
        (tmp_path / case.case_id).mkdir()
        image = Path(shutil.copy(case.images[0], tmp_path / case.case_id / "ct.nii.gz"))
        cases.append(replace(case, images=(image,), label=Path(shutil.copy(case.label, image.with_name("seg.nii.gz")))))
    tested = score_test(trained.config, cases, {trained.run: 1.0}, {}, tmp_path / "masks")
    assert tested.failures == ()
    assert {score.case_id: score.dice for score in tested.scores} == pytest.approx(trained.dice, abs=1e-3)
    assert len(trained.dice) >= 2
    assert max(trained.dice.values()) > 0.5


def test_cases_that_cannot_be_predicted_are_told(trained: Trained, tmp_path: Path) -> None:
    damaged, *others = trained.cases.test
    (tmp_path / "damaged.nii.gz").write_bytes(b"no image")
    cases = [replace(damaged, images=(tmp_path / "damaged.nii.gz",)), *others]
    tested = score_test(trained.config, cases, {trained.run: 1.0}, {}, tmp_path / "masks")
    assert {score.case_id for score in tested.scores} == {case.case_id for case in others}
    (failure,) = tested.failures
    assert failure.startswith(f"{damaged.case_id}: ")


def test_an_image_is_never_calibrated_against_itself(trained: Trained, tmp_path: Path) -> None:
    """Image and label lie in one folder under different names."""
    cases = []
    for number in range(20):
        image = save(tmp_path / f"p{number}.nii.gz", np.ones(SHAPE, np.int16), ras_affine())
        cases.append(Case(f"p{number}", (image,), Path(shutil.copy(image, tmp_path / f"p{number}_seg.nii.gz"))))
    calibrated = calibrate_on(cases, {trained.run: 1.0})
    assert calibrated.note.startswith("not calibrated: images and labels do not have the same names")
    assert calibrated.masks == {}


def test_the_ignore_label_of_a_dataset_is_no_organ(tmp_path: Path) -> None:
    data = many_cases(tmp_path / "Dataset007", 3)
    for case in data.labels:
        data.image(case).rename(data.root / "imagesTr" / f"{case}_0000.nii.gz")
        relabel(data, case, lambda label: np.where(label == 1, 1, 2).astype(np.uint8))
    content = {"channel_names": {"0": "CT"}, "labels": {"background": 0, "front": 1, "ignore": 2}, "numTraining": 3}
    (data.root / "dataset.json").write_text(json.dumps({**content, "file_ending": ".nii.gz"}))
    arguments, given = ("data=nnunet", f"data.root={data.root}"), {"data", "data.root"}
    told = look(compose_config(*arguments, "data.ignore_value=2"), given, 60)
    assert look(compose_config(*arguments), given, 60) == told
