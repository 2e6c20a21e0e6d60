"""A real browser: Chromium of this machine without a network, driven by Playwright; skips where it is missing."""

import atexit
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

_NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


@contextmanager
def opened(page_file: Path, width: int = 1280, height: int = 900, dark: bool = False) -> Iterator["Page"]:
    """The page in an offline browser; fails the test if the page logged an error or asked for anything."""
    complaints: list[str] = []
    context = _browser().new_context(
        viewport={"width": width, "height": height}, color_scheme="dark" if dark else "light", offline=True
    )
    try:
        page = context.new_page()
        page.on("console", lambda message: complaints.append(message.text) if message.type == "error" else None)
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("request", lambda request: complaints.append(request.url) if _is_remote(request.url) else None)
        page.goto(page_file.absolute().as_uri())
        yield page
    finally:
        context.close()
    assert not complaints, "\n".join(complaints)


def print_faults(page: "Page") -> list[str]:
    """What is wrong with the page on A4 paper: parts beyond the edge or cut off, and controls other than a legend's."""
    page.set_viewport_size({"width": 702, "height": 900})  # 210 mm less margins of 12 mm, at 96 pixels per inch
    page.emulate_media(media="print")
    faults: list[str] = page.evaluate("""() => [...document.querySelectorAll('main *')].flatMap(each => {
        const style = getComputedStyle(each), box = each.getBoundingClientRect();
        if (!each.checkVisibility({contentVisibilityAuto: true}) || !box.width) return [];
        const cut = each.scrollWidth > each.clientWidth + 2 || each.scrollHeight > each.clientHeight + 2;
        const is = {
            'beyond the edge': box.right > 703,
            'cut off': cut && !['visible', 'clip'].includes(style.overflow) && !each.closest('svg'),
            'a control': each.matches('button, input, select, nav') && !each.closest('.arms'),
            'closed': each.matches('details:not([open])') && ![...each.children].at(-1).checkVisibility(),
        };
        return Object.keys(is).filter(name => is[name]).map(name => `${each.outerHTML.slice(0, 60)} is ${name}`);
    })""")
    return faults


@cache
def _browser() -> "Browser":
    """One for all tests of a process: starting it takes longer than most of them."""
    playwright = pytest.importorskip("playwright.sync_api", reason="Playwright is not installed")
    chromium = next(filter(None, map(shutil.which, _NAMES)), None)
    if chromium is None:
        pytest.skip("no Chromium on this machine")
    driver = playwright.sync_playwright().start()
    browser: Browser = driver.chromium.launch(executable_path=chromium, args=["--no-sandbox"])  # which root needs
    atexit.register(driver.stop)
    atexit.register(browser.close)  # before the driver
    return browser


def _is_remote(url: str) -> bool:
    return not url.startswith(("file:", "data:", "blob:"))
