"""A node from C-STORE to C-STORE: dcmtk's storescu sends, its storescp receives the results."""

import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from pydicom import dcmread

from spleen.dicom.node.job import DONE, FAILED, HELD, SENDING, Job
from spleen.dicom.node.queue import release
from spleen.dicom.node.sender import Sender
from spleen.dicom.node.server import Node
from spleen.dicom.node.settings import NodeSettings, read_settings
from spleen.dicom.node.status import as_text, read_status
from tests._helpers.dicom_network import (
    RunningNode,
    echo,
    free_port,
    new_series,
    node,
    series_uid,
    store,
    storescp,
    wait_for,
    write_config,
)
from tests._helpers.pretended_segmentation import Pretend


@contextmanager
def at_work(settings: NodeSettings, load: Pretend) -> Iterator[Node]:
    """A node in this process."""
    running, stopped = Node(settings, load), threading.Event()

    def tick() -> None:
        while not stopped.wait(0.05):
            running.close_whole_series()

    ticking = threading.Thread(target=tick)
    running.start()
    ticking.start()
    try:
        yield running
    finally:
        stopped.set()
        ticking.join()
        running.stop()


def settings_for(tmp_path: Path, port: int, **values: object) -> NodeSettings:
    return read_settings(write_config(tmp_path, port, **{"quiet_seconds": 0.3, **values}))


def kinds(folder: Path) -> list[str]:
    """The modalities of what storescp has received."""
    return sorted(dcmread(path).Modality for path in folder.iterdir())


def test_a_series_is_segmented_and_delivered(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    port = free_port()
    settings = settings_for(tmp_path, port)
    with storescp(tmp_path / "peer", port) as peer, at_work(settings, Pretend()) as running:
        files = new_series(tmp_path / "series")
        assert store(running.receiver.port, files).returncode == 0
        wait_for(lambda: running.queue.counts()[DONE] == 1, 20)
        assert kinds(peer) == ["SEG", "SR"]
        assert store(running.receiver.port, files).returncode == 0  # acknowledged, and that is all
        assert running.receiver.received == len(files)
        lines = as_text(read_status(settings.folder)).splitlines()
        assert lines == [
            f"SPLEEN@127.0.0.1:{running.receiver.port} answers",
            "0 incoming, 0 waiting, 0 working, 0 sending, 0 held, 0 failed, 1 done",
        ]
    assert "phantom" not in caplog.text.lower()


@pytest.mark.slow
def test_a_series_comes_back_as_segmentation_and_report(tmp_path: Path) -> None:
    """A process of its own: what it logs, and what `spleen dicom status` says of it."""
    port = free_port()
    config = write_config(tmp_path, port, quiet_seconds=0.3)
    with storescp(tmp_path / "peer", port) as peer, node(config) as running:
        assert store(running.port, new_series(tmp_path / "series")).returncode == 0
        wait_for(lambda: running.series(DONE) == [series_uid("")], 30)
        assert kinds(peer) == ["SEG", "SR"]
        assert store(running.port, new_series(tmp_path / "series")).returncode == 0  # acknowledged, and nothing else
        status = subprocess.run(
            [sys.executable, "-m", "spleen", "dicom", "status", str(running.queue)], capture_output=True, text=True
        )
        assert status.returncode == 0, status.stderr
        first, counts = status.stdout.splitlines()
        assert first == f"SPLEEN@127.0.0.1:{running.port} answers"
        assert counts == "0 incoming, 0 waiting, 0 working, 0 sending, 0 held, 0 failed, 1 done"
        log = running.log.read_text()
        assert f"series {series_uid('')}: delivered" in log
        assert "Phantom" not in log
        assert "PHANTOM" not in log
        another = subprocess.run(
            [sys.executable, "-m", "tests._helpers.dicom_network", str(config)], capture_output=True, text=True
        )
        assert "another process is using" in another.stderr
    assert "Traceback" not in running.log.read_text()
    assert as_text(read_status(running.queue)).splitlines()[0] == "no node is running here"


def test_a_doubtful_result_is_held_until_it_is_released(tmp_path: Path) -> None:
    port = free_port()
    settings = settings_for(tmp_path, port, review="hold")
    with storescp(tmp_path / "peer", port) as peer, at_work(settings, Pretend(needs_review=True)) as running:
        store(running.receiver.port, new_series(tmp_path / "series"))
        wait_for(lambda: running.queue.counts()[HELD] == 1, 20)
        assert kinds(peer) == []
        assert as_text(read_status(settings.folder)).splitlines()[2].endswith(f"{series_uid('')}  REVIEW small")
        assert release(settings.folder, series_uid("")) == SENDING
        wait_for(lambda: running.queue.counts()[DONE] == 1, 20)
        assert kinds(peer) == ["SEG", "SR"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("ending", "reason"),
    [
        ("error", "ValueError: no such voxel"),
        ("crash", "the prediction process ended with exit code 3"),
        ("kill", "the prediction process was ended by SIGKILL; the memory may not suffice"),
    ],
)
def test_a_prediction_that_fails_leaves_the_node_at_work(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, ending: str, reason: str
) -> None:
    settings = settings_for(tmp_path, free_port())
    with at_work(settings, Pretend(ending=ending)) as running:
        for seed in ("a", "b"):
            store(running.receiver.port, new_series(tmp_path / seed, seed))
            wait_for(lambda seed=seed: (settings.folder / FAILED / series_uid(seed)).exists(), 20)  # type: ignore[misc]
        assert {job.record().reason for job in running.queue.jobs(FAILED)} == {reason}
        assert echo(running.receiver.port).returncode == 0
        assert reason in as_text(read_status(settings.folder))
        assert "no such voxel" not in caplog.text  # a reason may quote an element


@pytest.mark.slow
def test_a_prediction_that_never_ends_is_stopped(tmp_path: Path) -> None:
    settings = settings_for(tmp_path, free_port())
    settings = replace(settings, limits=replace(settings.limits, predict_seconds=5.0))
    with at_work(settings, Pretend(seconds=600)) as running:
        store(running.receiver.port, new_series(tmp_path / "series"))
        wait_for(lambda: running.queue.counts()[FAILED] == 1, 20)
        assert "took longer than 5 s (limits.predict_seconds)" in running.queue.jobs(FAILED)[0].record().reason


@pytest.mark.slow
def test_a_destination_that_is_away_gets_its_results_later(tmp_path: Path) -> None:
    port, other = free_port(), free_port()
    peers = [{"ae_title": "PEER", "host": "127.0.0.1", "port": each} for each in (port, other)]
    settings = settings_for(tmp_path, port, destinations=peers)
    with storescp(tmp_path / "here", port) as here, at_work(settings, Pretend()) as running:
        store(running.receiver.port, new_series(tmp_path / "series"))
        wait_for(lambda: running.queue.counts()[SENDING] == 1 and len(kinds(here)) == 2, 20)
        wait_for(lambda: running.queue.jobs(SENDING)[0].record().attempts >= 2, 20)
        (job,) = running.queue.jobs(SENDING)
        assert job.record().reason == f"PEER@127.0.0.1:{other}: it cannot be reached"
        (here / "left_alone").touch()  # storescp overwrites what is sent again
        first = {path: path.stat().st_mtime_ns for path in here.iterdir()}
        with storescp(tmp_path / "away", other) as away:
            wait_for(lambda: running.queue.counts()[DONE] == 1, 20)
            assert kinds(away) == ["SEG", "SR"]
        assert {path: path.stat().st_mtime_ns for path in here.iterdir()} == first


@pytest.mark.slow
def test_a_destination_that_stays_away_makes_the_series_fail(tmp_path: Path) -> None:
    port = free_port()
    settings = settings_for(tmp_path, port, retries={"attempts": 2, "first_wait_seconds": 0.1})
    with at_work(settings, Pretend()) as running:
        store(running.receiver.port, new_series(tmp_path / "series"))
        wait_for(lambda: running.queue.counts()[FAILED] == 1, 20)
        reason = running.queue.jobs(FAILED)[0].record().reason
        assert reason == f"not delivered after 2 attempts: PEER@127.0.0.1:{port}: it cannot be reached"
        with storescp(tmp_path / "peer", port) as peer:
            assert release(settings.folder, series_uid("")) == SENDING
            wait_for(lambda: running.queue.counts()[DONE] == 1, 20)
            assert kinds(peer) == ["SEG", "SR"]


def test_what_was_begun_and_not_confirmed_is_sent_again_under_the_same_uid(tmp_path: Path) -> None:
    """storescp answers no C-FIND, so only the UID keeps the instance single."""
    port = free_port()
    settings = settings_for(tmp_path, port)
    folder = tmp_path / "job"
    (folder / "images").mkdir(parents=True)
    (folder / "results").mkdir()
    for path in new_series(tmp_path / "series"):
        path.rename(folder / "images" / path.name)
    Pretend().segment(folder / "images", folder / "results")
    sender, job = Sender(settings), Job(folder)
    with storescp(tmp_path / "peer", port) as peer:
        sender.deliver(job)
        received = {path.name: path.stat().st_mtime_ns for path in peer.iterdir()}
        assert len(received) == 2
        journal = folder / "sent.jsonl"
        lines = journal.read_text().splitlines()
        assert len(lines) == 4
        journal.write_text("\n".join([*lines[:3], lines[3][:20]]))  # killed while it noted the last confirmation
        sender.deliver(job)
        again = {path.name: path.stat().st_mtime_ns for path in peer.iterdir()}
        assert again.keys() == received.keys()
        assert sum(again[name] != received[name] for name in again) == 1
    assert '"confirmed"' in journal.read_text().splitlines()[-1]


@pytest.mark.slow
def test_a_node_without_its_runs_does_not_start(tmp_path: Path) -> None:
    config = write_config(tmp_path, free_port())
    done = subprocess.run(
        [sys.executable, "-m", "spleen", "dicom", "serve", str(config)], capture_output=True, text=True
    )  # fmt: skip
    assert done.returncode == 2
    assert "run" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("serve",), "give a CONFIG, or --run RUN and --to AE@HOST:PORT"),
        (("serve", "--run", "."), "destinations: give at least one"),
        (
            ("serve", "--run", ".", "--to", "PACS@localhost:4242", "--codes", "missing.yaml"),
            "missing.yaml: no such file",
        ),
        (("serve", "--run", ".", "--to", "PACS"), "--to must be AE@HOST:PORT"),
        (("serve", "missing.yaml"), "missing.yaml"),
        (("status", "missing"), "missing is no folder of a node"),
        (("release", "1.2.3", "missing"), "missing holds no series 1.2.3"),
    ],
)
def test_wrong_use_is_told(tmp_path: Path, arguments: tuple[str, ...], message: str) -> None:
    from typer.testing import CliRunner

    from spleen.cli.main import app

    done = CliRunner().invoke(app, ["dicom", *arguments])
    assert done.exit_code == 2
    assert message in done.output


@pytest.mark.slow
def test_a_restart_goes_on_where_it_was(tmp_path: Path) -> None:
    port = free_port()
    running = RunningNode(write_config(tmp_path, port, quiet_seconds=0.2), "30")
    try:
        store(running.port, new_series(tmp_path / "series"))
        wait_for(lambda: running.series("working") == [series_uid("")], 20)
        running.kill()
        running.arguments = ("0",)
        with storescp(tmp_path / "peer", port) as peer:
            running.start()
            wait_for(lambda: running.series(DONE) == [series_uid("")], 30)
            assert kinds(peer) == ["SEG", "SR"]
        assert "1 prediction(s) start again" in running.log.read_text()
    finally:
        running.stop()
