"""The pictures of pages in the documentation, of the embedded phantom and a run that was trained on it.

    python train.py study=pictures logger=none
    python -m benchmarks.screenshots outputs/latest

Writes `docs/images/scan_page.png` (the phantom with the run's prediction) and `docs/images/run_page.png`; with
`--all FOLDER` also both pages dark and on a phone. Needs Playwright and a Chromium.
"""

import argparse
import tempfile
from pathlib import Path

from PIL import Image

import spleen
from spleen.data.phantom.case import phantom_case
from spleen.evaluation.scan.case import read_scan
from spleen.evaluation.scan.page import to_page as scan_page
from spleen.runs.report.page import to_page as run_page
from spleen.system.resources import work_folder
from tests._helpers.browser import opened

IMAGES = Path(__file__).parents[1] / "docs" / "images"


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("run", type=Path, help="a run folder of data=phantom with the default size")
    arguments.add_argument("--all", type=Path, help="folder for the other pictures")
    given = arguments.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        pages = {"scan_page": Path(folder, "scan.html"), "run_page": Path(folder, "run.html")}
        pages["scan_page"].write_text(_scan_page(given.run, Path(folder)))
        pages["run_page"].write_text(run_page(given.run))
        for name, page_file in pages.items():
            picture = IMAGES / f"{name}.png"
            _take(page_file, picture, 1280, dark=False)
            with Image.open(picture) as whole:  # 256 colours, the few hues among them too, keep it below 300 kB
                whole.convert("RGB").quantize(256, Image.Quantize.MAXCOVERAGE).save(picture, optimize=True)
            if given.all is not None:
                given.all.mkdir(parents=True, exist_ok=True)
                _take(page_file, given.all / f"{name}_dark.png", 1280, dark=True)
                _take(page_file, given.all / f"{name}_phone.png", 400, dark=False)


def _scan_page(run: Path, folder: Path) -> str:
    case = phantom_case(work_folder() / ".cache", matrix=192, n_slices=120, seed=0, noise_hu=12.0)
    (image,) = case.images
    mask = folder / "mask.nii.gz"
    spleen.predict(run, image, mask)
    return scan_page(read_scan(image, case.label, mask, class_names={1: "spleen"}, case_id="phantom_0"))


def _take(page_file: Path, picture: Path, width: int, dark: bool) -> None:
    with opened(page_file, width=width, height=1300, dark=dark) as page:
        if page.locator(".viewer").count():
            page.wait_for_selector(".viewer[data-ready]", timeout=120_000)
            page.keyboard.press("e")  # the slice of largest error
        page.wait_for_timeout(2000)
        page.screenshot(path=picture)


if __name__ == "__main__":
    main()
