"""The schema and its checks: which values are rejected, and with which message."""

import math
import re
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from omegaconf import OmegaConf

from spleen.config.checking.checks import check
from spleen.config.factory import build_parts
from spleen.config.parsing import parse, unknown_key
from spleen.config.schema import TrainConfig
from spleen.errors import InputError
from tests._helpers.small_run import compose_config

FILES = ("data=nifti", "data.image=ct.nii.gz", "data.label=organ.nii.gz")


@pytest.fixture(scope="module")
def valid() -> TrainConfig:
    return compose_config()


NIFTI = ("data=nifti", "data.image=a.nii", "data.label=b.nii")


def refusal(*overrides: str) -> str:
    """The error message for an invalid configuration."""
    with pytest.raises(InputError) as caught:
        check(compose_config(*overrides))
    return str(caught.value)


@pytest.mark.parametrize(
    "key",
    [
        "anything",
        "anything.nested",
        "optimiser.momentum",
        "model.depth",
        "data.path",
        "intensity.window",
        "trainer.gpus",
    ],
)
def test_an_unknown_key_is_rejected_even_with_a_plus(key: str) -> None:
    assert f"unknown key '{key.split('.')[0] if key == 'anything.nested' else key}'" in refusal(f"+{key}=3")


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("learning_rate", None),
        ("imgsize", "img_size"),
        ("batchsize", "batch_size"),
        ("slices_per_epoch", "loader.slices_per_epoch"),
        ("guard_mm", "split.guard_mm"),
        ("optimizer.weight_decay", "optimiser.weight_decay"),
        ("ema_decay", "optimiser.ema_decay"),
    ],
)
def test_an_unknown_key_is_reported_with_a_suggestion(typed: str, meant: str | None) -> None:
    message = unknown_key(typed)
    assert message.startswith(f"unknown key '{typed}'")
    assert "--help" in message
    if meant:
        assert f"did you mean {meant}" in message


def test_a_key_of_an_unselected_option_suggests_selecting_that_option() -> None:
    # The most likely mistake: the files are given but data=nifti is forgotten.
    assert "add data=nifti" in refusal("+data.image=ct.nii.gz")
    assert "add intensity=mr" in refusal("+intensity.low_percentile=1")


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("lr=fast", ["lr", "fast"]),
        ("lr=null", ["lr"]),
        ("lr=[1e-3,1e-4]", ["lr"]),
        ("img_size=128.5", ["img_size", "128.5"]),
        ("batch_size=true", ["batch_size", "rue"]),
        ("compile=maybe", ["compile", "maybe"]),
        ("split=0.2", ["split"]),
        ("split=null", ["split"]),
        ("optimiser.gradient_clip=big", ["optimiser.gradient_clip", "big"]),
        ("logger.tags=mine", ["logger.tags"]),
        ("logger.tags=${lr}", ["logger.tags"]),
        ("model.network=UNet", ["model.network"]),
        ("axis=???", ["axis"]),
        ("lr=${nothing}", ["lr", "nothing"]),
        ("data.kind=dicom", ["data.kind", "phantom, nifti", "dicom"]),
        ("intensity.kind=pet", ["intensity.kind", "ct, mr, zscore", "pet"]),
    ],
)
def test_a_value_of_the_wrong_type_is_reported_in_one_line(override: str, expected: list[str]) -> None:
    message = refusal(override)
    assert all(part in message for part in expected), message
    assert "\n" not in message
    assert "full_key" not in message
    assert "object_type" not in message


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        (["axis=axail"], ["axis", "sagittal, coronal, axial", "axail"]),
        (["resize=crop"], ["resize", "keep_aspect, stretch", "crop"]),
        (["precision=64"], ["precision", "auto, 32, bf16, 16", "64"]),
        (["lr=-1"], ["lr", "above 0", "-1"]),
        (["lr=0"], ["lr", "above 0", "got 0"]),
        (["lr=10.000001"], ["lr", "above 0 to 10", "got 10.000001"]),
        (["lr=nan"], ["lr", "above 0", "nan"]),
        (["lr=inf"], ["lr", "above 0", "inf"]),
        (["img_size=3"], ["img_size", "16", "4096 pixels", "got 3"]),
        (["batch_size=0"], ["batch_size", "1", "4096", "got 0"]),
        (["epochs=0"], ["epochs", "1", "got 0"]),
        (["seed=-1", "split.seed=0"], ["seed", "0", "4294967295", "got -1"]),
        (["context_slices=-1"], ["context_slices", "slices per side", "got -1"]),
        (["grid_tolerance_mm=-0.5"], ["grid_tolerance_mm", "mm", "-0.5"]),
        (["study=''"], ["study", "folder name"]),
        (["study=a/b"], ["study", "folder name", "a/b"]),
        (["study=.."], ["study", "folder name", ".."]),
        (["data.matrix=8"], ["data.matrix", "32", "pixels", "got 8"]),
        (["data.n_slices=3"], ["data.n_slices", "16", "got 3"]),
        (["data.noise_hu=-1"], ["data.noise_hu", "HU", "-1"]),
        (["data=nifti"], ["data.image", "data.label", "missing"]),
        (["split.val_fraction=0"], ["split.val_fraction", "above 0", "got 0"]),
        (["split.test_fraction=0.6"], ["split.test_fraction", "0.5", "got 0.6"]),
        (
            ["split.val_fraction=0.5", "split.test_fraction=0.45"],
            ["split.val_fraction + split.test_fraction", "0.95", "0.8"],
        ),
        (["split.test_blocks=0"], ["split.test_blocks", "1", "got 0"]),
        (["split.guard_mm=-2"], ["split.guard_mm", "mm", "-2"]),
        (["intensity.window_width=0"], ["intensity.window_width", "above 0", "HU"]),
        (["intensity.window_level=nan"], ["intensity.window_level", "nan"]),
        (["intensity=mr", "intensity.low_percentile=60", "intensity.high_percentile=40"], ["percentile", "60", "40"]),
        (["intensity=mr", "intensity.high_percentile=101"], ["high_percentile", "100", "101"]),
        (["intensity=zscore", "intensity.clip=0"], ["intensity.clip", "above 0", "got 0"]),
        (["batch_size=64", "loader.slices_per_epoch=9"], ["loader.slices_per_epoch=9", "batch_size=64", "null"]),
        (["loader.foreground_fraction=1.5"], ["loader.foreground_fraction", "1", "1.5"]),
        (["loader.num_workers=-1"], ["loader.num_workers", "0", "-1"]),
        (["model.size_multiple=0"], ["model.size_multiple", "1", "got 0"]),
        (["model.network={width: 4}", "~model.network._target_"], ["model.network", "_target_"]),
        (["loss._target_=3"], ["loss", "_target_"]),
        (["optimiser.weight_decay=-1"], ["optimiser.weight_decay", "0", "-1"]),
        (["optimiser.beta2=1"], ["optimiser.beta2", "got 1"]),
        (["optimiser.gradient_clip=0"], ["optimiser.gradient_clip", "above 0", "got 0"]),
        (["optimiser.ema_decay=1"], ["optimiser.ema_decay", "got 1"]),
        (["schedule.kind=linear"], ["schedule.kind", "cosine, polynomial, constant, one_cycle", "linear"]),
        (["schedule.warmup_fraction=1"], ["schedule.warmup_fraction", "0.9", "got 1"]),
        (["schedule.final_factor=2"], ["schedule.final_factor", "1", "got 2"]),
        (["schedule.power=0"], ["schedule.power", "above 0", "got 0"]),
        (["trainer.accelerator=tpu"], ["trainer.accelerator", "auto, cpu, gpu, mps", "tpu"]),
        (["trainer.devices=2"], ["trainer.devices", "[0]", "got 2"]),
        (["trainer.devices=true"], ["trainer.devices", "[0]", "got True"]),
        (["trainer.devices=[0,1]"], ["trainer.devices", "[0]", "got [0, 1]"]),
        (["epochs=3", "trainer.val_every_epochs=4"], ["trainer.val_every_epochs", "3", "got 4"]),
        (["trainer.early_stopping_patience=0"], ["trainer.early_stopping_patience", "1", "got 0"]),
        (["logger.mode=cloud"], ["logger.mode", "auto, online, offline, disabled", "cloud"]),
        (["logger.project=''"], ["logger.project", "empty"]),
        (["logger.init_timeout_seconds=0"], ["logger.init_timeout_seconds", "seconds", "got 0"]),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)  # fmt: skip
def test_an_invalid_value_is_reported_with_its_key_the_allowed_values_and_the_given_one(
    overrides: list[str], expected: list[str]
) -> None:
    message = refusal(*overrides)
    assert all(part in message for part in expected), message
    assert message.count("\n") == message.count("data.label is missing")  # one problem, one line


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        (["augment.rotation_deg=abc"], "augment.rotation_deg must be a number; got 'abc'"),
        (["augment.noise_std=[1]"], "augment.noise_std must be a number"),
        (["augment.scale=inf"], "augment.scale must be a number; got 'inf'"),
        (["augment.flips=left_right"], "augment.flips must be a list of directions"),
        (["augment.flips=[1]"], "augment.flips must be a list of directions"),
        (
            [*NIFTI, "augment=light_mirrored", "data.label_values={left_kidney: 1, liver: 2}"],
            "augment.flips: left_right mirrors the class 'left_kidney', which has a side, and there is",
        ),
        (["loss.ce_weight=abc"], "loss.ce_weight must be a number; got 'abc'"),
        (["loss.batch_dice=abc"], "loss.batch_dice must be true or false"),
        (["model.network.depth=2.5"], "model.network.depth must be a whole number; got '2.5'"),
        (["img_size=16", "batch_size=1"], "slices of 16 × 16 pixels in batches of 1 are too small"),
        (["img_size=16", "batch_size=1", "model=monai_basic_unet"], "in batches of 1 are too small"),
        (["img_size=native", "crop_size=16", "batch_size=1"], "slices of 16 × 16 pixels in batches of 1"),
    ],
)
def test_settings_that_cannot_be_built_are_reported(overrides: list[str], expected: str) -> None:
    config = compose_config(*overrides)
    check(config)
    with pytest.raises(InputError, match=re.escape(expected)):
        build_parts(config)


@pytest.mark.parametrize(
    ("overrides", "swapped"),
    [
        (["augment=light_mirrored", "axis=axial"], (0, 2, 1)),
        (["augment=light_mirrored", "axis=sagittal"], ()),
        (["augment=light", "axis=axial"], ()),
    ],
)
def test_left_and_right_classes_are_swapped_when_slices_are_mirrored(
    overrides: list[str], swapped: tuple[int, ...]
) -> None:
    config = compose_config(*NIFTI, *overrides, "data.label_values={kidney_l: 1, kidney_r: 2}")
    assert build_parts(config).swapped_classes == swapped


def test_all_problems_are_reported_at_once() -> None:
    lines = refusal("lr=-1", "axis=axail", "split.guard_mm=-3", "logger.mode=cloud").splitlines()
    assert len(lines) == 4
    assert {line.split()[0] for line in lines} == {"lr", "axis", "split.guard_mm", "logger.mode"}


@pytest.mark.parametrize(
    "overrides",
    [
        ("img_size=16", "batch_size=1", "epochs=1", "loader.slices_per_epoch=1", "trainer.val_every_epochs=1"),
        ("lr=10", f"seed={2**32 - 1}", "loader.slices_per_epoch=null", "optimiser.gradient_clip=null"),
        ("precision=16", "trainer.devices=[0]", "trainer.early_stopping_patience=1", "optimiser.ema_decay=0.99"),
        ("precision=32", "split.guard_mm=0", "loader.foreground_fraction=0", "logger=none"),
        (*FILES, "data.label_values={left: 1, right: [2, 5]}", "intensity=mr"),
    ],
)
def test_boundary_values_pass(overrides: tuple[str, ...]) -> None:
    check(compose_config(*overrides))


@given(lr=st.floats() | st.floats(-1, 11))
def test_only_learning_rates_above_0_and_up_to_10_pass(valid: TrainConfig, lr: float) -> None:
    config = replace(valid, lr=lr)
    if math.isfinite(lr) and 0 < lr <= 10:
        check(config)
    else:
        with pytest.raises(InputError, match=r"^lr must be"):
            check(config)


@given(val=st.floats(0.01, 0.5), test=st.floats(0.01, 0.5))
def test_only_fractions_that_leave_a_fifth_for_training_pass(valid: TrainConfig, val: float, test: float) -> None:
    config = replace(valid, split=replace(valid.split, val_fraction=val, test_fraction=test))
    if val + test <= 0.8:
        check(config)
    else:
        with pytest.raises(InputError, match="to leave enough for training"):
            check(config)


def test_output_and_cache_folders_default_to_the_checkout(valid: TrainConfig, tmp_path: Path, monkeypatch) -> None:
    root = Path(__file__).resolve().parents[2]
    monkeypatch.chdir(tmp_path)
    config = compose_config()
    assert (Path(config.output_dir), Path(config.cache_dir)) == (root / "outputs", root / ".cache")


def test_a_configuration_survives_a_yaml_round_trip() -> None:
    config = compose_config(*FILES, "data.label_values={left: 1, right: [2, 5]}", "lr=3e-4", "logger.tags=[a,b]")
    text = OmegaConf.to_yaml(OmegaConf.structured(config))
    assert parse(OmegaConf.create(text)) == config
