"""The picture and the page of an exploration: what is drawn, with counts by NumPy, and that no text hides another."""

import re
from itertools import combinations

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.patches import StepPatch
from matplotlib.text import Text

from spleen.exploration.explore import explore
from spleen.exploration.report.figure import exploration_figure
from spleen.exploration.report.histograms import count_ticks, histogram_panels
from spleen.exploration.report.page import to_page
from spleen.exploration.report.svg import histogram_drawing
from spleen.imaging.intensity import DisplayWindow
from tests._helpers.nifti import ras_affine, save
from tests._helpers.small_run import SPACING_MM, small_ct
from tests.exploration.test_outliers import write_case


@pytest.fixture(scope="module")
def with_outlier(tmp_path_factory):
    """A CT with one voxel of 600,000, and its organs."""
    ct = small_ct(tmp_path_factory.mktemp("ct"))
    ct.hu[1, 2, 3] = 600_000
    return save(ct.image, ct.hu, ras_affine(SPACING_MM)), ct.label, ct.hu, ct.values


def drawn(figure):
    FigureCanvasAgg(figure).draw()
    return figure


def texts(figure):
    """Texts that are drawn, each with the box that it covers; a tick beyond the limits of its axis is not drawn."""
    beyond = set()
    for axes in figure.axes:
        for number, axis in enumerate((axes.xaxis, axes.yaxis)):
            low, high = sorted(axis.get_view_interval())
            ticks = axis.get_ticklabels(which="both")
            beyond |= {id(tick) for tick in ticks if not low <= tick.get_position()[number] <= high}
            beyond |= {id(tick) for tick in ticks if not axes.axison}
    found = [text for text in figure.findobj(Text) if text.get_visible() and id(text) not in beyond]
    return [(text.get_text(), text.get_window_extent()) for text in found if text.get_text().strip()]


def test_the_histograms_of_the_picture_have_the_counts_of_numpy(with_outlier):
    image, label, hu, values = with_outlier
    figure = drawn(exploration_figure(explore(image, label)))
    histograms = [axes for axes in figure.axes if any(isinstance(patch, StepPatch) for patch in axes.patches)]
    assert [axes.get_title("left") for axes in histograms] == ["whole image", "body > −500 HU", "organ"]
    assert [axes.get_xlabel() for axes in histograms] == ["HU", "HU", "HU"]
    assert all(axes.get_ylabel().startswith("voxels per ") for axes in histograms)
    parts = [hu, hu[hu > -500], hu[values > 0]]
    for axes, part in zip(histograms, parts, strict=True):
        counts, edges, baseline = axes.patches[0].get_data()
        expected, _ = np.histogram(part.astype(np.float64), edges)
        np.testing.assert_array_equal(counts, np.maximum(expected, baseline))
    assert histograms[0].get_yscale() == "log"
    assert histograms[0].get_xlim()[1] >= 600_000
    assert histograms[0].patches[0].get_data().values.max() == hu.size - 1  # all but the outlier


@pytest.mark.parametrize("n_cases", [1, 6])
def test_no_text_of_the_picture_hides_another(with_outlier, tmp_path, n_cases):
    if n_cases == 1:
        exploration = explore(*with_outlier[:2], above=500_000)
    else:
        for number in range(n_cases):
            write_case(tmp_path, f"case_{number}", number)
        exploration = explore(tmp_path / "images", tmp_path / "labels")
    figure = drawn(exploration_figure(exploration, DisplayWindow(40, 400)))
    shown = texts(figure)
    assert any("level 40, width 400 HU" in text for text, _ in shown)
    hidden = [(a, b) for (a, first), (b, second) in combinations(shown, 2) if first.overlaps(second)]
    assert hidden == []


def test_without_an_organ_there_are_two_histograms(with_outlier):
    figure = exploration_figure(explore(with_outlier[0]))
    assert sum(isinstance(patch, StepPatch) for axes in figure.axes for patch in axes.patches) == 2


def test_the_areas_of_the_page_are_as_high_as_the_counts(with_outlier):
    image, label, *_ = with_outlier
    facts = explore(image, label).cases[0].intensity
    whole, body, _ = (histogram_drawing(panel) for panel in histogram_panels(facts))
    counts = np.array(facts.body_histogram.counts)
    heights = body.bottom - np.array([float(y) for y in re.findall(r"V([\d.]+)H", body.path)])
    np.testing.assert_allclose(heights, (body.bottom - body.top) * counts / counts.max(), atol=0.06)
    # On the logarithmic one, ten times the voxels are always the same step.
    heights = -np.diff([y for y, _ in whole.count_ticks])
    steps = np.diff(np.log10([count for _, count in whole.count_ticks]))
    np.testing.assert_allclose(heights / steps, heights[0] / steps[0])
    page = to_page(explore(image, label, above=500_000))
    assert page.count('<svg class="plot"') == 3
    assert "Highest voxels above 500,000" in page
    assert "1, 2, 3" in page


@pytest.mark.parametrize(
    ("top", "ticks"), [(1, [0, 1]), (4, [0, 1, 2, 3, 4]), (39, [0, 10, 20, 30]), (41, [0, 20, 40])]
)
def test_counts_at_the_axis_are_round(with_outlier, top, ticks):
    from dataclasses import replace

    panel = histogram_panels(explore(with_outlier[0]).cases[0].intensity)[1]
    assert count_ticks(replace(panel, histogram=replace(panel.histogram, counts=(top, 0)))) == ticks
