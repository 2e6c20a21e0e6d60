"""Which runs of a study folder are averaged: the runs of one arm, unless the user chooses otherwise."""

from pathlib import Path
from typing import Any

import pytest

from spleen.errors import InputError
from spleen.inference.choice import choose_runs
from tests._helpers.run_folders import write_run

AXES = ("axial", "coronal", "sagittal")


def finished(folder: Path, **settings: object) -> Path:
    """A handwritten finished run with an empty checkpoint, which nothing here loads."""
    run = write_run(folder, **settings)  # type: ignore[arg-type]
    (run / "checkpoints").mkdir()
    (run / "checkpoints" / "best.ckpt").touch()
    return run


def names(checkpoints: tuple[Path, ...]) -> list[str]:
    return [path.parents[1].name for path in checkpoints]


def sweep(folder: Path) -> Path:
    """Two learning rates × three axes: mean validation Dice 0.6 for 1e-3, 0.7 for 1e-4."""
    for lr, scores in ((1e-3, (0.9, 0.5, 0.4)), (1e-4, (0.6, 0.7, 0.8))):
        for axis, val in zip(AXES, scores, strict=True):
            finished(folder / f"{axis}_{lr}", val=val, axis=axis, lr=lr)
    return folder


@pytest.mark.parametrize(
    ("key", "values", "description"),
    [
        ("axis", AXES, "axial, coronal, sagittal"),
        ("fold", (0, 1, 2), "folds 0, 1, 2"),
        ("seed", (0, 3, 7), "seeds 0, 3, 7"),
    ],
)
def test_axes_folds_and_seeds_of_one_arm_are_averaged(
    tmp_path: Path, key: str, values: tuple[object, ...], description: str
) -> None:
    for value in values:
        finished(tmp_path / f"{value}", **{key: value})
    chosen = choose_runs([tmp_path])
    assert names(chosen.checkpoints) == [str(value) for value in values]
    assert chosen.reasons == (f"averaging 3 runs: {description} of one arm",)


def test_all_repeats_of_an_arm_are_listed_in_one_line(tmp_path: Path) -> None:
    for axis in AXES[:2]:
        for fold in (0, 1):
            finished(tmp_path / f"{axis}{fold}", axis=axis, fold=fold)
    assert choose_runs([tmp_path]).reasons == ("averaging 4 runs: axial, coronal; folds 0, 1 of one arm",)


def test_settings_that_do_not_affect_the_result_do_not_make_another_arm(tmp_path: Path) -> None:
    finished(tmp_path / "a", axis="axial", output_dir="/here")
    finished(tmp_path / "b", axis="coronal", output_dir="/there", logger__mode="online")
    assert len(choose_runs([tmp_path]).checkpoints) == 2


def test_a_sweep_over_settings_is_refused_with_the_differences_and_the_options(tmp_path: Path) -> None:
    with pytest.raises(InputError) as error:
        choose_runs([sweep(tmp_path)])
    assert str(error.value) == (
        f"{tmp_path} is a sweep of 2 arms, which differ in lr (1e-04, 1e-03), so its 6 runs are not averaged unasked. "
        'Predict with the best arm by validation Dice (--best, choose="best" in Python), average all runs (--all, '
        'choose="all"), or name the runs'
    )


def test_the_best_arm_by_validation_is_chosen_with_all_its_axes(tmp_path: Path) -> None:
    chosen = choose_runs([sweep(tmp_path)], "best")
    assert names(chosen.checkpoints) == ["axial_0.0001", "coronal_0.0001", "sagittal_0.0001"]
    assert chosen.reasons == (
        "averaging 3 runs: axial, coronal, sagittal of the best of 2 arms by validation Dice (0.7000): lr 1e-04",
    )


def test_across_folds_every_validation_case_counts_once(tmp_path: Path) -> None:
    """Arm a: cases 0.9, 0.2, 0.2, 0.2, mean 0.375; per run (0.9 + 0.2) / 2 = 0.55. Arm b: 0.5 everywhere."""
    few, many = [("val", "1", "organ", 0.9)], [("val", str(case), "organ", 0.2) for case in (2, 3, 4)]
    finished(tmp_path / "a0", val=0.9, fold=0, cases=few)
    finished(tmp_path / "a1", val=0.2, fold=1, cases=many)
    for fold, cases in enumerate((few, many)):
        same = [(*case[:3], 0.5) for case in cases]
        finished(tmp_path / f"b{fold}", val=0.5, fold=fold, cases=same, epochs=9)
    assert names(choose_runs([tmp_path], "best").checkpoints) == ["b0", "b1"]


def test_all_runs_are_averaged_on_request(tmp_path: Path) -> None:
    chosen = choose_runs([sweep(tmp_path)], "all")
    assert len(chosen.checkpoints) == 6
    assert chosen.reasons == (f"averaging 6 runs: all of {tmp_path}",)


def test_explicitly_named_runs_are_averaged_in_the_given_order(tmp_path: Path) -> None:
    first, second = finished(tmp_path / "a", lr=1.0), finished(tmp_path / "b", lr=2.0)
    chosen = choose_runs([second, first])
    assert names(chosen.checkpoints) == ["b", "a"]
    assert chosen.reasons == ("averaging 2 runs, as given: b, a",)
    assert choose_runs([first]).reasons == ()


def test_choosing_the_best_arm_needs_a_folder_of_runs_and_a_validation_score(tmp_path: Path) -> None:
    run = finished(tmp_path / "one", val=None)
    with pytest.raises(InputError, match=r"--best chooses among the runs of a folder; .*one is a single run"):
        choose_runs([run], "best")
    finished(tmp_path / "two", val=None, lr=0.5)
    with pytest.raises(InputError, match="no arm has a validation Dice"):
        choose_runs([tmp_path], "best")


def test_runs_with_unknown_settings_are_averaged_only_on_request(tmp_path: Path) -> None:
    finished(tmp_path / "a")
    (finished(tmp_path / "b", axis="coronal") / "config.yaml").unlink()
    with pytest.raises(InputError, match=r"b: config.yaml is missing.*--all"):
        choose_runs([tmp_path])
    assert names(choose_runs([tmp_path], "all").checkpoints) == ["a", "b"]


def test_a_pruned_run_is_left_out(tmp_path: Path) -> None:
    finished(tmp_path / "a")
    (finished(tmp_path / "b", lr=5.0) / "summary.json").write_text('{"status": "pruned"}')
    assert names(choose_runs([tmp_path]).checkpoints) == ["a"]


@pytest.mark.usefixtures("without_type_checks")
@pytest.mark.parametrize("choose", ["every", "Best", True])
def test_an_unknown_choice_is_reported_with_the_known_ones(tmp_path: Path, choose: Any) -> None:
    for folder in (sweep(tmp_path / "sweep"), finished(tmp_path / "single")):
        with pytest.raises(InputError, match=f"choose must be one of 'best', 'all'; got {choose!r}"):
            choose_runs([folder], choose)
