"""Multiruns as a user runs them: what is skipped and reported, in this process and under each launcher."""

import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
from omegaconf import OmegaConf

from spleen.errors import InputError
from spleen.runs.sweeps.launchers import check_launcher_installed, default_jobs, limit_concurrency
from spleen.system.process import usable_cores
from tests._helpers.small_run import REPOSITORY, rows, summary
from tests._helpers.sweeps import job_folders, needs, seconds_each, started, study, wait_for
from tests.system.test_train_command import HEAVY, TRAIN, imported, run_train

JOBLIB = "hydra_plugins.hydra_joblib_launcher.joblib_launcher.JoblibLauncher"


@pytest.fixture
def settings(tmp_path: Path) -> tuple[str, ...]:
    return seconds_each(tmp_path)


# A study in this process --------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_study_runs_without_the_multirun_flag_and_skips_finished_jobs_when_repeated(
    tmp_path: Path, settings: tuple[str, ...]
) -> None:
    first = run_train(tmp_path, *study(settings))
    assert first.returncode == 0, first.stderr
    assert "2 jobs to run" in first.stdout
    assert "2 finished job(s)" in first.stdout
    folders = job_folders(tmp_path)
    assert [re.sub("-[0-9a-f]{8}$", "", folder.name) for folder in folders] == [
        "img_size=32,lr=0.01",
        "img_size=32,lr=0.03",
    ]
    for folder in folders:
        assert summary(folder)["identity"].startswith(folder.name[-8:])
        assert not {".hydra", "train.log", "multirun.yaml"} & {path.name for path in folder.iterdir()}

    failed, finished = folders
    written = (finished / "checkpoints" / "last.ckpt").stat().st_mtime_ns
    (failed / "summary.json").unlink()
    shutil.rmtree(failed / "checkpoints")
    (failed / "failed.json").write_text('{"message": "the disk was full", "exit_code": 2}')
    second = run_train(tmp_path, "-m", *study(settings, "loader.num_workers=0", "lr=0.010,0.03"))
    assert second.returncode == 0, second.stderr
    assert "1 of 2 jobs are already finished; 1 failed and will be run again" in second.stdout
    assert not (failed / "failed.json").exists()
    assert summary(failed)["status"] == "finished"
    assert (finished / "checkpoints" / "last.ckpt").stat().st_mtime_ns == written
    assert (failed / "checkpoints" / "best.ckpt").exists()

    third = run_train(tmp_path, *study(settings), python=("-X", "importtime"))
    assert third.returncode == 0
    assert "2 of 2 jobs are already finished" in third.stdout
    assert "2 finished job(s)" in third.stdout
    assert not imported(third) & (set(HEAVY) - {"matplotlib"})


@pytest.mark.slow
def test_invalid_studies_are_reported_before_anything_runs(tmp_path: Path, settings: tuple[str, ...]) -> None:
    for arguments, message in (
        (("experiment=size_and_rat",), "Did you mean size_and_rate?"),
        (("experiment=size_and_rate,augmentation",), "one study at a time"),
        (study(settings, "img_size=64,3"), "img_size must be from 16"),
        (("experiment=size_and_rate", "imgsize=3"), "did you mean img_size"),
    ):
        done = run_train(tmp_path, *arguments)
        assert done.returncode == 2, arguments
        assert message in done.stderr
        assert "Traceback" not in done.stderr
        assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_failed_jobs_are_listed_at_the_end_and_equal_values_written_differently_run_once(
    tmp_path: Path, settings: tuple[str, ...]
) -> None:
    wrong = "loss._target_=torch.nn.Identity"  # found only by training
    done = run_train(tmp_path, "lr=1e-2,0.01", wrong, "-m", *settings, "study=s")
    assert done.returncode == 1, done.stderr
    assert "1 of 2 combinations are duplicates of another job" in done.stdout
    assert "1 job(s) of the multirun" in done.stderr
    ((folder,),) = [[job for job in path.iterdir() if job.is_dir()] for path in (tmp_path / "out" / "s").iterdir()]
    assert folder.name == "lr=0.01"
    assert "TypeError" in json.loads((folder / "failed.json").read_text())["message"]


def assert_the_second_job_starts_warm_and_is_as_if_alone(
    folder: Path, settings: tuple[str, ...], *launcher: str
) -> None:
    """Both jobs run in one process, the first of them with other settings."""
    random = ("model.network.dropout=0.2", "epochs=2", "optimiser.ema_decay=0.9")
    sizes = "img_size=48,32"
    sweep = ("-m", sizes, *launcher, f"hydra.sweep.dir={folder / 'sweep'}", "hydra.sweep.subdir=${img_size}")
    together = run_train(folder, *settings, *random, *sweep)
    assert together.returncode == 0, together.stderr
    alone = run_train(folder, *settings, *random, "img_size=32", f"hydra.run.dir={folder / 'alone'}")
    assert alone.returncode == 0, alone.stderr
    first, second = folder / "sweep" / "48", folder / "sweep" / "32"
    assert summary(second)["seconds_to_first_step"] < 0.5 * summary(first)["seconds_to_first_step"]
    assert (second / "cases.csv").read_bytes() == (folder / "alone" / "cases.csv").read_bytes()
    measured = ("train/loss", "val/loss", "val/dice")
    epochs = [
        [[row[name] for name in measured] for row in rows(each / "metrics.csv")] for each in (second, folder / "alone")
    ]
    assert epochs[0] == epochs[1]
    assert epochs[0] != [[row[name] for name in measured] for row in rows(first / "metrics.csv")]


@pytest.mark.slow
def test_a_job_needs_no_imports_after_the_first_one_and_nothing_of_it_is_left(
    tmp_path: Path, settings: tuple[str, ...]
) -> None:
    assert_the_second_job_starts_warm_and_is_as_if_alone(tmp_path, settings)


@pytest.mark.slow
def test_a_joblib_worker_needs_no_imports_for_its_second_job_and_nothing_is_left_of_the_first(
    tmp_path: Path, settings: tuple[str, ...]
) -> None:
    needs("hydra_plugins.hydra_joblib_launcher")
    one_worker = ("hydra/launcher=joblib", "hydra.launcher.n_jobs=1")
    assert_the_second_job_starts_warm_and_is_as_if_alone(tmp_path, settings, *one_worker)


# Launchers ----------------------------------------------------------------------------------------------------------


def assert_a_study_runs_under(launcher: str, folder: Path, settings: tuple[str, ...]) -> None:
    """Jobs in other processes, started outside the checkout; two fail in a way that only training reveals."""
    wrong = "loss._target_=torch.nn.Identity,spleen.models.losses.DiceCrossEntropyLoss"
    done = run_train(folder, *study(settings, f"hydra/launcher={launcher}", wrong))
    assert done.returncode == 1, done.stderr
    assert "2 finished job(s)" in done.stdout
    assert "2 job(s) of the multirun" in done.stderr
    assert "Traceback" not in done.stderr
    folders = job_folders(folder)
    assert len(folders) == 4
    assert sum((each / "summary.json").exists() for each in folders) == 2
    assert sum((each / "failed.json").exists() for each in folders) == 2
    again = run_train(folder, *study(settings, f"hydra/launcher={launcher}"))
    assert again.returncode == 0, again.stderr
    assert "2 of 2 jobs are already finished" in again.stdout


@pytest.mark.slow
def test_joblib_runs_jobs_in_parallel_and_divides_the_cores(tmp_path: Path, settings: tuple[str, ...]) -> None:
    needs("hydra_plugins.hydra_joblib_launcher")
    command = study(settings, "hydra/launcher=joblib", "hydra.launcher.n_jobs=2", "trainer.progress=true")
    environment = {key: value for key, value in os.environ.items() if key != "OMP_NUM_THREADS"}
    done = subprocess.run(
        [sys.executable, TRAIN, *command],
        cwd=tmp_path,
        env={**environment, "OMP_NUM_THREADS": "64"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    assert "2 finished job(s)" in done.stdout
    threads = [summary(folder)["hardware"]["threads"] for folder in job_folders(tmp_path)]
    assert threads == [max(1, usable_cores() // 2)] * 2
    starts = [(each / "split.json").stat().st_mtime for each in job_folders(tmp_path)]
    ends = [(each / "summary.json").stat().st_mtime for each in job_folders(tmp_path)]
    assert max(starts) < min(ends)


@pytest.mark.slow
def test_a_single_joblib_job_has_all_cores(tmp_path: Path, settings: tuple[str, ...]) -> None:
    needs("hydra_plugins.hydra_joblib_launcher")
    command = [sys.executable, TRAIN, "-m", "hydra/launcher=joblib", *settings, "study=s"]
    environment = {**os.environ, "OMP_NUM_THREADS": "64"}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    (job,) = (path.parent for path in (tmp_path / "out" / "s").glob("*/*/summary.json"))
    assert summary(job)["hardware"]["threads"] == usable_cores()


@pytest.mark.slow
def test_a_sweep_with_joblib_has_one_time_stamp_and_reports_every_job(
    tmp_path: Path, settings: tuple[str, ...]
) -> None:
    needs("hydra_plugins.hydra_joblib_launcher")
    kept = (setting for setting in settings if not setting.startswith("split.guard_mm="))
    guards = "split.guard_mm=2,900,3"  # 900 mm leaves no slice to train on, found only on reading
    done = run_train(tmp_path, "-m", "hydra/launcher=joblib", *kept, "study=s", guards)
    assert done.returncode == 2, done.stderr
    (sweep,) = (tmp_path / "out" / "s").iterdir()
    assert {path.name for path in sweep.iterdir() if path.is_dir()} == {f"split.guard_mm={mm}" for mm in (2, 900, 3)}
    assert "2 finished job(s)" in done.stdout
    assert "1 job(s) of the multirun" in done.stderr
    assert "  split.guard_mm=900: scan7" in done.stderr


@pytest.mark.slow
def test_a_killed_joblib_worker_is_reported_and_its_job_can_be_resumed(
    tmp_path: Path, settings: tuple[str, ...]
) -> None:
    needs("hydra_plugins.hydra_joblib_launcher")
    command = study(settings, "hydra/launcher=joblib", "epochs=30")
    with started(tmp_path, *command) as process:
        wait_for(lambda: list(tmp_path.glob("out/size_and_rate/*/checkpoints/last.ckpt")), process)
        children = psutil.Process(process.pid).children(recursive=True)
        workers = [child for child in children if "popen_loky" in " ".join(child.cmdline())]
        workers[0].kill()
        errors = process.communicate(timeout=120)[1]
    assert process.returncode == 1
    assert "2 job(s) did not finish (TerminatedWorkerError" in errors
    done = run_train(tmp_path, *command)
    assert done.returncode == 0, done.stderr
    assert "will be resumed" in done.stdout
    assert [len(rows(each / "metrics.csv")) for each in job_folders(tmp_path)] == [30, 30]


@pytest.mark.slow
def test_submitit_runs_a_study_from_any_folder(tmp_path: Path, settings: tuple[str, ...]) -> None:
    needs("hydra_plugins.hydra_submitit_launcher")
    assert_a_study_runs_under("submitit_local", tmp_path, settings)
    assert (tmp_path / "out" / "size_and_rate" / ".submitit").is_dir()


@pytest.mark.slow
def test_ray_runs_a_study_from_any_folder(tmp_path: Path, settings: tuple[str, ...]) -> None:
    needs("hydra_plugins.hydra_ray_launcher")
    # Ray keeps its sockets in /tmp/ray, because their paths must be short.
    try:
        assert_a_study_runs_under("ray", tmp_path, settings)
    finally:
        shutil.rmtree("/tmp/ray", ignore_errors=True)


def test_a_missing_launcher_is_reported_with_the_command_that_installs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    for name, package in (
        ("joblib", "hydra-joblib-launcher==1.2.0"),
        ("submitit_slurm", "hydra-submitit-launcher==1.2.0"),
        ("submitit_local", "hydra-submitit-launcher==1.2.0"),
        ("ray", "hydra-ray-launcher==1.2.2"),
    ):
        launcher = OmegaConf.load(REPOSITORY / "conf" / "hydra" / "launcher" / f"{name}.yaml")
        with pytest.raises(InputError, match=f"pip install '{package}'"):
            check_launcher_installed(launcher)
    check_launcher_installed(
        OmegaConf.create({"_target_": "hydra._internal.core_plugins.basic_launcher.BasicLauncher"})
    )


@pytest.mark.parametrize(
    ("requested", "n_jobs", "expected"),
    [(2, 12, 2), (5, 3, 3), (-1, 1000, usable_cores()), (-1, 1, 1), (-10_000, 4, 1)],
)
def test_joblib_starts_no_more_workers_than_there_are_jobs(requested: int, n_jobs: int, expected: int) -> None:
    hydra = OmegaConf.create({"launcher": {"_target_": JOBLIB, "n_jobs": requested}, "overrides": {"hydra": []}})
    limit_concurrency(hydra, n_jobs)
    assert hydra.launcher.n_jobs == expected


def test_joblib_defaults_to_one_worker_per_core_up_to_eight(monkeypatch: pytest.MonkeyPatch) -> None:
    for cores, jobs in ((1, 1), (2, 2), (8, 8), (64, 8)):
        monkeypatch.setattr("spleen.runs.sweeps.launchers.usable_cores", lambda cores=cores: cores)
        assert default_jobs() == jobs
