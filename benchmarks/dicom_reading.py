"""Reading a DICOM series, against SimpleITK's reader (GDCM) in the same process.

Run it from the repository, on an otherwise idle machine (a minute and 60 MB of disk):

    python -m benchmarks.dicom_reading
    python -m benchmarks.dicom_reading --rounds 9 --compress

Phantom series of 20 slices of 512 × 512 and of 90, one file per slice, as whole numbers of HU. Both find the files of
the folder, order them by position and give the rescaled voxels; the readers alternate, and files are in the page cache.
With --compress, the files are JPEG 2000 (lossless).

Target: at most 1.5 × SimpleITK's time.
"""

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import numpy as np
import pydicom
import SimpleITK
from pydicom.uid import JPEG2000Lossless

from benchmarks.header import header, verdict
from spleen.dicom.write_series import write_series
from spleen.imaging.native import read_native

TARGET = 1.5


def by_simpleitk(folder: Path) -> np.ndarray:
    reader = SimpleITK.ImageSeriesReader()
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(folder)))
    voxels: np.ndarray = SimpleITK.GetArrayFromImage(reader.Execute())
    return voxels


def by_spleen(folder: Path) -> np.ndarray:
    return read_native(folder).channels[0]


def timed(read: Callable[[Path], np.ndarray], folder: Path) -> float:
    started = time.perf_counter()
    read(folder)
    return time.perf_counter() - started


def phantom_series(folder: Path, n_slices: int, compress: bool) -> Path:
    """A body of 40 HU with noise in air."""
    rows, columns = np.ogrid[-1:1:512j, -1:1:512j]
    body = np.where(rows**2 + columns**2 < 0.7, 40, -1000)
    noise = np.random.default_rng(0).normal(0, 15, (512, 512, n_slices))
    array = np.clip(body[:, :, None] + noise, -1024, None).astype(np.int16)
    for path in write_series(folder, array, np.diag([-0.8, -0.8, 3.0, 1.0])):
        if compress:
            dataset = pydicom.dcmread(path)
            dataset.compress(JPEG2000Lossless)
            dataset.save_as(path)
    return folder


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--compress", action="store_true")
    parser.add_argument("--slices", type=int, nargs="+", default=[20, 90])
    arguments = parser.parse_args()
    print(header())
    print(f"pydicom {pydicom.__version__}, SimpleITK {SimpleITK.Version.VersionString()}")
    print("\n| slices | SimpleITK s | ours s | ours ÷ SimpleITK (range) | target | |\n|---|---|---|---|---|---|")
    for n_slices in arguments.slices:
        with tempfile.TemporaryDirectory() as temporary:
            folder = phantom_series(Path(temporary, "series"), n_slices, arguments.compress)
            by_simpleitk(folder), by_spleen(folder)
            pairs = [(timed(by_simpleitk, folder), timed(by_spleen, folder)) for _ in range(arguments.rounds)]
        ratios = [ours / theirs for theirs, ours in pairs]
        theirs, ours = (median(pair[column] for pair in pairs) for column in (0, 1))
        print(
            f"| {n_slices} | {theirs:.3f} | {ours:.3f} | {median(ratios):.2f} ({min(ratios):.2f}–{max(ratios):.2f}) "
            f"| ≤ {TARGET} | {verdict(median(ratios) <= TARGET)} |"
        )


if __name__ == "__main__":
    main()
