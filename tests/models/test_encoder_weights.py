"""Weights of an encoder from a file: which tensors go where, and what the first convolution makes of grey images."""

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from spleen.errors import InputError
from spleen.imaging.intensity import CtWindow, ZScore
from spleen.models.encoder_weights import IMAGENET_STD, adapted_to_grey, read_encoder_weights, start_encoder
from tests._helpers.smp import needs_smp

CT = CtWindow(50, 400)


def encoder(channels: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(channels, 4, 3, bias=False), nn.BatchNorm2d(4), nn.Conv2d(4, 5, 1))


def colours() -> dict[str, Tensor]:
    """The weights of such an encoder of colour images, with a classifier."""
    torch.manual_seed(1)
    return {**encoder(3).state_dict(), "fc.weight": torch.zeros(2, 5), "fc.bias": torch.zeros(2)}


def test_a_grey_image_gives_what_the_network_makes_of_it_in_three_colours() -> None:
    """0 … 1 in each colour, divided by ImageNet's standard deviation, but for the mean."""
    convolution, image = colours()["0.weight"].double(), torch.rand(1, 1, 6, 5).double() * 2 - 1
    std = torch.tensor(IMAGENET_STD).double().view(1, 3, 1, 1)
    expected = nn.functional.conv2d((image / 2).expand(1, 3, 6, 5) / std, convolution)
    torch.testing.assert_close(nn.functional.conv2d(image, adapted_to_grey(convolution, 1, CT)), expected)
    # Neighbouring slices that look the same are as bright together as one.
    alike = nn.functional.conv2d(image.expand(1, 3, 6, 5), adapted_to_grey(convolution, 3, CT))
    torch.testing.assert_close(alike, expected)


@needs_smp
@pytest.mark.parametrize("channels", [1, 2, 3, 5])
def test_the_first_convolution_is_adapted_as_the_library_does_it(channels: int) -> None:
    from segmentation_models_pytorch.encoders import get_encoder

    theirs = get_encoder("resnet18", in_channels=3, weights=None)
    weight = theirs.conv1.weight.detach().clone()
    theirs.set_in_channels(channels, pretrained=True)
    torch.testing.assert_close(adapted_to_grey(weight, channels, ZScore(5)), theirs.conv1.weight.detach())


def test_all_tensors_are_taken_and_the_classifier_is_not_used() -> None:
    weights = colours()
    start = start_encoder(encoder(2), weights, 2, ZScore(5))
    assert (start.first_layer, start.unused) == ("0.weight", ("fc.weight", "fc.bias"))
    assert torch.equal(start.state["2.weight"], weights["2.weight"])
    torch.testing.assert_close(start.state["0.weight"], weights["0.weight"][:, :2] * 1.5)


def test_names_may_differ_in_prefix_dots_and_underscores() -> None:
    network = nn.ModuleDict({"model": nn.ModuleDict({"stem_0": nn.Conv2d(1, 2, 3)})})
    weights = {"stem.0.weight": torch.ones(2, 3, 3, 3), "stem.0.bias": torch.tensor([5.0, 6.0])}
    state = start_encoder(network, weights, 1, ZScore(5)).state
    assert state["model.stem_0.bias"].tolist() == [5, 6]
    assert state["model.stem_0.weight"].unique().tolist() == [3]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"2.weight": None, "1.weight": None}, r"^2 of the encoder's 8 tensors are not in it \(1.weight, 2.weight\); "),
        ({"2.weight": torch.zeros(7, 4, 1, 1)}, r"2.weight is 7 × 4 × 1 × 1 in it and 5 × 4 × 1 × 1 in the encoder"),
        ({"2.bias": torch.full((5,), torch.nan)}, r"contains NaN or Inf \(2.bias\)"),
        ({"0.weight": torch.zeros(4, 4, 3, 3)}, r"0.weight is 4 × 4 × 3 × 3 in it and 4 × 1 × 3 × 3 in the encoder"),
    ],
)
def test_weights_that_do_not_fit_are_refused(change: dict[str, Tensor | None], message: str) -> None:
    weights = {name: value for name, value in {**colours(), **change}.items() if value is not None}
    with pytest.raises(InputError, match=message):
        start_encoder(encoder(1), weights, 1, CT)


def test_weights_that_saw_no_colours_are_refused() -> None:
    with pytest.raises(InputError, match="not one of colour images"):
        start_encoder(encoder(1), encoder(1).state_dict(), 1, CT)


@pytest.mark.parametrize("wrapped", [False, True])
def test_a_file_of_weights_is_read(tmp_path: Path, wrapped: bool) -> None:
    content = {"state_dict": colours(), "epoch": 3} if wrapped else colours()
    torch.save(content, tmp_path / "net.pth")
    assert set(read_encoder_weights(tmp_path / "net.pth")) == set(colours())


def test_a_file_of_safetensors_is_read(tmp_path: Path) -> None:
    safetensors = pytest.importorskip("safetensors.torch", reason="comes with segmentation-models-pytorch")
    safetensors.save_file(colours(), tmp_path / "net.safetensors")
    assert torch.equal(read_encoder_weights(tmp_path / "net.safetensors")["0.weight"], colours()["0.weight"])


def test_files_that_contain_no_weights_are_refused(tmp_path: Path) -> None:
    whole, text, numbers = tmp_path / "whole.pth", tmp_path / "text.pth", tmp_path / "numbers.pth"
    torch.save(encoder(3), whole)
    text.write_text("no weights")
    torch.save({"lr": 1.0}, numbers)
    with pytest.raises(InputError, match=r"whole.pth is refused: .*torch\.save\(network\.state_dict\(\), FILE\)"):
        read_encoder_weights(whole)
    with pytest.raises(InputError, match=r"text.pth (is refused|cannot be read)"):
        read_encoder_weights(text)
    with pytest.raises(InputError, match=r"numbers.pth contains no tensors by name"):
        read_encoder_weights(numbers)
    with pytest.raises(InputError, match=r"none.pth cannot be read: No such file"):
        read_encoder_weights(tmp_path / "none.pth")


@needs_smp
@pytest.mark.parametrize("name", ["resnet18", "tu-resnet18"])
def test_an_encoder_of_the_library_takes_torchvisions_weights(name: str) -> None:
    import segmentation_models_pytorch
    from torchvision.models import resnet18

    torch.manual_seed(3)
    whole = resnet18(weights=None).eval()
    network = segmentation_models_pytorch.Unet(name, encoder_weights=None, in_channels=3).eval()
    start = start_encoder(network.encoder, whole.state_dict(), 3, ZScore(5))
    assert start.unused == ("fc.weight", "fc.bias")
    network.encoder.load_state_dict(dict(start.state))
    image = torch.randn(1, 3, 64, 96)
    features = whole.layer4(
        whole.layer3(whole.layer2(whole.layer1(whole.maxpool(whole.relu(whole.bn1(whole.conv1(image)))))))
    )
    torch.testing.assert_close(network.encoder(image)[-1], features)
