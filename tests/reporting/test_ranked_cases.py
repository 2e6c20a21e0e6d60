"""A score of every case: places and colours of the artists, and texts that hide nothing."""

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_hex
from matplotlib.figure import Figure

from spleen.reporting.figures import OKABE_ITO
from spleen.reporting.ranked_cases import MeanBand, RankedCase, draw_ranked_cases


def drawn(cases: list[RankedCase]) -> Figure:
    figure = Figure(figsize=(6, 4), layout="constrained")
    draw_ranked_cases(figure.subplots(), cases, MeanBand(0.7, 0.6, 0.8), "Dice")
    FigureCanvasAgg(figure).draw()
    return figure


@pytest.mark.parametrize("n_cases", [26, 300])
def test_many_cases_are_dots_with_the_five_worst_named_beside_them(n_cases: int):
    # 0.5, 0.5 + 0.4/(n-1), …, 0.9 in a shuffled order.
    scores = np.linspace(0.5, 0.9, n_cases)
    order = np.random.default_rng(0).permutation(n_cases)
    figure = drawn([RankedCase(f"case_{n:03}", float(scores[n])) for n in order])
    (axes,) = figure.axes
    others, worst = (line for line in axes.lines if line.get_marker() == "o")
    assert worst.get_xydata().tolist() == [[n + 1, scores[n]] for n in range(5)]
    assert others.get_xydata().tolist() == [[n + 1, scores[n]] for n in range(5, n_cases)]
    (text,) = axes.texts
    lines = text.get_text().splitlines()
    assert lines[0] == "the worst:"
    assert [line.split()[-1] for line in lines[1:]] == [f"case_{n:03}" for n in range(5)]
    assert text.get_window_extent().x0 > axes.get_window_extent().x1  # beside the axes, over no dot
    assert text.get_window_extent().x1 <= figure.bbox.x1


@pytest.mark.parametrize("n_cases", [5, 25])
def test_few_cases_are_bars_with_names_that_do_not_overlap(n_cases: int):
    figure = drawn([RankedCase(f"case_{n}", n / n_cases, "false negative" if n == 0 else "") for n in range(n_cases)])
    (axes,) = figure.axes
    assert [bar.get_width() for bar in axes.patches[:n_cases]] == [n / n_cases for n in range(n_cases)]
    assert [label.get_text() for label in axes.get_yticklabels()] == [f"case_{n}" for n in range(n_cases)]
    texts = axes.texts
    assert texts[0].get_text() == "false negative"
    assert to_hex(texts[0].get_color()) == OKABE_ITO["vermillion"].lower()
    boxes = [text.get_window_extent() for text in texts]
    assert not any(a.overlaps(b) for n, a in enumerate(boxes) for b in boxes[:n])


def test_a_lowest_score_of_zero_is_not_cut_in_half():
    figure = drawn([RankedCase(str(n), n / 40) for n in range(40)])
    assert figure.axes[0].get_ylim()[0] < 0
