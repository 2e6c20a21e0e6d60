"""Forged checkpoints: a training's checkpoint with one change, or a malicious pickle."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from spleen.models.checkpoint import SPEC_KEY


class Bait:
    """Creates a file when it is unpickled unsafely."""

    def __init__(self, trace: Path) -> None:
        self._trace = trace

    def __reduce__(self) -> tuple[Callable[[str], int], tuple[str]]:
        return os.system, (f"touch '{self._trace}'",)


def forge(run_folder: Path, path: Path, change: Callable[[dict[str, Any]], None]) -> Path:
    """Copy the best checkpoint of a run to `path` with a change to its content."""
    content = torch.load(run_folder / "checkpoints" / "best.ckpt", weights_only=True)
    change(content)
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save(content, path)
    return path


def forge_spec(run_folder: Path, path: Path, change: Callable[[dict[str, Any]], None]) -> Path:
    """Copy the best checkpoint of a run to `path` with a change to its model specification."""

    def change_spec(content: dict[str, Any]) -> None:
        spec = json.loads(content[SPEC_KEY])
        change(spec)
        content[SPEC_KEY] = json.dumps(spec)

    return forge(run_folder, path, change_spec)


def forge_network(run_folder: Path, path: Path, network: dict[str, Any]) -> Path:
    """Copy the best checkpoint of a run to `path` with another network."""
    return forge_spec(run_folder, path, lambda spec: spec.update(network=network))
