"""NIfTI files in folders and patterns, and two folders paired by their files' names."""

from collections.abc import Mapping, Sequence
from glob import glob  # Path.glob takes no absolute pattern
from pathlib import Path

from spleen.errors import InputError

SUFFIXES = (".nii.gz", ".nii")
# A NIfTI in two files, named by either of them.
_PAIR_SUFFIXES = (".hdr", ".img")
# Where a dataset numbers the channels of an image, as nnU-Net does, its first channel carries the case's name.
_FIRST_CHANNEL = "_0000"
PROBABILITIES_SUFFIX = "_probabilities"
"""What the name of a map of probabilities ends with, beside the mask that was made of it."""


def case_name(path: Path) -> str:
    """The file's name without .nii, .nii.gz, .hdr or .img."""
    suffix = next((suffix for suffix in (*SUFFIXES, *_PAIR_SUFFIXES) if path.name.endswith(suffix)), "")
    return path.name.removesuffix(suffix)


def find_volumes(inputs: Sequence[Path]) -> list[Path]:
    """The NIfTI files that `inputs` name: files, folders (their direct content, sorted), and glob patterns.

    Hidden files are left out, and a file named twice comes once. Raises InputError for an input that names nothing.
    """
    found: dict[Path, None] = {}
    for entry in inputs:
        found.update(dict.fromkeys(_named(entry)))
    return list(found)


def _named(entry: Path) -> list[Path]:
    if entry.is_dir():
        return list(volumes_by_name(entry).values())
    if entry.exists():
        return [entry]
    if any(character in str(entry) for character in "*?["):
        paths = sorted(glob(str(entry), recursive=True))  # noqa: PTH207
        matches = [Path(path) for path in paths if path.endswith(SUFFIXES)]
        if matches:
            return matches
        raise InputError(f"{entry}: no .nii or .nii.gz file matches this pattern (looked from {Path.cwd()})")
    raise InputError(f"{entry}: no such file or folder (looked from {Path.cwd()})")


def volumes_by_name(folder: Path) -> dict[str, Path]:
    """The NIfTI files of a folder by case name, sorted; maps of probabilities that lie beside their mask are left out.

    Raises InputError for a folder without one, and for a name that stands for two files.
    """
    files: dict[str, Path] = {}
    for path in sorted(folder.iterdir()):
        if path.name.startswith(".") or not path.name.endswith(SUFFIXES) or path.is_dir():
            continue
        name = case_name(path)
        if name in files:
            raise InputError(f"{folder} holds both {files[name].name} and {path.name}; which one is case '{name}'?")
        files[name] = path
    if not files:
        raise InputError(f"{folder} holds no .nii or .nii.gz file")
    maps = {f"{name}{PROBABILITIES_SUFFIX}" for name in files}
    return {name: path for name, path in files.items() if name not in maps}


def pair_by_name(first: Path, second: Path) -> dict[str, tuple[Path, Path]]:
    """Pairs (file of `first`, file of `second`) by case name, for two files or two folders.

    CASE_0000.nii.gz, as nnU-Net names images, pairs with CASE.nii.gz. Raises InputError that lists the files without a
    partner.
    """
    for path in (first, second):
        if not path.exists():
            raise InputError(f"{path}: no such file or folder (looked from {Path.cwd()})")
    if first.is_dir() != second.is_dir():
        raise InputError(f"give two files or two folders; {first} and {second} are one of each")
    if not first.is_dir():
        return {case_name(first): (first, second)}
    left, right = volumes_by_name(first), volumes_by_name(second)
    left, right = _without_channel(left, right), _without_channel(right, left)
    lonely = [f"  only in {first}: {left[name].name}" for name in left if name not in right]
    lonely += [f"  only in {second}: {right[name].name}" for name in right if name not in left]
    if lonely:
        shown = lonely[:20] + [f"  … and {len(lonely) - 20} more"] * (len(lonely) > 20)
        raise InputError(
            f"{len(lonely)} file(s) have no partner of the same name; add it, or move them away:\n" + "\n".join(shown)
        )
    return {name: (path, right[name]) for name, path in left.items()}


def _without_channel(files: Mapping[str, Path], partners: Mapping[str, Path]) -> dict[str, Path]:
    """Drop _0000 from the names whose partner is called so."""
    short = {name: name.removesuffix(_FIRST_CHANNEL) for name in files}
    return {short[name] if name not in partners and short[name] in partners else name: files[name] for name in files}
