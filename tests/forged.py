"""Checkpoints that no training wrote: changed by one value, or made to do harm."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from spleen.recipe import RECIPE_KEY


class Bait:
    """Creates a file when it is unpickled without care."""

    def __init__(self, trace: Path) -> None:
        self._trace = trace

    def __reduce__(self) -> tuple[Callable[[str], int], tuple[str]]:
        return os.system, (f"touch '{self._trace}'",)


def forge(run_folder: Path, path: Path, change: Callable[[dict[str, Any]], None]) -> Path:
    """Copy the best checkpoint of a run to `path` with a change to what it holds."""
    content = torch.load(run_folder / "checkpoints" / "best.ckpt", weights_only=True)
    change(content)
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save(content, path)
    return path


def forge_recipe(run_folder: Path, path: Path, change: Callable[[dict[str, Any]], None]) -> Path:
    """Copy the best checkpoint of a run to `path` with a change to its recipe."""

    def change_recipe(content: dict[str, Any]) -> None:
        recipe = json.loads(content[RECIPE_KEY])
        change(recipe)
        content[RECIPE_KEY] = json.dumps(recipe)

    return forge(run_folder, path, change_recipe)


def forge_network(run_folder: Path, path: Path, network: dict[str, Any], **model: str) -> Path:
    """Copy the best checkpoint of a run to `path` with another setting of the network."""

    def change(recipe: dict[str, Any]) -> None:
        recipe["config"]["model"] |= {"network": network, **model}

    return forge_recipe(run_folder, path, change)
