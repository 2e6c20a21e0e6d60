"""The search of `spleen auto`: from a look at the data to one recipe, in rounds of successive halving.

Nothing here sees the test split: recipes are chosen by validation Dice.
"""

import time

from spleen.auto.candidates import find_candidates
from spleen.auto.look import look
from spleen.auto.plan import LEAST_ARM_FRACTION, SEARCH_FRACTION, VALIDATION_COST, halving_rounds
from spleen.auto.record import AutoRecord
from spleen.auto.session import Session, folder_name
from spleen.config.overrides import key_of
from spleen.errors import InputError

_LOOKING_FRACTION, _TIMING_FRACTION = 0.04, 0.04
"""Of the time, about the most for the look at the data and for the timings."""
_VALIDATIONS = 2
"""Of an arm."""
_OVERHEAD_SECONDS = 8.0
"""Of a run, for what is neither training nor validation."""


def prepare(session: Session) -> None:
    """Look at the data, time the candidates and plan the rounds.

    Raises InputError for data that cannot be trained on, without a validation split, and for too few minutes.
    """
    record = session.record
    with session.stage("look") as to_do:
        if not to_do:
            return
        config = session.config()
        if config.fold == "all" or config.split.val_fraction == 0:
            raise InputError("spleen auto chooses by validation Dice: set split.val_fraction above 0, and no fold=all")
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
        least = _least_minutes(record)
        _check_enough(session, least)
        telling = max(least, LEAST_ARM_FRACTION * (1 - SEARCH_FRACTION) * record.minutes)
        rounds = halving_rounds(len(record.candidates), SEARCH_FRACTION * record.minutes, telling)
        record.rounds = [[each.n_arms, each.minutes_each] for each in rounds]
    for override, reason in record.settings:
        print(f"  {override:28} {reason}")
    print(f"{record.slices_per_second:.3g} slices/s; {_in_words(record)}", flush=True)


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
            session.train(run, overrides, minutes, _VALIDATIONS, may_fail)
        trained = [arm for arm in run_of if run_of[arm] not in record.failed]
        arms = sorted(trained, key=lambda arm: session.val_dice(run_of[arm]), reverse=True)
        best = run_of[arms[0]]
        record.slices_per_second = session.speed_of(best) or record.slices_per_second
    record.winner, record.best_of_rounds = arms[0], best
    reason = (
        f"the best of {int(record.rounds[0][0])} recipes by validation Dice" if best else "the only one in this time"
    )
    record.notes.append(f"{record.winner}: {reason}")
    record.write(session.folder)


def _least_minutes(record: AutoRecord) -> float:
    """For an arm that trains for half of its time: it is validated, and its best epoch is scored once more."""
    validation = VALIDATION_COST * record.n_val_slices / record.slices_per_second
    return 2 * (_OVERHEAD_SECONDS + (_VALIDATIONS + 1) * validation) / 60


def _check_enough(session: Session, least_minutes: float) -> None:
    left = max(0.0, session.seconds_left()) / 60
    if left < least_minutes:
        needed = session.record.minutes - left + 2 * least_minutes
        raise InputError(
            f"minutes={session.record.minutes:g} are too few for these data on this machine: {left:.2g} are left after "
            f"the look at the data, and one training needs {least_minutes:.2g}. Use at least minutes={needed:.2g}"
        )


def _in_words(record: AutoRecord) -> str:
    if not record.rounds:
        return f"all the time for one of {len(record.candidates)} recipe(s), as there is too little to compare them"
    rounds = ", then ".join(f"{int(n_arms)} for {minutes:.2g} min each" for n_arms, minutes in record.rounds)
    return f"recipes compete by validation Dice: {rounds}"
