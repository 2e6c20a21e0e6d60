"""A network's first steps without its data, to refuse slices that are too small for it before anything is read."""

from copy import deepcopy

import torch
from torch import nn

from spleen.errors import InputError


def check_input_size(network: nn.Module, channels: int, size: tuple[int, ...], batch_size: int) -> None:
    """Raise InputError if the network cannot be trained on, or score, slices of `size` (height, width) in pixels.

    Patches of a 3D network have a depth before these.

    Batch normalisation needs more than one value per channel in a training step, and instance normalisation in every
    slice: too much to ask at the deepest level of a small slice. The trial computes shapes only (device "meta"). A
    network that does not work there is not judged.
    """
    trial = deepcopy(network).to("meta")
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        what = f"{'slices' if len(size) == 2 else 'patches'} of {' × '.join(map(str, size))} pixels"
        for training, count in ((True, batch_size), (False, 1)):
            try:
                trial.train(training)(torch.empty(count, channels, *size, device="meta"))
            except ValueError as error:
                if not str(error).startswith("Expected more than 1"):
                    return
                raise InputError(
                    f"{what} in batches of {count} are too small for this network, "
                    "which halves them so often that its normalisation has a single value per channel. Increase "
                    "img_size (or crop_size), decrease the depth of the network, or use another normalisation"
                    + (" or a larger batch_size" if training else "")
                ) from error
            except InputError:
                raise
            except Exception:  # not a fault of the size: training itself tells it
                return
