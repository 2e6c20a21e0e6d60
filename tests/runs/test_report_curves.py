"""Training curves, read back from the SVG, which contains each line of text as a comment too."""

from pathlib import Path

import pytest

from spleen.runs.report.curves import draw_curves

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
