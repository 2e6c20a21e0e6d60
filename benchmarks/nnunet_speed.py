"""The training speed of nnU-Net's 2D network in its own trainer and in ours, at its planned patch and batch size.

    python -m venv nnunet && nnunet/bin/pip install nnunetv2
    pip install --no-deps dynamic-network-architectures        # nnU-Net's networks, beside ours
    python -m benchmarks.nnunet_speed --root Task04_Hippocampus --nnunet nnunet/bin

nnU-Net plans the dataset (Decathlon layout, as in benchmarks/nnunet_2d.py). Its row: its trainer, loader, augmentation
and deep supervision; on a CPU in 32 bits, on a GPU in fp16 and compiled, as it trains by default. Ours: the planned
network class and arguments in `python train.py`, without deep supervision, `augment=strong`, on axial slices whose
longer side is the patch's. The other side follows each case and is padded, so a batch is not exactly a patch: compare
pixels/s. The rows alternate in fresh processes; the first steps of each are not counted, and nothing is validated
while the clock runs. An epoch is 250 batches, as nnU-Net's. There is no target.
"""

import argparse
import json
import math
import tempfile
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.header import header
from benchmarks.jobs import quoted, train
from benchmarks.nnunet_2d import DATASET, call, plan
from spleen.records.folder import RunFolder

_BATCHES_PER_EPOCH = 250


@dataclass(frozen=True)
class Speed:
    """One training of some steps."""

    slices_per_second: float
    size: tuple[int, int]
    """Height and width of the largest slices, pixels."""


def main() -> None:
    """Alternate between the trainers, and print the medians."""
    arguments = _parse_arguments()
    work = arguments.work.resolve()
    if arguments.cases:  # its plan is another than that of all cases
        work /= f"{arguments.cases}_cases"
    plans = json.loads(plan(arguments.root, work, arguments.nnunet, arguments.cases).read_text())["configurations"][
        "2d"
    ]
    batch, patch = plans["batch_size"], tuple(plans["patch_size"])
    print(header())
    print(f"nnU-Net plans batches of {batch} patches of {patch[0]} × {patch[1]}; {arguments.steps} batches timed.\n")
    precisions = ["auto"] if arguments.device == "cuda" else ["32", "auto"]
    speeds: dict[str, list[Speed]] = {}
    for _ in range(arguments.rounds):
        speeds.setdefault("nnU-Net's trainer", []).append(_nnunet(arguments, work, patch))
        for precision in precisions:
            speeds.setdefault(f"ours, precision={precision}", []).append(_ours(arguments, work, plans, precision))
    _print_table(speeds, batch)


def _parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", type=Path, required=True, help="dataset in the Decathlon layout")
    parser.add_argument("--nnunet", type=Path, required=True, help="folder of the nnUNetv2_… commands and its python")
    parser.add_argument("--cases", type=int, help="plan with the first cases only, for a short trial")
    parser.add_argument("--steps", type=int, default=20, help="batches that are timed")
    parser.add_argument("--rounds", type=int, default=3, help="processes of each row")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    help_of_work = "parent of nnU-Net's three folders, with --cases in a folder of their own; kept"
    parser.add_argument("--work", type=Path, default=Path("nnunet_work"), help=help_of_work)
    parser.add_argument("overrides", nargs="*", help="after --: overrides of our job, such as augment=none")
    return parser.parse_args()


def _nnunet(arguments: argparse.Namespace, work: Path, patch: tuple[int, int]) -> Speed:
    script = Path(__file__).with_name("nnunet_steps.py")
    steps = ["--steps", str(arguments.steps), "--device", arguments.device]
    output = call(arguments.nnunet, work, "python", str(script), *steps)
    (line,) = [line for line in output.splitlines() if line.startswith('{"slices_per_second"')]
    return Speed(json.loads(line)["slices_per_second"], patch)


def _ours(arguments: argparse.Namespace, work: Path, plans: dict[str, Any], precision: str) -> Speed:
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        settings = [
            "data=nnunet", f"data.root={quoted(work / 'raw' / DATASET)}", "axis=axial", "context_slices=0",
            "intensity=auto", f"img_size={max(plans['patch_size'])}", f"batch_size={plans['batch_size']}", "epochs=1",
            f"loader.slices_per_epoch={(arguments.steps + 1) * plans['batch_size']}", "augment=strong",
            *_network(plans["architecture"]), f"precision={precision}", "logger=none", "report=false",
            f"trainer={'gpu' if arguments.device == 'cuda' else 'cpu'}", f"output_dir={quoted(folder)}",
            f"cache_dir={quoted(work / 'cache')}", *arguments.overrides,
        ]  # fmt: skip
        job = train(settings, folder / "run")
        cases = json.loads(RunFolder(folder / "run").data.read_text())["cases"]
    height, width = (max(case["network_pixels"][side] for case in cases) for side in (0, 1))
    return Speed(job.summary["train"]["slices_per_second"], (height, width))


def _network(architecture: dict[str, Any]) -> list[str]:
    """Overrides that make the planned network `model`."""
    arguments = dict(architecture["arch_kwargs"])
    for name in architecture["_kw_requires_import"]:
        if arguments[name] is not None:
            arguments[name] = {"_target_": "pkgutil.resolve_name", "_args_": [arguments[name]]}
    multiple = math.prod(max(_as_list(stride)) for stride in arguments["strides"])
    network = {"_target_": architecture["network_class_name"], **arguments}
    return [
        "model.name=nnunet", f"model.size_multiple={multiple}", "model.in_channels_argument=input_channels",
        "model.out_channels_argument=num_classes", "~model.network", f"+model.network={_in_grammar(network)}",
    ]  # fmt: skip


def _as_list(value: Any) -> list[int]:
    return value if isinstance(value, list) else [value]


def _in_grammar(value: Any) -> str:
    """A value of a JSON file in Hydra's override grammar."""
    if isinstance(value, dict):
        return "{" + ",".join(f"{key}:{_in_grammar(inner)}" for key, inner in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ",".join(map(_in_grammar, value)) + "]"
    return json.dumps(value)  # text in double quotes, numbers, true, null


def _print_table(speeds: dict[str, list[Speed]], batch: int) -> None:
    baseline = [_pixels(speed) for speed in next(iter(speeds.values()))]
    print("| | slices of up to | slices/s (range) | ms per slice | s per epoch | Mpixel/s | ÷ nnU-Net's (range) |")
    print("|---|---|---|---|---|---|---|")
    for name, of_name in speeds.items():
        rates = [speed.slices_per_second for speed in of_name]
        ratios = [_pixels(speed) / base for speed, base in zip(of_name, baseline, strict=True)]
        middle, (height, width) = median(rates), of_name[0].size
        cells = f"{middle:.1f} ({min(rates):.1f}–{max(rates):.1f}) | {1000 / middle:.2f}"
        epoch = f"{_BATCHES_PER_EPOCH * batch / middle:.0f} | {median(map(_pixels, of_name)) / 1e6:.3f}"
        ratio = f"{median(ratios):.2f} ({min(ratios):.2f}–{max(ratios):.2f})"
        print(f"| {name} | {height} × {width} | {cells} | {epoch} | {ratio} |")


def _pixels(speed: Speed) -> float:
    """Pixels per second; ours may be smaller than its largest slices, and then this is an upper bound."""
    return speed.slices_per_second * math.prod(speed.size)


if __name__ == "__main__":
    main()
