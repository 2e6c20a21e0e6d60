"""Load trained networks from run folders and checkpoints, without running any code stored in them."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import nn

from spleen.errors import InputError
from spleen.imaging.classes import ClassMap, check_renamed, renamed
from spleen.imaging.preprocessing import Preprocessing
from spleen.inference.choice import Choice, choose_runs, find_checkpoints, run_name
from spleen.inference.legacy import RECIPE_KEY, spec_of_recipe
from spleen.models.checkpoint import SPEC_KEY, check_finite, network_weights, read_checkpoint
from spleen.models.factory import build_network, channels_last, check_weights_fit
from spleen.models.spec import ModelSpec, RoiSettings
from spleen.models.trusted import check_network_setting
from spleen.records.folder import BEST, CHECKPOINTS, ROI, RunFolder
from spleen.system.hashing import file_sha256
from spleen.system.text import shortened

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class TrainedModel:
    """A network with its best weights, and its model specification."""

    name: str
    checkpoint: Path
    network: nn.Module
    """Maps slices (b, n_channels * (2 * context_slices + 1), h, w) to logits (b, 1 + classes, h, w); in eval mode.

    A 3D network maps all slices of a volume, together.
    """
    spec: ModelSpec
    coarse: "TrainedModel | None" = None
    """The network that finds the box in which this one predicts (`spec.roi`); None: it predicts the whole volume."""
    names_before: tuple[str, ...] | None = None
    """What the training called the classes, where they were renamed."""

    @property
    def preprocessing(self) -> Preprocessing:
        """How volumes become slices."""
        return self.spec.preprocessing

    @property
    def classes(self) -> ClassMap:
        """Foreground classes and their label values."""
        return self.spec.preprocessing.classes

    @property
    def trained_names(self) -> tuple[str, ...]:
        """What the training called the classes: it took from these which of them are left and right."""
        return self.classes.names if self.names_before is None else self.names_before


def load_trained(
    path: Path, allow_custom_code: bool = False, own_network: Mapping[str, Any] | None = None
) -> TrainedModel:
    """Load a run folder or a checkpoint, on the CPU.

    The weights are read as plain tensors (weights_only), and the network must be a class of a package in
    `TRUSTED_PACKAGES`; `allow_custom_code` allows any importable class, and `own_network`, the setting of a training's
    network, those that it names. The second network of a cascade comes with its coarse one, whose checkpoint roi.ckpt
    lies beside it.
    Raises InputError for anything but a checkpoint of `spleen train`, for a network of another class, and for a missing
    or other roi.ckpt.
    """
    checkpoints = find_checkpoints(path)
    if len(checkpoints) != 1:
        raise InputError(_not_one_run(path, checkpoints))
    checkpoint = checkpoints[0]
    content = read_checkpoint(checkpoint)
    try:
        spec = spec_of(content)
        check_network_setting(spec.network, allow_custom_code, own_network)
        weights = network_weights(content)
        check_finite(weights)
        check_weights_fit(spec, weights)
        network = build_network(spec)
        network.load_state_dict(weights)
    except (InputError, RuntimeError, AttributeError, TypeError) as error:
        raise InputError(f"{checkpoint}: {error}") from error
    coarse = None if spec.roi is None else _load_coarse(checkpoint.resolve(), spec.roi, allow_custom_code)
    return TrainedModel(run_name(checkpoint), checkpoint.resolve(), channels_last(network.eval()), spec, coarse)


def _load_coarse(checkpoint: Path, roi: RoiSettings, allow_custom_code: bool) -> TrainedModel:
    path = checkpoint.with_name(ROI)
    if not path.is_file():
        raise InputError(
            f"{checkpoint} is the second network of a cascade, and the first one, {ROI}, is not beside it; copy it "
            "there from the checkpoints/ of its run folder"
        )
    if file_sha256(path) != roi.checkpoint_sha256:
        raise InputError(
            f"{path} is not the first network of the cascade of {checkpoint}; copy both from one run folder"
        )
    return load_trained(path, allow_custom_code)


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
    choose: Choice | None = None,
    new_names: Mapping[str, str] | None = None,
) -> list[TrainedModel]:
    """Load all runs of `paths` for a fused prediction, of a sweep of settings those that `choose` says.

    `new_names` renames classes, old name to new one. Raises InputError as `choose_runs` does, and unless the runs agree
    on classes, label values and number of channels.
    """
    chosen = choose_runs(paths, choose)
    for reason in chosen.reasons:
        log.info("%s", reason)
    models = [load_trained(checkpoint, allow_custom_code) for checkpoint in chosen.checkpoints]
    if new_names:
        check_renamed(new_names, (name for model in models for name in model.classes.names))
        models = [_with_names(model, new_names) for model in models]
    for model in models[1:]:
        if model.classes != models[0].classes:
            raise InputError(
                f"runs can be fused only if their classes agree: {models[0].name} has {_listed(models[0].classes)}, "
                f"{model.name} has {_listed(model.classes)}{_hint(models[0].classes, model.classes)}"
            )
        if model.preprocessing.n_channels != models[0].preprocessing.n_channels:
            raise InputError(
                f"runs can be fused only if their channels agree: {models[0].name} was trained on "
                f"{models[0].preprocessing.n_channels} channel(s), {model.name} on {model.preprocessing.n_channels}"
            )
    return models


def _with_names(model: TrainedModel, new_names: Mapping[str, str]) -> TrainedModel:
    classes = replace(model.classes, names=renamed(model.classes.names, new_names))
    spec = replace(model.spec, preprocessing=replace(model.preprocessing, classes=classes))
    return replace(model, spec=spec, names_before=model.trained_names)


def _hint(first: ClassMap, second: ClassMap) -> str:
    """How to fuse runs that differ only in the names of classes."""
    if first.values != second.values:
        return ""
    pairs = [f"--class {old}={new}" for old, new in zip(second.names, first.names, strict=True) if old != new]
    return f". If they mean the same, add {' '.join(pairs)}"


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
