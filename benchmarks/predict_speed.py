"""`spleen predict` against the bare network, end to end on one 512 × 512 × 90 volume, img_size=256.

Run it from the repository, on an otherwise idle machine: `python -m benchmarks.predict_speed`. Ours: predict(), from
the file's path to the finished mask and predictions.csv. Bare: nibabel reads the file, the same network with the same
precision and batch size runs over the same slices, already in memory as network input, and nibabel writes a mask. The
two alternate; a ratio compares one turn of each. Target: 1.25. The last column is the whole `spleen predict` command,
imports included.
"""

import argparse
import itertools
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

import nibabel as nib
import numpy as np
import torch

from benchmarks.header import header, verdict
from benchmarks.jobs import quoted, train
from spleen.data.phantom.case import phantom_case
from spleen.imaging.intensity import fit_intensity
from spleen.imaging.native import read_native
from spleen.imaging.preprocessing import network_planes
from spleen.imaging.slicing import context_indices
from spleen.inference.loading import TrainedModel, load_trained
from spleen.inference.predict import predict
from spleen.inference.settings import PredictSettings
from spleen.system.hardware import choose_hardware
from spleen.system.resources import work_folder

TARGET = 1.25
BATCH_SIZE = PredictSettings().batch_size


def main() -> None:
    """Print one row per axis."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5, help="turns of each")
    parser.add_argument("--axes", nargs="+", default=["axial", "coronal", "sagittal"])
    arguments = parser.parse_args()
    cache = work_folder() / ".cache"
    image = phantom_case(cache, matrix=512, n_slices=90, seed=0, noise_hu=12.0).images[0]
    print(header())
    print(
        "| axis | slices | reading s | forward s | writing s | bare s | ours s | ours ÷ bare | target | | command s |"
    )
    print("|---|---|---|---|---|---|---|---|---|---|---|")
    for axis in arguments.axes:
        with tempfile.TemporaryDirectory() as folder:
            print(_row(axis, image, Path(folder), arguments.rounds), flush=True)


def _row(axis: str, image: Path, folder: Path, rounds: int) -> str:
    run = folder / "run"
    setting = ["data.matrix=512", "img_size=256", f"axis={axis}", "epochs=1", "logger=none"]
    train([*setting, f"output_dir={quoted(folder)}"], run)
    model = load_trained(run)
    stacks = _network_input(model, image)
    parts: list[tuple[float, float, float]] = []
    ours: list[float] = []
    settings = PredictSettings(overwrite=True)
    for _ in range(rounds + 1):  # the first turn of each is a warm-up
        parts.append(_bare(model, image, stacks, folder / "bare.nii.gz"))
        started = time.perf_counter()
        report = predict(run, image, folder / "ours.nii.gz", settings)
        ours.append(time.perf_counter() - started)
        assert not report.failures, report.failures
    started = time.perf_counter()
    command = [Path(sys.executable).with_name("spleen"), "predict", run, image, "-o", folder / "ours.nii.gz"]
    subprocess.run([*map(str, command), "--overwrite"], check=True, capture_output=True)
    whole = time.perf_counter() - started
    bare = [sum(turn) for turn in parts[1:]]
    ratios = [mine / other for mine, other in zip(ours[1:], bare, strict=True)]
    seconds = " | ".join(f"{median(column):.2f}" for column in zip(*parts[1:], strict=True))
    return (
        f"| {axis} | {len(stacks)} | {seconds} | {median(bare):.2f} | {median(ours[1:]):.2f} | {median(ratios):.3f} "
        f"({min(ratios):.3f}–{max(ratios):.3f}) | ≤ {TARGET} | {verdict(median(ratios) <= TARGET)} | {whole:.1f} |"
    )


def _network_input(model: TrainedModel, path: Path) -> torch.Tensor:
    """All slices as network input, float32."""
    image, settings = read_native(path), model.preprocessing
    (array,) = image.channels
    grid = settings.plan(image.shape, image.affine)
    planes = network_planes(array, settings.axis, grid, fit_intensity(array, settings.intensity, str(path)))
    context = context_indices(np.arange(len(planes)), len(planes), model.spec.context_slices)
    return torch.from_numpy(planes[context]).float().contiguous(memory_format=torch.channels_last)


def _bare(model: TrainedModel, path: Path, stacks: torch.Tensor, mask: Path) -> tuple[float, float, float]:
    """Seconds for reading, for the network alone, and for writing."""
    hardware = choose_hardware("auto", model.spec.precision)
    network = model.network.to(hardware.device)
    times = [time.perf_counter()]
    nifti = nib.nifti1.load(path)
    np.asanyarray(nifti.dataobj)
    times.append(time.perf_counter())
    autocast = torch.autocast(hardware.device.type, hardware.autocast, enabled=hardware.autocast is not None)
    with torch.inference_mode(), autocast:
        for start in range(0, len(stacks), BATCH_SIZE):
            network(stacks[start : start + BATCH_SIZE].to(hardware.device)).sum().item()
    times.append(time.perf_counter())
    nib.nifti1.save(nib.nifti1.Nifti1Image(np.zeros(nifti.shape, np.uint8), nifti.affine), mask)
    times.append(time.perf_counter())
    read, forward, write = (float(after - before) for before, after in itertools.pairwise(times))
    return read, forward, write


if __name__ == "__main__":
    main()
