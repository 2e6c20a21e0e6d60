"""Shared fixtures, and run-time checks of the shapes and types of every function in the package."""

import os
from pathlib import Path

# While the import hook loads a module of the package, Python ignores the cached bytecode of everything it imports.
# Importing the large libraries first saves half a minute.
import hydra  # noqa: F401
import matplotlib.figure  # noqa: F401
import nibabel  # noqa: F401
import pytest
import pytorch_lightning  # noqa: F401
import scipy.ndimage
import scipy.spatial  # noqa: F401
from hypothesis import settings
from jaxtyping import config as type_checks
from jaxtyping import install_import_hook

import tests._helpers.typecheck  # noqa: F401  (the import hook refers to it by name only)

os.environ.setdefault("WANDB_MODE", "offline")
# How long an example takes depends on the machine, not on the code.
settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")
install_import_hook("spleen", "tests._helpers.typecheck.checked")

SHARED_DATA = Path(__file__).resolve().parents[2] / "shared" / "data"


@pytest.fixture(scope="session")
def spleen_ct() -> Path:
    """The folder of the real abdominal CT (image.nii.gz, label.nii.gz)."""
    folder = SHARED_DATA / "spleen_ct"
    if not folder.is_dir():
        pytest.skip("the real CT is not on this machine (it is not part of the repository)")
    return folder


@pytest.fixture
def without_type_checks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Wrong values reach the functions of the package, as they do for a user."""
    monkeypatch.setattr(type_checks, "jaxtyping_disable", True)


def pytest_configure(config: pytest.Config) -> None:
    """Silence beartype's deprecation warning about type hints inside OmegaConf."""
    config.addinivalue_line("filterwarnings", "ignore::beartype.roar.BeartypeDecorHintPep585DeprecationWarning")
