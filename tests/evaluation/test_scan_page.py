"""The page of a scan in a real browser, offline."""

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from spleen.evaluation.scan.case import Scan, read_scan
from spleen.evaluation.scan.page import to_page
from tests._helpers.browser import opened, print_faults
from tests._helpers.nifti import ras_affine, save

SHAPE, SPACING_MM, ORIGIN_MM = (40, 36, 24), (2.0, 2.0, 5.0), (-40.0, -30.0, 100.0)
HOSTILE = "<script>document.title = 'hacked'</script>"


def ct(**changes) -> Scan:
    """Tissue in air with a box as organ; the prediction reaches 4 voxels too far to the left in slices 9 to 11."""
    image = np.full(SHAPE, -1000.0, np.float32)
    image[3:37, 3:33, :] = 0.0
    reference = np.zeros(SHAPE, np.uint8)
    reference[20:30, 10:20, 6:14] = 1
    prediction = reference.copy()
    prediction[16:20, 10:20, 9:12] = 1
    image[reference > 0] = 100.0
    return replace(
        Scan("case7", image, ras_affine(SPACING_MM, ORIGIN_MM), True, ("organ",), reference, prediction), **changes
    )


@pytest.fixture(scope="module")
def page_file(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("scan") / "page.html"
    path.write_text(to_page(ct()))
    return path


def ready(page):
    page.wait_for_selector(".viewer[data-ready]")
    page.wait_for_function("viewer.state !== undefined")
    return page


def state(page):
    page.evaluate("new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))")
    return page.evaluate("viewer.state")


def pixels(page, name):
    return np.array(page.evaluate(f"viewer.pixels('{name}')"), np.int16).reshape(-1, 4)[:, :3]


def canvas(page, name):
    return page.locator(f"[data-part={name}]")


def test_it_opens_at_the_organ_and_tells_voxel_place_and_intensity(page_file) -> None:
    with opened(page_file) as page:
        now = state(ready(page))
        i, j, k = now["native"]
        assert 20 <= i < 30
        assert 10 <= j < 20
        assert 6 <= k < 14
        assert now["mm"] == pytest.approx([-40 + 2 * i, -30 + 2 * j, 100 + 5 * k])
        text = page.locator("[data-part=position]").inner_text()
        assert text.startswith(f"voxel {i}, {j}, {k} · ")
        assert text.endswith(f"S {100 + 5 * k}.0 mm · 100 HU")
        assert page.locator("h1").inner_text() == "case7"


@pytest.mark.slow
def test_the_slider_moves_the_crosshair_and_all_planes_follow(page_file) -> None:
    with opened(page_file) as page:
        before = {name: pixels(ready(page), name) for name in ("axial", "coronal", "oblique")}
        page.locator("[data-part=axial-slice]").fill("2")
        assert state(page)["native"][2] == 2
        assert page.locator("[data-part=axial-text]").inner_text() == "2 of 24"
        for name, earlier in before.items():
            assert (pixels(page, name) != earlier).any() or name == "coronal", name
        page.locator("[data-part=coronal-slice]").fill("30")
        state(page)
        assert (pixels(page, "coronal") != before["coronal"]).any()


def test_a_click_in_one_plane_moves_the_others_there(page_file) -> None:
    with opened(page_file) as page:
        ready(page)
        axial = canvas(page, "axial")
        size = axial.bounding_box()["width"]
        axial.click(position={"x": 0.25 * size, "y": 0.5 * size})
        # Radiological: the left of the picture is the patient's right. The page holds slices 0 to 39 or a few fewer,
        # whose 2 mm fill the width; a quarter of it is a quarter of them from the right end.
        i, j, _ = state(page)["native"]
        assert i == pytest.approx(29, abs=2)
        assert j == pytest.approx(17, abs=2)
        assert page.locator("[data-part=sagittal-text]").inner_text() == f"{i} of 40"
        assert page.locator("[data-part=coronal-text]").inner_text() == f"{j} of 36"


def test_arrow_and_page_keys_move_the_crosshair_in_the_plane_in_focus(page_file) -> None:
    with opened(page_file) as page:
        i, j, k = state(ready(page))["native"]  # the axial plane has the focus
        for key, expected in (
            ("ArrowLeft", (i + 1, j, k)),  # to the patient's right
            ("ArrowUp", (i + 1, j + 1, k)),
            ("ArrowDown", (i + 1, j, k)),
            ("ArrowRight", (i, j, k)),
            ("PageUp", (i, j, k + 1)),
            ("PageDown", (i, j, k)),
        ):
            page.keyboard.press(key)
            assert tuple(state(page)["native"]) == expected, key
        canvas(page, "sagittal").focus()
        page.keyboard.press("ArrowLeft")  # anterior
        page.keyboard.press("PageDown")
        assert tuple(state(page)["native"]) == (i - 1, j + 1, k)


@pytest.mark.slow
def test_number_keys_and_buttons_choose_the_window_and_a_drag_changes_it(page_file) -> None:
    with opened(page_file) as page:
        ready(page)
        for key, level, width in (("2", -600, 1500), ("3", 400, 1800), ("4", 40, 80), ("1", 50, 400)):
            page.keyboard.press(key)
            now = state(page)
            assert (now["level"], now["width"]) == (level, width)
            assert page.locator("button[aria-pressed=true]").inner_text().startswith(key)
        page.get_by_role("button", name="lung").click()
        assert state(page)["level"] == -600
        assert page.locator("[data-part=width]").input_value() == "1500"
        before = pixels(page, "axial").mean()
        page.get_by_label("level").fill("-900")
        page.get_by_label("level").press("Enter")
        assert state(page)["level"] == -900
        assert pixels(page, "axial").mean() > before
        page.get_by_role("button", name="abdomen").click()
        box = canvas(page, "axial").bounding_box()
        page.keyboard.down("Shift")
        page.mouse.move(box["x"] + 100, box["y"] + 100)
        page.mouse.down()
        page.mouse.move(box["x"] + 200, box["y"] + 160)
        page.mouse.up()
        page.keyboard.up("Shift")
        now = state(page)
        assert now["level"] == pytest.approx(50 + 60 * 400 / 300)
        assert now["width"] == pytest.approx(400 * np.exp(0.5))


@pytest.mark.slow
def test_masks_are_switched_and_fade(page_file) -> None:
    def tinted():
        rgb = pixels(page, "axial")
        return int((np.ptp(rgb, axis=1) > 8).sum())

    with opened(page_file) as page:
        ready(page)
        page.locator("[data-part=axial-slice]").fill("10")
        state(page)
        both = tinted()
        page.get_by_label("prediction", exact=True).uncheck()
        state(page)
        only_reference = tinted()
        # The prediction reaches 4 voxels further than the 10 of the reference.
        assert both / only_reference == pytest.approx(1.4, abs=0.1)
        page.keyboard.press("r")
        assert state(page)["shown"] == {"reference": False, "prediction": False}
        assert tinted() == 0
        page.keyboard.press("r")
        page.keyboard.press("p")
        assert state(page)["shown"] == {"reference": True, "prediction": True}
        page.locator("[data-part=opacity]").fill("0")
        state(page)
        assert tinted() == 0


def test_the_button_and_the_key_go_to_the_slice_of_largest_error(page_file) -> None:
    with opened(page_file) as page:
        ready(page)
        page.get_by_role("button", name="slice of largest error").click()
        i, j, k = state(page)["native"]
        assert 16 <= i < 20
        assert 10 <= j < 20
        assert k == 9
        # 4 × 10 voxels of 20 mm³.
        assert page.locator("[data-part=error-text]").inner_text() == "axial slice 9: 40 wrong voxels, 0.8 ml"
        canvas(page, "coronal").focus()
        page.keyboard.press("e")
        assert state(page)["native"][1] == 10
        assert "coronal slice 10: 12 wrong voxels" in page.locator("[data-part=error-text]").inner_text()


@pytest.mark.slow
def test_the_oblique_plane_is_the_axial_one_until_it_is_tilted(page_file) -> None:
    with opened(page_file) as page:
        ready(page)
        for name, tilted in (("pitch", 90), ("roll", 90)):
            flat = pixels(page, "oblique")
            page.locator(f"[data-part={name}]").fill(str(tilted))
            assert state(page)[name] == tilted
            assert (pixels(page, "oblique") != flat).any(axis=1).mean() > 0.1
            page.keyboard.press("0")
            assert state(page)[name] == 0
            assert np.array_equal(pixels(page, "oblique"), flat)


@pytest.mark.slow
def test_zoom_keeps_the_crosshair_in_sight_and_reset_undoes_it(page_file) -> None:
    with opened(page_file) as page:
        ready(page)
        whole = pixels(page, "axial")
        page.keyboard.press("+")
        page.get_by_role("button", name="zoom in").click()
        assert state(page)["zoom"] == pytest.approx(1.25**2)
        assert (pixels(page, "axial") != whole).any()
        page.keyboard.press("0")
        assert state(page)["zoom"] == 1
        assert np.array_equal(pixels(page, "axial"), whole)


def test_surfaces_stand_side_by_side_turn_and_lead_the_crosshair(page_file) -> None:
    with opened(page_file) as page:
        ready(page)
        surface = canvas(page, "surface")
        drawn = surface.evaluate("canvas => canvas.toDataURL()")
        surface.focus()
        page.keyboard.press("ArrowRight")
        state(page)
        assert surface.evaluate("canvas => canvas.toDataURL()") != drawn
        page.keyboard.press("ArrowLeft")
        box = surface.bounding_box()
        surface.click(position={"x": 0.25 * box["width"], "y": 0.5 * box["height"]})
        i, j, k = state(page)["native"]  # the front of the box, seen from the front
        assert 17 <= i <= 30
        assert j == pytest.approx(19, abs=1)
        assert 5 <= k <= 14
        assert "to the other surface" in page.locator(".bar").inner_text()


def test_hostile_names_stay_text_and_nothing_else_identifies_the_case(tmp_path) -> None:
    scan = ct(case_id=HOSTILE, classes=(HOSTILE,), origin=(("image", "/home/jane_doe/ct.nii.gz"),))
    (tmp_path / "page.html").write_text(to_page(scan))
    with opened(tmp_path / "page.html") as page:
        ready(page)
        assert page.title() == f"{HOSTILE} – scan"
        assert page.locator("h1").inner_text() == HOSTILE
        assert page.get_by_text(f"{HOSTILE}, reference").count() == 1
    assert "jane_doe" not in to_page(scan)
    assert "jane_doe" in to_page(scan, identifying=True)


@pytest.mark.parametrize("n_classes", [0, 1, 7])
def test_it_works_without_masks_with_one_and_with_many_classes(tmp_path, n_classes) -> None:
    reference = np.zeros(SHAPE, np.uint8)
    for number in range(n_classes):
        reference[10 + 2 * number : 12 + 2 * number, 10:20, 5:15] = number + 1
    names = tuple(f"class {number}" for number in range(n_classes))
    scan = ct(
        classes=names, reference=reference if n_classes else None, prediction=reference if n_classes > 1 else None
    )
    (tmp_path / "page.html").write_text(to_page(scan))
    with opened(tmp_path / "page.html") as page:
        ready(page)
        assert page.locator("[data-part=error]").count() == 0
        assert page.locator("[data-part=surface]").count() == (n_classes > 0)
        page.keyboard.press("e")
        page.keyboard.press("p")
        assert state(page)["native"] is not None


def test_a_magnetic_resonance_image_has_windows_of_its_own(tmp_path) -> None:
    image = np.random.default_rng(0).integers(0, 900, SHAPE).astype(np.float32)
    (tmp_path / "page.html").write_text(to_page(ct(image=image, is_ct=False)))
    with opened(tmp_path / "page.html") as page:
        assert "HU" not in ready(page).locator("[data-part=position]").inner_text()
        page.keyboard.press("4")
        now = state(page)
        assert (now["level"] - now["width"] / 2, now["level"] + now["width"] / 2) == (0, image.max())


def test_without_scripts_there_are_still_pictures_with_texts(page_file, tmp_path) -> None:
    without = re.sub(r"<script>.*?</script>", "", page_file.read_text(), flags=re.DOTALL)
    (tmp_path / "page.html").write_text(without)
    with opened(tmp_path / "page.html") as page:
        pictures = page.locator(".still img")
        assert pictures.count() == 3
        assert all(pictures.nth(n).evaluate("image => image.complete && image.naturalWidth > 0") for n in range(3))
        assert re.fullmatch(r"axial slice \d+, reference and prediction in colour", pictures.first.get_attribute("alt"))
        assert not page.locator("[data-part=axial]").is_visible()
        assert "needs JavaScript" in page.locator("[data-part=hint]").inner_text()


@pytest.mark.parametrize(("width", "dark"), [(400, True), (1280, False)])
def test_nothing_is_wider_than_the_screen(page_file, width, dark) -> None:
    with opened(page_file, width=width, dark=dark) as page:
        ready(page)
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        assert canvas(page, "axial").bounding_box()["width"] > 0.25 * width


def test_a_scan_is_read_from_files_of_any_orientation(tmp_path) -> None:
    """An image in LPS and its label in RAS: the same places of the world."""
    scan = ct()
    flipped = scan.affine @ np.diag([-1.0, -1, 1, 1])
    flipped[:3, 3] = scan.affine @ (SHAPE[0] - 1, SHAPE[1] - 1, 0, 1) @ np.eye(4)[:, :3]
    save(tmp_path / "case7_0000.nii.gz", scan.image[::-1, ::-1], flipped)
    save(tmp_path / "label.nii.gz", 3 * scan.reference, scan.affine)
    read = read_scan(tmp_path / "case7_0000.nii.gz", tmp_path / "label.nii.gz")
    assert (read.case_id, read.classes, read.is_ct) == ("case7", ("label 3",), True)
    assert np.array_equal(read.image, scan.image)
    assert np.array_equal(read.reference, scan.reference)
    assert read.affine == pytest.approx(scan.affine)


def test_on_paper_the_planes_have_their_legend_and_no_controls(page_file) -> None:
    with opened(page_file, dark=True) as page:
        ready(page)
        assert print_faults(page) == []
        assert page.get_by_text("organ, reference").is_visible()
        surface, bar = (page.locator(each).bounding_box() for each in ("[data-part=surface]", ".bar i"))
        assert surface["width"] > canvas(page, "axial").bounding_box()["width"] * 1.9
        assert bar["width"] > 100
