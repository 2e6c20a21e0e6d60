"""Runs and studies as their folders show them; folders and expected values are written by hand."""

import math
import os
import time
from pathlib import Path

import pytest

from spleen.errors import InputError
from spleen.records.plan import SweepPlan, read_plan, write_plan
from spleen.runs.sweeps.heading import job_heading
from spleen.runs.watching.status import WatchedRun, read_watched
from spleen.runs.watching.study import Watcher, sweep_seconds_left
from spleen.runs.watching.view import overview, to_text
from spleen.system.locks import folder_lock
from spleen.system.process import this_process
from tests._helpers.run_folders import set_age, write_config, write_epochs, write_json, write_run

ELSEWHERE = "no-such-host 1 2.0"


def write_progress(run: Path, process: str, age: float = 0.0, moved_ago: float = 0.0, **content: object) -> Path:
    path = run / "progress.json"
    at = {"process": process, "moved_at": time.time() - moved_ago}
    write_json(path, {"doing": "training", **at, **content})
    set_age(path, age)
    return run


def watched(run: Path) -> WatchedRun:
    return read_watched(run, time.time())[0]


def test_a_running_one_is_told_by_its_process_and_its_files(tmp_path: Path) -> None:
    run = write_config(tmp_path / "run", epochs=10)
    (run / "metrics.csv").write_text("epoch,train/loss,val/dice\n0,1.5,0.25\n1,1.25,\n2,1.125,0.75\n3,1.0,0.5\n")
    numbers = {"step": 42, "steps": 100, "slices_per_second": 12.5, "seconds_left": 70.0}
    seen = watched(write_progress(run, this_process(), age=10, **numbers))
    assert (seen.status, seen.doing, seen.epochs_done, seen.epochs) == ("running", "training", 4, 10)
    assert (seen.step, seen.steps, seen.slices_per_second, seen.loss) == (42, 100, 12.5, 1.0)
    assert seen.val_dice[0] == 0.25
    assert math.isnan(seen.val_dice[1])
    assert (seen.last_dice, seen.best_dice) == (0.5, 0.75)
    assert seen.seconds_left == pytest.approx(60, abs=2)  # ten seconds have gone since it was written
    assert seen.sign_of_life == pytest.approx(time.time() - 10, abs=2)


def test_a_process_of_this_machine_runs_however_long_it_is_silent(tmp_path: Path) -> None:
    run = write_config(tmp_path / "run")
    assert watched(write_progress(run, this_process(), age=90_000)).status == "running"
    (run / "progress.json").unlink()
    assert watched(run).status == "stopped"
    with folder_lock(run):
        assert watched(run).status == "running"


def test_a_killed_process_of_this_machine_has_stopped(tmp_path: Path) -> None:
    host, pid, started = this_process().split()
    run = write_progress(
        write_config(tmp_path / "run"), f"{host} {pid} {float(started) - 1000}"
    )  # its id was used again
    assert watched(run).status == "stopped"
    assert watched(run).seconds_left is None


@pytest.mark.parametrize(("age", "status"), [(290, "running"), (310, "stale")])
def test_a_process_of_another_machine_is_stale_after_five_silent_minutes(
    tmp_path: Path, age: float, status: str
) -> None:
    run = write_progress(write_config(tmp_path / "run"), ELSEWHERE, age=age)
    assert watched(run).status == status


def test_runs_that_ended_are_told_apart(tmp_path: Path) -> None:
    finished = watched(write_run(tmp_path / "a", minutes=2.0, val_by_epoch=[0.5, 0.25]))
    assert (finished.status, finished.wall_seconds, finished.best_dice) == ("finished", 120, 0.5)
    pruned = write_config(tmp_path / "b")
    write_json(pruned / "summary.json", {"status": "pruned"})
    assert watched(pruned).status == "pruned"
    failed = write_config(tmp_path / "c")
    write_json(failed / "failed.json", {"message": "the disk is full\nmore", "exit_code": 2})
    assert (watched(failed).status, watched(failed).reason) == ("failed", "the disk is full")
    broken = write_config(tmp_path / "d")
    (broken / "metrics.csv").write_bytes(b"epoch\n\xff\n")
    assert watched(broken).status == "broken"
    assert "metrics.csv" in watched(broken).reason
    assert watched(write_progress(failed, this_process())).status == "running"  # it was started again


def test_a_damaged_cell_and_a_damaged_configuration_are_unknown(tmp_path: Path) -> None:
    run = write_config(tmp_path / "run")
    (run / "metrics.csv").write_text("epoch,train/loss,val/dice\n0,x,0.5\n")
    (run / "config.yaml").write_text("epochs: [1")
    seen = watched(write_progress(run, this_process()))
    assert (seen.status, seen.epochs, seen.last_dice) == ("running", None, 0.5)
    assert math.isnan(seen.loss)


@pytest.mark.parametrize(
    ("finished", "running", "waiting", "expected"),
    [
        ([100.0, 200.0], [60.0], 2, 360),  # 60 + 2 × 150
        ([100.0, 200.0], [60.0, 90.0], 3, 300),  # (60 + 90 + 3 × 150) / 2
        ([100.0], [None, 20.0], 0, 100),  # the longer of two that run at the same time
        ([], [60.0, 30.0], 0, 60),
        ([], [60.0], 1, None),  # nothing tells how long the next one takes
        ([], [None], 0, None),
        ([100.0], [], 3, None),  # nobody works on them
    ],
)
def test_the_time_left_of_a_sweep(
    finished: list[float], running: list[float | None], waiting: int, expected: float | None
) -> None:
    left = sweep_seconds_left(finished, running, waiting)
    assert left == (None if expected is None else pytest.approx(expected))


def a_study(folder: Path) -> Path:
    """Four of six planned jobs have begun: two finished, of one arm, one running, one failed."""
    write_run(folder / "s0", val=0.5, lr=1e-3, seed=0, minutes=2.0, val_by_epoch=[0.25, 0.5])
    write_run(folder / "s1", val=0.75, lr=1e-3, seed=1, minutes=4.0, val_by_epoch=[0.5, 0.75])
    write_epochs(write_config(folder / "s2", lr=1e-2), [0.125])
    write_progress(folder / "s2", this_process(), seconds_left=80.0, slices_per_second=20.0)
    write_json(write_config(folder / "s3") / "failed.json", {"message": "the disk is full", "exit_code": 2})
    write_plan(folder, SweepPlan(6, ("s0", "s1", "s2", "s3", "s4", "s5")))
    return folder


def test_a_study_is_counted_and_its_best_arm_named(tmp_path: Path) -> None:
    snapshot = Watcher(a_study(tmp_path / "study")).look()
    assert [path.name for path in snapshot.not_started] == ["s4", "s5"]
    assert snapshot.goes_on
    assert overview(snapshot) == [
        str(tmp_path / "study"),
        "2 of 6 finished, 1 running, 1 failed, 2 not started",
        "best so far: unet, axial, 64 px, lr 1e-03 (val Dice 0.6250, 2 runs)",
        "about 7 min left",  # 80 s, and twice the mean of 2 and 4 minutes
    ]
    lines = to_text(snapshot, width=160).splitlines()
    assert [line.split()[0] for line in lines[6:10]] == ["s2", "s3", "s0", "s1"]  # those at work first
    assert lines[6].split() == ["s2", "running", "1/4", "0.1250", "0.1250", "▄", "80", "s", "-", "0", "s", "ago", "20"]
    assert "s3: the disk is full" in lines


def test_a_study_higher_than_the_terminal_keeps_what_is_at_work(tmp_path: Path) -> None:
    lines = to_text(Watcher(a_study(tmp_path / "study")).look(), width=160, height=10).splitlines()
    assert len(lines) <= 9
    assert any(line.split()[:1] == ["s2"] for line in lines)
    assert "more lines; --once shows them all" in "\n".join(lines)


def test_a_search_counts_its_trials(tmp_path: Path) -> None:
    write_run(tmp_path / "a")
    write_plan(tmp_path, SweepPlan(30))
    snapshot = Watcher(tmp_path).look()
    assert (snapshot.n_waiting, snapshot.goes_on, snapshot.seconds_left) == (29, True, None)


def test_a_single_run_gets_a_list_and_ends_with_it(tmp_path: Path) -> None:
    run = write_run(tmp_path / "study" / "a", val_by_epoch=[0.25, 0.5])
    write_plan(tmp_path / "study", SweepPlan(2, ("a", "b")))
    snapshot = Watcher(run).look()
    assert snapshot.is_one_run
    assert not snapshot.goes_on
    lines = [line.split(maxsplit=1) for line in to_text(snapshot).splitlines()[1:]]
    assert lines[:5] == [
        ["status", "finished"], ["epochs", "2/4 done"], ["loss", "-"],
        ["val", "Dice   0.5000, best 0.5000"], ["curve", "▁█"],
    ]  # fmt: skip


def test_a_finished_run_is_read_once_and_a_new_one_is_noticed(tmp_path: Path) -> None:
    write_run(tmp_path / "a", val=0.5, lr=1e-3)
    watcher = Watcher(tmp_path)
    assert watcher.look().best is not None
    (tmp_path / "a" / "metrics.csv").write_bytes(b"\xff")
    write_run(tmp_path / "b", val=0.75, lr=1e-2)
    snapshot = watcher.look()
    assert [run.status for run in snapshot.runs] == ["finished", "finished"]
    assert snapshot.best is not None
    assert snapshot.best.label == "lr 1e-02"


def test_a_stuck_and_a_stale_run_say_so(tmp_path: Path) -> None:
    write_progress(write_config(tmp_path / "a"), this_process(), moved_ago=1500)
    write_progress(write_config(tmp_path / "b"), ELSEWHERE, age=1800)
    text = to_text(Watcher(tmp_path).look(), width=200)
    assert "training: no progress for 25 min" in text
    assert "stale: silent for 30 min" in text
    assert "stale: a run of another machine that has written nothing for 5 min or longer" in text


def test_what_comes_from_strangers_cannot_forge_lines(tmp_path: Path) -> None:
    run = write_progress(write_config(tmp_path / "run"), this_process(), doing="a\x1b[2Kb\nc")
    assert "a\\x1b[2Kb\\nc" in to_text(Watcher(run).look())
    write_run(tmp_path / "s" / "a", axis="\x1b[2J", seed=0)
    assert "\\x1b[2J, 64 px" in "".join(overview(Watcher(tmp_path / "s").look()))


@pytest.mark.parametrize("number", ["1e999", "-1e999", str(10**400), "null", "true", "[]"])
def test_absurd_numbers_are_unknown(tmp_path: Path, number: str) -> None:
    run = write_config(tmp_path / "run")
    (run / "metrics.csv").write_text(f"epoch,train/loss,val/dice\n0,{number},{number}\n1,1.0,0.5\n")
    host = this_process()
    (run / "progress.json").write_text(
        f'{{"doing": "training", "process": "{host}", "moved_at": 1, "step": {number}, "seconds_left": {number}}}'
    )
    assert "best 0.5000" in to_text(Watcher(run).look())


def test_a_name_cannot_forge_lines(tmp_path: Path) -> None:
    write_run(tmp_path / "a\nrunning \x1b[2K")
    text = to_text(Watcher(tmp_path).look(), width=200)
    assert "a\\nrunning \\x1b[2K" in text
    assert "\x1b" not in text


def test_a_folder_without_runs_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="contain no run; expected a run folder, or a folder of runs"):
        Watcher(tmp_path).look()


@pytest.mark.parametrize("content", ["", "[]", '{"n_jobs": 1}', '{"n_jobs": "x", "folders": []}'])
def test_a_damaged_plan_is_none(tmp_path: Path, content: str) -> None:
    (tmp_path / ".plan.json").write_text(content)
    assert read_plan(tmp_path) is None


def test_the_heading_of_a_job_tells_the_state_of_its_sweep(tmp_path: Path) -> None:
    study = a_study(tmp_path / "study")
    assert job_heading(study, study / "s4").splitlines() == [
        "job 5 of 6: s4",
        "  2 finished; best so far: unet, axial, 64 px, lr 1e-03 (val Dice 0.6250, 2 runs); about 4 min left",
    ]  # two at the same time: 80 s, this one and another of 180 s each, (80 + 180 + 180) / 2


def test_the_heading_of_a_job_without_a_plan_is_its_name(tmp_path: Path) -> None:
    assert job_heading(tmp_path, tmp_path / "a") == "a"
    write_plan(tmp_path, SweepPlan(2, ("a", "b")))
    assert job_heading(tmp_path, tmp_path / "a") == "job 1 of 2: a"


def test_a_link_to_a_run_is_followed_with_and_without_symbolic_links(tmp_path: Path) -> None:
    from spleen.runs.naming import followed

    run = write_run(tmp_path / "run")
    (tmp_path / "latest").write_bytes(os.fsencode(run))
    assert followed(tmp_path / "latest") == run
    (tmp_path / "link").symlink_to("run")
    assert followed(tmp_path / "link") == run.resolve()
    assert followed(run) == run
