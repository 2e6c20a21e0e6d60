"""How the minutes of a search are divided, against plans worked by hand."""

import pytest

from spleen.auto.candidates import recipes
from spleen.auto.plan import (
    Round,
    affordable_validations,
    affordable_views,
    epoch_length,
    fitting_batch_size,
    halving_rounds,
)


@pytest.mark.parametrize(
    ("n_candidates", "minutes", "least", "expected"),
    [
        # 4 → 2 → 1: two rounds of 6 minutes, shared by 4 and by 2.
        (4, 12.0, 1.0, (Round(4, 1.5), Round(2, 3.0))),
        # 6 → 3 → 2 → 1: three rounds of 4 minutes.
        (6, 12.0, 0.5, (Round(6, 4 / 6), Round(3, 4 / 3), Round(2, 2.0))),
        # Rounds of 4 minutes have too little for 6 or 5 arms (0.67 and 0.8 min each); so 4, in two rounds of 6.
        (6, 12.0, 1.1, (Round(4, 1.5), Round(2, 3.0))),
        (2, 3.0, 1.5, (Round(2, 1.5),)),
        (4, 1.0, 1.0, ()),
        (1, 60.0, 1.0, ()),
    ],
)
def test_halving_gives_each_round_the_same_time_and_each_arm_enough(n_candidates, minutes, least, expected) -> None:
    assert halving_rounds(n_candidates, minutes, least) == expected


def test_a_view_needs_fifteen_passes_over_the_training_slices() -> None:
    assert affordable_views(3, slices=89_999, n_training_slices=2_000) == 2
    assert affordable_views(3, slices=90_000, n_training_slices=2_000) == 3
    assert affordable_views(3, slices=600_000, n_training_slices=2_000) == 3
    assert affordable_views(3, slices=100, n_training_slices=2_000) == 1


def test_an_epoch_is_whole_batches_between_two_validations() -> None:
    assert epoch_length(slices_per_second=10, minutes=2.1, validations=8, batch_size=4) == 156  # 157.5 is 39.4 batches
    assert epoch_length(slices_per_second=0.01, minutes=1, validations=8, batch_size=4) == 4


@pytest.mark.parametrize(
    ("seconds", "n_val", "expected"),
    [(2000.0, 200, 8), (2000.0, 400, 5), (500.0, 400, 3), (30.0, 0, 8)],
    ids=["many", "some", "at_least_three", "no_validation"],
)
def test_validations_cost_a_twentieth_of_a_training(seconds: float, n_val: int, expected: int) -> None:
    """At 10 slices/s in training, 400 slices take 20 s to validate."""
    assert affordable_validations(seconds, n_val, 10.0) == expected


@pytest.mark.parametrize(("side", "expected"), [(16, 32), (48, 32), (64, 16), (112, 4), (128, 4), (512, 4)])
def test_small_slices_come_in_large_batches(side: int, expected: int) -> None:
    assert fitting_batch_size(side, None) == expected


@pytest.mark.parametrize(("slices_per_epoch", "expected"), [(200, 32), (32, 32), (31, 16), (16, 16), (4, 4)])
def test_a_batch_is_no_larger_than_an_epoch(slices_per_epoch: int, expected: int) -> None:
    assert fitting_batch_size(48, slices_per_epoch) == expected


def test_recipes_begin_with_the_default_and_its_opposite() -> None:
    named = recipes(given=(), is_wide_affordable=True, axes=["coronal", "axial"])
    assert list(named) == [
        "unet, light, coronal",
        "unet_wide, strong, coronal",
        "unet, light, axial",
        "unet, strong, coronal",
        "unet_wide, light, coronal",
    ]
    assert named["unet, light, axial"] == ["model=unet", "augment=light", "axis=axial"]


def test_what_the_user_has_set_does_not_compete() -> None:
    assert recipes(given=("model", "axis"), is_wide_affordable=False, axes=["axial"]) == {
        "light, axial": ["augment=light"],
        "strong, axial": ["augment=strong"],
    }
