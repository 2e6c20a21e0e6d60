"""Shared by the multirun tests: a study of two jobs that take seconds, run as a user would run it."""

import importlib.util
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests._helpers.small_run import small, small_ct
from tests.system.test_train_command import TRAIN


def seconds_each(folder: Path) -> tuple[str, ...]:
    """Settings for a job that takes seconds; its data and all its output are in `folder`."""
    ct = small_ct(folder)
    folders = f"output_dir={folder / 'out'}", f"cache_dir={folder / 'cache'}"
    kept = (text for text in small(*ct.overrides, "epochs=1", "data.label_values=[3,4]") if not text.startswith("lr="))
    return (*kept, *folders)


def study(settings: tuple[str, ...], *overrides: str) -> tuple[str, ...]:
    """Arguments for the size_and_rate study with two jobs at 32 pixels."""
    return ("experiment=size_and_rate", *settings, "lr=1e-2,3e-2", *overrides)


def started(folder: Path, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, TRAIN, *arguments],
        cwd=folder,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def wait_for(reached: Callable[[], object], process: subprocess.Popen[str]) -> None:
    until = time.monotonic() + 120
    while not reached():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < until
        time.sleep(0.05)


def job_folders(folder: Path, name: str = "size_and_rate") -> list[Path]:
    return sorted(path for path in (folder / "out" / name).iterdir() if path.is_dir() and not path.name.startswith("."))


def needs(module: str) -> None:
    if importlib.util.find_spec(module) is None:
        pytest.skip(f"{module} is not installed: pip install -c constraints.txt -e '.[dev]'")
