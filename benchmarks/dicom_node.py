"""From the last C-STORE of a series to its segmentation in Orthanc: waiting, prediction and network.

Run it from the repository: `python -m benchmarks.dicom_node RUN`, with a run whose classes have codes. Orthanc holds
the series and sends it to a node by C-STORE; the node finds that it is whole, by quiet time or by C-FIND at Orthanc,
predicts it, and sends the segmentation and the report to Orthanc, which is asked every 20 ms for the segmentation.
Baseline: `spleen.predict` of the same series with the same writer, in this process, without any network.
"""

import argparse
import json
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import yaml

from benchmarks.header import header
from spleen.data.phantom.case import phantom_case
from spleen.dicom.results import DicomResults
from spleen.dicom.write_series import write_series
from spleen.inference.predict import predict
from spleen.inference.settings import PredictSettings
from spleen.system.resources import work_folder

_LINE = re.compile(r"^(\S+ \S+) INFO: series \S+ (.*)$")
_SHAPES = ("512x20", "512x90")


@dataclass(frozen=True)
class Timing:
    """Seconds from the last C-STORE on."""

    total: float
    waiting: float
    """Until the series was taken as whole."""
    prediction: float


def main() -> None:
    """Print one row per series and way to find that it is whole."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--shapes", nargs="+", default=_SHAPES, help="matrix x slices")
    parser.add_argument("--quiet-seconds", type=float, default=5.0)
    arguments = parser.parse_args()
    print(header())
    print("| series | whole by | total s | waiting s | prediction s | network, rest s | predict alone s | ÷ alone |")
    print("|---|---|---|---|---|---|---|---|")
    for shape in arguments.shapes:
        matrix, n_slices = map(int, shape.split("x"))
        with tempfile.TemporaryDirectory() as folder:
            series = _write(matrix, n_slices, Path(folder) / "series")
            alone = _alone(arguments.run, series, Path(folder) / "alone.dcm")
            for by_find in (False, True):
                place = Path(folder) / f"by_find_{by_find}"
                timing = _measure(arguments.run, series, place, arguments.quiet_seconds, by_find)
                rest = timing.total - timing.waiting - timing.prediction
                name = f"{matrix} × {matrix} × {n_slices} | {'C-FIND' if by_find else 'quiet time'}"
                print(
                    f"| {name} | {timing.total:.2f} | {timing.waiting:.2f} | {timing.prediction:.2f} | {rest:.2f} | "
                    f"{alone:.2f} | {timing.total / alone:.2f} |",
                    flush=True,
                )


def _write(matrix: int, n_slices: int, folder: Path) -> Path:
    image: Any = nib.load(phantom_case(work_folder() / ".cache", matrix, n_slices, seed=0, noise_hu=12.0).images[0])
    write_series(folder, np.rint(image.get_fdata()).astype(np.int16), image.affine)
    return folder


def _alone(run: Path, series: Path, output: Path) -> float:
    """Seconds of the second prediction: the node has loaded its libraries too."""
    for _ in range(2):
        started = time.perf_counter()
        report = predict(run, series, output, PredictSettings(overwrite=True), writer=DicomResults())
        assert not report.failures, report.failures
    return time.perf_counter() - started


def _measure(run: Path, series: Path, folder: Path, quiet_seconds: float, by_find: bool) -> Timing:
    folder.mkdir()
    dicom, http, node = _free_port(), _free_port(), _free_port()
    _write_settings(run, folder, (dicom, http, node), quiet_seconds, by_find)
    with (folder / "orthanc.log").open("w") as log, (folder / "node.log").open("w") as node_log:
        orthanc = subprocess.Popen([_orthanc(), str(folder / "orthanc.json")], stdout=log, stderr=log)
        command = [sys.executable, "-m", "spleen", "dicom", "serve", str(folder / "node.yaml")]
        serving = subprocess.Popen(command, stdout=node_log, stderr=node_log)
        try:
            _wait(lambda: (folder / "queue" / "node.json").exists() and _is_listening(http))
            for path in series.iterdir():
                _ask(http, "instances", path.read_bytes())
            (uid,) = _ask(http, "series")
            _ask(http, "modalities/spleen/store", json.dumps({"Resources": [uid]}).encode())
            stored = time.time()
            query = json.dumps({"Level": "Series", "Query": {"Modality": "SEG"}}).encode()
            _wait(lambda: bool(_ask(http, "tools/find", query)))
            total = time.time() - stored
        finally:
            for process in (serving, orthanc):
                process.terminate()
                process.wait(60)
    return _timing(folder / "node.log", stored, total)


def _write_settings(run: Path, folder: Path, ports: tuple[int, int, int], quiet_seconds: float, by_find: bool) -> None:
    dicom, http, node = ports
    orthanc = {
        "DicomAet": "ORTHANC", "DicomPort": dicom, "HttpPort": http, "AuthenticationEnabled": False,
        "StorageDirectory": str(folder / "db"), "IndexDirectory": str(folder / "db"), "DicomAlwaysAllowFind": True,
        "DicomModalities": {"spleen": ["SPLEEN", "127.0.0.1", node]},
    }  # fmt: skip
    (folder / "orthanc.json").write_text(json.dumps(orthanc))
    caller = {"ae_title": "ORTHANC", "addresses": ["127.0.0.1"], **({"find_port": dicom} if by_find else {})}
    settings = {
        "runs": [str(run.absolute())], "port": node, "folder": "queue", "quiet_seconds": quiet_seconds,
        "callers": [caller], "destinations": [{"ae_title": "ORTHANC", "host": "127.0.0.1", "port": dicom}],
    }  # fmt: skip
    (folder / "node.yaml").write_text(yaml.safe_dump(settings))


def _timing(log: Path, stored: float, total: float) -> Timing:
    """The parts, from the node's log."""
    waiting = prediction = 0.0
    for line in log.read_text().splitlines():
        if (found := _LINE.match(line)) is None:
            continue
        moment, words = found.groups()
        if words.endswith("instances, waiting"):
            waiting = datetime.strptime(moment, "%Y-%m-%d %H:%M:%S,%f").timestamp() - stored
        elif seconds := re.search(r"predicted in ([\d.]+) s", words):
            prediction = float(seconds[1])
    return Timing(total, waiting, prediction)


def _orthanc() -> str:
    found = shutil.which("Orthanc")
    if found is None:
        sys.exit("Orthanc is not installed (Debian: orthanc)")
    return found


def _ask(port: int, path: str, content: bytes | None = None) -> Any:
    request = urllib.request.Request(f"http://127.0.0.1:{port}/{path}", data=content)
    with urllib.request.urlopen(request, timeout=600) as answer:
        return json.loads(answer.read())


def _free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def _is_listening(port: int) -> bool:
    with socket.socket() as tried:
        return tried.connect_ex(("127.0.0.1", port)) == 0


def _wait(condition: Any, seconds: float = 600.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            sys.exit(f"nothing happened within {seconds:g} s")
        time.sleep(0.02)


if __name__ == "__main__":
    main()
