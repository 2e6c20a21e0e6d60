"""Figures of an evaluation, read back from SVG, where each line of text also appears as a comment."""

from pathlib import Path

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg

from spleen.evaluation.evaluate import evaluate
from spleen.evaluation.report.agreement import agreement_figure, draw_agreement
from tests._helpers.nifti import ras_affine, save

SHAPE = (20, 7, 3)


def rows(length: int, value: int = 1) -> np.ndarray:
    """A bar of `length` voxels that starts at index 0."""
    label = np.zeros(SHAPE, dtype=np.int16)
    label[:length, 3, 1] = value
    return label


@pytest.fixture
def draw_svg(tmp_path):
    """Draw the figure for predictions and references of the given lengths in 1 ml voxels; returns the SVG text."""

    def draw(lengths: dict[str, tuple[int, int]], values=(1,)) -> str:
        for side, name in enumerate(("p", "r")):
            (tmp_path / name).mkdir()
            for case_id, pair in lengths.items():
                label = sum(np.roll(rows(pair[side], value), value - 1, 1) for value in values)
                save(tmp_path / name / f"{case_id}.nii.gz", label, ras_affine(spacing_mm=(10.0, 10.0, 10.0)))
        names = {value: f"organ {value}" for value in values}
        draw_agreement(evaluate(tmp_path / "p", tmp_path / "r", names, surface=False), tmp_path / "a.svg")
        return (tmp_path / "a.svg").read_text()

    return draw


def shown(text: str, svg: str) -> bool:
    return f"<!-- {text} -->" in svg


def test_limits_of_agreement_match_hand_computed_values(draw_svg):
    """Errors of -1, 0, 1, 2 ml: mean 0.5, SD 1.2910, limits 0.5 ± 2.5303."""
    svg = draw_svg({"a": (9, 10), "b": (10, 10), "c": (11, 10), "d": (12, 10)})
    for text in ("mean", "+0.5", "+1.96 SD", "+3.0", "−1.96 SD", "−2.0"):
        assert shown(text, svg)


def test_each_case_has_a_bar_with_its_name_and_dice(draw_svg):
    """Dice of 9 in 10 voxels is 18/19, of 5 in 10 it is 10/15."""
    svg = draw_svg({"near": (9, 10), "far": (5, 10), "gone": (0, 10), "invented_here": (4, 0)})
    for text in ("near", "0.947", "far", "0.667", "gone", "false negative", "invented_here", "false positive"):
        assert shown(text, svg)
    assert "organ 1: Dice · mean 0.404" in svg


def test_with_many_cases_only_the_worst_bars_are_named(draw_svg):
    svg = draw_svg({f"case_{n:02}": (19 - n % 3, 19) for n in range(40)} | {"bad_one": (4, 19)})
    assert shown("0.348  bad_one", svg)  # 8/23
    assert not shown("case_00", svg)


def test_a_volume_outlier_is_named(draw_svg):
    svg = draw_svg({f"case_{n:02}": (10 + n % 2, 10) for n in range(30)} | {"outlying": (19, 10)})
    assert shown("outlying", svg)


def test_cases_without_volume_are_omitted(draw_svg):
    svg = draw_svg({"a": (9, 10), "b": (10, 10), "nothing": (0, 0)})
    assert not shown("nothing", svg)


@pytest.mark.parametrize("lengths", [(9, 10), (0, 10), (4, 0), (0, 0)])
def test_a_single_case_is_drawn_by_class(draw_svg, lengths):
    svg = draw_svg({"alone": lengths}, values=(1, 2))
    assert shown("alone", svg)
    assert shown("organ 2", svg) is (lengths != (0, 0))


def test_with_many_classes_only_the_worst_are_drawn(draw_svg):
    svg = draw_svg({"a": (9, 10), "b": (10, 10)}, values=(1, 2, 3, 4, 5))
    assert "the 4 of 5 classes with the lowest mean Dice" in svg


def test_no_text_lies_over_a_bar_or_a_dot(draw_svg, tmp_path):
    draw_svg({f"case_{n:02}": (19 - n % 7, 19) for n in range(40)} | {"gone": (0, 19)})
    evaluation = evaluate(tmp_path / "p", tmp_path / "r", {1: "organ 1"}, surface=False)
    figure = agreement_figure(evaluation)
    FigureCanvasAgg(figure).draw()
    volumes, dice = figure.axes
    assert len(volumes.get_legend().get_texts()) == 2
    assert volumes.get_legend().get_window_extent().y1 < volumes.get_window_extent().y0  # below the points
    (worst,) = dice.texts
    assert worst.get_window_extent().x0 > dice.get_window_extent().x1
    placed = [volumes.get_legend(), worst, volumes.xaxis.label, dice.xaxis.label, dice.yaxis.label]
    boxes = [artist.get_window_extent() for artist in placed]
    assert not any(a.overlaps(b) for n, a in enumerate(boxes) for b in boxes[:n])
    assert all(figure.bbox.contains(*corner) for box in boxes for corner in (box.p0, box.p1))


def test_a_failed_figure_keeps_the_previous_file(tmp_path: Path):
    path = save(tmp_path / "label.nii.gz", rows(5), ras_affine())
    figure = tmp_path / "a.unknown"
    figure.write_text("the former one")
    with pytest.raises(ValueError, match="unknown"):
        draw_agreement(evaluate(path, path), figure)
    assert figure.read_text() == "the former one"
