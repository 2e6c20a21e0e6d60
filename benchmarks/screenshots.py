"""The pictures of the scan page in the documentation: `python -m benchmarks.screenshots --image CT --label LABEL`.

Needs Playwright and a Chromium. The prediction shown is the label, moved by two voxels and grown in some slices. Writes
`docs/images/scan_page.png`; with `--all FOLDER` also the dark page and that of a phone.
"""

import argparse
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image
from scipy.ndimage import binary_dilation

from spleen.evaluation.scan.case import Scan, read_scan
from spleen.evaluation.scan.page import to_page
from tests._helpers.browser import opened

PICTURE = Path(__file__).parents[1] / "docs" / "images" / "scan_page.png"
_GROWN = slice(-10, -6)


def shown_scan(image: Path, label: Path) -> Scan:
    scan = read_scan(image, label, class_names={1: "spleen"}, case_id="ct_1")
    assert scan.reference is not None
    prediction = np.roll(scan.reference, 2, axis=0)
    prediction[:, :, _GROWN] |= binary_dilation(prediction[:, :, _GROWN], iterations=2).astype(np.uint8)
    return replace(scan, prediction=prediction)


def take(page_file: Path, picture: Path, width: int, dark: bool, whole: bool = True) -> None:
    with opened(page_file, width=width, height=1300, dark=dark) as page:
        page.wait_for_selector(".viewer[data-ready]")
        page.keyboard.press("e")
        page.wait_for_timeout(500)
        page.screenshot(path=picture, full_page=whole)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--image", type=Path, required=True)
    parser.add_argument("--label", type=Path, required=True)
    parser.add_argument("--all", type=Path, help="folder for the other pictures")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        page_file = Path(folder, "page.html")
        page_file.write_text(to_page(shown_scan(arguments.image, arguments.label)))
        take(page_file, PICTURE, 1280, dark=False, whole=False)
        with Image.open(PICTURE) as whole:  # 256 colours, the few hues among them too, keep it below 300 kB
            whole.convert("RGB").quantize(256, Image.Quantize.MAXCOVERAGE).save(PICTURE, optimize=True)
        if arguments.all is not None:
            arguments.all.mkdir(parents=True, exist_ok=True)
            take(page_file, arguments.all / "dark.png", 1280, dark=True)
            take(page_file, arguments.all / "phone.png", 400, dark=False)


if __name__ == "__main__":
    main()
