"""A run folder written before checkpoints contained a model specification still predicts and resumes.

tests/data/run_of_before/README.md describes how it was made.
"""

import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import suppress
from copy import deepcopy
from pathlib import Path

import numpy as np
import pytest
import torch

from spleen.errors import InputError
from spleen.imaging.intensity import CtWindow
from spleen.inference.legacy import RECIPE_KEY, spec_of_recipe
from spleen.inference.loading import load_trained
from spleen.inference.predict import predict
from spleen.inference.settings import PredictSettings
from tests._helpers.small_run import REPOSITORY, SmallCt, rows, small_ct, summary, train
from tests._helpers.trained_runs import voxels

RUN = REPOSITORY / "tests" / "data" / "run_of_before"
SETTINGS = (
    "data.label_values={dark: 7, bright: [3, 4]}", "model.network.width=2", "epochs=3", "loader.slices_per_epoch=32",
    "optimiser.ema_decay=0.5", "context_slices=1", "axis=coronal", "augment.flips=[left_right]", "lr=1e-2",
)  # fmt: skip
Key = tuple[str | int, ...]


@pytest.fixture
def ct(tmp_path: Path) -> SmallCt:
    """The training image, in another folder."""
    return small_ct(tmp_path)


@pytest.fixture(scope="module")
def text() -> str:
    content = torch.load(RUN / "checkpoints" / "best.ckpt", weights_only=True)[RECIPE_KEY]
    assert isinstance(content, str)
    return content


def test_a_legacy_run_predicts_the_mask_of_the_version_that_trained_it(ct: SmallCt, tmp_path: Path) -> None:
    settings = PredictSettings(precision="32", device="cpu")
    (case,) = predict(RUN, ct.image, tmp_path / "mask.nii.gz", settings).cases
    found, expected = voxels(tmp_path / "mask.nii.gz"), voxels(RUN / "mask.nii.gz")
    assert set(np.unique(expected)) == {3, 7}
    # A voxel may get either class where two are equally likely.
    assert np.count_nonzero(found != expected) <= 1e-4 * expected.size
    assert case.is_seen


def test_the_model_specification_is_read_from_a_legacy_run() -> None:
    spec = load_trained(RUN).spec
    assert spec.preprocessing.classes.names == ("dark", "bright")
    assert spec.preprocessing.classes.values == ((7,), (3, 4))
    assert spec.preprocessing.intensity == CtWindow(50.0, 400.0)
    assert (spec.preprocessing.axis, spec.preprocessing.img_size) == ("coronal", 32)
    assert (spec.preprocessing.size_multiple, spec.preprocessing.n_channels) == (4, 1)
    assert (spec.context_slices, spec.precision, spec.trained_flips) == (1, "32", ("left_right",))
    assert (spec.network["in_channels"], spec.network["out_channels"]) == (3, 3)
    assert spec.training_volumes_mm3 == ((12538.125, 12538.125), (16003.125, 16003.125))


def test_a_legacy_run_resumes_and_matches_the_uninterrupted_run(ct: SmallCt, tmp_path: Path) -> None:
    run_folder = tmp_path / "outputs" / "small" / "now"
    shutil.copytree(RUN, run_folder)
    train(tmp_path, *ct.overrides, *SETTINGS)
    found, expected = rows(run_folder / "metrics.csv"), rows(RUN / "metrics_of_the_whole_run.csv")
    assert found[:2] == expected[:2]  # kept, not trained again
    assert len(found) == len(expected) == 3
    assert _numbers(found[2]) == pytest.approx(_numbers(expected[2]), rel=1e-3)
    assert summary(run_folder)["resumed"] == 1
    best = torch.load(run_folder / "checkpoints" / "best.ckpt", weights_only=True)
    assert (best["global_step"], "optimizer_states" in best) == (24, False)


def _numbers(row: dict[str, str]) -> dict[str, float]:
    return {name: float(value) for name, value in row.items()}


def test_a_missing_best_checkpoint_of_a_legacy_run_is_restored_on_resume(tmp_path: Path, ct: SmallCt) -> None:
    run_folder = tmp_path / "outputs" / "small" / "now"
    shutil.copytree(RUN, run_folder)
    (run_folder / "checkpoints" / "best.ckpt").unlink()
    with pytest.raises(InputError, match=r"lr was 0\.01 and is now 0\.02"):
        train(tmp_path, *ct.overrides, *SETTINGS[:-1], "lr=2e-2")
    restored, expected = (
        torch.load(folder / "checkpoints" / "best.ckpt", weights_only=True)["state_dict"]
        for folder in (run_folder, RUN)
    )
    assert restored.keys() == expected.keys()
    torch.testing.assert_close(restored, expected, rtol=0, atol=0)


# Invalid training configurations ------------------------------------------------------------------------------------


def change_text(text: str, key: Key, value: object) -> str:
    content = json.loads(text)
    node = content
    for part in key[:-1]:
        node = node[part]
    node[key[-1]] = value
    return json.dumps(content)


def keys(content: object, above: Key = ()) -> Iterator[Key]:
    parts = content.items() if isinstance(content, dict) else enumerate(content) if isinstance(content, list) else ()
    for part, value in parts:
        yield (*above, part)
        yield from keys(value, (*above, part))


@pytest.mark.parametrize("text", ["", "{", "[]", "null", "3", '"config"', "{}", '{"config": {}}'])
def test_text_that_is_not_a_training_configuration_is_refused(text: str) -> None:
    with pytest.raises(InputError, match="the training configuration of an older checkpoint"):
        spec_of_recipe(text)


@pytest.mark.parametrize("dollar", ["$", "\\u0024"], ids=["plain", "escaped"])
@pytest.mark.parametrize("key", [("config", "study"), ("config", "model", "network", "width")], ids=".".join)
def test_an_interpolation_is_refused_even_if_escaped(text: str, key: Key, dollar: str) -> None:
    text_with_interpolation = change_text(text, key, "HERE").replace("HERE", f"{dollar}{{oc.env:HOME}}")
    assert json.loads(text_with_interpolation)  # valid JSON
    with pytest.raises(InputError, match="contains an interpolation"):
        spec_of_recipe(text_with_interpolation)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        (("config", "img_size"), 5, "'img_size' .* from 16"),
        (("config", "axis"), "oblique", "'axis' .* must be one of"),
        (("config", "data", "kind"), "dicom", r"has an unknown data\.kind: 'dicom'"),
        (("config", "data"), [], "the training configuration of an older checkpoint cannot be read"),
        (("config", "context_slices"), "x", "the training configuration of an older checkpoint cannot be read"),
        (("label_values",), [[7]], "lacks the label values of its classes"),
        (("label_values",), [[7], []], "must be non-zero whole numbers"),
        (("label_values",), [[7], ["x"]], "must be non-zero whole numbers"),
        (("label_values",), None, "the training configuration of an older checkpoint cannot be read"),
        (("training_volumes_mm3",), [[1.0, 2.0]], "lacks the label values of its classes"),
        (("training_volumes_mm3",), [[1.0], [2.0]], "must be two numbers"),
        (("seen_images",), 3, "must be a list of text"),
    ],
)
def test_an_invalid_value_is_reported(text: str, key: Key, value: object, message: str) -> None:
    with pytest.raises(InputError, match=message):
        spec_of_recipe(change_text(text, key, value))


@pytest.mark.parametrize("shift", range(6))
def test_any_value_at_any_key_is_accepted_or_reported_as_invalid_input(text: str, shift: int) -> None:
    values = None, "x", "???", -1e99, [[]], {"a": {"b": 1}}
    for number, key in enumerate(keys(json.loads(text))):
        with suppress(InputError):
            spec_of_recipe(change_text(text, key, deepcopy(values[(number + shift) % len(values)])))


def forged(folder: Path, change: Callable[[dict], None]) -> Path:
    content = torch.load(RUN / "checkpoints" / "best.ckpt", weights_only=True)
    recipe = json.loads(content[RECIPE_KEY])
    change(recipe)
    torch.save(content | {RECIPE_KEY: json.dumps(recipe)}, folder / "old.ckpt")
    return folder / "old.ckpt"


def test_a_legacy_checkpoint_without_recorded_images_still_predicts(ct: SmallCt, tmp_path: Path) -> None:
    old = forged(tmp_path, lambda recipe: recipe.pop("seen_images"))
    (case,) = predict(old, ct.image, tmp_path / "mask.nii.gz").cases
    assert not case.is_seen


def test_a_malicious_target_is_refused_and_not_run(tmp_path: Path) -> None:
    trace = tmp_path / "trace"
    network = {"_target_": "os.makedirs", "name": str(trace)}
    model = {"network": network, "in_channels_argument": "mode", "out_channels_argument": "exist_ok"}
    old = forged(tmp_path, lambda recipe: recipe["config"]["model"].update(model))
    with pytest.raises(InputError, match=r"old\.ckpt: its network is 'os\.makedirs', .* add --allow-custom-code"):
        load_trained(old)
    assert not trace.exists()
