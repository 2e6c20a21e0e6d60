"""The picture of every case's Dice: which panels there are, and what they show."""

import math
from pathlib import Path

from spleen.evaluation.metrics.per_case import CaseScore
from spleen.runs.report.cases import cases_figure, draw_cases


def score(case_id: str, class_name: str, dice: float, prediction_mm3: float = 1.0) -> CaseScore:
    return CaseScore(case_id, class_name, dice, dice, dice, 1.0, dice, prediction_mm3, 1.0)


def test_a_row_per_class_and_a_column_per_split_with_several_cases():
    test = [score(case, name, 0.5) for case in ("a", "b") for name in ("liver", "spleen")]
    figure = cases_figure({"val": [score("c", "liver", 0.9), score("c", "spleen", 0.9)], "test": test}, "U-Net")
    assert figure is not None
    titles = [axes.get_title("left") for axes in figure.axes]
    assert titles == [f"test, {name} · mean 0.500, 95 % 0.500 … 0.500" for name in ("liver", "spleen")]


def test_missed_and_empty_cases():
    cases = [score("good", "liver", 0.75), score("missed", "liver", 0.0, 0.0), score("none", "liver", math.nan, 0.0)]
    figure = cases_figure({"test": cases}, "U-Net")
    assert figure is not None
    (axes,) = figure.axes
    assert [label.get_text() for label in axes.get_yticklabels()] == ["missed", "good"]
    assert [text.get_text() for text in axes.texts] == ["false negative", "0.750"]


def test_one_case_has_no_such_picture(tmp_path: Path):
    draw_cases({"val": [score("a", "liver", 0.5)], "test": [score("a", "liver", 0.5)]}, tmp_path / "a.png", "U-Net")
    assert list(tmp_path.iterdir()) == []


def test_of_many_classes_the_six_lowest_are_drawn():
    cases = [score(case, f"organ {n}", 1 - n / 10) for case in ("a", "b") for n in range(8)]
    figure = cases_figure({"test": cases}, "U-Net")
    assert figure is not None
    assert [axes.get_title("left").split(" ·")[0] for axes in figure.axes] == [
        f"test, organ {n}" for n in (7, 6, 5, 4, 3, 2)
    ]
