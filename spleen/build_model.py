"""From the configuration to the model specification, which is all that is kept of it with the weights."""

from collections.abc import Sequence
from dataclasses import replace
from typing import cast

from spleen import __version__
from spleen.class_map import ClassMap, parse_label_values
from spleen.config import CasesData, CtConfig, MrConfig, TrainConfig, ZScoreConfig
from spleen.imaging.preprocessing import Preprocessing
from spleen.intensity import CtWindow, Intensity, MrPercentiles, ZScore
from spleen.models.spec import ModelSpec
from spleen.slicing import Resize
from spleen.stored_case import StoredCase
from spleen.types import AxisName


def axis_of(config: TrainConfig) -> AxisName:
    """The slicing axis, which `check` has found to be a known one."""
    return cast(AxisName, config.axis)


def channels_of(config: TrainConfig) -> int:
    """Channels of the images."""
    return (config.data.channels or 1) if isinstance(config.data, CasesData) else 1


def build_classes(config: TrainConfig) -> ClassMap:
    """The foreground classes."""
    return parse_label_values(config.data.label_values, config.data.organ)


def build_preprocessing(config: TrainConfig, classes: ClassMap) -> Preprocessing:
    """How slices are cut, resampled and normalised."""
    return Preprocessing(
        axis=axis_of(config),
        img_size=config.img_size,
        resize=cast(Resize, config.resize),
        size_multiple=config.model.size_multiple,
        intensity=_intensity(config.intensity),
        classes=classes,
        grid_tolerance_mm=config.grid_tolerance_mm,
        n_channels=channels_of(config),
    )


def _intensity(config: CtConfig | MrConfig | ZScoreConfig) -> Intensity:
    match config:
        case CtConfig():
            return CtWindow(config.window_level, config.window_width)
        case MrConfig():
            return MrPercentiles(config.low_percentile, config.high_percentile)
        case ZScoreConfig():
            return ZScore(config.clip)


def build_spec(config: TrainConfig) -> ModelSpec:
    """What to train, before anything is read from the training cases."""
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
        crop_size=config.crop_size,
        precision=config.precision,
        trained_flips=tuple(config.augment.get("flips", ())),
        spleen_version=__version__,
    )


def describe(spec: ModelSpec, training: Sequence[StoredCase], validation: Sequence[StoredCase]) -> ModelSpec:
    """The specification completed by what is read from the cases of the train and val splits."""
    classes = ClassMap(spec.preprocessing.classes.names, training[0].label_values)
    by_class = zip(*(case.volumes_mm3 for case in training), strict=True)
    return replace(
        spec,
        preprocessing=replace(spec.preprocessing, classes=classes),
        training_volumes_mm3=tuple((min(volumes), max(volumes)) for volumes in by_class),
        seen_images=tuple(sorted({case.fingerprint for case in (*training, *validation)})),
    )
