"""Shared by the end-to-end tests: a small CT on disk, composed configurations, and trainings that take seconds."""

import csv
import json
import time
from copy import deepcopy
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
from hydra import compose, initialize_config_dir
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig

from spleen.config.checking.checks import check
from spleen.config.parsing import parse
from spleen.config.schema import TrainConfig
from spleen.runs.main import register_resolvers
from spleen.runs.train import run
from tests._helpers.nifti import ras_affine, save_stored_as

REPOSITORY = Path(__file__).resolve().parents[2]
_GROUPS = {"hydra.searchpath", *(path.name for path in (REPOSITORY / "conf").iterdir() if path.is_dir())}
SPACING_MM = (1.5, 1.25, 3.0)

# Trains in seconds on one core, whatever the defaults are.
SMALL = (
    "data=nifti",
    "axis=axial",
    "img_size=32",
    "model=unet",
    "model.network.width=4",
    "model.network.depth=2",
    "model.size_multiple=4",
    "model.network.foreground_prior=null",  # a Dice loss alone has little gradient where foreground is rare
    "epochs=3",
    "lr=3e-2",
    "schedule=constant",
    "loss=dice_ce",
    "loss.ce_weight=0",
    "batch_size=4",
    "loader.slices_per_epoch=48",
    "loader.foreground_fraction=0.5",
    "context_slices=0",
    "resize=keep_aspect",
    "seed=0",
    "optimiser.ema_decay=null",
    "split.val_fraction=0.15",
    "split.test_fraction=0.2",
    "split.guard_mm=3",
    "split.test_blocks=2",
    "precision=32",
    "intensity=ct",
    "intensity.window_level=50",
    "intensity.window_width=400",
    "augment=light",
    "trainer=cpu",
    "trainer.progress=false",
    "logger=none",
    "report=false",
)


@dataclass(frozen=True)
class SmallCt:
    """A CT on disk with its label, and both arrays in RAS."""

    image: Path
    label: Path
    hu: np.ndarray
    values: np.ndarray

    @property
    def overrides(self) -> tuple[str, str]:
        return f"data.image={self.image}", f"data.label={self.label}"


def small_ct(folder: Path, image_axes: str = "RAS", label_axes: str = "RAS") -> SmallCt:
    """48 × 40 × 24 voxels: a body in air with an off-centre organ brighter than its surroundings.

    Label values: 3 for the organ's lower half, 4 for its upper half, and 7 for a second, dark organ.
    """
    i, j, k = np.mgrid[:48, :40, :24].astype(np.float64)
    body = ((i - 23.5) / 20) ** 2 + ((j - 19.5) / 17) ** 2 < 1
    organ = ((i - 14) / 8) ** 2 + ((j - 22) / 9) ** 2 + ((k - 11) / 9.5) ** 2 < 1
    dark = ((i - 32) / 7) ** 2 + ((j - 17) / 8) ** 2 + ((k - 12) / 9.5) ** 2 < 1
    hu = np.where(body, 40.0, -1000.0)
    hu[organ], hu[dark] = 180.0, -90.0
    hu += np.random.default_rng(3).normal(0.0, 15.0, hu.shape)
    values = np.where(organ, np.where(k < 11, 3, 4), np.where(dark, 7, 0)).astype(np.uint8)
    hu, affine = hu.astype(np.float32), ras_affine(SPACING_MM)
    image = save_stored_as(folder / "scan7.nii.gz", image_axes, hu, affine)
    label = save_stored_as(folder / "scan7_organs.nii.gz", label_axes, values, affine)
    return SmallCt(image, label, hu, values)


def small(*overrides: str) -> tuple[str, ...]:
    """The small settings with the overrides applied; overriding a group also drops that group's values."""
    given = {override.split("=")[0] for override in overrides}
    kept = (setting for setting in SMALL if not {setting.split("=")[0], setting.split(".")[0]} & given)
    return (*kept, *overrides)


def compose_config(*overrides: str) -> TrainConfig:
    """The configuration as `python train.py OVERRIDES` would parse it, not yet checked.

    Composing takes Hydra 0.3 s, so each choice of groups is composed once and the values are applied to a copy.
    """
    groups = tuple(override for override in overrides if override.split("=")[0] in _GROUPS)
    values = OverridesParser.create().parse_overrides([o for o in overrides if o not in groups])
    tree = deepcopy(_compose(groups))
    ConfigLoaderImpl._apply_overrides_to_config(values, tree)
    return parse(tree)


@cache
def _compose(groups: tuple[str, ...]) -> DictConfig:
    register_resolvers()
    with initialize_config_dir(str(REPOSITORY / "conf"), version_base="1.3"):
        return compose("train", list(groups))


def train(folder: Path, *overrides: str, name: str = "now") -> Path:
    """Train under `folder` with the small settings and the overrides; returns the run folder, called `name`."""
    run_folder = folder / "outputs" / "small" / name
    folders = f"output_dir={folder / 'outputs'}", f"cache_dir={folder / 'cache'}"
    config = compose_config(*small("study=small", *folders, *overrides))
    check(config)
    run(config, run_folder, time.time())
    return run_folder


def rows(path: Path) -> list[dict[str, str]]:
    """The rows of a CSV file."""
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def summary(run_folder: Path) -> dict:
    """summary.json of a run."""
    content: dict = json.loads((run_folder / "summary.json").read_text())
    return content
