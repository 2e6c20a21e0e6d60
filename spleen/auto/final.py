"""The final trainings of `spleen auto`, and what follows them: the only place that sees the test split."""

import math
from collections.abc import Sequence

from spleen.auto.finish import (
    HeldOut,
    calibrate_on,
    dice_summaries,
    held_out_cases,
    score_test,
    seconds_per_case,
    weigh,
)
from spleen.auto.plan import VALIDATION_COST, affordable_validations, affordable_views, least_minutes
from spleen.auto.record import AutoRecord
from spleen.auto.session import Session
from spleen.evaluation.evaluate import metric_names
from spleen.evaluation.report.files import scores_to_csv
from spleen.records.folder import read_summary
from spleen.system.files import write_text

TEST_CASES = "test_cases.csv"
"""In the folder of a search on many cases: the scores of each test case, as `spleen evaluate --csv` writes them."""
_ENDING_SECONDS = 6.0
"""For the page, and what is too short to measure."""
_ENDING_MARGIN = 1.3
"""Times the measured prediction: scoring and fitting weights take time as well."""
_LONGEST_ENDING = 0.25
"""Of the time left: more is not worth several views."""


def train_on_one_volume(session: Session) -> None:
    """One run with all the time left, which scores its test slices at its end.

    Views along other axes were trained on these slices, so that nothing could be fused without a leak.
    """
    record = session.record
    print(f"\nthe final training: {record.winner}", flush=True)
    minutes = _minutes(session, session.seconds_left() - _ENDING_SECONDS)
    session.train("final", record.candidates[record.winner], minutes, _validations(record, minutes))
    with session.stage("end") as to_do:
        if not to_do:
            return
        test = read_summary(session.folder / "final").get("test") or {}
        by_class = {key: value["dice"] for key, value in test.items() if isinstance(value, dict)}
        record.test_dice = {**by_class, "mean": test.get("dice")} if len(by_class) > 1 else by_class
        record.views, record.val_dice = {"final": 1.0}, session.val_dice("final")
        record.notes += [
            "one view: in a single volume, the slices that test one axis train the others, so views cannot be fused",
            "not calibrated: that needs test cases, and this is one volume",
        ]


def train_views(session: Session) -> None:
    """The winner along as many axes as pay; then weights, calibration and the test of what they give together."""
    record = session.record
    with session.stage("views") as to_do:
        if to_do:
            _plan(session)
    names = {axis: f"final/{axis}" for axis in record.axes[: record.n_views]}
    for position, (axis, name) in enumerate(names.items()):
        print(f"\nfinal training {position + 1} of {len(names)}: {record.winner}, along {axis}", flush=True)
        minutes = _minutes(session, (session.seconds_left() - record.ending_seconds) / (len(names) - position))
        overrides = [*record.candidates[record.winner], *session.along(axis), "score_test=false"]
        session.train(name, overrides, minutes, _validations(record, minutes))
    cases = held_out_cases(session.config(), session.folder / next(iter(names.values())))
    _weigh(session, list(names.values()), cases)
    _test(session, cases)


def _minutes(session: Session, seconds: float) -> float:
    """Those of a final training; where no time is left, as after a stop at the very end, those that it needs."""
    return max(seconds / 60, least_minutes(session.record.n_val_slices, session.record.slices_per_second))


def _validations(record: AutoRecord, minutes: float) -> int:
    return affordable_validations(60 * minutes, record.n_val_slices, record.slices_per_second)


def _plan(session: Session) -> None:
    """How many views there will be, and how long it takes to predict with them in the end."""
    record = session.record
    left = session.seconds_left()
    if record.best_of_rounds is None:
        prediction = VALIDATION_COST * record.n_test_slices / record.slices_per_second
        record.n_views, record.ending_seconds = 1, _ENDING_SECONDS + _ENDING_MARGIN * prediction
        record.notes.append("one view: there is too little time to measure what several would cost")
        return
    run = session.folder / record.best_of_rounds
    cases = held_out_cases(session.config(), run)
    per_case = seconds_per_case(run, cases.val)
    for n_views in range(len(record.axes), 0, -1):
        n_predicted = len(cases.test) + (len(cases.val) if n_views > 1 else 0)
        ending = _ENDING_SECONDS + _ENDING_MARGIN * n_views * n_predicted * per_case
        slices = (left - ending) * record.slices_per_second
        is_short = ending <= _LONGEST_ENDING * left
        if n_views == 1 or (is_short and affordable_views(n_views, slices, record.n_training_slices) == n_views):
            break
    if ending > left / 2:
        record.notes.append(
            f"testing takes about {ending / 60:.2g} minutes, more than half of the {left / 60:.2g} that were left: it "
            "will last longer than it was given, as half of them are for training"
        )
        ending = left / 2
        slices = (left - ending) * record.slices_per_second
    record.n_views, record.ending_seconds = n_views, ending
    passes = slices / record.n_training_slices
    record.notes.append(
        f"{n_views} of {len(record.axes)} view(s): in the time left, {passes:.3g} passes over the training slices"
    )


def _weigh(session: Session, names: Sequence[str], cases: HeldOut) -> None:
    """The weights of several views; one that does not help on the validation cases is dropped."""
    record = session.record
    with session.stage("weights") as to_do:
        if not to_do:
            return
        record.views, record.val_dice = {names[0]: 1.0}, session.val_dice(names[0])
        if len(names) > 1:
            alone = [dice for name in names if (dice := session.val_dice(name)) is not None]
            if len(alone) < len(names):
                record.views = dict.fromkeys(names, 1 / len(names))
                record.notes.append("equal weights: no validation case has any of the classes")
                return
            fitted = weigh([session.folder / name for name in names], cases.val)
            weights = dict(zip(names, fitted.weights, strict=True))
            record.views = {name: weight for name, weight in weights.items() if weight > 0}
            record.val_dice = fitted.dice
            each = ", ".join(f"{name.rpartition('/')[2]} {dice:.4f}" for name, dice in zip(names, alone, strict=True))
            record.notes.append(
                f"weights fitted on {len(cases.val)} validation cases: Dice {fitted.dice:.4f}; with equal weights "
                f"{fitted.dice_equal:.4f}; alone {each}"
            )


def _test(session: Session, cases: HeldOut) -> None:
    """Calibrate on the test cases and score them, once."""
    record = session.record
    with session.stage("test") as to_do:
        if not to_do:
            return
        if not cases.test:
            record.notes.append("no test: no case was held out for it")
            return
        if not session.config().score_test:
            record.notes.append("no test: score_test=false")
            return
        views = {session.folder / name: weight for name, weight in record.views.items()}
        calibrated = calibrate_on(cases.test, views)
        record.notes.append(calibrated.note)
        tested = score_test(session.config(), cases.test, views, calibrated.masks, session.folder / "test")
        if tested.failures:
            record.notes.append(
                f"{len(tested.failures)} of {len(cases.test)} test cases are not in the scores: "
                + "; ".join(tested.failures)
            )
        write_text(session.folder / TEST_CASES, scores_to_csv(tested.scores, metric_names(surface=False)))
        for name, dice in dice_summaries(tested.scores).items():
            record.test_dice[name] = None if math.isnan(dice.mean) else dice.mean
            if dice.interval is not None:
                record.test_intervals[name] = [dice.interval.low, dice.interval.high]
