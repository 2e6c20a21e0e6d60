"""Two folders, one of images and one of labels, paired by file name."""

from collections.abc import Mapping
from pathlib import Path

from spleen.data.cases import Case
from spleen.data.layouts.dataset import Dataset, make_dataset
from spleen.errors import InputError
from spleen.imaging.files import split_channel, volumes_by_name
from spleen.system.text import bullets


def pair_folders(images: Path, labels: Path) -> Dataset:
    """Pair images with labels of the same name, ignoring the suffix (.nii or .nii.gz).

    The images CASE_0000, CASE_0001, … are the channels of the label CASE, unless a label has that full name.
    Raises InputError for a folder that is missing or contains no NIfTI file, unpaired files, and missing channels.
    """
    for folder in (images, labels):
        if not folder.is_dir():
            raise InputError(f"{folder}: no such folder (relative to {Path.cwd()})")
    if images.resolve() == labels.resolve():
        raise InputError(f"images and labels are the same folder, {images}; they must be two different folders")
    label_files = volumes_by_name(labels.absolute())
    channels, unpaired = _channels_by_case(volumes_by_name(images.absolute()), label_files)
    problems = [f"{images.name}/{name} has no label" for name in unpaired]
    problems += [
        f"{labels.name}/{path.name} has no image" for name, path in label_files.items() if name not in channels
    ]
    if problems:
        raise InputError(
            f"{len(problems)} file(s) in {images} and {labels} have no counterpart with the same name; add it, or "
            "move them away:" + bullets(problems)
        )
    _check_channels(images, channels)
    return make_dataset(
        images,
        (
            Case(case_id=case, images=tuple(files[number] for number in sorted(files)), label=label_files[case])
            for case, files in channels.items()
        ),
    )


def _channels_by_case(
    images: Mapping[str, Path], labels: Mapping[str, Path]
) -> tuple[dict[str, dict[int, Path]], list[str]]:
    """The images of each label by channel number, and the file names of the images without a label."""
    channels: dict[str, dict[int, Path]] = {}
    unpaired = []
    for name, path in images.items():
        case, number = (name, 0) if name in labels else split_channel(name) or (name, 0)
        if case not in labels:
            unpaired.append(path.name)
            continue
        files = channels.setdefault(case, {})
        if number in files:
            raise InputError(
                f"{path.parent}: {files[number].name} and {path.name} are both channel {number} of case '{case}'"
            )
        files[number] = path
    return channels, unpaired


def _check_channels(images: Path, channels: Mapping[str, Mapping[int, Path]]) -> None:
    count = max(len(files) for files in channels.values())
    missing = [
        f"no {case}_{number:04d}" for case in channels for number in range(count) if number not in channels[case]
    ]
    if missing:
        raise InputError(
            f"{images}: every case needs the same channels, numbered from _0000; {len(missing)} are missing:"
            + bullets(missing)
        )
