"""Hydra's and OmegaConf's error messages, rewritten for users."""

import re

from hydra.errors import HydraException
from omegaconf.errors import OmegaConfBaseException

from spleen.config.parsing import explain, unknown_key
from spleen.errors import InputError
from spleen.runs.sweeps.studies import GROUP, no_such_study
from spleen.system.terminal import unencodable

_MISSING_OPTION = re.compile(
    r"Could not find '([^']+)/([^'/]+)'\s+Available options in '[^']*':\n(.*?)(?:\n\n|\nConfig|\Z)", re.S
)


def in_words(error: Exception) -> str:
    """The message for an exception that ended the program before or between jobs."""
    cause = error if isinstance(error, OmegaConfBaseException) else error.__cause__
    if isinstance(error, HydraException) and "not in struct" in f"{error} {cause}":
        key = re.search(r"Could not override '([^']*)'", str(error))
        return unknown_key(key.group(1)) if key else str(error)
    if isinstance(cause, OmegaConfBaseException):
        return explain(cause)
    if missing := _MISSING_OPTION.search(str(error)):
        group, option, available = missing.groups()
        if group == GROUP:
            return no_such_study(option)
        return f"{group}={option}: no such option; available are {', '.join(available.split())}"
    if isinstance(error, UnicodeEncodeError):
        return unencodable(error)
    if isinstance(error, ValueError):  # the only one that Hydra does not wrap while composing
        return f"{error}; a group (data, model, …) needs the name of one of its options, `--help` lists them"
    if isinstance(error, OSError):
        return f"{error}; choose a writable folder with output_dir=…"
    assert isinstance(error, HydraException | InputError)
    return str(error)
