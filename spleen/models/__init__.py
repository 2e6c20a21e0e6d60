"""Networks that are ours, and the padding that lets any network take slices of any size."""

from spleen.models.padding import PadToMultiple, pad_to_multiple
from spleen.models.unet import UNet

__all__ = ["PadToMultiple", "UNet", "pad_to_multiple"]
