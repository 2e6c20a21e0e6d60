"""A cascade against one run of the same total time: what the pixels are worth that the box spends on the organ.

    python -m benchmarks.cascade --image ct.nii.gz --label spleen.nii.gz
    python -m benchmarks.cascade --root Task09_Spleen          # many cases: fold 0, 1, … instead of seeds
    python -m benchmarks.cascade --image … --quick             # only to see that it runs: tiny jobs, 2 seeds

For each seed or fold, a coarse run with small slices and a second run in its box are trained one after the other; then
one run on whole slices of the second one's size, for as many epochs as take the same time, going by a trial before all
others. All hold out the same slices or cases, and are scored on the whole grid of the files. Prints the test Dice of
each, the seconds that both ways trained, and the mean of the paired differences with its 95 % t-interval.

With one volume, the coarse run has seen it, and held out the same slices; its box is found in the whole volume.
"""

import argparse
import json
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from statistics import mean

from benchmarks.differences import interval
from benchmarks.header import header
from benchmarks.jobs import FinishedJob, quoted, train
from spleen.system.resources import work_folder

_COMMON = ["logger=none", "report=false"]
_QUICK = ["loader.slices_per_epoch=16"]


@dataclass(frozen=True)
class _Pair:
    """A cascade and one run of the same time."""

    coarse: FinishedJob
    fine: FinishedJob
    one_step: FinishedJob
    holds_out_the_same: bool

    @property
    def cascade_seconds(self) -> float:
        return _seconds(self.coarse) + _seconds(self.fine)

    @property
    def difference(self) -> float:
        return _dice(self.fine) - _dice(self.one_step)


def main() -> None:
    """Train all pairs; print a row when each is finished, then the mean difference."""
    arguments = _parse_arguments()
    folder = work_folder() / "outputs" / "benchmark_cascade" / f"{datetime.now():%Y-%m-%d_%H-%M-%S}"
    common = [*_data(arguments), *_COMMON, *(_QUICK if arguments.quick else []), *arguments.overrides]
    print(header())
    print(
        f"`{' '.join(['python train.py', *_COMMON, *arguments.overrides])}`: coarse run {arguments.coarse_size} px, "
        f"{arguments.coarse_epochs} epochs; second run {arguments.img_size} px, {arguments.epochs} epochs; "
        f"margin {arguments.margin_mm:g} mm\n"
    )
    print("| run | coarse Dice | cascade Dice | one-step Dice | difference | seconds, cascade / one-step | |")
    print("|---|---|---|---|---|---|---|")
    trial = train([*common, f"img_size={arguments.img_size}", f"epochs={arguments.epochs}"], folder / "trial")
    seconds_per_epoch = _seconds(trial) / arguments.epochs
    pairs = []
    for number in range(arguments.repeats):
        own = f"fold={number}" if arguments.root else f"seed={number}"
        pair = _pair(arguments, [*common, own], seconds_per_epoch, folder / own)
        pairs.append(pair)
        print(
            f"| {own} | {_dice(pair.coarse):.4f} | {_dice(pair.fine):.4f} | {_dice(pair.one_step):.4f} "
            f"| {pair.difference:+.4f} | {pair.cascade_seconds:.0f} / {_seconds(pair.one_step):.0f} "
            f"| {'' if pair.holds_out_the_same else 'other slices are held out'} |",
            flush=True,
        )
    ratio = mean(_seconds(pair.one_step) / pair.cascade_seconds for pair in pairs)
    print(f"\ncascade − one-step, {len(pairs)} pairs: {interval([pair.difference for pair in pairs])} (95 %)")
    print(f"time of one-step ÷ time of the cascade: {ratio:.2f}")


def _pair(arguments: argparse.Namespace, settings: list[str], seconds_per_epoch: float, folder: Path) -> _Pair:
    sized = [*settings, f"img_size={arguments.img_size}"]
    coarse_size = [f"img_size={arguments.coarse_size}", f"epochs={arguments.coarse_epochs}"]
    coarse = train([*settings, *coarse_size], folder / "coarse")
    roi = [f"roi_from={quoted(folder / 'coarse')}", f"roi_margin_mm={arguments.margin_mm}"]
    if arguments.root is None:
        roi.append("allow_seen_test=true")
    fine = train([*sized, *roi, f"epochs={arguments.epochs}"], folder / "fine")
    epochs = max(1, round((_seconds(coarse) + _seconds(fine)) / seconds_per_epoch))
    one_step = train([*sized, f"epochs={epochs}"], folder / "one_step")
    return _Pair(coarse, fine, one_step, _held_out(folder / "fine") == _held_out(folder / "one_step"))


def _data(arguments: argparse.Namespace) -> list[str]:
    if arguments.root:
        return ["data=decathlon", f"data.root={quoted(arguments.root)}"]
    return ["data=nifti", f"data.image={quoted(arguments.image)}", f"data.label={quoted(arguments.label)}"]


def _dice(job: FinishedJob) -> float:
    return float(job.summary["test"]["dice"] or 0.0)  # null where nothing could be scored


def _seconds(job: FinishedJob) -> float:
    return float(job.summary["train"]["seconds"])


def _held_out(run: Path) -> object:
    """The test slices of one volume, or the test cases."""
    split = json.loads((run / "split.json").read_text())
    return split["test"] if split["kind"] == "cases" else [each["test"] for each in split["cases"].values()]


def _parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--image", type=Path, help="a scan")
    parser.add_argument("--label", type=Path, help="its label")
    parser.add_argument("--root", type=Path, help="instead of them, a dataset in the Decathlon layout")
    parser.add_argument("--repeats", type=int, default=5, help="seeds, or folds of a dataset")
    parser.add_argument("--coarse-size", type=int, default=48, help="img_size of the coarse run")
    parser.add_argument("--coarse-epochs", type=int, default=6)
    parser.add_argument("--img-size", type=int, default=64, help="img_size of the second run and of the single one")
    parser.add_argument("--epochs", type=int, default=12, help="of the second run")
    parser.add_argument("--margin-mm", type=float, default=20.0, help="roi_margin_mm")
    parser.add_argument("--quick", action="store_true", help="tiny runs, to check that the benchmark works")
    parser.add_argument("overrides", nargs="*", help="after --: overrides for every training run, such as axis=axial")
    arguments = parser.parse_args()
    if (arguments.root is None) == (arguments.image is None or arguments.label is None):
        parser.error("give --image and --label, or --root")
    if arguments.quick:
        arguments.repeats, arguments.coarse_epochs, arguments.epochs = 2, 2, 2
    return arguments


if __name__ == "__main__":
    main()
