"""What tells runs apart on the dashboard: their names, groups, and the hyperparameters at the top of their config."""

from dataclasses import asdict
from pathlib import Path

import pytest

from spleen.runs.sweeps.plan import job_folder
from spleen.runs.tracking.naming import group_name, run_name
from spleen.runs.tracking.run_config import option_name
from spleen.runs.tracking.settings import build_wandb_settings
from tests._helpers.small_run import compose_config

SWEEP = "2026-11-28_08-52-33-123"


@pytest.mark.parametrize(
    ("folder", "name", "group"),
    [
        (f"out/train/{SWEEP}", "axial 32 px lr=0.03 unet seed=0", "train"),  # a single run
        (f"out/train/{SWEEP}/augment=none", "augment=none", f"train {SWEEP}"),  # jobs of a sweep outside of a study
        (f"out/train/{SWEEP}/augment=light,lr=1e-3", "augment=light,lr=1e-3", f"train {SWEEP}"),
        ("out/train/img_size=64,lr=1e-3-0123abcd", "img_size=64,lr=1e-3", "train"),  # a job of a study
        ("out/train/slurm-17.0", "axial 32 px lr=0.03 unet seed=0", "train"),
        ("mine", "axial 32 px lr=0.03 unet seed=0", "train"),  # hydra.run.dir=mine
    ],
)
def test_a_job_is_named_after_what_differs_and_a_sweep_is_a_group(folder: str, name: str, group: str) -> None:
    config = compose_config("axis=axial", "img_size=32", "lr=0.03", "seed=0", "study=train")
    assert run_name(config, Path(folder)) == name
    assert group_name("train", Path(folder)) == group


def test_two_jobs_of_a_sweep_that_differ_in_augmentation_have_different_names() -> None:
    names = {
        build_wandb_settings(
            compose_config(f"augment={augment}", "logger=wandb", "logger.mode=offline"),
            Path("out/train") / SWEEP / job_folder(f"augment={augment}"),
        ).name
        for augment in ("none", "light")
    }
    assert names == {"augment=none", "augment=light"}


def test_a_fold_is_part_of_the_name_and_the_configuration_goes_before_the_folder() -> None:
    config = compose_config("axis=sagittal", "img_size=native", "lr=1e-4", "seed=3", "fold=2")
    assert run_name(config, Path("run")) == "sagittal native grid lr=0.0001 unet seed=3 fold=2"
    given = compose_config("logger=wandb", "logger.mode=offline", "logger.name=mine", "logger.group=ours")
    settings = build_wandb_settings(given, Path("out/train") / SWEEP / "lr=1")
    assert (settings.name, settings.group) == ("mine", "ours")


@pytest.mark.parametrize(
    ("overrides", "group", "name"),
    [
        (("augment=none",), "augment", "none"),
        (("augment=strong",), "augment", "strong"),
        (("augment=light", "augment.noise_std=0.25"), "augment", "light (noise_std=0.25)"),
        (("augment=light", "augment.flips=[left_right]"), "augment", "light_mirrored"),  # the same values
        (("loss=dice_ce",), "loss", "dice_ce"),
        (("loss=dice_ce", "loss.ce_weight=0"), "loss", "dice_ce (ce_weight=0)"),
        (("loss=tversky",), "loss", "tversky"),
        (("schedule=cosine", "schedule.power=2", "schedule.warmup_fraction=0"), "schedule",
         "cosine (power=2, warmup_fraction=0)"),
        (("intensity=ct",), "intensity", "ct"),
    ],
)  # fmt: skip
def test_a_group_is_shown_by_the_name_of_its_option(overrides: tuple[str, ...], group: str, name: str) -> None:
    assert option_name(group, asdict(compose_config(*overrides))[group]) == name


def test_a_class_of_somebody_else_has_its_own_name() -> None:
    assert option_name("loss", {"_target_": "my.losses.BoundaryLoss", "weight": 2.0}) == "BoundaryLoss"
