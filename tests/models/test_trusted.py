"""Which networks from an untrusted checkpoint are built, and which are not."""

import importlib
import sys
from pathlib import Path
from types import ModuleType

import pytest
import yaml
from torch import nn

from spleen.errors import InputError
from spleen.models.trusted import check_network_setting
from tests._helpers.smp import models

MODELS = sorted((Path(__file__).parents[2] / "conf" / "model").glob("*.yaml"))


@pytest.mark.parametrize("path", models(MODELS), ids=lambda path: path.stem)
def test_every_shipped_network_is_trusted(path: Path) -> None:
    check_network_setting(yaml.safe_load(path.read_text())["network"], allow_custom_code=False)


@pytest.mark.parametrize(
    "target",
    [
        "os.system",
        "subprocess.Popen",
        "builtins.eval",
        "builtins.exec",
        "runpy.run_path",
        "torch.load",
        "torch.hub.load",
        "hydra.utils.instantiate",
        "monai.bundle.load",  # downloads
        "monai.networks.utils.copy_model_state",  # in a trusted package, but not a network
        "monai.networks.nets.resnet.resnet18",  # a function
        "torch.nn.Parameter",  # a class, but not a network
        "torch.nn.init.zeros_",
        "spleen.models",  # a module
        "spleen.runs.train.run",
        "UNet",
        "",
        ".",
        "monai.networks..nets.UNet",
        "monai.networks.nets.UNet.__init__",
    ],
)
def test_anything_but_a_network_class_of_a_trusted_library_is_rejected(target: str) -> None:
    with pytest.raises(InputError, match=r"its network (is|needs)"):
        check_network_setting({"_target_": target}, allow_custom_code=False)


@pytest.mark.parametrize(
    ("module", "names"),
    [
        ("monai.networks.nets.resnet", "torch.hub.load"),
        ("monai.networks.nets.resnet", "logging.os.system"),
        ("torch.nn.modules.module", "functools.partial"),
        ("torch.nn.modules.module", "warnings.sys.exit"),
        ("spleen.models.unet", "torch.load"),
    ],
)
def test_targets_reached_through_the_imports_of_a_trusted_module_are_rejected(module: str, names: str) -> None:
    found: object = importlib.import_module(module)
    for name in names.split("."):
        found = getattr(found, name)  # the attribute does exist
    assert found is not None
    with pytest.raises(InputError, match=r"its network (is|needs)"):
        check_network_setting({"_target_": f"{module}.{names}"}, allow_custom_code=False)


@pytest.mark.parametrize(
    ("module", "defining_module"),
    [("torch.nn", "torch.ao.elsewhere"), ("spleen.modelsmith", "spleen.modelsmith")],
    ids=["imported into a trusted module", "in a module that only shares a prefix with a trusted one"],
)
def test_trust_depends_on_the_module_that_defines_the_class(
    monkeypatch: pytest.MonkeyPatch, module: str, defining_module: str
) -> None:
    network = type("Elsewhere", (nn.Module,), {"__module__": defining_module})
    if module == defining_module:
        monkeypatch.setitem(sys.modules, module, ModuleType(module))
    monkeypatch.setattr(sys.modules[module], "Elsewhere", network, raising=False)
    with pytest.raises(InputError, match=rf"its network is '{module}\.Elsewhere'"):
        check_network_setting({"_target_": f"{module}.Elsewhere"}, allow_custom_code=False)


@pytest.mark.parametrize(
    "argument",
    [
        {"kernel_size": {"_target_": "os.system", "command": "true"}},
        {"layers": [3, [{"act": {"_target_": "os.system"}}]]},
        {"_args_": [{"_target_": "os.system"}]},
        {"kernel_size": {"_target_": ["os.system"]}},
        {"kernel_size": {"_target_": {"_target_": "os.system"}}},
    ],
    ids=str,
)
def test_targets_nested_in_arguments_are_checked(argument: dict) -> None:
    with pytest.raises(InputError, match="its network is '"):
        check_network_setting({"_target_": "torch.nn.Conv2d", **argument}, allow_custom_code=False)


def test_a_trusted_network_nested_in_an_argument_is_accepted() -> None:
    inner = {"_target_": "torch.nn.Identity"}
    check_network_setting({"_target_": "torch.nn.Sequential", "_args_": [inner]}, allow_custom_code=False)


@pytest.mark.parametrize(
    "argument",
    [
        {"pretrained": True},
        {"use_pretrained": "yes"},
        {"pretrained_url": "x"},
        {"checkpoint": "weights"},
        {"model_path": "weights"},
        {"inner": {"weights_file": "x"}},
        {"encoder_name": "tu-hf-hub:someone/something"},
        {"backbone": "/tmp/weights"},
        {"names": ["..\\weights"]},
        {"weights": "https://example.org/weights.pt"},
    ],
    ids=str,
)
def test_an_argument_that_may_load_files_is_rejected(argument: dict) -> None:
    with pytest.raises(InputError, match=r"its network is built with .*, which may load files; .* --allow-custom-code"):
        check_network_setting({"_target_": "monai.networks.nets.UNet", **argument}, allow_custom_code=False)


@pytest.mark.parametrize("argument", [{"pretrained": False}, {"checkpoint": None}, {"norm": "instance"}], ids=str)
def test_an_argument_that_loads_no_files_is_accepted(argument: dict) -> None:
    check_network_setting({"_target_": "monai.networks.nets.UNet", **argument}, allow_custom_code=False)


@pytest.mark.parametrize("target", ["os.system", "my.own.Network"])
def test_allow_custom_code_accepts_everything(target: str) -> None:
    check_network_setting({"_target_": target, "pretrained": True}, allow_custom_code=True)


def test_a_library_that_is_not_installed_is_reported() -> None:
    with pytest.raises(InputError, match=r"needs the module 'monai\.networks\.nets\.nowhere', which is not installed"):
        check_network_setting({"_target_": "monai.networks.nets.nowhere.UNet"}, allow_custom_code=False)


OWN = {"_target_": "my.Net", "widths": [8, 16], "norm": {"_target_": "my.Norm"}, "pretrained": False}


@pytest.mark.parametrize(
    ("change", "accepted"),
    [
        ({}, True),
        ({"widths": [4, 4, 4], "in_channels": 1, "slope": 0.1}, True),
        ({"norm": {"_target_": "my.Norm", "groups": 4}}, True),
        ({"norm": {"_target_": "os.system"}}, False),
        ({"widths": ["os.system"]}, False),
        ({"pretrained": True}, False),
        ({"hook": {"_target_": "my.Norm"}}, False),
    ],
)
def test_a_training_takes_its_own_network_with_other_numbers_only(change: dict[str, object], accepted: bool) -> None:
    if accepted:
        check_network_setting(OWN | change, allow_custom_code=False, own=OWN)
    else:
        with pytest.raises(InputError, match=r"network of your own is taken where model\.network is the same"):
            check_network_setting(OWN | change, allow_custom_code=False, own=OWN)
