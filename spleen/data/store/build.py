"""Opening many cases: missing slice-store entries are built in parallel, and unusable cases are reported by name."""

import logging
import re
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path

import torch

from spleen.data.cases import Case
from spleen.data.store.entry import StoredCase
from spleen.data.store.store import _nothing_to_restore, entries_folder, open_case
from spleen.errors import InputError
from spleen.imaging.intensity import describe_implausible_units
from spleen.imaging.preprocessing import Preprocessing
from spleen.system.files import remove_stale
from spleen.system.memory import MemoryBudget, free_memory_bytes
from spleen.system.progress import ProgressBar
from spleen.system.text import bullets, shortened

log = logging.getLogger(__name__)

# Each thread keeps one volume in memory, so more threads do not pay off.
_MOST_THREADS = 8
_MOST_SHOWN = 20
# Fraction of the free memory that building may use; the rest is a reserve for other processes.
_MEMORY_FRACTION = 0.8


@dataclass(frozen=True)
class LoadedCases:
    """The opened cases in order, and the reason for each skipped one, by case_id."""

    cases: tuple[StoredCase, ...]
    skipped: dict[str, str]


def open_cases(
    cases: Sequence[Case],
    preprocessing: Preprocessing,
    cache: Path,
    skip_bad: bool,
    allow_empty_label: bool = False,
    restore: Callable[[], None] = _nothing_to_restore,
) -> LoadedCases:
    """Open the entries of all cases; missing entries are built in parallel.

    Completed entries are kept even if other cases fail, so an interrupted call resumes where it stopped. Threads are
    enough: decompression, resampling and writing release the GIL. If the volumes are too large to fit into memory
    together, fewer are built at a time. `restore` is that of `open_case`.
    Raises InputError with the name and reason of each unusable case; with `skip_bad` they are skipped, unless all are
    unusable.
    """
    remove_stale(entries_folder(cache))  # only once: the folder may contain many thousand entries
    opened: dict[str, StoredCase] = {}
    bad: dict[str, str] = {}
    cores = torch.get_num_threads()
    n_threads = max(1, min(_MOST_THREADS, cores, len(cases)))
    # Each thread gets its share of torch's threads; by default each would use all cores.
    pool = ThreadPoolExecutor(n_threads, initializer=torch.set_num_threads, initargs=(cores // n_threads,))
    room = MemoryBudget(int(_MEMORY_FRACTION * free_memory_bytes()))
    try:
        waiting = {
            pool.submit(open_case, case, preprocessing, cache, room, allow_empty_label, restore): case for case in cases
        }
        with ProgressBar("case") as bar:
            for done in as_completed(waiting):
                # Popped here: a failed future keeps its traceback, and with it whole volumes, alive.
                _collect(done, waiting.pop(done).case_id, opened, bad)
                bar.advance("slice store", 1, len(cases))
    finally:
        room.close()
        pool.shutdown(cancel_futures=True)
        torch.set_num_threads(cores)  # new threads inherit the last value that any thread has set
    if bad:
        _report_bad(bad, len(cases), skip_bad)
    _warn_of_implausible_units(cases, opened)
    return LoadedCases(tuple(opened[case.case_id] for case in cases if case.case_id in opened), bad)


def _collect(done: Future[StoredCase], case_id: str, opened: dict[str, StoredCase], bad: dict[str, str]) -> None:
    error = done.exception()  # raising it here would create a reference cycle through this frame
    if isinstance(error, InputError):
        bad[case_id] = str(error)
    else:
        opened[case_id] = done.result()


def _warn_of_implausible_units(cases: Sequence[Case], opened: Mapping[str, StoredCase]) -> None:
    found = {str(case.images[0]): opened[case.case_id].implausible_units for case in cases if case.case_id in opened}
    if implausible := {image: reason for image, reason in found.items() if reason}:
        log.warning("%s; is this CT? For MR use intensity=mr", describe_implausible_units(implausible, len(found)))


def _report_bad(bad: Mapping[str, str], total: int, skip_bad: bool) -> None:
    lines = [f"{shortened(case_ids, _MOST_SHOWN)}: {reason}" for reason, case_ids in _by_reason(bad).items()]
    shown = bullets(lines, _MOST_SHOWN)
    if len(bad) == total:
        raise InputError(f"none of the {total} cases can be used:{shown}")
    if not skip_bad:
        raise InputError(
            f"{len(bad)} of {total} cases cannot be used:{shown}\nFix them, or skip them with data.skip_bad=true"
        )
    log.warning("%d of %d cases are skipped (data.skip_bad=true):%s", len(bad), total, shown)


def _by_reason(bad: Mapping[str, str]) -> dict[str, list[str]]:
    """The cases of each reason; in a reason shared by several cases, a star replaces the case_id."""
    alike: dict[str, list[str]] = defaultdict(list)
    for case_id, reason in sorted(bad.items()):
        # Only in a path or in quotes: a case_id such as 1 may also occur as a label value.
        alike[re.sub(rf"(?<=[/']){re.escape(case_id)}(?=[._/'])", "*", reason)].append(case_id)
    return {(reason if len(ids) > 1 else bad[ids[0]]): ids for reason, ids in alike.items()}
