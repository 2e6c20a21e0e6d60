"""The identity of a job: which settings change it and which do not."""

import os
import shutil
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spleen.config import identity as identities
from spleen.config.datasets import find_dataset
from spleen.config.identity import identity, known_identity, settings_with_effect
from spleen.config.parsing import parse
from spleen.config.schema import TrainConfig
from spleen.records.effect import WITHOUT_EFFECT, has_effect
from tests._helpers.small_run import SmallCt, compose_config, small_ct


@pytest.fixture(scope="module")
def ct(tmp_path_factory: pytest.TempPathFactory) -> SmallCt:
    return small_ct(tmp_path_factory.mktemp("ct"))


def identity_with_files(config: TrainConfig) -> str:
    return identity(config, find_dataset(config).cases)


def identity_of(*overrides: str) -> str:
    return identity_with_files(compose_config(*overrides))


@pytest.mark.parametrize(
    "same",
    [
        ("lr=0.002", "lr=2e-3"),
        ("split.seed=0",),
        ("augment=light", "augment.shear=0.050"),
        ("augment.shear=5e-2", "model.network.dropout=0"),
        ("output_dir=/elsewhere", "cache_dir=/nowhere"),
        ("study=another", "debug=true", "trainer.progress=false"),
        ("logger=none",),
        ("logger.mode=offline", "logger.tags=[a,b]", "logger.name=mine"),
        ("loader.num_workers=2",),
    ],
    ids=" ".join,
)
def test_equivalent_spellings_and_settings_without_effect_keep_the_identity(same: tuple[str, ...]) -> None:
    assert identity_of(*same) == identity_of()


@pytest.mark.parametrize(
    "other",
    [
        "lr=0.0020001",
        "seed=1",
        "max_minutes=5",
        "split.seed=1",
        "img_size=129",
        "axis=axial",
        "augment=none",
        "augment.flips=[left_right]",
        "augment.flips=[superior_inferior]",
        "model=unet_wide",
        "model.network.norm=group",
        "loss.label_smoothing=0.1",
        "loss=tversky",
        "data.seed=1",
        "data.noise_hu=0",
        "epochs=11",
        "precision=32",
        "trainer=cpu",
        "trainer.early_stopping_patience=5",
        "optimiser.ema_decay=0.99",
        "intensity.window_width=350",
    ],
)
def test_every_setting_with_an_effect_changes_the_identity(other: str) -> None:
    assert identity_of(other) != identity_of()


def test_every_setting_counts_unless_listed_as_without_effect_with_a_reason() -> None:
    warm = "init_from=run", "init_lr_factor=0.5", "freeze=encoder"
    cascade = "roi_from=run", "roi_margin_mm=10", "roi_classes=[organ]"
    added = *warm, *cascade, "max_minutes=5", "score_test=false"  # without them, runs keep their earlier identity
    config = compose_config("data=nifti", "data.image=ct.nii.gz", "data.label=organ.nii.gz", *added)
    counted = settings_with_effect(config)
    assert {"lr", "split.guard_mm", "model.network.width", "augment.flips", "trainer.accelerator"} <= set(counted)
    groups = {key.split(".")[0] for key in counted}
    left_out = {key for key in WITHOUT_EFFECT if "." not in key}
    assert {"output_dir", "cache_dir", "study", "debug", "logger"} <= left_out
    assert groups | {"init_from", "roi_from"} == set(vars(config)) - left_out  # these two count by their content
    assert all(not has_effect(key) and reason for key, reason in WITHOUT_EFFECT.items())
    assert has_effect("logger_of_mine")  # only shares a prefix with a group


def test_numbers_count_by_value_not_by_type() -> None:
    config = compose_config("augment=none")

    @given(st.integers(0, 10**6))
    def check(number: int) -> None:
        config.augment["elastic_spacing"] = number
        as_integer = identity_with_files(config)
        config.augment["elastic_spacing"] = float(number)
        assert identity_with_files(config) == as_integer

    check()


def test_identity_survives_a_round_trip_through_the_recorded_configuration() -> None:
    from omegaconf import OmegaConf

    config = compose_config("lr=3e-4", "data.label_values=[1]", "model=monai_basic_unet")
    text = OmegaConf.to_yaml(OmegaConf.structured(config))
    assert identity_with_files(parse(OmegaConf.create(text))) == identity_with_files(config)


def test_jobs_with_the_loss_that_was_monais_keep_their_identity() -> None:
    settings = settings_with_effect(compose_config("loss=dice_focal"))
    assert settings["loss._target_"] == "monai.losses.DiceFocalLoss"
    named = compose_config("loss=dice_focal", "loss._target_=monai.losses.DiceFocalLoss")
    assert settings_with_effect(named) == settings


def test_identity_depends_on_file_content_but_not_on_path_or_mtime(ct: SmallCt, tmp_path: Path) -> None:
    def of(image: Path, label: Path) -> str:
        return identity_of(
            "data=nifti", f"data.image={image}", f"data.label={label}", f"cache_dir={tmp_path / 'cache'}"
        )

    here = of(ct.image, ct.label)
    copied = [Path(shutil.copy(path, tmp_path / f"copy_of_{path.name}")) for path in (ct.image, ct.label)]
    assert of(*copied) == here
    os.utime(copied[0], (1, 1))
    assert of(*copied) == here
    content = bytearray(copied[0].read_bytes())
    content[-1] ^= 1
    copied[0].write_bytes(content)
    changed = of(*copied)
    assert changed != here
    assert of(copied[1], copied[1]) not in (here, changed)


def test_a_job_with_missing_files_has_no_identity() -> None:
    config = compose_config("data=nifti", "data.image=/no/image.nii.gz", "data.label=/no/label.nii.gz")
    assert known_identity(config, find_dataset(config).cases) is None
    with pytest.raises(OSError, match="image"):
        identity_with_files(config)


def test_raising_the_format_version_changes_every_identity(monkeypatch: pytest.MonkeyPatch) -> None:
    before = identity_of()
    monkeypatch.setattr(identities, "FORMAT", identities.FORMAT + 1)
    assert identity_of() != before
