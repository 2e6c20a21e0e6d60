"""The wandb run of a training that is killed and resumed: one run, every epoch once; and a wandb that hangs."""

import os
import subprocess
import sys
import time
from pathlib import Path

from spleen.runs.tracking.mirror import WandbRun, start_wandb_run
from tests._helpers.wandb_server import WandbServer
from tests.runs.test_tracking_mirror import KEY, REPOSITORY, history, of_type, settings

# A training as far as wandb sees it: `kept` of its epochs came with a checkpoint, and it trains up to epoch `ends`.
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


def logged(process: subprocess.Popen[str]) -> None:
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


def test_online_the_run_goes_on_after_the_last_epoch_that_the_server_has_got(tmp_path: Path) -> None:
    with WandbServer().serving() as server:
        online = {"WANDB_BASE_URL": server.url, "WANDB_API_KEY": KEY, "WANDB_X_FILE_STREAM_TRANSMIT_INTERVAL": "1"}
        first = start(TRAINING, tmp_path, "online", 0, 3, "wait", **online)
        logged(first)
        arrived = server.wait_for_lines(3, seconds=40)
        kill(first)
        assert arrived
        # Killed before its checkpoint was complete, it has kept two epochs and trains the third once more.
        second = start(TRAINING, tmp_path, "online", 2, 5, "finish", **online)
        logged(second)
        assert second.communicate(timeout=60)[1] == ""
    (run,) = server.runs.values()
    assert [row["epoch"] for _, row in sorted(run.history.items())] == [1, 2, 3, 4, 5]
    assert run.exit_codes == [0]


def test_offline_the_last_part_holds_every_epoch_once(tmp_path: Path) -> None:
    first = start(TRAINING, tmp_path, "offline", 0, 3, "wait")
    logged(first)
    kill(first)
    run = start_wandb_run(settings(), tmp_path, {}, epochs_kept=2)
    assert log_epochs(run, 4) == [1, 2, 3, 4]
    assert run.folder is not None
    assert list((tmp_path / "wandb").glob("*run-*")) == [run.folder]
    run_id = of_type(run, "run")[0]["run_id"]

    again = start_wandb_run(settings(), tmp_path, {}, epochs_kept=4)
    assert log_epochs(again, 4) == [1, 2, 3, 4]
    assert of_type(again, "run")[0]["run_id"] == run_id


def test_parts_that_began_in_the_same_second_are_told_apart(tmp_path: Path) -> None:
    for part in range(8):  # each takes a fraction of a second, so some share one; wandb numbers their folders
        run = start_wandb_run(settings(), tmp_path, {}, epochs_kept=part)
        assert log_epochs(run, part + 1) == list(range(1, part + 2))
        assert list((tmp_path / "wandb").glob("*run-*")) == [run.folder]


def test_offline_after_a_part_that_was_uploaded_only_new_epochs_are_added(tmp_path: Path) -> None:
    first = start_wandb_run(settings(), tmp_path, {})
    assert log_epochs(first, 2) == [1, 2]
    assert first.folder is not None
    (log,) = first.folder.glob("*.wandb")
    log.with_name(f"{log.name}.synced").touch()  # what `wandb sync` leaves
    second = start_wandb_run(settings(), tmp_path, {}, epochs_kept=2)
    assert log_epochs(second, 4) == [3, 4]
    assert of_type(second, "run")[0]["run_id"] == of_type(first, "run")[0]["run_id"]
    assert [row["epoch"] for row in history(first)] == [1, 2]


def test_a_wandb_that_hangs_is_left_alone(tmp_path: Path) -> None:
    process = start(HANGING, tmp_path)
    told, warned = process.communicate(timeout=60)
    assert (told.splitlines()[-1], process.returncode) == ("True", 0)
    assert "wandb could not finish the run and is disabled from here" in warned
    assert "Traceback" not in warned


def test_a_server_that_goes_away_is_waited_for_no_longer_than_set(tmp_path: Path) -> None:
    with WandbServer().serving() as server:
        online = {"WANDB_BASE_URL": server.url, "WANDB_API_KEY": KEY}
        process = start(TRAINING.replace("20.0", "2.0"), tmp_path, "online", 0, 3, "wait", **online)
        logged(process)
    begin = time.monotonic()
    process.communicate(timeout=60)  # ends its waiting
    assert process.returncode == 0
    assert time.monotonic() - begin < 30
