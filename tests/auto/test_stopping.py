"""Searches that are stopped and go on, and their record."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from spleen.auto.final import train_on_one_volume, train_views
from spleen.auto.finish import HeldOut
from spleen.auto.main import auto, main
from spleen.auto.record import AutoRecord, read_record
from spleen.auto.session import Session
from spleen.errors import FolderInUse, InputError
from spleen.records.folder import is_finished
from spleen.system.locks import folder_lock
from tests._helpers.small_run import SmallCt, rows, small_ct
from tests.auto.test_auto import QUICK, folders


@pytest.fixture(scope="module")
def ct(tmp_path_factory: pytest.TempPathFactory) -> SmallCt:
    return small_ct(tmp_path_factory.mktemp("ct"))


def test_a_record_is_read_as_it_was_written(tmp_path: Path) -> None:
    record = AutoRecord(
        minutes=3.0, overrides=["data=phantom"], seconds={"look": 2.5}, rounds=[[4, 0.2]], views={"final": 1.0}
    )
    record.write(tmp_path)
    assert read_record(tmp_path) == record


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "is damaged"),
        ("[]", "is damaged"),
        ('{"version": 1, "minutes": 3}', "is damaged"),
        ('{"version": 2}', "was written by another version of spleen"),
    ],
)
def test_a_record_that_cannot_be_read_is_refused_in_words(tmp_path, content, message, capsys) -> None:
    (tmp_path / "auto.json").write_text(content)
    assert main([f"resume={tmp_path}"]) == 2
    assert message in capsys.readouterr().err


def test_a_finished_stage_is_not_done_again_and_an_unfinished_one_is(tmp_path: Path) -> None:
    record = AutoRecord(minutes=3.0, overrides=["data=phantom"], seconds={"look": 2.5})
    session = Session(tmp_path, record, started=0.0)
    with session.stage("look") as to_do:
        assert not to_do
    assert record.seconds == {"look": 2.5}
    with pytest.raises(InputError), session.stage("views"):
        raise InputError("the data have gone")
    assert record.seconds == {"look": 2.5}
    with session.stage("views") as to_do:
        assert to_do
    assert set(read_record(tmp_path).seconds) == {"look", "views"}


def test_a_run_that_could_not_begin_is_planned_anew(tmp_path: Path, ct: SmallCt) -> None:
    """Its minutes are those that were left then, and would be refused again."""
    settings = ["data=nifti", *ct.overrides, "data.label_values=[3,4]", *QUICK, f"cache_dir={tmp_path / 'cache'}"]
    record = AutoRecord(minutes=3.0, overrides=settings, slices_per_second=10.0, batch_size=4)
    session = Session(tmp_path / "search", record, started=time.time())
    with pytest.raises(InputError, match=r"max_minutes=0.0001 leaves no time for training"):
        session.train("final", [], 0.0001, 1)
    assert read_record(tmp_path / "search").runs == {}
    session.train("arm", [], 0.0001, 1, may_fail=True)
    assert "leaves no time" in read_record(tmp_path / "search").failed["arm"]


@pytest.mark.parametrize(("train", "run"), [(train_on_one_volume, "final"), (train_views, "final/axial")])
def test_a_finished_search_that_is_resumed_tells_nothing_twice(tmp_path: Path, monkeypatch, train, run: str) -> None:
    monkeypatch.setattr("spleen.auto.final.held_out_cases", lambda *_: HeldOut((), ()))
    (tmp_path / run).mkdir(parents=True)
    scores = {"status": "finished", "val": {"dice": 0.8}, "test": {"dice": 0.9}}
    (tmp_path / run / "summary.json").write_text(json.dumps(scores))
    record = AutoRecord(
        minutes=3.0,
        overrides=["data=phantom"],
        axes=["axial"],
        n_training_slices=100,
        slices_per_second=10.0,
        candidates={"unet": []},
        winner="unet",
        seconds={"views": 0.1, run: 60.0},
    )
    for _ in range(2):
        train(Session(tmp_path, record, started=time.time()))
    assert record.notes
    assert len(set(record.notes)) == len(record.notes)


def test_a_search_finds_its_data_from_any_folder(tmp_path: Path, ct: SmallCt, monkeypatch: pytest.MonkeyPatch) -> None:
    begun: list[Session] = []

    def stop(session: Session) -> None:
        begun.append(session)
        raise InputError("enough")

    monkeypatch.setattr("spleen.auto.search.prepare", stop)
    monkeypatch.chdir(ct.image.parent)
    with pytest.raises(InputError, match="enough"):
        auto([f"data.image={ct.image.name}", f"data.label={ct.label.name}", *folders(tmp_path)], minutes=3)
    monkeypatch.chdir(tmp_path)
    data = begun[0].config().data
    assert (data.image, data.label) == (str(ct.image), str(ct.label))


@pytest.mark.slow
def test_a_search_in_use_is_left_alone(tmp_path: Path) -> None:
    AutoRecord(minutes=3.0, overrides=["data=phantom"]).write(tmp_path)
    before = (tmp_path / "auto.json").read_bytes()
    with folder_lock(tmp_path), pytest.raises(FolderInUse):
        auto(resume=tmp_path)
    assert (tmp_path / "auto.json").read_bytes() == before


def _epochs_saved(tmp_path: Path) -> int:
    """Of the final training."""
    return sum(len(rows(path)) for path in (tmp_path / "outputs" / "auto").glob("*/final/metrics.csv"))


@pytest.mark.slow
@pytest.mark.parametrize(("number", "exit_code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_stopped_search_goes_on_with_what_it_had(tmp_path: Path, ct: SmallCt, number, exit_code: int) -> None:
    settings = [*ct.overrides, "data.label_values=[3,4]", *QUICK, *folders(tmp_path), "minutes=1.5"]
    process = subprocess.Popen(
        [sys.executable, "-m", "spleen", "auto", *settings],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    while process.poll() is None and not _epochs_saved(tmp_path):
        time.sleep(0.1)
    process.send_signal(number)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == exit_code
    (record,) = (tmp_path / "outputs" / "auto").glob("*/auto.json")
    folder = record.parent
    assert f"go on with: spleen auto resume={folder}" in errors
    assert "spleen train" not in errors
    seconds = json.loads(record.read_text())["seconds"]
    kept = rows(folder / "final" / "metrics.csv")
    assert main([f"resume={folder}"]) == 0
    after = json.loads(record.read_text())["seconds"]
    assert {name: after[name] for name in seconds} == seconds
    assert is_finished(folder / "final")
    assert rows(folder / "final" / "metrics.csv")[: len(kept)] == kept
    assert json.loads((folder / "final" / "summary.json").read_text())["resumed"] == 1
    assert (folder / "auto.html").exists()
