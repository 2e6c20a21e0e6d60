"""Reads damaged DICOM files one after the other under limits of time and memory.

    python -m tests._helpers.dicom_damage FOLDER

prints one line of JSON for each mutant: its name, and how it ended.
"""

import json
import logging
import resource
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType

from pydicom import Dataset

from spleen.errors import InputError
from spleen.exploration.explore import explore
from spleen.imaging.native import read_native
from tests._helpers.dicom_damage.compressed import damaged_frames, deflated_files
from tests._helpers.dicom_damage.files import Folder, Mutant, sound_series, with_change
from tests._helpers.dicom_damage.folders import damaged_directories, other_files
from tests._helpers.dicom_damage.structure import damaged_bytes, damaged_elements, nested_sequences
from tests._helpers.dicom_damage.values import wrong_multi_frame, wrong_values

SECONDS_PER_FILE = 60  # read twice, and 20 seconds for a frame that a decoder does not come to an end with
BYTES_ABOVE_START = 512 * 2**20


def mutants(folder: Path) -> Iterator[Mutant]:
    """All of them, always the same."""
    files = sound_series(folder)
    first, middle, last = files
    content = files[middle]

    def in_series(changed: bytes) -> Folder:
        return {first: files[first], middle: changed, last: files[last]}

    def each_file(change: Callable[[Dataset], None]) -> Folder:
        return {name: with_change(each, change) for name, each in files.items()}

    yield "sound", files
    for name, changed in (*damaged_bytes(content), *damaged_elements(content)):
        yield name, in_series(changed)
    yield from wrong_values(files, each_file)
    yield from wrong_multi_frame(files)
    yield from damaged_frames(files)
    yield from nested_sequences(content, in_series)
    yield from damaged_directories(files)
    yield from deflated_files(files)
    yield from other_files()


class _TooLongError(BaseException):
    pass


def _too_long(_signal: int, _frame: FrameType | None) -> None:
    raise _TooLongError


def _write(folder: Path, content: Folder) -> Path:
    folder.mkdir()
    for name, each in content.items():
        (folder / name).write_bytes(each)
    return folder


def outcome(folder: Path) -> str:
    """How exploring a folder and reading it for prediction end: read, refused, or what else came."""
    signal.setitimer(signal.ITIMER_REAL, SECONDS_PER_FILE)
    try:
        str(explore(folder, identifying=True))
        read_native(folder)
    except InputError:
        return "refused"
    except _TooLongError:
        return f"longer than {SECONDS_PER_FILE} s"
    except BaseException as error:
        return f"{type(error).__name__}: {error}"[:300]
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
    return "read"


def _peak_bytes() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def main() -> None:
    """Read each mutant, and tell how that ended."""
    parent = Path(sys.argv[1])
    signal.signal(signal.SIGALRM, _too_long)
    logging.disable()
    read_native(_write(parent / "first", sound_series(parent / "sound")))
    start = _peak_bytes()
    for number, (name, content) in enumerate(mutants(parent / "sound")):
        print(json.dumps({"trying": name}), flush=True)
        before, began = _peak_bytes(), time.monotonic()
        ended = outcome(_write(parent / str(number), content))
        if _peak_bytes() - before > BYTES_ABOVE_START:
            ended = f"needed {(_peak_bytes() - start) / 2**20:.0f} MiB"
        seconds = round(time.monotonic() - began, 2)
        print(json.dumps({"name": name, "ended": ended, "seconds": seconds}), flush=True)
    print(json.dumps({"peak_mib": round((_peak_bytes() - start) / 2**20)}))


if __name__ == "__main__":
    main()
