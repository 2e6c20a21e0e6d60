from math import exp

import pytest
import torch
from monai.inferers import sliding_window_inference
from torch import nn

from spleen.errors import InputError
from spleen.models.padding import PadToMultiple
from spleen.models.unet import UNet
from spleen.models.windows import OverlappingWindows, gaussian_weights, window_starts


def _convolutions():
    """A small network that sees 4 pixels in each direction and pads with zeros, so that window borders matter."""
    torch.manual_seed(0)
    layers = [nn.Conv2d(2, 5, 5, padding=2), nn.Tanh(), nn.Conv2d(5, 3, 5, padding=2)]
    return nn.Sequential(*layers).eval()


class _InputRecorder(nn.Module):
    """Records the inputs of its network."""

    def __init__(self, network):
        super().__init__()
        self.network = network
        self.seen = []

    def forward(self, image):
        self.seen.append(image)
        return self.network(image)


class _Mean(nn.Module):
    """Sets every pixel to the mean of its window."""

    def forward(self, image):
        return image.mean((2, 3), keepdim=True).expand_as(image)


@pytest.mark.parametrize(
    ("size", "crop_size", "overlap"),
    [((37, 53), 16, 0.5), ((40, 16), 16, 0.5), ((33, 70), 15, 0.5), ((10, 45), 16, 0.5), ((29, 31), 12, 0.25)],
)
def test_averaged_windows_match_monai(size, crop_size, overlap):
    network = _convolutions()
    image = torch.randn(3, 2, *size, generator=torch.Generator().manual_seed(1))
    roi = [min(side, crop_size) for side in size]
    with torch.no_grad():
        expected = sliding_window_inference(image, roi, 4, network, overlap, mode="gaussian", sigma_scale=0.125)
        found = OverlappingWindows(network, crop_size, overlap).eval()(image)
        assert (found - network(image)).abs().max() > 1e-3  # window borders do have an effect
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)


def test_two_windows_match_hand_computed_values():
    image = torch.arange(6.0).view(1, 1, 1, 6)
    # Windows of 4 at 0 and 2, with means 1.5 and 3.5. Sigma is half a pixel, so the weight is exp(-1/2) half a pixel
    # from the centre, and exp(-9/2) one and a half pixels from it.
    near, far = exp(-0.5), exp(-4.5)
    third, fourth = ((1.5 * a + 3.5 * b) / (near + far) for a, b in ((near, far), (far, near)))
    found = OverlappingWindows(_Mean(), 4).eval()(image)
    torch.testing.assert_close(found, torch.tensor([[[[1.5, 1.5, third, fourth, 3.5, 3.5]]]]))


@pytest.mark.parametrize(
    ("side", "window", "overlap", "starts"),
    [
        (16, 16, 0.5, [0]),
        (17, 16, 0.5, [0, 1]),
        (32, 16, 0.5, [0, 8, 16]),
        (37, 16, 0.5, [0, 8, 16, 21]),
        (33, 15, 0.5, [0, 7, 14, 18]),
        (20, 8, 0.0, [0, 8, 12]),
        (5, 2, 0.9, [0, 1, 2, 3]),
    ],
)
def test_windows_cover_a_side_and_the_last_one_ends_at_its_edge(side, window, overlap, starts):
    assert window_starts(side, window, overlap) == starts


def test_gaussian_weights_match_hand_computed_values():
    weights = gaussian_weights((3, 16), torch.device("cpu"))
    # Sigma is 3/8 of a pixel along h and 2 pixels along w; the centre along w lies between two pixels.
    assert weights[1, 8] == pytest.approx(exp(-0.5 * 0.25**2))
    assert weights[1, 14] == pytest.approx(exp(-0.5 * 3.25**2))
    assert weights[0, 8] == pytest.approx(exp(-0.5 * (8 / 3) ** 2 - 0.5 * 0.25**2))
    assert weights[0, 0] == pytest.approx(0.001)
    torch.testing.assert_close(weights, weights.flip(0, 1))


@pytest.mark.parametrize("size", [(37, 53), (16, 17), (9, 64), (120, 31)])
def test_a_1_x_1_convolution_gives_the_same_logits_in_windows_as_on_the_whole_slice(size):
    torch.manual_seed(0)
    network = nn.Conv2d(3, 4, 1)
    image = torch.randn(2, 3, *size)
    found = OverlappingWindows(network, 16).eval()(image)
    torch.testing.assert_close(found, network(image), rtol=1e-5, atol=1e-6)


def test_a_constant_network_gives_constant_logits():
    network = nn.Conv2d(1, 3, 1)
    nn.init.zeros_(network.weight)
    network.bias.data = torch.tensor([-7.0, 0.25, 1000.0])
    logits = OverlappingWindows(network, 8).eval()(torch.randn(2, 1, 21, 30))
    torch.testing.assert_close(logits, network.bias.view(1, 3, 1, 1).expand(2, 3, 21, 30))


def test_the_network_gets_windows_of_one_size_in_batches_of_one_per_slice():
    recorder = _InputRecorder(_convolutions())
    with torch.no_grad():
        OverlappingWindows(recorder, 16).eval()(torch.randn(3, 2, 37, 53))
    # At 0, 8, 16, 21 along h and at 0, 8, 16, 24, 32, 37 along w.
    assert [tuple(image.shape) for image in recorder.seen] == [(3, 2, 16, 16)] * 24


@pytest.mark.parametrize(("training", "size"), [(True, (37, 53)), (False, (16, 12))])
def test_in_training_and_for_small_slices_the_network_gets_the_whole_slice(training, size):
    recorder = _InputRecorder(_convolutions())
    image = torch.randn(3, 2, *size)
    logits = OverlappingWindows(recorder, 16).train(training)(image)
    assert [seen is image for seen in recorder.seen] == [True]
    torch.testing.assert_close(logits, recorder.network(image))
    logits.sum().backward()
    assert recorder.network[0].weight.grad.abs().sum() > 0


def test_low_precision_logits_are_accumulated_in_float32():
    torch.manual_seed(0)
    network = nn.Conv2d(3, 4, 1)
    image = torch.randn(2, 3, 37, 53)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        whole = network(image)
        found = OverlappingWindows(network, 16).eval()(image)
    assert whole.dtype == torch.bfloat16
    assert found.dtype == torch.float32
    # All windows give the same logits for a pixel, and so must their mean; bfloat16 would be off by up to 1 in 256.
    torch.testing.assert_close(found, whole.float(), rtol=1e-5, atol=1e-6)


def test_windows_of_channels_last_slices_are_channels_last():
    recorder = _InputRecorder(_convolutions().to(memory_format=torch.channels_last))
    image = torch.randn(3, 2, 20, 24).contiguous(memory_format=torch.channels_last)
    with torch.no_grad():
        found = OverlappingWindows(recorder, 16).eval()(image)
        expected = OverlappingWindows(_convolutions(), 16).eval()(image.contiguous())
    # A window is a view: its channels are contiguous, and its rows are a whole slice row apart.
    assert {seen.stride() for seen in recorder.seen} == {image.stride()}
    assert found.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


def test_the_state_dict_contains_the_network_under_the_name_network():
    unet = UNet(1, 2, width=2, depth=2)
    windows = OverlappingWindows(unet, 8)
    assert list(windows.state_dict()) == list(PadToMultiple(unet, 4).state_dict())
    other = OverlappingWindows(UNet(1, 2, width=2, depth=2), 12)
    other.load_state_dict(windows.state_dict())
    assert torch.equal(other.network.head.weight, unet.head.weight)


@pytest.mark.parametrize(("size", "crop_size"), [((37, 53), 16), ((37, 53), 15), ((5, 33), 8)])
def test_a_padded_unet_accepts_any_slice_and_window_size(size, crop_size):
    torch.manual_seed(0)
    network = OverlappingWindows(PadToMultiple(UNet(1, 3, width=2, depth=3), 8), crop_size).eval()
    with torch.no_grad():
        logits = network(torch.randn(2, 1, *size))
    assert logits.shape == (2, 3, *size)
    assert logits.isfinite().all()


class _Doubled(nn.Module):
    def forward(self, image):
        return image * 2


def test_only_the_network_is_compiled_once_for_all_windows():
    compiled = []

    def backend(graph, example_inputs):
        compiled.append([image.shape for image in example_inputs])
        return graph.forward

    windows = OverlappingWindows(_Doubled(), 16).eval()
    windows.compile(backend=backend, dynamic=False)
    image = torch.randn(1, 2, 37, 53)
    torch.testing.assert_close(windows(image), image * 2)
    assert compiled == [[(1, 2, 16, 16)]]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"crop_size": 0}, "crop_size must be at least 1 pixel; got 0"),
        ({"crop_size": 8, "overlap": 1.0}, "overlap .* at least 0 and below 1; got 1.0"),
        ({"crop_size": 8, "overlap": -0.1}, "overlap .* at least 0 and below 1; got -0.1"),
    ],
)
def test_invalid_arguments_are_rejected(arguments, message):
    with pytest.raises(InputError, match=message):
        OverlappingWindows(nn.Identity(), **arguments)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("dtype", [None, torch.bfloat16])
def test_cuda_matches_cpu(dtype):
    windows = OverlappingWindows(_convolutions(), 16).eval()
    image = torch.randn(3, 2, 37, 53).contiguous(memory_format=torch.channels_last)
    with torch.no_grad():
        expected = windows(image)
        with torch.autocast("cuda", dtype or torch.float16, enabled=dtype is not None):
            found = windows.cuda()(image.cuda())
    assert found.dtype == torch.float32
    tolerance = 1e-4 if dtype is None else 0.03
    torch.testing.assert_close(found.cpu(), expected, rtol=tolerance, atol=tolerance)
