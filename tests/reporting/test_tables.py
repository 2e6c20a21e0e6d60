"""Tables, with every expected text written out by hand."""

import pytest

from spleen.reporting.tables import Column, print_table, render_table, scientific, to_markdown

COLUMNS = ["model", Column("size"), Column("learning rate", scientific), "Dice", Column("mm³", ",.0f")]
ROWS = [
    ["unet", 128, 1e-4, 0.91236, 96671.8],
    ["unet[1]|wide", 64, 1.5e-4, float("nan"), None],
]


def test_values_and_alignment():
    lines = render_table("Test", COLUMNS, ROWS, width=100).splitlines()
    assert lines[0].split() == ["Test"]
    heading, first, second = (line for line in lines if any(word in line for word in ("model", "unet")))
    assert first.split() == ["unet", "128", "1e-04", "0.9124", "96,672"]
    assert second.split() == ["unet[1]|wide", "64", "1.5e-04", "n/a", "-"]
    assert heading.index("model") == first.index("unet") == second.index("unet")
    for name, above, below in (
        ("size", "128", " 64"),
        ("Dice", "0.9124", "n/a"),
        ("rate", "1e-04", "1.5e-04"),
    ):
        ends = (
            heading.index(name) + len(name),
            first.index(above) + len(above),
            second.index(below) + len(below),
        )
        assert len(set(ends)) == 1


def test_a_narrow_terminal_wraps_text_but_never_numbers():
    row = ["outputs/study/2025-01-01_10-00-00", 0.91236, 0.83881, 96671.8]
    text = render_table("Test", ["run folder", "Dice", "Jaccard index", "volume"], [row], width=50)
    assert all(number in text for number in ("0.9124", "0.8388", "96671.8000"))
    assert max(len(line) for line in text.splitlines()) <= 50
    assert row[0] not in text
    assert row[0] in render_table("Test", ["run folder"], [row[:1]], width=50)


def test_numbers_survive_a_terminal_that_is_far_too_narrow():
    text = render_table("Test", ["name", *"abcdefgh"], [["case", *([0.12345] * 8)]], width=20)
    assert text.count("0.1235") + text.count("0.1234") == 8


def test_the_printed_table_equals_the_rendered_one(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "90")
    print_table("Test", COLUMNS, ROWS)
    printed = [line.rstrip() for line in capsys.readouterr().out.rstrip().splitlines()]
    assert printed == render_table("Test", COLUMNS, ROWS).splitlines()


@pytest.mark.parametrize(
    ("value", "text"),
    [(1e-4, "1e-04"), (0.00025, "2.5e-04"), (0.1, "1e-01"), (0.0, "0e+00"), (1 / 3000, "3.333e-04")],
)
def test_scientific_keeps_the_significant_digits(value: float, text: str):
    assert scientific(value) == text


def test_markdown():
    assert to_markdown(["name", "Dice", Column("n")], [["a|b", 0.5, 12], ["c", None, 3]]) == (
        "| name |   Dice |   n |\n| ---- | -----: | --: |\n| a\\|b | 0.5000 |  12 |\n| c    |      - |   3 |"
    )


def test_a_row_of_the_wrong_length_is_rejected():
    with pytest.raises(ValueError, match="row 1 has 2 cells for 3 columns"):
        to_markdown(["a", "b", "c"], [[1, 2, 3], [1, 2]])


def test_names_are_not_wrapped_and_optional_columns_are_dropped_if_the_table_is_too_wide():
    optional = [Column("sensi- tivity", may_go=True), Column("ASD mm", may_go=True)]
    columns = [Column("case", is_name=True), "Dice", *optional]
    rows = [["a_long_name_of_a_case", 0.91236, 0.93, 1.5], ["b", 0.8, 0.82, 12.25]]
    # padding and borders 3 × 4 + 1, then 21 + 6 + 6 + 7 characters: 53 wide; without ASD 43, without sensitivity 34
    whole = render_table("", columns, rows, width=53)
    assert ("ASD" in whole, "no room" in whole) == (True, False)
    without_last = render_table("", columns, rows, width=52).splitlines()
    assert without_last[-1].strip() == "no room for ASD mm"
    assert any(line.split() == ["a_long_name_of_a_case", "0.9124", "0.9300"] for line in without_last)
    narrow = render_table("", columns, rows, width=20).splitlines()
    assert " ".join(" ".join(narrow).split()).endswith("no room for sensi- tivity, ASD mm")
    assert any(line.split() == ["a_long_name_of_a_case", "0.9124"] for line in narrow)
    assert max(map(len, without_last)) <= 52


def test_a_table_without_rows_still_has_headings():
    assert render_table("", ["case", Column("Dice", may_go=True)], [], width=40).split()[:2] == ["case", "Dice"]
