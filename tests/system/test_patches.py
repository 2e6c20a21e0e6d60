"""A 3D network from files to scores, masks, ensembles and exports."""

from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch

import spleen
import spleen.training.module
from spleen.errors import InputError
from spleen.inference.export import export
from spleen.inference.loading import load_trained
from spleen.inference.predict import predict
from spleen.inference.settings import PredictSettings
from tests._helpers.many_cases import SHAPE, ManyCases, many_cases
from tests._helpers.small_run import rows, train
from tests._helpers.trained_runs import voxels
from tests.system.test_resume import Killed, assert_same, kill_at_call

COMMON = (
    "axis=axial",
    "img_size=native",
    "epochs=6",
    "lr=2e-2",
    "augment=none",
    "split.folds=3",
    "fold=0",
    "loss.ce_weight=1",
)
IN_3D = (
    *COMMON, "model=unet3d", "model.network.filters=[4,8]", "model.network.kernel_size=[[1,3,3],[3,3,3]]",
    "model.network.strides=[1,[1,2,2]]", "crop_size=[4,12,16]", "batch_size=2", "loader.slices_per_epoch=32",
)  # fmt: skip
IN_2D = (*COMMON, "model.network.width=4", "batch_size=4")


@pytest.fixture(scope="module")
def cases(tmp_path_factory: pytest.TempPathFactory) -> ManyCases:
    return many_cases(tmp_path_factory.mktemp("cases"), 9)


@pytest.fixture(scope="module")
def run(cases: ManyCases, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train(tmp_path_factory.mktemp("run"), *cases.decathlon, *IN_3D)


@pytest.mark.slow
def test_the_masks_have_the_scores_of_the_run_and_both_classes_are_found(
    cases: ManyCases, run: Path, tmp_path: Path
) -> None:
    scores = [row for row in rows(run / "cases.csv") if row["split"] == "test"]
    test_cases = sorted({row["case_id"] for row in scores})
    assert len(test_cases) == 3
    predict([run], [cases.image(case) for case in test_cases], tmp_path, PredictSettings(device="cpu"))
    for row in scores:
        value = {"front": 1, "back": 2}[row["class_name"]]
        found = voxels(tmp_path / f"{row['case_id']}.nii.gz") == value
        expected = cases.labels[row["case_id"]] == value
        dice = 2 * (found & expected).sum() / (found.sum() + expected.sum())
        assert float(row["dice"]) == pytest.approx(dice, abs=1e-4)
        assert dice > 0.8, row


@pytest.mark.slow
def test_a_2d_and_a_3d_run_are_averaged_voxel_by_voxel(cases: ManyCases, run: Path, tmp_path: Path) -> None:
    flat = train(tmp_path, *cases.decathlon, *IN_2D)
    image, affine = cases_image(cases, "c4")
    alone = [spleen.load_model(path).predict(image, affine).probabilities for path in (run, flat)]
    both = spleen.load_model([run, flat]).predict(image, affine, weights=[3, 1]).probabilities
    np.testing.assert_allclose(both, 0.75 * alone[0] + 0.25 * alone[1], atol=1e-3)
    assert np.abs(alone[0] - alone[1]).max() > 0.01


def cases_image(cases: ManyCases, case_id: str) -> tuple[np.ndarray, np.ndarray]:
    import nibabel

    file = nibabel.load(cases.image(case_id))
    return np.asarray(file.dataobj), file.affine


@pytest.mark.slow
def test_the_exported_graph_of_a_patch_gives_the_networks_probabilities(run: Path, tmp_path: Path) -> None:
    report = export(run, tmp_path / "model.onnx")
    assert report.shapes == ((1, 1, 4, 12, 16), (2, 1, 4, 12, 16))
    session = onnxruntime.InferenceSession(report.path, providers=["CPUExecutionProvider"])
    assert session.get_inputs()[0].name == "patches"
    patches = torch.randn(3, 1, 4, 12, 16, generator=torch.Generator().manual_seed(0))
    (found,) = session.run(None, {"patches": patches.numpy()})
    with torch.no_grad():
        expected = load_trained(run).network(patches).softmax(1)
    np.testing.assert_allclose(found, expected, atol=1e-4)


@pytest.mark.slow
def test_overlapping_classes_of_patches_are_exported_each_with_its_own_probability(
    cases: ManyCases, tmp_path: Path
) -> None:
    """A class is a softmax of its own logit and the background's, and the background what the largest one leaves."""
    overlap = "data.label_values={whole:[1,2],back:[2]}", "data.regions_class_order=[1,2]"
    run = train(tmp_path, *cases.folder, *IN_3D, *overlap, "epochs=1")
    session = onnxruntime.InferenceSession(export(run, tmp_path / "model.onnx").path)
    patches = torch.randn(2, 1, 4, 12, 16, generator=torch.Generator().manual_seed(0))
    (found,) = session.run(None, {"patches": patches.numpy()})
    with torch.no_grad():
        background, *classes = load_trained(run).network(patches).unbind(1)
    expected = [torch.stack([background, logit]).softmax(0)[1] for logit in classes]
    np.testing.assert_allclose(found[:, 1:], torch.stack(expected, 1), atol=1e-4)
    np.testing.assert_allclose(found[:, 0], 1 - found[:, 1:].max(axis=1), atol=1e-6)


@pytest.mark.slow
def test_a_killed_3d_run_ends_like_an_uninterrupted_one(
    cases: ManyCases, run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        kill_at_call(patch, spleen.training.module, "augment_patches", 40)  # in the third epoch
        with pytest.raises(Killed):
            train(tmp_path, *cases.decathlon, *IN_3D)
    assert_same(train(tmp_path, *cases.decathlon, *IN_3D), run)


@pytest.mark.slow
@pytest.mark.slow
def test_test_volumes_that_processes_cannot_share_are_told_before_the_training(
    cases: ManyCases, tmp_path: Path
) -> None:
    """Of 9 cases 3 are tested and 2 validated."""
    two = "trainer=ddp", "trainer.devices=2", "trainer.accelerator=cpu", "split.val_fraction=0.34"
    with pytest.raises(InputError, match="3 of them cannot be divided equally among 2 processes"):
        train(tmp_path, *cases.decathlon, *IN_3D, *two)
    assert not list(tmp_path.rglob("*.ckpt"))


def test_a_volume_smaller_than_a_patch_can_be_predicted(run: Path) -> None:
    image = np.random.default_rng(0).normal(40, 10, (10, 9, 3)).astype(np.float32)
    prediction = spleen.load_model(run).predict(image, np.diag([1.5, 1.25, 3.0, 1.0]))
    assert prediction.probabilities is not None
    assert prediction.mask.shape == image.shape != SHAPE


def test_steps_on_the_device_are_refused(cases: ManyCases, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"loader\.on_device=true serves slices, not the patches of a 3D network"):
        train(tmp_path, *cases.decathlon, *IN_3D, "loader.on_device=true")
