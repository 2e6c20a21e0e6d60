import sys
from pathlib import Path

import pytest

from spleen.system.text import bullets, on_own_line, shortened
from tests._helpers.terminal import on_terminal


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        ([], ""),
        (["a", "b", "c"], "a, b, c"),
        (["a", "b", "c", "d"], "a, b, c and 1 more"),
        ((number for number in (3, 1, 4, 1, 5)), "3, 1, 4 and 2 more"),
        ([Path("runs/a")], "runs/a"),
    ],
)
def test_the_first_names_are_listed_in_order_and_the_rest_are_counted(names, expected):
    assert shortened(names, most=3) == expected


def test_bullets_list_the_first_entries_and_count_the_rest():
    assert bullets(["a", 2]) == "\n  a\n  2"
    assert bullets(["a", "b", "c"], 2) == "\n  a\n  b\n  … and 1 more"
    assert bullets([]) == ""


def test_a_message_does_not_share_a_line_with_the_echo_of_the_terminal(monkeypatch, capsys):
    def interrupt():
        sys.stderr.write("step 3/9 ^C")
        print(on_own_line("interrupted"), file=sys.stderr)

    assert on_terminal(monkeypatch, interrupt, columns=80).splitlines() == ["step 3/9 ^C", "interrupted"]
    print(on_own_line("interrupted"), file=sys.stderr)
    assert capsys.readouterr().err == "interrupted\n"
