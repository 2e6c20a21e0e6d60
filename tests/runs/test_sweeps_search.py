"""The search's storage on disk, and how it handles finished, pruned and killed trials."""

import subprocess
import sys
from pathlib import Path

import optuna
import pytest
from optuna.trial import TrialState

from spleen.errors import InputError, Pruned
from spleen.runs.sweeps.search import Search, SearchSettings, TrialReporter, space_from_bounds, space_from_choices
from spleen.system.locks import folder_lock

SPACE = {
    "lr": space_from_bounds("lr", 1e-4, 1e-1, log=True, whole=False),
    "augment": space_from_choices("a", ["x", "y"]),
}


def settings(folder: Path, n_trials: int = 4) -> SearchSettings:
    return SearchSettings(folder / "deep" / "search.journal", "tune", n_trials, 0, startup_trials=2, warmup_epochs=1)


def reporter(folder: Path, number: int) -> TrialReporter:
    return TrialReporter(settings(folder).storage, "tune", number, folder / f"run{number}")


def test_trials_are_listed_best_first_and_persist_on_disk(tmp_path: Path) -> None:
    search = Search(settings(tmp_path), SPACE)
    for dice in (0.3, 0.8, 0.5):
        reporter(tmp_path, search.ask().number).complete(dice)
    again = Search(settings(tmp_path), SPACE)
    assert [trial.value for trial in again.trials()] == [0.8, 0.5, 0.3]
    assert again.remaining() == 1
    assert again.trials()[0].user_attrs["run_folder"] == str(tmp_path / "run1")


def test_a_trial_gives_overrides_within_the_bounds(tmp_path: Path) -> None:
    overrides = dict(text.split("=") for text in Search(settings(tmp_path), SPACE).ask().overrides)
    assert 1e-4 <= float(overrides["lr"]) <= 1e-1
    assert overrides["augment"] in ("x", "y")


def test_a_trial_below_the_median_of_the_others_is_pruned_after_the_warm_up(tmp_path: Path) -> None:
    """The others had 0.6 and 0.8 after epoch 2, so their median is 0.7."""
    search = Search(settings(tmp_path), SPACE)
    for dice in (0.6, 0.8):
        good = reporter(tmp_path, search.ask().number)
        for epoch in range(3):
            good.report(epoch, dice)
        good.complete(dice)
    weak = reporter(tmp_path, search.ask().number)
    weak.report(0, 0.1)  # the warm-up
    with pytest.raises(Pruned, match=r"after epoch 3: validation Dice 0\.6500"):
        weak.report(2, 0.65)
    assert [trial.state for trial in search.trials()][-1] == TrialState.PRUNED
    fine = reporter(tmp_path, search.ask().number)
    fine.report(2, 0.75)


def test_an_epoch_without_a_score_is_left_out(tmp_path: Path) -> None:
    search = Search(settings(tmp_path), SPACE)
    reporter(tmp_path, search.ask().number).report(0, float("nan"))
    assert search.trials()[0].intermediate_values == {}


def test_a_trial_without_a_result_is_marked_as_failed_and_counts(tmp_path: Path) -> None:
    search = Search(settings(tmp_path), SPACE)
    completed, silent = search.ask(), search.ask()
    reporter(tmp_path, completed.number).complete(0.5)
    search.close([completed, silent])
    assert [trial.state for trial in search.trials()] == [TrialState.COMPLETE, TrialState.FAIL]
    assert search.remaining() == 2


def test_the_trial_of_a_killed_process_is_repeated_with_the_same_settings(tmp_path: Path) -> None:
    """A real process asks for a trial and is killed; trials of live processes are left alone."""
    code = f"""
import os, signal
from pathlib import Path
from tests.runs.test_sweeps_search import SPACE, settings
from spleen.runs.sweeps.search import Search
print(*Search(settings(Path({str(tmp_path)!r})), SPACE).ask().overrides, flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""
    killed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert killed.returncode == -9, killed.stderr
    search = Search(settings(tmp_path), SPACE)
    assert search.repeated == 1
    assert search.remaining() == 4
    assert search.ask().overrides == tuple(killed.stdout.split())
    assert Search(settings(tmp_path), SPACE).repeated == 0  # this process is alive


def test_the_trial_of_a_job_that_outlives_the_process_that_asked_for_it_is_left_alone(tmp_path: Path) -> None:
    """As on a cluster, where the jobs go on after the shell on the login node has died."""
    code = f"""
from pathlib import Path
from tests.runs.test_sweeps_search import SPACE, reporter, settings
from spleen.runs.sweeps.search import Search
reporter(Path({str(tmp_path)!r}), Search(settings(Path({str(tmp_path)!r})), SPACE).ask().number)
"""
    subprocess.run([sys.executable, "-c", code], check=True)
    with folder_lock(tmp_path / "run0"):
        assert Search(settings(tmp_path), SPACE).repeated == 0
    assert Search(settings(tmp_path), SPACE).repeated == 1


def test_of_a_trial_that_has_ended_nothing_is_reported(tmp_path: Path) -> None:
    """Its run may be resumed by hand."""
    search = Search(settings(tmp_path), SPACE)
    trial = search.ask()
    search.close([trial])
    late = reporter(tmp_path, trial.number)
    late.report(0, 0.5)
    late.complete(0.5)
    (ended,) = search.trials()
    assert (ended.state, ended.value, ended.intermediate_values) == (TrialState.FAIL, None, {})


def test_a_search_cannot_be_continued_with_other_choices(tmp_path: Path) -> None:
    Search(settings(tmp_path), SPACE).ask()
    other = SPACE | {"augment": space_from_choices("a", ["x", "z"])}
    with pytest.raises(
        InputError, match=r"augment: .* the values x, y, and now from the values x, z, .* study=ANOTHER"
    ):
        Search(settings(tmp_path), other)
    wider = Search(settings(tmp_path), SPACE | {"lr": space_from_bounds("lr", 1e-5, 1.0, log=True, whole=False)})
    assert wider.remaining() == 3
    wider.ask()


def test_a_trial_can_be_completed_with_the_result_of_an_earlier_run(tmp_path: Path) -> None:
    search = Search(settings(tmp_path), SPACE)
    search.tell(search.ask(), 0.7, tmp_path / "earlier")
    search.tell(search.ask(), None, tmp_path / "without_score")
    assert [trial.state for trial in search.trials()] == [TrialState.COMPLETE, TrialState.FAIL]
    assert search.trials()[0].value == 0.7


@pytest.mark.parametrize(
    ("low", "high", "log", "message"),
    [
        (1.0, 1.0, False, "lower bound must be below the upper bound; got 1 to 1"),
        (0.0, 1.0, True, "lower bound must be below the upper bound and positive; got 0 to 1"),
    ],
)
def test_invalid_bounds_are_refused(low: float, high: float, log: bool, message: str) -> None:
    with pytest.raises(InputError, match=message):
        space_from_bounds("lr", low, high, log=log, whole=False)


def test_integer_bounds_give_integers() -> None:
    assert isinstance(space_from_bounds("epochs", 3, 9, log=False, whole=True), optuna.distributions.IntDistribution)


def test_a_choice_with_a_single_value_is_refused() -> None:
    with pytest.raises(InputError, match="at least two different values; got x, x"):
        space_from_choices("augment", ["x", "x"])
