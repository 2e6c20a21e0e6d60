"""A curve in one line of text, against curves drawn by hand."""

import math

from spleen.reporting.sparkline import sparkline


def test_values_become_blocks_from_lowest_to_highest() -> None:
    assert sparkline([0.0, 0.25, 0.5, 1.0], 8) == "▁▃▅█"


def test_more_values_than_room_are_averaged() -> None:
    assert sparkline([0.0, 0.2, 0.5, 0.5, 1.0, 0.8], 3) == "▁▅█"


def test_an_epoch_without_validation_is_a_gap() -> None:
    assert sparkline([0.0, math.nan, 1.0], 8) == "▁ █"
    assert sparkline([math.nan, 0.5, 1.0], 8) == " ▁█"
    assert sparkline([0.0, 1.0, math.nan], 8) == "▁█"


def test_a_flat_curve_lies_in_the_middle_and_none_is_empty() -> None:
    assert sparkline([0.7, 0.7], 8) == "▄▄"
    assert sparkline([], 8) == ""
    assert sparkline([math.nan], 8) == ""
    assert sparkline([math.inf, 0.0, 1.0], 8) == " ▁█"
