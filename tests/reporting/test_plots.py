"""Plots: round ticks, and every value where its axis says."""

import math

import pytest

from spleen.reporting.plots import Band, Bar, Bars, Line, Plot, Rule, draw_aligned, draw_plot, round_ticks


@pytest.mark.parametrize(
    ("low", "high", "most", "expected"),
    [
        (0, 1, 6, [0, 0.2, 0.4, 0.6, 0.8, 1]),
        (0.7, 12.2, 6, [2, 4, 6, 8, 10, 12]),
        (-170, 260, 5, [-100, 0, 100, 200]),
        (0.00002, 0.00205, 3, [0.001, 0.002]),
        (0.013, 0.092, 6, [0.02, 0.04, 0.06, 0.08]),
        (-0.2, 1.3, 6, [0, 0.25, 0.5, 0.75, 1, 1.25]),
        (9, 61, 6, [10, 20, 30, 40, 50, 60]),
    ],
)
def test_ticks_are_round_numbers(low: float, high: float, most: int, expected: list[float]) -> None:
    assert round_ticks(low, high, most) == pytest.approx(expected)


def test_ticks_of_epochs_are_whole() -> None:
    assert round_ticks(0.8, 3.2, 6, whole=True) == [1, 2, 3]
    assert round_ticks(1, 13, 5, whole=True) == [5, 10]  # steps of 2.5 would fit
    assert round_ticks(1, 1.5, 6, whole=True) == [1]


def test_points_lie_where_the_axes_say_and_a_missing_one_breaks_the_line() -> None:
    points = [(0, 0.0, "a"), (5, 1.0, "b"), (6, math.nan, "c"), (10, 0.5, "d")]
    plot = Plot(
        "t", "x", "y", [Line("l", points)], x_range=(0, 10), y_range=(0, 1), width=162, height=146, left_margin=50
    )
    drawing = draw_plot(plot)  # x from 50 to 150, y from 110 up to 10
    assert drawing.lines[0].path == "M50 110L100 10M150 60"
    assert drawing.lines[0].markers == ((50, 110, "a"), (100, 10, "b"), (150, 60, "d"))


def test_bars_grow_from_zero_and_bands_end_at_the_frame() -> None:
    bars = Bars("b", [Bar(1, 2, 50, "up"), Bar(3, 4, -50, "down"), Bar(5, 6, 0, "nothing")])
    rules = [Rule("y", 50, "top"), Rule("x", 5, "middle")]
    plot = Plot("t", "x", "y", bars=[bars], bands=[Band(8, 12, "test", "block")], rules=rules)
    drawing = draw_plot(
        Plot(**{**vars(plot), "x_range": (0, 10), "y_range": (-50, 50), "width": 162, "height": 146, "left_margin": 50})
    )
    assert drawing.bars[0][1] == ((60, 20, 10, 45, "up"), (80, 65, 10, 45, "down"))
    assert drawing.bands == ((130, 20, "test", "block"),)
    assert [(rule.x1, rule.y1, rule.x2, rule.y2) for rule in drawing.rules] == [(50, 20, 150, 20), (100, 20, 100, 110)]


def test_a_plot_without_values_still_has_axes() -> None:
    drawing = draw_plot(Plot("t", "x", "y", [Line("l", [(1, math.nan, "")])]))
    assert drawing.x_ticks
    assert drawing.y_ticks


def test_plots_above_each_other_share_their_left_margin() -> None:
    small, large = (Plot("t", "x", "y", [Line("l", [(0, 0, ""), (1, top, "")])]) for top in (1, 5e6))
    drawings = draw_aligned([small, large])
    assert drawings[0].left == drawings[1].left > draw_plot(small).left
