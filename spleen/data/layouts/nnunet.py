"""Raw nnU-Net v2 datasets: imagesTr/CASE_0000.nii.gz, labelsTr/CASE.nii.gz and dataset.json."""

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from spleen.data.cases import Case
from spleen.data.layouts.dataset import Dataset, check_files_exist, file_names, file_path, make_dataset
from spleen.data.layouts.dataset_json import DATASET_JSON, names_by_number, read_dataset_json, warn_of_count
from spleen.errors import InputError
from spleen.imaging.files import SUFFIXES, split_channel
from spleen.system.text import bullets

_LABELS_EXAMPLE = 'such as {"background": 0, "spleen": 1, "kidneys": [2, 3]}'


def read_nnunet(root: Path, classes_from_file: bool = True) -> Dataset:
    """Read the training cases of a raw nnU-Net dataset, from its folders or from the "dataset" of dataset.json.

    A class with several values, none shared with another class, is one merged class; classes that share values are
    regions, in the order of the file, with its "regions_class_order". `classes_from_file=False` ignores
    the file's classes, for users who define their own. Raises InputError if dataset.json is missing or of another kind,
    for files that are not NIfTI, for missing or surplus channels, images without a label, labels without an image,
    and overlapping classes without "regions_class_order".
    """
    path = root / DATASET_JSON
    content = read_dataset_json(root)
    if "training" in content and "channel_names" not in content:
        raise InputError(
            f"{path} belongs to a Decathlon dataset (it has a training list and no channel_names); read it with "
            "data=decathlon"
        )
    channels = names_by_number(path, "channel_names", content.get("channel_names"))
    labels, ignore_value = without_ignore(path, content.get("labels"))
    classes = nnunet_classes(path, labels)
    order = regions_class_order(path, classes, content.get("regions_class_order")) if classes_from_file else None
    ending = _file_ending(path, content.get("file_ending"))
    if "dataset" in content:
        cases = _listed_cases(root, path, content["dataset"], len(channels))
        check_files_exist(path, cases)
    else:
        cases = _found_cases(root, ending, channels)
    dataset = make_dataset(path, cases, classes if classes_from_file else None, channels, order)
    warn_of_count(path, content, len(cases))
    known_values = frozenset(value for values in classes.values() for value in values)
    return replace(dataset, known_values=known_values, ignore_value=ignore_value)


def _file_ending(path: Path, ending: object) -> str:
    if not isinstance(ending, str) or ending not in SUFFIXES:
        raise InputError(
            f'"file_ending" in {path} must be ".nii.gz" or ".nii"; got {ending!r}. Only NIfTI is supported: convert '
            "images and labels, for example with SimpleITK, and change file_ending"
        )
    return ending


# Classes ------------------------------------------------------------------------------------------------------------


def nnunet_classes(path: Path, labels: object) -> dict[str, tuple[int, ...]]:
    """The foreground classes and their values, which may overlap, from the "labels" of the dataset.json at `path`.

    `labels` is without the ignore label. Raises InputError if it has another form.
    """
    if not isinstance(labels, dict):
        raise InputError(f'"labels" in {path} must map class names to values, {_LABELS_EXAMPLE}; got {labels!r:.200}')
    classes = {name: _values(path, name, entry) for name, entry in labels.items()}
    if classes.pop("background", (0,)) != (0,):
        raise InputError(f'"labels" in {path}: the background must be 0; got {labels["background"]}')
    return {name: values for name, values in classes.items() if values != (0,)}


def without_ignore(path: Path, labels: object) -> tuple[object, int | None]:
    """The "labels" of a dataset.json without nnU-Net's ignore label, and its value; None if there is none.

    Raises InputError if it is not one value other than 0.
    """
    if not isinstance(labels, dict) or "ignore" not in labels:
        return labels, None
    values = _values(path, "ignore", labels["ignore"])
    if len(values) > 1 or values == (0,):
        raise InputError(f'"labels" in {path}: "ignore" must be one value other than 0; got {labels["ignore"]!r:.200}')
    return {name: entry for name, entry in labels.items() if name != "ignore"}, values[0]


def _values(path: Path, name: str, entry: object) -> tuple[int, ...]:
    values = entry if isinstance(entry, list) else [entry]
    if not values or not all(isinstance(value, int) and not isinstance(value, bool) for value in values):
        raise InputError(
            f'"labels" in {path} must map class names to integers, {_LABELS_EXAMPLE}; got {name!r}: {entry!r:.200}'
        )
    if 0 in values and set(values) != {0}:
        raise InputError(f"\"labels\" in {path}: '{name}' includes 0, which is the background; got {entry}")
    return tuple(sorted(set(values)))


def _shared_values(classes: Mapping[str, Sequence[int]]) -> list[int]:
    count = Counter(value for values in classes.values() for value in values)
    return sorted(value for value, n_classes in count.items() if n_classes > 1)


def regions_class_order(path: Path, classes: Mapping[str, Sequence[int]], order: object) -> tuple[int, ...] | None:
    """The value of each overlapping class in a mask; None if the classes do not overlap, whatever the file says.

    Raises InputError if `order`, the entry of the file, is missing or no list of values.
    """
    shared = _shared_values(classes)
    if not shared:
        return None
    if isinstance(order, list) and all(isinstance(value, int) and not isinstance(value, bool) for value in order):
        return tuple(order)
    names = [name for name, values in classes.items() if set(values) & set(shared)]
    example = ", ".join(str(values[0]) for values in classes.values())
    disjoint = ", ".join(
        f"class_{value}: {value}" for value in sorted({v for values in classes.values() for v in values})
    )
    raise InputError(
        f'"labels" in {path}: {", ".join(repr(name) for name in names)} overlap (they share the values '
        f'{", ".join(map(str, shared))}), so "regions_class_order" must list the value of each class in a mask '
        f'where no later one covers it, such as "regions_class_order": [{example}]; got {order!r:.200}. Or define '
        f"classes without overlap, for example 'data.label_values={{{disjoint}}}'"
    )


# Cases --------------------------------------------------------------------------------------------------------------


def _listed_cases(root: Path, path: Path, entries: object, n_channels: int) -> list[Case]:
    """The cases in "dataset", whose files may be anywhere; nnU-Net expands environment variables in their paths."""
    example = '{"CASE": {"images": ["imagesTr/CASE_0000.nii.gz"], "label": "labelsTr/CASE.nii.gz"}}'
    if not isinstance(entries, dict):
        raise InputError(f'"dataset" in {path} must be of the form {example}; got {entries!r:.200}')
    cases = []
    for case_id, entry in entries.items():
        where = f"{path}, dataset, case '{case_id}'"
        images = entry.get("images") if isinstance(entry, dict) else None
        if not isinstance(entry, dict) or not isinstance(images, list) or len(images) != n_channels:
            raise InputError(f"{where} must have {n_channels} image(s), one per channel, and a label, as in {example}")
        files = [file_path(root, _expanded(text), where) for text in [*images, entry.get("label")]]
        cases.append(Case(case_id=case_id, images=tuple(files[:-1]), label=files[-1]))
    return cases


def _expanded(text: object) -> object:
    return os.path.expandvars(text) if isinstance(text, str) else text


def _found_cases(root: Path, ending: str, channels: tuple[str, ...]) -> list[Case]:
    """The cases in imagesTr and labelsTr; each folder is listed once."""
    images, labels = (root.absolute() / folder for folder in ("imagesTr", "labelsTr"))
    cases = [name.removesuffix(ending) for name in file_names(labels) if name.endswith(ending)]
    found = {name for name in file_names(images) if name.endswith(ending)}
    expected = {case: [f"{case}_{number:04d}{ending}" for number in range(len(channels))] for case in cases}
    problems: list[str] = []
    for case, names in expected.items():
        missing = [name for name in names if name not in found]
        problems += [f"no {images.name}/{name} for {labels.name}/{case}{ending}" for name in missing]
    surplus = sorted(found.difference(*expected.values()))
    problems += [f"{images.name}/{name}: {_problem(name.removesuffix(ending), ending, expected)}" for name in surplus]
    if problems:
        raise InputError(
            f"{root}: every labelsTr/CASE{ending} needs one image per channel ({', '.join(channels)}), "
            f"imagesTr/CASE_0000{ending} and so on, and vice versa; {len(problems)} file(s) are missing or surplus:"
            + bullets(problems)
        )
    return [
        Case(case_id=case, images=tuple(images / name for name in names), label=labels / f"{case}{ending}")
        for case, names in expected.items()
    ]


def _problem(name: str, ending: str, cases: dict[str, list[str]]) -> str:
    channel = split_channel(name)
    if channel is None:
        return "no channel number such as _0000 at the end"
    if channel[0] in cases:
        return f"dataset.json names {len(cases[channel[0]])} channel(s), so there is no {channel[1]:04d}"
    return f"no labelsTr/{channel[0]}{ending}"
