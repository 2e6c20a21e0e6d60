"""The drawings of the study page: positions worked out by hand."""

import math
import re
from pathlib import Path

import pytest

from spleen.runs.results.drawings.curves import curves_drawing
from spleen.runs.results.drawings.forest import forest
from spleen.runs.results.drawings.heat_map import heat_map
from spleen.runs.results.drawings.pairs import pairs_drawing, piled
from spleen.runs.results.drawings.parallel import parallel_drawing, setting_axis
from spleen.runs.results.drawings.scales import DiceScale, Linear, colour_scale, dice_span
from spleen.runs.results.results import results
from tests._helpers.run_folders import write_run


def points(path: str) -> list[tuple[float, float]]:
    """The points of a path of straight lines."""
    return [(float(x), float(y)) for x, y in re.findall(r"[ML](\S+?) ([^L\shZ]+)", path)]


# Scales -------------------------------------------------------------------------------------------------------------


def test_a_straight_scale_ends_at_its_ends() -> None:
    scale = Linear(0, 10, 100, 200)
    assert [scale(value) for value in (2.5, -3, 30)] == [125, 100, 200]
    ticks = Linear(-1, 1, 0, 100).ticks(4)
    assert [(tick.at, tick.text) for tick in ticks] == [(0, "−1"), (50, "0"), (100, "1")]


def test_a_scale_of_dice_is_stretched_towards_one() -> None:
    # −ln(1 − Dice) is 0 at 0 and ln 100 at 0.99, so 0.9, at ln 10, lies half-way.
    scale = DiceScale(0, 0.99, 300, 0)
    assert scale(0.9) == pytest.approx(150)
    assert scale(0.8) - scale(0.9) == pytest.approx(scale(0.9) - scale(0.95))
    assert scale(1.0) == 0
    assert {"0", "0.5", "0.9", "0.95"} <= {tick.text for tick in scale.ticks()}
    assert all(abs(a.at - b.at) >= 14 for a, b in zip(scale.ticks(), scale.ticks()[1:], strict=False))


def test_a_scale_of_dice_spans_the_known_values_with_room() -> None:
    low, high = dice_span([0.9, math.nan, 0.99])
    # room is 6 % of ln 100 − ln 10 = 0.138155
    assert (1 - low, 1 - high) == pytest.approx((0.1 * math.exp(0.138155), 0.01 * math.exp(-0.138155)), rel=1e-5)
    assert dice_span([math.nan]) == (0, 0.99)
    assert dice_span([0.0, 0.5])[0] == 0
    assert dice_span([1.0])[1] < 1


# Heat map -----------------------------------------------------------------------------------------------------------


def test_cells_stand_by_size_and_rate_and_are_coloured_by_test_dice(tmp_path: Path) -> None:
    # 1 − 10^−1.5 lies half-way between 1 − 10^−1 and 1 − 10^−2 on the stretched scale.
    tests = {(64, 1e-4): 0.9, (64, 1e-3): 1 - 10**-1.5, (128, 1e-3): 0.99}
    for number, ((size, rate), test) in enumerate(tests.items()):
        write_run(tmp_path / str(number), 0.5 + number / 10, test, img_size=size, lr=rate)
    study = results(tmp_path)
    drawing = heat_map(study, colour_scale(study.arms))
    assert drawing is not None
    assert (drawing.sizes, [panel.name for panel in drawing.panels]) == (("64", "128"), ["unet, axial"])
    (high, (middle, best)), (low, (worst, missing)) = drawing.panels[0].rows
    assert (high, low, missing) == ("1e-03", "1e-04", None)
    assert middle is not None
    assert best is not None
    assert worst is not None
    assert [cell.level for cell in (worst, middle, best)] == pytest.approx([0, 0.5, 1])
    assert [cell.dice for cell in (worst, middle, best)] == [0.9, 1 - 10**-1.5, 0.99]
    assert [study.arms[cell.number].test_dice.mean for cell in (worst, middle, best)] == [0.9, 1 - 10**-1.5, 0.99]
    assert [cell.is_selected for cell in (worst, middle, best)] == [False, False, True]


def test_there_is_no_heat_map_where_only_one_varies_or_most_cells_would_be_empty(tmp_path: Path) -> None:
    for number in range(4):
        write_run(tmp_path / "rates" / str(number), lr=10.0**-number)
        write_run(tmp_path / "search" / str(number), lr=10.0**-number, img_size=32 * (number + 1))
    for name in ("rates", "search"):
        study = results(tmp_path / name)
        assert heat_map(study, colour_scale(study.arms)) is None


# Parallel coordinates -----------------------------------------------------------------------------------------------


def test_few_values_are_evenly_spaced_and_ascend_upwards() -> None:
    # The axis is 262 high and ends at 308: two values at a quarter and three quarters.
    axis = setting_axis("image size", "img_size", [512, 64, 512], 70)
    assert axis.ys == (308 - 0.75 * 262, 308 - 0.25 * 262, 308 - 0.75 * 262)
    assert [tick.text for tick in axis.ticks] == ["64", "512"]
    mixed = setting_axis("image size", "img_size", ["native", 64, None], 70)
    assert [tick.text for tick in mixed.ticks] == ["64", "-", "native"]


def test_many_rates_lie_on_a_logarithmic_scale_and_other_numbers_on_a_straight_one() -> None:
    rates = [10 ** (-4 + number / 10) for number in range(21)]
    axis = setting_axis("learning rate", "lr", rates, 0)
    assert [axis.ys[number] for number in (0, 10, 20)] == pytest.approx([308, 177, 46])
    assert [(tick.text, round(tick.at)) for tick in axis.ticks] == [("1e-04", 308), ("1e-03", 177), ("1e-02", 46)]
    axis = setting_axis("dropout", "model.dropout", [number / 20 for number in range(21)], 0)
    assert axis.ys[5] == pytest.approx(308 - 262 / 4)


def test_a_line_passes_the_axes_at_its_values_and_the_chosen_arm_is_on_top(tmp_path: Path) -> None:
    write_run(tmp_path / "a", 0.9, 0.8, img_size=64)
    write_run(tmp_path / "b", 0.8, 0.9, img_size=128)
    study = results(tmp_path)
    drawing = parallel_drawing(study, colour_scale(study.arms))
    assert drawing is not None
    assert [axis.title for axis in drawing.axes] == ["image size", "val Dice", "test Dice"]
    assert [axis.x for axis in drawing.axes] == [70, 370, 670]
    size, val, test = ([axis.ys[number] for axis in drawing.axes] for number in (0, 1)).__next__()
    assert [line.is_selected for line in drawing.lines] == [False, True]
    line = drawing.lines[1]
    assert (line.number, line.level) == (0, 0)
    assert (
        line.path
        == f"M70 {size:.5g}C220 {size:.5g} 220 {val:.5g} 370 {val:.5g}C520 {val:.5g} 520 {test:.5g} 670 {test:.5g}"
    )
    # 0.8 and 0.9 are ln 5 and ln 10; with 6 % room on both sides, they are at 0.06/1.12 and 1.06/1.12 of 262.
    assert (val, test) == pytest.approx((308 - 262 * 1.06 / 1.12, 308 - 262 * 0.06 / 1.12))


def test_one_arm_has_no_parallel_coordinates(tmp_path: Path) -> None:
    write_run(tmp_path / "a")
    study = results(tmp_path)
    assert parallel_drawing(study, colour_scale(study.arms)) is None


# Learning curves ----------------------------------------------------------------------------------------------------


def test_epochs_count_from_one_and_seeds_are_averaged_within_their_range(tmp_path: Path) -> None:
    write_run(tmp_path / "s0", val_by_epoch=[0.0, 0.85, 0.9], seed=0)
    write_run(tmp_path / "s1", val_by_epoch=[0.0, 0.95, 0.9], seed=1)
    drawing = curves_drawing(results(tmp_path))
    assert drawing is not None
    assert [tick.text for tick in drawing.epoch_ticks] == ["1", "2", "3"]
    (line,) = drawing.lines
    # x from 58 to 744; y from 318 at Dice 0 to 12 at 1 − 0.1 / 1.3: a Dice of 0.9 is at ln 10 / ln 13 = 0.897712.
    at = 318 - 306 * 0.897712
    assert points(line.path) == [pytest.approx(point, abs=0.02) for point in ((58, 318), (401, at), (744, at))]
    upper, lower = points(line.band)[1], points(line.band)[4]
    assert (upper[0], lower[0]) == (401, 401)
    assert lower[1] == pytest.approx(318 - 306 * math.log(1 / 0.15) / math.log(13), abs=0.02)
    assert upper[1] == 12  # 0.95 is above the scale's end


def test_the_best_twelve_are_coloured_and_long_curves_thinned(tmp_path: Path) -> None:
    for number in range(14):
        write_run(
            tmp_path / f"{number:02d}",
            0.9 - number / 100,
            val_by_epoch=[0.5] * (900 if number == 0 else 2),
            lr=1 / (number + 1),
        )
    study = results(tmp_path)
    drawing = curves_drawing(study)
    assert drawing is not None
    assert [line.number for line in drawing.lines] == list(range(14))
    assert [line.hue for line in drawing.lines] == [0, 1, 2, 3, 4, 5, 0, 1, 2, 3, 4, 5, None, None]
    assert [line.is_dashed for line in drawing.lines] == [False] * 6 + [True] * 6 + [False] * 2
    assert (drawing.n_grey, drawing.is_thinned) == (2, True)
    long = points(drawing.lines[0].path)
    assert (len(long), long[0][0], long[-1][0]) == (300, 58, 744)


def test_without_validated_epochs_there_are_no_curves_and_one_epoch_is_a_dot(tmp_path: Path) -> None:
    write_run(tmp_path / "none" / "a")
    assert curves_drawing(results(tmp_path / "none")) is None
    write_run(tmp_path / "one" / "a", val_by_epoch=[0.5])
    drawing = curves_drawing(results(tmp_path / "one"))
    assert drawing is not None
    assert drawing.lines[0].path.endswith("h0")
    assert [tick.text for tick in drawing.epoch_ticks] == ["1"]


# Forest and pairs ---------------------------------------------------------------------------------------------------


def test_the_forest_shows_both_scores_and_the_interval_on_one_scale(tmp_path: Path) -> None:
    for seed, test in enumerate((0.90, 0.91)):
        write_run(tmp_path / f"a{seed}", 0.95, test, seed=seed, lr=1e-3)
    write_run(tmp_path / "b", None, 0.8, lr=1e-4)
    study = results(tmp_path)
    plot = forest(study)
    first, second = plot.rows
    assert first.val is not None
    assert first.test is not None
    assert first.low is not None
    assert second.test is not None
    assert 5 <= first.low < first.test < first.val < 145
    assert (second.val, second.low, second.high) == (None, None, None)
    # 0.95 is as far from 0.9 as that is from 0.8; 0.905 lies between at ln(0.2 / 0.095) / ln(0.2 / 0.05)
    assert (first.test - second.test) / (first.val - second.test) == pytest.approx(math.log(0.2 / 0.095) / math.log(4))


def test_dots_of_equal_differences_are_piled_up() -> None:
    assert piled([0, 5, 20, 29, 20]) == [0, 1, 0, 0, 1]


def test_differences_lie_on_both_sides_of_zero(tmp_path: Path) -> None:
    for seed, test in enumerate((0.6, 0.4)):
        write_run(tmp_path / f"a{seed}", 0.9, cases=[("test", "a", "x", test)], lr=1e-3, seed=seed)
        write_run(tmp_path / f"b{seed}", 0.8, cases=[("test", "a", "x", 0.5)], lr=1e-4, seed=seed)
    comparison = results(tmp_path).comparison
    assert comparison is not None
    assert [(pair.name, pair.best, pair.following) for pair in comparison.pairs] == [("0", 0.6, 0.5), ("1", 0.4, 0.5)]
    assert (comparison.wins, comparison.losses) == (1, 1)
    drawing = pairs_drawing(comparison, ["seed 0", "seed 1"])
    assert drawing is not None
    # The interval is wider than ±1, so the axis spans ±1 with 6 % of 2 on both sides: 336 units for 1.12.
    assert drawing.zero == pytest.approx(360)
    assert [dot.x for dot in drawing.dots] == pytest.approx([390, 330])
    assert [dot.winner for dot in drawing.dots] == ["best", "following"]
    assert drawing.dots[0].title == "seed 0: 0.6000 and 0.5000, difference +0.1000"
    assert drawing.mean == pytest.approx(360)
    assert (drawing.low, drawing.high) == (24, 696)
