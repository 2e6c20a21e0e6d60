"""What the queue of a node holds: series in a state, each a folder, and what is known of them."""

import json
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

from spleen.system.files import write_bytes

INCOMING, WAITING, WORKING, SENDING = "incoming", "waiting", "working", "sending"
HELD, FAILED, DONE = "held", "failed", "done"
STATES = (INCOMING, WAITING, WORKING, SENDING, HELD, FAILED, DONE)
AGAIN = "_"
"""Between a series and a number, where instances came after its results were sent."""
_IMAGES, _RESULTS, _RECORD = "images", "results", "record.json"


@dataclass(frozen=True)
class Identity:
    """What tells where an instance belongs."""

    study_uid: str
    series_uid: str
    sop_instance_uid: str


@dataclass(frozen=True)
class Record:
    """What is known of a series besides its images."""

    study_uid: str = ""
    caller: str = ""
    """AE title of its sender."""
    address: str = ""
    first_seconds: float = 0.0
    """When its first instance came, in seconds since 1970."""
    attempts: int = 0
    """To send its results, that failed."""
    next_seconds: float = 0.0
    """When to try again."""
    predicted: bool = False
    """Whether its results are complete."""
    for_review: bool = False
    reason: str = ""
    """Why it needs a review, failed, or waits."""


@dataclass(frozen=True)
class Job:
    """A series in the queue."""

    folder: Path

    @property
    def name(self) -> str:
        """The series, with a number where it comes again."""
        return self.folder.name

    @property
    def series_uid(self) -> str:
        """The Series Instance UID."""
        return self.name.partition(AGAIN)[0]

    @property
    def state(self) -> str:
        """One of STATES."""
        return self.folder.parent.name

    @property
    def images(self) -> Path:
        """The folder of its instances."""
        return self.folder / _IMAGES

    @property
    def results(self) -> Path:
        """The folder of its results."""
        return self.folder / _RESULTS

    @property
    def n_images(self) -> int:
        """The number of instances."""
        return sum(1 for _ in self.instances())

    def instances(self) -> Iterator[Path]:
        """Its instances, whole files only."""
        with suppress(FileNotFoundError):
            yield from (path for path in self.images.iterdir() if path.suffix == ".dcm")

    def changed_seconds(self) -> float:
        """When it came into its state, or an instance came, in seconds since 1970."""
        try:
            return max(path.stat().st_mtime for path in (self.folder, self.images))
        except FileNotFoundError:
            return 0.0

    def record(self) -> Record:
        """Its record; an empty one if it is damaged."""
        try:
            content = json.loads((self.folder / _RECORD).read_text(encoding="utf-8"))
            names = {each.name for each in fields(Record)}
            return Record(**{key: value for key, value in content.items() if key in names})
        except (OSError, ValueError, TypeError, AttributeError):
            return Record()

    def update(self, **changes: Any) -> Record:
        """Change its record."""
        record = replace(self.record(), **changes)
        write_bytes(self.folder / _RECORD, json.dumps(asdict(record), indent=2).encode())
        return record
