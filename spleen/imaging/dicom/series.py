"""The series of a folder: which volumes they hold, and the one that is chosen.

A volume is chosen as SERIES, its number or UID, or as SERIES:N where one series holds several.
"""

import hashlib
import logging
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from spleen.errors import InputError
from spleen.imaging.dicom.frame import Frame, NoSliceError, read_frames
from spleen.imaging.dicom.location import DICOMDIR, dicom_files, split_selector
from spleen.imaging.dicom.stack import Stack, check_alike, orientations, share_a_place, stack
from spleen.system.text import bullets

log = logging.getLogger(__name__)

_VOLUME_MARK = ":"
_CLOCK = "acquisition time"


@dataclass(frozen=True)
class Series:
    """One volume of one series, its frames in the order of the stack."""

    uid: str
    number: str
    description: str
    modality: str
    stack: Stack

    @property
    def frames(self) -> tuple[Frame, ...]:
        """The frames in the order of the array's third axis."""
        return self.stack.frames

    @property
    def shape(self) -> tuple[int, int, int]:
        """Columns, rows and frames."""
        pixels = self.frames[0].instance.pixels
        return pixels.columns, pixels.rows, len(self.frames)


class NotChosenError(InputError):
    """A folder holds several volumes, and none of them or an unknown one is chosen."""

    def __init__(self, what: str, volumes: "Sequence[Candidate]") -> None:
        super().__init__(f"{what}:{listing(volumes)}")
        self.without_descriptions = f"{what}:{listing(volumes, described=False)}"
        """The message without what may identify the patient."""


@dataclass(frozen=True)
class Candidate:
    """A volume that can be chosen, whether or not it can be read."""

    selector: str
    frames: tuple[Frame, ...]
    told_apart_by: str
    """What tells it from the other volumes of its series; empty if there is one."""


def read_series(path: Path) -> Series:
    """The volume that `path` stands for: FOLDER, FOLDER#SERIES, DICOMDIR or a multi-frame file.

    Raises InputError if it holds several and none is chosen, with a list of them, and for slices that are no volume.
    """
    place, selector = split_selector(path)
    volumes = candidates(place)
    if place.is_file() and place.name.upper() != DICOMDIR and volumes[0].frames[0].instance.n_frames == 1:
        raise InputError(f"{place} is one slice of a DICOM series; give the folder of the series, {place.parent}")
    return assemble(choose(place, volumes, selector), place)


def candidates(place: Path) -> list[Candidate]:
    """All volumes of a folder, by series; a series without a slice, such as of screenshots, is passed over.

    Raises InputError for damaged files, for a series of which only some images are slices, and where there is none.
    """
    frames: list[Frame] = []
    others: Counter[str] = Counter()
    no_slices: list[NoSliceError] = []
    for file in dicom_files(place):
        try:
            found = read_frames(file)
        except NoSliceError as error:
            no_slices.append(error)
            continue
        if isinstance(found, str):
            others[found] += 1
        else:
            frames += found
    sliced = {frame.instance.series_uid for frame in frames}
    for refused in no_slices:
        if not frames or not refused.series_uid or refused.series_uid in sliced:
            raise refused
    if no_slices:
        log.warning("%s: %d image(s) of other series are no slices and are passed over", place, len(no_slices))
    if not frames:
        listed = ", ".join(f"{count} {name}" for name, count in others.items())
        raise InputError(f"{place} contains no DICOM image, only {listed}")
    by_series: dict[str, list[Frame]] = defaultdict(list)
    for frame in _without_copies(frames):
        by_series[frame.instance.series_uid].append(frame)
    names = Counter(each[0].instance.series_number for each in by_series.values())
    volumes: list[Candidate] = []
    for uid, of_series in by_series.items():
        number = of_series[0].instance.series_number
        name = number if number and names[number] == 1 else uid
        volumes += _volumes(name, of_series)
    return volumes


def choose(place: Path, volumes: Sequence[Candidate], selector: str | None) -> Candidate:
    """The volume with this selector (number, UID, or either with :N), or the only one."""
    exact = [each for each in volumes if each.selector == selector]
    wanted = exact or [each for each in volumes if selector is None or selector in _names(each)]
    if len(wanted) == 1:
        return wanted[0]
    if not wanted:
        raise NotChosenError(f"{place} has no series {selector}; it has", volumes)
    what = "several series" if len({each.frames[0].instance.series_uid for each in wanted}) > 1 else "several volumes"
    raise NotChosenError(
        f"{place} holds {what}; choose one with --series, or write it as '{place}#{wanted[0].selector}'", wanted
    )


def listing(volumes: Sequence[Candidate], described: bool = True) -> str:
    """A line for each volume: selector, modality, description, slices and spacing, or why it cannot be read.

    Descriptions and times, which may identify the patient, come only with `described`.
    """
    return bullets([_line(each, described) for each in volumes], 50)


def assemble(volume: Candidate, place: Path) -> Series:
    """Stack the frames of a volume. Raises InputError, beginning with the place, where they are none."""
    first = volume.frames[0].instance
    try:
        check_alike(volume.frames)
        stacked = stack(volume.frames)
    except InputError as error:
        raise InputError(f"{place}, series {volume.selector}: {error}") from error
    return Series(first.series_uid, first.series_number, first.series_description, first.modality, stacked)


def _names(volume: Candidate) -> set[str]:
    """How a volume may be called: by number or UID, of its series alone where that has several volumes."""
    first = volume.frames[0].instance
    tail = volume.selector.partition(_VOLUME_MARK)
    names = {first.series_uid, *([first.series_number] if first.series_number else [])}
    return {volume.selector, *names, *({f"{name}{_VOLUME_MARK}{tail[2]}" for name in names} if tail[1] else ())}


def _line(volume: Candidate, described: bool) -> str:
    first = volume.frames[0].instance
    told_apart = volume.told_apart_by if described or _CLOCK not in volume.told_apart_by else ""
    name = " ".join(filter(None, (first.modality, first.series_description * described, told_apart)))
    try:
        check_alike(volume.frames)
        stacked = stack(volume.frames)
    except InputError as error:
        return f"{volume.selector}: {name}, {len(volume.frames)} images, no volume: {error}"
    rows, columns = volume.frames[0].pixel_spacing_mm
    pixels = first.pixels
    return (
        f"{volume.selector}: {name}, {len(volume.frames)} slices of {pixels.columns} × {pixels.rows} pixels, "
        f"{columns:.3g} × {rows:.3g} × {stacked.spacing_mm:.3g} mm"
    )


def _without_copies(frames: Iterable[Frame]) -> list[Frame]:
    """Frames of which each instance comes once. Raises InputError for two files of one UID that differ."""
    of_uid: dict[str, Path] = {}
    kept = []
    for frame in frames:
        path = frame.instance.path
        first = of_uid.setdefault(frame.instance.sop_instance_uid, path)
        if first == path:
            kept.append(frame)
        elif _digest(first) != _digest(path):
            raise InputError(f"{first} and {path} have the same SOP Instance UID and differ; keep the right one")
    return kept


def _digest(path: Path) -> bytes:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").digest()


def _volumes(name: str, frames: list[Frame]) -> list[Candidate]:
    """The volumes of one series: its localiser apart, and one for each phase where slices share their places."""
    if len(orientations(frames)) > 1 and any(not frame.is_localiser for frame in frames):
        images = [frame for frame in frames if not frame.is_localiser]
        localisers = [frame for frame in frames if frame.is_localiser]
        if localisers:
            return [
                *_volumes(name, images),
                Candidate(f"{name}{_VOLUME_MARK}localiser", tuple(localisers), "localiser"),
            ]
    groups = _told_apart(frames)
    if len(groups) == 1:
        return [Candidate(name, tuple(frames), "")]
    return [
        Candidate(f"{name}{_VOLUME_MARK}{number}", tuple(group), label)
        for number, (label, group) in enumerate(groups.items(), start=1)
    ]


def _told_apart(frames: list[Frame]) -> Mapping[str, list[Frame]]:
    """The frames of each volume, by what tells it apart.

    That is the first element, or else all of them, that leaves no two slices of a volume at one place. If nothing does,
    the frames stay together, and `stack` refuses them.
    """
    if len(orientations(frames)) > 1 or not share_a_place(frames):
        return {"": frames}
    names = list(dict.fromkeys(name for frame in frames for name, _ in frame.volume_tags))
    for tried in (*([name] for name in names), names):
        groups: dict[str, list[Frame]] = defaultdict(list)
        for frame in frames:
            groups[", ".join(f"{name} {value}" for name, value in frame.volume_tags if name in tried)].append(frame)
        if len(groups) > 1 and not any(share_a_place(group) for group in groups.values()):
            return dict(sorted(groups.items(), key=lambda group: _first_number(group[1])))
    return {"": frames}  # told when it is chosen


def _first_number(frames: Sequence[Frame]) -> int:
    return min((frame.instance_number for frame in frames if frame.instance_number is not None), default=0)
