"""`spleen auto` from the command line: what it refuses, and a whole search on a small volume and on small cases."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest

from spleen.auto.layout import with_layout
from spleen.auto.main import auto, main
from spleen.errors import InputError
from spleen.inference.predict import predict
from spleen.records.folder import is_finished
from spleen.runs.main import as_understood
from tests._helpers.many_cases import many_cases
from tests._helpers.small_run import SMALL, SmallCt, small_ct

# Small enough to train in seconds; what is left out here is what a search decides.
DECIDED = (
    "data",
    "axis",
    "augment",
    "epochs",
    "batch_size",
    "loader.slices_per_epoch",
    "report",
    "img_size",
    "split.val_fraction",
)
QUICK = [setting for setting in SMALL if setting.split("=")[0] not in DECIDED]


@pytest.fixture(scope="module")
def ct(tmp_path_factory: pytest.TempPathFactory) -> SmallCt:
    return small_ct(tmp_path_factory.mktemp("ct"))


def folders(tmp_path: Path) -> list[str]:
    return [f"output_dir={tmp_path / 'outputs'}", f"cache_dir={tmp_path / 'cache'}"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "minutes=30"),
        (["minutes=3"], "needs labelled data"),
        (["data=phantom", "minutes=soon"], "minutes must be a number above 0, up to 100000; got 'soon'"),
        (["data=phantom", "minutes=3", "imgsize=64"], "unknown key 'imgsize'; did you mean img_size"),
        (["data=phantom", "minutes=3", "lr=1,2"], "one value of each"),
        (["data=phantom", "minutes=3", "axis=axail"], "axis must be one of sagittal, coronal, axial; got 'axail'"),
        (["data=phantom", "minutes=3", "max_minutes=2"], "minutes= is for all its runs together"),
        (["data=phantom", "minutes=3", "-m"], "-m: spleen auto takes no flags"),
        (["data=phantom", "minutes"], "'minutes' is not of the form key=value"),
        (["data=phantom", "minutes=3", "experiment=tune"], "a study is several runs"),
        (["data=phantom", "minutes=3", f"output_dir={__file__}"], "choose a writable folder with output_dir="),
        (["data=phantom", "minutes=3", "model=unett"], "model=unett: no such option; available are"),
        (["data.root=/nowhere", "minutes=3"], "none of the layouts"),
        (["resume=/nowhere"], "has no auto.json"),
        (["resume=/nowhere", "lr=1"], "give it alone"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "message",
)
def test_wrong_arguments_are_refused_in_words(arguments, message, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments) == 2
    assert message in capsys.readouterr().err


def test_labels_without_the_organ_are_refused_and_leave_no_folder(tmp_path, ct: SmallCt) -> None:
    with pytest.raises(InputError, match="no voxel has the value 9; the label holds 3, 4, 7"):
        auto([*ct.overrides, "data.label_values=[9]", *QUICK, *folders(tmp_path)], minutes=5)
    assert not (tmp_path / "outputs").exists()


def test_a_search_without_a_validation_split_is_refused(tmp_path: Path) -> None:
    data = many_cases(tmp_path / "Task77", 4)
    with pytest.raises(InputError, match="chooses by validation Dice"):
        auto([f"data.root={data.root}", "split.val_fraction=0", *QUICK, *folders(tmp_path)], minutes=5)
    assert not (tmp_path / "outputs").exists()


def test_a_3d_network_is_refused_with_what_to_do(tmp_path: Path, ct: SmallCt) -> None:
    settings = [*ct.overrides, "data.label_values=[3,4]", "model=unet3d", *folders(tmp_path)]
    with pytest.raises(InputError, match=r"chooses among 2D networks; for a 3D one .* with max_minutes=5"):
        auto(settings, minutes=5)
    assert not (tmp_path / "outputs").exists()


def test_the_layout_is_found_in_a_folder_of_any_name(tmp_path: Path) -> None:
    data = many_cases(tmp_path / "O'Brien, ${A}" / "Task77", 1)
    assert with_layout(as_understood([f"data.root={data.root}"]))[0] == "data=decathlon"


def test_too_few_minutes_are_refused_with_the_least(tmp_path, ct: SmallCt) -> None:
    with pytest.raises(InputError, match=r"minutes=0.01 are too few .* Use at least minutes=\d"):
        auto([*ct.overrides, "data.label_values=[3,4]", *QUICK, *folders(tmp_path)], minutes=0.01)


@pytest.mark.slow
def test_a_search_on_one_volume_leaves_runs_pages_and_commands_and_is_not_repeated(tmp_path, ct: SmallCt) -> None:
    folder = auto([*ct.overrides, "data.label_values=[3,4]", *QUICK, *folders(tmp_path)], minutes=2.4)
    record = json.loads((folder / "auto.json").read_text())
    assert record["views"] == {"final": 1.0}
    assert record["test_dice"]
    rounds = [name for name in record["runs"] if name.startswith("round")]
    assert rounds
    for name in rounds:
        summary = json.loads((folder / name / "summary.json").read_text())
        assert summary["test"]["n_cases"] == 0  # only what was chosen is tested
    assert is_finished(folder / "final")
    page = (folder / "auto.html").read_text()
    assert "spleen predict" in page
    assert "max_minutes=" in page
    assert (folder / "study.html").exists()
    times = {path: path.stat().st_mtime_ns for path in folder.rglob("*.ckpt")}
    auto(resume=folder)
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*.ckpt")} == times


@pytest.mark.slow
def test_a_search_on_many_cases_fuses_what_it_trained_and_tests_it_once(tmp_path: Path) -> None:
    data = many_cases(tmp_path / "Task77", 12)
    folder = auto([f"data.root={data.root}", "split.val_fraction=0.25", *QUICK, *folders(tmp_path)], minutes=1.8)
    record = json.loads((folder / "auto.json").read_text())
    assert set(record["views"]) <= {f"final/{axis}" for axis in record["axes"]}
    assert sum(record["views"].values()) == pytest.approx(1, abs=1e-5)
    assert any("not calibrated" in note for note in record["notes"])  # a handful of test cases
    with (folder / "test_cases.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    front = [float(row["dice"]) for row in rows if row["class_name"] == "front"]
    assert record["test_dice"]["front"] == pytest.approx(np.mean(front), abs=1e-4)
    low, high = record["test_intervals"]["front"]
    slack = 1e-4  # the file has rounded values
    assert min(front) - slack <= low <= np.mean(front) + slack <= high + 2 * slack <= max(front) + 3 * slack
    report = predict([folder / name for name in record["views"]], data.image("c0"), tmp_path / "masks")
    assert not report.failures
