"""Opening many cases: the entries that the slice store lacks are built side by side, and a bad case is told by name."""

import logging
import re
import sys
from collections import defaultdict
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path

import torch
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from spleen.atomic import drop_abandoned
from spleen.cases import Case
from spleen.errors import InputError
from spleen.free_memory import MemoryRoom, free_memory_bytes
from spleen.imaging.preprocessing import Preprocessing
from spleen.intensity import doubts_in_words
from spleen.listing import few, in_lines
from spleen.store import entries_folder, open_case
from spleen.stored_case import StoredCase

log = logging.getLogger(__name__)

# Each holds one volume in memory, so more would cost more than they bring.
_MOST_THREADS = 8
_MOST_SHOWN = 20
# What building may take of the memory that is free; the rest is for what else grows meanwhile.
_SHARE_OF_MEMORY = 0.8


@dataclass(frozen=True)
class OpenedCases:
    """Cases in their order, and the reasons why others were left out, by case_id."""

    cases: tuple[StoredCase, ...]
    skipped: dict[str, str]


def open_cases(
    cases: Sequence[Case], preprocessing: Preprocessing, cache: Path, skip_bad: bool, may_be_empty: bool = False
) -> OpenedCases:
    """Open the entries of all cases, building those that are missing, several at a time.

    A case that is built stays built, whatever happens to the others, so an interrupted call goes on where it stopped.
    Threads share the work: decompressing, resampling and writing leave Python's lock. Where volumes are so large that
    they do not fit into memory together, fewer are built at a time.
    Raises InputError with the name and reason of each bad case; `skip_bad` leaves these out instead, unless all are.
    """
    drop_abandoned(entries_folder(cache))  # once: it lists the folder, which may hold many thousand entries
    opened: dict[str, StoredCase] = {}
    bad: dict[str, str] = {}
    cores = torch.get_num_threads()
    n_threads = max(1, min(_MOST_THREADS, cores, len(cases)))
    # Each shares its work among as many more, which would else be all cores for each.
    pool = ThreadPoolExecutor(n_threads, initializer=torch.set_num_threads, initargs=(cores // n_threads,))
    room = MemoryRoom(int(_SHARE_OF_MEMORY * free_memory_bytes()))
    try:
        waiting = {pool.submit(open_case, case, preprocessing, cache, room, may_be_empty): case for case in cases}
        with _progress(len(cases)) as progress:
            task = progress.add_task("slice store", total=len(cases))
            for done in as_completed(waiting):
                # Dropped here: a failure holds what its functions held, which is whole volumes.
                _take(done, waiting.pop(done).case_id, opened, bad)
                progress.advance(task)
    finally:
        room.close()
        pool.shutdown(cancel_futures=True)
        torch.set_num_threads(cores)  # what a thread sets is what later ones begin with
    if bad:
        _tell_bad(bad, len(cases), skip_bad)
    _tell_doubts(cases, opened)
    return OpenedCases(tuple(opened[case.case_id] for case in cases if case.case_id in opened), bad)


def _take(done: Future[StoredCase], case_id: str, opened: dict[str, StoredCase], bad: dict[str, str]) -> None:
    error = done.exception()  # raised here, it would hold this frame, and so itself
    if isinstance(error, InputError):
        bad[case_id] = str(error)
    else:
        opened[case_id] = done.result()


def _tell_doubts(cases: Sequence[Case], opened: Mapping[str, StoredCase]) -> None:
    found = {str(case.images[0]): opened[case.case_id].doubt for case in cases if case.case_id in opened}
    if doubts := {image: doubt for image, doubt in found.items() if doubt}:
        log.warning("%s; is this CT? For MR use intensity=mr", doubts_in_words(doubts, len(found)))


def _tell_bad(bad: Mapping[str, str], total: int, skip_bad: bool) -> None:
    lines = [f"{few(case_ids, _MOST_SHOWN)}: {reason}" for reason, case_ids in _by_reason(bad).items()]
    shown = in_lines(lines, _MOST_SHOWN)
    if len(bad) == total:
        raise InputError(f"none of the {total} cases can be used:{shown}")
    if not skip_bad:
        raise InputError(
            f"{len(bad)} of {total} cases cannot be used:{shown}\nMend them, or leave them out with data.skip_bad=true"
        )
    log.warning("%d of %d cases are left out (data.skip_bad=true):%s", len(bad), total, shown)


def _by_reason(bad: Mapping[str, str]) -> dict[str, list[str]]:
    """The cases of each reason, in which a star stands for the name where several cases share it."""
    alike: dict[str, list[str]] = defaultdict(list)
    for case_id, reason in sorted(bad.items()):
        # In a path or in quotes: a case may be called 1, and that be a value of its label, too.
        alike[re.sub(rf"(?<=[/']){re.escape(case_id)}(?=[._/'])", "*", reason)].append(case_id)
    return {(reason if len(ids) > 1 else bad[ids[0]]): ids for reason, ids in alike.items()}


def _progress(total: int) -> Progress:
    """A bar, where someone looks at it and there is something to wait for."""
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        transient=True,
        disable=total == 1 or not sys.stdout.isatty(),
    )
