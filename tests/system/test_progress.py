"""The progress bar on a real terminal; without a terminal it prints nothing."""

import os
import signal
import time
from contextlib import suppress

import pytest

from spleen.errors import Interrupted
from spleen.system.progress import ProgressBar, StatusLine, announced
from spleen.system.signals import stop_on_signals
from tests._helpers.terminal import on_terminal


def test_the_bar_shows_the_case_count_and_the_case_id(monkeypatch: pytest.MonkeyPatch) -> None:
    def work() -> None:
        with ProgressBar("case") as bar:
            for number, case_id in enumerate(("liver_1", "liver_2", "liver_3")):
                bar.name_case(number, 3, case_id)

    text = on_terminal(monkeypatch, work, 100)
    assert "liver_1:" in text
    assert "2/3" in text.split("liver_3:")[-1]
    assert text.endswith(" \r")  # the line is cleared at the end


def test_byte_progress_of_consecutive_tasks_is_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    def work() -> None:
        with ProgressBar("B") as bar:
            assert [bar.reach("downloading", done, 4_000_000) for done in (1_000_000, 2_000_000)] == [True, False]
            assert bar.reach("unpacking", 0, None)

    text = on_terminal(monkeypatch, work, 100)
    assert "downloading:  25%" in text
    assert "1.00M/4.00M" in text
    assert "unpacking: 0.00B" in text


def test_without_a_terminal_nothing_is_written(capsys: pytest.CaptureFixture[str]) -> None:
    with ProgressBar("case") as bar:
        bar.name_case(0, 2, "a")
        bar.advance("b", 1, 2)
        bar.note("text", "more text")
        assert not bar.is_visible
        assert bar.reach("d", 1, 2)
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize(("sent", "exit_code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_swallowed_interrupt_is_raised_again_at_the_next_step(sent: signal.Signals, exit_code: int) -> None:
    with stop_on_signals() as stop, ProgressBar("slice", check=stop.check) as bar:
        bar.advance("a", 1, 9)
        with suppress(Interrupted):  # as Python does with exceptions raised in finalisers
            os.kill(os.getpid(), sent)
        with pytest.raises(Interrupted) as stopped:
            bar.advance("a", 1, 9)
        with pytest.raises(Interrupted):
            bar.name_case(0, 2, "b")
    assert stopped.value.exit_code == exit_code


def test_a_status_line_shows_the_longest_text_that_fits_and_covers_the_one_before(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def work() -> None:
        line = StatusLine()
        line.show(["a text of 21 columns.", "12 columns.."])
        line.show(["short"])
        line.show(["no version of this has room"])
        line.close()

    assert on_terminal(monkeypatch, work, 20) == "\r12 columns..\rshort       \rno version of this \r\n"


def test_a_status_line_is_silent_without_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    line = StatusLine()
    line.show(["text"])
    line.close()
    assert capsys.readouterr() == ("", "")


def test_only_a_step_that_takes_long_is_announced(capsys: pytest.CaptureFixture[str]) -> None:
    with announced("computing"):
        pass
    with announced("waiting", after_seconds=0.05):
        time.sleep(0.3)
    assert capsys.readouterr().out == "waiting …\n"
