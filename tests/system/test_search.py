"""`python train.py -m experiment=tune` end to end: trials, their storage, and continuing with the same command."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests._helpers.small_run import REPOSITORY, small, small_ct


def tune(folder: Path, *overrides: str) -> str:
    """Returns what the command prints."""
    places = f"output_dir={folder / 'outputs'}", f"cache_dir={folder / 'cache'}"
    free = {"lr", "model.network.width", "augment"}  # the search chooses them
    fixed = [override for override in small(*overrides) if override.split("=")[0] not in free]
    command = [sys.executable, str(REPOSITORY / "train.py"), "-m", "experiment=tune", *fixed, *places]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=folder)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
def test_a_search_continues_where_it_stopped_and_reports_the_best_trial(tmp_path: Path) -> None:
    ct = small_ct(tmp_path)
    settings = (*ct.overrides, "data.label_values=[3,4]", "model.network.depth=2", "epochs=2")
    first = tune(tmp_path, *settings, "hydra.sweeper.n_trials=2", "hydra.sweeper.startup_trials=1")
    assert "2 of 2 trials remaining" in first
    assert len(list((tmp_path / "outputs" / "tune").glob("lr=*/summary.json"))) == 2
    again = tune(tmp_path, *settings, "hydra.sweeper.n_trials=3", "hydra.sweeper.startup_trials=1")
    assert "1 of 3 trials remaining" in again
    assert "3 complete, 0 pruned, 0 failed" in again
    assert "best by validation: trial" in again
    assert "search" not in again.split("finished job(s)")[1].splitlines()[2]  # no column of trial numbers
