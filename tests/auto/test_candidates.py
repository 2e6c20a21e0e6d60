"""The size of slices that a search trains with, from the number of times it can see them; the speed is made up."""

import pytest

from spleen.auto.candidates import training_shape, with_fitting_size
from spleen.auto.look import Look
from spleen.config.schema import TrainConfig
from spleen.runs.api import compose_config


def sized(
    native: int, n_slices: int, speed_at_128: float, given: tuple[str, ...] = (), own: tuple[str, ...] = ()
) -> dict[str, str]:
    """The settings for slices of a size in 1,000 s of training, where the speed falls with the number of pixels."""
    seen = Look((("img_size=" + str(native), "native"),), ("axial",), (native, native), (1.0, 1.0), n_slices, 10, 10)

    def compose(settings: list[tuple[str, str]]) -> TrainConfig:
        return compose_config(["data=phantom", *own, *(override for override, _ in settings)])

    def speed(config: TrainConfig) -> float:
        return speed_at_128 * (128 / int(config.img_size)) ** 2

    settings, _ = with_fitting_size(seen, given, 1000.0, compose, speed)
    return dict(override.split("=") for override, _ in settings)


@pytest.mark.parametrize(
    ("native", "n_slices", "speed_at_128", "expected"),
    [
        (112, 100, 9.5, {"img_size": "224", "batch_size": "4"}),  # 124 passes at 112 pixels, 31 at 224
        (112, 100, 9.0, {"img_size": "112", "batch_size": "4"}),  # 29 at 224
        (144, 100, 50.0, {"img_size": "144", "batch_size": "4"}),  # 288 pixels are more than is ever upsampled to
        (256, 100, 1.2, {"img_size": "256", "batch_size": "4"}),  # 3 passes at 256 pixels
        (256, 100, 1.1, {"img_size": "128", "batch_size": "4"}),
        (256, 1000, 1.1, {"img_size": "128", "batch_size": "4"}),  # 64 pixels would be too few
    ],
)
def test_slices_are_as_large_as_they_can_be_seen_often_enough(native, n_slices, speed_at_128, expected) -> None:
    assert sized(native, n_slices, speed_at_128) == expected


def test_a_given_size_stays() -> None:
    assert sized(112, 100, 100.0, given=("img_size",))["img_size"] == "112"


def test_a_given_length_of_an_epoch_bounds_the_batch() -> None:
    """48 pixels a side come in batches of 32: 71 passes at that size, 18 at twice as many pixels."""
    assert sized(48, 100, 1.0) == {"img_size": "48", "batch_size": "32"}
    assert sized(48, 100, 1.0, own=("loader.slices_per_epoch=16",))["batch_size"] == "16"


def test_the_shape_is_that_of_the_slices_that_are_trained_on() -> None:
    """90 × 366 mm: as many as 112 pixels of 3.27 mm, and 28 of them, padded to 32; with twice the pixels 55, to 64."""
    seen = Look((), ("coronal",), (30, 122), (3.0, 3.0), 100, 10, 10)
    shapes = {
        size: training_shape(compose_config(["data=phantom", f"img_size={size}"]), seen)
        for size in ("native", 112, 224)
    }
    assert shapes == {"native": (32, 128), 112: (32, 112), 224: (64, 224)}
    assert training_shape(compose_config(["data=phantom", "crop_size=48"]), seen) == (48, 48)
