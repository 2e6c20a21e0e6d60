"""warm_start.json: what a run with `init_from` began with, so that it can be resumed without that checkpoint."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from spleen.errors import InputError
from spleen.records.folder import RunFolder
from spleen.system.files import write_text


@dataclass(frozen=True)
class WarmStartRecord:
    """The source of a run's first weights, and what was taken from it."""

    source: str
    """The name of the run, or of the checkpoint outside of one."""
    checkpoint_sha256: str
    layers: Mapping[str, str]
    """For each layer of the network, in words, what it started from."""
    carried_over: tuple[str, ...]
    """The parameters that started from the source, in whole or in part, by their names in the network."""
    seen_images: tuple[str, ...]
    """Fingerprints of the images that the source, and what it began with itself, was trained and validated on."""


def write_warm_start(folder: Path, record: WarmStartRecord) -> None:
    """Write warm_start.json atomically."""
    write_text(RunFolder(folder).warm_start, json.dumps(asdict(record), indent=1, ensure_ascii=False) + "\n")


def read_warm_start(folder: Path) -> WarmStartRecord:
    """The content of warm_start.json; raises InputError if it is missing or damaged."""
    path = RunFolder(folder).warm_start
    try:
        content = json.loads(path.read_bytes())
        return WarmStartRecord(
            source=str(content["source"]),
            checkpoint_sha256=str(content["checkpoint_sha256"]),
            layers={str(layer): str(origin) for layer, origin in content["layers"].items()},
            carried_over=tuple(map(str, content["carried_over"])),
            seen_images=tuple(map(str, content["seen_images"])),
        )
    except OSError as error:
        raise InputError(
            f"{path} cannot be read ({error.strerror}), and a run with init_from cannot be resumed without it; put it "
            "back, or start a new run in another folder"
        ) from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{path} is damaged ({error}); put it back, or start a new run in another folder") from error
