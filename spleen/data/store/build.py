"""Opening many cases: missing slice-store entries are built in parallel, and unusable cases are reported by name."""

import logging
import re
import sys
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path

import torch

from spleen.data.cases import Case
from spleen.data.store.entry import StoredCase
from spleen.data.store.store import entries_folder, nothing_to_restore, open_case
from spleen.errors import InputError
from spleen.imaging.geometry import SHEARED_DEGREES, shear_note
from spleen.imaging.preprocessing import Preprocessing
from spleen.system.files import remove_stale
from spleen.system.memory import MemoryBudget, free_memory_bytes
from spleen.system.progress import ProgressBar, announced
from spleen.system.repeated_warnings import folded_warnings
from spleen.system.text import bullets, first_problem, shortened

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


@dataclass(frozen=True)
class ExpectedValues:
    """The label values that may occur besides those of the classes."""

    known: frozenset[int] | None = None
    """All values that the dataset defines; None if no file defines them."""
    background: tuple[int, ...] = ()
    """Values that are background on purpose."""


def open_cases(
    cases: Sequence[Case],
    preprocessing: Preprocessing,
    cache: Path,
    skip_bad: bool,
    allow_empty_label: bool = False,
    verify: bool = False,
    values: ExpectedValues | None = None,
    restore: Callable[[], None] = nothing_to_restore,
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
            pool.submit(open_case, case, preprocessing, cache, room, allow_empty_label, verify, restore): case
            for case in cases
        }
        with _shown(len(cases)), folded_warnings("spleen.imaging.nifti"), ProgressBar("case") as bar:
            for done in as_completed(waiting):
                # Popped here: a failed future keeps its traceback, and with it whole volumes, alive.
                _collect(done, waiting.pop(done).case_id, opened, bad)
                bar.advance("slice store", 1, len(cases))
    finally:
        room.close()
        pool.shutdown(cancel_futures=True)
        torch.set_num_threads(cores)  # new threads inherit the last value that any thread has set
    bad |= _unexpected_values(opened, values or ExpectedValues())
    if bad:
        _report_bad(bad, len(cases), skip_bad)
    _warn_of_images(cases, opened)
    return LoadedCases(tuple(opened[case.case_id] for case in cases if case.case_id not in bad), bad)


def _shown(n_cases: int) -> AbstractContextManager[None]:
    """Says what is done where there is no terminal to show the progress bar."""
    if sys.stderr is not None and sys.stderr.isatty():
        return nullcontext()
    return announced(f"preparing the slices of {n_cases} case{'s' if n_cases > 1 else ''}")


def _unexpected_values(opened: Mapping[str, StoredCase], values: ExpectedValues) -> dict[str, str]:
    """Why labels cannot be right, by case_id: a typing error such as 255 for 1 would train as background.

    If no file defines the values, those of cases that contain a class are taken to be known.
    """
    known = values.known
    if known is None:
        with_organ = [case for case in opened.values() if any(case.volumes_mm3)]
        if not with_organ:  # the values asked for are wrong, not the labels
            return {}
        known = frozenset(value for case in with_organ for value in case.other_values)
    reasons = {}
    for case_id, case in opened.items():
        if others := sorted(set(case.other_values) - known - set(values.background)):
            wanted = shortened((value for of_class in case.label_values for value in of_class), 12)
            allowed = (
                f"dataset.json defines {shortened(sorted(values.known), 12)}"
                if values.known
                else (f"the classes have {wanted}, and no label with one of these has them")
            )
            reasons[case_id] = (
                f"its label contains {shortened(others, 12)}, but {allowed}; correct the label, or name values that "
                f"are background on purpose: data.background_values=[{','.join(map(str, others[:12]))}]"
            )
    return reasons


def _collect(done: Future[StoredCase], case_id: str, opened: dict[str, StoredCase], bad: dict[str, str]) -> None:
    error = done.exception()  # raising it here would create a reference cycle through this frame
    if isinstance(error, InputError):
        bad[case_id] = str(error)
    else:
        opened[case_id] = done.result()


def _warn_of_images(cases: Sequence[Case], opened: Mapping[str, StoredCase]) -> None:
    """Warn of implausible intensities and sheared grids, each kind in one line."""
    stored = {str(case.images[0]): opened[case.case_id] for case in cases if case.case_id in opened}
    if implausible := {image: case.implausible_units for image, case in stored.items() if case.implausible_units}:
        log.warning("%s; is this CT? For MR use intensity=mr", first_problem(implausible, len(stored)))
    degrees = {image: case.shear_degrees for image, case in stored.items()}
    if sheared := {image: shear_note(shear) for image, shear in degrees.items() if shear > SHEARED_DEGREES}:
        log.warning("%s", first_problem(sheared, len(stored)))


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
