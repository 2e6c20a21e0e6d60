"""Every shipped YAML file composes, matches the schema, builds its objects, and comments every value."""

import sys
from collections.abc import Iterator
from dataclasses import fields, replace
from pathlib import Path

import pytest
import torch
import yaml

from spleen.config import factory as build
from spleen.config import factory as build_model
from spleen.config.checking.checks import check
from spleen.config.datasets import complete, find_dataset
from spleen.config.patches import complete_patches
from spleen.config.preprocessing import build_classes, build_preprocessing
from spleen.data.augmentation.settings import AugmentSettings
from spleen.data.loading.datamodule import LoaderSettings
from spleen.data.splits.blocks import SliceSplitSettings
from spleen.errors import InputError
from spleen.evaluation.metrics.per_case import MeanScores
from spleen.imaging.intensity import CtWindow, MrPercentiles, ZScore
from spleen.models.factory import build_network
from spleen.runs.tracking.settings import build_wandb_settings
from spleen.training.optimiser import OptimiserSettings
from tests._helpers.many_cases import many_cases
from tests._helpers.small_run import REPOSITORY, compose_config
from tests._helpers.smp import models

CONF = REPOSITORY / "conf"
OPTIONS = sorted(str(path.relative_to(CONF).with_suffix("")) for path in CONF.glob("*/*.yaml"))
MODELS = [option for option in OPTIONS if option.startswith("model/")]
MODELS_3D = [option for option in MODELS if option.endswith("3d")]
# Required overrides of each data option.
FILES = {
    "data/nifti": ("data.image=ct.nii.gz", "data.label=organ.nii.gz"),
    "data/decathlon": ("data.root=Task09_Spleen", "data.label_values=[1]", "intensity=ct"),
    "data/nnunet": ("data.root=Dataset009_Spleen", "data.label_values=[1]", "intensity=ct"),
    "data/folder": ("data.images=images", "data.labels=labels"),
    "data/table": ("data.table=cases.csv",),
}


@pytest.mark.parametrize("option", OPTIONS)
def test_every_option_composes_passes_the_checks_and_builds(option: str) -> None:
    group, name = option.split("/")
    config = compose_config(f"{group}={name}", *FILES.get(option, ()))
    check(config)
    if option == "intensity/auto":
        config = complete(config, find_dataset(config))
    if option in MODELS_3D:
        config = replace(config, crop_size=[8, 32, 32])  # otherwise read off the data
    classes = build_classes(config)
    build_preprocessing(config, classes)
    build.build_split_settings(config)
    build.build_loader_settings(config)
    build.build_optimiser_settings(config)
    build.build_augment_settings(config)
    build_wandb_settings(config, Path("outputs/train/run"))


@pytest.mark.parametrize("option", [option for option in OPTIONS if option.startswith("loss/")])
def test_every_loss_decreases_as_logits_approach_the_label(option: str) -> None:
    loss = build.build_loss(compose_config(f"loss={option.removeprefix('loss/')}"))
    label = torch.zeros(2, 1, 5, 7, dtype=torch.uint8)
    label[0, 0, 1:3, 2:5], label[1, 0, 3:, :2] = 1, 2
    right = torch.nn.functional.one_hot(label[:, 0].long(), 3).movedim(-1, 1).float()
    values = [float(loss(scale * right, label)) for scale in (-2.0, 0.0, 2.0, 6.0)]
    assert values == sorted(values, reverse=True)
    assert len(set(values)) == 4


@pytest.mark.parametrize("option", models(sorted({*MODELS} - {*MODELS_3D})))
def test_every_network_maps_slices_of_any_size_to_logits_and_propagates_gradients(option: str) -> None:
    torch.manual_seed(0)
    config = compose_config(
        "data=nifti", "data.label_values={front: 1, back: 2}", "context_slices=1",
        f"model={option.removeprefix('model/')}",
    )  # fmt: skip
    network = build_network(build_model.build_spec(config))
    image = torch.randn(2, 3, 33, 18, requires_grad=True)
    logits = network(image)
    logits.square().mean().backward()
    assert logits.shape == (2, 3, 33, 18)
    assert all(p.grad is not None and p.grad.isfinite().all() for p in network.parameters() if p.requires_grad)


@pytest.mark.parametrize("option", MODELS_3D)
def test_every_3d_network_maps_patches_and_volumes_of_any_size_to_logits(option: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    data = many_cases(tmp_path / "cases", 2)  # of coarse slices: not all levels convolve or halve all axes
    config = compose_config(*data.decathlon, "intensity=ct", "axis=axial", f"model={option.removeprefix('model/')}")
    dataset = find_dataset(config)
    config = complete_patches(complete(config, dataset), dataset.cases)
    network = build_network(build_model.build_spec(config))
    depth, height, width = config.crop_size
    logits = network(torch.randn(2, 1, depth, height, width))
    logits.square().mean().backward()
    assert logits.shape == (2, 3, depth, height, width)
    assert all(p.grad is not None and p.grad.isfinite().all() for p in network.parameters() if p.requires_grad)
    with torch.no_grad():
        assert network(torch.randn(depth + 3, 1, height - 5, width)).shape == (depth + 3, 3, height - 5, width)


def test_the_builders_pass_on_every_setting() -> None:
    config = compose_config(
        "split.val_fraction=0.11", "split.test_fraction=0.22", "split.test_blocks=3", "split.guard_mm=4.5",
        "split.seed=6", "batch_size=7", "loader.slices_per_epoch=70", "loader.foreground_fraction=0.3",
        "loader.num_workers=2", "context_slices=2", "seed=9", "lr=0.05", "optimiser.weight_decay=0.04",
        "optimiser.beta1=0.8", "optimiser.beta2=0.95", "schedule=polynomial", "schedule.warmup_fraction=0.2",
        "schedule.power=1.5", "schedule.final_factor=0.03", "augment=none", "augment.flips=[left_right]",
        "augment.noise_std=0.07",
    )  # fmt: skip
    assert build.build_split_settings(config) == SliceSplitSettings(
        val_fraction=0.11, test_fraction=0.22, test_blocks=3, guard_mm=4.5, seed=6
    )
    assert build.build_loader_settings(config) == LoaderSettings(
        batch_size=7, slices_per_epoch=70, foreground_fraction=0.3, num_workers=2, context_slices=2, seed=9
    )
    assert build.build_optimiser_settings(config) == OptimiserSettings(
        lr=0.05, weight_decay=0.04, betas=(0.8, 0.95),
        schedule="polynomial", warmup_fraction=0.2, power=1.5, final_factor=0.03,
    )  # fmt: skip
    augment = build.build_augment_settings(config)
    assert (augment.flips, augment.noise_std, augment.rotation_deg) == (("left_right",), 0.07, 0.0)


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        (("intensity=ct", "intensity.window_level=30", "intensity.window_width=250"), CtWindow(30.0, 250.0)),
        (("intensity=mr", "intensity.low_percentile=2", "intensity.high_percentile=97"), MrPercentiles(2.0, 97.0)),
        (("intensity=zscore", "intensity.clip=4"), ZScore(4.0)),
    ],
)
def test_intensity_and_slicing_settings_reach_the_preprocessing(overrides: tuple[str, ...], expected: object) -> None:
    config = compose_config(
        *overrides, "axis=sagittal", "img_size=96", "resize=stretch", "model.size_multiple=32", "grid_tolerance_mm=0.3"
    )
    settings = build_preprocessing(config, build_classes(config))
    assert settings.intensity == expected
    assert (settings.axis, settings.img_size, settings.resize) == ("sagittal", 96, "stretch")
    assert (settings.size_multiple, settings.grid_tolerance_mm) == (32, 0.3)


@pytest.mark.parametrize("name", [*(field.name for field in fields(MeanScores)), "background"])
@pytest.mark.parametrize(("organ", "values"), [("NAME", "null"), ("NAME", "[3,4]"), ("organ", "{NAME: 3}")])
def test_class_names_reserved_in_the_summary_are_rejected(name: str, organ: str, values: str) -> None:
    config = compose_config(
        *("data=nifti", *FILES["data/nifti"], f"data.organ={organ}".replace("NAME", name)),
        f"data.label_values={values}".replace("NAME", name),
    )
    with pytest.raises(InputError, match=f"'{name}' is not allowed as a class name"):
        build_classes(config)


def test_every_augmentation_file_lists_all_settings() -> None:
    expected = {field.name for field in fields(AugmentSettings)}
    for path in (CONF / "augment").glob("*.yaml"):
        assert set(yaml.safe_load(path.read_text())) == expected, path.name


def test_an_unknown_augmentation_setting_is_rejected() -> None:
    config = compose_config("+augment.rotaton_deg=3")
    with pytest.raises(InputError, match=r"unknown key 'augment\.rotaton_deg'.*rotation_deg"):
        build.build_augment_settings(config)


@pytest.mark.parametrize(
    ("override", "expected_parts"),
    [
        ("model.network._target_=monai.networks.nets.UNett", ["model.network", "UNett"]),
        ("model.network._target_=no_such_package.Net", ["model.network", "no_such_package"]),
        ("model.network._target_=builtins.dict", ["model.network", "dict"]),
        ("+model.network.norn=batch", ["model.network", "norn"]),
        ("model.out_channels_argument=n_classes", ["model.network", "n_classes"]),
    ],
)
def test_a_network_that_cannot_be_built_is_reported_by_name(override: str, expected_parts: list[str]) -> None:
    with pytest.raises(InputError) as caught:
        build_network(build_model.build_spec(compose_config("model=monai_basic_unet", override)))
    assert all(part in str(caught.value) for part in expected_parts), caught.value


@pytest.mark.parametrize(("option", "name"), [("model=monai_segresnet", "model.network"), ("loss=tversky", "loss")])
def test_without_monai_the_error_contains_the_install_command(
    monkeypatch: pytest.MonkeyPatch, option: str, name: str
) -> None:
    monkeypatch.setitem(sys.modules, "monai", None)  # makes the import fail
    config = compose_config(option)
    setting = config.loss if name == "loss" else config.model.network
    with pytest.raises(InputError, match=rf"^{name}: monai\..* is not installed; .*pip install 'monai>=1\.5'$"):
        build_model.build_part(name, setting)


def test_a_custom_network_needs_only_one_yaml_file(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "mine.yaml").write_text(
        """
        name: mine
        size_multiple: 4
        in_channels_argument: in_channels
        out_channels_argument: out_channels
        network: {_target_: torch.nn.Conv2d, kernel_size: 3, padding: 1}
        """
    )
    config = compose_config("model=mine", f"hydra.searchpath=[file://{tmp_path}]", "context_slices=1")
    network = build_network(build_model.build_spec(config))
    assert network(torch.zeros(1, 3, 5, 7)).shape == (1, 2, 5, 7)


def _values(node: yaml.Node, key: str = "") -> Iterator[tuple[str, yaml.Node]]:
    """Every value that is not a mapping, with its dotted key."""
    if isinstance(node, yaml.MappingNode) and not node.flow_style:
        for name, value in node.value:
            yield from _values(value, f"{key}.{name.value}".removeprefix("."))
    else:
        yield key, node


@pytest.mark.parametrize("path", sorted(CONF.rglob("*.yaml")), ids=lambda path: str(path.relative_to(CONF)))
def test_every_value_has_a_comment_on_or_above_its_line(path: Path) -> None:
    text = path.read_text()
    lines = text.splitlines()
    uncommented = []
    for key, node in _values(yaml.compose(text)):
        # The list of groups is explained by --help; `_target_` is self-explanatory.
        if key == "defaults" or key.endswith("_target_") or key.startswith("hydra."):
            continue
        line = node.start_mark.line
        above = lines[line - 1].strip() if line else ""
        if "#" not in lines[line] and not above.startswith("#"):
            uncommented.append(key)
    assert uncommented == []
