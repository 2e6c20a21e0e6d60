"""Overlay figures: orientation and scale, checked on the display arrays and on the files read back."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import rgb_to_hsv, to_hex, to_rgb
from matplotlib.contour import QuadContourSet
from PIL import Image

from spleen.reporting.figures import LABEL_COLOURS
from spleen.reporting.overlays import SliceView, display_overlay, draw_overlays, overlay_figure
from spleen.types import AxisName

NAN = float("nan")
SKY_BLUE, ORANGE = (86, 180, 233), (230, 159, 0)


def labels(shape: tuple[int, int], *pixels: tuple[int, int]) -> np.ndarray:
    plane = np.zeros(shape, np.uint8)
    for pixel in pixels:
        plane[pixel] = 1
    return plane


def view(
    reference: np.ndarray, prediction: np.ndarray, size_mm: tuple[float, float], axis: AxisName = "coronal"
) -> SliceView:
    image = np.full(reference.shape, 0.5, np.float32)
    return SliceView("case_7", axis, 12, image, prediction, reference, size_mm, dice=0.25)


@pytest.mark.parametrize("axis", ["axial", "coronal", "sagittal"])
def test_display_follows_the_radiological_convention(axis: AxisName):
    # Row indices increase towards anterior (axial) or superior, column indices towards the patient's right (axial,
    # coronal) or anterior (sagittal): these directions must appear at the top and at the left of the figure.
    top_left, low_left = (3, 6), (0, 5)
    shown = view(labels((5, 7), top_left), labels((5, 7), low_left), (5.0, 7.0), axis)
    shown.image[0, 6] = 1.0
    image, prediction, reference = display_overlay(shown)
    assert np.argwhere(reference).tolist() == [[1, 0]]
    assert np.argwhere(prediction).tolist() == [[4, 1]]
    assert np.argwhere(image == 255).tolist() == [[4, 0]]
    assert image.dtype == np.uint8
    assert set(np.unique(image).tolist()) == {128, 255}


def test_display_pixels_are_isotropic_in_millimetres():
    # 4 rows of 5 mm and 25 columns of 0.8 mm: 20 mm × 20 mm, so 25 × 25 pixels of 0.8 mm.
    reference = np.zeros((4, 25), np.uint8)
    reference[3] = 2  # The uppermost 5 mm contain six pixel centres: 0.4, 1.2, …, 4.4 mm.
    _, prediction, shown = display_overlay(view(reference, np.zeros_like(reference), (20.0, 20.0)))
    assert shown.shape == prediction.shape == (25, 25)
    assert (shown[:6] == 2).all()
    assert not shown[6:].any()


def test_a_coarser_image_covers_the_same_physical_extent():
    empty = np.zeros((6, 10), np.uint8)
    # Pixels of 4 mm whose value is the position of their centre, as a fraction of the 20 mm.
    coarse = np.tile((np.arange(5, dtype=np.float32) * 4 + 2) / 20, (3, 1))
    image, _, _ = display_overlay(replace(view(empty, empty, (12.0, 20.0)), image=coarse))
    # Shown with 2 mm pixels from the right: centres at 19, 17, …, 1 mm; constant beyond the outer centres.
    expected = np.clip(np.arange(19, 0, -2), 2, 18) / 20 * 255
    assert image.shape == (6, 10)
    np.testing.assert_allclose(image, np.tile(expected, (6, 1)), atol=0.51)


def test_a_small_slice_is_scaled_up_without_leaving_its_millimetres():
    # 4 rows of 5 mm and 10 columns of 1 mm, 20 mm × 10 mm: 256 rows of 20/256 mm and half as many columns.
    reference = np.zeros((4, 10), np.uint8)
    reference[3, :5] = 1  # the upper 5 mm, on the patient's left, which is the right half of the picture
    image, prediction, shown = display_overlay(view(reference, np.zeros_like(reference), (20.0, 10.0)), 256)
    assert image.shape == prediction.shape == shown.shape == (256, 128)
    expected = np.zeros((256, 128), np.uint8)
    expected[:64, 64:] = 1
    np.testing.assert_array_equal(shown, expected)
    assert display_overlay(view(reference, reference, (20.0, 10.0)), 10)[0].shape == (20, 10)  # large enough already


def colour_centre(picture: np.ndarray, colour: tuple[int, int, int]) -> np.ndarray:
    """Mean (row, column) of the pixels of a colour."""
    found = np.argwhere((np.abs(picture.astype(int) - colour) < 12).all(axis=-1))
    assert len(found) > 50
    return found.mean(axis=0)


def test_outlines_are_drawn_where_the_labels_are(tmp_path: Path):
    reference, prediction = np.zeros((2, 12, 60), np.uint8)
    reference[8:11, 40:55] = 1  # Superior, at the patient's right.
    prediction[1:4, 5:20] = 1
    path = tmp_path / "figures" / "overlay.png"
    draw_overlays([("worst", view(reference, prediction, (60.0, 48.0)))], path, ("spleen",))
    picture = np.asarray(Image.open(path).convert("RGB"))
    picture = picture[: int(0.94 * len(picture))]  # The legend is below.
    assert (colour_centre(picture, SKY_BLUE) < colour_centre(picture, ORANGE)).all()
    assert [file.name for file in path.parent.iterdir()] == ["overlay.png"]


def test_a_panel_has_physical_proportions_and_empty_masks_are_drawn(tmp_path: Path):
    empty = np.zeros((6, 50), np.uint8)
    path = tmp_path / "overlay.png"
    draw_overlays([("best", replace(view(empty, empty, (30.0, 40.0)), dice=NAN))], path, ("spleen",))
    with Image.open(path) as file:
        file.verify()
    picture = np.asarray(Image.open(path).convert("L")).astype(int)
    rows, columns = np.nonzero(np.abs(picture - 128) < 3)
    in_rows, in_columns = (
        np.bincount(rows) > 200,
        np.bincount(columns) > 100,
    )  # The slice, not the edges of letters.
    assert in_rows.sum() / in_columns.sum() == pytest.approx(30 / 40, rel=0.02)
    # The scale bar is the longest white line: 10 of the slice's 40 mm.
    white = picture[: len(in_rows), : len(in_columns)][in_rows][:, in_columns] > 250
    assert white.sum(axis=1).max() / in_columns.sum() == pytest.approx(10 / 40, abs=0.015)


def test_title_and_legend(tmp_path: Path):
    # The SVG also contains each line of text as a comment, which can be searched here.
    one, none = labels((5, 7), (2, 2)), np.zeros((5, 7), np.uint8)
    views = [
        ("best", replace(view(none, none, (5.0, 7.0)), dice=NAN)),
        ("median", view(one, none, (5.0, 7.0), "sagittal")),
        ("worst", view(none, one, (5.0, 7.0))),
    ]
    draw_overlays(views, tmp_path / "overlay.svg", ("spleen", "liver"))
    svg = (tmp_path / "overlay.svg").read_text()
    for text in ("best: case_7", "coronal slice 12, Dice n/a", "sagittal slice 12, Dice 0.2500"):
        assert f"<!-- {text} -->" in svg
    assert "spleen, reference" in svg
    assert "liver" not in svg


def test_invalid_overlays_are_rejected(tmp_path: Path):
    third = 3 * labels((5, 7), (2, 2))
    with pytest.raises(ValueError, match="label 3 has no name"):
        draw_overlays([("best", view(third, third, (5.0, 7.0)))], tmp_path / "a.png", ("spleen", "liver"))
    with pytest.raises(ValueError, match="at least one"):
        draw_overlays([], tmp_path / "a.png", ("spleen",))


def disc(value: int, centre: tuple[int, int], radius: int) -> np.ndarray:
    rows, columns = np.indices((120, 150))
    inside = (rows - centre[0]) ** 2 + (columns - centre[1]) ** 2 <= radius**2
    return np.where(inside, value, 0).astype(np.uint8)


def test_each_of_several_classes_has_one_hue_and_the_prediction_is_dashed():
    reference = disc(1, (30, 40), 8) + disc(2, (30, 100), 8)
    shown = view(reference, np.roll(reference, 3, 1), (120.0, 150.0))
    figure = overlay_figure([("best", shown)], ("spleen", "liver"))
    for axes in figure.axes:
        lines = [artist for artist in axes.get_children() if isinstance(artist, QuadContourSet)]
        colours = [to_hex(line.get_edgecolor()[0]) for line in lines]
        hues = [rgb_to_hsv(to_rgb(colour))[0] for colour in colours]
        assert [colours[0], colours[2]] == [colour.lower() for colour in LABEL_COLOURS[:2]]
        assert hues == pytest.approx([hues[0], hues[0], hues[2], hues[2]], abs=0.01)
        assert abs(hues[0] - hues[2]) > 0.2
        dashed = [line.get_linestyle()[0][1] is not None for line in lines]
        assert dashed == [False, True, False, True]
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == [
        "spleen, reference", "spleen, prediction", "liver, reference", "liver, prediction",
    ]  # fmt: skip


def test_an_organ_is_enlarged_only_where_it_comes_out_larger():
    small, large, none = disc(1, (60, 75), 9), disc(1, (60, 75), 55), disc(0, (0, 0), 1)
    views = [(name, view(plane, plane, (120.0, 150.0))) for name, plane in (("a", small), ("b", large), ("c", none))]
    assert len(overlay_figure(views, ("spleen",)).axes) == 4  # three planes and one enlargement
    without = overlay_figure(views[1:], ("spleen",))
    assert len(without.axes) == 2
    assert without.get_figheight() < overlay_figure(views, ("spleen",)).get_figheight() - 2
    assert [text.get_text() for text in without.axes[1].texts][-1] == "both masks are empty"


@pytest.mark.parametrize("n_classes", [3, 7, 8])
def test_in_a_legend_of_several_rows_a_prediction_stands_below_its_reference(n_classes: int):
    plane = sum((disc(n + 1, (8 + 13 * n, 75), 5) for n in range(n_classes)), np.zeros((120, 150), np.uint8))
    figure = overlay_figure([("best", view(plane, plane, (120.0, 150.0)))], tuple(f"organ {n}" for n in range(8)))
    FigureCanvasAgg(figure).draw()
    (legend,) = figure.legends
    boxes = {text.get_text(): text.get_window_extent() for text in legend.get_texts() if text.get_text()}
    assert len(boxes) == 2 * n_classes
    for n in range(n_classes):
        above, below = boxes[f"organ {n}, reference"], boxes[f"organ {n}, prediction"]
        assert above.x0 == pytest.approx(below.x0)
        assert above.y0 > below.y1
    assert legend.get_window_extent().y1 < min(axes.get_window_extent().y0 for axes in figure.axes)


def test_pixels_that_nobody_has_labelled_are_hatched_and_named_in_the_legend():
    """The image is black, and unlabelled is the patient's right: the left of the picture."""
    organ, unlabelled = disc(1, (60, 40), 20), np.zeros((120, 150), bool)
    unlabelled[:, 100:] = True
    shown = replace(view(organ, organ, (120.0, 150.0)), image=np.zeros((120, 150), np.float32), unlabelled=unlabelled)
    figure = overlay_figure([("best", shown)], ("spleen",))
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    picture = np.asarray(canvas.buffer_rgba())[..., :3].astype(int)
    box = figure.axes[0].get_window_extent()
    left, width = round(box.x0), round(box.width)
    rows = slice(len(picture) - round(box.y1) + 40, len(picture) - round(box.y0) - 60)  # without letters and scale bar
    veiled = picture[rows, left + width // 10 : left + width // 4]
    plain = picture[rows, left + 2 * width // 5 : left + width // 2]
    assert not plain.any()
    assert veiled.min() > 30  # the veil
    assert 0.05 < (veiled.min(axis=-1) > 150).mean() < 0.5  # the stripes
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts() if text.get_text()][-1] == "not labelled"


def test_where_all_is_labelled_the_legend_says_nothing_of_it():
    organ = disc(1, (60, 40), 20)
    (legend,) = overlay_figure([("best", view(organ, organ, (120.0, 150.0)))], ("spleen",)).legends
    assert [text.get_text() for text in legend.get_texts()] == ["spleen, reference", "spleen, prediction"]
