"""Kill training runs with SIGKILL at random times, resume them, and compare them with an undisturbed run.

Run it from the repository (about ten minutes):

    python -m benchmarks.kill_and_resume --kills 20

A run is killed and resumed until it finishes; then the next one starts, until all kills are used up. Kill times are
drawn uniformly between 0 and the duration of the undisturbed run, from the start of each process, so they fall into
imports, epochs, validation, checkpointing, scoring and plotting alike. Targets: every file and tensor identical bit for
bit, at most one epoch repeated per kill, and one wandb run with every epoch logged once.
"""

import argparse
import json
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from benchmarks.header import header, verdict
from benchmarks.jobs import quoted
from spleen.models.checkpoint import read_checkpoint
from spleen.records.folder import BEST, CHECKPOINTS, LAST
from spleen.system.resources import work_folder

EPOCHS = 12
# Small, but with everything that has state: dropout, augmentation, averaged weights, a schedule, early stopping.
SETTINGS = [
    "data=phantom", "data.matrix=96", "data.n_slices=60", "img_size=64", "model.network.width=8", "batch_size=8",
    f"epochs={EPOCHS}", "loader.slices_per_epoch=160", "model.network.dropout=0.1", "augment=light",
    "optimiser.ema_decay=0.99", "schedule=cosine", "trainer.early_stopping_patience=100", "logger.mode=offline",
]  # fmt: skip
_TENSORS = ("state_dict", "current_model_state", "averaging_state", "optimizer_states", "lr_schedulers")


@dataclass(frozen=True)
class Kill:
    """One kill, and how the next process continued."""

    run: int
    second: float
    """Since the start of the process."""
    phase: str
    kept: int
    repeated: int
    """Epochs that the killed process had started and the next one trained again."""


@dataclass(frozen=True)
class Process:
    """The output of one process of a run, and what it left behind."""

    first_epoch: int | None
    """The first epoch that it finished, counted from 1; None if it finished none."""
    begun: int
    """Epochs of the run that had been started when it ended."""
    kept: int
    phase: str
    finished: bool
    seconds: float


def main() -> None:
    """Print one row per kill, then the comparison with the undisturbed run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=20, help="total number of kills")
    parser.add_argument("--seed", type=int, default=0, help="random seed of the kill times")
    arguments = parser.parse_args()
    print(header())
    kill_times = random.Random(arguments.seed)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        _process(folder, folder / "warm up", None)  # fills the cache
        undisturbed = _process(folder, folder / "undisturbed", None)
        print(f"Undisturbed: {undisturbed.seconds:.1f} s for {EPOCHS} epochs.\n")
        print("| kill | run | after s | killed | epochs saved | epochs repeated |\n|---|---|---|---|---|---|")
        kills: list[Kill] = []
        runs: list[Path] = []
        while len(kills) < arguments.kills:
            runs.append(folder / f"run {len(runs) + 1}")
            _kill_until_finished(folder, runs[-1], kills, arguments.kills, kill_times, undisturbed.seconds)
        _print_verdicts(folder / "undisturbed", runs, kills)


def _kill_until_finished(
    folder: Path, run_folder: Path, kills: list[Kill], wanted: int, kill_times: random.Random, longest: float
) -> None:
    run = int(run_folder.name.split()[-1])
    killed: tuple[float, Process] | None = None
    while True:
        second = kill_times.uniform(0, longest) if len(kills) + (killed is not None) < wanted else None
        process = _process(folder, run_folder, second)
        if killed is not None and (process.first_epoch is not None or process.finished):
            after, before = killed
            first = EPOCHS + 1 if process.first_epoch is None else process.first_epoch
            kills.append(Kill(run, after, before.phase, before.kept, max(0, before.begun - first + 1)))
        elif killed is not None:  # the next process was killed before it finished an epoch: nothing to compare yet
            after, before = killed
            kills.append(Kill(run, after, before.phase, before.kept, max(0, before.begun - before.kept)))
        if killed is not None:
            _print(len(kills), kills[-1])
        if process.finished:
            return
        killed = (second or 0.0, process)


def _print(number: int, kill: Kill) -> None:
    print(f"| {number} | {kill.run} | {kill.second:.1f} | {kill.phase} | {kill.kept} | {kill.repeated} |", flush=True)


def _process(folder: Path, run_folder: Path, kill_after: float | None) -> Process:
    """Start or resume a run; kill it after some seconds, or let it finish."""
    command = [
        *SETTINGS, f"hydra.run.dir={quoted(run_folder)}", f"cache_dir={quoted(folder / 'cache')}",
        f"output_dir={quoted(folder / 'outputs')}",
    ]  # fmt: skip
    if (run_folder / "config.yaml").exists():
        command = [f"resume={run_folder}"]
    terminal = folder / "terminal.txt"
    with terminal.open("w") as output:
        before = time.perf_counter()
        process = subprocess.Popen(
            [sys.executable, "train.py", *command], cwd=work_folder(), stdout=output, stderr=subprocess.STDOUT
        )
        try:
            exit_code = process.wait(kill_after)
        except subprocess.TimeoutExpired:
            process.kill()
            exit_code = process.wait()
        seconds = time.perf_counter() - before
    text = terminal.read_text()
    if exit_code not in (0, -9):
        sys.exit(f"train.py {' '.join(command)} ended with {exit_code}:\n{text}")
    return _describe(text, run_folder, exit_code == 0, seconds)


def _describe(text: str, run_folder: Path, finished: bool, seconds: float) -> Process:
    printed = [int(line.split()[1].split("/")[0]) for line in text.splitlines() if line.startswith("epoch ")]
    kept = _kept(run_folder)
    done = max([kept, *printed])
    trains = bool(printed) or "network input" in text
    begun = done + 1 if trains and done == kept and done < EPOCHS else done
    if not trains:
        phase = "before training"
    elif done > kept:
        phase = f"after epoch {done}, before it was saved"
    elif done < EPOCHS:
        phase = f"during epoch {begun}"
    elif not (run_folder / "cases.csv").exists():
        phase = "during scoring"
    else:
        phase = "during reporting"
    return Process(printed[0] if printed else None, begun, kept, phase, finished, seconds)


def _kept(run_folder: Path) -> int:
    """Epochs in last.ckpt, which must be intact at all times."""
    last = run_folder / CHECKPOINTS / LAST
    return len(read_checkpoint(last)["callbacks"]["EpochRecord"]["rows"]) if last.exists() else 0


def _print_verdicts(undisturbed: Path, runs: Sequence[Path], kills: Sequence[Kill]) -> None:
    most = max(kill.repeated for kill in kills)
    print(
        f"\n{len(kills)} kills in {len(runs)} runs. Most epochs repeated after a kill: {most}, {verdict(most <= 1)}.\n"
    )
    print("| compared with the undisturbed run | identical | |\n|---|---|---|")
    for name in ("metrics.csv", "cases.csv", "split.json"):
        _print_equal(name, [(run / name).read_bytes() == (undisturbed / name).read_bytes() for run in runs])
    for name in (BEST, LAST):
        equal = [_same_tensors(run / CHECKPOINTS / name, undisturbed / CHECKPOINTS / name) for run in runs]
        _print_equal(f"{name}: weights, averaged weights, optimiser, schedule", equal)
    _print_equal("one wandb run, every epoch once", [_wandb_epochs(run) == list(range(1, EPOCHS + 1)) for run in runs])


def _print_equal(name: str, equal: Sequence[bool]) -> None:
    print(f"| {name} | {sum(equal)} of {len(equal)} runs | {verdict(all(equal))} |")


def _same_tensors(path: Path, expected: Path) -> bool:
    found, wanted = read_checkpoint(path), read_checkpoint(expected)
    return found["epoch"] == wanted["epoch"] and all(_same(found.get(p), wanted.get(p)) for p in _TENSORS)


def _same(found: Any, wanted: Any) -> bool:
    """Whether nested values hold the same numbers, bit for bit."""
    if isinstance(wanted, dict):
        return found.keys() == wanted.keys() and all(_same(found[key], wanted[key]) for key in wanted)
    if isinstance(wanted, list | tuple):
        return len(found) == len(wanted) and all(map(_same, found, wanted))
    return torch.equal(found, wanted) if isinstance(wanted, torch.Tensor) else bool(found == wanted)


def _wandb_epochs(run_folder: Path) -> list[int]:
    """The epochs whose metrics are in the wandb files of a run, in order; each file's name ends with the run's id."""
    from wandb.util import get_core_path

    run_id = (run_folder / "wandb" / "id").read_text()
    epochs: list[int] = []
    for log in sorted(run_folder.glob("wandb/*run-*/*.wandb")):
        assert log.stem.endswith(run_id)
        command = [get_core_path(), "leet", "inspect", "--no-observability", "--json", "--run-file", str(log)]
        text = subprocess.run([*command, str(log.parent.parent)], check=True, capture_output=True, text=True).stdout
        records = [json.loads(line) for line in text.splitlines()]
        items = [record["history"]["item"] for record in records if record["type"] == "history"]
        epochs += [int(item["epoch"]) for item in items if "train/loss" in item]  # not the final tables
    return epochs


if __name__ == "__main__":
    main()
