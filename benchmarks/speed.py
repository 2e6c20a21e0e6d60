"""The page Speed of the documentation, measured anew: against MONAI, a bare loop and nnU-Net, and how costs grow.

Run it from the repository, on an otherwise idle machine (about an hour on two cores):

    python -m benchmarks.speed --image ct.nii.gz --label spleen.nii.gz
    python -m benchmarks.speed --only gpu_monai gpu_bare gpu_jobs --image … --label … --root …  # on a GPU: its tables
    python -m benchmarks.speed --only nnunet --root Task04_Hippocampus --nnunet nnunet/bin
    python -m benchmarks.speed --quick --page speed.md          # minutes: shows that all of it runs, measures nothing

Each section is what one of the other benchmarks prints, with its machine, date and versions, so sections may come from
different machines: those that are not measured now stay on the page as they are. The page is written after each
section. A section whose needs are missing (MONAI, a CUDA device, nnU-Net) is left out, with a message. One that fails
stays as it was, and the exit status is 1.
"""

import argparse
import os
import shlex
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import torch

from spleen.system.files import write_text
from spleen.system.resources import work_folder

_INTRODUCTION = """# Speed

Written by `python -m benchmarks.speed`, which measures all of it anew. Each table names its machine, versions and date.
**Missed** targets are listed like the others.
"""


@dataclass(frozen=True)
class Section:
    """One benchmark and how it is presented."""

    title: str
    text: str
    command: tuple[str, ...]
    """Module and arguments."""
    quick: tuple[str, ...]
    """Arguments in place of the command's own for --quick."""
    cuda: bool = False


_MONAI = (
    "One CT with `img_size=128`. MONAI's road: CacheDataset, dictionary transforms, DataLoader with 2 workers and "
    "BasicUNet in 32 bits, on the same split; seconds from the start of the process to a validation Dice of 0.95."
)
_QUICK_MONAI = ("--rounds", "1", "--epochs", "1", "--slices-per-epoch", "16", "--img-size", "64", "--dice", "0.01")
_FASTER = ("model=unet_half", "batch_size=8", "lr=2.8e-3")
_QUICK_BARE = ("--sizes", "64", "--widths", "4", "--augments", "none", "--rounds", "1", "--seconds", "0.5")

SECTIONS: Mapping[str, Section] = {
    "monai": Section("Against MONAI's 2D road", _MONAI, ("compare_monai",), _QUICK_MONAI),
    "monai_fast": Section(
        "Against MONAI's 2D road, with the faster settings",
        f"{_MONAI} Ours with a first level at half resolution and twice the batch ([what that costs in "
        "Dice](experiments/faster_networks.md)); MONAI's road as before.",
        ("compare_monai", "--rounds", "2", "--ours", *_FASTER),
        (*_QUICK_MONAI, "--ours", *_FASTER),
    ),
    "bare": Section(
        "Against a bare PyTorch loop",
        "The same network, loss, optimiser, precision and batch, with tensors ready in memory.",
        ("throughput", "--augments", "none", "light", "strong", "--rounds", "3", "--seconds", "5"),
        _QUICK_BARE,
    ),
    "growth": Section(
        "Growth",
        "Time of an epoch against its slices, memory against cases.",
        ("growth",),
        ("--cases", "5", "--factors", "1", "2", "--rounds", "1", "--epochs", "1"),
    ),
    "nnunet": Section(
        "nnU-Net's 2D network in its trainer and in ours",
        "At the patch and batch size that nnU-Net plans for the dataset.",
        ("nnunet_speed",),
        ("--cases", "8", "--steps", "2", "--rounds", "1"),
    ),
    "gpu_monai": Section(
        "On a GPU: against MONAI's 2D road", _MONAI, ("compare_monai", "--device", "cuda"),
        ("--device", "cuda", *_QUICK_MONAI), cuda=True,
    ),
    "gpu_bare": Section(
        "On a GPU: against a bare PyTorch step as one CUDA graph",
        "As on the CPU, but the bare step is recorded once and repeated: the least that the device can take for it.",
        ("throughput", "--gpu-table", "--augments", "light", "--rounds", "3", "--seconds", "5"),
        _QUICK_BARE,
        cuda=True,
    ),
    "gpu_jobs": Section(
        "On a GPU: whole jobs", "From the start of the process to its end.", ("gpu_jobs",),
        ("--rounds", "1", "--passes", "1"), cuda=True,
    ),
}  # fmt: skip


def main() -> int:
    """Measure the sections one after the other; returns the exit status."""
    arguments = _parse_arguments()
    failed = []
    for name in arguments.only:
        section = SECTIONS[name]
        if missing := _missing(name, section, arguments):
            print(f"{section.title}: left out, since {missing}", file=sys.stderr)
            continue
        module, *options = section.command
        command = [f"benchmarks.{module}", *(section.quick if arguments.quick else options)]
        print(f"{section.title}: python -m {shlex.join(command)}", file=sys.stderr, flush=True)
        measured = _run(command + _inputs(module, arguments), section.cuda)
        if measured is None:
            failed.append(name)
            continue
        shown = " ".join(["python -m", *command, *_inputs(module, arguments, shown=True)])
        _write(arguments.page, section.title, f"{section.text}\n\n`{shown}`\n\n{measured.strip()}\n")
    print(f"written to {arguments.page}" + (f"; failed: {', '.join(failed)}" if failed else ""), file=sys.stderr)
    return 1 if failed else 0


def _parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=list(SECTIONS), default=list(SECTIONS))
    parser.add_argument("--image", type=Path, help="CT for the comparison with MONAI; default: a synthetic one")
    parser.add_argument("--label", type=Path, help="its label")
    parser.add_argument("--root", type=Path, help="dataset in the Decathlon layout, for nnU-Net")
    parser.add_argument("--nnunet", type=Path, help="folder of the nnUNetv2_… commands")
    parser.add_argument("--page", type=Path, default=work_folder() / "docs" / "explanation" / "speed.md")
    parser.add_argument("--quick", action="store_true", help="tiny settings, whose numbers mean nothing")
    return parser.parse_args()


def _missing(name: str, section: Section, arguments: argparse.Namespace) -> str | None:
    """What a section lacks to be measured."""
    if section.cuda and not torch.cuda.is_available():
        return "there is no CUDA device"
    if "compare_monai" in section.command and find_spec("monai") is None:
        return "MONAI is not installed (pip install 'monai>=1.5')"
    if name == "gpu_jobs" and (arguments.image is None or arguments.label is None):
        return "it needs --image and --label"
    if name == "nnunet" and (arguments.root is None or arguments.nnunet is None):
        return "it needs --root and --nnunet"
    return None


def _inputs(module: str, arguments: argparse.Namespace, shown: bool = False) -> list[str]:
    """The options with paths; on the page, each is a word instead."""
    names = {
        "compare_monai": ("image", "label"), "nnunet_speed": ("root", "nnunet"), "gpu_jobs": ("image", "label", "root")
    }.get(module, ())  # fmt: skip
    given = {name: getattr(arguments, name) for name in names if getattr(arguments, name) is not None}
    return [part for name, path in given.items() for part in (f"--{name}", name.upper() if shown else str(path))]


def _run(command: list[str], cuda: bool) -> str | None:
    """What a benchmark prints; None if it fails, and its messages are on the terminal."""
    hidden = {} if cuda else {"CUDA_VISIBLE_DEVICES": ""}  # the CPU's tables on a machine with a GPU
    done = subprocess.run([sys.executable, "-m", *command], env=os.environ | hidden, stdout=subprocess.PIPE, text=True)
    return None if done.returncode else done.stdout


def _write(page: Path, title: str, content: str) -> None:
    """Put a section in place of the one with its title; sections are in the order of SECTIONS."""
    text = page.read_text(encoding="utf-8") if page.exists() else ""
    old = dict(part.split("\n\n", 1) for part in text.split("\n## ")[1:])
    sections = {each.title: (old | {title: content}).get(each.title) for each in SECTIONS.values()}
    parts = [f"## {name}\n\n{body.strip()}\n" for name, body in sections.items() if body is not None]
    write_text(page, "\n".join([_INTRODUCTION, *parts]))


if __name__ == "__main__":
    sys.exit(main())
