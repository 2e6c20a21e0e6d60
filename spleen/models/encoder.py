"""Which parts of a network are its encoder: what a warm start can freeze."""

import re

from torch import nn

from spleen.errors import InputError
from spleen.models.padding import PadToMultiple
from spleen.models.patches import PatchWindows
from spleen.models.windows import OverlappingWindows

# By package and class, the names of the submodules on the way down, the deepest level included. MONAI nests the levels
# of these two: each holds its own layers (0), the level below (1.submodule) and the way up (2).
_NESTED = r"model(\.1\.submodule)*\.0"
_LEVEL_BELOW = re.compile(r"model(\.1\.submodule)+")
_ENCODERS = {
    ("spleen", "UNet"): r"encoder",
    ("spleen", "UNet3D"): r"encoder",
    ("monai", "BasicUNet"): r"conv_0|down_\d+",
    ("monai", "DynUNet"): r"input_block|downsamples|bottleneck",
    ("monai", "SegResNet"): r"convInit|down_layers",
    ("monai", "UNet"): _NESTED,
    ("monai", "AttentionUnet"): _NESTED,
}
# The usual name elsewhere, for example in segmentation_models_pytorch and dynamic_network_architectures.
_USUAL = r"encoder"


def unwrapped(network: nn.Module) -> tuple[str, nn.Module]:
    """A network without the padding and the windows that `build_network` adds, and the prefix of its names in them."""
    prefix = ""
    while isinstance(network, PadToMultiple | OverlappingWindows | PatchWindows):
        prefix, network = f"{prefix}network.", network.network
    return prefix, network


def encoder_parts(network: nn.Module) -> tuple[str, ...]:
    """The names of the submodules that form the encoder of a network of `build_network`, as `get_submodule` takes them.

    Raises InputError for a network in which no encoder is known.
    """
    prefix, inner = unwrapped(network)
    pattern = _ENCODERS.get((type(inner).__module__.partition(".")[0], type(inner).__name__), _USUAL)
    names = [name for name, _ in inner.named_modules()]
    parts = [name for name in names if re.fullmatch(pattern, name)]
    if pattern == _NESTED:
        parts.append(max((name for name in names if _LEVEL_BELOW.fullmatch(name)), key=len))
    if not parts:
        children = ", ".join(name for name, _ in inner.named_children())
        raise InputError(
            f"freeze=encoder: no part of {type(inner).__name__} is called encoder; its parts are {children}. "
            "Use freeze=null, or name that part 'encoder' in a network of your own"
        )
    return tuple(prefix + part for part in parts)
