"""From the configuration to what training and prediction share: classes, slice settings and network.

Nothing of the training itself is imported: a prediction starts without Lightning and wandb.
"""

from collections.abc import Mapping
from typing import Any, cast

from hydra.errors import InstantiationException
from hydra.utils import instantiate
from torch import nn

from spleen.class_map import ClassMap, parse_label_values
from spleen.config import CasesData, CtConfig, MrConfig, TrainConfig, ZScoreConfig
from spleen.errors import InputError
from spleen.intensity import CtWindow, Intensity, MrPercentiles, ZScore
from spleen.models.padding import PadToMultiple
from spleen.models.windows import OverlappingWindows
from spleen.slicing import Resize
from spleen.store import StoreSettings
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


def build_store_settings(config: TrainConfig, classes: ClassMap) -> StoreSettings:
    """How slices are cut, resampled and normalised."""
    return StoreSettings(
        axis=axis_of(config),
        img_size=config.img_size,
        resize=cast(Resize, config.resize),
        size_multiple=config.model.size_multiple,
        intensity=_intensity(config.intensity),
        classes=classes,
        grid_tolerance_mm=config.grid_tolerance_mm,
        n_channels=channels_of(config),
        may_be_empty=isinstance(config.data, CasesData),
    )


def _intensity(config: CtConfig | MrConfig | ZScoreConfig) -> Intensity:
    match config:
        case CtConfig():
            return CtWindow(config.window_level, config.window_width)
        case MrConfig():
            return MrPercentiles(config.low_percentile, config.high_percentile)
        case ZScoreConfig():
            return ZScore(config.clip)


def build_network(config: TrainConfig, n_foreground: int) -> nn.Module:
    """The network, its input and output channels filled in, accepting slices of any size."""
    model = config.model
    channels = {
        model.in_channels_argument: channels_of(config) * (1 + 2 * config.context_slices),
        model.out_channels_argument: 1 + n_foreground,
    }
    network = build_part("model.network", {**model.network, **channels})
    padded = PadToMultiple(network, model.size_multiple)
    return padded if config.crop_size is None else OverlappingWindows(padded, config.crop_size)


def build_part(name: str, setting: Mapping[str, Any]) -> nn.Module:
    """Build the module that a `_target_` setting names; `name` stands in the messages.

    Raises InputError if it cannot be built, or is no torch.nn.Module.
    """
    try:
        built = instantiate(dict(setting))
    except InstantiationException as error:
        if isinstance(error.__cause__, InputError):
            raise error.__cause__ from error
        reason = str(error).splitlines()[0]
        cause = f" ({error.__cause__})" if error.__cause__ and str(error.__cause__) not in reason else ""
        raise InputError(f"{name} cannot be built: {reason}{cause}") from error
    if not isinstance(built, nn.Module):
        raise InputError(f"{name}: {setting['_target_']} gives {type(built).__name__}, not a torch.nn.Module")
    return built
