"""How large the page of a 512 × 512 × 90 scan is, and how long it takes to write and to open.

Run it from the repository, on an otherwise idle machine (about two minutes): `python -m benchmarks.page_size`; with
`--image CT --label LABEL` also of a real CT, brought to 512 × 512 × 90 voxels by linear interpolation with noise of
12 HU added, since interpolation removes it and noise is what costs bytes. The phantom has noise of its own. The
prediction is the label, moved by three voxels.

Bars: at most 15 MB, and 3 s from loading the file to planes that can be moved (the surfaces come a moment later), in a
Chromium without a network and without a graphics card. "step" is the time from a key to the next picture of all planes.
"""

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np
from scipy.ndimage import zoom

from benchmarks.header import header, verdict
from spleen.data.phantom.render import make_phantom
from spleen.evaluation.scan.case import Scan, read_scan
from spleen.evaluation.scan.page import to_page
from spleen.reporting.tables import Cell, to_markdown
from tests._helpers.browser import opened

SHAPE, NOISE_HU = (512, 512, 90), 12.0
MOST_MB, MOST_SECONDS = 15.0, 3.0
_STEPS = 20


def phantom_scan() -> Scan:
    phantom = make_phantom(SHAPE[0], SHAPE[2], 0, NOISE_HU)
    reference = (phantom.label > 0).astype(np.uint8)
    return _with_prediction("phantom", phantom.hu.astype(np.float32), phantom.affine, reference)


def upsampled(image: Path, label: Path) -> Scan:
    scan = read_scan(image, label)
    assert scan.reference is not None
    factors = np.array(SHAPE) / scan.image.shape
    affine = scan.affine.copy()
    affine[:3, :3] /= factors
    noise = np.random.default_rng(0).normal(0, NOISE_HU, SHAPE)
    array = np.rint(zoom(scan.image, factors, order=1) + noise).astype(np.float32)
    return _with_prediction("real CT, upsampled", array, affine, zoom(scan.reference, factors, order=0))


def _with_prediction(name: str, image: np.ndarray, affine: np.ndarray, reference: np.ndarray) -> Scan:
    return Scan(name, image, affine, True, ("spleen",), reference, np.roll(reference, 3, axis=0))


def measure(scan: Scan, folder: Path) -> list[Cell]:
    page_file = folder / "page.html"
    started = time.perf_counter()
    page_file.write_text(to_page(scan))
    written = time.perf_counter() - started
    size_mb = page_file.stat().st_size / 1e6
    with opened(page_file) as page:
        page.wait_for_selector(".viewer[data-ready]")
        opening = page.evaluate("performance.getEntriesByName('planes ready')[0].startTime") / 1000
        step = page.evaluate(
            f"""(async () => {{
              const frame = () => new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)));
              const start = performance.now();
              for (let n = 0; n < {_STEPS}; n++) {{
                document.activeElement.dispatchEvent(
                  new KeyboardEvent('keydown', {{key: n % 2 ? 'PageUp' : 'PageDown', bubbles: true}}));
                await frame();
              }}
              return (performance.now() - start) / {_STEPS};
            }})()"""
        )
        note = page.locator(".viewer > p").inner_text()
    passed = verdict(size_mb <= MOST_MB), verdict(opening <= MOST_SECONDS)
    print(f"{scan.case_id}: {note}\n", flush=True)
    return [scan.case_id, f"{size_mb:.1f}", passed[0], f"{written:.1f}", f"{opening:.1f}", passed[1], f"{step:.0f}"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--image", type=Path)
    parser.add_argument("--label", type=Path)
    arguments = parser.parse_args()
    print(header())
    scans = [phantom_scan()]
    if arguments.image is not None:
        scans.append(upsampled(arguments.image, arguments.label))
    with tempfile.TemporaryDirectory() as folder:
        rows = [measure(scan, Path(folder)) for scan in scans]
    columns = ["scan", "page (MB)", f"≤ {MOST_MB:g} MB", "written in (s)", "opened in (s)", f"≤ {MOST_SECONDS:g} s"]
    print(to_markdown([*columns, "step (ms)"], rows))


if __name__ == "__main__":
    main()
