"""Load trained networks from run folders and checkpoints, without running any code stored in them."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from spleen.errors import InputError
from spleen.imaging.classes import ClassMap
from spleen.imaging.preprocessing import Preprocessing
from spleen.inference.legacy import RECIPE_KEY, spec_of_recipe
from spleen.inference.study import StudyChoice, choose_runs
from spleen.models.checkpoint import SPEC_KEY, check_finite, network_weights, read_checkpoint
from spleen.models.factory import build_network, check_weights_fit
from spleen.models.spec import ModelSpec
from spleen.models.trusted import check_network_setting
from spleen.records.folder import BEST, CHECKPOINTS, RunFolder, run_folder_of
from spleen.system.text import shortened

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class TrainedModel:
    """A network with its best weights, and its model specification."""

    name: str
    checkpoint: Path
    network: nn.Module
    """Maps slices (b, n_channels * (2 * context_slices + 1), h, w) to logits (b, 1 + classes, h, w); in eval mode."""
    spec: ModelSpec

    @property
    def preprocessing(self) -> Preprocessing:
        """How volumes become slices."""
        return self.spec.preprocessing

    @property
    def classes(self) -> ClassMap:
        """Foreground classes and their label values."""
        return self.spec.preprocessing.classes


def find_checkpoints(path: Path) -> list[Path]:
    """The checkpoints of a RUN argument: the file itself, that of a run folder, or those of the finished runs in it.

    `path` may also contain one sweep with finished runs. Empty if there are none.
    Raises InputError if several sweeps contain finished runs.
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
            f"{path} contains the runs of {len(with_runs)} sweeps; give one of them: {', '.join(map(str, with_runs))}"
        )
    return sweeps[with_runs[0]] if with_runs else []


def _finished_runs(folder: Path) -> list[Path]:
    """The best checkpoints of the finished runs directly in a folder."""
    best = sorted(path for run in folder.glob("*/") if (path := RunFolder(run).best_checkpoint).is_file())
    finished = [checkpoint for checkpoint in best if RunFolder(checkpoint.parents[1]).summary.is_file()]
    for checkpoint in set(best) - set(finished):
        log.warning("%s is skipped: it is not finished", checkpoint.parents[1])
    return finished


def load_trained(path: Path, allow_custom_code: bool = False) -> TrainedModel:
    """Load a run folder or a checkpoint, on the CPU.

    The weights are read as plain tensors (weights_only), and the network must be a class of a package in
    `TRUSTED_PACKAGES`; `allow_custom_code` allows any importable class.
    Raises InputError for anything but a checkpoint of `spleen train`, and for a network of another class.
    """
    checkpoints = find_checkpoints(path)
    if len(checkpoints) != 1:
        raise InputError(_not_one_run(path, checkpoints))
    checkpoint = checkpoints[0]
    content = read_checkpoint(checkpoint)
    try:
        spec = spec_of(content)
        check_network_setting(spec.network, allow_custom_code)
        weights = network_weights(content)
        check_finite(weights)
        check_weights_fit(spec, weights)
        network = build_network(spec)
        network.load_state_dict(weights)
    except (InputError, RuntimeError, AttributeError, TypeError) as error:
        raise InputError(f"{checkpoint}: {error}") from error
    network.eval().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return TrainedModel(_name(checkpoint), checkpoint.resolve(), network, spec)


def spec_of(content: Mapping[str, Any]) -> ModelSpec:
    """The model specification of a checkpoint, including those written by older versions.

    Raises InputError if it is missing or invalid.
    """
    if SPEC_KEY in content:
        return ModelSpec.from_json(str(content[SPEC_KEY]))
    if RECIPE_KEY in content:
        return spec_of_recipe(str(content[RECIPE_KEY]))
    raise InputError("it was not written by `spleen train`: it lacks a model specification")


def load_ensemble(
    paths: Sequence[Path],
    allow_custom_code: bool = False,
    study: StudyChoice = "one_arm",
    class_names: Mapping[str, str] | None = None,
) -> list[TrainedModel]:
    """Load all runs of `paths` for a fused prediction; `study` says which of a folder with several arms.

    `class_names` maps names of classes in the runs to those that are used in their place.
    Raises InputError unless they agree on classes, label values and number of channels, and for a folder with several
    arms unless `study` chooses.
    """
    checkpoints: list[Path] = []
    for path in paths:
        found = find_checkpoints(path) or [path]
        checkpoints += choose_runs(path, found, study) if len(found) > 1 else found
    models = [load_trained(checkpoint, allow_custom_code) for checkpoint in checkpoints]
    if class_names:
        models = _renamed(models, class_names)
    for model in models[1:]:
        if model.classes != models[0].classes:
            raise InputError(
                f"runs can be fused only if their classes agree: {models[0].name} has {_listed(models[0].classes)}, "
                f"{model.name} has {_listed(model.classes)}; if only the names differ, add --class OLD=NEW"
            )
        if model.preprocessing.n_channels != models[0].preprocessing.n_channels:
            raise InputError(
                f"runs can be fused only if their channels agree: {models[0].name} was trained on "
                f"{models[0].preprocessing.n_channels} channel(s), {model.name} on {model.preprocessing.n_channels}"
            )
    return models


def _renamed(models: Sequence[TrainedModel], class_names: Mapping[str, str]) -> list[TrainedModel]:
    known = {name for model in models for name in model.classes.names}
    if unknown := [name for name in class_names if name not in known]:
        raise InputError(f"--class: the runs have no class '{unknown[0]}'; they have {', '.join(sorted(known))}")
    renamed = []
    for model in models:
        names = tuple(class_names.get(name, name) for name in model.classes.names)
        if len(set(names)) < len(names):
            raise InputError(f"--class: {model.name} would have two classes of one name: {', '.join(names)}")
        preprocessing = replace(model.preprocessing, classes=ClassMap(names, model.classes.values))
        renamed.append(replace(model, spec=replace(model.spec, preprocessing=preprocessing)))
    return renamed


def _name(checkpoint: Path) -> str:
    """The name of the run folder, or of the file outside of one."""
    checkpoint = checkpoint.resolve()
    folder = run_folder_of(checkpoint)
    return checkpoint.stem if folder is None else folder.name


def _not_one_run(path: Path, found: Sequence[Path]) -> str:
    if found:
        return f"{path} contains {len(found)} runs; give one of them: {shortened(c.parents[1] for c in found)}"
    if not path.exists():
        return f"{path}: no such run folder or checkpoint (relative to {Path.cwd()})"
    if path.is_file():
        return f"{path} is not a checkpoint; give a run folder, or a file that ends in .ckpt"
    best, last = Path(CHECKPOINTS, BEST), RunFolder(path).last_checkpoint
    if last.is_file():
        return f"{path} has no {best}: its training did not complete an epoch with validation; {last} can be used"
    return f"{path} is not a run folder: it has no {best}"


def _listed(classes: ClassMap) -> str:
    return ", ".join(f"{name}={list(values)}" for name, values in zip(classes.names, classes.values, strict=True))
