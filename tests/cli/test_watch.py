"""`spleen watch` beside real trainings, on real terminals and without."""

import json
import os
import pty
import signal
import subprocess
import sys
import termios
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from tests._helpers.run_folders import write_config, write_run
from tests._helpers.small_run import rows
from tests._helpers.sweeps import seconds_each, started, study, wait_for

SPLEEN = (sys.executable, "-m", "spleen", "watch")


@pytest.fixture
def settings(tmp_path: Path) -> tuple[str, ...]:
    return seconds_each(tmp_path)


def watch(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """Without a terminal."""
    return subprocess.run([*SPLEEN, *map(str, arguments)], capture_output=True, text=True, timeout=120)


class Terminal:
    """`spleen watch` on a terminal, and what it has shown so far."""

    def __init__(self, *arguments: str | Path, columns: int, rows: int) -> None:
        self._ours, theirs = pty.openpty()
        termios.tcsetwinsize(self._ours, (rows, columns))
        os.set_blocking(self._ours, False)
        self.process = subprocess.Popen(
            [*SPLEEN, *map(str, arguments)],
            stdin=subprocess.DEVNULL,
            stdout=theirs,
            stderr=theirs,
            env={**os.environ, "TERM": "xterm"},
            start_new_session=True,
        )
        os.close(theirs)
        self.seen = ""

    def reads(self, text: str, seconds: float = 120.0) -> None:
        """Wait until a text is shown."""
        until = time.monotonic() + seconds
        while text not in self.seen:
            assert time.monotonic() < until, self.seen
            self.take()
            time.sleep(0.02)

    def take(self) -> None:
        with suppress(OSError):  # nothing new, or the other end is closed
            while part := os.read(self._ours, 65_536):
                self.seen += part.decode(errors="replace")

    def ends(self) -> int:
        until = time.monotonic() + 180
        while (exit_code := self.process.poll()) is None:  # it would wait for a terminal that nobody reads
            assert time.monotonic() < until, self.seen
            self.take()
            time.sleep(0.02)
        self.take()
        os.close(self._ours)
        return exit_code


@contextmanager
def on_terminal(*arguments: str | Path, columns: int = 120, rows: int = 24) -> Iterator[Terminal]:
    terminal = Terminal(*arguments, columns=columns, rows=rows)
    try:
        yield terminal
    finally:
        terminal.process.kill()
        terminal.process.wait()


@contextmanager
def killed_on_failure(process: subprocess.Popen[str]) -> Iterator[None]:
    """A process that is stopped would be waited for in vain."""
    try:
        yield
    except BaseException:
        process.kill()
        raise


def is_training(run_folder: Path) -> bool:
    """progress.json follows with some seconds of delay."""
    try:
        progress = json.loads((run_folder / "progress.json").read_text())
    except OSError:
        return False
    return progress["doing"] in ("training", "validating")


def last_screen(seen: str) -> list[str]:
    """The last drawn state; rich erases the lines before it draws them anew."""
    return [line.rstrip("\r") for line in seen.split("\x1b[2K")[-1].splitlines()]


@pytest.mark.slow
def test_a_training_is_followed_from_its_folder_to_its_end(tmp_path: Path, settings: tuple[str, ...]) -> None:
    command = (*settings, "lr=1e-2", "study=s", "epochs=12", "loader.slices_per_epoch=960")
    with started(tmp_path, *command) as training, killed_on_failure(training):
        wait_for(lambda: is_training(tmp_path / "out" / "latest"), training)
        training.send_signal(signal.SIGSTOP)  # until someone has seen it at work
        once = watch(tmp_path / "out" / "latest")
        with on_terminal(tmp_path / "out" / "latest", "--every", "0.3") as terminal:
            terminal.reads("running")
            training.send_signal(signal.SIGCONT)
            assert terminal.ends() == 0
        _, errors = training.communicate(timeout=180)
    assert training.returncode == 0, errors
    assert (once.returncode, once.stderr) == (0, "")
    assert "\x1b" not in once.stdout
    assert "status     running" in once.stdout
    assert "/12 done" in once.stdout
    lines = last_screen(terminal.seen)
    assert "  epochs     12/12 done" in lines
    best = max(float(row["val/dice"]) for row in rows(tmp_path / "out" / "latest" / "metrics.csv"))
    assert any(line.endswith(f"best {best:.4f}") for line in lines)


@pytest.mark.slow
def test_a_study_is_followed_until_its_last_job_is_finished(tmp_path: Path, settings: tuple[str, ...]) -> None:
    with started(tmp_path, *study(settings, "epochs=4")) as training, killed_on_failure(training):
        folder = tmp_path / "out" / "size_and_rate"
        wait_for(lambda: list(folder.glob("*/metrics.csv")), training)
        training.send_signal(signal.SIGSTOP)
        once = watch(folder, "--once")
        with on_terminal(folder, "--every", "0.3") as terminal:
            terminal.reads("0 of 2 finished")
            training.send_signal(signal.SIGCONT)
            assert terminal.ends() == 0
        output, errors = training.communicate(timeout=180)
    assert training.returncode == 0, errors
    assert "0 of 2 finished, 1 running, 1 not started" in once.stdout
    assert "1 of 2 finished" in terminal.seen
    assert "2 of 2 finished" in "\n".join(last_screen(terminal.seen))
    assert "best so far: " in terminal.seen
    assert "job 1 of 2: img_size=32,lr=0.01-" in output
    assert "job 2 of 2: img_size=32,lr=0.03-" in output
    assert "  1 finished; best so far: " in output


@pytest.mark.parametrize(("number", "exit_code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
@pytest.mark.slow
def test_a_killed_training_has_stopped_and_a_signal_ends_the_view_quietly(
    tmp_path: Path, settings: tuple[str, ...], number: signal.Signals, exit_code: int
) -> None:
    with started(tmp_path, *study(settings, "epochs=100000")) as training:
        wait_for(lambda: list(tmp_path.glob("out/size_and_rate/*/metrics.csv")), training)
        training.kill()
        training.communicate()
    with on_terminal(tmp_path / "out" / "size_and_rate", "--every", "600") as terminal:
        terminal.reads("1 stopped, 1 not started")
        terminal.process.send_signal(number)
        assert terminal.ends() == exit_code
    assert "Traceback" not in terminal.seen
    assert "interrupted" not in terminal.seen
    assert terminal.seen.rstrip().endswith("\x1b[?25h")  # the cursor is shown again


def test_what_ended_is_shown_once_on_terminals_of_any_size(tmp_path: Path) -> None:
    for number in range(30):
        write_run(tmp_path / f"seed={number}", val_by_epoch=[0.25, 0.5], seed=number)
    write_config(tmp_path / "started")
    for columns, lines in ((200, 50), (80, 24), (30, 5)):
        with on_terminal(tmp_path, columns=columns, rows=lines) as terminal:
            assert terminal.ends() == 0
        assert "30 of 31 finished, 1 stopped" in terminal.seen.replace("\r\n", " ")
        assert "seed=9" in terminal.seen.replace("\r\n", "")  # the last one, though the terminal is lower


@pytest.mark.slow
def test_wrong_inputs_are_refused_with_what_is_expected(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_text("")
    (tmp_path / "latest").symlink_to("gone")
    run = write_run(tmp_path / "run")
    for arguments, told in (
        ([tmp_path / "nowhere"], "nowhere: no such folder; expected a run folder, or a folder of runs"),
        ([tmp_path / "file"], "file is a file; expected a run folder"),
        ([tmp_path / "empty"], "contain no run; expected a run folder"),
        ([tmp_path / "latest"], "gone, which does not exist; expected a run folder"),
        ([run, "--every", "0"], "--every must be 0.2 to 86400 seconds; got 0"),
        ([run, "--every", "nan"], "--every must be 0.2 to 86400 seconds; got nan"),
    ):
        done = watch(*arguments)
        assert (done.returncode, done.stdout) == (2, ""), arguments
        assert told in done.stderr
        assert "Traceback" not in done.stderr
