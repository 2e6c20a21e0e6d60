"""What the program knows of itself: where its configuration and studies lie, and by which name it was started.

conf/ and experiments/ are part of an installed package; in a checkout, also one installed with `pip install -e`, they
lie beside train.py.
"""

import os
import sys
from importlib.resources import files
from pathlib import Path

_PACKAGE = Path(str(files("spleen"))).resolve()


def checkout() -> Path | None:
    """The folder of the repository that the package is run from; None for an installed package."""
    return None if (_PACKAGE / "conf").is_dir() else _PACKAGE.parent


def conf_folder() -> Path:
    """The folder of Hydra's config groups."""
    return (checkout() or _PACKAGE) / "conf"


def experiments_folder() -> Path:
    """The folder of the studies that come with the program."""
    return (checkout() or _PACKAGE) / "experiments"


def work_folder() -> Path:
    """Where outputs/ and .cache/ are by default: in the repository, or for an installation in the current folder."""
    return checkout() or Path.cwd()


def python_path() -> str:
    """The PYTHONPATH with which another process finds this package and its Hydra plugins, whatever folder it is in."""
    return os.pathsep.join(filter(None, [str(checkout() or ""), os.environ.get("PYTHONPATH")]))


def train_command() -> str:
    """What starts a training: as this process was started if that was by train.py, else the installed command."""
    return "python train.py" if Path(sys.argv[0]).name == "train.py" else "spleen train"
