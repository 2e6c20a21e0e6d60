"""What a checkpoint says of itself, as a training writes it and as a stranger might."""

import hashlib
import json
import math
from collections.abc import Iterator
from contextlib import suppress
from copy import deepcopy
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from omegaconf import OmegaConf
from spleen.recipe import RECIPE_KEY, Recipe, from_json

from spleen.config import parse
from spleen.errors import InputError
from tests.nifti import ras_affine, save_stored_as
from tests.small_run import SPACING_MM
from tests.trained_runs import TWO_CLASSES, scan, trained

Key = tuple[str | int, ...]


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return trained(tmp_path_factory, "two_classes", *TWO_CLASSES, "axis=coronal", "context_slices=1", "resize=stretch")


@pytest.fixture(scope="module")
def text(run_folder: Path) -> str:
    """The recipe of a real checkpoint."""
    content = torch.load(run_folder / "checkpoints" / "best.ckpt", weights_only=True)[RECIPE_KEY]
    assert isinstance(content, str)
    return content


def changed(text: str, key: Key, value: object) -> str:
    """The recipe with one value replaced."""
    content = json.loads(text)
    place = content
    for part in key[:-1]:
        place = place[part]
    place[key[-1]] = value
    return json.dumps(content)


def keys(content: object, above: Key = ()) -> Iterator[Key]:
    """Every place in nested dictionaries and lists."""
    parts = content.items() if isinstance(content, dict) else enumerate(content) if isinstance(content, list) else ()
    for part, value in parts:
        yield (*above, part)
        yield from keys(value, (*above, part))


def test_a_checkpoint_tells_the_configuration_of_its_run(run_folder: Path, text: str) -> None:
    _, config = from_json(text)
    assert config == parse(OmegaConf.create((run_folder / "config.yaml").read_text()))
    assert (config.axis, config.context_slices, config.resize) == ("coronal", 1, "stretch")


def test_a_checkpoint_tells_the_label_values_and_volumes_of_its_training_cases(
    text: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    recipe, _ = from_json(text)
    assert recipe.label_values == ((7,), (3, 4))
    values = scan(tmp_path_factory).values
    volumes = [np.isin(values, of_class).sum() * math.prod(SPACING_MM) for of_class in ([7], [3, 4])]
    assert recipe.training_volumes_mm3 == tuple((pytest.approx(volume), pytest.approx(volume)) for volume in volumes)


def test_a_checkpoint_tells_the_hash_of_the_images_that_it_learnt_from(
    text: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """SHA-256 of the shape and of the voxels as float32, in RAS and with k running fastest."""
    image = nib.as_closest_canonical(nib.load(scan(tmp_path_factory).image))
    voxels = np.ascontiguousarray(image.get_fdata(), dtype=np.float32)
    recipe, _ = from_json(text)
    assert recipe.seen_images == (hashlib.sha256(repr(voxels.shape).encode() + voxels.tobytes()).hexdigest(),)


def test_a_label_value_that_the_settings_left_open_is_written_down(tmp_path_factory: pytest.TempPathFactory) -> None:
    ct = scan(tmp_path_factory)
    label = save_stored_as(
        ct.label.with_name("dark.nii.gz"), "RAS", ct.values * (ct.values == 7), ras_affine(SPACING_MM)
    )
    run_folder = trained(tmp_path_factory, "open", f"data.label={label}", "epochs=1")
    recipe, config = from_json(torch.load(run_folder / "checkpoints" / "best.ckpt", weights_only=True)[RECIPE_KEY])
    assert config.data.label_values is None
    assert recipe.label_values == ((7,),)


def test_a_recipe_survives_its_way_through_the_file(text: str) -> None:
    recipe, _ = from_json(text)
    again, _ = from_json(recipe.to_json())
    assert again == recipe


# Recipes that no training writes ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "null", "3", '"config"', "{}", '{"config": {}}', Recipe({}, (), (), ()).to_json()]
)
def test_another_text_is_no_recipe(text: str) -> None:
    with pytest.raises(InputError):
        from_json(text)


@pytest.mark.parametrize("dollar", ["$", "\\u0024"], ids=["plain", "escaped"])
@pytest.mark.parametrize("key", [("config", "study"), ("config", "model", "network", "width")], ids=".".join)
def test_an_interpolation_is_refused_also_one_in_disguise(text: str, key: Key, dollar: str) -> None:
    """It could read the reader's environment: ${oc.env:…}."""
    told = changed(text, key, "HERE").replace("HERE", f"{dollar}{{oc.env:HOME}}")
    assert json.loads(told)  # sound JSON
    with pytest.raises(InputError, match="holds an interpolation"):
        from_json(told)


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        (("config", "img_size"), 5, "img_size must be from 16"),
        (("config", "axis"), "oblique", "axis must be one of"),
        (("config", "surprise"), 1, "unknown key 'surprise'"),
        (("config", "data", "kind"), "dicom", "data.kind must be one of"),
        (("config", "split"), "???", "the configuration in its recipe cannot be read|split"),
        (("config", "data"), [], "the configuration in its recipe cannot be read"),
        (("label_values",), [[7]], "does not say which label values"),
        (("label_values",), [[7], []], "does not say which label values"),
        (("label_values",), [[7], ["x"]], "its recipe cannot be read"),
        (("label_values",), None, "its recipe cannot be read"),
        (("training_volumes_mm3",), [[1.0, 2.0]], "does not say which label values"),
        (("training_volumes_mm3",), [[1.0], [2.0]], "its recipe cannot be read"),
        (("seen_images",), 3, "its recipe cannot be read"),
    ],
)
def test_a_wrong_value_is_told(text: str, key: Key, value: object, said: str) -> None:
    with pytest.raises(InputError, match=said):
        from_json(changed(text, key, value))


@pytest.mark.parametrize("turn", range(2))
def test_whatever_stands_where_is_a_wrong_input_and_never_a_fault_of_the_program(text: str, turn: int) -> None:
    values = None, "x", "???", -1e99, [[]], {"a": {"b": 1}}
    places = [key for key in keys(json.loads(text)) if len(key) < 3 or key[1] in ("augment", "data")]
    for number, key in enumerate(places):
        with suppress(InputError):
            from_json(changed(text, key, deepcopy(values[(number + turn) % len(values)])))
