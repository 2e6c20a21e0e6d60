"""Weights from another network: what is carried over, added, left out and fresh, tensor by tensor."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from spleen.errors import InputError
from spleen.imaging.classes import ClassMap
from spleen.imaging.intensity import CtWindow
from spleen.imaging.preprocessing import Preprocessing
from spleen.models.encoder import encoder_parts
from spleen.models.factory import build_network
from spleen.models.spec import ModelSpec
from spleen.models.warm_start import ChannelArguments, WarmStart, folded, warm_start

ARGUMENTS = ChannelArguments("in_channels", "out_channels")
UNET = {"_target_": "spleen.models.unet.UNet", "width": 4, "depth": 2}
MONAI = {
    "UNet": {"channels": [4, 8, 16], "strides": [2, 2], "num_res_units": 2},
    "AttentionUnet": {"channels": [4, 8, 16], "strides": [2, 2]},
    "BasicUNet": {"features": [4, 4, 8, 8, 16, 4]},
    "SegResNet": {"init_filters": 8},
    "DynUNet": {
        "kernel_size": [3, 3, 3],
        "strides": [1, 2, 2],
        "upsample_kernel_size": [2, 2],
        "filters": [4, 8, 16],
        "norm_name": "batch",
    },
}


def monai_network(name: str) -> dict[str, object]:
    return {"_target_": f"monai.networks.nets.{name}", "spatial_dims": 2, **MONAI[name]}


def spec_of(
    network: dict[str, object],
    classes: tuple[str, ...] = ("spleen",),
    context_slices: int = 0,
    channels: int = 1,
    crop_size: int | None = None,
) -> ModelSpec:
    class_map = ClassMap(classes, tuple((value,) for value, _ in enumerate(classes, start=1)))
    preprocessing = Preprocessing(
        axis="axial",
        img_size=32,
        resize="keep_aspect",
        size_multiple=16,
        intensity=CtWindow(50, 400),
        classes=class_map,
        grid_tolerance_mm=0.1,
        n_channels=channels,
    )
    sizes = {"in_channels": channels * (1 + 2 * context_slices), "out_channels": 1 + len(classes)}
    return ModelSpec({**network, **sizes}, preprocessing, context_slices, crop_size, "32")


def built(spec: ModelSpec, seed: int) -> nn.Module:
    torch.manual_seed(seed)
    network = build_network(spec)
    for name, value in network.state_dict().items():  # as a training would leave them: different everywhere
        if value.is_floating_point():
            value.copy_(torch.rand_like(value) + 0.5 if "running_var" in name else torch.randn_like(value))
    return network


def started(spec: ModelSpec, source: ModelSpec) -> tuple[dict[str, Tensor], dict[str, Tensor], WarmStart]:
    """The source's weights, those that a fresh network has before, and the warm start."""
    trained, network = built(source, 1), built(spec, 2)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    start = warm_start(network, spec, ARGUMENTS, trained.state_dict(), source)
    network.load_state_dict(dict(start.state))
    return trained.state_dict(), before, start


@pytest.mark.parametrize("network", [UNET, *map(monai_network, MONAI)], ids=["unet", *MONAI])
def test_the_same_network_is_carried_over_as_a_whole(network: dict[str, object]) -> None:
    spec = spec_of(network, context_slices=1)
    trained, _, start = started(spec, spec)
    torch.testing.assert_close(dict(start.state), trained, rtol=0, atol=0)
    assert [line.rpartition(": ")[2] for line in folded(start.layers)] == ["carried over"]


def test_windows_around_the_network_do_not_matter() -> None:
    source = spec_of(UNET, crop_size=32)
    trained, _, start = started(spec_of(UNET), source)
    torch.testing.assert_close(
        start.state["network.encoder.0.0.weight"], trained["network.network.encoder.0.0.weight"], rtol=0, atol=0
    )
    assert all(layer.is_complete for layer in start.layers)


def test_classes_are_matched_by_name() -> None:
    spec, source = spec_of(UNET, ("kidney", "liver", "spleen")), spec_of(UNET, ("spleen", "tumour", "kidney"))
    trained, before, start = started(spec, source)
    for part in ("weight", "bias"):
        old, fresh, now = (state[f"network.head.{part}"] for state in (trained, before, start.state))
        assert torch.equal(now, torch.stack([old[0], old[3], fresh[2], old[1]]))
    head = start.layers[-1]
    assert (head.layer, head.carried_over, head.is_complete) == ("head", True, False)
    assert head.origin == (
        "classes background, kidney, spleen carried over, liver fresh, tumour of the source left out"
    )


def test_added_context_slices_start_at_zero_and_the_network_computes_the_same() -> None:
    spec, source = spec_of(UNET, context_slices=2, channels=2), spec_of(UNET, context_slices=1, channels=2)
    trained, _, start = started(spec, source)
    old, now = (state["network.encoder.0.0.weight"] for state in (trained, start.state))
    assert torch.equal(now[:, 2:8], old)  # slice by slice: two channels of each of five slices
    assert not now[:, [0, 1, 8, 9]].any()
    small, large = (build_network(each).eval() for each in (source, spec))
    small.load_state_dict(trained)
    large.load_state_dict(dict(start.state))
    image = torch.randn(1, 10, 16, 16)
    torch.testing.assert_close(large(image), small(image[:, 2:8]))
    assert folded(start.layers)[0] == "encoder.0.0: 6 of 10 input channels carried over, 4 new start at zero"


def test_context_slices_that_are_gone_are_added_to_the_nearest_kept_one() -> None:
    trained, _, start = started(spec_of(UNET), spec_of(UNET, context_slices=1))
    old, now = (state["network.encoder.0.0.weight"] for state in (trained, start.state))
    torch.testing.assert_close(now, old.sum(1, keepdim=True))
    assert all(layer.is_complete for layer in start.layers)


def test_an_image_channel_that_is_gone_is_left_out() -> None:
    trained, _, start = started(spec_of(UNET), spec_of(UNET, channels=2))
    assert torch.equal(start.state["network.encoder.0.0.weight"], trained["network.encoder.0.0.weight"][:, :1])


def test_pixels_that_became_channels_stay_with_their_slice_and_class() -> None:
    network = {**UNET, "unshuffle": 2}
    trained, before, start = started(spec_of(network, ("a", "b"), 1), spec_of(network, ("b",)))
    old, now = (state["network.encoder.0.0.weight"] for state in (trained, start.state))
    assert torch.equal(now[:, 4:8], old)
    assert not now[:, :4].any()
    old, fresh, now = (state["network.head.weight"] for state in (trained, before, start.state))
    assert torch.equal(now, torch.cat([old[:4], fresh[4:8], old[4:]]))


@pytest.mark.parametrize("name", MONAI)
def test_other_channels_and_classes_of_monai_networks(name: str) -> None:
    """All but the layers at both ends are carried over as they are, and those by image channel and class."""
    spec = spec_of(monai_network(name), ("liver", "spleen"), context_slices=1)
    trained, before, start = started(spec, spec_of(monai_network(name)))
    changed = [layer for layer in start.layers if not layer.is_complete]
    assert all(layer.carried_over for layer in start.layers)
    assert 2 <= len(changed) <= 6
    for key, value in start.state.items():
        if value.shape == trained[key].shape:
            assert torch.equal(value, trained[key]), key
        elif value.shape[0] == 3 and trained[key].shape[0] == 2 and value.ndim == 1:
            assert torch.equal(value, torch.stack([trained[key][0], before[key][1], trained[key][1]])), key


def test_layers_of_another_shape_start_fresh() -> None:
    deeper = {**UNET, "depth": 3}
    trained, before, start = started(spec_of(deeper), spec_of(UNET))
    assert torch.equal(start.state["network.encoder.2.3.weight"], trained["network.encoder.2.3.weight"])
    for key in ("network.encoder.3.0.weight", "network.up.0.weight", "network.up.0.bias"):
        assert torch.equal(start.state[key], before[key])
    lines = folded(start.layers)
    assert "encoder.3.0 … encoder.3.4 (4 layers): fresh, not in the source" in lines
    assert "up.0: fresh, shape 32 × 16 × 2 × 2 and in the source 16 × 8 × 2 × 2" in lines


@pytest.mark.parametrize("other", [{**UNET, "width": 5}, monai_network("UNet")])
def test_another_network_is_refused(other: dict[str, object]) -> None:
    with pytest.raises(InputError, match=r"none of its layers fits: it is a UNet \(.*\), and this run trains a UNet"):
        started(spec_of(UNET), spec_of(other))


def test_the_random_numbers_of_the_training_stay_the_same() -> None:
    spec = spec_of(UNET)
    network, trained = built(spec, 2), built(spec, 1).state_dict()
    torch.manual_seed(3)
    warm_start(network, spec, ARGUMENTS, trained, spec)
    found = torch.rand(3)
    torch.manual_seed(3)
    assert torch.equal(found, torch.rand(3))


@pytest.mark.parametrize(
    ("network", "expected"),
    [
        (UNET, ["encoder"]),
        (monai_network("BasicUNet"), ["conv_0", "down_1", "down_2", "down_3", "down_4"]),
        (monai_network("DynUNet"), ["input_block", "downsamples", "bottleneck"]),
        (monai_network("SegResNet"), ["convInit", "down_layers"]),
        (monai_network("UNet"), ["model.0", "model.1.submodule.0", "model.1.submodule.1.submodule"]),
        (monai_network("AttentionUnet"), ["model.0", "model.1.submodule.0", "model.1.submodule.1.submodule"]),
    ],
    ids=["unet", "BasicUNet", "DynUNet", "SegResNet", "UNet", "AttentionUnet"],
)
def test_the_encoder_of_each_shipped_network_is_known(network: dict[str, object], expected: list[str]) -> None:
    spec = spec_of(network)
    assert sorted(encoder_parts(build_network(spec))) == sorted(f"network.{part}" for part in expected)
    inside = encoder_parts(build_network(replace(spec, crop_size=32)))
    assert sorted(inside) == sorted(f"network.network.{part}" for part in expected)


def test_a_network_without_an_encoder_is_refused_with_its_parts() -> None:
    spec = spec_of({"_target_": "monai.networks.nets.VNet", "spatial_dims": 2})
    with pytest.raises(
        InputError, match=r"no part of VNet is called encoder; its parts are in_tr, down_tr32, .*out_tr"
    ):
        encoder_parts(build_network(spec))
