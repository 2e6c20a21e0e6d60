"""Shared by the tests of the DICOM node: a node in a process of its own, series to send, and real peers.

`python -m tests._helpers.dicom_network CONFIG [SECONDS]` runs a node that does not predict: its results are a
segmentation and a report without content, after so many seconds.
"""

import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
import pytest
import yaml

from spleen.dicom.node.server import serve
from spleen.dicom.node.settings import read_settings
from spleen.dicom.uids import uid_of
from spleen.dicom.write_series import write_series
from spleen.errors import Interrupted
from spleen.system.signals import stop_on_signals
from tests._helpers.pretended_segmentation import Pretend

REPOSITORY = Path(__file__).resolve().parents[2]
AFFINE = np.diag([-0.8, -0.9, 5.0, 1.0])


def need(*programs: str) -> None:
    """Skip the test where a program is missing."""
    for program in programs:
        if shutil.which(program) is None:
            package = "orthanc" if program == "Orthanc" else "dcmtk"
            pytest.skip(f"{program} is not installed (Debian's package {package})")


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port: int = found.getsockname()[1]
        return port


def new_series(folder: Path, seed: str = "", n_slices: int = 3, size: int = 16) -> list[Path]:
    """A small CT series on disk."""
    array = np.arange(size * (size + 2) * n_slices, dtype=np.int16).reshape(size, size + 2, n_slices) % 300
    return write_series(folder, array, AFFINE, seed=seed, description=f"phantom {seed}")


def series_uid(seed: str) -> str:
    """The Series Instance UID of `new_series`."""
    return uid_of(seed, f"phantom {seed}", "1", "series")


def write_config(folder: Path, destination_port: int, **values: object) -> Path:
    """A configuration for one destination on this machine, called PEER."""
    (folder / "run").mkdir(parents=True, exist_ok=True)
    content = {
        "runs": "run",
        "folder": "queue",
        "port": free_port(),
        "quiet_seconds": 1.0,
        "limits": {"free_disk_gb": 0.0, "network_seconds": 5.0},
        "retries": {"first_wait_seconds": 0.2, "longest_wait_seconds": 1.0, "attempts": 30},
        "destinations": [{"ae_title": "PEER", "host": "127.0.0.1", "port": destination_port}],
        **values,
    }
    path = folder / "node.yaml"
    path.write_text(yaml.safe_dump(content))
    return path


class RunningNode:
    """A node in a process of its own."""

    def __init__(self, config: Path, *arguments: str) -> None:
        self.config, self.arguments = config, arguments
        content = yaml.safe_load(config.read_text())
        self.port, self.queue = content["port"], config.parent / content["folder"]
        self.log = config.parent / "log.txt"
        self.process = self.start()

    def start(self) -> subprocess.Popen[bytes]:
        """Start it, and wait until it listens."""
        (self.queue / "node.json").unlink(missing_ok=True)
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "tests._helpers.dicom_network", str(self.config), *self.arguments],
                cwd=REPOSITORY, stdout=log, stderr=log, env={**os.environ, "OMP_NUM_THREADS": "1"},
            )  # fmt: skip
        wait_for(lambda: (self.queue / "node.json").exists() or self.process.poll() is not None, 60)
        assert self.process.poll() is None, self.log.read_text()
        return self.process

    def kill(self) -> None:
        """End it at once, as a power failure does."""
        self.process.kill()
        self.process.wait()

    def stop(self) -> None:
        """End it as a shutdown does."""
        if self.process.poll() is None:
            self.process.terminate()
            self.process.wait(20)

    def series(self, state: str) -> list[str]:
        """The series in a state."""
        return sorted(path.name for path in (self.queue / state).iterdir())

    def record(self, state: str, name: str) -> dict:
        """The record of a series."""
        content: dict = json.loads((self.queue / state / name / "record.json").read_text())
        return content


@contextmanager
def node(config: Path, *arguments: str) -> Iterator[RunningNode]:
    """A node that runs inside the block."""
    running = RunningNode(config, *arguments)
    try:
        yield running
    finally:
        running.stop()


@contextmanager
def storescp(folder: Path, port: int, *options: str) -> Iterator[Path]:
    """dcmtk's storescp, which stores under SOP Instance UIDs."""
    need("storescp")
    folder.mkdir(exist_ok=True)
    with (folder.parent / "storescp.log").open("ab") as log:
        process = subprocess.Popen(
            ["storescp", "-aet", "PEER", "-od", str(folder), *options, str(port)], stdout=log, stderr=log
        )
        try:
            wait_for(lambda: is_listening(port), 20)
            yield folder
        finally:
            process.terminate()
            process.wait(20)


class Orthanc:
    """An Orthanc of our own, called PEER."""

    def __init__(self, folder: Path, node_port: int) -> None:
        self.port, self.http = free_port(), free_port()
        folder.mkdir(exist_ok=True)
        plugins = [each for each in ("/usr/share/orthanc/plugins", "/usr/lib/orthanc/plugins") if Path(each).is_dir()]
        (folder / "orthanc.json").write_text(
            json.dumps(
                {
                    "StorageDirectory": str(folder / "db"),
                    "IndexDirectory": str(folder / "db"),
                    "DicomAet": "PEER",
                    "DicomPort": self.port,
                    "HttpPort": self.http,
                    "RemoteAccessAllowed": False,
                    "AuthenticationEnabled": False,
                    "DicomAlwaysAllowStore": True,
                    "DicomAlwaysAllowFind": True,
                    "DicomModalities": {"spleen": ["SPLEEN", "127.0.0.1", node_port]},
                    "Plugins": plugins,
                }
            )
        )
        with (folder / "log.txt").open("ab") as log:
            self.process = subprocess.Popen(["Orthanc", str(folder / "orthanc.json")], stdout=log, stderr=log)
        wait_for(lambda: is_listening(self.http) and is_listening(self.port), 60)

    def ask(self, path: str, content: object = None) -> object:
        """An answer of its REST interface."""
        data = None if content is None else json.dumps(content).encode()
        request = urllib.request.Request(f"http://127.0.0.1:{self.http}/{path}", data=data)
        with urllib.request.urlopen(request, timeout=60) as answer:
            return json.loads(answer.read())

    def download(self, path: str) -> bytes:
        """A file."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.http}/{path}", timeout=60) as answer:
            content: bytes = answer.read()
            return content

    def upload(self, files: Sequence[Path]) -> None:
        """Store files by REST."""
        for path in files:
            request = urllib.request.Request(f"http://127.0.0.1:{self.http}/instances", data=path.read_bytes())
            urllib.request.urlopen(request, timeout=60).read()

    def find(self, modality: str) -> list[str]:
        """The SOP Instance UIDs of all instances of a modality."""
        query = {"Level": "Instance", "Query": {"Modality": modality}, "Expand": True}
        found = self.ask("tools/find", query)
        assert isinstance(found, list)
        return [each["MainDicomTags"]["SOPInstanceUID"] for each in found]

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait(30)


@contextmanager
def orthanc(folder: Path, node_port: int) -> Iterator[Orthanc]:
    """Orthanc, which runs inside the block; the node is its modality "spleen"."""
    need("Orthanc")
    running = Orthanc(folder, node_port)
    try:
        yield running
    finally:
        running.stop()


def store(port: int, paths: Sequence[Path], *options: str) -> subprocess.CompletedProcess[str]:
    """Send files by dcmtk's storescu, as SENDER."""
    need("storescu")
    return subprocess.run(
        ["storescu", "-d", "-aet", "SENDER", "-aec", "SPLEEN", *options, "127.0.0.1", str(port), *map(str, paths)],
        capture_output=True, text=True, timeout=120,
    )  # fmt: skip


def echo(port: int, title: str = "SENDER", called: str = "SPLEEN", *options: str) -> subprocess.CompletedProcess[str]:
    """Verify by dcmtk's echoscu."""
    need("echoscu")
    return subprocess.run(
        ["echoscu", "-v", *options, "-aet", title, "-aec", called, "127.0.0.1", str(port)],
        capture_output=True, text=True, timeout=60,
    )  # fmt: skip


def is_listening(port: int) -> bool:
    """Whether somebody listens on a port."""
    with socket.socket() as tried:
        return tried.connect_ex(("127.0.0.1", port)) == 0


def wait_for(condition: Callable[[], bool], seconds: float) -> None:
    """Wait until something holds; fails after so many seconds."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not within {seconds} s"
        time.sleep(0.05)


if __name__ == "__main__":
    import logging

    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s: %(message)s")
    seconds, *flags = sys.argv[2:] or ["0"]
    ending = next((flag for flag in flags if flag != "review"), "")
    with suppress(Interrupted), stop_on_signals() as stop:
        serve(read_settings(Path(sys.argv[1])), stop.check, Pretend(float(seconds), "review" in flags, ending))
