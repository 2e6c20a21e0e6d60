"""Read and write checkpoints as plain values and tensors, without running any code stored in them."""

import pickle
import re
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

import torch
from torch import Tensor

from spleen.errors import InputError
from spleen.system.text import shortened

SPEC_KEY = "model_spec"
"""Key of the model specification in a checkpoint, as JSON."""
WEIGHTS_KEY = "state_dict"
# In a Lightning checkpoint, the network is an attribute of the module.
_PREFIX = "network."


def read_checkpoint(path: Path) -> dict[str, Any]:
    """A checkpoint as plain values and tensors on the CPU; the tensors are memory-mapped.

    Raises InputError for a damaged file, or one that contains anything else.
    """
    try:
        with path.open("rb") as file:
            if not zipfile.is_zipfile(file):
                raise InputError(f"{path} is not a checkpoint of `spleen train`, or it is truncated; copy it again")
            _check_crc(file, path)
        content = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except InputError:
        raise
    except pickle.UnpicklingError as error:
        named = re.search(r"GLOBAL (\S+)", str(error))
        found = f", and this one names {named[1]}" if named else ""
        raise InputError(
            f"{path} is refused: a checkpoint may contain tensors and plain values only{found}. It was not written "
            "by `spleen train`, or it was modified"
        ) from error
    except Exception as error:  # the unpickler may raise anything for a damaged file
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise InputError(f"{path} cannot be read as a checkpoint: {reason}") from error
    if not isinstance(content, dict) or not isinstance(content.get(WEIGHTS_KEY), dict):
        raise InputError(f"{path} was not written by `spleen train`: it lacks the weights of a network")
    return content


def _check_crc(file: IO[bytes], path: Path) -> None:
    """Compare each entry with its CRC-32, which torch.load does not; a flipped bit would be another weight."""
    with zipfile.ZipFile(file) as archive:
        damaged = archive.testzip()
    if damaged is not None:
        raise InputError(f"{path} is damaged: the content of {damaged} does not match its checksum; copy it again")


def check_finite(weights: Mapping[str, Tensor]) -> None:
    """Raise InputError for weights that contain NaN or Inf."""
    broken = [name for name, value in weights.items() if value.is_floating_point() and not value.isfinite().all()]
    if broken:
        raise InputError(
            f"its weights contain NaN or Inf ({shortened(broken, 3)}): the training diverged; predict with another run"
        )


def network_weights(content: Mapping[str, Any]) -> dict[str, Tensor]:
    """The weights of the network in a checkpoint; averaged ones, if the training averaged them."""
    weights = content[WEIGHTS_KEY].items()
    return {name.removeprefix(_PREFIX): value for name, value in weights if str(name).startswith(_PREFIX)}


def model_content(spec_json: str, content: Mapping[str, Any]) -> dict[str, Any]:
    """The part of a checkpoint to share: weights, model specification, epoch and step.

    It contains no optimiser state, no training configuration and no path.
    """
    return {
        WEIGHTS_KEY: {f"{_PREFIX}{name}": value for name, value in network_weights(content).items()},
        SPEC_KEY: spec_json,
        "epoch": content["epoch"],
        "global_step": content["global_step"],
    }
