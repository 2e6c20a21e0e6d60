"""Recovery of known movements by `spleen register`, and its time on a scan of full size.

Run it from the repository, on an otherwise idle machine (about 10 minutes):

    python -m benchmarks.registration
    python -m benchmarks.registration --ct image.nii.gz --label label.nii.gz
    python -m benchmarks.registration --quick        # the phantom at a low resolution only

Each image is moved by a transform that is known, by SimpleITK's resampler; the error is the mean distance between where
the voxels of the organ are and where they end after the true movement and the found one back. Targets: rigid 0.3 mm on
the CT, and 60 s for 512 × 512 × 90 voxels.
"""

import argparse
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk  # noqa: N813

from benchmarks.header import header, verdict
from spleen.data.phantom.render import make_phantom
from spleen.imaging.nifti import Volume, read_image, read_label
from spleen.registration.align import Kind, align
from spleen.registration.grids import as_volume, grid_of, to_image
from spleen.registration.report import label_dice
from spleen.registration.resampling import resample_onto

ERROR_MM, SECONDS = 0.3, 60.0


@dataclass(frozen=True)
class Trial:
    name: str
    kind: Kind
    movement: str
    fixed: Volume
    label: Volume
    true: Any
    as_mr: bool = False


def measure(trial: Trial) -> tuple[float, float, float, float, float]:
    """Error before and after in mm, Dice before and after, seconds."""
    fixed, label = trial.fixed, trial.label
    grid = grid_of(fixed)
    moving = resample_onto(fixed, grid, trial.true, "cubic")  # linear would blur it
    if trial.as_mr:
        moving = mr_of(moving)
    moved_label = as_volume(resample_onto(label, grid, trial.true, "nearest"), label.affine)
    start = time.perf_counter()
    found = align(fixed, as_volume(moving, fixed.affine), trial.kind)
    seconds = time.perf_counter() - start
    voxels, image = np.argwhere(label.array)[::25], to_image(label)
    points = [image.TransformIndexToPhysicalPoint([int(index) for index in voxel]) for voxel in voxels]

    def error(transform: Any) -> float:
        back = [trial.true.TransformPoint(transform.TransformPoint(point)) for point in points]
        return float(np.linalg.norm(np.array(back) - points, axis=1).mean())

    def dice(transform: Any) -> float:
        return label_dice(resample_onto(moved_label, grid, transform, "nearest"), label.array)[1]

    nothing = sitk.Transform()
    return error(nothing), error(found.transform), dice(nothing), dice(found.transform), seconds


def mr_of(hu: np.ndarray) -> np.ndarray:
    """A contrast in which air and bone are dark and fat is bright, with a bias field and noise."""
    signal = np.interp(hu, [-1000, -500, -100, 0, 60, 150, 400, 1500], [0, 5, 400, 150, 220, 330, 80, 20])
    i, j, k = np.indices(hu.shape, dtype=np.float32) / np.array(hu.shape)[:, None, None, None]
    bias = 1 + 0.3 * np.sin(2 * i) * np.cos(3 * j) + 0.1 * k
    mr: np.ndarray = np.abs(signal * bias + np.random.default_rng(1).normal(0, 10, hu.shape)).astype(np.float32)
    return mr


def trials(name: str, fixed: Volume, label: Volume, all_kinds: bool = True) -> Iterator[Trial]:
    image = to_image(fixed)
    middle = image.TransformContinuousIndexToPhysicalPoint([(size - 1) / 2 for size in image.GetSize()])
    rigid = sitk.Euler3DTransform()
    rigid.SetCenter(middle)
    rigid.SetRotation(0.05, 0.03, float(np.deg2rad(15)))
    rigid.SetTranslation((16.0, -10.0, 6.4))
    yield Trial(name, "rigid", "15°, 20 mm", fixed, label, rigid)
    if not all_kinds:
        return
    yield Trial(f"{name}, MR on CT", "rigid", "15°, 20 mm", fixed, label, rigid, as_mr=True)
    scaled = sitk.AffineTransform(3)
    scaled.SetCenter(middle)
    scaled.Scale(1 / 1.1)
    yield Trial(name, "affine", "10 % larger", fixed, label, scaled)
    bent = sitk.BSplineTransformInitializer(image, [5, 5, 3], 3)
    bent.SetParameters(np.random.default_rng(0).normal(0, 8, len(bent.GetParameters())).tolist())
    yield Trial(name, "deformable", "B-spline, σ 8 mm", fixed, label, bent)


def phantom(matrix: int, n_slices: int) -> tuple[Volume, Volume]:
    made = make_phantom(matrix, n_slices)
    return as_volume(made.hu, made.affine), as_volume(made.label, made.affine)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ct", type=Path, help="a real CT")
    parser.add_argument("--label", type=Path, help="the mask of an organ in it")
    parser.add_argument("--quick", action="store_true", help="the phantom at a low resolution only")
    arguments = parser.parse_args()
    print(header())
    planned = list(trials("phantom 96 × 96 × 60", *phantom(96, 60)))
    if arguments.ct and arguments.label:
        planned += trials("CT", read_image(arguments.ct), read_label(arguments.label))
    if not arguments.quick:
        planned += trials("phantom 512 × 512 × 90", *phantom(512, 90), all_kinds=False)
    print("| images | kind | movement | error before | after, mm | Dice before | after | seconds | targets |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- | --- |")
    for trial in planned:
        error, left, dice, dice_after, seconds = measure(trial)
        targets = []
        if trial.name == "CT" and trial.kind == "rigid":
            targets.append(f"{ERROR_MM} mm {verdict(left <= ERROR_MM)}")
        if trial.name.startswith("phantom 512"):
            targets.append(f"{SECONDS:g} s {verdict(seconds <= SECONDS)}")
        cells = (f"{error:.1f}", f"{left:.2f}", f"{dice:.3f}", f"{dice_after:.3f}", f"{seconds:.1f}")
        print(f"| {' | '.join((trial.name, trial.kind, trial.movement, *cells, ', '.join(targets)))} |", flush=True)


if __name__ == "__main__":
    main()
