"""The search of `spleen auto`: from a look at the data to one recipe, in rounds of successive halving.

Nothing here sees the test split: recipes are chosen by validation Dice.
"""

import time

from spleen.auto.candidates import find_candidates
from spleen.auto.look import look
from spleen.auto.plan import (
    LEAST_ARM_FRACTION,
    SEARCH_FRACTION,
    VALIDATIONS_OF_AN_ARM,
    halving_rounds,
    least_minutes,
)
from spleen.auto.record import AutoRecord
from spleen.auto.session import Session, folder_name
from spleen.auto.slices import prepare_slices
from spleen.config.overrides import key_of
from spleen.errors import InputError

_LOOKING_FRACTION, _TIMING_FRACTION = 0.04, 0.04
"""Of the time, about the most for the look at the data and for the timings."""


def prepare(session: Session) -> None:
    """Look at the data, time the candidates, prepare the slices and plan the rounds.

    Raises InputError for data that cannot be trained on, without a validation split, for a 3D network and for too few
    minutes.
    """
    record = session.record
    with session.stage("look") as to_do:
        if not to_do:
            return
        config = session.config()
        if config.fold == "all" or config.split.val_fraction == 0:
            raise InputError("spleen auto chooses by validation Dice: set split.val_fraction above 0, and no fold=all")
        if config.model.dimensions == 3:
            raise InputError(
                "spleen auto chooses among 2D networks; for a 3D one in a given time, use "
                f"spleen train with max_minutes={record.minutes:g}"
            )
        given = {*map(key_of, record.overrides)}
        given |= {group for group in ("model", "augment") if any(key.startswith(f"{group}.") for key in given)}
        total = record.minutes * 60
        began = time.monotonic()
        seen = look(config, given, _LOOKING_FRACTION * total)
        timing_seconds = (_LOOKING_FRACTION + _TIMING_FRACTION) * total - (time.monotonic() - began)
        training_seconds = (1 - SEARCH_FRACTION) * total
        candidates = find_candidates(record.overrides, given, seen, training_seconds, timing_seconds)
        record.settings = [list(setting) for setting in candidates.settings]
        record.axes, record.candidates = list(seen.axes), candidates.by_name
        record.n_training_slices = seen.n_training_slices
        record.n_val_slices, record.n_test_slices = seen.n_val_slices, seen.n_test_slices
        record.batch_size, record.slices_per_second = candidates.batch_size, candidates.slices_per_second
        began = time.monotonic()
        _prepare_slices(session)
        minutes = record.minutes - (time.monotonic() - began) / 60
        least = least_minutes(record.n_val_slices, record.slices_per_second)
        _check_enough(session, least)
        telling = max(least, LEAST_ARM_FRACTION * (1 - SEARCH_FRACTION) * minutes)
        rounds = halving_rounds(len(record.candidates), SEARCH_FRACTION * minutes, telling)
        record.rounds = [[each.n_arms, each.minutes_each] for each in rounds]
    for override, reason in record.settings:
        print(f"  {override:28} {reason}")
    print(f"{record.slices_per_second:.3g} slices/s; {_in_words(record)}", flush=True)


def _prepare_slices(session: Session) -> None:
    """For the recipes along each axis; along one that cannot be split, only the first recipe has to work."""
    by_axis: dict[tuple[str, ...], list[str]] = {}
    for own in session.record.candidates.values():
        by_axis.setdefault(tuple(each for each in own if key_of(each) == "axis"), own)
    for number, own in enumerate(by_axis.values()):
        try:
            prepare_slices(session.config(*own))
        except InputError:
            if number == 0:
                raise


def choose_recipe(session: Session) -> None:
    """Halve the candidates by validation Dice, round by round. The first one is the winner where there are no rounds.

    A recipe that is refused is left out, but not the first: what is wrong with it is wrong with the data.
    """
    record, arms = session.record, list(session.record.candidates)
    if record.winner:
        return
    best = None
    for number, (n_arms, minutes) in enumerate(record.rounds, start=1):
        run_of = {arm: f"round{number}/{folder_name(arm)}" for arm in arms[: int(n_arms)]}
        for arm, run in run_of.items():
            print(f"\nround {number} of {len(record.rounds)}, {minutes:.2g} min: {arm}", flush=True)
            overrides = [*record.candidates[arm], "score_test=false", "report=false", *session.without_logger()]
            may_fail = number > 1 or arm != arms[0]
            session.train(run, overrides, minutes, VALIDATIONS_OF_AN_ARM, may_fail)
        trained = [arm for arm in run_of if run_of[arm] not in record.failed]
        if not trained:
            break
        arms = sorted(trained, key=lambda arm: session.val_dice(run_of[arm]) or 0.0, reverse=True)
        best = run_of[arms[0]]
        record.slices_per_second = session.speed_of(best) or record.slices_per_second
    record.winner, record.best_of_rounds = arms[0], best
    reason = (
        f"the best of {int(record.rounds[0][0])} recipes by validation Dice" if best else "the only one in this time"
    )
    record.notes.append(f"{record.winner}: {reason}")
    record.write(session.folder)


def _check_enough(session: Session, least_minutes: float) -> None:
    left = max(0.0, session.seconds_left()) / 60
    if left < least_minutes:
        needed = session.record.minutes - left + 2 * least_minutes
        raise InputError(
            f"minutes={session.record.minutes:g} are too few for these data on this machine: {left:.2g} are left once "
            f"the slices are prepared, and one training needs {least_minutes:.2g}. Use at least minutes={needed:.2g}"
        )


def _in_words(record: AutoRecord) -> str:
    if not record.rounds:
        return f"all the time for one of {len(record.candidates)} recipe(s), as there is too little to compare them"
    rounds = ", then ".join(f"{int(n_arms)} for {minutes:.2g} min each" for n_arms, minutes in record.rounds)
    return f"recipes compete by validation Dice: {rounds}"
