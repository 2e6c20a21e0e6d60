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
@pytest.mark.parametrize("native", [(23, 50), (9, 11)], ids=["upsampled", "downsampled"])
def test_probabilities_are_resampled_before_the_class_decision(n_classes, native):
    """Compared with SciPy and Pillow on the unpadded plane; deciding first would move the border."""
    grid = InPlaneGrid(native, resampled=(13, 31), padded=(16, 32))
    logits = _logits(n_classes, 16, 32)
    logits[:, 0, 13:] = logits[:, 0, :, 31:] = -50  # the padding claims to be organ
    prediction = native_prediction(logits, grid)
    assert prediction.shape == (2, *native)
    assert prediction.dtype == torch.uint8
    probabilities = softmax(logits[:, :, :13, :31].double().numpy(), axis=1)
    for ours, case in zip(prediction.numpy(), probabilities, strict=True):
        resampled = np.stack([_by_pillow(plane, native) for plane in case])
        first, second = np.sort(resampled, axis=0)[[-1, -2]]
        clear = first - second > 1e-5
        assert clear.mean() > 0.99
        np.testing.assert_array_equal(ours[clear], resampled.argmax(0)[clear])


def test_the_shortcut_for_one_organ_agrees_with_the_multiclass_path():
    """A third class of zero probability sends the same slices through the multiclass path."""
    grid = InPlaneGrid((23, 50), resampled=(13, 31), padded=(16, 32))
    logits = _logits(2, 16, 32)
    with_third = torch.cat([logits, torch.full((2, 1, 16, 32), -1e4)], dim=1)
    assert torch.equal(native_prediction(logits, grid), native_prediction(with_third, grid))


def test_half_precision_logits_are_scored_in_single_precision():
    """The organ is slightly more probable, by logits 2⁻⁷ apart; a softmax in 16 bits would round that to a tie."""
    logits = torch.tensor([1.0, 1.0 + 2**-7]).to(torch.bfloat16).reshape(1, 2, 1, 1).expand(1, 2, 5, 7)
    assert native_prediction(logits, InPlaneGrid((5, 7), (5, 7), (5, 7))).all()


def test_foreground_probabilities_exclude_the_background_which_is_one_minus_their_sum():
    grid = InPlaneGrid((5, 7), resampled=(5, 7), padded=(8, 8))
    logits = _logits(4, 8, 8)
    foreground = foreground_probabilities(logits, grid)
    expected = softmax(logits.double().numpy(), axis=1)[:, :, :5, :7]
    np.testing.assert_allclose(foreground, expected[:, 1:], atol=1e-6)
    np.testing.assert_allclose(1 - foreground.sum(1), expected[:, 0], atol=1e-6)


def test_class_decisions_match_hand_computed_values():
    """Each column holds two foreground probabilities; the rest up to 1 is background."""
    foreground = torch.tensor([[0.5, 0.51, 0.3, 0.2, 0.45, 0.0, 0.4], [0.0, 0.0, 0.3, 0.5, 0.45, 1.0, 0.25]])
    # With the background, the columns are 0.5 : 0 : 0.5 to 0.4 : 0.25 : 0.35. A tie with the background goes to the
    # background, a tie between the organs to the first.
    assert most_probable_class(foreground[None])[0].tolist() == [0, 1, 0, 2, 1, 2, 1]
    one = torch.tensor([[[0.5, 0.5000001, 0.0, 1.0]]])
    assert most_probable_class(one)[0].tolist() == [0, 1, 0, 1]


@pytest.mark.parametrize("n_organs", [1, 2, 5])
@pytest.mark.parametrize("shape", [(7,), (5, 7), (5, 7, 3)])
def test_the_most_probable_class_is_chosen_in_any_number_of_dimensions(n_organs, shape):
    probabilities = softmax(np.random.default_rng(n_organs).normal(0, 2, (2, n_organs + 1, *shape)), axis=1)
    decision = most_probable_class(torch.from_numpy(probabilities[:, 1:]))
    assert decision.dtype == torch.uint8
    np.testing.assert_array_equal(decision, probabilities.argmax(1))
