"""How SIGINT and SIGTERM stop a process, immediately or deferred to its next check."""

import os
import signal
import subprocess
import sys
import threading

import pytest

from spleen.errors import Interrupted
from spleen.system.signals import StopRequest, stop_on_signals
from tests._helpers.small_run import REPOSITORY


@pytest.mark.parametrize(("number", "exit_code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_interrupts_immediately_with_the_usual_exit_code(number: signal.Signals, exit_code: int) -> None:
    before = signal.getsignal(number)

    def read() -> None:
        with stop_on_signals() as stop:
            stop.position = "while reading"
            os.kill(os.getpid(), number)

    with pytest.raises(Interrupted, match=f"stopped while reading by {number.name}") as caught:
        read()
    assert caught.value.exit_code == exit_code
    assert not isinstance(caught.value, Exception)  # so `except Exception` does not catch it
    assert signal.getsignal(number) == before


def test_a_deferred_signal_waits_for_the_next_check() -> None:
    done = []

    def train() -> None:
        with stop_on_signals() as stop, stop.deferred():
            stop.position = "in epoch 3"
            stop.check()
            os.kill(os.getpid(), signal.SIGTERM)
            done.append("the step")
            stop.check()
            done.append("another step")

    with pytest.raises(Interrupted, match="in epoch 3"):
        train()
    assert done == ["the step"]


def test_leaving_the_deferred_block_is_a_check() -> None:
    with pytest.raises(Interrupted), stop_on_signals() as stop, stop.deferred():
        os.kill(os.getpid(), signal.SIGTERM)


def test_a_second_ctrl_c_stops_immediately() -> None:
    program = """
import time
from spleen.system.signals import stop_on_signals
with stop_on_signals() as stop, stop.deferred():
    print("ready", flush=True)
    time.sleep(60)
    time.sleep(60)
"""
    process = subprocess.Popen(
        [sys.executable, "-c", program], cwd=REPOSITORY, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stderr is not None
    assert process.stdout.readline() == "ready\n"
    process.send_signal(signal.SIGINT)
    assert process.stderr.readline() == "\n"
    assert process.stderr.readline() == "SIGINT: stopping after this step; another Ctrl-C stops immediately\n"
    process.send_signal(signal.SIGINT)
    assert process.wait(10) == 130
    process.communicate()


def test_a_thread_that_cannot_set_signal_handlers_runs_without_them() -> None:
    requests: list[StopRequest] = []

    def work() -> None:
        with stop_on_signals() as stop:
            stop.check()
            requests.append(stop)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert len(requests) == 1
