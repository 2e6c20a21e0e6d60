"""Training throughput of this framework against a bare PyTorch loop, in slices per second.

Run it from the repository, on an otherwise idle machine (the default settings take about 12 minutes):

    python -m benchmarks.throughput
    python -m benchmarks.throughput --sizes 128 --widths 16 --augments none --rounds 3 --seconds 5
    python -m benchmarks.throughput --gpu-table      # on a machine with a CUDA device

Ours: what `python train.py` does in an epoch — slice store, balanced sampler, augmentation, LightningModule, Trainer,
schedule, logging — without validation. Bare: the same network and initial weights, loss, AdamW, clipping, precision and
batch size, its batches prepared beforehand as float32 tensors in memory, never augmented. The two alternate in one
process; the first step of every turn is not counted. A ratio compares two consecutive turns; the table gives the median
ratio and the range. On a CUDA device the bare step is one CUDA graph.
"""

import argparse
import copy
import itertools
import tempfile
import time
from pathlib import Path
from statistics import median

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback
from pytorch_lightning.utilities.types import STEP_OUTPUT

from benchmarks.bare_loop import BareLoop, synchronised_time
from benchmarks.header import header, verdict
from benchmarks.jobs import configure, quoted
from spleen.config import factory as build
from spleen.config.datasets import find_dataset
from spleen.config.schema import TrainConfig
from spleen.data.loading.batches import SliceBatch
from spleen.data.loading.on_device import StepNumbers
from spleen.runs.data import open_data
from spleen.system.resources import work_folder
from spleen.training import fit
from spleen.training.callbacks import Clock

TARGETS = {"none": 0.97, "light": 0.93, "strong": 0.85}
GPU_TARGETS = {"none": 0.85, "light": 0.85, "strong": 0.85}
GPU_ROWS = [
    (128, 16, 4), (128, 16, 32), (128, 16, 128), (256, 16, 4), (256, 16, 32), (512, 16, 4), (512, 16, 32),
    (512, 32, 4), (512, 32, 32), (64, 32, 32),
]  # fmt: skip
# Large enough that training does not end and no validation runs while the loops alternate.
_NEVER = 1_000_000


class AlternatingTurns(Callback):
    """Times our training, and runs a turn of the bare loop after each of ours."""

    def __init__(self, bare: BareLoop, seconds: float, rounds: int) -> None:
        self.ours: list[float] = []
        self.bare: list[float] = []
        self._loop, self._seconds, self._rounds = bare, seconds, rounds
        self._slices, self._since = 0, 0.0

    def on_train_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: STEP_OUTPUT,
        batch: SliceBatch | StepNumbers,
        batch_idx: int,
    ) -> None:
        """Count a step; the turn's first one only starts the clock."""
        del pl_module, outputs, batch_idx  # passed by Lightning, not needed here
        if not self._since:
            self._slices, self._since = 0, synchronised_time()
            return
        self._slices += batch.n_slices
        if time.perf_counter() - self._since < self._seconds:
            return
        elapsed = synchronised_time() - self._since
        self.ours.append(self._slices / elapsed)
        self.bare.append(self._loop.turn(self._seconds))
        self._since = 0.0
        trainer.should_stop = len(self.ours) == self._rounds


def measure(config: TrainConfig, folder: Path, seconds: float, rounds: int) -> AlternatingTurns:
    """Alternate between both loops with the network and the data of one configuration."""
    settings = build.build_fit_settings(config)
    parts = build.build_parts(config)
    data = open_data(config, find_dataset(config).cases, parts.spec.preprocessing).slices
    module = build.build_module(config, parts, data)
    bare = BareLoop(
        network=copy.deepcopy(module.network),
        loss=build.build_loss(config),
        optimiser=build.build_optimiser_settings(config),
        gradient_clip=settings.gradient_clip,
        batches=list(data.slice_batches()),
        device=torch.device("cuda" if settings.accelerator == "gpu" else settings.accelerator),
        bf16=settings.precision == "bf16-mixed",
    )
    turns = AlternatingTurns(bare, seconds, rounds)
    trainer = fit.make_trainer(settings, folder, [Clock(time.time()), turns])
    trainer.fit(module, data)
    return turns


@fit.quiet()
def main() -> None:
    """Print one row for each size, width and augmentation."""
    arguments = _parse_arguments()
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    print(header())
    print("| img_size | width | batch | augment | bare slices/s | ours slices/s | ours ÷ bare (range) | target | |")
    print("|---|---|---|---|---|---|---|---|---|")
    rows = GPU_ROWS if arguments.gpu_table else itertools.product(arguments.sizes, arguments.widths, arguments.batches)
    targets = GPU_TARGETS if torch.cuda.is_available() else TARGETS
    for (size, width, batch), augment in itertools.product(rows, arguments.augments):
        with tempfile.TemporaryDirectory() as folder:
            config = _configure(size, width, batch, augment, Path(folder))
            turns = measure(config, Path(folder), arguments.seconds, arguments.rounds)
        ratios = [ours / bare for ours, bare in zip(turns.ours, turns.bare, strict=True)]
        print(
            f"| {size} | {width} | {batch} | {augment} | {median(turns.bare):.2f} | {median(turns.ours):.2f} | "
            f"{median(ratios):.3f} ({min(ratios):.3f}–{max(ratios):.3f}) | ≥ {targets[augment]} | "
            f"{verdict(median(ratios) >= targets[augment])} |",
            flush=True,
        )


def _configure(size: int, width: int, batch: int, augment: str, folder: Path) -> TrainConfig:
    """Axial slices of the phantom, whose planes are square, so the input is size × size pixels without padding."""
    return configure(
        [
            "data=phantom", f"data.matrix={size}", f"img_size={size}", "axis=axial", f"augment={augment}",
            f"model.network.width={width}", f"batch_size={batch}", f"loader.slices_per_epoch={50 * batch}",
            "schedule=constant", "schedule.warmup_fraction=0", "trainer.progress=false",
            f"epochs={_NEVER}", f"trainer.val_every_epochs={_NEVER}", f"output_dir={quoted(folder)}",
            f"cache_dir={quoted(work_folder() / '.cache')}",
        ]
    )  # fmt: skip


def _parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="+", default=[128, 256], help="img_size, pixels")
    parser.add_argument("--widths", type=int, nargs="+", default=[16, 32], help="channels at full resolution")
    parser.add_argument("--batches", type=int, nargs="+", default=[4], help="slices of a step")
    parser.add_argument("--gpu-table", action="store_true", help="the sizes, widths and batches measured on a GPU")
    parser.add_argument("--augments", nargs="+", choices=list(TARGETS), default=["none", "light"])
    parser.add_argument("--rounds", type=int, default=5, help="turns of each loop")
    parser.add_argument("--seconds", type=float, default=8.0, help="length of a turn")
    parser.add_argument("--threads", type=int, help="threads of both loops; default: PyTorch's choice")
    return parser.parse_args()


if __name__ == "__main__":
    main()
