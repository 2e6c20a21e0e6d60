"""Handwritten run folders for the tests of results."""

import json
import os
from collections.abc import Mapping, Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any

import yaml

# stage, case, class, Dice
Case = tuple[str, str, str, float]

CONFIG: dict[str, Any] = {
    "study": "hand",
    "lr": 1e-3,
    "img_size": 64,
    "axis": "axial",
    "epochs": 4,
    "seed": 0,
    "output_dir": "/somewhere",
    "model": {"name": "unet", "network": {"_target_": "spleen.models.unet.UNet", "width": 16}},
    "split": {"guard_mm": 5.0, "seed": 0},
    "logger": {"mode": "disabled", "tags": []},
}


def write_config(folder: Path, **settings: object) -> Path:
    """Write config.yaml only; split__seed sets split.seed, which is `seed` by default."""
    config = deepcopy(CONFIG)
    config["split"]["seed"] = settings.get("seed", 0)
    for name, value in settings.items():
        *groups, last = name.split("__")
        place = config
        for group in groups:
            place = place.setdefault(group, {})
        place[last] = value
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text(yaml.safe_dump(config, sort_keys=False))
    return folder


def write_run(
    folder: Path,
    val: float | None = 0.5,
    test: float | None = 0.5,
    cases: Sequence[Case] = (),
    minutes: float = 2.0,
    test_slices: Sequence[int] = (3, 4),
    val_by_epoch: Sequence[float] = (),
    **settings: object,
) -> Path:
    """Write a finished run. Jaccard is half the Dice: not the real formula, but the two cannot be confused."""
    write_config(folder, **settings)
    means = {
        stage: {"dice": dice, "jaccard": None if dice is None else dice / 2, "n_cases": 1}
        for stage, dice in (("val", val), ("test", test))
    }
    summary = {"status": "finished", "identity": "abc", "wall_seconds": 60 * minutes, **means}
    (folder / "summary.json").write_text(json.dumps(summary))
    lines = [f"{stage},{case},{name},{dice},{dice / 2},7" for stage, case, name, dice in cases]
    (folder / "cases.csv").write_text("\n".join(["split,case_id,class_name,dice,jaccard,more", *lines, ""]))
    axis = settings.get("axis", CONFIG["axis"])
    split = {"kind": "slice_blocks", "axis": axis, "cases": {"a": {"train": [0], "test": list(test_slices)}}}
    (folder / "split.json").write_text(json.dumps(split))
    write_epochs(folder, val_by_epoch)
    return folder


def write_epochs(folder: Path, val_by_epoch: Sequence[float]) -> None:
    """Write metrics.csv with one row per epoch."""
    rows = [f"{epoch},{10 * epoch},{dice}" for epoch, dice in enumerate(val_by_epoch)]
    (folder / "metrics.csv").write_text("\n".join(["epoch,step,val/dice", *rows, ""]))


def write_json(path: Path, content: Mapping[str, object]) -> None:
    """Write an object as a JSON file."""
    path.write_text(json.dumps(content))


def set_age(path: Path, seconds: float) -> None:
    """Make a file look as if it had been written `seconds` ago."""
    then = path.stat().st_mtime - seconds
    os.utime(path, (then, then))
