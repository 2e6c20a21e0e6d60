"""How slices are cut, resampled and normalised, built from the configuration without importing Lightning."""

from typing import cast

from spleen.config.schema import CasesData, CtConfig, MrConfig, TrainConfig, ZScoreConfig
from spleen.errors import InputError
from spleen.imaging.classes import ClassMap, parse_label_values
from spleen.imaging.intensity import CtWindow, Intensity, MrPercentiles, ZScore
from spleen.imaging.preprocessing import Preprocessing
from spleen.imaging.slicing import Resize
from spleen.types import AxisName


def build_classes(config: TrainConfig) -> ClassMap:
    """The foreground classes."""
    order = getattr(config.data, "regions_class_order", None)  # the phantom's organs do not overlap
    return parse_label_values(config.data.label_values, config.data.organ, order)


def ignore_value(config: TrainConfig) -> int | None:
    """The label value of voxels that are neither trained on nor scored.

    Raises InputError for a value that is a class or background too.
    """
    value: int | None = getattr(config.data, "ignore_value", None)  # the phantom is labelled everywhere
    if value is None:
        return None
    classes = build_classes(config)
    for name, values in zip(classes.names, classes.values, strict=True):
        if value in values:
            raise InputError(f"data.ignore_value={value} is a value of the class '{name}'; a voxel is one or the other")
    if value == 0 or value in (getattr(config.data, "background_values", None) or ()):
        raise InputError(f"data.ignore_value={value} is a value of the background; use another one, such as 255 or -1")
    return value


def build_preprocessing(config: TrainConfig, classes: ClassMap) -> Preprocessing:
    """How slices are cut, resampled and normalised."""
    return Preprocessing(
        axis=cast(AxisName, config.axis),  # validated by `check`
        img_size=config.img_size,
        resize=cast(Resize, config.resize),
        size_multiple=config.model.size_multiple,
        intensity=_intensity(config.intensity),
        classes=classes,
        grid_tolerance_mm=config.grid_tolerance_mm,
        n_channels=(config.data.channels or 1) if isinstance(config.data, CasesData) else 1,
        ignore_value=ignore_value(config),
    )


def _intensity(config: CtConfig | MrConfig | ZScoreConfig) -> Intensity:
    match config:
        case CtConfig():
            return CtWindow(config.window_level, config.window_width)
        case MrConfig():
            return MrPercentiles(config.low_percentile, config.high_percentile)
        case ZScoreConfig():
            return ZScore(config.clip)
