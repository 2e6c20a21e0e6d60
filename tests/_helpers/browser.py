"""A real browser: Chromium of this machine without a network, driven by Playwright; skips where it is missing."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from playwright.sync_api import Page

_NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


@contextmanager
def opened(page_file: Path, width: int = 1280, height: int = 900, dark: bool = False) -> Iterator["Page"]:
    """The page in an offline browser; fails the test if the page logged an error or asked for anything."""
    playwright = pytest.importorskip("playwright.sync_api", reason="Playwright is not installed")
    chromium = next(filter(None, map(shutil.which, _NAMES)), None)
    if chromium is None:
        pytest.skip("no Chromium on this machine")
    complaints: list[str] = []
    with playwright.sync_playwright() as driver:
        # SwiftShader draws WebGL2 on a machine without a graphics card; root needs --no-sandbox.
        arguments = ["--no-sandbox", "--use-angle=swiftshader", "--enable-unsafe-swiftshader", "--ignore-gpu-blocklist"]
        browser = driver.chromium.launch(executable_path=chromium, args=arguments)
        context = browser.new_context(
            viewport={"width": width, "height": height}, color_scheme="dark" if dark else "light", offline=True
        )
        page = context.new_page()
        page.on("console", lambda message: complaints.append(message.text) if message.type == "error" else None)
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("request", lambda request: complaints.append(request.url) if _is_remote(request.url) else None)
        page.goto(page_file.absolute().as_uri())
        yield page
        browser.close()
    assert not complaints, "\n".join(complaints)


def _is_remote(url: str) -> bool:
    return not url.startswith(("file:", "data:", "blob:"))
