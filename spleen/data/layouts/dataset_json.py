"""dataset.json, as the Decathlon and nnU-Net write it."""

import json
import logging
from collections.abc import Mapping
from pathlib import Path

from spleen.errors import InputError

log = logging.getLogger(__name__)


DATASET_JSON = "dataset.json"


def read_json(path: Path) -> object:
    """The content of a JSON file; InputError if it is missing, not valid JSON, or repeats a key in an object."""
    try:
        text = path.read_text(encoding="utf-8-sig")
        content: object = json.loads(text, object_pairs_hook=_unique_keys)
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror} (relative to {Path.cwd()})") from error
    except (ValueError, RecursionError) as error:  # ValueError also covers the encoding
        raise InputError(f"{path} is not valid JSON: {error}") from error
    return content


def read_dataset_json(root: Path) -> dict[str, object]:
    """The object in the dataset.json of a folder; InputError if there is none."""
    if not root.is_dir():
        raise InputError(f"{root}: no such folder (relative to {Path.cwd()})")
    path = root / DATASET_JSON
    if not path.exists():
        raise InputError(f"{root} contains no {DATASET_JSON}; without one, pair two folders by file name (data=folder)")
    content = read_json(path)
    if not isinstance(content, dict):
        raise InputError(f"{path} must contain an object, {{…}}; got a {type(content).__name__}")
    return content


def names_by_number(path: Path, key: str, entry: object) -> tuple[str, ...]:
    """The names in an object such as {"0": "T2", "1": "ADC"}, in order; InputError unless the numbers are 0, 1, ….

    `path` and `key` are the origin of `entry`, for the message.
    """
    names = entry if isinstance(entry, dict) else {}
    numbers = [str(number) for number in range(len(names))]
    if not names or sorted(names) != sorted(numbers) or not all(isinstance(name, str) for name in names.values()):
        example = '{"0": "CT"} or {"0": "T2", "1": "ADC"}'
        raise InputError(f'"{key}" in {path} must name the channels by number, such as {example}; got {entry!r:.200}')
    return tuple(names[number] for number in numbers)


def warn_of_count(path: Path, content: Mapping[str, object], n_cases: int) -> None:
    """Warn if dataset.json declares a different number of training cases; files may be missing."""
    expected = content.get("numTraining")
    if isinstance(expected, int) and expected != n_cases:
        log.warning(
            "%s declares numTraining %d, but there are %d training cases; are files missing?", path, expected, n_cases
        )


def _unique_keys(pairs: list[tuple[str, object]]) -> dict[str, object]:
    content = dict(pairs)
    if len(content) < len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for key in keys if keys.count(key) > 1)
        raise ValueError(f'duplicate key "{twice}" in one object')
    return content
