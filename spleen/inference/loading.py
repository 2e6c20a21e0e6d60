"""A trained network from its run folder or checkpoint, without running any code that came with it."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from spleen.errors import InputError
from spleen.imaging.classes import ClassMap
from spleen.imaging.preprocessing import Preprocessing
from spleen.inference.legacy import RECIPE_KEY, spec_of_recipe
from spleen.models.checkpoint import SPEC_KEY, network_weights, read_checkpoint
from spleen.models.factory import build_network
from spleen.models.spec import ModelSpec
from spleen.models.trusted import check_network_setting
from spleen.records.folder import BEST, CHECKPOINTS, RunFolder, run_folder_of
from spleen.system.text import shortened

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class TrainedModel:
    """A network with its best weights, and how volumes become its input."""

    name: str
    checkpoint: Path
    network: nn.Module
    """Maps slices (b, n_channels * (2 * context_slices + 1), h, w) to logits (b, 1 + classes, h, w).

    It is in evaluation mode.
    """
    spec: ModelSpec

    @property
    def preprocessing(self) -> Preprocessing:
        """How volumes become slices."""
        return self.spec.preprocessing

    @property
    def classes(self) -> ClassMap:
        """Foreground classes, with the label values that stand for them."""
        return self.spec.preprocessing.classes


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


def load_trained(path: Path, allow_custom_code: bool = False) -> TrainedModel:
    """Load a run folder or a checkpoint, on the processor.

    The weights are read as plain tensors (weights_only), and the network must be a class of this package or of a named
    library; `allow_custom_code` allows any class that can be imported.
    Raises InputError for anything that is no checkpoint of `train.py`, or that is not to be trusted.
    """
    checkpoints = find_checkpoints(path)
    if len(checkpoints) != 1:
        raise InputError(_not_one_run(path, checkpoints))
    checkpoint = checkpoints[0]
    content = read_checkpoint(checkpoint)
    try:
        spec = spec_of(content)
        check_network_setting(spec.network, allow_custom_code)
        network = build_network(spec)
        network.load_state_dict(network_weights(content))
    except (InputError, RuntimeError, AttributeError, TypeError) as error:
        raise InputError(f"{checkpoint}: {error}") from error
    network.eval().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return TrainedModel(_name(checkpoint), checkpoint.resolve(), network, spec)


def spec_of(content: Mapping[str, Any]) -> ModelSpec:
    """The model specification in a checkpoint, also in one that describes itself in the way of before.

    Raises InputError where there is none, or it cannot be read.
    """
    if SPEC_KEY in content:
        return ModelSpec.from_json(str(content[SPEC_KEY]))
    if RECIPE_KEY in content:
        return spec_of_recipe(str(content[RECIPE_KEY]))
    raise InputError("it was not written by train.py: it lacks a model specification")


def load_ensemble(paths: Sequence[Path], allow_custom_code: bool = False) -> list[TrainedModel]:
    """Load every run that `paths` name, for one fused prediction.

    Raises InputError unless they all know the same classes with the same label values, and see as many channels.
    """
    models = [
        load_trained(checkpoint, allow_custom_code) for path in paths for checkpoint in find_checkpoints(path) or [path]
    ]
    for model in models[1:]:
        if model.classes != models[0].classes:
            raise InputError(
                f"runs can be fused only where their classes agree: {models[0].name} knows {_tell(models[0].classes)}, "
                f"{model.name} knows {_tell(model.classes)}"
            )
        if model.preprocessing.n_channels != models[0].preprocessing.n_channels:
            raise InputError(
                f"runs can be fused only where they see the same images: {models[0].name} was trained on "
                f"{models[0].preprocessing.n_channels} channel(s), {model.name} on {model.preprocessing.n_channels}"
            )
    return models


def _name(checkpoint: Path) -> str:
    """The run folder's name, or the file's where it lies elsewhere."""
    checkpoint = checkpoint.resolve()
    folder = run_folder_of(checkpoint)
    return checkpoint.stem if folder is None else folder.name


def _not_one_run(path: Path, found: Sequence[Path]) -> str:
    if found:
        return f"{path} holds {len(found)} runs; name one of them: {shortened(c.parents[1] for c in found)}"
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
