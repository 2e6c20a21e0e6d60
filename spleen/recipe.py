"""What a checkpoint says of itself: the settings and the facts of the training data that a prediction needs."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from spleen.config import TrainConfig, parse
from spleen.config_checks import check
from spleen.errors import InputError
from spleen.stored_case import StoredCase

RECIPE_KEY = "spleen"
"""Where the recipe stands in a checkpoint, as JSON text."""


@dataclass(frozen=True)
class Recipe:
    """One training run in words: its configuration, and what was read off its training cases."""

    config: dict[str, Any]
    label_values: tuple[tuple[int, ...], ...]
    """For each class, the values of the label files that stand for it."""
    training_volumes_mm3: tuple[tuple[float, float], ...]
    """For each class, its smallest and its largest volume in the training cases."""
    seen_images: tuple[str, ...]
    """Fingerprints of the images that were trained on, or that chose the best epoch, in order."""

    def to_json(self) -> str:
        """The text that goes into a checkpoint."""
        return json.dumps(asdict(self))


def describe(
    config: TrainConfig, training_cases: Sequence[StoredCase], validation_cases: Sequence[StoredCase]
) -> Recipe:
    """The recipe of a run on these cases."""
    by_class = list(zip(*(case.volumes_mm3 for case in training_cases), strict=True))
    return Recipe(
        asdict(config),
        training_cases[0].label_values,
        tuple((min(volumes), max(volumes)) for volumes in by_class),
        tuple(sorted({case.fingerprint for case in (*training_cases, *validation_cases)})),
    )


def from_json(text: str) -> tuple[Recipe, TrainConfig]:
    """Read a recipe back, its configuration checked as strictly as that of a training run.

    Raises InputError for a text that is no recipe.
    """
    try:
        content = json.loads(text)
        recipe = Recipe(
            dict(content["config"]),
            tuple(tuple(int(value) for value in values) for values in content["label_values"]),
            tuple((float(low), float(high)) for low, high in content["training_volumes_mm3"]),
            tuple(map(str, content.get("seen_images", ()))),  # older checkpoints do not tell
        )
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"its recipe cannot be read: {error}") from error
    # Written anew, since the text may have escaped a character of it.
    if "${" in json.dumps(content):
        raise InputError("its recipe holds an interpolation (${…}), which no run writes")
    if not all(recipe.label_values) or len(recipe.label_values) != len(recipe.training_volumes_mm3):
        raise InputError("its recipe does not say which label values its classes stand for")
    return recipe, _parse(recipe.config)


def _parse(content: dict[str, Any]) -> TrainConfig:
    try:
        config = parse(OmegaConf.create(content))
        check(config)
    except (OmegaConfBaseException, AttributeError, TypeError, ValueError) as error:  # another shape than a run writes
        raise InputError(f"the configuration in its recipe cannot be read: {str(error).splitlines()[0]}") from error
    return config
