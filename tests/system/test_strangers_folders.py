"""Nothing in an untrusted folder runs code: each payload would create a canary file if it were executed."""

import json
import os
import pickle
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from omegaconf import OmegaConf

from spleen.errors import InputError
from spleen.inference.loading import load_trained
from spleen.runs.main import main
from spleen.runs.resume_command import read_resumed
from spleen.runs.sweeps import studies
from spleen.runs.sweeps.search import Search, SearchSettings, space_from_bounds
from spleen.runs.sweeps.studies import no_such_study, read_study
from spleen.runs.tracking.sync import OfflineRun, _wandb_sync
from tests._helpers.forged_checkpoints import Bait, forge_network
from tests._helpers.small_run import compose_config, small, small_ct
from tests._helpers.trained_runs import BRIGHT, trained


def popen(canary: Path) -> dict[str, Any]:
    return {"_target_": "psutil.Popen", "_args_": [["touch", str(canary)]]}


def joblib_load(canary: Path) -> dict[str, Any]:
    path = canary.with_name("bait.joblib")
    path.write_bytes(pickle.dumps(Bait(canary)))
    return {"_target_": "joblib.load", "filename": str(path)}


def numpy_load(canary: Path) -> dict[str, Any]:
    path = canary.with_name("bait.npy")
    np.save(path, np.array([Bait(canary)], dtype=object), allow_pickle=True)
    return {"_target_": "numpy.load", "file": str(path), "allow_pickle": True}


def write_text(canary: Path) -> dict[str, Any]:
    return {
        "_target_": "pathlib.Path.write_text",
        "_args_": [{"_target_": "pathlib.Path", "_args_": [str(canary)]}, "ran"],
    }


PAYLOADS = [popen, joblib_load, numpy_load, write_text]
Payload = Callable[[Path], dict[str, Any]]


@pytest.fixture
def canary(tmp_path: Path) -> Path:
    return tmp_path / "canary"


@pytest.fixture
def run_folder(tmp_path: Path) -> Path:
    """A run that has just started, with its recorded configuration."""
    ct = small_ct(tmp_path)
    folder = tmp_path / "outputs" / "small" / "run"
    folder.mkdir(parents=True)
    folders = f"output_dir={tmp_path / 'outputs'}", f"cache_dir={tmp_path / 'cache'}"
    config = compose_config(*small(*ct.overrides, "data.label_values=[3,4]", "epochs=1", *folders))
    (folder / "config.yaml").write_text(OmegaConf.to_yaml(OmegaConf.structured(config)), encoding="utf-8")
    return folder


def change(run_folder: Path, edit: Callable[[dict[str, Any]], None]) -> None:
    path = run_folder / "config.yaml"
    content = yaml.safe_load(path.read_text(encoding="utf-8"))
    edit(content)
    path.write_text(yaml.safe_dump(content), encoding="utf-8")


# The recorded configuration of resume= ------------------------------------------------------------------------------

PLACES: dict[str, Callable[[dict[str, Any], dict[str, Any]], None]] = {
    "loss": lambda config, code: config.update(loss=code),
    "loss argument": lambda config, code: config["loss"].update(smooth=code),
    "network": lambda config, code: config["model"].update(network=code),
    "network argument": lambda config, code: config["model"]["network"].update(norm=[code]),
}


@pytest.mark.parametrize("payload", PAYLOADS, ids=lambda payload: payload.__name__)
@pytest.mark.parametrize("place", PLACES)
def test_a_resumed_run_builds_only_known_classes(
    run_folder: Path, canary: Path, payload: Payload, place: str, capsys: pytest.CaptureFixture[str]
) -> None:
    change(run_folder, lambda config: PLACES[place](config, payload(canary)))
    assert main([f"resume={run_folder}"]) == 2
    assert not canary.exists()
    errors = capsys.readouterr().err
    assert errors.startswith(f"error: {run_folder / 'config.yaml'}: ")
    assert "if you trust this folder, add allow_custom_code=true" in errors


def test_a_run_with_a_custom_class_is_resumed_if_the_command_line_allows_it(run_folder: Path) -> None:
    change(run_folder, lambda config: config["loss"].update(_target_="my.own.Loss"))
    with pytest.raises(InputError, match=r"loss is 'my.own.Loss'.*add allow_custom_code=true"):
        read_resumed([f"resume={run_folder}"])
    with pytest.raises(InputError, match=r"loss is 'my.own.Loss'"):
        read_resumed([f"resume={run_folder}", "allow_custom_code=false"])
    with pytest.raises(InputError, match="allow_custom_code must be true or false; got 'maybe'"):
        read_resumed([f"resume={run_folder}", "allow_custom_code=maybe"])
    _, config = read_resumed([f"resume={run_folder}", "allow_custom_code=true"])
    assert config is not None
    assert config.loss["_target_"] == "my.own.Loss"


def test_a_loss_that_downloads_code_is_refused_even_from_a_known_library(run_folder: Path) -> None:
    change(run_folder, lambda config: config.update(loss={"_target_": "monai.losses.PerceptualLoss"}))
    with pytest.raises(InputError, match=r"loss is 'monai.losses.PerceptualLoss'"):
        read_resumed([f"resume={run_folder}"])


def test_a_network_that_downloads_weights_by_default_requires_pretrained_false(run_folder: Path) -> None:
    network = {"_target_": "monai.networks.nets.EfficientNetBN", "model_name": "efficientnet-b0"}
    change(run_folder, lambda config: config["model"].update(network=network))
    with pytest.raises(InputError, match="pretrained, which may load files, unless it is false"):
        read_resumed([f"resume={run_folder}"])
    change(run_folder, lambda config: config["model"]["network"].update(pretrained=False))
    read_resumed([f"resume={run_folder}"])


@pytest.mark.parametrize(
    "text",
    [
        "${oc.env:SECRET}",
        "a${oc.env:SECRET}b",
        "${oc.decode:'{_target_: os.system}'}",
        "${oc.create:{a:1}}",
        "${${study}.env:SECRET}",
        "${work_folder:${oc.env:SECRET}}",
        "${hydra:runtime.cwd}",
    ],
)
@pytest.mark.parametrize("key", ["study", "organ", "list"])
def test_expressions_in_a_recorded_configuration_are_refused(
    run_folder: Path, monkeypatch: pytest.MonkeyPatch, text: str, key: str
) -> None:
    monkeypatch.setenv("SECRET", "leaked")
    places: dict[str, Callable[[dict[str, Any]], None]] = {
        "study": lambda config: config.update(study=text),
        "organ": lambda config: config["data"].update(organ=text),
        "list": lambda config: config["logger"].update(tags=["a", text]),
    }
    change(run_folder, places[key])
    with pytest.raises(InputError, match="is an expression that is not evaluated"):
        read_resumed([f"resume={run_folder}"])


def test_references_to_settings_and_our_own_resolvers_are_evaluated(run_folder: Path) -> None:
    change(run_folder, lambda config: config["split"].update(seed="${seed}"))
    change(run_folder, lambda config: config.update(cache_dir="${work_folder:}/.cache", seed=7))
    _, config = read_resumed([f"resume={run_folder}"])
    assert config is not None
    assert config.split.seed == 7
    assert config.cache_dir.endswith("/.cache")


# study.yaml of experiment= ------------------------------------------------------------------------------------------


@pytest.fixture
def study_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """experiments/sent/ in the current folder."""
    folder = tmp_path / "here" / "experiments" / "sent"
    folder.mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "here")
    return folder


def refused_studies(canary: Path, outside: Path) -> dict[str, Any]:
    outside.write_text(yaml.safe_dump(popen(canary)))
    out = f"{'../' * 30}{str(outside.with_suffix(''))[1:]}"
    command, code = f"touch {canary}", popen(canary)
    logging = {"handlers": {"h": {"()": "subprocess.Popen", "args": command, "shell": True}}, "version": 1}
    return {
        "loss": {"loss": code},
        "network": {"model": {"network": code}},
        "argument": {"model": {"network": {"norm": code}}},
        "network weights file": {"model": {"network": {"pretrained_path": str(outside)}}},
        "defined elsewhere and referenced": {"augment": code, "loss": "${augment}"},
        "resolver expression": {"loss": f"${{oc.decode:'{{_target_: os.system, command: touch {canary}}}'}}"},
        "class by reference": {"study": "psutil.Popen", "loss": {"_target_": "${study}"}},
        "param": {"hydra": {"sweeper": {"params": {"loss._target_": "psutil.Popen"}}}},
        "one of several param values": {
            "hydra": {"sweeper": {"params": {"loss._target_": "torch.nn.CrossEntropyLoss,psutil.Popen"}}}
        },
        "param with settings": {"hydra": {"sweeper": {"params": {"loss": "{_target_:os.system,command:x}"}}}},
        "arm": {"hydra": {"sweeper": {"arms": {"a": ["model.network._target_=psutil.Popen"]}}}},
        "arm with +": {"hydra": {"sweeper": {"arms": {"a": ["++model.network.act._target_=psutil.Popen"]}}}},
        "arm with Hydra's settings": {"hydra": {"sweeper": {"arms": {"a": [f"hydra.searchpath=[file://{outside}]"]}}}},
        "arm outside conf": {"hydra": {"sweeper": {"arms": {"a": [f"loss={out}"]}}}},
        "arm outside conf, quoted": {"hydra": {"sweeper": {"params": {"loss": f"'/{out}',dice_ce"}}}},
        "default outside conf": {"defaults": [{"override /loss": out}]},
        "default outside conf, as text": {"defaults": [f"/loss/{out}@loss"]},
        "callback": {"hydra": {"callbacks": {"x": code}}},
        "launcher": {"hydra": {"launcher": code}},
        "job script": {"hydra": {"launcher": {"setup": [command]}}},
        "line injected into a job script": {"hydra": {"launcher": {"partition": f"gpu\n{command}\n"}}},
        "sweeper": {"hydra": {"sweeper": code}},
        "log handler": {"hydra": {"job_logging": logging}},
        "environment": {"hydra": {"job": {"env_set": {"LD_PRELOAD": str(outside)}}}},
    }


@pytest.mark.parametrize("place", refused_studies(Path("/nowhere/canary"), Path(os.devnull)))
def test_a_study_runs_no_code(
    tmp_path: Path, study_folder: Path, canary: Path, place: str, capsys: pytest.CaptureFixture[str]
) -> None:
    content = refused_studies(canary, tmp_path / "outside.yaml")[place]
    (study_folder / "study.yaml").write_text(f"# Why?\n{yaml.safe_dump(content)}", encoding="utf-8")
    ct = small_ct(tmp_path)
    folders = f"output_dir={tmp_path / 'out'}", f"cache_dir={tmp_path / 'cache'}"
    data = ("data=nifti", *ct.overrides, "epochs=1", "img_size=32", "loader.slices_per_epoch=4", "logger=none")
    assert main(["experiment=sent", *data, *folders]) == 2
    assert not canary.exists()
    assert f"{study_folder / 'study.yaml'}: " in capsys.readouterr().err


def test_a_study_with_a_custom_class_is_read_if_the_command_line_allows_it(
    study_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (study_folder / "study.yaml").write_text("# Why?\nloss: {_target_: my.own.Loss}\n")
    assert "add allow_custom_code=true" in no_such_study("sent")
    monkeypatch.setattr(studies._Permission, "custom_code", True)
    assert read_study("sent").loss._target_ == "my.own.Loss"


def test_a_study_may_set_everything_else(study_folder: Path) -> None:
    content = {
        "defaults": [{"override /loss": "tversky"}, {"override /hydra/launcher": "joblib"}, "/model/unet_wide@model"],
        "data": {"root": "${oc.env:DATA}/Task09_Spleen"},
        "output_dir": "../results",
        "loss": {"_target_": "monai.losses.DiceLoss", "softmax": True},
        "hydra": {
            "launcher": {"n_jobs": 2, "partition": "gpu-long"},
            "sweeper": {
                "params": {
                    "model": "unet,unet_wide",
                    "loss._target_": "monai.losses.DiceLoss,monai.losses.TverskyLoss",
                },
                "arms": {"a": ["data.root=../data", "hydra/launcher=joblib", "model.network.width=choice(4,8)"]},
            },
        },
    }
    (study_folder / "study.yaml").write_text(f"# Why?\n{yaml.safe_dump(content)}")
    assert read_study("sent").output_dir == "../results"


# Checkpoints, search storage and wandb logs -------------------------------------------------------------------------


@pytest.mark.parametrize("payload", PAYLOADS, ids=lambda payload: payload.__name__)
def test_a_checkpoint_builds_only_known_classes(
    tmp_path_factory: pytest.TempPathFactory, tmp_path: Path, canary: Path, payload: Payload
) -> None:
    run = trained(tmp_path_factory, "axial", *BRIGHT, "axis=axial", "split.guard_mm=1")
    with pytest.raises(InputError, match="its network is '"):
        load_trained(forge_network(run, tmp_path / "sent.ckpt", payload(canary)))
    assert not canary.exists()


def journal(path: Path, template: dict[str, Any]) -> None:
    """Write an Optuna journal with one waiting trial."""
    lines: list[dict[str, Any]] = [
        {"op_code": 0, "worker_id": "w", "study_name": "s", "directions": [2]},
        {"op_code": 4, "worker_id": "w", "study_id": 0, "datetime_start": None, "state": 4, **template},
    ]
    path.write_text("".join(f"{json.dumps(line)}\n" for line in lines))


def test_search_storage_can_only_set_the_searched_settings(tmp_path: Path) -> None:
    distribution = json.dumps({"name": "CategoricalDistribution", "attributes": {"choices": ["psutil.Popen"]}})
    path = tmp_path / "search.journal"
    journal(
        path,
        {
            "params": {"loss._target_": 0}, "distributions": {"loss._target_": distribution},
            "user_attrs": {}, "system_attrs": {}, "intermediate_values": {},
        },
    )  # fmt: skip
    search = Search(SearchSettings(path, "s", 4, 0, 2, 1), {"lr": space_from_bounds("lr", 1e-4, 1e-1, True, False)})
    trial = search.ask()
    assert trial.number == 0  # the one from the storage
    assert [override.partition("=")[0] for override in trial.overrides] == ["lr"]


def test_search_storage_is_not_unpickled(tmp_path: Path, canary: Path) -> None:
    path = tmp_path / "search.journal"
    path.write_bytes(pickle.dumps(Bait(canary)))
    with pytest.raises(InputError, match=r"search.journal is damaged, or was not written by a search"):
        Search(SearchSettings(path, "s", 4, 0, 2, 1), {"lr": space_from_bounds("lr", 1e-4, 1e-1, True, False)})
    assert not canary.exists()


def test_syncing_inside_a_run_folder_uses_the_installed_wandb(
    tmp_path: Path, canary: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = tmp_path / "wandb" / "offline-run-1" / "run-1.wandb"
    log.parent.mkdir(parents=True)
    log.write_bytes(b"")
    for module in ("__init__.py", "__main__.py"):
        (tmp_path / "wandb" / module).write_text(f"open({str(canary)!r}, 'w')\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")
    _wandb_sync([OfflineRun(tmp_path, log)])
    assert not canary.exists()


@pytest.mark.slow
def test_each_payload_creates_its_canary_when_executed(tmp_path: Path) -> None:
    """Each payload does run when it is instantiated without checks, so the tests above can fail."""
    for payload in PAYLOADS:
        canary = tmp_path / payload.__name__ / "canary"
        canary.parent.mkdir()
        program = f"from spleen.models.factory import _instantiate; _instantiate('loss', {payload(canary)!r})"
        subprocess.run([sys.executable, "-c", program], check=False, capture_output=True)
        if payload is popen:
            for _ in range(600):
                if canary.exists():
                    break
                subprocess.run(["sleep", "0.05"], check=True)
        assert canary.exists(), payload.__name__
