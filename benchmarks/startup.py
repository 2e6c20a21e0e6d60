"""How fast the commands respond, and how fast a second start on the same volume is.

Run it from the repository, on an otherwise idle machine (about five minutes):

    python -m benchmarks.startup

Commands: the median over fresh processes, alternating between commands; the target is 1.5 s for each of ours. Starts:
seconds from the start of the process to the end of its first training step, imports included, with an empty cache and
then with the cache of the first start; the target is a ratio of 0.2. Sweeps: the same of two jobs that one process
runs, this one, or a worker of joblib or (where it is installed) Ray. The operating system's page cache is not dropped,
so both starts read files from memory, and both find compiled Python files.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from importlib.util import find_spec
from pathlib import Path
from statistics import median

from benchmarks.header import header, verdict
from benchmarks.jobs import configure, quoted, train
from spleen.config.datasets import compute_phantom, find_dataset
from spleen.config.preprocessing import build_classes, build_preprocessing
from spleen.data.phantom.render import make_phantom
from spleen.data.store.store import open_case
from spleen.imaging.nifti import write_volume
from spleen.system.process import usable_cores
from spleen.system.resources import work_folder

SECONDS_TARGET, RATIO_TARGET = 1.5, 0.2
BASELINE = ["-c", "import torch"]
# The last one is the cost of every training job before it can read any data: it pauses the collector, too.
COMMANDS = [
    ["-c", "pass"],
    BASELINE,
    ["train.py", "--help"],
    ["train.py", "--cfg", "job"],
    ["-c", "import spleen.runs.train"],
    ["-c", "import gc; gc.disable(); import spleen.runs.train"],
]

# One worker, so that the second job runs in the process of the first one.
_LAUNCHERS: dict[str, list[str]] = {
    "basic": [],
    "joblib": ["hydra/launcher=joblib", "hydra.launcher.n_jobs=1"],
    "ray": ["hydra/launcher=ray", f"hydra.launcher.ray.remote.num_cpus={usable_cores()}"],
}

SHORTEST = ["epochs=1", "loader.slices_per_epoch=8", "logger=none"]


def main() -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5, help="fresh processes for each command")
    parser.add_argument("--matrix", type=int, default=512, help="in-plane voxels per side of the volume")
    arguments = parser.parse_args()
    print(header())
    _print_commands(arguments.repeats)
    with tempfile.TemporaryDirectory() as folder:
        _print_starts(Path(folder), arguments.matrix)


def _print_commands(repeats: int) -> None:
    seconds: dict[str, list[float]] = {" ".join(command): [] for command in COMMANDS}
    _seconds_of(["train.py", "--help"])
    for _ in range(repeats):
        for command in COMMANDS:
            seconds[" ".join(command)].append(_seconds_of(command))
    baseline = median(seconds[" ".join(BASELINE)])
    print("| command | median s | min–max s | ÷ `import torch` | target | |")
    print("|---|---|---|---|---|---|")
    for command in COMMANDS:
        name = " ".join(command)
        middle, spread = median(seconds[name]), f"{min(seconds[name]):.2f}–{max(seconds[name]):.2f}"
        target = " | baseline" if command == BASELINE else " | "
        if command[0] == "train.py":
            target = f"≤ {SECONDS_TARGET} s | {verdict(middle <= SECONDS_TARGET)}"
        print(f"| `python {name}` | {middle:.2f} | {spread} | {middle / baseline:.2f} | {target} |")


def _seconds_of(command: list[str]) -> float:
    before = time.perf_counter()
    subprocess.run([sys.executable, *command], cwd=work_folder(), check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - before


def _print_starts(folder: Path, matrix: int) -> None:
    phantom = make_phantom(matrix)
    image, label = folder / "image.nii.gz", folder / "label.nii.gz"
    write_volume(image, phantom.hu, phantom.affine)
    write_volume(label, phantom.label, phantom.affine)
    nifti = ["data=nifti", f"data.image={quoted(image)}", f"data.label={quoted(label)}"]
    size = " × ".join(map(str, phantom.hu.shape))
    print("\n| seconds to the first step | first start | second start | second ÷ first | target | |")
    print("|---|---|---|---|---|---|")
    for name, data in (
        (f"NIfTI {size}", nifti),
        (f"phantom {size}, computed by the first start", ["data=phantom", f"data.matrix={matrix}"]),
    ):
        first, second = _two_starts(data, folder / data[0])
        print(_row(name, first, second, f"≤ {RATIO_TARGET} | {verdict(second <= RATIO_TARGET * first)}"), flush=True)
    for launcher, options in _LAUNCHERS.items():
        if launcher == "ray" and find_spec("ray") is None:
            continue
        first, second = _two_jobs_of_a_sweep([*nifti, *options], folder / launcher)
        name = f"NIfTI, first and second job of one sweep, `hydra/launcher={launcher}`"
        print(_row(name, first, second, " | the second job needs no imports"), flush=True)
    cold, warm = _open_twice(nifti, folder / "store")
    print(_row("of which opening the NIfTI's store", cold, warm, " | in one process, imports excluded"))


def _row(name: str, first: float, second: float, target: str) -> str:
    return f"| {name} | {first:.2f} | {second:.2f} | {second / first:.3f} | {target} |"


def _two_starts(data: list[str], folder: Path) -> tuple[float, float]:
    settings = [*data, *SHORTEST, *_places(folder)]
    first, second = (train(settings, folder / start) for start in ("first", "second"))
    return float(first.summary["seconds_to_first_step"]), float(second.summary["seconds_to_first_step"])


def _two_jobs_of_a_sweep(data: list[str], folder: Path) -> tuple[float, float]:
    settings = [*data, *SHORTEST, *_places(folder), f"hydra.sweep.dir={quoted(folder / 'jobs')}"]
    command = [sys.executable, "train.py", "-m", "seed=0,1", "hydra.sweep.subdir=${seed}", *settings]
    subprocess.run(command, cwd=work_folder(), check=True, stdout=subprocess.DEVNULL)
    # Ray begins with any of them.
    files = sorted((folder / "jobs").glob("*/summary.json"), key=lambda path: path.stat().st_mtime)
    first, second = (float(json.loads(file.read_text())["seconds_to_first_step"]) for file in files)
    return first, second


def _places(folder: Path) -> list[str]:
    return [f"cache_dir={quoted(folder / 'cache')}", f"output_dir={quoted(folder)}"]


def _open_twice(data: list[str], cache: Path) -> tuple[float, float]:
    config = configure([*data, f"cache_dir={quoted(cache)}", f"output_dir={quoted(cache)}"])
    compute_phantom(config)
    (case,) = find_dataset(config).cases
    settings = build_preprocessing(config, build_classes(config))
    seconds = []
    for _ in range(2):
        before = time.perf_counter()
        open_case(case, settings, cache)
        seconds.append(time.perf_counter() - before)
    return seconds[0], seconds[1]


if __name__ == "__main__":
    main()
