"""Datasets of the Medical Segmentation Decathlon: dataset.json lists the training cases, classes and channels."""

from dataclasses import replace
from pathlib import Path

from spleen.data.cases import Case
from spleen.data.layouts.dataset import Dataset, check_files_exist, file_path, make_dataset
from spleen.data.layouts.dataset_json import DATASET_JSON, names_by_number, read_dataset_json, warn_of_count
from spleen.errors import InputError
from spleen.imaging.files import case_name

_EXAMPLE = '{"image": "./imagesTr/CASE.nii.gz", "label": "./labelsTr/CASE.nii.gz"}'


def read_decathlon(root: Path, classes_from_file: bool = True) -> Dataset:
    """Read the training cases of a Decathlon folder, as listed in dataset.json and named after their images.

    Label values with the same name form one class. `classes_from_file=False` ignores the file's classes, for users who
    define their own. Raises InputError if dataset.json is missing or of another kind, lists a case twice, a missing
    file or a file outside `root`, or uses a class name that `class_map.parse_label_values` does not allow.
    """
    path = root / DATASET_JSON
    content = read_dataset_json(root)
    if "training" not in content and "channel_names" in content:
        raise InputError(f"{path} belongs to an nnU-Net dataset (it has channel_names); read it with data=nnunet")
    entries = content.get("training")
    if not isinstance(entries, list) or not entries:
        raise InputError(f'"training" in {path} must be a list of cases, each {_EXAMPLE}; got {entries!r:.200}')
    cases = [_case(root, f"{path}, training entry {number}", entry) for number, entry in enumerate(entries, start=1)]
    label_values = decathlon_classes(path, content["labels"]) if classes_from_file and "labels" in content else None
    channels = names_by_number(path, "modality", content["modality"]) if "modality" in content else ()
    dataset = make_dataset(path, cases, label_values, channels)
    check_files_exist(path, dataset.cases, _advice(dataset.cases[0]))
    warn_of_count(path, content, len(cases))
    known = content.get("labels")
    if not isinstance(known, dict) or not all(value.isdecimal() for value in known):
        return dataset
    return replace(dataset, known_values=frozenset(map(int, known)))


def _case(root: Path, where: str, entry: object) -> Case:
    if not isinstance(entry, dict) or not {"image", "label"} <= set(entry):
        raise InputError(f"{where} must be of the form {_EXAMPLE}; got {entry!r:.200}")
    image, label = (_inside(root, where, entry[key]) for key in ("image", "label"))
    return Case(case_id=case_name(image), images=(image,), label=label)


def _inside(root: Path, where: str, text: object) -> Path:
    """The path of a listed file; untrusted lists may not refer to files outside their own folder."""
    path = file_path(root, text, where)
    listed = Path(str(text))
    if listed.anchor or ".." in listed.parts:
        inside = "/".join(listed.parts[-2:])
        hint = f"; write {inside}" if (root / inside).is_file() else ""
        raise InputError(f"{where}: {text} is outside {root}; paths must be relative to it and inside it{hint}")
    return path


def decathlon_classes(path: Path, labels: object) -> dict[str, list[int]]:
    """The foreground classes and their values, from the "labels" of the dataset.json at `path`.

    Raises InputError if "labels" has another form.
    """
    example = 'must map values to class names, such as {"0": "background", "1": "spleen"}'
    if not isinstance(labels, dict):
        raise InputError(f'"labels" in {path} {example}; got {labels!r:.200}')
    classes: dict[str, list[int]] = {}
    for value, name in labels.items():
        if not value.isdecimal() or not isinstance(name, str):
            raise InputError(f'"labels" in {path} {example}; got {value!r}: {name!r:.200}')
        if int(value) != 0:
            classes.setdefault(name, []).append(int(value))
    return classes


def _advice(first: Case) -> str:
    image = first.images[0]
    numbered = image.with_name(image.name.replace(case_name(image), f"{case_name(image)}_0000", 1))
    if image.is_file() or not numbered.is_file():
        return ""
    return (
        f"\n{numbered.name} exists, as in datasets of nnU-Net version 1; read those with data=folder "
        f"data.images={image.parent} data.labels={first.label.parent}"
    )
