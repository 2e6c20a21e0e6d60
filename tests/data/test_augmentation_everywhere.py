"""What a GPU repeats without the CPU: every transform computed for all slices, then kept for the chosen ones."""

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from omegaconf import OmegaConf

from spleen.data.augmentation.augment import apply_draws, augment_batch
from spleen.data.augmentation.draws import Draws, draw_augmentation
from spleen.data.augmentation.intensity import blur_matrix
from spleen.data.augmentation.settings import AugmentSettings

PRESETS = sorted((Path(__file__).parents[2] / "conf" / "augment").glob("*.yaml"))


def _settings(preset):
    values = OmegaConf.to_container(OmegaConf.load(preset))
    return AugmentSettings(**values | {"flips": ("left_right", "superior_inferior"), "voxel_depth": None})


def _batch():
    image = torch.randn(8, 3, 40, 56, generator=torch.Generator().manual_seed(1))
    return image, (image[:, :1] > 1).to(torch.uint8)


@pytest.mark.parametrize("preset", PRESETS, ids=lambda preset: preset.stem)
@pytest.mark.parametrize("seed", range(4))
def test_both_ways_of_applying_draws_agree_up_to_rounding(preset, seed):
    image, label = _batch()
    settings, before = _settings(preset), image.clone()
    chosen = augment_batch(image, label, settings, "coronal", torch.Generator().manual_seed(seed), (0, 1))
    draws = draw_augmentation(tuple(image.shape), settings, "coronal", torch.Generator().manual_seed(seed))
    everywhere = apply_draws(image, label, draws, settings, "coronal", (0, 1), everywhere=True)
    torch.testing.assert_close(everywhere[0], chosen[0], rtol=1e-4, atol=1e-4)
    assert torch.equal(everywhere[1], chosen[1])
    assert torch.equal(image, before)


def test_draws_survive_being_taken_apart_into_tensors_and_put_together():
    draws = draw_augmentation((8, 3, 40, 56), _settings(PRESETS[-1]), "coronal", torch.Generator().manual_seed(0))
    again = Draws.of(draws.tensors())
    assert all(getattr(again, name) is value for name, value in draws.tensors().items())
    assert set(again.tensors()) == set(draws.tensors())


def test_without_noise_the_other_draws_need_no_pixels():
    draws = draw_augmentation(
        (8, 3, 40, 56), AugmentSettings(noise_probability=1.0, noise_std=0.1), "axial", torch.Generator(), False
    )
    assert draws.noise is None
    assert draws.noise_std is not None
    assert len(draws.noise_std) == 8
    image, label = _batch()
    changed, _ = apply_draws(image, label, draws, AugmentSettings(), "axial", everywhere=True)
    std = (changed - image).flatten(1).std(1)
    # 6,720 samples each: the standard error of a standard deviation is 0.9 %.
    torch.testing.assert_close(std, draws.noise_std, rtol=0.06, atol=1e-3)


@pytest.mark.parametrize("side", [1, 7, 40])
def test_the_blur_matrix_is_torchs_averaging_and_interpolation(side):
    sizes = torch.arange(1, side + 1)
    line = torch.randn(1, 1, 1, side, dtype=torch.float64)
    for size, matrix in zip(sizes.tolist(), blur_matrix(side, sizes).double(), strict=True):
        coarse = F.interpolate(line, size=(1, size), mode="area")
        expected = F.interpolate(coarse, size=(1, side), mode="bilinear", align_corners=False)
        torch.testing.assert_close(line[0, 0] @ matrix.T, expected[0, 0], rtol=1e-5, atol=1e-5)
