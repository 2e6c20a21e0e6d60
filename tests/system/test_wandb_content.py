"""What is in wandb after a sweep: two real offline runs of many cases with two classes, read back from their files."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import spleen
from tests._helpers.many_cases import many_cases, quick_settings
from tests._helpers.small_run import REPOSITORY, rows, summary
from tests._helpers.wandb_runs import last_config, last_summary, log_of, of_type, records_of

CLASSES = ("front", "back")


@pytest.fixture(scope="module")
def sweep(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a sweep of augment=none,light, run as a user would."""
    folder = tmp_path_factory.mktemp("sweep")
    cases = many_cases(folder / "data", 10)
    settings = quick_settings(
        folder, *cases.decathlon, "epochs=2", "augment=none,light", "logger=wandb", "logger.mode=offline"
    )
    done = subprocess.run(
        [sys.executable, "train.py", "-m", *settings], cwd=REPOSITORY, env=os.environ, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    (found,) = (path for path in (folder / "outputs" / "study").iterdir() if path.is_dir())
    return found


@pytest.fixture(scope="module")
def run_folder(sweep: Path) -> Path:
    return sweep / "augment=light"


@pytest.fixture(scope="module")
def records(run_folder: Path) -> list[dict]:
    return records_of(log_of(run_folder))


def table(run_folder: Path, name: str) -> list[dict]:
    """The rows of a logged table."""
    (path,) = (log_of(run_folder).parent / "files" / "media" / "table").glob(f"{name}_*.table.json")
    content = json.loads(path.read_text())
    return [dict(zip(content["columns"], row, strict=True)) for row in content["data"]]


def media_table(records: list[dict], name: str) -> list[dict]:
    """The rows of a logged table with images, which only its artifact holds, each with the file of its image."""
    contents = [entry for artifact in of_type(records, "artifact") for entry in artifact["manifest"]["contents"]]
    (own,) = (entry for entry in contents if entry["path"] == f"{name}.table.json")
    content = json.loads(Path(own["local_path"]).read_text())
    file_of = {entry["path"]: Path(entry["local_path"]) for entry in contents}
    found = [dict(zip(content["columns"], row, strict=True)) for row in content["data"]]
    return [{**row, "file": file_of[row["image"]["path"]]} for row in found]


def test_two_jobs_are_told_apart_by_their_names_and_share_a_group(sweep: Path) -> None:
    starts = [of_type(records_of(log_of(sweep / f"augment={name}")), "run")[0] for name in ("none", "light")]
    assert [start["display_name"] for start in starts] == ["augment=none", "augment=light"]
    assert {start["run_group"] for start in starts} == {f"study {sweep.name}"}
    assert [start["config"]["update"]["augment"] for start in starts] == ["none", "light"]


def test_hyperparameters_are_flat_and_everything_else_is_beneath(records: list[dict], run_folder: Path) -> None:
    config = last_config(records)
    top = {key: value for key, value in config.items() if not isinstance(value, dict)}
    assert top == {
        "lr": 0.03, "img_size": 16, "axis": "axial", "model": "unet", "loss": "dice_ce (ce_weight=0)",
        "augment": "light", "schedule": "constant", "intensity": "ct", "seed": 0, "fold": None,
        "epochs": 2, "max_minutes": None, "batch_size": 4, "context_slices": 0, "crop_size": None,
        "study": "study", "organ": "organ",
        "git_commit": summary(run_folder)["git_commit"],
    }  # fmt: skip
    assert config["settings"]["augment"]["rotation_deg"] == 10
    assert config["settings"]["optimiser"]["weight_decay"] == 0.01
    assert config["split"] == {"train": 6, "val": 2, "test": 2, "unit": "cases"}
    assert config["versions"]["torch"] == summary(run_folder)["versions"]["torch"]
    assert config["hardware"]["cores"] == os.cpu_count()


def test_every_epoch_has_its_scores_with_the_epoch_from_1_as_axis(records: list[dict], run_folder: Path) -> None:
    epochs = [item["item"] for item in of_type(records, "history") if "train/loss" in item["item"]]
    assert [item["epoch"] for item in epochs] == [1, 2]
    for item, row in zip(epochs, rows(run_folder / "metrics.csv"), strict=True):
        assert item["val/dice"] == pytest.approx(float(row["val/dice"]))
        assert item["train/lr"] == pytest.approx(float(row["lr"]))
        assert {"val/front/dice", "val/back/dice", "val/loss"} <= item.keys()
        assert item["time/epoch_seconds"] > 0
    metrics = {metric["name"]: metric for metric in of_type(records, "metric")}
    assert metrics.pop("epoch")["options"]["hidden"]
    assert {metric["step_metric"] for metric in metrics.values()} == {"epoch"}
    assert metrics["val/dice"]["summary"] == {"max": True}
    assert metrics["val/loss"]["summary"] == metrics["train/loss"]["summary"] == {"min": True}
    assert {name.split("/")[0] for name in metrics} == {"train", "val", "time"}  # none of a table or an image


def test_the_summary_has_scores_of_each_class_times_and_memory(records: list[dict], run_folder: Path) -> None:
    values, written = last_summary(records), summary(run_folder)
    dice = [float(row["val/dice"]) for row in rows(run_folder / "metrics.csv")]
    assert values["val/dice"] == {"max": pytest.approx(max(dice))}
    assert values["best/epoch"] == dice.index(max(dice)) + 1
    assert values["best/val/dice"] == pytest.approx(written["val"]["dice"])
    assert values["test/dice"] == pytest.approx(written["test"]["dice"])
    for name in CLASSES:
        assert values[f"test/{name}/dice"] == pytest.approx(written["test"][name]["dice"])
    cases = [row for row in rows(run_folder / "cases.csv") if row["split"] == "test"]
    for kind in ("reference", "prediction"):
        volumes_mm3 = [float(row[f"volume_{kind}_mm3"]) for row in cases]
        assert values[f"test/volume_{kind}_ml"] == pytest.approx(sum(volumes_mm3) / 2 / 1000)
    assert {"test/hausdorff95_mm", "test/average_surface_distance_mm"} <= values.keys()
    assert values["time/total_seconds"] == pytest.approx(written["wall_seconds"])
    assert values["time/to_first_step_seconds"] == pytest.approx(written["seconds_to_first_step"])
    assert 0 < values["time/training_seconds"] < values["time/total_seconds"]
    assert values["memory/peak_mib"] == pytest.approx(written["peak_memory_mb"])
    assert (values["status"], values["test/n_cases"]) == ("finished", 2)
    (final,) = (item["item"] for item in of_type(records, "history") if "test/dice" in item["item"])
    assert "test/n_cases" not in final  # in the summary, without a panel


def test_the_tables_hold_every_case_class_and_the_split(run_folder: Path) -> None:
    written = [row for row in rows(run_folder / "cases.csv") if row["split"] == "test"]
    found = table(run_folder, "test/cases")
    assert [(row["case_id"], row["class"]) for row in found] == [(r["case_id"], r["class_name"]) for r in written]
    assert [row["dice"] for row in found] == pytest.approx([float(row["dice"]) for row in written])
    surfaces = rows(run_folder / "surface.csv")
    for name in ("hausdorff95_mm", "average_surface_distance_mm"):
        assert [row[name] for row in found] == pytest.approx([float(row[name]) for row in surfaces])
    assert len(table(run_folder, "val/cases")) == 2 * len(CLASSES)
    assert [(row["split"], row["class"]) for row in table(run_folder, "test/classes")] == [
        (split, name) for split in ("val", "test") for name in CLASSES
    ]
    split = json.loads((run_folder / "split.json").read_text())
    for name in ("train", "val", "test"):
        assert {row["case_id"] for row in table(run_folder, "split/cases") if row["split"] == name} == set(split[name])
    assert {row["slice_indices"] for row in table(run_folder, "split/cases")} == {"0-7"}


def test_slices_have_layers_with_class_names_and_are_large_enough(records: list[dict], run_folder: Path) -> None:
    worst = media_table(records, "test/worst_slices")
    assert 2 < len(worst) <= 6
    test_cases = set(json.loads((run_folder / "split.json").read_text())["test"])
    assert {row["case_id"] for row in worst[:2]} == test_cases  # the worst slice of each case comes first
    for row in worst:
        assert {"prediction", "reference"} <= row["image"]["masks"].keys()
        assert max(Image.open(row["file"]).size) >= 256
    media = log_of(run_folder).parent / "files" / "media" / "images"
    pictures = [np.asarray(Image.open(path)) for path in (media / "test").glob("slices_*.png")]
    masks = [np.asarray(Image.open(path)) for path in (media / "mask" / "test").glob("slices_*.mask.png")]
    assert {max(picture.shape[:2]) >= 256 for picture in pictures} == {True}
    assert {mask.shape for mask in masks} == {picture.shape[:2] for picture in pictures}
    assert any(set(np.unique(mask)) == {0, 1, 2} for mask in masks)  # the reference's
    labels = last_config(records)["_wandb"]["mask/class_labels"].values()
    assert [label["value"] for label in labels if "slices" in label["key"]] == [{"1": "front", "2": "back"}] * 2


def test_the_checkpoint_says_what_it_is(records: list[dict], run_folder: Path) -> None:
    (model,) = (artifact for artifact in of_type(records, "artifact") if artifact["type"] == "model")
    (entry,) = model["manifest"]["contents"]
    assert Path(entry["local_path"]) == run_folder / "checkpoints" / "best.ckpt"
    best_epoch = last_summary(records)["best/epoch"]
    assert set(model["aliases"]) == {"best", "latest", *({"last"} if best_epoch == 2 else ())}
    assert model["description"] == f"unet for front, back: axial slices, best epoch {best_epoch} of 2"
    metadata = json.loads(model["metadata"])
    assert metadata["val_dice"] == pytest.approx(summary(run_folder)["val"]["dice"])
    assert [each["name"] for each in metadata["model_spec"]["classes"]] == list(CLASSES)
    assert metadata["model_spec"]["spleen_version"] == spleen.__version__
    assert "seen_images" not in metadata["model_spec"]


def test_the_console_and_the_state_of_the_code_are_there(records: list[dict], run_folder: Path) -> None:
    console = (log_of(run_folder).parent / "files" / "output.log").read_text()
    assert "Scores per case on the native grid" in console
    assert "front" in console
    requirements = (log_of(run_folder).parent / "files" / "requirements.txt").read_text()
    assert any(line.startswith("torch==") for line in requirements.splitlines())
    (commit,) = {start["git"]["commit"] for start in of_type(records, "run")}
    assert summary(run_folder)["git_commit"].removesuffix("-dirty") == commit


def test_the_page_of_the_run_is_a_panel_if_there_is_one(records: list[dict], run_folder: Path) -> None:
    logged = any("report._type" in item["item"] for item in of_type(records, "history"))
    assert logged == (run_folder / "report.html").exists()
