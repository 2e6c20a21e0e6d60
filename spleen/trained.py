"""A trained network from its run folder or checkpoint, without running any code that came with it."""

import logging
import pickle
import re
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from spleen.build_model import build_classes, build_network, build_store_settings
from spleen.class_map import ClassMap
from spleen.errors import InputError
from spleen.listing import few
from spleen.recipe import RECIPE_KEY, from_json
from spleen.records.folder import BEST, CHECKPOINTS, RunFolder, run_folder_of
from spleen.store import StoreSettings
from spleen.trust_target import check_network_setting

log = logging.getLogger(__name__)

# In Lightning's checkpoint the network is an attribute of the module.
_PREFIX = "network."


@dataclass(frozen=True)
class TrainedModel:
    """A network with its best weights, and how volumes become its input."""

    name: str
    checkpoint: Path
    network: nn.Module
    """Maps slices (b, n_channels * (2 * context_slices + 1), h, w) to logits (b, 1 + classes, h, w).

    It is in evaluation mode.
    """
    slices: StoreSettings
    context_slices: int
    precision: str
    """The setting of the training: auto, 32, bf16 or 16."""
    trained_flips: tuple[str, ...]
    """Anatomical directions that were mirrored at random during the training."""
    training_volumes_mm3: tuple[tuple[float, float], ...]
    """For each class, its smallest and its largest volume in the training cases."""
    seen_images: frozenset[str]
    """`spleen.fingerprint.fingerprint` of the images it learnt from; empty where an older checkpoint does not tell."""

    @property
    def classes(self) -> ClassMap:
        """Foreground classes, with the label values that stand for them."""
        return self.slices.classes


def find_checkpoints(path: Path) -> list[Path]:
    """The checkpoints that a RUN argument names: itself, that of a run folder, or those of the finished runs in it.

    Runs may also lie in the one folder of a sweep below `path`. Empty if there is none.
    Raises InputError where several sweeps have runs.
    """
    if path.is_file():
        return [path] if path.suffix == ".ckpt" else []
    if (best := RunFolder(path).best_checkpoint).is_file():
        return [best]
    if runs := _finished_runs(path):
        return runs
    sweeps = {sweep: _finished_runs(sweep) for sweep in sorted(path.glob("*/"))}
    with_runs = [sweep for sweep, runs in sweeps.items() if runs]
    if len(with_runs) > 1:
        raise InputError(
            f"{path} holds the runs of {len(with_runs)} sweeps; name one: {', '.join(map(str, with_runs))}"
        )
    return sweeps[with_runs[0]] if with_runs else []


def _finished_runs(folder: Path) -> list[Path]:
    """The best checkpoints of the finished runs directly in a folder."""
    best = sorted(path for run in folder.glob("*/") if (path := RunFolder(run).best_checkpoint).is_file())
    finished = [checkpoint for checkpoint in best if RunFolder(checkpoint.parents[1]).summary.is_file()]
    for checkpoint in set(best) - set(finished):
        log.warning("%s is not finished and left out", checkpoint.parents[1])
    return finished


def load_trained(path: Path, trust: bool = False) -> TrainedModel:
    """Load a run folder or a checkpoint, on the processor.

    The weights are read as plain tensors (weights_only), and the network must be a class of this package or of a named
    library; `trust` allows any class that can be imported.
    Raises InputError for anything that is no checkpoint of `train.py`, or that is not to be trusted.
    """
    checkpoints = find_checkpoints(path)
    if len(checkpoints) != 1:
        raise InputError(_not_one_run(path, checkpoints))
    checkpoint = checkpoints[0]
    content = _read(checkpoint)
    try:
        recipe, config = from_json(str(content[RECIPE_KEY]))
        check_network_setting(config.model.network, trust)
        classes = ClassMap(build_classes(config).names, recipe.label_values)
        network = build_network(config, len(classes.names))
        weights = {
            name.removeprefix(_PREFIX): value
            for name, value in content["state_dict"].items()
            if name.startswith(_PREFIX)
        }
        network.load_state_dict(weights)
        flips = tuple(config.augment.get("flips", []))
    except (InputError, RuntimeError, KeyError, AttributeError, TypeError) as error:
        raise InputError(f"{checkpoint}: {error}") from error
    network.eval().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return TrainedModel(
        name=_name(checkpoint),
        checkpoint=checkpoint.resolve(),
        network=network,
        slices=build_store_settings(config, classes),
        context_slices=config.context_slices,
        precision=config.precision,
        trained_flips=flips,
        training_volumes_mm3=recipe.training_volumes_mm3,
        seen_images=frozenset(recipe.seen_images),
    )


def load_ensemble(paths: Sequence[Path], trust: bool = False) -> list[TrainedModel]:
    """Load every run that `paths` name, for one fused prediction.

    Raises InputError unless they all know the same classes with the same label values, and see as many channels.
    """
    models = [load_trained(checkpoint, trust) for path in paths for checkpoint in find_checkpoints(path) or [path]]
    for model in models[1:]:
        if model.classes != models[0].classes:
            raise InputError(
                f"runs can be fused only where their classes agree: {models[0].name} knows {_tell(models[0].classes)}, "
                f"{model.name} knows {_tell(model.classes)}"
            )
        if model.slices.n_channels != models[0].slices.n_channels:
            raise InputError(
                f"runs can be fused only where they see the same images: {models[0].name} was trained on "
                f"{models[0].slices.n_channels} channel(s), {model.name} on {model.slices.n_channels}"
            )
    return models


def _read(checkpoint: Path) -> dict[str, Any]:
    try:
        with checkpoint.open("rb") as file:
            if not zipfile.is_zipfile(file):
                raise InputError(f"{checkpoint} is no checkpoint of train.py, or it is truncated; copy it again")
        content = torch.load(checkpoint, map_location="cpu", weights_only=True, mmap=True)
    except InputError:
        raise
    except pickle.UnpicklingError as error:
        named = re.search(r"GLOBAL (\S+)", str(error))
        found = f", and this one names {named[1]}" if named else ""
        raise InputError(
            f"{checkpoint} is refused: a checkpoint may hold tensors and plain values only{found}. It was not written "
            "by train.py, or someone changed it"
        ) from error
    except Exception as error:  # whatever the unpickler stumbles over in a damaged file
        raise InputError(f"{checkpoint} cannot be read as a checkpoint: {_first_line(error)}") from error
    if not isinstance(content, dict) or RECIPE_KEY not in content or "state_dict" not in content:
        raise InputError(f"{checkpoint} was not written by train.py: it lacks the recipe of its run")
    return content


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]


def _name(checkpoint: Path) -> str:
    """The run folder's name, or the file's where it lies elsewhere."""
    checkpoint = checkpoint.resolve()
    folder = run_folder_of(checkpoint)
    return checkpoint.stem if folder is None else folder.name


def _not_one_run(path: Path, found: Sequence[Path]) -> str:
    if found:
        return f"{path} holds {len(found)} runs; name one of them: {few(c.parents[1] for c in found)}"
    if not path.exists():
        return f"{path}: no such run folder or checkpoint (looked from {Path.cwd()})"
    if path.is_file():
        return f"{path} is not a checkpoint; give a run folder, or a file that ends in .ckpt"
    best, last = Path(CHECKPOINTS, BEST), RunFolder(path).last_checkpoint
    if last.is_file():
        return f"{path} has no {best}, its training did not finish an epoch with validation; {last} can be used"
    return f"{path} is not a run folder: it has no {best}"


def _tell(classes: ClassMap) -> str:
    return ", ".join(f"{name}={list(values)}" for name, values in zip(classes.names, classes.values, strict=True))
