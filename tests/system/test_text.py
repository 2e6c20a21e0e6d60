from pathlib import Path

import pytest

from spleen.system.text import bullets, shortened


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
