"""`spleen fetch` in a real process: exit codes, messages, and what remains after a kill."""

import hashlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from spleen.data.download.decathlon import DECATHLON_ARCHIVES
from tests._helpers.file_server import FileServer, serve
from tests.data.test_download_fetch import CONTENT, below, files_in, md5, pack

COMMAND = (sys.executable, "-c", "from spleen.cli.main import main; main()", "fetch")


@pytest.fixture
def site() -> Iterator[FileServer]:
    with serve() as server:
        server.content = pack(below("Toy"))
        yield server


def environment() -> dict[str, str]:
    """Environment variables that block network access beyond localhost."""
    return {**os.environ, "https_proxy": "http://127.0.0.1:9", "no_proxy": "127.0.0.1"}


def run(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*COMMAND, *arguments], cwd=folder, env=environment(), capture_output=True, text=True, timeout=60
    )


def stop_midway(folder: Path, site: FileServer, stop_signal: signal.Signals) -> tuple[int, str]:
    """Run the command, send it a signal while it downloads, and return its exit code and stderr."""
    site.seconds_per_piece = 0.05  # 43 pieces
    process = subprocess.Popen(
        [*COMMAND, site.url("toy.tar")], cwd=folder, env=environment(), stderr=subprocess.PIPE, text=True
    )
    part = folder / ".toy.download" / "part"
    until = time.monotonic() + 30
    while not (part.exists() and part.stat().st_size > 100_000):
        assert process.poll() is None
        assert time.monotonic() < until
        time.sleep(0.01)
    process.send_signal(stop_signal)
    _, stderr = process.communicate(timeout=30)
    site.seconds_per_piece = 0.0
    return process.returncode, stderr


def test_fetch_prints_the_next_command(site: FileServer, tmp_path: Path) -> None:
    done = run(tmp_path, site.url("toy.tar"), "--checksum", md5(site.content), "--output", "here")
    assert done.returncode == 0
    assert done.stdout.splitlines() == [
        "here: 3 files, 700.0 kB, md5 verified",
        "next: spleen train data=decathlon data.root=here",
    ]
    assert done.stderr.splitlines() == ["downloading 706.6 kB", "verifying", "unpacking 700.0 kB"]
    assert files_in(tmp_path / "here") == CONTENT
    again = run(tmp_path, site.url("toy.tar"), "--output", "here")
    assert again.stdout.splitlines()[0] == "here exists already: 3 files, 700.0 kB; nothing to do"
    assert (again.returncode, again.stderr) == (0, "")


def test_a_missing_checksum_is_reported(site: FileServer, tmp_path: Path) -> None:
    done = run(tmp_path, site.url("toy.tar"))
    assert "toy: 3 files, 700.0 kB, not verified" in done.stdout
    assert f"--checksum sha256:{hashlib.sha256(site.content).hexdigest()}" in done.stderr


@pytest.mark.parametrize(
    ("content", "following"),
    [
        (b'{"channel_names": {"0": "CT"}, "numTraining": 1}', ["next: spleen train data=nnunet 'data.root=my data'"]),
        (b'{"modality": {"0": "CT"}, "training": []}', ["next: spleen train data=decathlon 'data.root=my data'"]),
        (b"[1]", []),
        (b"{", []),
    ],
)
def test_the_next_command_fits_the_dataset(
    site: FileServer, tmp_path: Path, content: bytes, following: list[str]
) -> None:
    site.content = pack({"dataset.json": content})
    done = run(tmp_path, site.url("toy.tar"), "--checksum", md5(site.content), "--output", "my data")
    assert (done.returncode, done.stdout.splitlines()[1:]) == (0, following)


def test_ctrl_c_exits_130_and_the_next_call_resumes(site: FileServer, tmp_path: Path) -> None:
    code, stderr = stop_midway(tmp_path, site, signal.SIGINT)
    assert code == 130
    assert "the part downloaded so far is kept; run the same command again to resume" in stderr
    assert "Traceback" not in stderr
    assert not (tmp_path / "toy").exists()
    done = run(tmp_path, site.url("toy.tar"))
    assert "are here already" in done.stderr
    assert files_in(tmp_path / "toy") == CONTENT
    assert int(str(site.ranges[1]).strip("bytes=-")) > 100_000


def test_a_killed_download_resumes_when_a_checksum_is_given(site: FileServer, tmp_path: Path) -> None:
    stop_midway(tmp_path, site, signal.SIGKILL)
    assert run(tmp_path, site.url("toy.tar"), "--checksum", md5(site.content)).returncode == 0
    assert site.ranges[1] is not None
    assert files_in(tmp_path / "toy") == CONTENT
    assert [path.name for path in tmp_path.iterdir()] == ["toy"]


def test_each_error_is_one_message_with_exit_code_2(site: FileServer, tmp_path: Path) -> None:
    for arguments, message in (
        (("Task09_Spln",), "did you mean Task09_Spleen"),
        ((), "spleen fetch --list"),
        (("Task09_Spleen",), "cannot reach msd-for-monai.s3-us-west-2.amazonaws.com"),
        ((site.url("toy.tar"), "--checksum", f"md5:{'0' * 32}"), f"got {md5(site.content).removeprefix('md5:')}"),
    ):
        done = run(tmp_path, *arguments)
        assert done.returncode == 2
        assert message in done.stderr
        assert done.stderr.splitlines()[-1].startswith("error: ")
        assert "Traceback" not in done.stderr


def test_list_works_offline(tmp_path: Path) -> None:
    done = run(tmp_path, "--list")
    assert done.returncode == 0
    lines = {line.split()[0]: line.strip() for line in done.stdout.splitlines() if line.strip().startswith("Task")}
    assert list(lines) == list(DECATHLON_ARCHIVES)
    assert lines["Task09_Spleen"].endswith("  about 1.6 GB")
    assert lines["Task10_Colon"].endswith("-")
    assert "the server did not report the size" in done.stderr


def test_help_imports_no_heavy_packages(tmp_path: Path) -> None:
    python = (sys.executable, "-X", "importtime", *COMMAND[1:])
    done = subprocess.run([*python, "--help"], cwd=tmp_path, capture_output=True, text=True)
    imported = {line.rsplit("|", 1)[-1].strip() for line in done.stderr.splitlines()}
    assert "--checksum" in done.stdout
    assert "spleen.cli.fetch" in imported
    assert not imported & {"requests", "urllib3", "pooch", "torch", "numpy", "rich"}
