import os
import stat
import time
from pathlib import Path

import pytest

from spleen.dicom.node.job import DONE, FAILED, HELD, INCOMING, SENDING, WAITING, WORKING, Identity, Job
from spleen.dicom.node.queue import Queue, release
from spleen.dicom.uids import is_uid
from spleen.errors import InputError

SERIES = "1.2.840.1"


def add(queue: Queue, instance: str, series: str = SERIES) -> bool:
    received = queue.spool / "tmp"
    received.write_bytes(f"instance {instance}".encode())
    return queue.add(received, Identity("1.2.3", series, instance), "SENDER", "127.0.0.1")


def only(queue: Queue, state: str) -> Job:
    (job,) = queue.jobs(state)
    return job


def names(job: Job) -> list[str]:
    return sorted(path.name for path in job.instances())


def to_state(queue: Queue, state: str, *instances: str) -> Job:
    for instance in instances:
        add(queue, instance)
    closed = queue.close(only(queue, INCOMING), 0.0)
    assert closed is not None
    job = queue.start()
    assert job is not None
    return queue.finish(job, state, predicted=True) if state != WORKING else job


@pytest.mark.parametrize(
    "text", ["", ".", "..", "1..2", "1.2.", ".1", "1.2/3", "../1", "1.2\n", "1.2\x00", "1,2", "a", "１", "1" * 65]
)
def test_a_name_that_is_no_uid_is_refused(tmp_path: Path, text: str) -> None:
    assert not is_uid(text)
    queue = Queue(tmp_path / "queue")
    received = queue.spool / "tmp"
    for identity in (Identity(text, "1.2", "1.3"), Identity("1.1", text, "1.3"), Identity("1.1", "1.2", text)):
        received.write_bytes(b"content")
        with pytest.raises(InputError, match="a UID must be digits and dots"):
            queue.add(received, identity, "SENDER", "127.0.0.1")
    assert queue.jobs(INCOMING) == []
    assert {path.name for path in tmp_path.iterdir()} == {"queue"}


def test_uids_of_the_standard_are_uids() -> None:
    assert all(map(is_uid, ("1.2.840.10008.1.1", "0", "2.25." + "1" * 39, "1" * 64)))


def test_folders_and_files_are_for_this_user_only(tmp_path: Path) -> None:
    before = os.umask(0o022)
    try:
        queue = Queue(tmp_path / "queue")
        add(queue, "1.2.1")
    finally:
        os.umask(before)
    folders = [tmp_path / "queue", *(path for path in (tmp_path / "queue").rglob("*") if path.is_dir())]
    assert {stat.S_IMODE(path.stat().st_mode) for path in folders} == {0o700}


def test_an_instance_is_stored_once_and_the_first_is_kept(tmp_path: Path) -> None:
    queue = Queue(tmp_path)
    assert add(queue, "1.2.1")
    assert not add(queue, "1.2.1")
    assert names(only(queue, INCOMING)) == ["1.2.1.dcm"]


def test_a_series_is_closed_when_nothing_has_arrived_for_long_enough(tmp_path: Path) -> None:
    queue = Queue(tmp_path)
    add(queue, "1.2.1")
    assert queue.close(only(queue, INCOMING), 0.3) is None
    time.sleep(0.2)
    queue.touch(SERIES)
    time.sleep(0.2)
    assert queue.close(only(queue, INCOMING), 0.3) is None
    time.sleep(0.15)
    closed = queue.close(only(queue, INCOMING), 0.3)
    assert closed is not None
    assert closed.state == WAITING


def test_a_waiting_series_begins_again_when_more_arrives(tmp_path: Path) -> None:
    queue = Queue(tmp_path)
    add(queue, "1.2.1")
    queue.close(only(queue, INCOMING), 0.0)
    assert add(queue, "1.2.2")
    assert queue.jobs(WAITING) == []
    assert names(only(queue, INCOMING)) == ["1.2.1.dcm", "1.2.2.dcm"]


def test_a_result_is_dropped_if_more_arrived_while_it_was_predicted(tmp_path: Path) -> None:
    queue = Queue(tmp_path)
    job = to_state(queue, WORKING, "1.2.1", "1.2.2")
    assert not add(queue, "1.2.2")
    assert add(queue, "1.2.3")
    moved = queue.finish(job, SENDING, predicted=True)
    assert moved.state == INCOMING
    assert names(only(queue, INCOMING)) == ["1.2.1.dcm", "1.2.2.dcm", "1.2.3.dcm"]
    assert queue.jobs(WORKING) == queue.jobs(SENDING) == []


def test_a_result_is_dropped_if_what_arrived_meanwhile_waits_already(tmp_path: Path) -> None:
    queue = Queue(tmp_path)
    job = to_state(queue, WORKING, "1.2.1", "1.2.2")
    assert add(queue, "1.2.3")
    assert queue.n_known(only(queue, INCOMING)) == 3
    queue.close(only(queue, INCOMING), 0.0)
    queue.finish(job, SENDING, predicted=True)
    assert queue.jobs(WORKING) == queue.jobs(SENDING) == []
    assert names(only(queue, WAITING)) == ["1.2.1.dcm", "1.2.2.dcm", "1.2.3.dcm"]


def test_a_series_that_cannot_be_begun_waits_again(tmp_path: Path) -> None:
    queue = Queue(tmp_path)
    add(queue, "1.2.1")
    closed = queue.close(only(queue, INCOMING), 0.0)
    assert closed is not None
    closed.results.write_text("in the way of a folder")
    with pytest.raises(FileExistsError):
        queue.start()
    assert names(only(queue, WAITING)) == ["1.2.1.dcm"]


@pytest.mark.parametrize("state", [SENDING, HELD, DONE])
def test_instances_after_the_result_make_the_whole_series_come_again(tmp_path: Path, state: str) -> None:
    queue = Queue(tmp_path)
    to_state(queue, state, "1.2.1", "1.2.2")
    assert not add(queue, "1.2.1")
    assert queue.jobs(INCOMING) == []
    assert add(queue, "1.2.3")
    closed = queue.close(only(queue, INCOMING), 0.0)
    assert closed is not None
    assert closed.name == f"{SERIES}_2"
    assert closed.series_uid == SERIES
    assert names(closed) == ["1.2.1.dcm", "1.2.2.dcm", "1.2.3.dcm"]
    assert names(only(queue, state)) == ["1.2.1.dcm", "1.2.2.dcm"]


def test_series_whose_uids_begin_alike_are_kept_apart(tmp_path: Path) -> None:
    queue = Queue(tmp_path)
    to_state(queue, DONE, "1.2.1")
    assert add(queue, "1.2.1", series=f"{SERIES}.2")
    assert only(queue, INCOMING).name == f"{SERIES}.2"


def test_a_failed_series_begins_again_when_it_is_sent_again(tmp_path: Path) -> None:
    queue = Queue(tmp_path)
    to_state(queue, FAILED, "1.2.1").update(reason="no memory", attempts=7)
    assert not add(queue, "1.2.1")
    assert (only(queue, INCOMING).record().reason, only(queue, INCOMING).record().attempts) == ("", 0)
    assert queue.jobs(FAILED) == []


def test_after_a_kill_predictions_begin_again_and_half_received_files_are_gone(tmp_path: Path) -> None:
    queue = Queue(tmp_path)
    job = to_state(queue, WORKING, "1.2.1")
    (job.results / "half.dcm").touch()
    add(queue, "1.3.1", series="1.9")
    (queue.spool / "half.dcm").touch()
    (tmp_path / INCOMING / "1.7").mkdir()
    again = Queue(tmp_path)
    assert again.recover() == 1
    assert list(again.spool.iterdir()) == []
    assert [each.name for each in again.jobs(INCOMING)] == ["1.9"]
    started = again.start()
    assert started is not None
    assert started.name == SERIES
    assert list(started.results.iterdir()) == []


def test_release_sends_a_held_result_and_tries_a_failed_series_again(tmp_path: Path) -> None:
    queue = Queue(tmp_path)
    to_state(queue, HELD, "1.2.1").update(for_review=True, reason="spleen: small")
    assert release(tmp_path, SERIES) == SENDING
    assert only(queue, SENDING).record().for_review
    queue.move(only(queue, SENDING), FAILED).update(attempts=5)
    assert release(tmp_path, SERIES) == SENDING
    assert only(queue, SENDING).record().attempts == 0
    queue.move(only(queue, SENDING), FAILED).update(predicted=False)
    assert release(tmp_path, SERIES) == WAITING
    for name in (SERIES, "../x", "1.5"):
        with pytest.raises(InputError, match=r"holds no series .* that is held or failed"):
            release(tmp_path, name)


def test_old_series_are_removed_once_delivered(tmp_path: Path) -> None:
    queue = Queue(tmp_path)
    job = to_state(queue, DONE, "1.2.1")
    assert queue.remove_old(1.0) == 0
    for path in (job.folder, job.images):
        os.utime(path, (time.time() - 90000, time.time() - 90000))
    assert queue.remove_old(1.0) == 1
    assert queue.counts()[DONE] == 0


def test_a_damaged_record_counts_as_none(tmp_path: Path) -> None:
    queue = Queue(tmp_path)
    add(queue, "1.2.1")
    job = only(queue, INCOMING)
    assert (job.record().caller, job.record().study_uid) == ("SENDER", "1.2.3")
    for text in ("{", "[]", '{"attempts": 1, "unknown": 2}'):
        (job.folder / "record.json").write_text(text)
        assert job.record().caller == ""
