"""Checkpoints written by older versions, with the training configuration in place of a model specification."""

import json
from collections.abc import Mapping
from typing import Any

from spleen.errors import InputError
from spleen.imaging.classes import parse_label_values
from spleen.models.spec import SPEC_VERSION, ModelSpec
from spleen.records.renamed_keys import with_current_keys

RECIPE_KEY = "spleen"
"""Key in such a checkpoint of the training configuration and facts about the training cases, as JSON."""
_WHAT = "the training configuration of an older checkpoint"
_KINDS_OF_ONE_CASE = "phantom", "nifti"
_KINDS_OF_MANY_CASES = "decathlon", "nnunet", "folder", "table"


def spec_of_recipe(text: str) -> ModelSpec:
    """The model specification equivalent to such a text; settings that a prediction does not need are not read.

    Raises InputError for a text that no training wrote.
    """
    try:
        recipe = json.loads(text)
        # Dumped again, since the text may contain escaped characters.
        if "${" in json.dumps(recipe):
            raise InputError(f"{_WHAT} contains an interpolation (${{…}}), which no run writes")
        content = _content(recipe)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise InputError(f"{_WHAT} cannot be read: {error!r}") from error
    return ModelSpec.from_content(content)


def config_of_recipe(text: str) -> dict[str, Any]:
    """The configuration of the training; raises InputError as `spec_of_recipe` does."""
    try:
        return dict(json.loads(text)["config"])
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise InputError(f"{_WHAT} cannot be read: {error!r}") from error


def _content(recipe: Mapping[str, Any]) -> dict[str, Any]:
    config, data = recipe["config"], recipe["config"]["data"]
    if data["kind"] not in (*_KINDS_OF_ONE_CASE, *_KINDS_OF_MANY_CASES):
        raise InputError(f"{_WHAT} has an unknown data.kind: {data['kind']!r}")
    n_channels = (data["channels"] or 1) if data["kind"] in _KINDS_OF_MANY_CASES else 1
    return {
        "spec_version": SPEC_VERSION,
        "classes": _classes(recipe),
        "axis": config["axis"],
        "channels": n_channels,
        "context_slices": config["context_slices"],
        "intensity": config["intensity"],
        "img_size": config["img_size"],
        "resize": config["resize"],
        "size_multiple": config["model"]["size_multiple"],
        "crop_size": config.get("crop_size"),
        "grid_tolerance_mm": config["grid_tolerance_mm"],
        "network": _network(config, n_channels, len(recipe["label_values"])),
        "precision": config["precision"],
        "trained_flips": config["augment"].get("flips", []),
        "seen_images": recipe.get("seen_images", []),
        "spleen_version": None,
    }


def _classes(recipe: Mapping[str, Any]) -> list[dict[str, Any]]:
    data, values, volumes = recipe["config"]["data"], recipe["label_values"], recipe["training_volumes_mm3"]
    names = parse_label_values(data["label_values"], str(data["organ"])).names
    if not len(names) == len(values) == len(volumes):
        raise InputError(f"{_WHAT} lacks the label values of its classes")
    return [
        {"index": index, "name": name, "label_values": of_class, "training_volumes_mm3": volumes_mm3}
        for index, (name, of_class, volumes_mm3) in enumerate(zip(names, values, volumes, strict=True), start=1)
    ]


def _network(config: Mapping[str, Any], n_channels: int, n_foreground: int) -> dict[str, Any]:
    model = config["model"]
    return {
        **with_current_keys(model["network"]),
        str(model["in_channels_argument"]): n_channels * (1 + 2 * config["context_slices"]),
        str(model["out_channels_argument"]): 1 + n_foreground,
    }
