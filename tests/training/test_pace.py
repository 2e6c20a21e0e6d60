"""The time left of a training, worked out by hand."""

import pytest

from spleen.training.timing.pace import EpochTime, seconds_left, without_warm_up


def test_before_the_first_epoch_nothing_is_known() -> None:
    assert seconds_left([], epochs=10, validations=10) is None


def test_the_validation_counts_too() -> None:
    assert seconds_left([EpochTime(4.0, 1.0), EpochTime(6.0, 2.0)], epochs=3, validations=3) == pytest.approx(19.5)


def test_validations_every_few_epochs_are_counted_apart() -> None:
    times = [EpochTime(4.0, None), EpochTime(6.0, None), EpochTime(5.0, 30.0)]
    assert seconds_left(times, epochs=4, validations=1) == pytest.approx(4 * 5 + 30)


def test_a_validation_that_was_never_measured_is_not_guessed() -> None:
    assert seconds_left([EpochTime(4.0, None)], epochs=9, validations=3) is None
    assert seconds_left([EpochTime(4.0, None)], epochs=9, validations=0) == pytest.approx(36)


def test_in_the_end_nothing_is_left() -> None:
    assert seconds_left([EpochTime(4.0, 1.0)], epochs=0, validations=0) == 0


def test_a_first_step_that_compiles_does_not_count() -> None:
    assert without_warm_up(70.0, first_step=60.0, other_steps=[2.0, 4.0]) == pytest.approx(13)
    assert without_warm_up(5.0, first_step=1.0, other_steps=[2.0]) == 5  # a fast one changes nothing
    assert without_warm_up(5.0, first_step=5.0, other_steps=[]) == 5
