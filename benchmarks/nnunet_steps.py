"""Training steps of nnU-Net's own 2D trainer; run by benchmarks/nnunet_speed.py with the python of nnU-Net.

Prints one line of JSON: slices/s of `train_step` with nnU-Net's loader and augmentation, the first steps not counted.
"""

import argparse
import json
import time

import torch
from nnunetv2.run.run_training import get_trainer_from_args

_UNCOUNTED_STEPS = 3  # the loader's workers start, cuDNN chooses, torch.compile compiles


def main() -> None:
    """Train some steps on all cases."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, required=True)
    parser.add_argument("--device", choices=["cpu", "cuda"], required=True)
    arguments = parser.parse_args()
    trainer = get_trainer_from_args("4", "2d", "all", device=torch.device(arguments.device))
    trainer.initialize()
    trainer.on_train_start()
    trainer.on_train_epoch_start()
    for _ in range(_UNCOUNTED_STEPS):
        trainer.train_step(next(trainer.dataloader_train))
    before, n_slices = time.perf_counter(), 0
    for _ in range(arguments.steps):
        batch = next(trainer.dataloader_train)
        trainer.train_step(batch)  # reads the loss, and so waits for a GPU
        n_slices += len(batch["data"])
    print(json.dumps({"slices_per_second": n_slices / (time.perf_counter() - before)}), flush=True)
    trainer.dataloader_train._finish()
    trainer.dataloader_val._finish()


if __name__ == "__main__":
    main()
