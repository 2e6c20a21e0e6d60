"""Train one segmentation network: `python train.py lr=1e-4 img_size=512`; `--help` explains every value."""

import sys

import hydra
from omegaconf import DictConfig

from spleen.entry import launch, run_job


@hydra.main(version_base="1.3", config_path="conf", config_name="train")
def main(tree: DictConfig) -> None:
    """Run one job with the composed configuration (Hydra calls this, once per job of a multirun)."""
    run_job(tree)


if __name__ == "__main__":
    sys.exit(launch(main, sys.argv[1:]))
