"""The objects and values of a run, built from its configuration; no module below this one sees a configuration."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import pytorch_lightning as pl
import torch
from torch import nn

from spleen import __version__
from spleen.config.preprocessing import build_classes, build_preprocessing
from spleen.config.schema import TrainConfig, process_count
from spleen.data.augmentation.crop import CropSettings, window_size
from spleen.data.augmentation.settings import AugmentSettings
from spleen.data.loading.batches import CaseSlices
from spleen.data.loading.datamodule import LoaderSettings, SliceDataModule
from spleen.data.partial_labels import unlabelled_codes, with_mirrored
from spleen.data.splits.blocks import SliceSplitSettings
from spleen.data.store.entry import StoredCase
from spleen.errors import InputError
from spleen.imaging.classes import ClassMap, swapped_classes
from spleen.imaging.preprocessing import Preprocessing
from spleen.imaging.slicing import flips_in_plane
from spleen.models.encoder import encoder_parts
from spleen.models.factory import build_network, build_part, check_arguments
from spleen.models.losses import LossOfKnown, LossOfRegions
from spleen.models.spec import ModelSpec
from spleen.models.trial import check_input_size
from spleen.system.hardware import choose_accelerator, choose_precision
from spleen.training.fit import FitSettings
from spleen.training.module import SegmentationModule
from spleen.training.optimiser import OptimiserSettings
from spleen.training.scores import SCORED_SPLITS, SplitScores, counts_outside

_STEPS_AT_ONCE = 16
"""Steps between two returns to the trainer: its own cost is a hundredth of theirs, and a signal waits for no more."""


def build_split_settings(config: TrainConfig) -> SliceSplitSettings:
    """How one volume is split."""
    split = config.split
    return SliceSplitSettings(split.val_fraction, split.test_fraction, split.test_blocks, split.guard_mm, split.seed)


def build_loader_settings(config: TrainConfig) -> LoaderSettings:
    """How slices become batches."""
    return LoaderSettings(
        batch_size=config.batch_size,
        slices_per_epoch=config.loader.slices_per_epoch,
        foreground_fraction=config.loader.foreground_fraction,
        num_workers=config.loader.num_workers,
        context_slices=config.context_slices,
        seed=config.seed,
        steps_at_once=_STEPS_AT_ONCE if steps_on_device(config) else None,
        patch_depth=config.crop_size[0] if config.model.dimensions == 3 else None,
    )


def steps_on_device(config: TrainConfig) -> bool:
    """Whether slices stay on the device, where whole training steps are made.

    Raises InputError if they shall but cannot.
    """
    wanted = config.loader.on_device
    several, scaled = process_count(config.trainer) > 1, config.precision == "16"
    if config.model.dimensions == 3:
        if wanted is True:
            raise InputError("loader.on_device=true serves slices, not the patches of a 3D network; leave it at auto")
        return False
    if wanted is True and (several or scaled):
        what = f"trainer.devices={config.trainer.devices}" if several else "precision=16, whose losses are scaled"
        raise InputError(
            f"loader.on_device=true needs one process and precision 32 or bf16; got {what}. Use loader.on_device=false"
        )
    if wanted == "auto":
        has_gpu = config.trainer.accelerator in ("auto", "gpu") and torch.cuda.device_count() > 0
        return has_gpu and not several and not scaled
    return bool(wanted)


def build_loss(config: TrainConfig) -> nn.Module:
    """The loss, called as loss(logits, class indices)."""
    return build_part("loss", config.loss)


@dataclass(frozen=True)
class Parts:
    """The parts of a run that need no data; the network and the loss are the ones that are trained."""

    spec: ModelSpec
    """Without the facts read from the training cases."""
    network: nn.Module
    loss: nn.Module
    augment: AugmentSettings
    swapped_classes: tuple[int, ...]
    """The class indices after random mirroring along left_right; empty if none changes."""


def build_parts(config: TrainConfig) -> Parts:
    """Seed all random number generators and build the parts, so that a wrong setting fails before any image is read.

    Nothing else may use the seeded generators before training, which continues with their state.
    """
    augment, spec = build_augment_settings(config), build_spec(config)
    swapped = _swapped_classes(augment, spec.preprocessing, spec.patch_size is not None)
    pl.seed_everything(config.seed, workers=True, verbose=False)
    parts = Parts(spec, build_network(spec), build_loss(config), augment, swapped)
    side = config.crop_size if config.img_size == "native" else config.img_size
    if spec.patch_size is not None:
        check_slice_size(config, parts, spec.patch_size[1:])
    elif side is not None:
        check_slice_size(config, parts, (side, side))  # the longer side; the other one may be less
    return parts


def _swapped_classes(augment: AugmentSettings, preprocessing: Preprocessing, is_3d: bool) -> tuple[int, ...]:
    """The class indices after mirroring; raises InputError for a class with a side but without a partner."""
    in_plane = flips_in_plane(preprocessing.axis, augment.flips)
    flips = (augment.flips if is_3d else in_plane) if augment.flip_probability else ()
    try:
        swapped = swapped_classes(preprocessing.classes.names, flips)
        if swapped and preprocessing.classes.regions is not None:
            raise InputError("left_right exchanges classes with a side, which is not possible if classes overlap")
        return swapped
    except InputError as error:
        raise InputError(
            f"augment.flips: {error}. Leave this direction out, or give the class a name without a side"
        ) from error


def check_slice_size(
    config: TrainConfig, parts: Parts, size: tuple[int, int], training_slices: int | None = None
) -> None:
    """Raise InputError if slices of this height and width are too small for the network and the batch size."""
    sides: tuple[int, ...] = size
    if parts.spec.patch_size is not None:
        sides = parts.spec.patch_size
    elif config.crop_size is not None:
        sides = window_size(size, config.crop_size)
    batch_size = min(config.batch_size, config.loader.slices_per_epoch or training_slices or config.batch_size)
    if config.trainer.accelerator == "cpu":  # each process has its part; on GPUs batch normalisation is shared
        batch_size = max(1, batch_size // process_count(config.trainer))
    check_input_size(parts.network, parts.spec.n_input_channels, sides, batch_size)


def build_module(
    config: TrainConfig, parts: Parts, data: SliceDataModule, carried_over: Collection[str] = ()
) -> SegmentationModule:
    """The untrained module for these data; `carried_over` are the parameters that another run has trained."""
    preprocessing, patch_size = parts.spec.preprocessing, parts.spec.patch_size
    names = preprocessing.classes.names
    unlabelled, swapped = with_mirrored(unlabelled_codes(data.cases), parts.swapped_classes)
    # A patch may be longer than its case: then it has slices without a label.
    all_known = preprocessing.ignore_value is None and not unlabelled and patch_size is None
    loss = parts.loss if all_known else LossOfKnown(parts.loss, unlabelled)
    regions, n_indices = preprocessing.classes.regions, preprocessing.classes.n_indices
    window, foreground_fraction = patch_size[1:] if patch_size else config.crop_size, config.loader.foreground_fraction
    return SegmentationModule(
        network=parts.network,
        loss=loss if regions is None else LossOfRegions(loss, regions),
        optimiser=build_optimiser_settings(config, carried_over),
        augment=parts.augment,
        split_scores={split: _split_scores(data.slices(split), names) for split in SCORED_SPLITS},
        axis=preprocessing.axis,
        seed=config.seed,
        crop=CropSettings(window, foreground_fraction, n_indices) if window else None,
        swapped_classes=swapped,
        steps_on_device=steps_on_device(config),
        gradient_clip=config.optimiser.gradient_clip,
        frozen=encoder_parts(parts.network) if config.freeze else (),
    )


def _split_scores(parts: Sequence[CaseSlices], names: tuple[str, ...]) -> SplitScores:
    return SplitScores([part.case for part in parts], names, counts_outside(parts, len(names)))


def build_optimiser_settings(config: TrainConfig, carried_over: Collection[str] = ()) -> OptimiserSettings:
    """AdamW and the learning rate schedule."""
    optimiser, schedule = config.optimiser, config.schedule
    return OptimiserSettings(
        lr=config.lr,
        weight_decay=optimiser.weight_decay,
        betas=(optimiser.beta1, optimiser.beta2),
        schedule=schedule.kind,
        warmup_fraction=schedule.warmup_fraction,
        power=schedule.power,
        final_factor=schedule.final_factor,
        carried_over=frozenset(carried_over),
        carried_over_lr_factor=config.init_lr_factor,
    )


def build_augment_settings(config: TrainConfig) -> AugmentSettings:
    """Strength of the augmentation."""
    known = [field.name for field in fields(AugmentSettings)]
    unknown = [name for name in config.augment if name not in known]
    if unknown:
        raise InputError(f"unknown key 'augment.{unknown[0]}'; known keys are {', '.join(known)}")
    values: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value for name, value in config.augment.items()
    }
    if values.get("voxel_depth") == "auto":  # only patches have one
        values["voxel_depth"] = None
    flips = values.get("flips", ())
    if not isinstance(flips, tuple) or not all(isinstance(direction, str) for direction in flips):
        raise InputError(f"augment.flips must be a list of directions, such as [left_right]; got '{flips}'")
    check_arguments("augment", AugmentSettings, values)
    return AugmentSettings(**values)


def build_fit_settings(config: TrainConfig) -> FitSettings:
    """Duration and hardware of the training; raises InputError for hardware that is not available."""
    trainer, optimiser = config.trainer, config.optimiser
    accelerator = choose_accelerator(trainer.accelerator, trainer.devices)
    strategy = trainer.strategy if process_count(trainer) > 1 else "auto"
    if strategy == "fsdp" and accelerator != "gpu":
        raise InputError("trainer.strategy=fsdp needs CUDA GPUs, but none is available; use trainer=ddp")
    return FitSettings(
        epochs=config.epochs if config.max_minutes is None else None,
        max_seconds=None if config.max_minutes is None else 60 * config.max_minutes,
        score_test=config.score_test,
        val_every_epochs=trainer.val_every_epochs,
        early_stopping_patience=trainer.early_stopping_patience,
        gradient_clip=optimiser.gradient_clip,
        ema_decay=optimiser.ema_decay,
        accelerator=accelerator,
        devices=trainer.devices,
        precision=choose_precision(config.precision, accelerator),
        compile=config.compile,
        progress=trainer.progress,
        strategy=strategy,
        num_nodes=trainer.num_nodes,
        steps_on_device=steps_on_device(config),
    )


def build_spec(config: TrainConfig) -> ModelSpec:
    """The model specification before anything is read from the training cases."""
    classes = build_classes(config)
    preprocessing = build_preprocessing(config, classes)
    model = config.model
    channels = {
        model.in_channels_argument: preprocessing.n_channels * (1 + 2 * config.context_slices),
        model.out_channels_argument: 1 + len(classes.names),
    }
    return ModelSpec(
        network={**model.network, **channels},
        preprocessing=preprocessing,
        context_slices=config.context_slices,
        crop_size=tuple(config.crop_size) if isinstance(config.crop_size, list) else config.crop_size,
        precision=config.precision,
        trained_flips=tuple(config.augment.get("flips", ())),
        spleen_version=__version__,
    )


def complete_spec(spec: ModelSpec, training: Sequence[StoredCase], validation: Sequence[StoredCase]) -> ModelSpec:
    """The specification completed with facts read from the cases of the train and val splits."""
    classes = ClassMap(spec.preprocessing.classes.names, training[0].label_values)
    return replace(
        spec,
        preprocessing=replace(spec.preprocessing, classes=classes),
        training_volumes_mm3=tuple(_volume_range(training, number) for number in range(1, 1 + len(classes.names))),
        seen_images=tuple(sorted({case.fingerprint for case in (*training, *validation)})),
    )


def _volume_range(training: Sequence[StoredCase], number: int) -> tuple[float, float]:
    """The smallest and the largest volume (mm³) of a class in the cases that label it.

    With ignored voxels in all of them only bounds are known: the labelled part, and all ignored voxels beside it.
    """
    labelling = [case for case in training if number not in case.unlabelled]
    measured = [case for case in labelling if not case.ignored_volume_mm3] or labelling
    volumes = [case.volumes_mm3[number - 1] for case in measured]
    return min(volumes), max(volumes) + max(case.ignored_volume_mm3 for case in measured)
