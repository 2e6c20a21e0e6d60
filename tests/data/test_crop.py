import pytest
import torch

from spleen.data.augmentation.crop import crop_batch
from spleen.imaging.labels import IGNORED


def _generator(seed=0):
    return torch.Generator().manual_seed(seed)


def _numbered(count, height, width, channels=1):
    """Slices whose pixels hold their own index; further channels hold multiples of it."""
    numbers = torch.arange(count * height * width).view(count, 1, height, width)
    return numbers * torch.arange(1, channels + 1).view(1, -1, 1, 1).float()


def _corners(image, height, width):
    """Row and column of the first pixel of each window of `_numbered` slices."""
    position = image[:, 0, 0, 0].long() % (height * width)
    return position // width, position % width


def _times_drawn(*indices):
    """How often each combination was drawn."""
    return torch.unique(torch.stack(indices), dim=1, return_counts=True)[1]


def test_image_and_label_are_cropped_to_the_same_window_and_the_input_is_unchanged():
    image = _numbered(200, 11, 14, channels=2)
    label = (image[:, :1] % 7).to(torch.uint8)
    before = image.clone(), label.clone()
    windows, labels = crop_batch(image, label, 4, 0.5, _generator())
    assert windows.shape == (200, 2, 4, 4)
    assert labels.dtype == torch.uint8
    for number, (row, column) in enumerate(zip(*_corners(windows, 11, 14), strict=True)):
        assert torch.equal(windows[number], image[number, :, row : row + 4, column : column + 4])
        assert torch.equal(labels[number], label[number, :, row : row + 4, column : column + 4])
    assert torch.equal(image, before[0])
    assert torch.equal(label, before[1])


@pytest.mark.parametrize("organ", [False, True])
def test_without_a_foreground_fraction_every_window_is_equally_likely(organ):
    image = _numbered(3600, 6, 9)
    label = torch.zeros(3600, 1, 6, 9, dtype=torch.uint8)
    label[..., 2, 3] = organ
    windows, _ = crop_batch(image, label, 4, 0.0, _generator())
    drawn = _times_drawn(*_corners(windows, 6, 9))
    # 3 × 6 positions, 200 draws each, within 5 standard deviations of 14.
    assert len(drawn) == 18
    assert (drawn - 200).abs().max() < 70


@pytest.mark.parametrize(("row", "column", "rows", "columns"), [(5, 6, (2, 5), (3, 6)), (1, 15, (0, 1), (12, 13))])
def test_a_foreground_window_covers_its_pixel_at_a_uniformly_random_offset(row, column, rows, columns):
    image = _numbered(3200, 20, 17)
    label = torch.zeros(3200, 1, 20, 17, dtype=torch.uint8)
    label[..., row, column] = 3
    windows, labels = crop_batch(image, label, 4, 1.0, _generator())
    top, left = _corners(windows, 20, 17)
    assert (labels == 3).sum((1, 2, 3)).tolist() == [1] * 3200
    assert (int(top.min()), int(top.max()), int(left.min()), int(left.max())) == (*rows, *columns)
    drawn = _times_drawn(top, left)
    n_positions = (rows[1] - rows[0] + 1) * (columns[1] - columns[0] + 1)
    assert len(drawn) == n_positions
    assert (drawn - 3200 / n_positions).abs().max() < 5 * (3200 / n_positions) ** 0.5


def test_every_foreground_pixel_is_equally_likely():
    image = _numbered(3500, 5, 8)
    label = torch.zeros(3500, 1, 5, 8, dtype=torch.int64)
    organ = [(0, 7), (2, 0), (2, 1), (2, 2), (2, 5), (4, 0), (4, 7)]
    for row, column in organ:
        label[..., row, column] = 1
    # A window of one pixel is the pixel itself.
    windows, labels = crop_batch(image, label, 1, 1.0, _generator())
    assert labels.all()
    drawn = _times_drawn(*_corners(windows, 5, 8))
    assert len(drawn) == len(organ)
    assert (drawn - 500).abs().max() < 5 * 500**0.5


def test_the_foreground_fraction_applies_to_slices_with_foreground_and_others_are_cropped_uniformly():
    image = _numbered(4000, 30, 30)
    label = torch.zeros(4000, 1, 30, 30, dtype=torch.uint8)
    label[::2, :, 11, 12] = 1
    windows, labels = crop_batch(image, label, 1, 0.3, _generator())
    # 2,000 slices, each with a standard deviation of √(0.3 · 0.7); a random window hits the pixel 1 in 900 times.
    assert labels[::2].float().mean() == pytest.approx(0.3 + 0.7 / 900, abs=5 * (0.21 / 2000) ** 0.5)
    row, column = _corners(windows[1::2], 30, 30)
    # 0 … 29 have a mean of 14.5 and a standard deviation of 8.66.
    assert row.float().mean() == pytest.approx(14.5, abs=5 * 8.66 / 2000**0.5)
    assert column.float().mean() == pytest.approx(14.5, abs=5 * 8.66 / 2000**0.5)


def test_the_same_generator_state_gives_the_same_windows():
    image = _numbered(20, 40, 50)
    label = (image % 5 == 0).to(torch.uint8)
    random = _generator(7)
    first, second = (crop_batch(image, label, 16, 0.5, random) for _ in range(2))
    again = crop_batch(image, label, 16, 0.5, _generator(7))
    assert torch.equal(first[0], again[0])
    assert torch.equal(first[1], again[1])
    assert not torch.equal(first[0], second[0])


@pytest.mark.parametrize(("height", "width"), [(3, 12), (12, 3)])
def test_a_side_shorter_than_the_crop_is_not_cropped(height, width):
    image = _numbered(50, height, width)
    label = torch.zeros(50, 1, height, width, dtype=torch.uint8)
    label[..., height - 1, width - 1] = 1
    windows, labels = crop_batch(image, label, 5, 0.5, _generator())
    assert windows.shape == labels.shape == (50, 1, min(height, 5), min(width, 5))
    top, left = _corners(windows, height, width)
    assert (top == 0).all() == (height == 3)
    assert (left == 0).all() == (width == 3)


@pytest.mark.parametrize("crop_size", [7, 8])
def test_slices_no_larger_than_the_crop_are_returned_unchanged(crop_size):
    image, label = _numbered(2, 7, 5), torch.ones(2, 1, 7, 5, dtype=torch.uint8)
    random = _generator()
    state = random.get_state()
    windows, labels = crop_batch(image, label, crop_size, 0.5, random)
    assert windows is image
    assert labels is label
    assert torch.equal(random.get_state(), state)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_windows_on_a_gpu_match_those_on_the_cpu():
    image = _numbered(20, 40, 50)
    label = (image % 5 == 0).to(torch.uint8)
    expected = crop_batch(image, label, 16, 0.5, _generator())
    windows, labels = crop_batch(image.cuda(), label.cuda(), 16, 0.5, _generator())
    assert torch.equal(windows.cpu(), expected[0])
    assert torch.equal(labels.cpu(), expected[1])


def test_a_foreground_window_holds_the_organ_and_not_just_ignored_pixels():
    label = torch.full((50, 1, 12, 15), IGNORED, dtype=torch.uint8)
    label[:, :, 9, 4] = 1
    _, labels = crop_batch(_numbered(50, 12, 15), label, 4, 1.0, _generator())
    assert (labels == 1).flatten(1).any(1).all()
