"""nnU-Net's 2D configuration on the fold of a run, with its own planning, preprocessing, trainer and inference.

    python -m venv nnunet && nnunet/bin/pip install nnunetv2
    python -m benchmarks.nnunet_2d --root Task04_Hippocampus --run RUN --nnunet nnunet/bin

Nothing of nnU-Net's configuration is changed: the data are laid out as it wants them, the folds are those that RUN has
written (splits_final.json), and its length is one of its own variants (--trainer nnUNetTrainer_1epoch, _5epochs, …), so
that its learning rate runs down to the end as it is meant to. Choose the longest one whose training takes no longer
than the run that it is compared with; the last line says how long it took. On a machine without a GPU it trains on the
processor in 32 bits, as it does by itself. The masks of the held-out cases, which it predicts with its own test-time
mirroring, are scored like ours: `python -m benchmarks.held_out … --masks FOLDER`.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

from benchmarks.header import header
from spleen.data.layouts.decathlon import read_decathlon

_DATASET = "Dataset004_Hippocampus"


def main() -> None:
    """Plan, preprocess, train, and say how long it took and where the masks are."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", type=Path, required=True, help="the data set in the Decathlon's layout")
    parser.add_argument("--run", type=Path, required=True, help="a run folder with splits_final.json")
    parser.add_argument("--nnunet", type=Path, required=True, help="folder of the nnUNetv2_… commands")
    parser.add_argument("--trainer", default="nnUNetTrainer_1epoch")
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--work", type=Path, default=Path("nnunet_work"), help="its three folders; kept")
    arguments = parser.parse_args()
    work = arguments.work.resolve()
    fold = json.loads((arguments.run / "split.json").read_text())["fold"]
    print(header())
    if not (work / "preprocessed" / _DATASET / "nnUNetPlans.json").exists():
        _lay_out(arguments.root, work / "raw" / _DATASET)
        _call(arguments.nnunet, work, "nnUNetv2_plan_and_preprocess", "-d", "4", "-c", "2d", "-np", "2")
    shutil.copy(arguments.run / "splits_final.json", work / "preprocessed" / _DATASET)
    before = time.perf_counter()
    options = ["-tr", arguments.trainer, "-device", arguments.device]
    _call(arguments.nnunet, work, "nnUNetv2_train", "4", "2d", str(fold), *options)
    minutes = (time.perf_counter() - before) / 60
    (masks,) = (work / "results" / _DATASET).glob(f"{arguments.trainer}__*/fold_{fold}/validation")
    print(f"{arguments.trainer}, fold {fold}: {minutes:.1f} minutes with its validation; masks in {masks}")


def _lay_out(root: Path, target: Path) -> None:
    """Copy the training cases in nnU-Net's raw layout."""
    dataset = read_decathlon(root)
    assert dataset.label_values is not None
    for name in ("imagesTr", "labelsTr"):
        (target / name).mkdir(parents=True)
    for case in dataset.cases:
        shutil.copy(case.images[0], target / "imagesTr" / f"{case.case_id}_0000.nii.gz")
        shutil.copy(case.label, target / "labelsTr" / f"{case.case_id}.nii.gz")
    described = {
        "channel_names": {str(number): name for number, name in enumerate(dataset.channels)},
        "labels": {"background": 0, **{name: values[0] for name, values in dataset.label_values.items()}},
        "numTraining": len(dataset.cases),
        "file_ending": ".nii.gz",
    }
    (target / "dataset.json").write_text(json.dumps(described, indent=1))


def _call(commands: Path, work: Path, name: str, *arguments: str) -> None:
    """Run one of nnU-Net's commands; what it prints goes to a file, which is shown where it fails."""
    folders = {
        "nnUNet_raw": str(work / "raw"),
        "nnUNet_preprocessed": str(work / "preprocessed"),
        "nnUNet_results": str(work / "results"),
    }
    printed = work / f"{name}.txt"
    with printed.open("w") as output:
        command = [str(commands / name), *arguments]
        done = subprocess.run(command, env=os.environ | folders, stdout=output, stderr=subprocess.STDOUT)
    if done.returncode:
        sys.exit(f"{' '.join(command)} ended with {done.returncode}:\n{printed.read_text()[-3000:]}")


if __name__ == "__main__":
    main()
