"""Hydra's and OmegaConf's error messages, rewritten for users."""

import argparse
import re
import shlex
from pathlib import Path

from hydra._internal.utils import get_args_parser
from hydra.errors import HydraException, OverrideParseException
from omegaconf.errors import OmegaConfBaseException

from spleen.config.overrides import parse_override, quoted
from spleen.config.parsing import explain, unknown_key
from spleen.errors import InputError
from spleen.runs.sweeps.studies import GROUP, no_such_study
from spleen.system.resources import conf_folder, train_command
from spleen.system.terminal import unencodable

_MISSING_OPTION = re.compile(
    r"Could not find '([^']+)/([^'/]+)'\s+Available options in '[^']*':\n(.*?)(?:\n\n|\nConfig|\Z)", re.S
)


_AMBIGUOUS = re.compile(r"Ambiguous value for argument '(.*)'$", re.M)


def check_arguments(arguments: list[str]) -> None:
    """Raise InputError for an argument that is neither a flag of Hydra nor key=value."""
    parser = get_args_parser()
    parser.exit_on_error = False
    try:
        known, unknown = parser.parse_known_args(arguments)
    except argparse.ArgumentError as error:
        raise InputError(f"{error}; --hydra-help explains Hydra's flags") from error
    for argument in arguments:
        if argument in unknown and argument.startswith("-"):
            raise InputError(_not_a_flag(argument, _after(argument, arguments)))
        is_override = argument in known.overrides or argument in unknown  # those after a flag are unknown to argparse
        if is_override and "=" not in argument and not argument.startswith("~"):
            raise InputError(_not_a_setting(argument, arguments))


def check_groups(arguments: list[str]) -> None:
    """Raise InputError for anything but names as the choice of a group: Hydra itself fails at it."""
    for argument in arguments:
        group = argument.partition("=")[0].lstrip("+")
        if "=" not in argument or not group.isidentifier() or not (conf_folder() / group).is_dir():
            continue
        parsed = parse_override(argument)
        if parsed is None:  # Hydra tells it
            continue
        choices = [parsed.value()]
        if parsed.is_discrete_sweep():
            texts = (f"{group}={text}" for text in parsed.sweep_string_iterator())
            choices = [each.value() for each in map(parse_override, texts) if each is not None]
        names = [name for choice in choices for name in (choice if isinstance(choice, list) else [choice])]
        if not all(isinstance(name, str) for name in names):
            raise InputError(f"{argument}: a group needs the name of one of its options, `--help` lists them")


def _after(argument: str, arguments: list[str]) -> str:
    rest = arguments[arguments.index(argument) + 1 :]
    return rest[0] if rest and "=" not in rest[0] and not rest[0].startswith("-") else "VALUE"


def _not_a_flag(argument: str, value: str) -> str:
    key, equals, given = argument.lstrip("-").partition("=")
    return (
        f"{argument} is no flag; a setting is written as key=value without dashes: "
        f"{train_command()} {key}={given if equals else value}"
    )


def _not_a_setting(argument: str, arguments: list[str]) -> str:
    before = arguments[arguments.index(argument) - 1] if arguments.index(argument) else ""
    if "=" in before and ({"/", "."} & set(argument) or Path(before.partition("=")[2]).parent.is_dir()):
        return (
            f"'{argument}' is not of the form key=value; if it belongs to the setting before it, put both in quotes: "
            f'{train_command()} "{before} {argument}"'
        )
    value = next((each for each in arguments[arguments.index(argument) + 1 :] if each != "="), "VALUE")
    return (
        f"'{argument}' is not of the form key=value; write the key and its value together, without spaces: "
        f"{train_command()} {argument}={'VALUE' if '=' in value or value.startswith('-') else value}"
    )


def _not_readable(override: str) -> str:
    """The message for an override that is against the grammar, with one that is not."""
    key, equals, value = override.partition("=")
    if not equals:
        return f"'{override}' is not of the form key=value"
    key, value = key.strip(), value.strip()
    plain = f"{key}={value.lstrip('= ')}"
    if plain != override and parse_override(plain) is not None:
        return f"'{override}' is not of the form key=value; write it without spaces: {train_command()} {plain}"
    literal = f"{key}={quoted(value)}"
    if parse_override(literal) is None:
        return f"'{override}': '{key}' is no key; `{train_command()} --help` explains the keys"
    simple = not set(literal) & set('"$`\\!')
    return (
        f"{override}: the value cannot be read; a list is [a,b], and a text with spaces, brackets, quotes or other "
        f"special characters must be in quotes: {train_command()} "
        + (f'"{literal}"' if simple else shlex.quote(literal))
    )


def in_words(error: Exception) -> str:
    """The message for an exception that ended the program before or between jobs."""
    cause = error if isinstance(error, OmegaConfBaseException) else error.__cause__
    if isinstance(error, OverrideParseException):
        return _not_readable(error.override)
    if isinstance(error, HydraException) and (several := _AMBIGUOUS.search(str(error))):
        return (
            f"{several[1]}: several values are a sweep, with -m: {train_command()} -m {several[1]}; a list is in "
            "brackets: [a,b]"
        )
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
