"""The model specification in a checkpoint, as training writes it and as an untrusted file might contain it."""

import hashlib
import json
import math
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from copy import deepcopy
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch

from spleen import __version__
from spleen.errors import InputError
from spleen.imaging.intensity import CtWindow
from spleen.models.checkpoint import SPEC_KEY
from spleen.models.spec import ModelSpec, RoiSettings
from tests._helpers.nifti import ras_affine, save_stored_as
from tests._helpers.small_run import REPOSITORY, SPACING_MM, train
from tests._helpers.trained_runs import TWO_CLASSES, scan, trained

Key = tuple[str | int, ...]


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return trained(tmp_path_factory, "two_classes", *TWO_CLASSES, "axis=coronal", "context_slices=1", "resize=stretch")


@pytest.fixture(scope="module")
def text(run_folder: Path) -> str:
    """The model specification of a real checkpoint."""
    content = torch.load(run_folder / "checkpoints" / "best.ckpt", weights_only=True)[SPEC_KEY]
    assert isinstance(content, str)
    return content


def changed(text: str, key: Key, value: object) -> str:
    """The specification with one value replaced."""
    content = json.loads(text)
    place = content
    for part in key[:-1]:
        place = place[part]
    place[key[-1]] = value
    return json.dumps(content)


def keys(content: object, above: Key = ()) -> Iterator[Key]:
    """The path of every value in nested dictionaries and lists."""
    parts = content.items() if isinstance(content, dict) else enumerate(content) if isinstance(content, list) else ()
    for part, value in parts:
        yield (*above, part)
        yield from keys(value, (*above, part))


def test_a_checkpoint_contains_the_settings_of_its_run(text: str) -> None:
    spec = ModelSpec.from_json(text)
    assert spec.network == {
        "_target_": "spleen.models.unet.UNet", "in_channels": 3, "out_channels": 3, "width": 4, "depth": 2,
        "norm": "batch", "dropout": 0.0, "max_channels": 512, "foreground_prior": None,
    }  # fmt: skip
    preprocessing = spec.preprocessing
    assert (preprocessing.axis, preprocessing.img_size, preprocessing.resize) == ("coronal", 32, "stretch")
    assert (preprocessing.size_multiple, preprocessing.n_channels) == (4, 1)
    assert preprocessing.intensity == CtWindow(50.0, 400.0)
    assert (spec.context_slices, spec.crop_size, spec.precision) == (1, None, "32")
    assert (spec.trained_flips, spec.spleen_version) == ((), __version__)


def test_a_checkpoint_contains_the_label_values_and_volumes_of_its_training_cases(
    text: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    spec = ModelSpec.from_json(text)
    assert spec.preprocessing.classes.names == ("dark", "bright")
    assert spec.preprocessing.classes.values == ((7,), (3, 4))
    values = scan(tmp_path_factory).values
    volumes = [np.isin(values, of_class).sum() * math.prod(SPACING_MM) for of_class in ([7], [3, 4])]
    assert spec.training_volumes_mm3 == tuple((pytest.approx(volume), pytest.approx(volume)) for volume in volumes)


def test_a_checkpoint_contains_the_hashes_of_its_training_images(
    text: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """SHA-256 of the shape and of the voxels as float32, in RAS and with k running fastest."""
    image = nib.as_closest_canonical(nib.load(scan(tmp_path_factory).image))
    voxels = np.ascontiguousarray(image.get_fdata(), dtype=np.float32)
    expected = hashlib.sha256(repr(voxels.shape).encode() + voxels.tobytes()).hexdigest()
    assert ModelSpec.from_json(text).seen_images == (expected,)


def test_a_checkpoint_contains_label_values_that_the_settings_left_open(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    ct = scan(tmp_path_factory)
    label = save_stored_as(
        ct.label.with_name("dark.nii.gz"), "RAS", ct.values * (ct.values == 7), ras_affine(SPACING_MM)
    )
    run_folder = trained(tmp_path_factory, "open", f"data.label={label}", "epochs=1")
    content = torch.load(run_folder / "checkpoints" / "best.ckpt", weights_only=True)
    assert ModelSpec.from_json(content[SPEC_KEY]).preprocessing.classes.values == ((7,),)


def test_an_ignored_value_is_recorded_only_where_there_is_one(text: str) -> None:
    spec = ModelSpec.from_json(text)
    assert "ignore_value" not in json.loads(text)
    ignoring = replace(spec, preprocessing=replace(spec.preprocessing, ignore_value=-1))
    assert ModelSpec.from_json(ignoring.to_json()) == ignoring
    for value in (0, 7, None, "255"):
        with pytest.raises(InputError, match="'ignore_value' in its model specification must be a whole number that"):
            ModelSpec.from_json(changed(text, ("ignore_value",), value))


def test_a_specification_survives_a_json_round_trip(text: str) -> None:
    assert ModelSpec.from_json(text).to_json() == text


# Contents of the best checkpoint --------------------------------------------------------------------------------------


def test_the_best_checkpoint_contains_the_model_and_no_patient_or_machine_data(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    ct = scan(tmp_path_factory)
    home = tmp_path / "hospital-home"
    home.mkdir()
    image = save_stored_as(home / "jane-roe-ct.nii.gz", "RAS", ct.hu, ras_affine(SPACING_MM))
    label = save_stored_as(home / "jane-roe-organs.nii.gz", "RAS", ct.values, ras_affine(SPACING_MM))
    settings = f"data.image={image}", f"data.label={label}", *TWO_CLASSES, "optimiser.ema_decay=0.9"
    run_folder = train(home, *settings, "model.network.width=16", "epochs=2", "loader.slices_per_epoch=8")
    assert "jane-roe-ct" in (run_folder / "split.json").read_text()  # the case_id
    best, last = (run_folder / "checkpoints" / name for name in ("best.ckpt", "last.ckpt"))
    for word in (b"hospital-home", b"jane-roe", str(tmp_path).encode()):
        assert word in last.read_bytes() or word == b"jane-roe-ct"  # shows that the search works
        assert word not in best.read_bytes()
    content = torch.load(best, weights_only=True)
    assert set(content) == {"state_dict", "model_spec", "epoch", "global_step"}
    weights = sum(value.numel() * value.element_size() for value in content["state_dict"].values())
    assert best.stat().st_size < 1.1 * weights + 100_000 < last.stat().st_size


@pytest.mark.slow
def test_a_checkpoint_is_read_without_hydra_and_lightning(run_folder: Path) -> None:
    program = f"""
import sys
from pathlib import Path
from spleen.inference.loading import load_trained
load_trained(Path({str(run_folder)!r}))
heavy = "hydra", "omegaconf", "pytorch_lightning", "wandb", "spleen.config.schema"
print([name for name in heavy if name in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", program], cwd=REPOSITORY, capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


# Invalid specifications ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", ["", "{", "[]", "null", "3", '"network"', "{}", '{"spec_version": 1}'])
def test_text_that_is_not_a_specification_is_rejected(text: str) -> None:
    with pytest.raises(InputError, match="its model specification"):
        ModelSpec.from_json(text)


def test_a_newer_version_is_rejected_naming_the_supported_one(text: str) -> None:
    with pytest.raises(
        InputError, match="has version 3, and this version of spleen reads versions 1 and 2; update spleen"
    ):
        ModelSpec.from_json(changed(text, ("spec_version",), 3))


def test_a_box_makes_a_version_that_packages_which_would_ignore_it_refuse(text: str) -> None:
    spec = replace(ModelSpec.from_json(text), roi=RoiSettings("ab" * 32, 20.0, ("dark",)))
    content = json.loads(spec.to_json())
    assert (content["spec_version"], content["roi"]["margin_mm"]) == (2, 20.0)
    assert ModelSpec.from_json(spec.to_json()) == spec
    assert (json.loads(text)["spec_version"], "roi" in json.loads(text)) == (1, False)


@pytest.mark.parametrize(("key", "value"), [("margin_mm", -1), ("margin_mm", "wide"), ("classes", "dark")])
def test_an_invalid_box_is_refused(text: str, key: str, value: object) -> None:
    spec = replace(ModelSpec.from_json(text), roi=RoiSettings("ab" * 32, 20.0))
    with pytest.raises(InputError, match=f"'roi.{key}' in its model specification must be"):
        ModelSpec.from_json(changed(spec.to_json(), ("roi", key), value))


def test_every_missing_key_is_named(text: str) -> None:
    for key in json.loads(text):
        content = json.loads(text)
        del content[key]
        with pytest.raises(InputError, match=f"^its model specification lacks '{key}'$"):
            ModelSpec.from_json(json.dumps(content))


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        (("img_size",), 5, "'img_size' in its model specification must be native or from 16 to 4096 pixels; got 5"),
        (("axis",), "oblique", "'axis' .* must be one of sagittal, coronal, axial; got 'oblique'"),
        (("channels",), True, "'channels' .* must be a whole number from 1"),
        (("context_slices",), -1, "'context_slices' .* must be a whole number from 0"),
        (("crop_size",), "all", "'crop_size' .* must be null, from 16 to 4096 pixels, or the three sides"),
        (("precision",), "64", "'precision' .* must be one of auto, 32, bf16, 16"),
        (("grid_tolerance_mm",), math.nan, "'grid_tolerance_mm' .* must be from 0 to 10 mm"),
        (("network",), {"width": 3}, "'network' .* must be a network"),
        (("intensity", "kind"), "pet", r"'intensity\.kind' .* must be one of ct, mr, zscore"),
        (("intensity", "window_width"), 0, r"'intensity\.window_width' .* must be from"),
        (("classes",), [], "'classes' .* must be a list of one or more classes"),
        (("classes", 1, "label_values"), [], r"'classes\[1\]\.label_values' .* must be non-zero whole numbers"),
        (("classes", 1, "label_values"), [0], r"'classes\[1\]\.label_values' .* must be non-zero whole numbers"),
        (("classes", 1, "label_values"), [7], "share a name or a label value"),
        (("classes", 1, "name"), "dark", "share a name or a label value"),
        (("classes", 0, "index"), 2, r"'classes\[0\]\.index' .* must be 1; got 2"),
        (
            ("classes", 0, "training_volumes_mm3"),
            [2.0, 1.0],
            r"training_volumes_mm3' .* must be two numbers in ascending order, at least 0",
        ),
        (("seen_images",), 3, "'seen_images' .* must be a list of text"),
        (("trained_flips",), [1], "'trained_flips' .* must be a list of text"),
    ],
)
def test_an_invalid_value_is_reported(text: str, key: Key, value: object, message: str) -> None:
    with pytest.raises(InputError, match=message):
        ModelSpec.from_json(changed(text, key, value))


@pytest.mark.parametrize("turn", range(6))
def test_any_value_at_any_key_is_accepted_or_reported_but_never_a_crash(text: str, turn: int) -> None:
    values = None, "x", "???", -1e99, [[]], {"a": {"b": 1}}
    for number, key in enumerate(keys(json.loads(text))):
        with suppress(InputError):
            ModelSpec.from_json(changed(text, key, deepcopy(values[(number + turn) % len(values)])))
