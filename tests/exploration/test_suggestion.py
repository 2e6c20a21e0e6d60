"""Suggested settings: sensible for synthetic cases, and accepted by the training configuration."""

import shlex
from pathlib import Path

import numpy as np
import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from hypothesis import given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf

from spleen.config.checking.checks import check
from spleen.config.datasets import find_dataset
from spleen.config.factory import build_split_settings
from spleen.config.overrides import quoted
from spleen.config.preprocessing import build_classes, build_preprocessing
from spleen.data.store.store import open_case
from spleen.exploration.explore import explore
from spleen.exploration.suggestion.layout import hydra_override
from spleen.exploration.suggestion.suggest import DEFAULT_CONTEXT_SLICES, DEFAULT_SPLIT, DEFAULT_WINDOW_HU
from tests._helpers.nifti import ras_affine, save, save_stored_as
from tests._helpers.small_run import compose_config, small_ct


def ellipsoid(shape, semi_axes):
    grid = np.meshgrid(
        *((np.arange(n) - (n - 1) / 2) / a for n, a in zip(shape, semi_axes, strict=True)), indexing="ij"
    )
    return sum(part**2 for part in grid) < 1


def ct_case(folder, shape, spacing_mm, semi_axes, organ_hu=60.0, orientation="RAS", values=(1,)):
    """A body in air with an ellipsoid organ, split into layers along the first axis with the given label values."""
    folder.mkdir(exist_ok=True)
    organ = ellipsoid(shape, semi_axes)
    hu = np.where(ellipsoid(shape, [0.45 * n for n in shape]), 30.0, -1000.0)
    hu[organ] = organ_hu
    hu += np.random.default_rng(0).normal(0, 5, shape)
    layers = np.array(values)[np.arange(shape[0]) * len(values) // shape[0]]
    label = np.where(organ, layers[:, None, None], 0).astype(np.int16)
    affine = ras_affine(spacing_mm)
    image = save_stored_as(folder / "scan.nii", orientation, np.rint(hu).astype(np.int16), affine)
    return image, save_stored_as(folder / "organs.nii", orientation, label, affine)


def chosen(exploration):
    return dict(override.split("=", 1) for override in exploration.suggestion.overrides)


def config_of(exploration):
    """The configuration that results from pasting the suggested command, as parsed by the shell and then Hydra."""
    program, command, *overrides = shlex.split(exploration.suggestion.command)
    assert (program, command) == ("spleen", "train")
    config = compose_config(*overrides)
    check(config)
    return config


def test_the_defaults_match_the_configuration():
    config = compose_config()
    assert build_split_settings(config) == DEFAULT_SPLIT
    assert config.context_slices == DEFAULT_CONTEXT_SLICES
    half = config.intensity.window_width / 2
    assert (config.intensity.window_level - half, config.intensity.window_level + half) == DEFAULT_WINDOW_HU


@pytest.mark.parametrize("orientation", ["RAS", "SLA", "PIR"])
def test_the_axis_with_the_finest_pixels_is_chosen_in_every_orientation(tmp_path, orientation):
    image, label = ct_case(tmp_path, (48, 40, 24), (1.0, 1.0, 4.0), (12, 11, 10), orientation=orientation)
    exploration = explore(image, label)
    assert chosen(exploration)["axis"] == "axial"
    config = config_of(exploration)
    assert (config.axis, config.img_size, config.intensity.kind) == ("axial", 48, "ct")


def test_among_equally_fine_axes_the_one_with_the_most_organ_slices_is_chosen(tmp_path):
    exploration = explore(*ct_case(tmp_path, (40, 44, 42), (3, 3, 3), (10, 9, 17)))
    assert chosen(exploration)["axis"] == "axial"
    assert "the most slices with organ: 34" in exploration.suggestion.settings[0].reason


def test_an_axis_with_too_few_organ_slices_to_split_is_avoided(tmp_path):
    # Axial pixels are the finest, but the organ appears on only 4 axial slices.
    exploration = explore(*ct_case(tmp_path, (48, 40, 24), (1, 1, 4), (20, 15, 2.0)))
    assert chosen(exploration)["axis"] in ("sagittal", "coronal")
    assert "too few slices" in exploration.suggestion.settings[0].reason


def test_the_guard_gap_is_dropped_if_the_organ_is_too_small_for_it(tmp_path):
    exploration = explore(*ct_case(tmp_path, (30, 30, 30), (1, 1, 1), (6, 6, 6)))
    assert chosen(exploration)["split.guard_mm"] == "0"
    assert exploration.suggestion.obstacle is None
    assert config_of(exploration).split.guard_mm == 0


def test_an_organ_too_small_for_any_split_gives_a_warning_and_no_command(tmp_path):
    exploration = explore(*ct_case(tmp_path, (30, 30, 30), (1, 1, 1), (1.6, 1.6, 1.6)))
    assert "on no axis" in exploration.suggestion.obstacle
    assert exploration.suggestion.command not in str(exploration)
    assert "too few slices" in [finding.topic for finding in exploration.verdict.findings]


@pytest.mark.parametrize(
    ("shape", "img_size"),
    [
        ((122, 101, 30), 112),  # the next lower multiple of 16, at most a tenth coarser
        ((12, 11, 10), 16),  # the minimum for training
        ((40, 31, 30), 40),  # 32 would be a fifth coarser, so the native size
        ((512, 400, 12), 256),  # limited because of the cost
    ],
)
def test_suggested_pixels_are_never_finer_than_the_native_ones(tmp_path, shape, img_size):
    image = save(tmp_path / "ct.nii", np.arange(np.prod(shape)).reshape(shape) % 3000 - 1000.0, ras_affine((2, 2, 6)))
    exploration = explore(image)
    assert chosen(exploration)["axis"] == "axial"
    assert chosen(exploration)["img_size"] == str(img_size)


def test_a_small_organ_gets_more_pixels(tmp_path):
    # 10 mm across in a 512 mm plane: 24 pixels across would need over 1,200, so the native 512 is kept.
    exploration = explore(*ct_case(tmp_path, (512, 200, 24), (1, 1, 2), (5, 5, 12)))
    assert chosen(exploration)["img_size"] == "512"


def test_the_window_is_moved_for_an_organ_outside_the_default_one(tmp_path):
    exploration = explore(*ct_case(tmp_path, (48, 40, 24), (1, 1, 4), (12, 11, 10), organ_hu=700.0))
    config = config_of(exploration)
    low = config.intensity.window_level - config.intensity.window_width / 2
    high = config.intensity.window_level + config.intensity.window_width / 2
    assert low < 680 < 720 < high
    assert high - low < 400


def test_mr_and_unknown_modalities_get_a_suitable_normalisation(tmp_path):
    signal = np.random.default_rng(1).gamma(3, 120, (30, 31, 32))
    mr = explore(save(tmp_path / "mr.nii", signal.astype(np.float32), ras_affine((1, 1, 1))))
    scored = (signal - signal.mean()) / signal.std()
    unknown = explore(save(tmp_path / "z.nii", scored.astype(np.float32), ras_affine((1, 1, 1))))
    assert chosen(mr)["intensity"] == "mr"
    assert chosen(unknown)["intensity"] == "zscore"


def test_without_a_label_the_command_has_a_placeholder_for_it(tmp_path):
    exploration = explore(save(tmp_path / "ct.nii", np.mgrid[:30, :31, :9].sum(0) * 10.0, ras_affine()))
    assert chosen(exploration)["data.label"] == "LABEL.nii.gz"
    assert "LABEL.nii.gz" in exploration.suggestion.settings[-1].reason


@pytest.mark.parametrize(
    ("values", "organ", "classes"),
    [
        ((5,), (), {"organ": ()}),
        ((3, 4, 7), (), {"label_3": (3,), "label_4": (4,), "label_7": (7,)}),
        ((3, 4, 7), (3, 4), {"organ": (3, 4)}),
        (tuple(range(1, 11)), (), {"organ": (5,)}),  # too many to be classes: only the largest
    ],
)
def test_label_values_become_classes_that_training_accepts(tmp_path, values, organ, classes):
    image, label = ct_case(tmp_path, (50, 40, 24), (1, 1, 4), (24.9, 11, 10), values=values)
    config = config_of(explore(image, label, organ))
    found = build_classes(config)
    if values == tuple(range(1, 11)):
        assert found.names == ("organ",)
        assert found.values in (((5,),), ((6,),))  # the two middle layers are equally large
    else:
        assert dict(zip(found.names, found.values, strict=True)) == classes


@pytest.mark.parametrize("folder", ["plain", "with space", "it's, (odd) = [1] {x}: ü €", '"quoted"', "${oc.env:HOME}"])
def test_the_suggested_command_opens_the_explored_files(tmp_path, folder):
    image, label = ct_case(tmp_path / folder, (48, 40, 24), (1, 1, 4), (12, 11, 10))
    config = config_of(explore(image, label))
    (case,) = find_dataset(config).cases
    assert (case.images, case.label) == ((image,), label)
    stored = open_case(case, build_preprocessing(config, build_classes(config)), tmp_path / "cache")
    assert stored.images.shape[2:] == (48, 48)  # 48 × 40 pixels, padded to the network's multiple
    assert stored.foreground.sum() == 20


@settings(max_examples=100, deadline=None)
@given(
    st.text(st.characters(exclude_characters="\0\n\r", exclude_categories=["Cs"]), min_size=1, max_size=20)
    | st.lists(st.sampled_from(["\\", "$", "{", "}", "${", '"', "'", ",", "=", "a", " "]), min_size=1).map("".join)
)
def test_any_path_survives_parsing_by_hydra(name):
    path = Path("/data") / name.replace("/", "\\")
    for text in (hydra_override("data.image", path), f"data.image={quoted(path)}"):
        (override,) = OverridesParser.create().parse_overrides([text])
        assert OmegaConf.create({"image": override.value()}).image == str(path)


def test_the_suggestion_for_the_small_test_ct_composes(tmp_path):
    ct = small_ct(tmp_path)
    config = config_of(explore(ct.image, ct.label, organ=(3, 4)))
    assert config.data.label_values == [3, 4]
    assert config.img_size == 57  # 48 voxels of 1.5 mm; the other side's voxels are 1.25 mm


def test_the_suggestion_for_a_real_ct_composes(spleen_ct):
    exploration = explore(spleen_ct / "image.nii.gz", spleen_ct / "label.nii.gz")
    config = config_of(exploration)
    assert (config.axis, config.img_size, config.intensity.kind) == ("coronal", 112, "ct")
