"""A real Orthanc with its DICOMweb plugin, on ports and in a folder of its own.

with orthanc(tmp_path) as archive:
    archive.upload(files)
    archive.find(Modality="SEG")
"""

import json
import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

_PLUGINS = (Path("/usr/share/orthanc/plugins"), Path("/usr/lib/orthanc"))
_SECONDS_TO_START = 30.0


@dataclass(frozen=True)
class Orthanc:
    """A running server. Its folder holds its database, and nothing else uses it."""

    url: str
    """Of its own REST interface."""
    port: int
    """Of DICOM."""
    aet: str
    folder: Path
    user: str | None
    password: str

    @property
    def dicomweb(self) -> str:
        """The base URL of its DICOMweb service."""
        return f"{self.url}/dicom-web"

    def request(self, path: str, data: bytes | None = None) -> Any:
        """What its REST interface answers: JSON, or bytes of a file."""
        request = urllib.request.Request(f"{self.url}{path}", data)
        if self.user is not None:
            import base64

            token = base64.b64encode(f"{self.user}:{self.password}".encode()).decode()
            request.add_header("Authorization", f"Basic {token}")
        with urllib.request.urlopen(request, timeout=30) as response:
            content = response.read()
            return json.loads(content) if "json" in response.headers.get("Content-Type", "") else content

    def upload(self, files: Sequence[Path]) -> None:
        """Store files."""
        for file in files:
            self.request("/instances", file.read_bytes())

    def find(self, **query: str) -> list[str]:
        """Its own identifiers of the instances with these elements, such as Modality="SEG"."""
        found = self.request("/tools/find", json.dumps({"Level": "Instance", "Query": query}).encode())
        assert isinstance(found, list)
        return found

    def download(self, identifier: str, path: Path) -> Path:
        """Write one instance to a file."""
        path.write_bytes(self.request(f"/instances/{identifier}/file"))
        return path


def free_port() -> int:
    """A port that no one listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def orthanc(
    folder: Path, user: str | None = None, password: str = "", settings: dict[str, Any] | None = None
) -> Iterator[Orthanc]:
    """Start Orthanc, and stop it in the end; with a user, only that one may ask. Skips the test where it is missing.

    `settings` go into its configuration, such as DicomModalities.
    """
    program = shutil.which("Orthanc") or shutil.which("Orthanc", path="/usr/sbin")
    plugin = next((path for place in _PLUGINS for path in sorted(place.glob("libOrthancDicomWeb.so*"))), None)
    if program is None or plugin is None:
        pytest.skip("Orthanc with its DICOMweb plugin is not installed (Debian: orthanc, orthanc-dicomweb)")
    web, dicom = free_port(), free_port()
    configuration = {
        "Name": "test", "StorageDirectory": str(folder / "storage"), "IndexDirectory": str(folder / "index"),
        "Plugins": [str(plugin)], "HttpPort": web, "DicomPort": dicom, "DicomAet": "ORTHANC", "RemoteAccessAllowed":
        False, "AuthenticationEnabled": user is not None, "RegisteredUsers": {user: password} if user else {},
        "DicomWeb": {"Enable": True, "Root": "/dicom-web/"}, "DicomAlwaysAllowStore": True, "OverwriteInstances": True,
    } | (settings or {})  # fmt: skip
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "orthanc.json").write_text(json.dumps(configuration))
    with (folder / "orthanc.log").open("wb") as log:
        process = subprocess.Popen([program, str(folder / "orthanc.json")], stdout=log, stderr=log, cwd=folder)
    server = Orthanc(f"http://127.0.0.1:{web}", dicom, "ORTHANC", folder, user, password)
    try:
        _wait(server, process)
        yield server
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _wait(server: Orthanc, process: "subprocess.Popen[bytes]") -> None:
    until = time.monotonic() + _SECONDS_TO_START
    while time.monotonic() < until and process.poll() is None:
        try:
            server.request("/system")
        except (urllib.error.URLError, OSError):
            time.sleep(0.1)
        else:
            return
    log = (server.folder / "orthanc.log").read_text(errors="replace")
    raise AssertionError(f"Orthanc did not start:\n{log[-3000:]}")
