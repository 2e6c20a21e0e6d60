"""The progress bar on a real terminal; without a terminal it prints nothing."""

import os
import signal
from contextlib import suppress

import pytest

from spleen.errors import Interrupted
from spleen.system.progress import ProgressBar
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
