"""The page of a study in a real browser: sorting, pointing, the keyboard, hostile names, narrow screens and print."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from spleen.runs.results.page import to_page
from tests._helpers.browser import opened, print_faults
from tests._helpers.run_folders import write_json, write_run

if TYPE_CHECKING:
    from playwright.sync_api import Page

ATTACKS = ("<script>document.title='hacked'</script>", '"><img src=x onerror="document.title=1">', "</script><b>x</b>")


@pytest.fixture
def page_file(tmp_path: Path) -> Path:
    """Twelve arms in three seeds, with curves and cases."""
    for number, (axis, size, rate) in enumerate(
        (axis, size, rate) for axis in ("axial", "coronal") for size in (64, 128, 256) for rate in (1e-4, 1e-3)
    ):
        for seed in (0, 1):
            dice = 0.6 + number / 50 + seed / 200
            cases = [("test", f"c{n}", "x", dice + n / 1000) for n in range(3)]
            curve = [dice * epoch / 8 for epoch in range(1, 9)]
            settings = {"axis": axis, "img_size": size, "lr": rate, "seed": seed}
            run = write_run(tmp_path / f"{number}-{seed}", dice, dice, cases, val_by_epoch=curve, **settings)
            (run / "report.html").write_text(f"<title>{run.name}</title>")
    (tmp_path / "report.html").write_text(to_page(tmp_path))
    return tmp_path / "report.html"


@pytest.fixture
def page(page_file: Path) -> Iterator["Page"]:
    with opened(page_file) as shown:
        yield shown


def lit(page: "Page") -> set[str]:
    """The numbers of the highlighted arms."""
    return set(page.locator(".lit").evaluate_all("all => all.map(each => each.dataset.arm)"))


def test_a_click_on_a_heading_sorts_the_arms(page: "Page") -> None:
    table = page.locator("table.sortable").first
    sizes = table.locator("tbody td:nth-child(4)")
    assert sizes.all_inner_texts()[:2] == ["256", "256"]
    table.get_by_text("image size").click()
    assert sizes.all_inner_texts() == sorted(sizes.all_inner_texts(), key=int)
    rates = table.locator("tbody td:nth-child(5)")
    table.get_by_text("learning rate").press("Enter")
    assert rates.all_inner_texts() == ["1e-04"] * 6 + ["1e-03"] * 6


def test_pointing_at_a_row_lights_its_arm_everywhere(page: "Page") -> None:
    page.locator("table.sortable").first.locator("tbody tr").nth(2).hover()
    assert lit(page) == {"2"}
    # row of arms, cell, line, two list entries, curve, and the rows of its two runs
    assert page.locator(".lit").count() == 8
    expected = "coronal, 128 px, lr 1e-03: validation Dice 0.7825, test Dice 0.7825 (± 0.0318), 2 runs"
    assert page.locator(".readout").all_inner_texts() == [expected] * 2
    page.mouse.move(2, 2)
    assert lit(page) == set()
    assert "choose an arm" in page.locator(".readout").first.inner_text()


def test_pointing_at_a_line_or_a_cell_lights_its_arm(page: "Page") -> None:
    page.locator("table.heat td").last.hover()
    cell = page.locator("table.heat td").last.get_attribute("data-arm")
    assert lit(page) == {cell}
    line = page.locator('.lines [data-arm="5"] .hit').first
    line.scroll_into_view_if_needed()
    x, y = line.evaluate("""path => {
        const at = path.getPointAtLength(0.31 * path.getTotalLength()), place = path.getScreenCTM();
        return [place.a * at.x + place.e, place.d * at.y + place.f];
    }""")
    page.mouse.move(x, y)
    (pointed,) = lit(page)
    found = page.locator(f'.lines [data-arm="{pointed}"] .drawn').first
    assert found.evaluate("path => getComputedStyle(path).strokeWidth") == "4px"
    other = page.locator(f'.lines g:not([data-arm="{pointed}"])').first
    page.wait_for_timeout(200)  # the transition
    assert float(other.evaluate("line => getComputedStyle(line).opacity")) < 0.2


def test_the_list_is_one_stop_for_tab_and_arrows_move_within(page: "Page") -> None:
    arms = page.locator(".arms").first.locator("button")
    arms.first.focus()
    assert lit(page) == {"0"}
    page.keyboard.press("ArrowDown")
    assert lit(page) == {"1"}
    page.keyboard.press("End")
    assert lit(page) == {"11"}
    page.keyboard.press("Enter")
    assert arms.last.get_attribute("aria-pressed") == "true"
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.closest('.arms') === document.querySelectorAll('.arms')[1]")
    assert lit(page) == {"0"}
    page.mouse.click(2, 2)
    assert lit(page) == {"11"}  # kept
    page.keyboard.press("Escape")
    assert lit(page) == set()


def test_a_link_opens_the_page_of_a_run(page: "Page") -> None:
    page.locator("table.sortable").first.locator("tbody tr").first.get_by_role("link", name="1").click()
    assert page.title() == "11-1"


@pytest.mark.parametrize("dark", [False, True])
def test_a_narrow_screen_scrolls_tables_and_drawings_but_not_the_page(page_file: Path, dark: bool) -> None:
    with opened(page_file, width=400, dark=dark) as page:
        assert page.evaluate("document.documentElement.scrollWidth") == 400
        drawings = page.locator("svg[role=img]")
        assert drawings.count() == 3
        assert all(drawings.nth(n).get_attribute("aria-label") for n in range(3))
        # letters stay legible: 12 units, scaled by the drawing's width on the screen
        for number in range(3):
            scale = drawings.nth(number).evaluate("drawing => drawing.getScreenCTM().a")
            assert 12 * scale > 8


def test_cells_of_the_heat_map_contrast_with_their_numbers_on_the_whole_scale(page_file: Path) -> None:
    for dark in (False, True):
        with opened(page_file, dark=dark) as page:
            page.evaluate("document.body.append(Object.assign(document.createElement('canvas'), {id: 'probe'}))")
            ratios = page.locator("table.heat td[data-arm]").evaluate_all("""cells => {
              const whole = [...Array(1001).keys()].map(each => (each / 1000).toFixed(3));  // as levels are written
              const shown = cells.map(cell => [cell, cell.style.getPropertyValue('--level')]);
              return [...shown, ...whole.map(level => [cells[0], level])].map(([cell, level]) => {
                cell.style.setProperty('--level', level);
                const context = document.getElementById('probe').getContext('2d', {willReadFrequently: true});
                const luminance = colour => {
                    context.fillStyle = colour;
                    context.fillRect(0, 0, 1, 1);
                    const channels = [...context.getImageData(0, 0, 1, 1).data].slice(0, 3).map(each => each / 255);
                    const [r, g, b] = channels.map(c => c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4);
                    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
                };
                const style = getComputedStyle(cell);
                const both = [luminance(style.color), luminance(style.backgroundColor)];
                return (Math.max(...both) + 0.05) / (Math.min(...both) + 0.05);
              });
            }""")
            assert len(ratios) == 12 + 1001
            assert min(ratios) >= 4.5  # which WCAG 2.2 asks for small text


def test_hostile_values_cases_and_classes_stay_text(tmp_path: Path) -> None:
    for number, attack in enumerate(ATTACKS):
        cases = [("test", attack, attack, 0.5 + number / 10)]
        run = write_run(
            tmp_path / f"run{number}", 0.5 + number / 10, cases=cases, val_by_epoch=[0.5], data__name=attack
        )
        (run / "report.html").write_text("")
    failed = tmp_path / "<img src=x onerror=alert(1)>"
    failed.mkdir()
    write_json(failed / "failed.json", {"message": ATTACKS[0], "exit_code": 1})
    (tmp_path / "report.html").write_text(to_page(tmp_path))
    with opened(tmp_path / "report.html") as page:
        assert page.title() == f"{tmp_path.name} – study"
        assert page.locator("main script, main img").count() == 0
        shown = page.locator("table.sortable").first.locator("tbody td:nth-child(3)").all_inner_texts()
        assert shown == list(reversed(ATTACKS))
        assert page.locator("li", has_text="onerror=alert(1)").inner_text().endswith(ATTACKS[0])
        page.locator(".arms button").nth(2).hover()
        assert page.locator(".readout").first.inner_text().startswith(f"name {ATTACKS[0]}: ")


def test_print_shows_every_arm(page_file: Path) -> None:
    with opened(page_file) as page:
        page.emulate_media(media="print")
        lists = page.locator(".arms").evaluate_all("all => all.map(each => each.scrollHeight - each.clientHeight)")
        assert lists == [0, 0]
        assert not page.locator(".readout").first.is_visible()
        assert page.locator(".arms button").first.is_visible()
        assert print_faults(page) == []
