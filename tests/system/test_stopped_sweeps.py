"""Sweeps and runs that were stopped, killed, or started twice: what is resumed, and what is reported."""

import signal
from pathlib import Path

import pytest

from tests._helpers.small_run import rows, summary
from tests._helpers.sweeps import job_folders, needs, seconds_each, started, study, wait_for
from tests.system.test_train_command import HEAVY, imported, run_train


@pytest.fixture
def settings(tmp_path: Path) -> tuple[str, ...]:
    return seconds_each(tmp_path)


def interrupted(folder: Path, command: tuple[str, ...], number: signal.Signals) -> tuple[int, str]:
    """Run a study and send a signal once a job has saved an epoch; returns the exit code and standard error."""
    with started(folder, *command) as process:
        wait_for(lambda: list(folder.glob("out/size_and_rate/*/checkpoints/last.ckpt")), process)
        process.send_signal(number)
        errors = process.communicate(timeout=120)[1]
    return process.returncode, errors


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.slow
def test_an_interrupt_stops_the_whole_study(tmp_path: Path, settings: tuple[str, ...], number: signal.Signals) -> None:
    exit_code, errors = interrupted(tmp_path, study(settings, "epochs=100000"), number)
    assert exit_code == 128 + number
    assert "interrupted: " in errors
    assert "0 of 2 jobs are finished; run the same command again for the rest" in errors
    assert "Traceback" not in errors
    assert len(job_folders(tmp_path)) == 1


@pytest.mark.slow
@pytest.mark.parametrize("launcher", ["basic", "joblib"])
def test_the_same_command_completes_an_interrupted_study(
    tmp_path: Path, settings: tuple[str, ...], launcher: str
) -> None:
    needs(f"hydra_plugins.hydra_{launcher}_launcher" if launcher != "basic" else "hydra")
    command = study(settings, "epochs=20", f"hydra/launcher={launcher}")
    assert interrupted(tmp_path, command, signal.SIGINT)[0] == 130
    done = run_train(tmp_path, *command)
    assert done.returncode == 0, done.stderr
    assert "0 of 2 jobs are already finished; " in done.stdout
    assert "will be resumed" in done.stdout
    assert [len(rows(each / "metrics.csv")) for each in job_folders(tmp_path)] == [20, 20]
    assert 1 in [summary(each)["resumed"] for each in job_folders(tmp_path)]


@pytest.mark.slow
def test_resume_uses_the_recorded_settings_and_reports_a_finished_run(
    tmp_path: Path, settings: tuple[str, ...]
) -> None:
    with started(tmp_path, *settings, "lr=1e-2", "epochs=8", "study=s") as process:
        wait_for((tmp_path / "out" / "latest").exists, process)
        process.kill()
        process.communicate()
    before = set((tmp_path / "out").iterdir())
    done = run_train(tmp_path, "resume=out/latest", "trainer.progress=true", "logger.mode=disabled")
    assert done.returncode == 0, done.stderr
    assert "epoch 8/8" in done.stdout
    (folder,) = job_folders(tmp_path, "s")
    assert len(rows(folder / "metrics.csv")) == 8
    assert summary(folder)["resumed"] == 1
    assert set((tmp_path / "out").iterdir()) == before
    assert {path.name for path in tmp_path.iterdir()} == {"out", "cache", "scan7.nii.gz", "scan7_organs.nii.gz"}

    finished = run_train(tmp_path, f"resume={folder}", python=("-X", "importtime"))
    assert (finished.returncode, "is finished" in finished.stdout) == (0, True)
    assert not imported(finished) & set(HEAVY)


@pytest.mark.slow
def test_invalid_resume_commands_are_errors_with_a_message(tmp_path: Path, settings: tuple[str, ...]) -> None:
    run = tmp_path / "study" / "run"
    run.mkdir(parents=True)
    (tmp_path / "empty").mkdir()
    (run / "config.yaml").write_text("lr: [1")
    for arguments, message in (
        (["resume=nowhere"], "no such folder"),
        (["resume=empty"], "no config.yaml"),
        (["resume=study"], "contains 1 run(s), such as run"),
        (["resume=study/run"], "config.yaml is damaged"),
        (["resume=study/run", "lr=3"], "lr=3 cannot be combined with resume="),
        (["-m", "resume=study/run"], "-m cannot be combined with resume="),
        (["resume=study/run", "resume=empty"], "one run folder"),
    ):
        done = run_train(tmp_path, *arguments)
        assert (done.returncode, done.stdout) == (2, ""), arguments
        assert message in done.stderr
        assert "Traceback" not in done.stderr
    (run / "config.yaml").write_text("lr: 1")
    assert "data.kind must be one of" in run_train(tmp_path, "resume=study/run").stderr


@pytest.mark.slow
def test_two_processes_share_a_study_and_run_each_job_once(tmp_path: Path, settings: tuple[str, ...]) -> None:
    command = study(settings, "lr=1e-2,2e-2,3e-2", "epochs=20")
    with started(tmp_path, *command) as one, started(tmp_path, *command) as two:
        outputs = [process.communicate(timeout=300) for process in (one, two)]
    assert [one.returncode, two.returncode] == [0, 0], outputs
    assert sum(output.count("Results are in") for output, _ in outputs) == 3
    assert [summary(folder)["resumed"] for folder in job_folders(tmp_path)] == [0, 0, 0]
