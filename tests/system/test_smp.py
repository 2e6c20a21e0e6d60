"""Runs whose encoder starts from a local file of weights: real trainings of some seconds."""

import json
import logging
import sys
import time
from pathlib import Path

import pytest
import torch

from spleen.config.checking.checks import check
from spleen.config.identity import identity
from spleen.config.schema import TrainConfig
from spleen.errors import InputError
from spleen.inference.loading import load_trained
from spleen.inference.predict import predict
from spleen.models.factory import build_part
from spleen.runs.train import run
from tests._helpers.many_cases import ManyCases, many_cases
from tests._helpers.small_run import compose_config, small
from tests._helpers.smp import needs_smp

SMALL_MODEL = "model=smp_unet", "model.network.encoder_name=resnet18", "model.network.decoder_channels=[16,8,8,4,4]"


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> ManyCases:
    return many_cases(tmp_path_factory.mktemp("data"), 4)


@pytest.fixture(scope="module")
def weights_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from torchvision.models import resnet18

    torch.manual_seed(11)
    path = tmp_path_factory.mktemp("weights") / "resnet18.pth"
    torch.save(resnet18(weights=None).state_dict(), path)
    return path


def settings(folder: Path, data: ManyCases, *overrides: str) -> TrainConfig:
    folders = f"output_dir={folder / 'outputs'}", f"cache_dir={folder / 'cache'}"
    short = "epochs=1", "loader.slices_per_epoch=8", "img_size=64", "split.val_fraction=0.25"
    config = compose_config(*small(*folders, *short, *data.decathlon, *SMALL_MODEL, *overrides))
    check(config)
    return config


def train(folder: Path, data: ManyCases, *overrides: str) -> Path:
    run_folder = folder / "outputs" / "run"
    run(settings(folder, data, *overrides), run_folder, time.time())
    return run_folder


@needs_smp
@pytest.mark.slow
def test_a_frozen_encoder_keeps_the_files_weights_and_predicts_without_it(
    data: ManyCases, weights_file: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    given = tmp_path / "given.pth"
    given.write_bytes(weights_file.read_bytes())
    with caplog.at_level(logging.INFO):
        folder = train(tmp_path, data, f"model.encoder_weights_file={given}", "freeze=encoder", "context_slices=1")
    assert "encoder resnet18 starts from" in caplog.text
    assert "not used: fc.weight, fc.bias" in caplog.text
    given.unlink()
    model = load_trained(folder)  # a class of a trusted package, that loads no file
    expected = torch.load(weights_file, weights_only=True)
    encoder = model.network.get_submodule("network.encoder")
    for name, value in encoder.state_dict().items():
        if name != "conv1.weight" and "num_batches" not in name:
            torch.testing.assert_close(value, expected[name], rtol=0, atol=0)
    std = torch.tensor([0.229, 0.224, 0.225]).view(1, 3, 1, 1)
    torch.testing.assert_close(encoder.state_dict()["conv1.weight"], expected["conv1.weight"] / (2 * std))
    assert "encoder_weights_file" not in model.spec.network
    predict([folder], [data.image("c0")], tmp_path / "masks")
    record = json.loads((folder / "warm_start.json").read_text())
    assert record["source"] == "given.pth"
    assert record["seen_images"] == []
    assert "adapted from 3 colours to 3 input channels" in record["layers"]["network.encoder.conv1"]


@needs_smp
@pytest.mark.slow
def test_the_file_counts_by_content_and_the_encoder_has_its_own_learning_rate(
    data: ManyCases, weights_file: Path, tmp_path: Path
) -> None:
    setting = f"model.encoder_weights_file={weights_file}"
    folder = train(tmp_path, data, setting, "init_lr_factor=0.25", "lr=0.01")
    groups = torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)["optimizer_states"][0]["param_groups"]
    assert [group["initial_lr"] for group in groups] == [0.01, 0.0025]
    copy = tmp_path / "copy.pth"
    copy.write_bytes(weights_file.read_bytes())
    identities = set()
    for path in (weights_file, copy):
        config = settings(tmp_path, data, f"model.encoder_weights_file={path}")
        identities.add(identity(config, ()))
    assert len(identities) == 1
    without = settings(tmp_path, data)
    assert identity(without, ()) not in identities


@needs_smp
@pytest.mark.slow
def test_weights_of_another_encoder_are_refused(data: ManyCases, weights_file: Path, tmp_path: Path) -> None:
    other = f"model.encoder_weights_file={weights_file}", "model.network.encoder_name=resnet34"
    with pytest.raises(InputError, match=r"resnet18\.pth does not fit the encoder resnet34: .* tensors are not in it"):
        train(tmp_path, data, *other)


@needs_smp
def test_nothing_is_downloaded_whatever_a_checkpoint_says() -> None:
    setting = {"_target_": "segmentation_models_pytorch.FPN", "encoder_name": "resnet18"}  # its default is ImageNet's
    build_part("model.network", setting)
    build_part("model.network", {**setting, "encoder_weights": "imagenet"})


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (("model.network.encoder_weights=imagenet",), r"must be null, as nothing is downloaded; got 'imagenet'"),
        (("model.encoder_weights_file=a.pth", "init_from=run"), r"use it without model\.encoder_weights_file"),
        (("freeze=encoder",), r"freeze=encoder needs the weights of another run: set init_from=RUN"),
    ],
)
def test_settings_that_contradict_each_other_are_refused(overrides: tuple[str, ...], message: str) -> None:
    with pytest.raises(InputError, match=message):
        check(compose_config("model=smp_unet", *overrides))


def test_without_the_package_the_error_names_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "segmentation_models_pytorch", None)
    setting = compose_config("model=smp_unet").model.network
    with pytest.raises(InputError, match=r"not installed; .*pip install 'segmentation-models-pytorch>=0\.5'$"):
        build_part("model.network", setting)
