"""Pairs of files from two folders, such as images and labels, by file name."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from unicodedata import normalize

from spleen.errors import InputError
from spleen.imaging.files import FIRST_CHANNEL, ImageFiles, case_name, group_channels, volumes_by_name
from spleen.system.text import bullets


@dataclass(frozen=True)
class MatchedFiles:
    """The files of two folders, matched by case name."""

    paired: dict[str, tuple[Path, Path]]
    unmatched_first: tuple[Path, ...]
    unmatched_second: tuple[Path, ...]

    def check_complete(self, remedy: str = "add it, or move them away") -> None:
        """Raise InputError with the list of unpaired files and the `remedy`."""
        unpaired = [f"only in {path.parent}: {path.name}" for path in (*self.unmatched_first, *self.unmatched_second)]
        if unpaired:
            shown = bullets(unpaired, 20)
            raise InputError(f"{len(unpaired)} file(s) have no counterpart with the same name; {remedy}:{shown}")


def pair_by_name(first: Path, second: Path) -> dict[str, tuple[Path, Path]]:
    """Pairs (file of `first`, file of `second`) by case name, matched by `match_by_name`.

    Raises InputError with the list of unpaired files.
    """
    matched = match_by_name(first, second)
    matched.check_complete()
    return matched.paired


def match_by_name(first: Path, second: Path) -> MatchedFiles:
    """Match two files, or the files of two folders by case name.

    CASE_0000.nii.gz, nnU-Net's name of an image, pairs with CASE.nii.gz. Raises InputError for a path that does not
    exist, for one file and one folder, and for a folder without volumes.
    """
    for path in (first, second):
        if not path.exists():
            raise InputError(f"{path}: no such file or folder (relative to {Path.cwd()})")
    if first.is_dir() != second.is_dir():
        raise InputError(f"expected two files or two folders; {first} and {second} are one of each")
    if not first.is_dir():
        return MatchedFiles({case_name(first): (first, second)}, (), ())
    return _match(volumes_by_name(first), volumes_by_name(second))


def pair_images(images: Path, labels: Path, n_channels: int) -> dict[str, tuple[ImageFiles, Path]]:
    """Pairs (image, label) by case name, for two files or two folders; images are grouped by `group_channels`.

    Raises InputError as `pair_by_name` does, and for two images with the same name.
    """
    if n_channels == 1 or not (images.is_dir() and labels.is_dir()):
        pairs = pair_by_name(images, labels)
        return {name: (ImageFiles(name, (image,)), label) for name, (image, label) in pairs.items()}
    found = group_channels(list(volumes_by_name(images).values()), n_channels)
    by_file = {image.paths[0]: image for image in found}
    by_name = {image.case_id: image.paths[0] for image in found}
    if len(by_name) < len(found):
        twice = next(image for image in found if by_name[image.case_id] != image.paths[0])
        raise InputError(
            f"{images} contains case '{twice.case_id}' twice: {twice.paths[0].name} and {by_name[twice.case_id].name}"
        )
    matched = _match(by_name, volumes_by_name(labels))
    matched.check_complete()
    return {name: (by_file[image], label) for name, (image, label) in matched.paired.items()}


def pair_to_predict(images: Path, labels: Path, n_channels: int) -> dict[str, tuple[ImageFiles, Path]]:
    """The pairs of `pair_images` by the names that `spleen predict` gives the images, which may keep their _0000."""
    paired = pair_images(images, labels, n_channels).values()
    label_of = {image.paths[0]: label for image, label in paired}
    named = group_channels([path for image, _ in paired for path in image.paths], n_channels)
    return {image.case_id: (image, label_of[image.paths[0]]) for image in named}


def _match(left: Mapping[str, Path], right: Mapping[str, Path]) -> MatchedFiles:
    """Match by name, whatever the Unicode form of its characters: macOS and Linux write an é differently."""
    composed = {normalize("NFC", name): name for name in left}
    right = {composed.get(normalize("NFC", name), name): path for name, path in right.items()}
    left, right = _without_channel(left, right), _without_channel(right, left)
    return MatchedFiles(
        {name: (path, right[name]) for name, path in left.items() if name in right},
        tuple(path for name, path in left.items() if name not in right),
        tuple(path for name, path in right.items() if name not in left),
    )


def _without_channel(files: Mapping[str, Path], partners: Mapping[str, Path]) -> dict[str, Path]:
    """Drop _0000 from names whose counterpart has the shorter name, unless another file has it."""
    short = {name: name.removesuffix(FIRST_CHANNEL) for name in files}
    dropped = {name for name in files if name not in partners and short[name] in partners and short[name] not in files}
    return {short[name] if name in dropped else name: files[name] for name in files}
