"""Built-in networks, and wrappers for arbitrary input sizes (padding, overlapping windows)."""

from spleen.models.padding import PadToMultiple, pad_to_multiple
from spleen.models.unet import UNet
from spleen.models.windows import OverlappingWindows

__all__ = ["OverlappingWindows", "PadToMultiple", "UNet", "pad_to_multiple"]
