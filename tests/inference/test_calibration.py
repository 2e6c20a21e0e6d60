"""What follows from calibrating cases, and the file that holds them."""

import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from spleen.errors import InputError
from spleen.inference.calibration.calibration import CalibratingCase, Calibration, ClassCalibration, Conditions
from spleen.inference.calibration.stored import (
    calibration_path,
    from_json,
    read_calibration,
    to_json,
    write_calibration,
)
from spleen.inference.confidence import confidence_scores
from spleen.inference.ensemble import VolumePrediction
from tests._helpers.nifti import box

CONDITIONS = Conditions(("a" * 64, "b" * 64), ("axial", "coronal"), (0.25, 0.75), True, ("left_right",), False)
EMPTY = CalibratingCase(0.0, 0.0, 0.0, math.nan)
VOXEL_MM3 = 3.2


def organ() -> np.ndarray:
    return box().astype(np.uint8)


def calibrated(n: int = 20, dice_at_one: float = 0.95) -> ClassCalibration:
    """Case k of n: the reference is exp(± k / 100) times the prediction, the Dice a line through (0.5, 0.7)."""
    cases = []
    for k in range(1, n + 1):
        score = 0.5 + 0.5 * k / n
        dice = 0.7 + (dice_at_one - 0.7) * (score - 0.5) / 0.5
        cases.append(CalibratingCase(1000.0, 1000 * math.exp((-1) ** k * k / 100), score, dice))
    return ClassCalibration("spleen", (3,), tuple(cases))


def test_the_interval_of_a_volume_is_a_factor_from_the_ranked_errors() -> None:
    """Of 20 errors 1 % … 20 %, rank ⌈21 × 0.95⌉ = 20 is 20 %, and rank ⌈21 × 0.5⌉ = 11 is 11 %."""
    calibration = calibrated()
    assert sorted(np.abs(calibration.log_errors)) == pytest.approx([k / 100 for k in range(1, 21)])
    assert calibration.volume_interval(500.0) == pytest.approx((500 * math.exp(-0.2), 500 * math.exp(0.2)))
    assert calibration.volume_interval(500.0, 0.5) == pytest.approx((500 * math.exp(-0.11), 500 * math.exp(0.11)))
    assert calibration.volume_interval(0.0) is None  # nothing was found: any factor of 0 is 0


def test_an_exact_line_gives_an_exact_dice() -> None:
    expected = calibrated().expected_dice(0.8)
    assert expected is not None
    assert (expected.dice, expected.low, expected.high) == pytest.approx((0.85, 0.85, 0.85))


def test_a_dice_is_never_outside_0_to_1() -> None:
    above = calibrated(dice_at_one=1.0).expected_dice(2.0)
    assert above is not None
    assert (above.dice, above.low, above.high) == (1.0, 1.0, 1.0)


def test_a_missed_organ_counts_as_an_infinite_error_and_an_absent_one_is_left_out() -> None:
    missed, invented = CalibratingCase(0.0, 800.0, 0.0, 0.0), CalibratingCase(10.0, 0.0, 0.6, 0.0)
    calibration = replace(calibrated(), cases=(*calibrated().cases, EMPTY, missed))
    assert (calibration.n_empty, len(calibration.log_errors)) == (1, 21)
    assert calibration.log_errors[-1] == math.inf
    assert calibration.volume_interval(500.0) is None  # rank ⌈22 × 0.95⌉ = 21 of 21 is the missed one
    assert calibration.volume_interval(500.0, 0.9) == pytest.approx((500 * math.exp(-0.2), 500 * math.exp(0.2)))
    assert "no 95% interval of the volume (too many" in (calibration.shortage() or "")
    assert replace(calibration, cases=(invented,)).log_errors[0] == -math.inf
    expected = calibration.expected_dice(0.8)  # an empty mask has no Dice to expect: the line is as before
    assert expected is not None
    assert expected.dice == pytest.approx(0.85)


def test_too_few_cases_say_so() -> None:
    calibration = calibrated(18)
    assert calibration.volume_interval(500.0) is None
    assert calibration.expected_dice(0.8) is None
    assert calibration.gate is None
    assert calibration.passing_fraction == 0
    assert calibration.shortage() == (
        "spleen: 18 cases: no 95% interval (19 cases needed), and no gate, so that every mask needs a review "
        "(19 cases needed)"
    )
    assert calibrated(19).shortage() is None
    none = replace(calibration, cases=(EMPTY,))
    assert (none.volume_interval(1.0), none.expected_dice(0.5), none.gate) == (None, None, None)
    assert math.isnan(none.passing_fraction)


def test_a_partly_labelled_case_has_a_dice_and_no_volume() -> None:
    """20 partly labelled cases of score 0.9 and Dice 0.5, one with nothing in its labelled part, 20 whole ones."""
    partly = tuple(replace(case, reference_mm3=None, dice=0.5, confidence_score=0.9) for case in calibrated().cases)
    unseen = CalibratingCase(1000.0, None, 0.9, math.nan)  # nothing in the labelled part
    calibration = replace(calibrated(), cases=(*partly, *calibrated().cases, unseen))
    assert (calibration.n_partial, calibration.n_empty, len(calibration.log_errors)) == (21, 1, 20)
    assert calibration.volume_interval(500.0) == calibrated().volume_interval(500.0)
    assert calibration.expected_dice(0.9) != calibrated().expected_dice(0.9)
    # (1 + 1) / 41 ≤ 5 % of bad masks may pass: of 20 + 6 with a Dice below 0.8, the second highest score is 0.9.
    assert calibration.gate == 0.9
    assert len(calibration.passing_log_errors) == 4  # scores 0.925 to 1
    assert calibration.shortage() is None
    fewer = replace(calibration, cases=(*partly, *calibrated().cases[:7]))
    assert fewer.volume_interval(500.0) is None
    assert fewer.shortage() == (
        "spleen: 27 cases: no 95% interval of the volume (19 fully labelled cases needed, and 7 are)"
    )


def test_the_gate_follows_from_the_bad_cases() -> None:
    """A Dice below 0.79 is a score below 0.68: cases 1 to 7 of 20; with (0 + 1) / 21 ≤ 5 %, none of them may pass."""
    calibration = replace(calibrated(), min_dice=0.79)
    assert calibration.gate == pytest.approx(0.5 + 0.5 * 7 / 20)
    assert calibration.passing_fraction == 13 / 20
    assert replace(calibration, min_dice=0.7).gate == 0.0
    assert replace(calibration, error_rate=0.01).gate is None


def test_an_unknown_class_is_an_input_error() -> None:
    with pytest.raises(InputError, match="no class 'liver' is calibrated; there are spleen"):
        Calibration(CONDITIONS, (calibrated(),)).of("liver")


# The confidence of a prediction --------------------------------------------------------------------------------------


def test_a_prediction_gets_the_intervals_and_the_gate_of_its_class() -> None:
    """The box has 16 voxels of 3.2 mm³; its score 0.84 would need a review without a calibration."""
    prediction = VolumePrediction(organ(), None, (0.84,), (math.nan,), (50.0,), ((40.0,), (60.0,)))
    calibration = Calibration(CONDITIONS, (calibrated(),))
    names, ranges = ["spleen"], [(0.0, 1e6)]

    def volume_of(mask: np.ndarray) -> float:
        return int(mask.sum()) * VOXEL_MM3

    (plain,) = confidence_scores(prediction, names, ranges, volume_of)
    (score,) = confidence_scores(prediction, names, ranges, volume_of, calibration)
    assert (plain.review, math.isnan(plain.volume_low_mm3), math.isnan(plain.expected_dice)) == (True, True, True)
    assert (plain.soft_volume_mm3, plain.view_low_mm3, plain.view_high_mm3) == (50.0, 40.0, 60.0)
    assert (score.review, score.reasons) == (False, "")
    assert (score.volume_low_mm3, score.volume_high_mm3) == pytest.approx((51.2 * math.exp(-0.2), 51.2 * math.exp(0.2)))
    assert (score.expected_dice, score.dice_low, score.dice_high) == pytest.approx((0.87, 0.87, 0.87))
    strict = Calibration(CONDITIONS, (replace(calibrated(), min_dice=0.89),))
    (doubtful,) = confidence_scores(prediction, names, ranges, volume_of, strict)
    assert doubtful.reasons == "uncertain boundary (0.84): score 0.840, calibrated gate 0.875"
    few = Calibration(CONDITIONS, (calibrated(5),))
    (unknown,) = confidence_scores(prediction, names, ranges, volume_of, few)
    assert (unknown.reasons, math.isnan(unknown.volume_low_mm3)) == ("calibrated with too few cases for a gate", True)
    nothing = VolumePrediction(np.zeros_like(organ()), None, (math.nan,), (math.nan,), (0.0,), ())
    (empty,) = confidence_scores(nothing, names, ranges, volume_of, calibration)
    assert (empty.reasons, math.isnan(empty.volume_low_mm3)) == ("nothing was found", True)


# The file ------------------------------------------------------------------------------------------------------------


def test_a_calibration_is_read_as_it_was_written(tmp_path: Path) -> None:
    whole = replace(calibrated(), cases=(*calibrated().cases, EMPTY), min_dice=0.7, error_rate=0.1)
    calibration = Calibration(CONDITIONS, (whole, replace(whole, class_name="liver", label_values=(1, 2))))
    write_calibration(tmp_path / "calibration.json", calibration)
    read = read_calibration(tmp_path / "calibration.json")
    assert read.conditions == CONDITIONS
    for before, after in zip(calibration.classes, read.classes, strict=True):
        assert (after.class_name, after.label_values) == (before.class_name, before.label_values)
        assert (after.min_dice, after.error_rate, after.n_empty) == (0.7, 0.1, 1)
        assert {str(case) for case in after.cases} == {str(case) for case in before.cases}  # NaN is not NaN
        assert after.volume_interval(10.0) == before.volume_interval(10.0)
        assert after.expected_dice(0.8) == pytest.approx(before.expected_dice(0.8))
    assert to_json(read) == to_json(calibration)


def test_partly_labelled_cases_are_read_as_they_were_written() -> None:
    cases = (CalibratingCase(5.0, None, 0.5, 0.7), CalibratingCase(5.0, None, 0.5, math.nan), *calibrated().cases)
    calibration = Calibration(CONDITIONS, (replace(calibrated(), cases=cases),))
    read = from_json(to_json(calibration))
    assert {str(case) for case in read.classes[0].cases} == {str(case) for case in cases}
    assert to_json(read) == to_json(calibration)


def test_the_file_does_not_tell_the_order_of_the_cases() -> None:
    cases = tuple(CalibratingCase(float(volume), 1.0, 0.5, 0.5) for volume in (3, 1, 2))
    text = to_json(Calibration(CONDITIONS, (replace(calibrated(), cases=cases),)))
    assert [case["predicted_mm3"] for case in json.loads(text)["classes"][0]["cases"]] == [1.0, 2.0, 3.0]


def test_a_calibration_lies_in_the_run_folder_or_beside_a_single_checkpoint() -> None:
    assert calibration_path(Path("runs/a/checkpoints/best.ckpt")) == Path("runs/a/calibration.json")
    assert calibration_path(Path("models/x.ckpt")) == Path("models/x.calibration.json")


def _change(**values: Any) -> Callable[[dict[str, Any]], None]:
    return lambda content: content.update(values)


def _case(**values: Any) -> Callable[[dict[str, Any]], None]:
    return lambda content: content["classes"][0]["cases"][0].update(values)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_change(version=2), "its version is 2, and only 1 is known"),
        (_change(version=True), "version of the file is missing or not valid"),
        (_change(checkpoints=[]), "its checkpoints, axes and weights do not match"),
        (_change(weights=[1.0]), "its checkpoints, axes and weights do not match"),
        (_change(axes=["axial"], weights=[1.0]), "its checkpoints, axes and weights do not match"),
        (_change(weights=[0.5, "x"]), "weights of the file is missing or not valid"),
        (_change(tta=1), "tta of the file is missing or not valid"),
        (_change(error_rate=2), "error_rate of the file"),
        (_change(classes=[]), "it has no classes, or one twice"),
        (_change(classes=[1]), "a class is not a JSON object"),
        (lambda content: content["classes"].append(content["classes"][0]), "it has no classes, or one twice"),
        (lambda content: content.pop("flips"), "flips of the file is missing"),
        (lambda content: content["classes"][0].update(label_values=[1.5]), "label_values of a class"),
        (_case(dice=None), "dice of a case is missing or not valid"),
        (_case(dice=1.01), "dice of a case"),
        (_case(predicted_mm3=-1.0), "predicted_mm3 of a case"),
        (_case(reference_mm3=math.nan), "reference_mm3 of a case"),
        (_case(reference_mm3=math.inf), "reference_mm3 of a case"),
        (_case(reference_mm3=10**400), "reference_mm3 of a case"),
        (_case(confidence_score="1"), "confidence_score of a case"),
    ],
)
def test_a_damaged_file_is_an_input_error(change: Callable[[dict[str, Any]], None], message: str) -> None:
    content = json.loads(to_json(Calibration(CONDITIONS, (calibrated(),))))
    change(content)
    with pytest.raises(InputError, match=message):
        from_json(json.dumps(content))


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff\xfe", b"[" * 100_000, b"1" * 10_000])
def test_another_file_is_an_input_error_that_names_it(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "calibration.json"
    path.write_bytes(content)
    with pytest.raises(
        InputError, match=r"calibration\.json is not a calibration of this version: .*; calibrate again"
    ):
        read_calibration(path)
