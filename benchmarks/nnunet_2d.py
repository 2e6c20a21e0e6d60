"""nnU-Net's 2D configuration on the fold of a run, with its own planning, preprocessing, trainer and inference.

    python -m venv nnunet && nnunet/bin/pip install nnunetv2
    python -m benchmarks.nnunet_2d --root Task04_Hippocampus --run RUN --nnunet nnunet/bin

nnU-Net's configuration is unchanged: the data are converted to its layout, the folds are those written by RUN
(splits_final.json), and the training length is one of its own variants (--trainer nnUNetTrainer_1epoch, _5epochs, …),
so that its learning rate schedule runs to completion. Choose the longest variant that trains no longer than the run it
is compared with; the last line gives the time it took. Without a GPU it trains on the CPU in 32 bits, which is its own
default. The masks of the held-out cases, which it predicts with its own test-time mirroring, are scored like ours:
`python -m benchmarks.held_out … --masks FOLDER`.
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

DATASET = "Dataset004_Hippocampus"


def main() -> None:
    """Plan, preprocess, train, and print the training time and the folder of the masks."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", type=Path, required=True, help="dataset in the Decathlon layout")
    parser.add_argument("--run", type=Path, required=True, help="a run folder with splits_final.json")
    parser.add_argument("--nnunet", type=Path, required=True, help="folder of the nnUNetv2_… commands")
    parser.add_argument("--trainer", default="nnUNetTrainer_1epoch")
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument(
        "--work", type=Path, default=Path("nnunet_work"), help="parent of nnU-Net's three folders; kept"
    )
    arguments = parser.parse_args()
    work = arguments.work.resolve()
    fold = json.loads((arguments.run / "split.json").read_text())["fold"]
    print(header())
    plan(arguments.root, work, arguments.nnunet)
    shutil.copy(arguments.run / "splits_final.json", work / "preprocessed" / DATASET)
    before = time.perf_counter()
    options = ["-tr", arguments.trainer, "-device", arguments.device]
    call(arguments.nnunet, work, "nnUNetv2_train", "4", "2d", str(fold), *options)
    minutes = (time.perf_counter() - before) / 60
    (masks,) = (work / "results" / DATASET).glob(f"{arguments.trainer}__*/fold_{fold}/validation")
    print(f"{arguments.trainer}, fold {fold}: {minutes:.1f} minutes including validation; masks in {masks}")


def plan(root: Path, work: Path, commands: Path, n_cases: int | None = None) -> Path:
    """Have nnU-Net plan and preprocess the first cases, or all; returns its plans. What is already there is kept."""
    finished = work / "preprocessed.txt"  # the plans are there before the preprocessed cases
    if not finished.exists():
        _copy_dataset(root, work / "raw" / DATASET, n_cases)
        call(commands, work, "nnUNetv2_plan_and_preprocess", "-d", "4", "-c", "2d", "-np", "2")
        finished.touch()
    return work / "preprocessed" / DATASET / "nnUNetPlans.json"


def _copy_dataset(root: Path, target: Path, n_cases: int | None) -> None:
    """Copy the training cases into nnU-Net's raw layout."""
    dataset = read_decathlon(root)
    cases = dataset.cases[:n_cases]
    assert dataset.label_values is not None
    for name in ("imagesTr", "labelsTr"):
        (target / name).mkdir(parents=True, exist_ok=True)
    for case in cases:
        shutil.copy(case.images[0], target / "imagesTr" / f"{case.case_id}_0000.nii.gz")
        shutil.copy(case.label, target / "labelsTr" / f"{case.case_id}.nii.gz")
    content = {
        "channel_names": {str(number): name for number, name in enumerate(dataset.channels)},
        "labels": {"background": 0, **{name: values[0] for name, values in dataset.label_values.items()}},
        "numTraining": len(cases),
        "file_ending": ".nii.gz",
    }
    (target / "dataset.json").write_text(json.dumps(content, indent=1))


def call(commands: Path, work: Path, name: str, *arguments: str) -> str:
    """Run a command of nnU-Net's environment and return its output; exits with that output if it fails."""
    folders = {
        "nnUNet_raw": str(work / "raw"),
        "nnUNet_preprocessed": str(work / "preprocessed"),
        "nnUNet_results": str(work / "results"),
    }
    log = work / f"{name}.txt"
    with log.open("w") as output:
        command = [str(commands / name), *arguments]
        done = subprocess.run(command, env=os.environ | folders, stdout=output, stderr=subprocess.STDOUT)
    if done.returncode:
        sys.exit(f"{' '.join(command)} ended with {done.returncode}:\n{log.read_text()[-3000:]}")
    return log.read_text()


if __name__ == "__main__":
    main()
