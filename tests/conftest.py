"""Shared fixtures. Shapes and types of every function of the package are checked while the tests run."""

import os
from pathlib import Path

# While the hook runs a module of the package, Python ignores the compiled files of everything that is imported in it.
# So the large libraries come first, which saves half a minute.
import hydra  # noqa: F401
import matplotlib.figure  # noqa: F401
import nibabel  # noqa: F401
import pytest
import pytorch_lightning  # noqa: F401
import scipy.ndimage
import scipy.spatial  # noqa: F401
from hypothesis import settings
from jaxtyping import install_import_hook

import tests._helpers.typecheck  # noqa: F401  (the import hook names it, but does not import it)

os.environ.setdefault("WANDB_MODE", "offline")
# How long an example takes says something about the machine, not about the code.
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


def pytest_configure(config: pytest.Config) -> None:
    """OmegaConf's own classes carry a hint that beartype announces as old."""
    config.addinivalue_line("filterwarnings", "ignore::beartype.roar.BeartypeDecorHintPep585DeprecationWarning")
