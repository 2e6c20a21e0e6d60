"""The node with Orthanc, and killed at random moments."""

import os
import random
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from pydicom import dcmread

from spleen.dicom.node.job import DONE, FAILED, Job
from spleen.dicom.node.sender import Sender
from spleen.dicom.node.settings import Peer, read_settings
from spleen.dicom.node.status import read_status
from spleen.dicom.write_series import write_series
from tests._helpers.dicom_network import (
    RunningNode,
    free_port,
    new_series,
    node,
    orthanc,
    series_uid,
    store,
    storescp,
    wait_for,
    write_config,
)
from tests._helpers.dicom_results import class_indices, coded_run, ct_of, int16, sop_uids
from tests._helpers.nifti import ras_affine
from tests._helpers.pretended_segmentation import Pretend
from tests._helpers.small_run import SPACING_MM

pytestmark = pytest.mark.slow


def test_from_orthanc_and_back(tmp_path: Path) -> None:
    """Orthanc sends a series; the results are found in its study, by REST and by C-FIND."""
    node_port = free_port()
    with orthanc(tmp_path / "orthanc", node_port) as peer:
        callers = [{"ae_title": "PEER", "addresses": ["127.0.0.1"], "find_port": peer.port}]
        # So long that only C-FIND at the sender can end the waiting.
        config = write_config(tmp_path, peer.port, port=node_port, callers=callers, quiet_seconds=600)
        files = new_series(tmp_path / "series", n_slices=20)
        peer.upload(files)
        with node(config) as running:
            found = peer.ask("tools/find", {"Level": "Series", "Query": {"SeriesInstanceUID": series_uid("")}})
            assert isinstance(found, list)
            peer.ask("modalities/spleen/store", {"Resources": found})
            wait_for(lambda: running.series(DONE) == [series_uid("")], 60)
        assert (len(peer.find("SEG")), len(peer.find("SR"))) == (1, 1)
        sender = Sender(read_settings(config))
        here = Peer("PEER", "127.0.0.1", peer.port)
        segmentation = dcmread(next(running.queue.glob("done/*/results/segmentation.dcm")), stop_before_pixels=True)
        assert sender.count_at(here, segmentation.StudyInstanceUID, segmentation.SeriesInstanceUID) == 1
        (study,) = peer.ask("tools/find", {"Level": "Study", "Query": {}, "Expand": True})  # type: ignore[misc]
        assert study["MainDicomTags"]["StudyInstanceUID"] == dcmread(files[0]).StudyInstanceUID  # type: ignore[index]
        assert len(study["Series"]) == 3  # type: ignore[index]


def test_instances_that_the_sender_lists_and_that_never_come_make_the_series_fail(tmp_path: Path) -> None:
    node_port = free_port()
    with orthanc(tmp_path / "orthanc", node_port) as peer:
        callers = [{"ae_title": "PEER", "addresses": ["127.0.0.1"], "find_port": peer.port}]
        config = write_config(
            tmp_path, peer.port, port=node_port, callers=callers, quiet_seconds=0.1, patience_seconds=4.0
        )
        files = new_series(tmp_path / "series", n_slices=5)
        peer.upload(files)
        with node(config) as running:
            store(running.port, files[:3], "-aet", "PEER")
            wait_for(lambda: running.series(FAILED) == [series_uid("")], 30)
            reason = running.record(FAILED, series_uid(""))["reason"]
            assert reason == "only 3 of 5 instances that the sender lists have arrived"
            store(running.port, files[3:], "-aet", "PEER")
            wait_for(lambda: running.series(DONE) == [series_uid("")], 30)
        assert len(peer.find("SEG")) == 1


def test_what_has_arrived_without_being_confirmed_is_not_sent_again(tmp_path: Path) -> None:
    with orthanc(tmp_path / "orthanc", free_port()) as peer:
        settings = read_settings(write_config(tmp_path, peer.port))
        job = Job(tmp_path / "job")
        for folder in (job.folder, job.results):
            folder.mkdir()
        new_series(job.images)
        Pretend().segment(job.images, job.results)
        Sender(settings).deliver(job)
        lines = (job.folder / "sent.jsonl").read_text().splitlines()
        (job.folder / "sent.jsonl").write_text("\n".join(lines[:3]))
        before = peer.ask("changes?limit=1000")
        Sender(settings).deliver(job)
        assert peer.ask("changes?limit=1000") == before
        assert (job.folder / "sent.jsonl").read_text().splitlines()[3:] == lines[3:]


@pytest.mark.parametrize("receiver", ["storescp", "orthanc"])
def test_ten_kills_lose_nothing_and_send_nothing_twice(tmp_path: Path, receiver: str) -> None:
    """SIGKILL at random moments while series arrive, are predicted and are sent.

    The sender does as real ones do: it sends again what was not acknowledged.
    """
    port, node_port, chance = free_port(), free_port(), random.Random(17)
    seeds = [f"s{number}" for number in range(12)]
    series = {seed: new_series(tmp_path / seed, seed, n_slices=6) for seed in seeds}
    acknowledged: dict[str, bool] = dict.fromkeys(seeds, False)

    def send_all() -> None:
        for seed in seeds:
            while not acknowledged[seed]:
                done = store(node_port, series[seed])
                acknowledged[seed] = done.returncode == 0 and (done.stderr + done.stdout).count("DIMSE Status") >= 6
                time.sleep(0.3)

    def run(destination: int) -> RunningNode:
        running = RunningNode(write_config(tmp_path, destination, port=node_port, quiet_seconds=1.5), "0.3")
        sender = threading.Thread(target=send_all)
        sender.start()
        try:
            for _ in range(10):
                time.sleep(chance.uniform(0.2, 3.0))
                running.kill()
                running.start()
            sender.join(120)
            assert all(acknowledged.values())
            wait_for(lambda: running.series(DONE) == sorted(map(series_uid, seeds)), 120)
            for state in ("incoming", "waiting", "working", "sending", "held", "failed"):
                assert running.series(state) == []
            for seed in seeds:
                stored = running.queue / DONE / series_uid(seed) / "images"
                assert len(list(stored.iterdir())) == 6
        finally:
            running.stop()
        assert "Traceback" not in running.log.read_text()
        return running

    if receiver == "storescp":
        # storescp answers no C-FIND; it stores under the UID, as archives do.
        with storescp(tmp_path / "peer", port) as peer:
            run(port)
            received = [dcmread(path) for path in peer.iterdir()]
        modalities = [each.Modality for each in received]
        assert len({each.SOPInstanceUID for each in received}) == len(received)
    else:
        with orthanc(tmp_path / "orthanc", node_port) as peer:
            run(peer.port)
            modalities = ["SEG"] * len(peer.find("SEG")) + ["SR"] * len(peer.find("SR"))
    assert (modalities.count("SEG"), modalities.count("SR")) == (12, 12)


def test_a_trained_run_answers_orthanc(tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    """`spleen dicom serve` with a run: the segmentation in Orthanc is that of `spleen predict`."""
    run, ct = coded_run(tmp_path_factory), ct_of(tmp_path_factory)
    affine = ras_affine(SPACING_MM)
    files = write_series(tmp_path / "series", int16(ct), affine)
    command, expected = (sys.executable, "-m", "spleen"), tmp_path / "expected.dcm"
    subprocess.run([*command, "predict", run, tmp_path / "series", "--output", expected], check=True)
    node_port, queue = free_port(), tmp_path / "queue"
    with orthanc(tmp_path / "orthanc", node_port) as peer, (tmp_path / "log.txt").open("w") as log:
        options = ("--to", f"PEER@127.0.0.1:{peer.port}", "--port", str(node_port), "--quiet-seconds", "1")
        serving = subprocess.Popen(
            [*command, "dicom", "serve", "--run", str(run), "--folder", str(queue), *options],
            stdout=log, stderr=log, env={**os.environ, "OMP_NUM_THREADS": "1"},
        )  # fmt: skip
        try:
            wait_for(lambda: (queue / "node.json").exists() or serving.poll() is not None, 120)
            peer.upload(files)
            found = peer.ask("tools/find", {"Level": "Series", "Query": {}})
            peer.ask("modalities/spleen/store", {"Resources": found})
            wait_for(lambda: any((queue / DONE).iterdir()) or any((queue / FAILED).iterdir()), 120)
            assert read_status(queue).problem == ""
            assert [each.state for each in read_status(queue).series] == [DONE]
        finally:
            serving.terminate()
            serving.wait(30)
        (uid,) = peer.find("SEG")
        assert len(peer.find("SR")) == 1
        (instance,) = peer.ask("tools/find", {"Level": "Instance", "Query": {"SOPInstanceUID": uid}})  # type: ignore[misc]
        segmentation = tmp_path / "from_orthanc.dcm"
        segmentation.write_bytes(peer.download(f"instances/{instance}/file"))
    sources = sop_uids(files)
    found_mask = class_indices(segmentation, sources)
    assert (found_mask == class_indices(expected, sources)).all()
    assert set(np.unique(found_mask)) == {0, 1, 2}
    log_text = (tmp_path / "log.txt").read_text()
    assert "Traceback" not in log_text
    assert "phantom" not in log_text.lower()
    assert "stopped; the series in the queue go on at the next start" in log_text
    assert {path.stat().st_mode & 0o077 for path in queue.rglob("*")} == {0}
