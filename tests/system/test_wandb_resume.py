"""The wandb run of a training that is killed and resumed: one run with every epoch once; and a wandb that hangs."""

import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

from spleen.runs.tracking.mirror import WandbRun, start_wandb_run
from tests._helpers.wandb_server import WandbServer
from tests.runs.test_tracking_mirror import KEY, REPOSITORY, history, of_type, settings

# A training as wandb sees it: it resumes from `kept` epochs saved in a checkpoint and trains up to epoch `ends`.
TRAINING = """
import sys
import time
from pathlib import Path
from spleen.runs.tracking.settings import WandbSettings
from spleen.runs.tracking.mirror import start_wandb_run
folder, mode, kept, ends, then = sys.argv[1:]
settings = WandbSettings("organs", mode, "axial-96", "study", finish_timeout_seconds=20.0)
run = start_wandb_run(settings, Path(folder), {"lr": 0.5}, int(kept))
for epoch in range(int(ends)):
    run.log_epoch({"val/dice": epoch / 10}, epoch)
print("logged", flush=True)
if then == "wait":
    sys.stdin.read()
run.finish()
"""
HANGING = """
import signal, sys, time
from pathlib import Path
import psutil
import spleen.runs.tracking.mirror
from spleen.runs.tracking.settings import WandbSettings
from spleen.runs.tracking.mirror import start_wandb_run
spleen.runs.tracking.mirror._ANSWER_SECONDS = 1.0
run = start_wandb_run(WandbSettings("organs", "offline", "a", "g", finish_timeout_seconds=1.0), Path(sys.argv[1]), {})
(core,) = psutil.Process().children()
core.send_signal(signal.SIGSTOP)
start = time.time()
run.log_epoch({"val/dice": 0.5}, 0)
for _ in range(5_000):  # more than fits into the buffer of a connection
    print("a line that wandb would copy")
run.finish()
print(time.time() - start < 30)
"""


def start(program: str, *arguments: object, **environment: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", program, *map(str, arguments)],
        cwd=REPOSITORY,
        env=os.environ | environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def wait_until_logged(process: subprocess.Popen[str]) -> None:
    assert process.stdout is not None
    assert process.stdout.readline() == "logged\n", process.communicate()[1]


def kill(process: subprocess.Popen[str]) -> None:
    process.kill()
    process.communicate()


def log_epochs(run: WandbRun, epochs: int) -> list[int]:
    """Log every epoch of a training and finish; returns the epochs that the run's file holds, counted from 1."""
    for epoch in range(epochs):
        run.log_epoch({"val/dice": epoch / 10}, epoch)
    run.finish()
    return [row["epoch"] for row in history(run)]


def test_an_online_run_continues_after_the_last_epoch_that_reached_the_server(tmp_path: Path) -> None:
    with WandbServer().serving() as server:
        online = {"WANDB_BASE_URL": server.url, "WANDB_API_KEY": KEY, "WANDB_X_FILE_STREAM_TRANSMIT_INTERVAL": "1"}
        first = start(TRAINING, tmp_path, "online", 0, 3, "wait", **online)
        wait_until_logged(first)
        arrived = server.wait_for_lines(3, seconds=40)
        kill(first)
        assert arrived
        # Killed before its third checkpoint was complete, the run has two epochs saved and trains the third again.
        second = start(TRAINING, tmp_path, "online", 2, 5, "finish", **online)
        wait_until_logged(second)
        assert second.communicate(timeout=60)[1] == ""
    (run,) = server.runs.values()
    assert [row["epoch"] for _, row in sorted(run.history.items())] == [1, 2, 3, 4, 5]
    assert run.exit_codes == [0]


def test_the_last_part_of_an_offline_run_contains_every_epoch_once(tmp_path: Path) -> None:
    first = start(TRAINING, tmp_path, "offline", 0, 3, "wait")
    wait_until_logged(first)
    kill(first)
    run = start_wandb_run(settings(), tmp_path, {}, epochs_kept=2)
    assert log_epochs(run, 4) == [1, 2, 3, 4]
    assert run.folder is not None
    assert list((tmp_path / "wandb").glob("*run-*")) == [run.folder]
    run_id = of_type(run, "run")[0]["run_id"]

    again = start_wandb_run(settings(), tmp_path, {}, epochs_kept=4)
    assert log_epochs(again, 4) == [1, 2, 3, 4]
    assert of_type(again, "run")[0]["run_id"] == run_id


def test_parts_started_in_the_same_second_are_distinguished(tmp_path: Path) -> None:
    for part in range(8):  # some start in the same second, for which wandb numbers their folders
        run = start_wandb_run(settings(), tmp_path, {}, epochs_kept=part)
        assert log_epochs(run, part + 1) == list(range(1, part + 2))
        assert list((tmp_path / "wandb").glob("*run-*")) == [run.folder]


def test_an_offline_run_adds_only_new_epochs_after_an_uploaded_part(tmp_path: Path) -> None:
    first = start_wandb_run(settings(), tmp_path, {})
    assert log_epochs(first, 2) == [1, 2]
    assert first.folder is not None
    (log,) = first.folder.glob("*.wandb")
    log.with_name(f"{log.name}.synced").touch()  # the marker that `wandb sync` leaves
    second = start_wandb_run(settings(), tmp_path, {}, epochs_kept=2)
    assert log_epochs(second, 4) == [3, 4]
    assert of_type(second, "run")[0]["run_id"] == of_type(first, "run")[0]["run_id"]
    assert [row["epoch"] for row in history(first)] == [1, 2]


@pytest.mark.slow
def test_a_wandb_that_hangs_is_disabled_and_does_not_block(tmp_path: Path) -> None:
    process = start(HANGING, tmp_path)
    output, warnings = process.communicate(timeout=60)
    assert (output.splitlines()[-1], process.returncode) == ("True", 0)
    assert re.search(r"wandb could not .* and is disabled from here", warnings)
    assert "Traceback" not in warnings


@pytest.mark.slow
def test_finishing_waits_for_an_unreachable_server_only_until_the_timeout(tmp_path: Path) -> None:
    with WandbServer().serving() as server:
        online = {"WANDB_BASE_URL": server.url, "WANDB_API_KEY": KEY}
        process = start(TRAINING.replace("20.0", "2.0"), tmp_path, "online", 0, 3, "wait", **online)
        wait_until_logged(process)
    begin = time.monotonic()
    process.communicate(timeout=60)  # closes standard input, so the program stops waiting
    assert process.returncode == 0
    assert time.monotonic() - begin < 30
