"""`spleen.train` trains in this process as the command does, and returns the content of the run folder."""

import json
import os
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra

import spleen
from spleen.config.override_values import as_overrides
from spleen.errors import InputError
from spleen.runs.api import compose_config
from tests._helpers.small_run import REPOSITORY, SmallCt, rows, small, small_ct, train


@pytest.fixture(scope="module")
def ct(tmp_path_factory: pytest.TempPathFactory) -> SmallCt:
    return small_ct(tmp_path_factory.mktemp("a folder, with = and (brackets)"))


ORGANS = {"dark": 7, "bright organ": [3, 4]}


def process_state() -> dict[str, object]:
    return {
        "arguments": list(sys.argv),
        "folder": Path.cwd(),
        "environment": dict(os.environ),
        "hydra": GlobalHydra.instance().is_initialized(),
        "random": (np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()),
    }


@pytest.mark.slow
def test_train_gives_the_same_run_as_the_command(ct: SmallCt, tmp_path: Path) -> None:
    before = process_state()
    run = spleen.train(
        *small("epochs=2"),
        data={"image": ct.image, "label": ct.label, "label_values": ORGANS},
        output_dir=tmp_path / "out put",
        cache_dir=tmp_path / "cache",
        study="api",
        trainer={"early_stopping_patience": None, "progress": False},
        lr=np.float64(3e-2),
    )
    assert process_state() == before
    assert run.folder.parent == tmp_path / "out put" / "api"
    data = f"data.image='{ct.image}'", f"data.label='{ct.label}'"
    organs = "data.label_values={dark: 7, bright organ: [3, 4]}"
    expected = train(tmp_path, *data, organs, "epochs=2")
    assert (run.folder / "metrics.csv").read_text() == (expected / "metrics.csv").read_text()
    assert (run.folder / "cases.csv").read_text() == (expected / "cases.csv").read_text()
    table = rows(expected / "cases.csv")
    tested = [float(row["dice"]) for row in table if row["split"] == "test"]
    assert run.dice == pytest.approx(sum(tested) / 2, abs=1e-6)
    assert [row["epoch"] for row in run.history] == [0, 1]
    assert len(run.cases) == len(table)
    assert repr(run) == f"TrainedRun({run.folder}, test Dice {run.dice:.4f})"
    assert f"{run.dice:.4f}" in run._repr_html_()
    assert spleen.train(resume=run.folder).summary == run.summary  # finished: nothing is trained
    another = spleen.train(
        *small("epochs=1", *data, organs), output_dir=tmp_path / "out put", cache_dir=tmp_path / "cache", study="api"
    )
    assert another.folder != run.folder
    study = spleen.results(tmp_path / "out put" / "api")
    assert repr(study).startswith(f"StudyResults({study.folder}, 2 arm(s), 2 finished run(s)")
    assert "test Dice" in study._repr_html_()


@pytest.mark.parametrize(
    ("overrides", "settings", "message"),
    [
        ((), {"lr": "x"}, "lr must be a number; got 'x'"),
        (("lrr=1",), {}, "unknown key 'lrr'; did you mean lr?"),
        ((), {"axis": "axail"}, "axis must be one of sagittal, coronal, axial; got 'axail'"),
        ((), {"data": "nifty"}, "data=nifty: no such option"),
        ((), {"loader": {"num_worker": 1}}, "unknown key 'loader.num_worker'; did you mean loader.num_workers"),
        ((), {"experiment": "tune"}, "a study is several runs; run it by its command"),
        ((), {"hydra": {"job": {"chdir": True}}}, "settings of Hydra are for the command"),
        (("axis=axial,coronal",), {}, r"this is one run"),
        (("-m",), {}, "an override is a string such as 'axis=axial'; got '-m'"),
        (("axis",), {}, "an override is a string"),
        ((), {"epochs": object()}, "a setting is a string, number"),
        ((), {"resume": "nowhere"}, "resume=nowhere: no such folder"),
        (("data=nifti", "data.image=/nowhere.nii", "data.label=/nowhere.nii"), {}, "nowhere.nii"),
    ],
)
def test_invalid_settings_are_reported_with_the_messages_of_the_command(
    tmp_path: Path, overrides: tuple[str, ...], settings: dict[str, object], message: str
) -> None:
    with pytest.raises(InputError, match=message.replace("?", r"\?")):
        spleen.train(*overrides, **settings, **({} if "resume" in settings else {"output_dir": tmp_path / "outputs"}))
    assert not GlobalHydra.instance().is_initialized()


def test_a_failure_is_recorded_in_the_run_folder(ct: SmallCt, tmp_path: Path) -> None:
    image = tmp_path / "damaged.nii.gz"
    image.write_bytes(ct.image.read_bytes()[:2000])
    with pytest.raises(InputError, match=r"damaged\.nii\.gz"):
        spleen.train(*small(), data={"image": image, "label": ct.label, "label_values": [3]}, output_dir=tmp_path)
    (failure,) = tmp_path.rglob("failed.json")
    assert "damaged.nii.gz" in json.loads(failure.read_text())["message"]


def test_a_program_that_uses_hydra_keeps_its_hydra_state() -> None:
    with initialize_config_dir(str(REPOSITORY / "conf"), version_base="1.3"):
        assert compose_config(["logger=none", "epochs=7"]).epochs == 7
        assert compose("train", ["epochs=5"]).epochs == 5


@pytest.mark.parametrize(
    "value",
    ["a b", "x=1", "it's", 'say "a"', "a,b", "[1]", "{a: 1}", "${lr}", "\\${lr}", "null", "1", "ünï", "C:\\new"],
)
def test_a_string_setting_is_passed_unchanged(value: str) -> None:
    assert compose_config(as_overrides({"logger": "none", "study": value})).study == value


def test_settings_of_every_type_are_passed_unchanged() -> None:
    given = {
        "logger": "none",
        "data": "nifti",
        "split": {"test_fraction": np.float32(0.25), "splits_file": None},
        "loader.slices_per_epoch": np.int64(12),
        "compile": np.bool_(False),
        "lr": 1e-4,
        "data.image": "ct.nii",
        "data.label": "label.nii",
        "data.label_values": {"left kidney": 1, "right": (2, 3)},
    }
    config = compose_config(as_overrides(given))
    assert (config.split.test_fraction, config.loader.slices_per_epoch, config.lr) == (0.25, 12, 1e-4)
    assert config.split.splits_file is None
    assert config.compile is False
    assert config.data.label_values == {"left kidney": 1, "right": [2, 3]}
