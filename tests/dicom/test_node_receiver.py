"""The receiving side, called by dcmtk's programs and by raw sockets; nothing is predicted here."""

import logging
import shutil
import socket
import struct
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import psutil
import pytest
from pydicom import dcmread

from spleen.dicom.node.job import INCOMING
from spleen.dicom.node.queue import Queue
from spleen.dicom.node.receiver import Receiver
from spleen.dicom.node.sender import Sender
from spleen.dicom.node.settings import Caller, Limits, NodeSettings, Peer, Tls
from spleen.errors import InputError
from tests._helpers.broken_associations import MISUSES, associate, command, element, p_data
from tests._helpers.dicom_network import echo, need, new_series, series_uid, store, wait_for

LIMITS = Limits(free_disk_gb=0.0, network_seconds=2.0, instance_mb=8)
SENDER = Caller("SENDER", ("127.0.0.1",))


@contextmanager
def receiver(folder: Path, **changes: object) -> Iterator[Receiver]:
    settings = NodeSettings((), (), folder=folder, port=0, callers=(SENDER,), limits=LIMITS)
    running = Receiver(replace(settings, **changes), Queue(folder))  # type: ignore[arg-type]
    running.start()
    try:
        yield running
    finally:
        running.stop()


def received(folder: Path, seed: str = "") -> list[Path]:
    return sorted((folder / INCOMING / series_uid(seed) / "images").glob("*.dcm"))


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Receiver]:
    """A receiver that many tests call: starting and stopping one takes half a second."""
    with receiver(tmp_path_factory.mktemp("shared")) as running:
        yield running


def test_verification_is_answered(shared: Receiver) -> None:
    assert echo(shared.port).returncode == 0


def test_instances_are_stored_as_they_came(tmp_path: Path) -> None:
    files = new_series(tmp_path / "series")
    with receiver(tmp_path / "queue") as running:
        done = store(running.port, files)
    assert done.returncode == 0, done.stderr
    stored = {dcmread(path).SOPInstanceUID: path for path in received(tmp_path / "queue")}
    assert len(stored) == 3
    for path in files:
        sent = dcmread(path)
        found = dcmread(stored[sent.SOPInstanceUID])
        assert found == sent
        assert found.file_meta.TransferSyntaxUID == sent.file_meta.TransferSyntaxUID
        assert stored[sent.SOPInstanceUID].name == f"{sent.SOPInstanceUID}.dcm"
        assert stored[sent.SOPInstanceUID].stat().st_mode & 0o777 == 0o600
    assert list((tmp_path / "queue" / "spool").iterdir()) == []


def test_duplicates_are_acknowledged_and_stored_once(tmp_path: Path) -> None:
    files = new_series(tmp_path / "series")
    with receiver(tmp_path / "queue") as running:
        assert store(running.port, [*files, *files]).returncode == 0
        assert running.received == 3
    assert len(received(tmp_path / "queue")) == 3


@pytest.mark.parametrize(
    ("title", "called"), [("STRANGER", "SPLEEN"), ("SENDER", "OTHER"), ("sender", "SPLEEN")]
)  # AE titles are case sensitive
def test_unknown_titles_are_rejected(
    shared: Receiver, caplog: pytest.LogCaptureFixture, title: str, called: str
) -> None:
    rejected = echo(shared.port, title, called)
    assert rejected.returncode != 0
    assert "Association Rejected" in rejected.stderr + rejected.stdout
    assert f"association with {title} (127.0.0.1) rejected" in caplog.text
    assert echo(shared.port).returncode == 0


def test_unknown_addresses_are_turned_away(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with receiver(tmp_path, ae_title="NODE", callers=(Caller("SENDER", ("192.0.2.1",)),)) as running:
        assert echo(running.port, "SENDER", "NODE").returncode != 0
        # Only the node itself may verify from this machine, and may do nothing else.
        assert echo(running.port, "NODE", "NODE").returncode == 0
        done = store(running.port, new_series(tmp_path / "series"), "-aet", "NODE", "-aec", "NODE")
        assert "0x0124" in done.stderr + done.stdout or done.returncode != 0
    assert list((tmp_path / INCOMING).iterdir()) == []
    assert "no such caller is allowed" in caplog.text


def test_a_full_disk_is_answered_with_out_of_resources(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    limits = replace(LIMITS, free_disk_gb=1e9)
    with receiver(tmp_path / "queue", limits=limits) as running:
        done = store(running.port, new_series(tmp_path / "series"))
        assert "0xa700" in (done.stderr + done.stdout).lower()
        assert "A700: " in caplog.text
        assert "limits.free_disk_gb is more" in caplog.text
        assert echo(running.port).returncode == 0
    assert received(tmp_path / "queue") == []
    assert list((tmp_path / "queue" / "spool").iterdir()) == []


def test_a_disk_that_fills_while_an_instance_arrives(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=300k", "tmpfs", str(disk)], capture_output=True)
    if mounted.returncode != 0:
        pytest.skip("a small disk cannot be mounted (no right to mount)")
    try:
        large = new_series(tmp_path / "large", "large", n_slices=1, size=512)
        small = new_series(tmp_path / "small", "small")
        with receiver(disk / "queue") as running:
            done = store(running.port, large)
            assert "0xa700" in (done.stderr + done.stdout).lower()
            assert store(running.port, small).returncode == 0
        assert len(received(disk / "queue", "small")) == 3
        assert received(disk / "queue", "large") == []
        assert list((disk / "queue" / "spool").iterdir()) == []
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def test_the_log_names_nobody(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    files = new_series(tmp_path / "series")
    damaged = dcmread(files[0])
    damaged.PatientName, damaged.PatientID = "Doe^Jane", "4711"
    damaged.SeriesInstanceUID = "Doe^Jane/../4711"
    damaged.save_as(files[0])
    with caplog.at_level(logging.DEBUG), receiver(tmp_path / "queue") as running:
        done = store(running.port, files[:1])
        assert "0xc000" in (done.stderr + done.stdout).lower()
    assert "it has no valid UIDs" in caplog.text
    assert "Doe" not in caplog.text
    assert "4711" not in caplog.text
    assert not any("Doe" in str(path) or "4711" in str(path) for path in tmp_path.rglob("*"))


def test_an_instance_under_another_name_is_refused(shared: Receiver, tmp_path: Path) -> None:
    (path,) = new_series(tmp_path / "series", n_slices=1)
    content = path.read_bytes()
    # The group 0002 after the preamble ends where its first element, the group's length, says.
    dataset = content[128 + 4 + 12 + struct.unpack_from("<I", content, 128 + 4 + 8)[0] :]
    with associate(shared.port) as connection:
        connection.sendall(p_data(command(uid="1.2.3"), is_command=True))
        connection.sendall(p_data(dataset, is_command=False))
        connection.settimeout(5)
        answer = connection.recv(4096)
    assert element(0x0900, struct.pack("<H", 0xA900)) in answer
    with associate(shared.port) as connection:
        connection.sendall(p_data(command(uid=dcmread(path).SOPInstanceUID), is_command=True))
        connection.sendall(p_data(dataset, is_command=False))
        answer = connection.recv(4096)
    assert element(0x0900, struct.pack("<H", 0)) in answer
    shutil.rmtree(shared.queue.folder / INCOMING / series_uid(""))


def test_memory_does_not_depend_on_the_size_of_an_instance(tmp_path: Path) -> None:
    """Ten senders at once, of 12.5 MB each: decoded or kept in memory, they would need 125 MB."""
    need("storescu")
    paths = [new_series(tmp_path / str(number), str(number), 1, 2500)[0] for number in range(10)]
    limits = replace(LIMITS, instance_mb=64, network_seconds=30.0)
    with receiver(tmp_path / "queue", limits=limits) as running:
        echo(running.port)
        process, peak, done = psutil.Process(), 0, threading.Event()
        before = process.memory_info().rss

        def watch() -> None:
            nonlocal peak
            while not done.wait(0.02):
                peak = max(peak, process.memory_info().rss)

        watcher = threading.Thread(target=watch)
        watcher.start()
        senders = [threading.Thread(target=store, args=(running.port, [path])) for path in paths]
        for sender in senders:
            sender.start()
        for sender in senders:
            sender.join()
        done.set()
        watcher.join()
    assert all(len(received(tmp_path / "queue", str(number))) == 1 for number in range(10))
    assert peak - before < 40e6


def test_an_instance_above_the_limit_is_cut_off(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    large = new_series(tmp_path / "series", n_slices=1, size=2400)  # 11.5 MB, and 8 are allowed
    with receiver(tmp_path / "queue") as running:
        assert store(running.port, large).returncode != 0
        assert "too much data at once" in caplog.text
        assert echo(running.port).returncode == 0
        wait_for(lambda: list((tmp_path / "queue" / "spool").iterdir()) == [], 5)
    assert received(tmp_path / "queue") == []


@pytest.mark.parametrize("misuse", MISUSES, ids=lambda misuse: misuse.__name__)
def test_broken_associations_harm_nobody(
    shared: Receiver, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str], misuse: Callable[[int], None]
) -> None:
    misuse(shared.port)
    assert echo(shared.port).returncode == 0
    queue = shared.queue.folder
    wait_for(lambda: list((queue / "spool").iterdir()) == [], 5)
    assert list((queue / INCOMING).iterdir()) == []
    assert "Traceback" not in caplog.text + capfd.readouterr().err


@pytest.mark.slow
def test_a_hundred_broken_associations(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    process = psutil.Process()
    with receiver(tmp_path) as running:
        echo(running.port)
        before, threads = process.memory_info().rss, threading.active_count()
        for number in range(100):
            MISUSES[number % len(MISUSES)](running.port)
            # What has gone wrong may count among the ten associations until the node has noticed.
            wait_for(lambda: echo(running.port).returncode == 0, 5)
        wait_for(lambda: threading.active_count() <= threads + 2, 10)
        assert process.memory_info().rss - before < 50e6
        assert store(running.port, new_series(tmp_path / "series")).returncode == 0
    assert len(received(tmp_path)) == 3
    assert "Traceback" not in caplog.text + capfd.readouterr().err


@pytest.mark.slow
def test_silent_connections_are_closed_and_do_not_pile_up(tmp_path: Path) -> None:
    with receiver(tmp_path, limits=replace(LIMITS, associations=2, network_seconds=0.5)) as running:
        silent = [socket.create_connection(("127.0.0.1", running.port)) for _ in range(30)]
        time.sleep(0.5)
        assert threading.active_count() < 60
        wait_for(lambda: echo(running.port).returncode == 0, 10)
        for each in silent:
            each.close()


def test_more_associations_than_allowed_are_rejected(tmp_path: Path) -> None:
    with receiver(tmp_path, limits=replace(LIMITS, associations=1, network_seconds=10.0)) as running:
        with associate(running.port):
            assert echo(running.port).returncode != 0
        wait_for(lambda: echo(running.port).returncode == 0, 5)


def test_a_port_in_use_is_an_error(tmp_path: Path) -> None:
    with (
        receiver(tmp_path / "a") as running,
        pytest.raises(InputError, match=rf"cannot listen on 127\.0\.0\.1:{running.port}: Address already in use"),
        receiver(tmp_path / "b", port=running.port),
    ):
        pass


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Tls]:
    """Two authorities, and a certificate signed by each."""
    need_openssl()
    folder = tmp_path_factory.mktemp("certificates")

    def openssl(*arguments: str) -> None:
        subprocess.run(["openssl", *arguments], cwd=folder, check=True, capture_output=True)

    for ca in ("ours", "theirs"):
        names = ("-subj", f"/CN={ca}", "-keyout", f"{ca}.key", "-out", f"{ca}.pem", "-days", "2")
        openssl("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", *names)
        request = ("-subj", "/CN=node", "-keyout", f"node_{ca}.key", "-out", f"{ca}.csr")
        openssl("req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", *request)
        signing = ("-CA", f"{ca}.pem", "-CAkey", f"{ca}.key", "-CAcreateserial", "-out", f"node_{ca}.pem")
        openssl("x509", "-req", "-in", f"{ca}.csr", *signing, "-days", "2")
    return {
        ca: Tls(folder / f"node_{ca}.pem", folder / f"node_{ca}.key", folder / f"{ca}.pem") for ca in ("ours", "theirs")
    }


def need_openssl() -> None:
    if subprocess.run(["which", "openssl"], capture_output=True).returncode:
        pytest.skip("openssl is not installed")


def test_tls_lets_in_who_has_a_certificate_of_the_authority(tmp_path: Path, certificates: dict[str, Tls]) -> None:
    ours, theirs = certificates["ours"], certificates["theirs"]
    with receiver(tmp_path, tls=ours) as running:
        peer = Peer("SPLEEN", "127.0.0.1", running.port, tls=True)
        settings = NodeSettings((), (), ae_title="SENDER", limits=LIMITS)
        assert Sender(replace(settings, tls=ours)).echo(peer) == ""
        assert Sender(replace(settings, tls=theirs)).echo(peer) != ""
        assert Sender(settings).echo(replace(peer, tls=False)) != ""
        options = ("+tls", str(ours.key), str(ours.certificate), "+cf", str(ours.ca))
        assert echo(running.port, "SENDER", "SPLEEN", *options).returncode == 0
        # Somebody who never finishes the handshake holds up nobody.
        with socket.create_connection(("127.0.0.1", running.port)):
            assert Sender(replace(settings, tls=ours)).echo(peer) == ""


def test_certificates_that_cannot_be_used_are_an_error(tmp_path: Path, certificates: dict[str, Tls]) -> None:
    mixed = replace(certificates["ours"], key=certificates["theirs"].key)
    with (
        pytest.raises(InputError, match="tls: the certificate, key or ca cannot be used"),
        receiver(tmp_path, tls=mixed),
    ):
        pass
