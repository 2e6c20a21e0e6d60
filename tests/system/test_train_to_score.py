"""End-to-end runs from files to scores, checked independently with NumPy and Pillow on what a run writes."""

import json
import math
import re
import shutil
import subprocess
import threading
import time
from collections.abc import Callable
from importlib.metadata import version
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf
from PIL import Image

from spleen.config.datasets import complete, find_dataset
from spleen.config.factory import build_spec
from spleen.config.parsing import parse
from spleen.errors import InputError
from spleen.models.unet import UNet
from spleen.runs.data import open_data
from spleen.runs.naming import point_latest
from spleen.runs.resume_command import read_resumed
from tests._helpers.nifti import ras_affine, save_stored_as
from tests._helpers.small_run import (
    REPOSITORY,
    SPACING_MM,
    SmallCt,
    compose_config,
    rows,
    small,
    small_ct,
    summary,
    train,
)

BRIGHT = "data.label_values=[3,4]"
# Array axes (i, j, k) of a RAS volume in the order slice, height, width.
PLANES = {"axial": (2, 1, 0), "coronal": (1, 2, 0), "sagittal": (0, 2, 1)}


@pytest.fixture(scope="module")
def ct(tmp_path_factory: pytest.TempPathFactory) -> SmallCt:
    return small_ct(tmp_path_factory.mktemp("ct"))


@pytest.fixture(scope="module")
def finished(ct: SmallCt, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run folder of a training on the bright organ."""
    return train(tmp_path_factory.mktemp("finished"), *ct.overrides, BRIGHT, "data.organ=bright", "report=true")


# Independent scoring ------------------------------------------------------------------------------------------------


def window(hu: np.ndarray) -> np.ndarray:
    """Level 50, width 400 HU: -150 becomes -1, 250 becomes 1."""
    return np.clip((hu - 50) / 200, -1, 1)


def resized(plane: np.ndarray, height: int, width: int) -> np.ndarray:
    """Bilinear resize by Pillow, anti-aliased when shrinking."""
    return np.asarray(Image.fromarray(plane.astype(np.float32)).resize((width, height), Image.Resampling.BILINEAR))


def saved_network(run_folder: Path, in_channels: int, out_channels: int) -> UNet:
    """The network of best.ckpt, loaded without running any code from the file."""
    checkpoint = torch.load(run_folder / "checkpoints" / "best.ckpt", weights_only=True)
    network = UNet(in_channels, out_channels, width=4, depth=2)
    prefix = "network.network."
    network.load_state_dict({name.removeprefix(prefix): value for name, value in checkpoint["state_dict"].items()})
    return network.eval()


def predict(
    network: UNet, volume: np.ndarray, axis: str, indices: list[int], size: tuple[int, int], context: int
) -> np.ndarray:
    """Classes of some slices on their native grid: resize to `size`, pad to multiples of 4, predict, resize back."""
    planes = volume.transpose(PLANES[axis])
    predicted = []
    for index in indices:
        neighbours = np.clip(np.arange(index - context, index + context + 1), 0, len(planes) - 1)
        image = np.stack([resized(planes[n], *size) for n in neighbours])
        image = np.pad(image, ((0, 0), (0, -size[0] % 4), (0, -size[1] % 4)), constant_values=float(volume.min()))
        with torch.no_grad():
            logits = network(torch.from_numpy(image.astype(np.float16).astype(np.float32))[None])
        probabilities = torch.softmax(logits, 1)[0, :, : size[0], : size[1]].numpy()
        predicted.append(np.argmax([resized(p, *planes.shape[1:]) for p in probabilities], axis=0))
    return np.stack(predicted)


def dice(first: np.ndarray, second: np.ndarray) -> float:
    return 2 * np.count_nonzero(first & second) / (np.count_nonzero(first) + np.count_nonzero(second))


def assert_scores(
    run_folder: Path, volume: np.ndarray, classes: dict[str, np.ndarray], axis: str, size: tuple[int, int], context: int
) -> None:
    """cases.csv matches, per class, an independent prediction with the saved weights scored by NumPy."""
    network = saved_network(run_folder, 1 + 2 * context, 1 + len(classes))
    (split,) = json.loads((run_folder / "split.json").read_text())["cases"].values()
    scores = {(row["split"], row["class_name"]): row for row in rows(run_folder / "cases.csv")}
    assert set(scores) == {(stage, name) for stage in ("val", "test") for name in classes}
    for stage in ("val", "test"):
        predicted = predict(network, volume, axis, split[stage], size, context)
        for number, (name, reference) in enumerate(classes.items(), start=1):
            expected = reference.transpose(PLANES[axis])[split[stage]]
            row = scores[stage, name]
            # A voxel whose probability is 0.5 may fall to either side.
            assert float(row["dice"]) == pytest.approx(dice(predicted == number, expected), abs=0.005)
            volume_mm3 = np.count_nonzero(expected) * math.prod(SPACING_MM)
            assert float(row["volume_reference_mm3"]) == pytest.approx(volume_mm3)


# The record of a run ------------------------------------------------------------------------------------------------


def test_scores_match_the_saved_weights_on_the_native_grid(ct: SmallCt, finished: Path) -> None:
    # 40 × 48 pixels of 1.25 × 1.5 mm are 50 × 72 mm: the longer side gets 32 pixels of 2.25 mm, the other 22.
    assert_scores(finished, window(ct.hu), {"bright": np.isin(ct.values, [3, 4])}, "axial", (22, 32), 0)
    assert summary(finished)["test"]["dice"] > 0.5  # otherwise the comparison would prove little


def test_the_run_folder_contains_the_full_record_and_latest_points_to_it(finished: Path) -> None:
    files = {str(path.relative_to(finished)) for path in finished.rglob("*") if path.is_file()}
    assert files == {
        "config.yaml", "split.json", "metrics.csv", "cases.csv", "slices.csv", "data.json", "summary.json",
        "report.html",
        "checkpoints/best.ckpt", "checkpoints/last.ckpt", "figures/curves.png", "figures/overlays.png",
    }  # fmt: skip
    assert (finished.parents[1] / "latest").resolve() == finished.resolve()
    for figure in ("curves", "overlays"):
        with Image.open(finished / "figures" / f"{figure}.png") as picture:
            assert len(np.unique(np.asarray(picture.convert("L")))) > 10


def test_the_saved_config_parses_to_the_same_configuration(ct: SmallCt, finished: Path) -> None:
    folder = finished.parents[2]
    overrides = small(*ct.overrides, BRIGHT, "data.organ=bright", "report=true", "study=small")
    again = parse(OmegaConf.create((finished / "config.yaml").read_text()))
    assert again == compose_config(*overrides, f"output_dir={folder / 'outputs'}", f"cache_dir={folder / 'cache'}")


def test_the_split_uses_every_slice_once_and_keeps_the_guard_gap(ct: SmallCt, finished: Path) -> None:
    record = json.loads((finished / "split.json").read_text())
    assert (record["axis"], record["guard_mm"], list(record["cases"])) == ("axial", 3.0, ["scan7"])
    split = record["cases"]["scan7"]
    assert sorted(index for part in ("train", "val", "test", "guard") for index in split[part]) == list(range(24))
    has_organ = np.isin(ct.values, [3, 4]).any(axis=(0, 1))
    assert has_organ[split["val"]].all()
    assert has_organ[split["test"]].all()
    assert has_organ[split["train"]].sum() >= 3
    held_out = split["val"] + split["test"]
    gap_mm = min(abs(a - b) for a in split["train"] for b in held_out) * SPACING_MM[2]
    assert gap_mm > 3.0
    assert np.ptp(split["val"]) == len(split["val"]) - 1  # one block


def test_metrics_have_one_row_per_epoch_and_the_best_epoch_is_scored(finished: Path) -> None:
    metrics = rows(finished / "metrics.csv")
    assert [(row["epoch"], row["step"]) for row in metrics] == [("0", "12"), ("1", "24"), ("2", "36")]
    assert {"train/loss", "val/loss", "val/dice", "val/jaccard", "val/sensitivity", "lr"} <= set(metrics[0])
    assert {row["lr"] for row in metrics} == {"0.03"}
    best = max(float(row["val/dice"]) for row in metrics)
    assert summary(finished)["val"]["dice"] == pytest.approx(best, abs=1e-6)
    last = torch.load(finished / "checkpoints" / "last.ckpt", weights_only=True)
    assert last["global_step"] == 36


def test_the_summary_agrees_with_cases_csv_and_records_time_and_memory(finished: Path) -> None:
    record = summary(finished)
    for row in rows(finished / "cases.csv"):
        means = record[row["split"]]
        for name in ("dice", "jaccard", "sensitivity", "specificity", "precision"):
            assert means[name] == means["bright"][name] == pytest.approx(float(row[name]), abs=1e-8)
        assert (means["n_cases"], means["n_empty"], means["n_missed"]) == (1, 0, 0)
    assert record["train"]["slices_per_second"] > 0
    assert record["train"]["epochs"] == 3
    assert 0 < record["seconds_to_first_step"] < record["wall_seconds"]
    assert record["peak_memory_mb"] > 50
    assert record["versions"]["torch"] == version("torch")
    assert record["hardware"]["cores"] >= 1
    settings = (record["model"], record["axis"], record["img_size"], record["lr"], record["precision"])
    assert settings == ("unet", "axial", 32, 0.03, "32-true")


def test_the_summary_records_the_git_commit(finished: Path) -> None:
    done = subprocess.run(["git", "-C", str(REPOSITORY), "rev-parse", "HEAD"], capture_output=True, text=True)
    if done.returncode:
        pytest.skip("this is not a git checkout")
    assert re.fullmatch(rf"{done.stdout.strip()}(-dirty)?", summary(finished)["git_commit"])


# Reproducibility, latest and the cache ------------------------------------------------------------------------------


def test_the_stored_orientation_does_not_change_the_run(finished: Path, tmp_path: Path) -> None:
    # This also checks that the same seed gives the same bytes, whatever ran in between.
    reoriented = small_ct(tmp_path, "LPS", "LAS")
    again = train(tmp_path, *reoriented.overrides, BRIGHT, "data.organ=bright")
    for name in ("metrics.csv", "cases.csv", "split.json"):
        assert (again / name).read_bytes() == (finished / name).read_bytes(), name


def test_another_seed_changes_the_metrics(ct: SmallCt, finished: Path, tmp_path: Path) -> None:
    other = train(tmp_path, *ct.overrides, BRIGHT, "data.organ=bright", "seed=1", "split.seed=0")
    assert (other / "split.json").read_bytes() == (finished / "split.json").read_bytes()
    assert (other / "metrics.csv").read_bytes() != (finished / "metrics.csv").read_bytes()


@pytest.mark.parametrize("kind", ["folder", "dangling link", "link to a folder", "file"])
def test_no_kind_of_existing_latest_fails_the_run(tmp_path: Path, kind: str, caplog: pytest.LogCaptureFixture) -> None:
    run_folder, latest = tmp_path / "outputs" / "study" / "run", tmp_path / "outputs" / "latest"
    run_folder.mkdir(parents=True)
    if kind == "folder":
        latest.mkdir()
        (latest / "mine").touch()
    elif kind == "file":
        latest.write_bytes(b"\xff\x00")
    else:
        latest.symlink_to("nowhere" if kind == "dangling link" else "study", target_is_directory=True)
    point_latest(tmp_path / "outputs", run_folder)
    assert sorted(path.name for path in (tmp_path / "outputs").iterdir()) == ["latest", "study"]
    if kind == "folder":
        assert (latest / "mine").exists()
        assert f"{latest} does not point to this run" in caplog.text
    else:
        assert latest.resolve() == run_folder.resolve()


@pytest.mark.parametrize("content", [b"\xff\x00", b"nowhere", b""])
def test_resuming_a_broken_latest_is_an_error(tmp_path: Path, content: bytes) -> None:
    latest = tmp_path / "latest"
    latest.write_bytes(content)
    with pytest.raises(InputError, match=r"resume=.*latest"):
        read_resumed([f"resume={latest}"])
    latest.unlink()
    latest.symlink_to("nowhere")
    with pytest.raises(InputError, match=r"resume=.*latest: no such folder"):
        read_resumed([f"resume={latest}"])


@pytest.mark.slow
def test_a_cache_deleted_during_training_is_rebuilt(ct: SmallCt, tmp_path: Path) -> None:
    settings = (*ct.overrides, "data.label_values=[3,4]", "epochs=2", "loader.slices_per_epoch=8")
    expected = train(tmp_path / "expected", *settings)
    removing = threading.Thread(target=_remove_when_training, args=(tmp_path / "now" / "cache", tmp_path / "now"))
    removing.start()
    run_folder = train(tmp_path / "now", *settings)
    removing.join()
    assert (run_folder / "cases.csv").read_bytes() == (expected / "cases.csv").read_bytes()
    assert len(list((tmp_path / "now" / "cache" / "slices").iterdir())) == 1  # it has been rebuilt


def test_the_phantom_is_recomputed_if_its_cache_is_deleted(tmp_path: Path) -> None:
    small_phantom = "data=phantom", "data.matrix=64", "data.n_slices=48", "axis=axial", "split.guard_mm=0"
    config = compose_config(*small_phantom, "context_slices=0", "img_size=32", f"cache_dir={tmp_path}")
    config = complete(config, find_dataset(config))
    spec = build_spec(config)
    (part,) = open_data(config, find_dataset(config).cases, spec.preprocessing).slices.slices("test")
    before = np.array(part.case.images)
    for folder in tmp_path.iterdir():
        shutil.rmtree(folder)
    np.testing.assert_array_equal(np.array(part.case.images), before)


def _remove_when_training(cache: Path, folder: Path) -> None:
    until = time.monotonic() + 60
    while not list(folder.glob("outputs/small/now/checkpoints/last.ckpt")) and time.monotonic() < until:
        time.sleep(0.01)
    shutil.rmtree(cache)


def test_latest_points_to_the_newest_run_with_a_checkpoint(ct: SmallCt, tmp_path: Path) -> None:
    newest = train(tmp_path, *ct.overrides, BRIGHT, "epochs=1", name="first")
    assert (tmp_path / "outputs" / "latest").resolve() == newest.resolve()
    with pytest.raises(InputError):  # a run without a checkpoint is useless to commands that read latest
        train(tmp_path, *ct.overrides, "data.label_values=[99]", name="second")
    assert (tmp_path / "outputs" / "latest").resolve() == newest.resolve()
    third = train(tmp_path, *ct.overrides, BRIGHT, "epochs=1", name="third")
    assert (tmp_path / "outputs" / "latest").resolve() == third.resolve()


# Other settings -----------------------------------------------------------------------------------------------------


def test_multiple_classes_with_context_slices_and_stretched_slices(ct: SmallCt, tmp_path: Path) -> None:
    run_folder = train(
        tmp_path, *ct.overrides, "data.label_values={dark: 7, bright: [3, 4]}", "context_slices=1", "axis=coronal",
        "resize=stretch",
    )  # fmt: skip
    classes = {"dark": ct.values == 7, "bright": np.isin(ct.values, [3, 4])}
    assert_scores(run_folder, window(ct.hu), classes, "coronal", (32, 32), 1)
    test = summary(run_folder)["test"]
    assert test["dice"] == pytest.approx((test["dark"]["dice"] + test["bright"]["dice"]) / 2, abs=1e-8)
    assert max(test["dark"]["dice"], test["bright"]["dice"]) > 0.3
    assert "val/dark/dice" in rows(run_folder / "metrics.csv")[0]
    (split,) = json.loads((run_folder / "split.json").read_text())["cases"].values()
    held_out = split["val"] + split["test"]
    # No training slice has a held-out slice as context.
    assert min(abs(a - b) for a in split["train"] for b in held_out) > 1


def test_averaged_weights_are_scored_when_validating_every_other_epoch(ct: SmallCt, tmp_path: Path) -> None:
    run_folder = train(
        tmp_path, *ct.overrides, BRIGHT, "data.organ=bright", "optimiser.ema_decay=0.9", "trainer.val_every_epochs=2"
    )
    assert_scores(run_folder, window(ct.hu), {"bright": np.isin(ct.values, [3, 4])}, "axial", (22, 32), 0)
    metrics = rows(run_folder / "metrics.csv")
    assert [row["val/dice"] == "" for row in metrics] == [True, False, True]
    assert all(row["train/loss"] for row in metrics)
    assert summary(run_folder)["val"]["dice"] == pytest.approx(float(metrics[1]["val/dice"]), abs=1e-6)
    last = torch.load(run_folder / "checkpoints" / "last.ckpt", weights_only=True)
    assert (last["epoch"], last["global_step"]) == (2, 36)


def test_mr_intensities_are_scaled_between_percentiles(ct: SmallCt, tmp_path: Path) -> None:
    run_folder = train(
        tmp_path, *ct.overrides, BRIGHT, "data.organ=bright", "intensity=mr", "intensity.low_percentile=40",
        "intensity.high_percentile=99.5",
    )  # fmt: skip
    low, high = np.percentile(ct.hu, [40, 99.5])
    volume = np.clip(2 * (ct.hu - low) / (high - low) - 1, -1, 1)
    assert_scores(run_folder, volume, {"bright": np.isin(ct.values, [3, 4])}, "axial", (22, 32), 0)


def test_early_stopping_ends_a_training_that_does_not_improve(ct: SmallCt, tmp_path: Path) -> None:
    # No weight changes at this learning rate, and instance normalisation has no running statistics that could.
    run_folder = train(
        tmp_path, *ct.overrides, BRIGHT, "axis=sagittal", "intensity=zscore", "lr=1e-12", "epochs=9",
        "model.network.norm=instance", "trainer.early_stopping_patience=2", "split.guard_mm=1",
    )  # fmt: skip
    assert len(rows(run_folder / "metrics.csv")) == 3  # the best epoch and two without improvement
    assert summary(run_folder)["train"]["epochs"] == 3


def test_a_monai_network_trains_and_is_scored(ct: SmallCt, tmp_path: Path) -> None:
    run_folder = train(
        tmp_path, *ct.overrides, BRIGHT, "model=monai_basic_unet", "model.network.features=[4,4,8,8,16,4]", "epochs=2",
        "loss=dice_focal",
    )  # fmt: skip
    record = summary(run_folder)
    assert record["model"] == "monai_basic_unet"
    assert 0 <= record["test"]["dice"] <= 1
    losses = [float(row["train/loss"]) for row in rows(run_folder / "metrics.csv")]
    assert all(later < earlier for earlier, later in pairwise(losses))


# Invalid data -------------------------------------------------------------------------------------------------------


def _empty(values: np.ndarray) -> np.ndarray:
    return np.zeros_like(values)


def _in_one_slice(values: np.ndarray) -> np.ndarray:
    only = np.zeros_like(values)
    only[:, :, 11] = values[:, :, 11]
    return only


def _several_values(values: np.ndarray) -> np.ndarray:
    return values


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_empty, r"label is empty"),
        (_in_one_slice, r"the organ is visible on 1 slices?.*Choose another axis"),
        (_several_values, r"values 3, 4, 7.*data\.label_values"),
    ],
)
def test_an_unusable_label_is_an_error(
    ct: SmallCt, tmp_path: Path, change: Callable[[np.ndarray], np.ndarray], message: str
) -> None:
    label = save_stored_as(tmp_path / "label.nii.gz", "RAS", change(ct.values), ras_affine(SPACING_MM))
    values = "null" if change is _several_values else "[3,4,7]"
    with pytest.raises(InputError, match=f"(?s){message}"):
        train(tmp_path, ct.overrides[0], f"data.label={label}", f"data.label_values={values}")


def test_an_unwritable_cache_is_an_error(ct: SmallCt, tmp_path: Path) -> None:
    occupied = tmp_path / "file"
    occupied.touch()
    with pytest.raises(InputError, match=r"cache_dir=…"):
        train(tmp_path, *ct.overrides, BRIGHT, f"cache_dir={occupied}")


def test_the_phantom_trains_like_any_other_case_and_is_generated_only_once(tmp_path: Path) -> None:
    settings = ("data=phantom", "data.matrix=64", "data.n_slices=60", "epochs=1")
    first = train(tmp_path, *settings, name="first")
    made = {path: path.stat().st_mtime_ns for path in (tmp_path / "cache").rglob("*") if path.is_file()}
    assert {"image.nii.gz", "label.nii.gz", "images.npy"} <= {path.name for path in made}
    second = train(tmp_path, *settings, name="second")
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "cache").rglob("*") if path.is_file()} == made
    assert (first / "metrics.csv").read_bytes() == (second / "metrics.csv").read_bytes()
    assert "spleen" in summary(second)["test"]
