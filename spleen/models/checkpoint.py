"""What is read from a checkpoint: plain values and tensors, without running any code that came with them."""

import pickle
import re
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from spleen.errors import InputError

SPEC_KEY = "model_spec"
"""Where a checkpoint holds its model specification, as JSON."""
WEIGHTS_KEY = "state_dict"
# In Lightning's checkpoint the network is an attribute of the module.
_PREFIX = "network."


def read_checkpoint(path: Path) -> dict[str, Any]:
    """A checkpoint as plain values and tensors, on the processor; the tensors are read when they are touched.

    Raises InputError for a file that is damaged, or that holds anything else.
    """
    try:
        with path.open("rb") as file:
            if not zipfile.is_zipfile(file):
                raise InputError(f"{path} is no checkpoint of train.py, or it is truncated; copy it again")
        content = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except InputError:
        raise
    except pickle.UnpicklingError as error:
        named = re.search(r"GLOBAL (\S+)", str(error))
        found = f", and this one names {named[1]}" if named else ""
        raise InputError(
            f"{path} is refused: a checkpoint may hold tensors and plain values only{found}. It was not written "
            "by train.py, or someone changed it"
        ) from error
    except Exception as error:  # whatever the unpickler stumbles over in a damaged file
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise InputError(f"{path} cannot be read as a checkpoint: {reason}") from error
    if not isinstance(content, dict) or not isinstance(content.get(WEIGHTS_KEY), dict):
        raise InputError(f"{path} was not written by train.py: it lacks the weights of a network")
    return content


def network_weights(content: Mapping[str, Any]) -> dict[str, Tensor]:
    """The weights of the network in a checkpoint; the averaged ones, where the training averaged them."""
    weights = content[WEIGHTS_KEY].items()
    return {name.removeprefix(_PREFIX): value for name, value in weights if str(name).startswith(_PREFIX)}


def model_content(spec_json: str, content: Mapping[str, Any]) -> dict[str, Any]:
    """Of a checkpoint what one hands to others: weights, their specification, and when in the training they were kept.

    No state of the training, no setting of it and no path.
    """
    return {
        WEIGHTS_KEY: {f"{_PREFIX}{name}": value for name, value in network_weights(content).items()},
        SPEC_KEY: spec_json,
        "epoch": content["epoch"],
        "global_step": content["global_step"],
    }
