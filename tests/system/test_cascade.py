"""Runs that see the box which a coarse run finds: real trainings of seconds each."""

import json
import logging
import shutil
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

import spleen
import spleen.training.checkpoints
from spleen.config.cascade import keep_coarse, open_coarse
from spleen.config.datasets import find_dataset
from spleen.config.identity import identity
from spleen.errors import InputError
from spleen.inference.export import export
from spleen.inference.loading import load_trained
from spleen.inference.predict import predict
from spleen.inference.settings import PredictSettings
from spleen.system.hashing import file_sha256
from spleen.training.checkpoints import WholeCheckpoints
from tests._helpers.dicom import write
from tests._helpers.many_cases import SHAPE, VOXEL_MM3, ManyCases, many_cases, quick, quick_config
from tests._helpers.small_run import rows, small_ct, summary, train
from tests._helpers.trained_runs import TWO_CLASSES, voxels

pytestmark = pytest.mark.slow  # several trainings each

LEARNS = ("epochs=3", "loader.slices_per_epoch=48", "model.network.width=4", "lr=3e-2", "precision=32")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> ManyCases:
    return many_cases(tmp_path_factory.mktemp("data"), 8)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("runs")


@pytest.fixture(scope="module")
def coarse(data: ManyCases, folder: Path) -> Path:
    return quick(folder, *data.decathlon, *LEARNS, "axis=coronal", name="coarse")


@pytest.fixture(scope="module")
def fine(data: ManyCases, folder: Path, coarse: Path) -> Path:
    settings = f"roi_from={coarse}", "roi_margin_mm=3", "axis=coronal"
    return quick(folder, *data.decathlon, *LEARNS, *settings, name="fine")


def boxes(run: Path) -> dict[str, dict]:
    content: dict[str, dict] = json.loads((run / "roi.json").read_text())["cases"]
    return content


def organ_box(data: ManyCases, case_id: str) -> tuple[list[int], list[int]]:
    """The first and the last voxel of the reference along each axis, plus 1."""
    found = np.argwhere(data.labels[case_id])
    return found.min(axis=0).tolist(), (found.max(axis=0) + 1).tolist()


def test_a_cascade_is_trained_and_predicts_masks_on_the_whole_grid(
    data: ManyCases, coarse: Path, fine: Path, tmp_path: Path
) -> None:
    """The margin of 3 mm is 2 voxels of 1.5 mm, 3 of 1.25 mm, and 1 of 3 mm."""
    found = boxes(fine)
    assert list(found) == list(data.labels)
    for case_id, box in found.items():
        (low, high), margin = organ_box(data, case_id), (2, 3, 1)
        expected = [max(0, start - more) for start, more in zip(low, margin, strict=True)]
        # The coarse run draws the organ almost as the reference does.
        assert np.abs(np.subtract(box["start"], expected)).max() <= 1
        ends = [min(end, stop + more) for stop, more, end in zip(high, margin, SHAPE, strict=True)]
        assert np.abs(np.subtract(box["stop"], ends)).max() <= 1
        assert tuple(box["shape"]) == SHAPE
    assert summary(fine)["test"]["dice"] > 0.7
    report = predict(fine, data.image("c3"), tmp_path / "c3.nii.gz")
    assert not report.failures
    mask, (start, stop) = voxels(tmp_path / "c3.nii.gz"), (found["c3"]["start"], found["c3"]["stop"])
    assert mask.shape == SHAPE
    beyond = np.ones(SHAPE, bool)
    beyond[tuple(map(slice, start, stop))] = False
    assert not mask[beyond].any()
    reference = data.labels["c3"] > 0
    assert 2 * np.sum((mask > 0) & reference) / (np.sum(mask > 0) + reference.sum()) > 0.8


def test_scores_of_the_training_are_those_of_the_predicted_masks(data: ManyCases, fine: Path, tmp_path: Path) -> None:
    """cases.csv was scored with what the box leaves out; the masks of `predict` are compared with whole references."""
    images = [data.image(case_id) for case_id in {row["case_id"] for row in rows(fine / "cases.csv")}]
    predict(fine, images, tmp_path / "masks", PredictSettings(precision="32"))
    scored = rows(fine / "cases.csv")
    assert {row["split"] for row in scored} == {"val", "test"}
    for row in scored:
        index = {"front": 1, "back": 2}[row["class_name"]]
        mask = voxels(tmp_path / "masks" / f"{row['case_id']}.nii.gz") == index
        reference = data.labels[row["case_id"]] == index
        dice = 2 * np.sum(mask & reference) / (mask.sum() + reference.sum())
        assert float(row["dice"]) == pytest.approx(dice, abs=1e-6)
        assert float(row["volume_reference_mm3"]) == pytest.approx(reference.sum() * VOXEL_MM3)
        assert float(row["specificity"]) == pytest.approx(np.sum(~mask & ~reference) / np.sum(~reference), abs=1e-6)


def test_a_box_that_cuts_the_reference_costs_dice_and_is_told(
    data: ManyCases, folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A coarse run of the class "front" alone, without margin: the other half of the organ is beyond the box."""
    one_class = "data.label_values={front:[1]}", "data.background_values=[2]"
    front = quick(folder, *data.decathlon, *LEARNS, "axis=coronal", *one_class, name="front")
    with caplog.at_level(logging.WARNING):
        run = quick(tmp_path, *data.decathlon, *LEARNS, "axis=coronal", f"roi_from={front}", "roi_margin_mm=0")
    assert "the box cuts the reference of 8 of 8 cases" in caplog.text
    assert all(box["outside_fraction"] > 0.3 for box in boxes(run).values())
    for row in rows(run / "cases.csv"):
        box, index = boxes(run)[row["case_id"]], {"front": 1, "back": 2}[row["class_name"]]
        reference = data.labels[row["case_id"]] == index
        missed = reference.sum() - reference[tuple(map(slice, box["start"], box["stop"]))].sum()
        assert float(row["volume_outside_box_mm3"]) == pytest.approx(missed * VOXEL_MM3)
        assert float(row["sensitivity"]) <= 1 - missed / reference.sum() + 1e-9
    counted = sum(int(row["reference_voxels"]) for row in rows(run / "slices.csv"))
    assert counted == sum(
        data.labels[case].astype(bool).sum() for case in {r["case_id"] for r in rows(run / "cases.csv")}
    )


def test_the_run_folder_needs_no_other_one_but_the_checkpoint_its_coarse_network(
    data: ManyCases, coarse: Path, fine: Path, tmp_path: Path
) -> None:
    moved = shutil.copytree(fine, tmp_path / "moved")
    trained = load_trained(moved)
    assert trained.coarse is not None
    roi = trained.spec.roi
    assert roi is not None
    assert (roi.margin_mm, roi.classes) == (3.0, ())
    assert roi.checkpoint_sha256 == file_sha256(coarse / "checkpoints" / "best.ckpt")
    image = nib.load(data.image("c2"))
    first, second = (spleen.load_model(run).predict(image).mask for run in (fine, moved))
    np.testing.assert_array_equal(first, second)
    alone = tmp_path / "alone.ckpt"
    shutil.copy(moved / "checkpoints" / "best.ckpt", alone)
    with pytest.raises(
        InputError, match=r"the second network of a cascade, and the first one, roi\.ckpt, is not beside"
    ):
        load_trained(alone)
    shutil.copy(alone, tmp_path / "roi.ckpt")
    with pytest.raises(InputError, match=r"roi\.ckpt is not the first network of the cascade"):
        load_trained(alone)


def test_an_exported_cascade_says_what_its_input_is(
    fine: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    report = export(fine, tmp_path / "net.pt", "torchscript")
    metadata = json.loads(report.metadata_path.read_text())
    assert (metadata["spec_version"], metadata["roi"]["margin_mm"], metadata["roi"]["classes"]) == (2, 3.0, [])
    assert "fine is the second network of a cascade: the file expects the box around the organ" in caplog.text


def test_a_cascade_is_averaged_with_a_run_of_the_whole_volume(
    data: ManyCases, coarse: Path, fine: Path, tmp_path: Path
) -> None:
    settings = PredictSettings(probabilities=True, precision="32")
    for name, runs in (("one", [coarse]), ("two", [fine]), ("both", [coarse, fine])):
        predict(runs, data.image("c5"), tmp_path / f"{name}.nii.gz", settings)
    one, two, both = (voxels(tmp_path / f"{name}_probabilities.nii.gz") for name in ("one", "two", "both"))
    np.testing.assert_allclose(both, (one + two) / 2, atol=2e-3)


class Killed(BaseException):
    """Stands for a kill of the process."""


def test_a_stopped_cascade_resumes_without_the_coarse_run(
    data: ManyCases, coarse: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = shutil.copytree(coarse, tmp_path / "coarse")
    settings = *data.decathlon, "epochs=2", f"roi_from={source}", "axis=coronal"
    expected = quick(tmp_path, *settings, name="expected")

    save, calls = WholeCheckpoints.save_checkpoint, 0

    def stop(self: WholeCheckpoints, *arguments: object, **named: object) -> None:
        nonlocal calls
        calls += 1
        if calls == 2:
            raise Killed
        save(self, *arguments, **named)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr(spleen.training.checkpoints.WholeCheckpoints, "save_checkpoint", stop)
        with pytest.raises(Killed):
            quick(tmp_path, *settings, name="stopped")
    shutil.rmtree(source)
    found = quick(tmp_path, *settings, name="stopped")
    assert summary(found)["resumed"]
    assert (found / "metrics.csv").read_text() == (expected / "metrics.csv").read_text()
    assert (found / "roi.json").read_text() == (expected / "roi.json").read_text()


def test_images_of_the_coarse_run_count_as_seen_and_are_no_test_images(
    data: ManyCases, coarse: Path, fine: Path, tmp_path: Path
) -> None:
    assert set(load_trained(coarse).spec.seen_images) <= set(load_trained(fine).spec.seen_images)
    settings = *data.decathlon, f"roi_from={coarse}", "split.seed=1"
    with pytest.raises(InputError, match=r"roi_from: \d of \d test images were train or val images of .*same fold"):
        quick(tmp_path, *settings)
    quick(tmp_path, *settings, "allow_seen_test=true", name="allowed")


def test_wrong_coarse_runs_are_refused_before_anything_is_written(
    data: ManyCases, coarse: Path, fine: Path, tmp_path: Path
) -> None:
    two = many_cases(tmp_path / "two", 6, channels=2)
    wrong = {
        (*data.decathlon, f"roi_from={tmp_path}/none"): "roi_from=.*none: no such run folder",
        (*data.decathlon, f"roi_from={data.root}"): "it is not a run with a checkpoints/best.ckpt",
        (*data.decathlon, f"roi_from={fine}"): "this run is the second network of a cascade itself",
        (*two.decathlon, f"roi_from={coarse}"): r"trained on 1 channel\(s\), and the images have 2",
        (*data.decathlon, f"roi_from={coarse}", "roi_classes=[tail]"): "no class 'tail'; it has front, back",
        (*data.decathlon, f"roi_from={coarse}", "roi_margin_mm=-1"): "roi_margin_mm must be from 0 to 1000 mm; got -1",
        (*data.decathlon, f"roi_from={coarse}", "roi_classes=front"): "roi_classes must be a list of classes",
        (*data.decathlon, "roi_classes=[front]"): "set roi_from=RUN",
    }
    for settings, message in wrong.items():
        with pytest.raises(InputError, match=message):
            quick(tmp_path, *settings)
    assert not list((tmp_path / "outputs").rglob("config.yaml"))


def test_both_networks_may_be_of_ones_own_class(
    data: ManyCases, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "my_nets.py").write_text("import spleen.models.unet\n\nclass Net(spleen.models.unet.UNet): pass\n")
    monkeypatch.syspath_prepend(tmp_path)
    own = *data.decathlon, "model.network._target_=my_nets.Net"
    coarse = quick(tmp_path, *own, "model.network.width=4", name="coarse")
    cascade = quick(tmp_path, *own, "model.network.width=8", f"roi_from={coarse}", name="fine")
    assert load_trained(cascade, allow_custom_code=True).coarse is not None
    with pytest.raises(
        InputError, match=r"its network is 'my_nets\.Net'.*model\.network is the same but for its numbers"
    ):
        quick(tmp_path, *data.decathlon, f"roi_from={coarse}", name="refused")


def test_a_run_is_not_its_own_coarse_run(data: ManyCases, tmp_path: Path) -> None:
    run = quick(tmp_path, *data.decathlon)
    before = file_sha256(run / "checkpoints" / "best.ckpt")
    with pytest.raises(InputError, match="is the folder of this run, whose results it would replace"):
        quick(tmp_path, *data.decathlon, f"roi_from={run}")
    assert file_sha256(run / "checkpoints" / "best.ckpt") == before


def test_a_coarse_run_that_is_still_training_is_refused(
    data: ManyCases, coarse: Path, fine: Path, tmp_path: Path
) -> None:
    """Its checkpoint is replaced between reading and keeping it."""
    running = shutil.copytree(coarse, tmp_path / "running")
    opened = open_coarse(quick_config(tmp_path, *data.decathlon, f"roi_from={running}"), tmp_path / "run", False)
    assert opened is not None
    shutil.copy(fine / "checkpoints" / "best.ckpt", running / "checkpoints" / "best.ckpt")
    with pytest.raises(InputError, match="has just been replaced; start again once that run has finished"):
        keep_coarse(opened, tmp_path / "run")
    assert list((tmp_path / "run" / "checkpoints").iterdir()) == []


def test_each_fold_takes_the_coarse_run_of_its_fold(data: ManyCases, tmp_path: Path) -> None:
    for fold in range(2):
        quick(tmp_path / "coarse", *data.decathlon, "split.folds=2", f"fold={fold}", name=f"fold{fold}")
    runs = tmp_path / "coarse" / "outputs" / "study"
    run = quick(tmp_path, *data.decathlon, "split.folds=2", "fold=1", f"roi_from={runs}")
    assert file_sha256(run / "checkpoints" / "roi.ckpt") == file_sha256(runs / "fold1" / "checkpoints" / "best.ckpt")
    with pytest.raises(InputError, match=r"contains 2 runs \(fold0, fold1\); give one of them"):
        quick(tmp_path, *data.decathlon, f"roi_from={runs}", name="none")


def test_the_coarse_run_and_the_margin_are_part_of_the_identity(
    data: ManyCases, coarse: Path, fine: Path, tmp_path: Path
) -> None:
    def of(*settings: str) -> str:
        config = quick_config(tmp_path, *data.decathlon, *settings)
        return identity(config, find_dataset(config).cases)

    copied = shutil.copytree(coarse, tmp_path / "copied")
    plain, first, other = of(), of(f"roi_from={coarse}"), of(f"roi_from={coarse}", "roi_margin_mm=10")
    assert len({plain, first, other, of(f"roi_from={coarse}", "roi_classes=[front]"), of(f"roi_from={fine}")}) == 5
    assert of(f"roi_from={copied}") == first


def test_boxes_are_found_once(data: ManyCases, coarse: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = *data.decathlon, f"roi_from={coarse}"
    first = quick(tmp_path, *settings, name="first")
    with monkeypatch.context() as patch:
        patch.setattr("spleen.config.cascade.find_organ", None)
        second = quick(tmp_path, *settings, "roi_margin_mm=4", name="second")  # the margin comes later
    assert boxes(second)["c0"]["start"] != boxes(first)["c0"]["start"]
    (tmp_path / "cache" / "boxes").glob("*.json").__next__().write_text("{")
    assert boxes(quick(tmp_path, *settings, name="third")) == boxes(first)


def test_a_case_in_which_nothing_is_found_is_used_whole(
    data: ManyCases, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A coarse run that has learnt nothing but background."""
    settings = "epochs=1", "lr=1e-12", "model.network.foreground_prior=1e-6"
    blind = quick(tmp_path, *data.decathlon, *settings, name="blind")
    with caplog.at_level(logging.WARNING):
        run = quick(tmp_path, *data.decathlon, f"roi_from={blind}", "report=true")
    assert "the coarse run finds nothing in 8 of 8 cases (c0, c1, c2" in caplog.text
    assert set(boxes(run).values()) == {None}
    assert (run / "report.html").exists()


def test_two_processes_train_in_the_same_boxes_as_one(data: ManyCases, coarse: Path, tmp_path: Path) -> None:
    settings = *data.decathlon, f"roi_from={coarse}", "augment=none", "model.network.norm=instance"
    one = quick(tmp_path, *settings, name="one")
    two = quick(tmp_path, *settings, "trainer=ddp", "trainer.devices=2", "trainer.accelerator=cpu", name="two")
    assert boxes(one) == boxes(two)
    assert load_trained(one).spec == load_trained(two).spec
    for row, other in zip(rows(one / "cases.csv"), rows(two / "cases.csv"), strict=True):
        assert row["volume_reference_mm3"] == other["volume_reference_mm3"]
        assert float(row["specificity"]) == pytest.approx(float(other["specificity"]), abs=0.05)


def test_a_series_has_the_box_of_its_nifti(tmp_path: Path) -> None:
    ct = small_ct(tmp_path)
    hu = np.rint(ct.hu).clip(-1000).astype(np.int16)
    image, affine = tmp_path / "whole_hu.nii.gz", nib.load(ct.image).affine
    nib.save(nib.Nifti1Image(hu, affine), image)
    write(tmp_path / "series", hu, affine)
    label = f"data.label={ct.label}"
    coarse = train(tmp_path, f"data.image={image}", label, *TWO_CLASSES, name="coarse")
    settings = label, *TWO_CLASSES, f"roi_from={coarse}", "roi_margin_mm=6", "allow_seen_test=true", "epochs=1"
    runs = [train(tmp_path, f"data.image={each}", *settings, name=each.name) for each in (image, tmp_path / "series")]
    first, second = ([(box["start"], box["stop"]) for box in boxes(run).values()] for run in runs)
    assert first == second
    assert summary(runs[0])["test"] == summary(runs[1])["test"]
    for each in (image, tmp_path / "series"):
        predict(runs[0], each, tmp_path / f"{each.name}.mask.nii.gz")
    masks = (nib.load(tmp_path / f"{each}.mask.nii.gz") for each in ("whole_hu.nii.gz", "series"))
    one, two = (np.asarray(nib.as_closest_canonical(mask).dataobj) for mask in masks)
    np.testing.assert_array_equal(one, two)


def test_one_volume_counts_slices_in_the_whole_volume(tmp_path: Path) -> None:
    """The coarse run has seen the volume, of which both hold out the same slices."""
    ct = small_ct(tmp_path)
    coarse = train(tmp_path, *ct.overrides, *TWO_CLASSES, name="coarse")
    settings = f"roi_from={coarse}", "roi_margin_mm=6", "allow_seen_test=true"
    run = train(tmp_path, *ct.overrides, *TWO_CLASSES, *settings, "report=true", name="fine")
    (box,), (split,) = boxes(run).values(), json.loads((run / "split.json").read_text())["cases"].values()
    numbers = sorted(number for part in split.values() for number in part)
    assert numbers == list(range(box["start"][2], box["stop"][2]))
    for row in rows(run / "slices.csv"):
        values = {"dark": [7], "bright": [3, 4]}[row["class_name"]]
        reference = np.isin(ct.values[..., int(row["slice_index"])], values)
        assert int(row["reference_voxels"]) == reference.sum()
    assert summary(run)["test"]["dice"] > 0.6
