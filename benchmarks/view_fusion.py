"""Three fused views of one volume against each view alone, on slices that none of them was trained on.

Run it from the repository, on an otherwise idle machine; anything after `--` is passed to every training run:

    python -m benchmarks.view_fusion --image ct.nii.gz --label spleen.nii.gz -- epochs=20

The volume is split once for all views: a slab of axial slices at its lower or upper end, `--share` of those that show
the organ, is the test set; slices within `--guard-mm` of it are not used; the rest is written as a separate volume, and
the three views are trained only on that (each validates on its own block inside it). They then predict the whole image,
and only the voxels of the slab are scored, on the native grid.
"""

import argparse
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from statistics import mean

import numpy as np
import torch

from benchmarks.header import header
from benchmarks.jobs import quoted, train
from spleen.evaluation.metrics.overlap import ConfusionCounts, count_confusion, dice
from spleen.imaging.nifti import read_image, read_label, write_volume
from spleen.imaging.slicing import AXES
from spleen.inference.predict import predict
from spleen.inference.settings import PredictSettings
from spleen.system.resources import work_folder
from spleen.types import LabelVolume


@dataclass(frozen=True)
class Slab:
    """Axial test slices at one end of the volume, and the training slices."""

    end: str
    test: slice
    train: slice


def slabs(label: LabelVolume, spacing_k_mm: float, share: float, guard_mm: float) -> Iterator[Slab]:
    """The slabs at the lower and the upper end."""
    organ = np.flatnonzero(label.any(axis=(0, 1)))
    count, guard = round(share * len(organ)), math.ceil(guard_mm / spacing_k_mm)
    first, last, n_slices = int(organ[0]), int(organ[-1]) + 1, label.shape[2]
    yield Slab("lower", slice(0, first + count), slice(first + count + guard, n_slices))
    yield Slab("upper", slice(last - count, n_slices), slice(0, last - count - guard))


def main() -> None:
    """Train, predict and score at both ends; print one row each, then the means."""
    arguments = _parse_arguments()
    folder = work_folder() / "outputs" / "benchmark_view_fusion" / f"{datetime.now():%Y-%m-%d_%H-%M-%S}"
    image, label = read_image(arguments.image), read_label(arguments.label)
    print(header())
    print(f"`{' '.join(['python train.py data=nifti', *arguments.overrides])}`\n")
    methods = (*AXES, "all three", "all three, --tta")
    print(f"| test end | slices | {' | '.join(methods)} |\n|---|---|{'---|' * len(methods)}")
    scores: list[list[float]] = []
    for slab in slabs(label.array, image.spacing_mm[2], arguments.share, arguments.guard_mm):
        here = folder / slab.end
        here.mkdir(parents=True)
        affine = image.affine.copy()
        affine[:3, 3] += affine[:3, 2] * slab.train.start
        write_volume(here / "image.nii.gz", np.ascontiguousarray(image.array[..., slab.train]), affine)
        write_volume(here / "label.nii.gz", np.ascontiguousarray(label.array[..., slab.train]).astype(np.uint8), affine)
        runs = [_train(axis, here, arguments.overrides) for axis in AXES]
        settings = [(run,) for run in runs] + [tuple(runs)] * 2
        row = []
        for number, views in enumerate(settings):
            mask = here / f"{number}.nii.gz"
            report = predict(views, arguments.image, mask, PredictSettings(tta=number == len(settings) - 1))
            assert not report.failures, report.failures
            row.append(_dice(read_label(mask).array[..., slab.test], label.array[..., slab.test]))
        scores.append(row)
        n_slices = slab.test.stop - slab.test.start
        print(f"| {slab.end} | {n_slices} | {' | '.join(f'{score:.4f}' for score in row)} |", flush=True)
    print(f"| mean |  | {' | '.join(f'{mean(column):.4f}' for column in zip(*scores, strict=True))} |")


def _train(axis: str, folder: Path, overrides: Sequence[str]) -> Path:
    data = [f"data.image={quoted(folder / 'image.nii.gz')}", f"data.label={quoted(folder / 'label.nii.gz')}"]
    train(["data=nifti", *data, f"axis={axis}", "logger=none", *overrides], folder / axis)
    return folder / axis


def _dice(prediction: LabelVolume, reference: LabelVolume) -> float:
    counts = count_confusion(torch.from_numpy(prediction > 0).int(), torch.from_numpy(reference > 0).int(), 2)
    return float(dice(ConfusionCounts(*counts[None].unbind(-1)))[0, 0])


def _parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--image", type=Path, required=True, help="CT, .nii or .nii.gz")
    parser.add_argument("--label", type=Path, required=True, help="its label; every value above 0 is the organ")
    parser.add_argument(
        "--share", type=float, default=0.25, help="fraction of the organ's axial slices in the test set"
    )
    parser.add_argument("--guard-mm", type=float, default=5.0, help="gap between the slab and training, mm")
    parser.add_argument("overrides", nargs="*", help="after --: overrides for every training run, such as epochs=20")
    return parser.parse_args()


if __name__ == "__main__":
    main()
