"""From files, folders and patterns to the cases to explore."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from spleen.data.cases import case_from_files
from spleen.data.layouts.registry import classes_beside
from spleen.data.pairing import pair_by_name
from spleen.errors import InputError
from spleen.evaluation.ignored import value_to_ignore
from spleen.imaging.files import FIRST_CHANNEL, case_name, find_volumes
from spleen.system.text import bullets

# nnU-Net's mark of an image's first channel; a label does not carry it.
_SHOWN = 20


@dataclass(frozen=True)
class CaseFiles:
    """One image to explore, with its label if there is one."""

    case_id: str
    image: Path
    label: Path | None
    class_names: Mapping[int, str] = field(default_factory=dict)
    """Of label values, as the dataset.json beside the labels' folder tells them."""
    ignore_value: int | None = None
    """The label value of voxels that nobody has labelled; None for none."""


def find_cases(images: Sequence[Path], labels: Sequence[Path]) -> list[CaseFiles]:
    """The cases that files, folders and glob patterns name, in the order of the images.

    One image with one label is a pair whatever they are called. Several pair by file name (nnU-Net's _0000 aside), or,
    where all are called image.nii.gz and label.nii.gz, by the name of their folder. Raises InputError for a path that
    names nothing and for files without a partner.
    """
    if not images:
        raise InputError("nothing to explore; give images as files, folders or patterns such as 'images/*.nii.gz'")
    cases = _paired(images, labels)
    folders = {case.label.parent for case in cases if case.label is not None}
    names = {folder: classes_beside(folder) or {} for folder in folders}
    return [replace(case, class_names=names[case.label.parent]) if case.label is not None else case for case in cases]


def with_ignore_values(cases: Sequence[CaseFiles], given: int | None, organ: Sequence[int]) -> list[CaseFiles]:
    """The cases with the value that is `given`, or the ignore label of a dataset.json that is no value of the organ.

    That is nnU-Net's, in or beside the folder of their labels. Raises InputError for one that is not a single value
    other than 0.
    """
    folders = {case.label.parent for case in cases if case.label is not None}
    told = {folder: value_to_ignore(given, {"the organ": organ}, True, folder).value for folder in folders}
    return [replace(case, ignore_value=given if case.label is None else told[case.label.parent]) for case in cases]


def _paired(images: Sequence[Path], labels: Sequence[Path]) -> list[CaseFiles]:
    found = find_volumes(images)
    if not labels:
        return _named(found, [None] * len(found))
    partners = find_volumes(labels)
    are_folders = len(images) == len(labels) == 1 and images[0].is_dir() and labels[0].is_dir()
    if len(found) == len(partners) == 1:
        (case,) = _named(found, [partners[0]])
        name = _short_name(found[0])
        return [replace(case, case_id=name) if are_folders and name == _short_name(partners[0]) else case]
    if are_folders:
        pairs = pair_by_name(images[0], labels[0])
        return [CaseFiles(case_id, image, label) for case_id, (image, label) in pairs.items()]
    return _named(found, _pair(found, partners))


def _named(images: Sequence[Path], labels: Sequence[Path | None]) -> list[CaseFiles]:
    """Give each case the shortest name that tells it from the others: a training's, folder/file, or the whole path."""
    names = [case_from_files(image, image).case_id for image in images]
    for name_of in (lambda path: f"{path.absolute().parent.name}/{case_name(path)}", str):
        if len(set(names)) < len(names):
            names = [name_of(image) for image in images]
    return [CaseFiles(*case) for case in zip(names, images, labels, strict=True)]


def _pair(images: Sequence[Path], labels: Sequence[Path]) -> list[Path]:
    """The label of each image: by file name, else by folder name."""
    for key in (_short_name, lambda path: path.absolute().parent.name):
        left, right = _by(key, images), _by(key, labels)
        if left and left.keys() == right.keys():
            return [right[key(image)] for image in images]
    left_names, right_names = ({_short_name(path): path for path in paths} for paths in (images, labels))
    lonely = [f"image without label: {path}" for name, path in left_names.items() if name not in right_names]
    lonely += [f"label without image: {path}" for name, path in right_names.items() if name not in left_names]
    if not lonely:
        raise InputError(
            f"{len(images)} images and {len(labels)} labels cannot be paired: some have the same file name and the "
            "same folder name. Explore them folder by folder"
        )
    raise InputError(
        f"{len(images)} image(s) and {len(labels)} label(s) do not pair by name; {len(lonely)} have no partner "
        "(a pattern after --label needs quotes, or the shell makes images of all its files but one):"
        + bullets(lonely, _SHOWN)
    )


def _by(key: Callable[[Path], str], paths: Sequence[Path]) -> Mapping[str, Path]:
    """The paths by name; empty where a name is not unique."""
    named = {key(path): path for path in paths}
    return named if len(named) == len(paths) else {}


def _short_name(path: Path) -> str:
    return case_name(path).removesuffix(FIRST_CHANNEL)
