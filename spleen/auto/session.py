"""The time and the runs of a search: what is finished is never done again."""

import math
import re
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from spleen.auto.plan import epoch_length
from spleen.auto.record import AutoRecord
from spleen.config.overrides import key_of
from spleen.config.schema import CasesData, TrainConfig
from spleen.errors import FolderInUse, InputError
from spleen.records.folder import RunFolder, is_finished, read_summary
from spleen.runs.api import compose_config, run_here


class Session:
    """One process at work on a search in `folder`; `started` is its start in seconds since the epoch.

    Every finished stage is recorded with its seconds. Those of a stage that was cut off do not count, but for what its
    training had saved.
    """

    def __init__(self, folder: Path, record: AutoRecord, started: float) -> None:
        self.folder, self.record = folder, record
        self._since = started

    def seconds_left(self) -> float:
        """Seconds until the deadline."""
        spent = math.fsum(self.record.seconds.values()) + time.time() - self._since
        return self.record.minutes * 60 - spent

    @contextmanager
    def stage(self, name: str) -> Iterator[bool]:
        """A stage that is recorded at its end; gives whether it is still to be done."""
        to_do = name not in self.record.seconds
        yield to_do
        if to_do:
            self._end_stage(name)

    def _end_stage(self, name: str, least_seconds: float = 0.0) -> None:
        now = time.time()
        self.record.seconds[name] = max(now - self._since, least_seconds)
        self._since = now
        self.record.write(self.folder)

    def config(self, *overrides: str) -> TrainConfig:
        """The configuration of a run of this search."""
        return compose_config(self.overrides(*overrides))

    def overrides(self, *own: str) -> list[str]:
        """The overrides of a run: the user's, what the look at the data decided, and its own."""
        replaced = set(map(key_of, own))
        shared = [override for override, _ in self.record.settings if key_of(override) not in replaced]
        return [*self.record.overrides, *shared, *own]

    def has_many_cases(self) -> bool:
        """Whether the data are many cases, split by case, or one volume, split into slices."""
        return isinstance(self.config().data, CasesData)

    def without_logger(self) -> list[str]:
        """Runs that only serve a choice are not copied to a dashboard, unless the user says so."""
        return [] if self._is_given("logger") else ["logger=none"]

    def along(self, axis: str) -> list[str]:
        """The override for a view along an axis; none for the one that the user has given."""
        return [] if self._is_given("axis") else [f"axis={axis}"]

    def train(
        self, name: str, overrides: Sequence[str], minutes: float, validations: int, may_fail: bool = False
    ) -> None:
        """Train in the subfolder `name`, unless that is done; an unfinished run goes on with its own settings.

        A run that `may_fail` and is refused, or needs more memory than the GPU has, is recorded as such; not one that
        a full disk has stopped. What stopped a run before its first saved epoch is planned anew by the next process.
        """
        if name in self.record.failed or (name in self.record.seconds and is_finished(self.folder / name)):
            return
        if name not in self.record.runs:
            own = [*overrides, "study=auto", f"max_minutes={minutes:.4g}"]
            if not self._is_given("loader.slices_per_epoch"):
                record = self.record
                length = epoch_length(record.slices_per_second, minutes, validations, record.batch_size)
                own.append(f"loader.slices_per_epoch={length}")
            self.record.runs[name] = own
            self.record.write(self.folder)
        try:
            run_here(self.config(*self.record.runs[name]), self.folder / name)
        except (InputError, torch.OutOfMemoryError) as error:
            is_ours = not isinstance(error, FolderInUse)
            if is_ours and not RunFolder(self.folder / name).last_checkpoint.exists():
                del self.record.runs[name]
                self.record.write(self.folder)
            if is_ours and may_fail and not isinstance(error.__cause__, OSError):
                self.record.failed[name] = str(error)
                print(f"left out: {error}", flush=True)
            elif isinstance(error, InputError):
                raise
            else:
                raise InputError(f"{error}; set a smaller batch_size or img_size") from error
        self._end_stage(name, float(self._summary(name).get("wall_seconds") or 0.0))

    def val_dice(self, name: str) -> float | None:
        """The validation Dice of a run; None where no validation case has any class."""
        score = (self._summary(name).get("val") or {}).get("dice")
        return None if score is None else float(score)

    def speed_of(self, name: str) -> float | None:
        """Slices per second of a finished run."""
        rate = (self._summary(name).get("train") or {}).get("slices_per_second")
        return float(rate) if rate else None

    def _summary(self, name: str) -> dict[str, Any]:
        return read_summary(self.folder / name)

    def _is_given(self, key: str) -> bool:
        return any(key_of(override) == key for override in self.record.overrides)


def folder_name(candidate: str) -> str:
    """The name of a candidate's folder."""
    return re.sub(r"[^\w.=-]+", "_", candidate)
