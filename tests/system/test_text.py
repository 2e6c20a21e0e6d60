import sys
from pathlib import Path

import pytest

from spleen.system.text import bullets, on_own_line, shortened
from tests._helpers.terminal import on_terminal


@pytest.mark.parametrize(
    ("names", "words"),
    [
        ([], ""),
        (["a", "b", "c"], "a, b, c"),
        (["a", "b", "c", "d"], "a, b, c and 1 more"),
        ((number for number in (3, 1, 4, 1, 5)), "3, 1, 4 and 2 more"),
        ([Path("runs/a")], "runs/a"),
    ],
)
def test_few_names_are_told_in_their_order_and_many_are_counted(names, words):
    assert shortened(names, most=3) == words


def test_many_entries_in_lines_are_the_first_and_how_many_more():
    assert bullets(["a", 2]) == "\n  a\n  2"
    assert bullets(["a", "b", "c"], 2) == "\n  a\n  b\n  … and 1 more"
    assert bullets([]) == ""


def test_a_message_does_not_share_its_line_with_the_terminal_s_echo(monkeypatch, capsys):
    def interrupt():
        sys.stderr.write("step 3/9 ^C")
        print(on_own_line("interrupted"), file=sys.stderr)

    assert on_terminal(monkeypatch, interrupt, columns=80).splitlines() == ["step 3/9 ^C", "interrupted"]
    print(on_own_line("interrupted"), file=sys.stderr)
    assert capsys.readouterr().err == "interrupted\n"
