"""How slices are cut, resampled and normalised, built from the configuration without importing Lightning."""

from typing import cast

from spleen.config.schema import CasesData, CtConfig, MrConfig, TrainConfig, ZScoreConfig
from spleen.imaging.classes import ClassMap, parse_label_values
from spleen.imaging.intensity import CtWindow, Intensity, MrPercentiles, ZScore
from spleen.imaging.preprocessing import Preprocessing
from spleen.imaging.slicing import Resize
from spleen.types import AxisName


def build_classes(config: TrainConfig) -> ClassMap:
    """The foreground classes."""
    return parse_label_values(config.data.label_values, config.data.organ)


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
    )


def _intensity(config: CtConfig | MrConfig | ZScoreConfig) -> Intensity:
    match config:
        case CtConfig():
            return CtWindow(config.window_level, config.window_width)
        case MrConfig():
            return MrPercentiles(config.low_percentile, config.high_percentile)
        case ZScoreConfig():
            return ZScore(config.clip)
