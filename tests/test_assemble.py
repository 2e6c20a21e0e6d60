import numpy as np
import pytest
import torch
from PIL import Image
from scipy.special import softmax

from spleen.assemble import native_prediction
from spleen.slicing import InPlaneGrid


def _logits(n_classes, height, width, seed=0):
    return 2 * torch.randn(2, n_classes, height, width, generator=torch.Generator().manual_seed(seed))


def _by_pillow(planes, size):
    return np.asarray(Image.fromarray(planes.astype(np.float32)).resize(size[::-1], Image.Resampling.BILINEAR))


@pytest.mark.parametrize("n_classes", [2, 4])
@pytest.mark.parametrize("native", [(23, 50), (9, 11)], ids=["grown", "shrunk"])
def test_probabilities_are_resampled_back_and_only_then_decided(n_classes, native):
    """By SciPy and Pillow, without the padding; deciding first would place the border elsewhere."""
    grid = InPlaneGrid(native, resampled=(13, 31), padded=(16, 32))
    logits = _logits(n_classes, 16, 32)
    logits[:, 0, 13:] = logits[:, 0, :, 31:] = -50  # the padding claims to be organ
    prediction = native_prediction(logits, grid)
    assert prediction.shape == (2, *native)
    assert prediction.dtype == torch.uint8
    probabilities = softmax(logits[:, :, :13, :31].double().numpy(), axis=1)
    for ours, case in zip(prediction.numpy(), probabilities, strict=True):
        shares = np.stack([_by_pillow(share, native) for share in case])
        first, second = np.sort(shares, axis=0)[[-1, -2]]
        clear = first - second > 1e-5
        assert clear.mean() > 0.99
        np.testing.assert_array_equal(ours[clear], shares.argmax(0)[clear])


def test_the_short_way_for_one_organ_decides_as_the_long_way_for_several():
    """A third class of no probability sends the same slices along the way of several classes."""
    grid = InPlaneGrid((23, 50), resampled=(13, 31), padded=(16, 32))
    logits = _logits(2, 16, 32)
    with_third = torch.cat([logits, torch.full((2, 1, 16, 32), -1e4)], dim=1)
    assert torch.equal(native_prediction(logits, grid), native_prediction(with_third, grid))


def test_half_precision_logits_are_scored_in_single_precision():
    """The organ is a little likelier, by logits 2⁻⁷ apart; a softmax in 16 bits would round that to a tie."""
    logits = torch.tensor([1.0, 1.0 + 2**-7]).to(torch.bfloat16).reshape(1, 2, 1, 1).expand(1, 2, 5, 7)
    assert native_prediction(logits, InPlaneGrid((5, 7), (5, 7), (5, 7))).all()
