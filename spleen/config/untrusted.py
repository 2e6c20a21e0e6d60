"""Settings from a file that somebody else may have written: they may choose values, but run no code."""

import re
from collections.abc import Iterable

from spleen.config.schema import TrainConfig
from spleen.errors import InputError
from spleen.models.trusted import check_part

ALLOW = "allow_custom_code"
REMEDY = f"if you trust this folder, add {ALLOW}=true"
OWN_RESOLVERS = ("work_folder", "run_stamp", "job_folder", "default_jobs")

_GIVEN = re.compile(rf"\+*{ALLOW}=(.*)", re.DOTALL)
_ANSWERS = {"true": True, "false": False}


def asks_for_custom_code(arguments: list[str]) -> tuple[bool, list[str]]:
    """Whether a command line contains allow_custom_code=true, and the other arguments.

    It is no key of the configuration, so no file can set it. Raises InputError for another value.
    """
    given = [match[1].lower() for argument in arguments if (match := _GIVEN.fullmatch(argument))]
    if wrong := [value for value in given if value not in _ANSWERS]:
        raise InputError(f"{ALLOW} must be true or false; got '{wrong[0]}'")
    others = [argument for argument in arguments if not _GIVEN.fullmatch(argument)]
    return bool(given and _ANSWERS[given[-1]]), others


def check_parts(config: TrainConfig) -> None:
    """Raise InputError unless network and loss are classes of trusted packages that load no files."""
    check_part("model.network", config.model.network, REMEDY)
    check_part("loss", config.loss, REMEDY)


def check_interpolations(setting: object, resolvers: Iterable[str]) -> None:
    """Raise InputError for an interpolation ${…:…} in any text by another resolver than these.

    References to other settings, such as ${seed}, are allowed.
    """
    harmless = re.compile(rf"\$\{{(?:[\w.\[\]-]+|(?:{'|'.join(map(re.escape, resolvers))}):[^{{}}$]*)\}}")
    for text in _texts(setting):
        inside, rest = text, harmless.sub("x", text)
        while rest != inside:  # from the innermost outwards
            inside, rest = rest, harmless.sub("x", rest)
        if "${" in rest:
            raise InputError(
                f"'{text}' is an expression that is not evaluated in a file from a folder; write its value"
            )


def _texts(setting: object) -> Iterable[str]:
    if isinstance(setting, str):
        yield setting
    elif isinstance(setting, dict):
        for key, value in setting.items():
            yield from _texts(key)
            yield from _texts(value)
    elif isinstance(setting, list | tuple):
        for value in setting:
            yield from _texts(value)
