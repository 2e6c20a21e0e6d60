"""Finding NIfTI files, and grouping them into multi-channel images."""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from glob import glob  # Path.glob takes no absolute pattern
from pathlib import Path
from unicodedata import normalize

from spleen.errors import InputError
from spleen.imaging.dicom.location import (
    DICOMDIR,
    SERIES_MARK,
    holds_dicom,
    is_dicom_file,
    is_series,
    split_selector,
    with_selector,
)

SUFFIXES = (".nii.gz", ".nii")
# A NIfTI file pair, referred to by either file.
_PAIR_SUFFIXES = (".hdr", ".img")
_DICOM_SUFFIX = ".dcm"
# nnU-Net's suffix of the first channel of an image.
FIRST_CHANNEL = "_0000"
_CHANNEL = re.compile(r"(.+)_(\d{4})", re.ASCII)
PROBABILITIES_SUFFIX = "_probabilities"
"""Suffix of probability maps, which are stored next to their mask."""


@dataclass(frozen=True)
class ImageFiles:
    """The files of one image: one per channel, in order, or a single file with all channels."""

    case_id: str
    paths: tuple[Path, ...]

    def check_channels(self, n_channels: int) -> None:
        """Raise InputError unless there is a single file, or one for each channel.

        Files that are called CASE_0000, … of the case must be those from 0 to n_channels - 1; others are those of a
        list, in its order.
        """
        if len(self.paths) == 1:
            return  # its channels are checked when it is read
        names = [case_name(path) for path in self.paths]
        if any((split_channel(name) or ("",))[0] != self.case_id for name in names):
            if len(names) != n_channels:
                raise InputError(
                    f"the image '{self.case_id}' has {len(names)} files ({', '.join(names)}), but the run was trained "
                    f"on {n_channels} channel(s); one file for each is required"
                )
            return
        found = [name.removeprefix(f"{self.case_id}_") for name in names]
        if found != [f"{number:04d}" for number in range(n_channels)]:
            raise InputError(
                f"{self.paths[0]}: the image '{self.case_id}' has the channels {', '.join(found)}, but the run was "
                f"trained on {n_channels}: {self.case_id}_0000 to {self.case_id}_{n_channels - 1:04d} are required"
            )


def case_name(path: Path) -> str:
    """The file's name without .nii, .nii.gz, .hdr, .img or .dcm; of a DICOM series that of its folder."""
    if path.name.upper() == DICOMDIR:
        return path.absolute().parent.name
    if path.name in ("", ".."):  # the current folder, or the one above
        path = path.resolve()
    known = (*SUFFIXES, *_PAIR_SUFFIXES, _DICOM_SUFFIX)
    suffix = next((suffix for suffix in known if path.name.lower().endswith(suffix)), "")
    name = path.name[: len(path.name) - len(suffix)]
    return name if suffix else name.replace(SERIES_MARK, "_").replace(":", "_")


def is_there(path: Path) -> bool:
    """Whether a path is a file, or stands for a DICOM series."""
    return path.is_file() or is_series(path)


def is_volume(path: Path) -> bool:
    """Whether a path is called NIfTI or stands for a DICOM series."""
    return is_volume_name(path.name) or is_series(path)


def is_volume_name(name: str) -> bool:
    """Whether a file is called NAME.nii or NAME.nii.gz, in upper or lower case."""
    return name.lower().endswith(SUFFIXES)


def split_channel(name: str) -> tuple[str, int] | None:
    """The case and channel number of a name in nnU-Net's form CASE_0000; None for other names."""
    match = _CHANNEL.fullmatch(name)
    return (match[1], int(match[2])) if match else None


def group_channels(files: Sequence[Path], n_channels: int) -> list[ImageFiles]:
    """Group NIfTI files into images for a network with `n_channels` input channels.

    With one channel, each file is an image. CASE_0000 is called CASE, unless its folder also contains CASE or
    CASE_0001, CASE_0002, …, which are then separate cases.
    With several channels, CASE_0000, CASE_0001, … form one image CASE, unless each contains several channels; any other
    file is an image of its own. Missing channels are not checked here.
    """
    if n_channels == 1:
        return _one_each(files)
    numbered: dict[tuple[Path, str], list[Path]] = {}
    for path in files:
        if channel := split_channel(case_name(path)):
            numbered.setdefault((path.parent, channel[0]), []).append(path)
    of_first = {
        group[0]: ImageFiles(case, tuple(sorted(group)))
        for (_, case), group in numbered.items()
        if not _is_multichannel(group[0])
    }
    grouped = {path for image in of_first.values() for path in image.paths}
    alone = {image.paths[0]: image for image in _one_each([path for path in files if path not in grouped])}
    images = {**of_first, **alone}
    return [images[path] for path in files if path in images]


def _one_each(files: Sequence[Path]) -> list[ImageFiles]:
    """Each file as an image of its own; CASE_0000 is called CASE if that name is free."""
    channels = [split_channel(case_name(path)) for path in files]
    cases = [
        (path.parent, channel[0] if channel else case_name(path)) for path, channel in zip(files, channels, strict=True)
    ]
    count = Counter(cases)
    return [
        ImageFiles(case[1] if channel and channel[1] == 0 and count[case] == 1 else case_name(path), (path,))
        for path, channel, case in zip(files, channels, cases, strict=True)
    ]


def _is_multichannel(path: Path) -> bool:
    """Whether the file has several channels in its fourth dimension; False if it cannot be read."""
    import nibabel as nib  # deferred to keep the start-up fast

    try:
        shape: tuple[int, ...] = nib.load(path).shape  # type: ignore[attr-defined]
    except Exception:  # reading the voxels later reports the problem in more detail
        return False
    return any(size != 1 for size in shape[3:])


def find_volumes(inputs: Sequence[Path]) -> list[Path]:
    """The volumes given by `inputs`: files, folders (their direct content, sorted), and glob patterns.

    A folder of DICOM files is one volume; a folder of such folders stands for each of them. Hidden files are skipped
    and duplicates removed. Raises InputError for an input without any match.
    """
    found: dict[Path, None] = {}
    for entry in inputs:
        found.update(dict.fromkeys(_named(entry)))
    return list(found)


def with_series(inputs: Sequence[Path], selector: str | None) -> list[Path]:
    """The volumes given by `inputs`, one series chosen in each DICOM folder; `inputs` themselves without a selector.

    Raises InputError for an input that has no series to choose.
    """
    if selector is None:
        return list(inputs)
    found = find_volumes(inputs)
    others = [path for path in found if not is_series(path) or split_selector(path)[1] is not None]
    if others:
        raise InputError(f"--series chooses in a DICOM folder or DICOMDIR; {others[0]} leaves nothing to choose")
    return [with_selector(path if path.name else path.absolute(), selector) for path in found]


def _named(entry: Path) -> list[Path]:
    if entry.is_dir():
        return [entry] if _is_series_folder(entry) else list(volumes_by_name(entry).values())
    if entry.exists() or split_selector(entry)[0].exists():
        return [entry]
    if any(character in str(entry) for character in "*?["):
        paths = sorted(glob(str(entry), recursive=True))  # noqa: PTH207
        found = [Path(path) for path in paths]
        matches = [path for path in found if (is_series(path) if path.is_dir() else is_volume_name(path.name))]
        if matches:
            return matches
        raise InputError(
            f"{entry}: no .nii or .nii.gz file and no DICOM folder matches this pattern (relative to {Path.cwd()})"
        )
    raise InputError(f"{entry}: no such file or folder (relative to {Path.cwd()})")


def _is_series_folder(folder: Path) -> bool:
    """Whether DICOM files lie in the folder itself, and no NIfTI files."""
    files = [path for path in sorted(folder.iterdir()) if path.is_file() and not path.name.startswith(".")]
    return not any(is_volume_name(path.name) for path in files) and any(map(is_dicom_file, files))


def volumes_by_name(folder: Path) -> dict[str, Path]:
    """The volumes of a folder by case name, sorted; probability maps next to their mask are skipped.

    They are its NIfTI files; without any, the folders in it that hold DICOM. Raises InputError if there are neither,
    and for two files with the same case name.
    """
    files: dict[str, Path] = {}
    alike: dict[str, Path] = {}
    entries = [path for path in sorted(folder.iterdir()) if not path.name.startswith(".")]
    volumes = [path for path in entries if is_volume_name(path.name) and not path.is_dir()]
    for path in volumes or [path for path in entries if path.is_dir() and holds_dicom(path)]:
        name = case_name(path)
        if name in files:
            raise InputError(f"{folder} contains both {files[name].name} and {path.name}; keep one for case '{name}'")
        other = alike.setdefault(normalize("NFC", name), path)
        if other is not path:
            raise InputError(f"{folder}: {told_apart(other.name, path.name)}")
        files[name] = path
    if not files:
        dicom = "; it is a DICOM series itself" if holds_dicom(folder) else ""
        raise InputError(f"{folder} contains no .nii or .nii.gz file and no folder of DICOM files{dicom}")
    maps = {f"{name}{PROBABILITIES_SUFFIX}" for name in files}
    return {name: path for name, path in files.items() if name not in maps}


def told_apart(first: str, second: str) -> str:
    """How two names differ that look the same, such as é in one character or as e with an accent."""
    return (
        f"two files have the same name but for the form of its Unicode characters (NFC and NFD): {first!a} and "
        f"{second!a}; rename one of them"
    )
