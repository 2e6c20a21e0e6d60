"""`python train.py -m experiment=tune` end to end: trials, their storage, and continuing with the same command."""

import subprocess
import sys
from pathlib import Path

import pytest

from spleen.runs.watching.study import Watcher
from tests._helpers.small_run import REPOSITORY, small, small_ct


def tune(folder: Path, *overrides: str) -> str:
    """Returns what the command prints."""
    done = command(folder, *overrides)
    assert done.returncode == 0, done.stderr
    return done.stdout


def command(folder: Path, *overrides: str) -> subprocess.CompletedProcess[str]:
    places = f"output_dir={folder / 'outputs'}", f"cache_dir={folder / 'cache'}"
    given = {override.split("=")[0] for override in overrides}
    free = {"lr", "model.network.width", "augment"} - given  # the search chooses them
    fixed = [override for override in small(*overrides) if override.split("=")[0] not in free]
    arguments = [sys.executable, str(REPOSITORY / "train.py"), "-m", "experiment=tune", *fixed, *places]
    return subprocess.run(arguments, capture_output=True, text=True, check=False, cwd=folder)


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


@pytest.mark.slow
def test_a_refused_search_leaves_nothing(tmp_path: Path) -> None:
    done = command(tmp_path, *small_ct(tmp_path).overrides, "axis=axail")
    assert done.returncode == 2
    assert "axail" in done.stderr
    assert not (tmp_path / "outputs").exists()


@pytest.mark.slow
def test_a_search_whose_trials_repeat_one_another_comes_to_its_end(tmp_path: Path) -> None:
    """Three choices and four trials: one at least has no run of its own."""
    ct = small_ct(tmp_path)
    settings = ("data.label_values=[3,4]", "model.network.depth=2", "epochs=1", "lr=1e-2", "model.network.width=4")
    tune(tmp_path, *ct.overrides, *settings, "hydra.sweeper.n_trials=4")
    seen = Watcher(tmp_path / "outputs" / "tune").look()
    assert len(seen.runs) <= 3
    assert not seen.goes_on
