"""Hydra's configuration tree as typed records."""

import difflib
import re
from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any, cast

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import ConfigKeyError, OmegaConfBaseException

from spleen.config.overrides import without_interpolation
from spleen.config.schema import DATA, INTENSITIES, TrainConfig
from spleen.errors import InputError
from spleen.records.effect import DATA_PATHS
from spleen.records.renamed_keys import with_current_keys
from spleen.system.resources import train_command


def parse(tree: DictConfig) -> TrainConfig:
    """Validate Hydra's tree against the schema, and return it as typed records; renamed keys are accepted.

    Raises InputError for an unknown key (also if added with `+`), a value of the wrong type, or an invalid kind of data
    or intensity.
    """
    try:  # resolved here, because the schema does not check what comes through an interpolation
        content = cast(dict[str, object], OmegaConf.to_container(tree, resolve=True))
    except OmegaConfBaseException as error:
        raise InputError(explain(error)) from error
    tree = OmegaConf.create(with_current_keys(_literal(content)))
    schema = OmegaConf.structured(TrainConfig)
    for group, kinds in (("data", DATA), ("intensity", INTENSITIES)):
        kind = OmegaConf.select(tree, f"{group}.kind")
        if kind not in kinds:
            raise InputError(f"{group}.kind must be one of {', '.join(kinds)}; got {kind!r}")
        schema[group] = OmegaConf.structured(kinds[kind])
    try:
        merged = OmegaConf.merge(schema, tree)
        config = OmegaConf.to_object(merged)
    except OmegaConfBaseException as error:
        raise InputError(explain(error)) from error
    return _with_absolute_paths(cast(TrainConfig, config))


def _with_absolute_paths(config: TrainConfig) -> TrainConfig:
    """Make paths absolute, so that the recorded configuration can be run again from any folder."""
    config.output_dir, config.cache_dir = _absolute(config.output_dir), _absolute(config.cache_dir)
    for part, keys in ((config.data, DATA_PATHS), (config.split, ("splits_file", "test_cases"))):
        for key in keys:
            if path := getattr(part, key, None):
                setattr(part, key, _absolute(path))
    for key in ("init_from", "roi_from"):  # resolved, as outputs/latest soon means another run
        if run := getattr(config, key):
            setattr(config, key, str(Path(run).expanduser().resolve()))
    if config.model.encoder_weights_file:
        config.model.encoder_weights_file = _absolute(config.model.encoder_weights_file)
    return config


def _literal(content: Any) -> Any:
    """A resolved container with what looks like an interpolation escaped, so that it is not resolved again."""
    match content:
        case dict():
            return {key: _literal(value) for key, value in content.items()}
        case list():
            return list(map(_literal, content))
        case str():
            return without_interpolation(content)
    return content


def _absolute(path: str) -> str:
    return str(Path(path).expanduser().absolute())


_TYPES = {"Float": "a number", "Integer": "a whole number"}
_WRONG_TYPE = re.compile(r"^Value '(.*)' of type '.*' could not be converted to (Float|Integer)$")
_NOT_BOOLEAN = re.compile(r"^Value '(.*)' is not a valid bool")


def explain(error: OmegaConfBaseException) -> str:
    """A configuration error in one line, without OmegaConf's internal terms."""
    key = error.full_key or ""
    if isinstance(error, ConfigKeyError):
        return unknown_key(key)
    message = str(error.msg or error).splitlines()[0]
    if wrong := _WRONG_TYPE.search(message):
        return f"{key} must be {_TYPES[wrong[2]]}; got '{wrong[1]}'"
    if wrong := _NOT_BOOLEAN.search(message):
        return f"{key} must be true or false; got '{wrong[1]}'"
    return f"{key}: {message}".removeprefix(": ")


def unknown_key(key: str) -> str:
    """The error message for an unknown key, with the most similar known ones."""
    for group, options in (("data", DATA), ("intensity", INTENSITIES)):
        having = [name for name, option in options.items() if key in {f"{group}.{f.name}" for f in fields(option)}]
        if having:
            return f"'{key}' belongs to {group}={having[0]}, which is not selected; add {group}={having[0]} to use it"
    known = sorted(set(_keys(TrainConfig)) | {f"data.{f}" for f in _option_keys(DATA)})
    last = {name.rsplit(".", 1)[-1]: name for name in reversed(known)}
    near = difflib.get_close_matches(key, known, n=2, cutoff=0.6)
    near += [last[name] for name in difflib.get_close_matches(key.rsplit(".", 1)[-1], last, n=1, cutoff=0.7)]
    hint = f"; did you mean {' or '.join(dict.fromkeys(near))}?" if near else ";"
    return f"unknown key '{key}'{hint} `{train_command()} --help` explains the keys, `--cfg job` lists them all"


def _option_keys(options: dict[str, type]) -> Iterator[str]:
    for option in options.values():
        yield from (field.name for field in fields(option))


def _keys(schema: type, prefix: str = "") -> Iterator[str]:
    for field in fields(schema):
        yield f"{prefix}{field.name}"
        if is_dataclass(field.type):
            yield from _keys(cast(type, field.type), f"{prefix}{field.name}.")
