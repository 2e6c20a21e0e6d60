"""Train one segmentation network: `python train.py lr=1e-4 img_size=512`; `--help` explains every value."""

import sys

from spleen.runs.main import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
