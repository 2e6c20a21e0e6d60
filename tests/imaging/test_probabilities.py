import numpy as np
import pytest
import torch
from PIL import Image
from scipy.special import softmax

from spleen.imaging.probabilities import foreground_probabilities, most_probable_class, native_prediction
from spleen.imaging.slicing import InPlaneGrid


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


def test_foreground_probabilities_leave_out_the_background_and_what_is_missing_to_one_is_it():
    grid = InPlaneGrid((5, 7), resampled=(5, 7), padded=(8, 8))
    logits = _logits(4, 8, 8)
    foreground = foreground_probabilities(logits, grid)
    expected = softmax(logits.double().numpy(), axis=1)[:, :, :5, :7]
    np.testing.assert_allclose(foreground, expected[:, 1:], atol=1e-6)
    np.testing.assert_allclose(1 - foreground.sum(1), expected[:, 0], atol=1e-6)


def test_decisions_by_hand():
    """Columns: two foreground probabilities; what is missing to 1 is background."""
    foreground = torch.tensor([[0.5, 0.51, 0.3, 0.2, 0.45, 0.0, 0.4], [0.0, 0.0, 0.3, 0.5, 0.45, 1.0, 0.25]])
    # 0.5 : 0 : 0.5 and 0.4 : 0.25 : 0.35, and so on; a tie with the background goes to it, one of two organs to the
    # first.
    assert most_probable_class(foreground[None])[0].tolist() == [0, 1, 0, 2, 1, 2, 1]
    one = torch.tensor([[[0.5, 0.5000001, 0.0, 1.0]]])
    assert most_probable_class(one)[0].tolist() == [0, 1, 0, 1]


@pytest.mark.parametrize("n_organs", [1, 2, 5])
@pytest.mark.parametrize("shape", [(7,), (5, 7), (5, 7, 3)])
def test_the_likeliest_class_wins_in_any_number_of_dimensions(n_organs, shape):
    shares = softmax(np.random.default_rng(n_organs).normal(0, 2, (2, n_organs + 1, *shape)), axis=1)
    decision = most_probable_class(torch.from_numpy(shares[:, 1:]))
    assert decision.dtype == torch.uint8
    np.testing.assert_array_equal(decision, shares.argmax(1))
