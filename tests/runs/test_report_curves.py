"""Training curves, read back from the SVG, which contains each line of text as a comment too."""

from pathlib import Path

import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg

from spleen.reporting.figures import LABEL_COLOURS
from spleen.runs.report.curves import curves_figure, draw_curves

NAN = float("nan")
ROWS: list[dict[str, float]] = [
    {"epoch": 0.0, "train/loss": 0.9, "lr": 1e-4},
    {"epoch": 1.0, "train/loss": 0.5, "val/loss": 0.6, "val/dice": 0.8125, "val/jaccard": 0.6842, "lr": 1e-4},
    {"epoch": 2.0, "train/loss": NAN, "val/loss": float("inf"), "val/dice": NAN, "val/jaccard": NAN},
    {"epoch": 3.0, "train/loss": 0.4, "val/loss": 0.5, "val/dice": 0.75, "val/jaccard": 0.6},
]


def test_curves_mark_the_best_epoch(tmp_path: Path):
    draw_curves(ROWS, tmp_path / "curves.svg", "U-Net, axial")
    svg = (tmp_path / "curves.svg").read_text()
    for text in ("U-Net, axial", "best: 0.8125 at epoch 2", "validation score", "learning rate"):
        assert f"<!-- {text} -->" in svg


@pytest.mark.parametrize("rows", [[], [{"epoch": 0.0, "train/loss": NAN}], [{"epoch": 5.0, "train/loss": 0.1}]])
def test_curves_of_few_metrics_are_drawn(rows: list[dict[str, float]], tmp_path: Path):
    draw_curves(rows, tmp_path / "curves.svg", "short")
    svg = (tmp_path / "curves.svg").read_text()
    assert "<!-- loss -->" in svg
    assert "validation score" not in svg
    assert "learning rate" not in svg


def test_a_figure_that_fails_leaves_the_existing_file(tmp_path: Path):
    path = tmp_path / "curves.unknown"
    path.write_text("the former one")
    with pytest.raises(ValueError, match="unknown"):
        draw_curves(ROWS, path, "title")
    assert [file.read_text() for file in tmp_path.iterdir()] == ["the former one"]


def test_each_of_several_classes_has_a_line_from_epoch_1_in_the_colour_of_its_outline():
    rows = [
        {"epoch": float(n), "train/loss": 1.0, "val/dice": 0.5 + n / 10, "val/jaccard": 0.1,
         "val/left kidney/dice": 0.4 + n / 10, "val/liver/dice": 0.6 + n / 10}
        for n in range(3)
    ]  # fmt: skip
    figure = curves_figure(rows, "U-Net")
    lines = {line.get_label(): line for line in figure.axes[1].lines}
    assert lines["left kidney"].get_xdata().tolist() == [1, 2, 3]
    assert lines["left kidney"].get_ydata().tolist() == pytest.approx([0.4, 0.5, 0.6])
    assert [lines[name].get_color() for name in ("left kidney", "liver")] == list(LABEL_COLOURS[:2])
    assert lines["Dice, mean"].get_ydata().tolist() == [0.5, 0.6, 0.7]
    assert "Jaccard" not in lines
    FigureCanvasAgg(figure).draw()
    for axes in figure.axes[:2]:
        legend = axes.get_legend()
        assert legend is not None
        assert legend.get_window_extent().x0 > axes.get_window_extent().x1  # over no line
        assert legend.get_window_extent().x1 <= figure.bbox.x1
    (best,) = figure.axes[1].texts
    assert best.get_text() == "best: 0.7000 at epoch 3"
    assert figure.axes[0].get_window_extent().y0 > best.get_window_extent().y1  # between the panels
    assert best.get_window_extent().y0 > figure.axes[1].get_window_extent().y1
