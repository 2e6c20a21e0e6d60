"""The results of a study: handwritten run folders with scores whose means are known, and two real runs."""

import json
import math
from pathlib import Path

import pytest

from spleen.errors import InputError
from spleen.runs.results.results import StudyResults, results
from tests._helpers.run_folders import set_age, write_config, write_epochs, write_json, write_run
from tests._helpers.small_run import small_ct, summary, train


def states(study: StudyResults) -> dict[str, tuple[str, str]]:
    """State and reason of each run that is not in the table, by name."""
    return {run.folder.name: (run.state, run.reason) for run in study.others}


# Arms ---------------------------------------------------------------------------------------------------------------


def test_seeds_are_averaged_with_a_t_interval_and_arms_ordered_by_validation(tmp_path: Path) -> None:
    for seed, (val, test) in enumerate([(0.80, 0.90), (0.82, 0.92), (0.87, 0.97)]):
        write_run(tmp_path / f"small{seed}", val, test, img_size=64, seed=seed, minutes=seed + 1.0)
    write_run(tmp_path / "large", 0.9, 0.7, img_size=128)
    study = results(tmp_path)
    assert [arm.label for arm in study.arms] == ["128 px", "64 px"]
    large, small = study.arms
    assert study.selected is large
    assert large.test_dice.interval is None
    assert (small.n_runs, small.test_dice.n) == (3, 3)
    assert small.val_dice.mean == pytest.approx(0.83)
    assert small.test_dice.mean == pytest.approx(0.93)
    assert small.test_jaccard.mean == pytest.approx(0.465)
    assert small.minutes == pytest.approx(2.0)
    # s² = (0.03² + 0.01² + 0.04²) / 2 = 0.0013, and t(0.975; 2) = 4.302653 from a table
    assert small.test_dice.interval is not None
    half = 4.302653 * math.sqrt(0.0013 / 3)
    assert small.test_dice.interval.low == pytest.approx(0.93 - half, abs=1e-6)
    assert small.test_dice.interval.high == pytest.approx(0.93 + half, abs=1e-6)


def test_the_best_arm_is_chosen_by_validation_whatever_the_order(tmp_path: Path) -> None:
    write_run(tmp_path / "a", 0.9, 0.6, lr=1e-3)
    write_run(tmp_path / "b", 0.8, 0.7, lr=1e-4)
    study = results(str(tmp_path), sort="test")
    assert [arm.label for arm in study.arms] == ["lr 1e-04", "lr 1e-03"]
    assert study.selected is study.arms[1]


def test_an_arm_without_a_score_comes_last(tmp_path: Path) -> None:
    write_run(tmp_path / "a", None, None, lr=1e-3)
    write_run(tmp_path / "b", 0.1, 0.1, lr=1e-4)
    study = results(tmp_path)
    assert [arm.label for arm in study.arms] == ["lr 1e-04", "lr 1e-03"]
    assert math.isnan(study.arms[1].val_dice.mean)


def test_seeds_with_the_same_split_seed_are_one_arm(tmp_path: Path) -> None:
    for seed in (0, 1):
        write_run(tmp_path / f"fixed{seed}", seed=seed, split__seed=0)
    assert [arm.n_runs for arm in results(tmp_path).arms] == [2]
    for seed in (0, 1):
        write_run(tmp_path / f"other{seed}", seed=seed, split__seed=1)
    study = results(tmp_path)
    assert [(arm.n_runs, arm.settings["split.seed"]) for arm in study.arms] == [(2, 0), (2, 1)]


def test_a_run_of_an_earlier_version_is_of_the_arm_with_the_defaults(tmp_path: Path) -> None:
    write_run(tmp_path / "old", 0.8, 0.8, seed=0)
    write_run(tmp_path / "new", 0.9, 0.9, seed=1, init_lr_factor=1.0, score_test=True, roi_margin_mm=20.0)
    (arm,) = results(tmp_path).arms
    assert arm.n_runs == 2


def test_output_folder_study_and_logging_do_not_make_an_arm(tmp_path: Path) -> None:
    write_run(tmp_path / "a", seed=0, output_dir="/here", study="one", logger__mode="online")
    write_run(tmp_path / "b", seed=1, output_dir="/there", study="two", logger__mode="offline")
    assert [arm.n_runs for arm in results(tmp_path).arms] == [2]


def test_of_identical_runs_the_newest_counts_and_the_other_is_listed(tmp_path: Path) -> None:
    set_age(write_run(tmp_path / "z_first", test=0.1) / "summary.json", 60)
    write_run(tmp_path / "again", test=0.2)
    study = results(tmp_path)
    assert [(arm.n_runs, arm.test_dice.mean) for arm in study.arms] == [(1, 0.2)]
    assert states(study)["z_first"][0] == "repeated"
    assert str(tmp_path / "again") in states(study)["z_first"][1]


def test_across_folds_every_case_counts_once(tmp_path: Path) -> None:
    # Fold 0 tests cases a (two classes: mean 0.8) and b (0.6), fold 1 tests c, one of whose classes is empty.
    nan = math.nan
    first = [("test", "a", "x", 0.7), ("test", "a", "y", 0.9), ("test", "b", "x", 0.5), ("test", "b", "y", 0.7)]
    second = [("test", "c", "x", 0.1), ("test", "c", "y", nan)]
    write_run(tmp_path / "0", 0.5, 0.7, cases=[*first, ("val", "v", "x", 0.4)], split__fold=0)
    write_run(tmp_path / "1", 0.5, 0.1, cases=[*second, ("val", "v", "x", 0.6)], split__fold=1)
    study = results(tmp_path)
    assert study.over == "cases"
    (arm,) = study.arms
    assert arm.test_dice.mean == pytest.approx((0.8 + 0.6 + 0.1) / 3)  # the mean of the folds would be 0.4
    assert arm.test_jaccard.mean == pytest.approx((0.4 + 0.3 + 0.05) / 3)
    assert arm.val_dice.mean == pytest.approx(0.5)
    assert (arm.n_runs, arm.test_dice.n, arm.val_dice.n) == (2, 3, 1)
    assert arm.test_dice.interval is not None
    assert 0.1 - 1e-9 <= arm.test_dice.interval.low < arm.test_dice.mean < arm.test_dice.interval.high <= 0.8 + 1e-9
    assert arm.val_dice.interval is None


def test_a_fold_with_a_missing_or_broken_cases_csv_is_left_out(tmp_path: Path) -> None:
    for fold in (0, 1, 2):
        write_run(tmp_path / str(fold), cases=[("test", f"c{fold}", "x", 0.1 * fold)], fold=fold)
    (tmp_path / "1" / "cases.csv").unlink()
    (tmp_path / "2" / "cases.csv").write_text("split,case_id\ntest,c2\n")
    study = results(tmp_path)
    assert [(arm.n_runs, arm.test_dice.mean) for arm in study.arms] == [(1, 0.0)]
    assert states(study) == {
        "1": ("broken", "cases.csv is missing"),
        "2": ("broken", "cases.csv has no column 'class_name'"),
    }


def test_group_by_averages_over_everything_else(tmp_path: Path) -> None:
    for axis, size, test in (("axial", 64, 0.1), ("axial", 128, 0.3), ("coronal", 64, 0.5), ("coronal", 128, 0.9)):
        write_run(tmp_path / f"{axis}{size}", test, test, axis=axis, img_size=size)
    study = results(tmp_path, group_by=["axis"])
    assert [(arm.label, arm.n_runs, round(arm.test_dice.mean, 9)) for arm in study.arms] == [
        ("coronal", 2, 0.7),
        ("axial", 2, 0.2),
    ]
    assert study.repeat_keys == ("img_size",)
    assert "img_size" not in [column.key for column in study.columns]
    by_title = results(tmp_path, group_by=["image size", "model"])
    assert [arm.label for arm in by_title.arms] == ["128 px", "64 px"]
    with pytest.raises(InputError, match=r"--group-by axes: .* img_size, axis"):
        results(tmp_path, group_by=["axes"])


# Folders ------------------------------------------------------------------------------------------------------------


def test_runs_are_found_once_each_up_to_three_levels_deep(tmp_path: Path) -> None:
    write_run(tmp_path / "one", lr=1e-1)
    write_run(tmp_path / "a" / "b" / "three", lr=1e-2)
    write_run(tmp_path / "a" / "b" / "c" / "four", lr=1e-3)
    write_run(tmp_path / "one" / "inside", lr=1e-4)
    write_run(tmp_path / ".hidden" / "run", lr=1e-5)
    (tmp_path / "0_latest").symlink_to("one")
    (tmp_path / "a" / "up").symlink_to(tmp_path)
    study = results(tmp_path)
    folders = {run.folder for arm in study.arms for run in arm.runs.values()}
    assert folders == {tmp_path / "one", tmp_path / "a" / "b" / "three"}
    assert study.others == ()


def test_a_run_folder_or_a_link_to_it_is_accepted(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", test=0.25)
    (tmp_path / "latest").symlink_to("run")
    for folder in (run, tmp_path / "latest"):
        assert [arm.test_dice.mean for arm in results(folder).arms] == [0.25]


def test_unfinished_runs_are_listed_with_their_reasons(tmp_path: Path) -> None:
    write_run(tmp_path / "good")
    set_age(_with_epochs(write_config(tmp_path / "killed"), 3), 600)
    write_config(tmp_path / "started")
    failed = write_config(tmp_path / "failed")
    write_json(failed / "failed.json", {"message": "the loss is NaN\nsee there", "exit_code": 2})
    again = write_config(tmp_path / "again")
    write_json(again / "failed.json", {"message": "out of memory", "exit_code": 1})
    set_age(again / "failed.json", 600)
    _with_epochs(again, 1)
    stopped = write_config(tmp_path / "stopped")
    write_json(stopped / "summary.json", {"status": "pruned"})
    found = states(results(tmp_path))
    assert found["killed"] == ("unfinished", "3 of 4 epochs, last written 10 min ago")
    assert found["started"] == ("unfinished", "0 of 4 epochs")
    assert found["failed"] == ("failed", "the loss is NaN")
    assert found["again"][0] == "unfinished"
    assert found["again"][1].startswith("1 of 4 epochs")
    assert found["stopped"] == ("pruned", "0 of 4 epochs")
    assert "good" not in found


def test_a_refused_command_is_not_listed_as_a_run(tmp_path: Path) -> None:
    write_run(tmp_path / "good")
    (tmp_path / "refused").mkdir()
    write_json(tmp_path / "refused" / "failed.json", {"message": "lr must be above 0", "exit_code": 2})
    assert states(results(tmp_path)) == {}


def _with_epochs(folder: Path, count: int) -> Path:
    write_epochs(folder, [0.5] * count)
    return folder / "metrics.csv"


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("summary.json", b'{"status": "fini', "summary.json is not valid JSON"),
        ("summary.json", b"\xff\xfe\x00", "summary.json is not valid JSON"),
        ("summary.json", b"[1]", "summary.json contains a list"),
        ("summary.json", b'{"status": "finished"}', "summary.json has no val.dice"),
        ("summary.json", b'{"status": "finished", "val": {"dice": "x"}}', "val.dice is 'x'"),
        ("config.yaml", b"lr: [1\nmodel: {", "config.yaml is not valid YAML"),
        ("config.yaml", b"", "config.yaml contains no settings"),
        ("config.yaml", None, "config.yaml is missing"),
        ("failed.json", b"{", "failed.json is not valid JSON"),
    ],
)
def test_a_broken_run_is_listed_and_does_not_stop_the_report(
    tmp_path: Path, name: str, content: bytes | None, message: str
) -> None:
    write_run(tmp_path / "good", lr=1e-5)
    run = write_run(tmp_path / "bad")
    if name == "failed.json":
        (run / "summary.json").unlink()
        (run / "metrics.csv").unlink()
    if content is None:
        (run / name).unlink()
    else:
        (run / name).write_bytes(content)
    study = results(tmp_path)
    assert len(study.arms) == 1
    state, reason = states(study)["bad"]
    assert state == "broken"
    assert message in reason


def test_without_finished_runs_there_are_no_arms_but_the_runs_are_listed(tmp_path: Path) -> None:
    write_config(tmp_path / "started")
    study = results(tmp_path, group_by=["axis"])
    assert (study.arms, study.selected, study.comparison, study.n_finished) == ((), None, None, 0)
    assert len(study.others) == 1


def test_a_folder_without_runs_is_reported(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="contain no run"):
        results(tmp_path / "empty")
    with pytest.raises(InputError, match="is not a folder"):
        results(tmp_path / "missing")


# Real runs ----------------------------------------------------------------------------------------------------------


def test_two_real_runs_are_one_arm_with_the_mean_of_their_summaries(tmp_path: Path) -> None:
    ct = small_ct(tmp_path)
    settings = (*ct.overrides, "data.label_values=[3,4]", "epochs=1")
    runs = [train(tmp_path, *settings, f"seed={seed}", name=f"seed{seed}") for seed in (0, 1)]
    study = results(tmp_path / "outputs")  # also contains the link `latest`
    (arm,) = study.arms
    expected = [json.loads((run / "summary.json").read_text())["test"]["dice"] for run in runs]
    assert arm.test_dice.mean == pytest.approx(sum(expected) / 2)
    assert arm.val_dice.mean == pytest.approx(sum(summary(run)["val"]["dice"] for run in runs) / 2)
    assert arm.settings == {"model.name": "unet", "axis": "axial", "img_size": 32, "lr": 0.03}
    assert study.others == ()
