"""The pictures of pages in the documentation.

    python train.py study=pictures logger=none
    python -m benchmarks.screenshots outputs/latest                                   # the phantom: scan and run page
    python -m benchmarks.screenshots --study outputs/size_and_rate                    # a study's page
    python -m benchmarks.screenshots --scan ct_page ct.nii.gz spleen.nii.gz RUN       # any scan, its label, and a run
    python -m benchmarks.screenshots --page followup_page report/followup.html        # any page

Writes NAME.png into docs/images; with `--all FOLDER` also each page dark and on a phone. Needs Playwright and Chromium.
"""

import argparse
import tempfile
from collections.abc import Iterator
from pathlib import Path

from PIL import Image

import spleen
from spleen.data.phantom.case import phantom_case
from spleen.evaluation.scan.case import read_scan
from spleen.evaluation.scan.page import to_page as scan_page
from spleen.runs.report.page import to_page as run_page
from spleen.runs.results.page import to_page as study_page
from spleen.system.resources import work_folder
from tests._helpers.browser import opened

IMAGES = Path(__file__).parents[1] / "docs" / "images"


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("run", type=Path, nargs="?", help="a run folder of data=phantom with the default size")
    arguments.add_argument("--study", type=Path, help="a study's folder")
    arguments.add_argument("--scan", nargs=4, metavar=("NAME", "IMAGE", "LABEL", "RUN"), help="a scan and a run for it")
    arguments.add_argument("--page", nargs=2, metavar=("NAME", "FILE"), help="a page that exists")
    arguments.add_argument("--all", type=Path, help="folder for the other pictures")
    given = arguments.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        for name, content in _pages(given, Path(folder)):
            page_file, picture = Path(folder, f"{name}.html"), IMAGES / f"{name}.png"
            page_file.write_text(content)
            _take(page_file, picture, 1280, dark=False)
            with Image.open(picture) as whole:  # smaller; 256 colours would draw contours into a scan's greys
                whole.convert("RGB").save(picture, optimize=True)
            if given.all is not None:
                given.all.mkdir(parents=True, exist_ok=True)
                _take(page_file, given.all / f"{name}_dark.png", 1280, dark=True)
                _take(page_file, given.all / f"{name}_phone.png", 400, dark=False)


def _pages(given: argparse.Namespace, folder: Path) -> Iterator[tuple[str, str]]:
    if given.run is not None:
        case = phantom_case(work_folder() / ".cache", matrix=192, n_slices=120, seed=0, noise_hu=12.0)
        yield "scan_page", _scan_page(given.run, case.images[0], case.label, "phantom_0", folder)
        yield "run_page", run_page(given.run)
    if given.study is not None:
        yield "study_page", study_page(given.study)
    if given.scan is not None:
        name, image, label, run = given.scan
        yield name, _scan_page(Path(run), Path(image), Path(label), Path(image).name.split(".")[0], folder)
    if given.page is not None:
        yield given.page[0], Path(given.page[1]).read_text()


def _scan_page(run: Path, image: Path, label: Path | None, case_id: str, folder: Path) -> str:
    mask = folder / "mask.nii.gz"
    spleen.predict(run, image, mask)
    classes = dict(enumerate(spleen.load_model(run).class_names, start=1))
    return scan_page(read_scan(image, label, mask, class_names=classes, case_id=case_id))


def _take(page_file: Path, picture: Path, width: int, dark: bool) -> None:
    with opened(page_file, width=width, height=1300, dark=dark) as page:
        if page.locator(".viewer").count():
            page.wait_for_selector(".viewer[data-ready]", timeout=120_000)
            page.keyboard.press("e")  # the slice of largest error
        page.wait_for_timeout(2000)
        page.screenshot(path=picture)


if __name__ == "__main__":
    main()
