"""The package as users get it: built as a wheel, installed into its own environment, run in an empty folder.

The libraries come from the test environment, the package and its plugins only from the wheel.
"""

import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from spleen import __version__
from tests._helpers.small_run import REPOSITORY, summary
from tests._helpers.sweeps import needs

SOURCES = ("setup.py", "pyproject.toml", "README.md", "LICENSE", "spleen", "hydra_plugins", "conf", "experiments")
SMALL = (
    "data.matrix=64", "data.n_slices=24", "img_size=32", "epochs=2", "loader.slices_per_epoch=24",
    "model.network.width=4", "trainer=cpu", "trainer.progress=false", "logger=none",
)  # fmt: skip


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built from the source distribution, which is built from a copy of the tree."""
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    source.mkdir()
    for name in SOURCES:
        path = REPOSITORY / name
        if path.is_dir():
            shutil.copytree(path, source / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(path, source / name)
    build = "import sys; from setuptools import build_meta; build_meta.build_sdist(sys.argv[1])"
    _run([sys.executable, "-c", build, str(folder)], source)
    (sdist,) = folder.glob("*.tar.gz")
    no_network = "--no-deps", "--no-index", "--no-build-isolation"
    _run([sys.executable, "-m", "pip", "wheel", *no_network, "--wheel-dir", str(folder), str(sdist)], folder)
    (built,) = folder.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def environment(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bin/ of a new environment that contains only the wheel."""
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder, with_pip=False)
    (site_packages,) = folder.glob("lib/python*/site-packages")
    libraries = [path for path in sys.path if path.endswith("site-packages")]
    # Python ignores .pth files inside these folders, so an editable installation there is not found.
    (site_packages / "libraries.pth").write_text("\n".join(libraries))
    python = str(folder / "bin" / "python")
    no_network = "--no-deps", "--no-index"
    _run([sys.executable, "-m", "pip", "--python", python, "install", *no_network, str(wheel)], folder)
    return folder / "bin"


def _run(command: list[str], folder: Path, exit_code: int = 0) -> subprocess.CompletedProcess[str]:
    inherited = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "HYDRA_FULL_ERROR")}
    done = subprocess.run(
        command, cwd=folder, env={**inherited, "OMP_NUM_THREADS": "1"}, stdin=subprocess.DEVNULL,
        capture_output=True, text=True, timeout=500,
    )  # fmt: skip
    assert done.returncode == exit_code, done.stdout + done.stderr
    return done


def _installed_files(environment: Path) -> set[Path]:
    return {path for path in environment.parent.rglob("*") if "__pycache__" not in path.parts}


def test_the_wheel_contains_every_config_study_and_plugin(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    shipped = [path for folder in ("conf", "experiments") for path in (REPOSITORY / folder).rglob("*.*")]
    assert len(shipped) > 40
    assert {f"spleen/{path.relative_to(REPOSITORY).as_posix()}" for path in shipped} <= names
    modules = [path for folder in ("spleen", "hydra_plugins") for path in (REPOSITORY / folder).rglob("*.py")]
    assert {path.relative_to(REPOSITORY).as_posix() for path in modules} <= names
    assert "spleen/py.typed" in names
    rooms = {name.split("/")[0] for name in names}
    assert rooms == {"spleen", "hydra_plugins", f"spleen-{__version__}.dist-info"}


def test_import_spleen_is_light_and_gives_the_version(environment: Path, tmp_path: Path) -> None:
    script = "import sys, spleen; print(spleen.__file__, spleen.__version__, *sys.modules, sep='\\n')"
    place, version, *modules = _run([str(environment / "python"), "-c", script], tmp_path).stdout.splitlines()
    assert Path(place).is_relative_to(environment.parent)
    assert version == __version__
    assert not {"torch", "numpy", "hydra", "typer"} & set(modules)
    for command in ([environment / "spleen"], [environment / "python", "-m", "spleen"]):
        assert _run([*map(str, command), "--version"], tmp_path).stdout == f"spleen {__version__}\n"


@pytest.mark.slow
def test_the_installed_command_behaves_like_train_py(environment: Path, tmp_path: Path) -> None:
    command = str(environment / "spleen")
    own = tmp_path / "experiments" / "mine"
    own.mkdir(parents=True)
    (own / "study.yaml").write_text("# Is it mine?\nhydra: {sweeper: {params: {seed: '0,1'}}}\n")
    help_text = _run([command, "train", "--help"], tmp_path).stdout
    assert "\n  spleen train lr=1e-4 img_size=512\n" in help_text
    assert "train.py" not in help_text
    studies = dict(re.findall(r"^  experiment=(\w+) +(.+)$", help_text, re.M))
    assert studies["mine"] == "Is it mine?"
    assert set(studies) - {"mine"} == {path.parent.name for path in REPOSITORY.glob("experiments/*/study.yaml")}
    assert "imgsize" in _run([command, "train", "imgsize=64"], tmp_path, exit_code=2).stderr
    shown = _run([command, "train", "--cfg", "job", "--resolve", "lr=1e-4"], tmp_path).stdout
    assert "lr: 0.0001\n" in shown
    assert f"output_dir: {tmp_path / 'outputs'}\n" in shown
    assert f"cache_dir: {tmp_path / '.cache'}\n" in shown
    assert {path.name for path in tmp_path.iterdir()} == {"experiments"}


@pytest.mark.slow
def test_an_installation_trains_predicts_and_exports_in_an_empty_folder(environment: Path, tmp_path: Path) -> None:
    before, command = _installed_files(environment), str(environment / "spleen")
    trained = _run([command, "train", *SMALL], tmp_path).stdout
    assert f"Results are in {tmp_path / 'outputs' / 'train'}" in trained
    run = tmp_path / "outputs" / "latest"
    assert summary(run)["status"] == "finished"
    assert summary(run)["git_commit"] is None
    assert "this run is finished" in _run([command, "train", f"resume={run}"], tmp_path).stdout

    (image,) = tmp_path.glob(".cache/phantom/*/*/image.nii.gz")
    _run([command, "predict", str(run), str(image), "-o", "mask.nii.gz"], tmp_path)
    mask, given = nib.load(tmp_path / "mask.nii.gz"), nib.load(image)
    assert mask.shape == given.shape
    np.testing.assert_array_equal(mask.affine, given.affine)

    _run([command, "export", str(run), "--format", "torchscript"], tmp_path)
    assert (tmp_path / "model.pt").stat().st_size > 10_000
    if importlib.util.find_spec("onnxscript"):
        _run([command, "export", str(run)], tmp_path)
        assert json.loads((tmp_path / "model.onnx.json").read_text())["written_with"]["spleen"] == __version__

    assert _installed_files(environment) == before
    assert not {"conf", "multirun", "wandb"} & {path.name for path in tmp_path.iterdir()}


@pytest.mark.slow
@pytest.mark.parametrize("launcher", ["basic", "joblib"])
def test_an_installation_runs_sweeps_and_studies(environment: Path, tmp_path: Path, launcher: str) -> None:
    if launcher == "joblib":
        needs("hydra_plugins.hydra_joblib_launcher")
    before, command = _installed_files(environment), str(environment / "spleen")
    settings = *SMALL, f"hydra/launcher={launcher}"
    sweep = _run([command, "train", "-m", *settings, "context_slices=0,1", "study=neighbours"], tmp_path).stdout
    assert "2 finished job(s)" in sweep
    study = [command, "train", "experiment=size_and_rate", *settings, "img_size=32", "lr=1e-3,1e-2", "seed=0"]
    assert "2 jobs to run" in _run(study, tmp_path).stdout
    assert "2 of 2 jobs are already finished" in _run(study, tmp_path).stdout
    assert len(list(tmp_path.glob("outputs/neighbours/*/*/summary.json"))) == 2
    assert len(list(tmp_path.glob("outputs/size_and_rate/*/summary.json"))) == 2
    assert _installed_files(environment) == before


@pytest.mark.slow
def test_an_installation_trains_a_custom_network_on_two_processes(environment: Path, tmp_path: Path) -> None:
    unet = (REPOSITORY / "conf" / "model" / "unet.yaml").read_text()
    (tmp_path / "own" / "model").mkdir(parents=True)
    (tmp_path / "own" / "model" / "mine.yaml").write_text(re.sub(r"^name: \w+", "name: mine", unet, flags=re.M))
    command = [str(environment / "spleen"), "train", "--config-dir", "own", "model=mine", *SMALL]
    _run([*command, "trainer.strategy=ddp", "trainer.devices=2"], tmp_path)
    assert summary(tmp_path / "outputs" / "latest")["model"] == "mine"
