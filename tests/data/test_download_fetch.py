"""Downloads from a real local server; the expected values are the packed bytes and hashlib's checksums."""

import hashlib
import io
import json
import tarfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pooch
import pytest

from spleen.data.download.decathlon import DECATHLON_ARCHIVES
from spleen.data.download.fetch import fetch
from spleen.data.download.http import ResumingDownloader, remote_sizes
from spleen.errors import InputError
from spleen.system.locks import folder_lock
from tests._helpers.file_server import FileServer, serve

CONTENT = {
    "dataset.json": b'{"name": "toy"}',
    "imagesTr/a.nii.gz": np.random.default_rng(0).bytes(700_000),
    "labelsTr/a.nii.gz": b"label",
}


def pack(content: dict[str, bytes], mode: str = "w") -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=mode) as tar:
        for name, text in content.items():
            member = tarfile.TarInfo(name)
            member.size = len(text)
            tar.addfile(member, io.BytesIO(text))
    return buffer.getvalue()


def below(top: str) -> dict[str, bytes]:
    """The toy dataset as macOS packs it."""
    packed = {f"{top}/{name}": text for name, text in CONTENT.items()}
    return {f"._{top}": b"mac", **packed, f"{top}/imagesTr/._a.nii.gz": b"mac"}


def md5(content: bytes) -> str:
    return f"md5:{hashlib.md5(content).hexdigest()}"


def files_in(folder: Path) -> dict[str, bytes]:
    """Every file except the marker."""
    paths = [path for path in folder.rglob("*") if path.is_file() and path.name != ".fetched.json"]
    return {str(path.relative_to(folder)): path.read_bytes() for path in paths}


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FileServer]:
    """A server with the toy dataset, no proxy, and an empty working directory."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with serve() as server:
        server.content = pack(below("Toy"))
        yield server


def download(folder: Path, site: FileServer, has_checksum: bool = False) -> bytes:
    """What pooch retrieves through the downloader, without waiting between attempts."""
    downloader = ResumingDownloader(folder, lambda *_: None, has_checksum, wait_seconds=0)
    path = pooch.retrieve(site.url("toy.tar"), None, "got", folder, downloader=downloader)
    return Path(path).read_bytes()


# Complete downloads -------------------------------------------------------------------------------------------------


def test_a_url_is_fetched_into_a_folder_of_its_name_and_nothing_else_is_left(site: FileServer, tmp_path: Path) -> None:
    events: list[tuple[str, int, int | None]] = []
    fetched = fetch(site.url("My%20Toy.tar"), None, md5(site.content), lambda *event: events.append(event))
    assert files_in(tmp_path / "My Toy") == CONTENT
    assert [path.name for path in tmp_path.iterdir()] == ["My Toy"]
    assert (fetched.folder, fetched.n_files, fetched.n_bytes) == (Path("My Toy"), 3, 700_020)
    assert (fetched.checksum, fetched.is_verified, fetched.was_cached) == (md5(site.content), True, False)
    stages = {stage: (done, total) for stage, done, total in events}
    size = len(site.content)
    assert stages == {"downloading": (size, size), "verifying": (0, None), "unpacking": (700_020, 700_020)}


def test_a_link_to_an_empty_folder_is_filled(site: FileServer, tmp_path: Path) -> None:
    (tmp_path / "disk" / "toy").mkdir(parents=True)
    (tmp_path / "link").symlink_to(tmp_path / "disk" / "toy")
    assert fetch(site.url("toy.tar"), Path("link")).folder == Path("link")
    assert files_in(tmp_path / "disk" / "toy") == CONTENT
    assert (tmp_path / "link").is_symlink()
    assert [path.name for path in (tmp_path / "disk").iterdir()] == ["toy"]


def test_a_second_call_sends_no_request(site: FileServer) -> None:
    first = fetch(site.url("toy.tar"), Path("new/place"), md5(site.content))
    n_requests = len(site.ranges)
    again = fetch(site.url("toy.tar"), Path("new/place"), md5(site.content))
    assert again == replace(first, was_cached=True)
    assert len(site.ranges) == n_requests == 1


def test_without_a_checksum_the_sha256_is_returned(site: FileServer) -> None:
    fetched = fetch(site.url("toy.tar"))
    assert (fetched.checksum, fetched.is_verified) == (f"sha256:{hashlib.sha256(site.content).hexdigest()}", False)


def test_a_decathlon_task_is_fetched_by_name_and_verified(site: FileServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("spleen.data.download.decathlon._BUCKET", f"{site.address}/data")
    with pytest.raises(InputError, match="expected md5:410d4a301da4e5b2f6f86ec3ddba524e, got"):
        fetch("Task09_Spleen")
    known = replace(DECATHLON_ARCHIVES["Task09_Spleen"], md5=hashlib.md5(site.content).hexdigest())
    monkeypatch.setitem(DECATHLON_ARCHIVES, "Task09_Spleen", known)
    fetched = fetch("Task09_Spleen")
    assert fetched.is_verified
    assert files_in(Path("Task09_Spleen")) == CONTENT


def test_the_decathlon_tasks_match_those_of_monai() -> None:
    from monai.apps import DecathlonDataset

    assert {name: archive.url for name, archive in DECATHLON_ARCHIVES.items()} == DecathlonDataset.resource
    assert {name: archive.md5 for name, archive in DECATHLON_ARCHIVES.items()} == DecathlonDataset.md5


def test_a_file_of_unknown_size_is_downloaded_completely(site: FileServer) -> None:
    site.tells_size = False
    fetch(site.url("toy.tar"), None, md5(site.content))
    assert files_in(Path("toy")) == CONTENT


def test_remote_sizes_are_none_where_the_server_does_not_report_them(site: FileServer) -> None:
    unknown = [f"{site.address}/nothing/here.tar", "http://127.0.0.1:9/b.tar", "nonsense"]
    sizes = remote_sizes([site.url("a.tar"), *unknown], timeout_seconds=5.0)
    assert sizes == {site.url("a.tar"): len(site.content), **dict.fromkeys(unknown)}


# Broken connections -------------------------------------------------------------------------------------------------


def test_a_broken_download_is_resumed(site: FileServer) -> None:
    site.break_after = [300_000]
    fetch(site.url("toy.tar"), None, md5(site.content))
    assert files_in(Path("toy")) == CONTENT
    first, second = site.ranges
    assert first is None
    start = int(str(second).removeprefix("bytes=").removesuffix("-"))
    assert 300_000 - 64 * 1024 <= start <= 300_000


@pytest.mark.parametrize("break_after", [[1, 100_000, 0, 0, 0, 0, 400_000], [200_000] * 3])
def test_a_download_survives_many_breaks_as_long_as_some_attempts_make_progress(
    site: FileServer, tmp_path: Path, break_after: list[int]
) -> None:
    site.break_after = list(break_after)
    assert download(tmp_path, site) == site.content
    assert len(site.ranges) == len(break_after) + 1


def test_a_busy_server_is_retried(site: FileServer, tmp_path: Path) -> None:
    site.statuses = [503, 429]
    assert download(tmp_path, site) == site.content


def test_a_file_that_changed_on_the_server_is_downloaded_from_the_start(site: FileServer, tmp_path: Path) -> None:
    site.break_after = [300_000] + [0] * 5
    with pytest.raises(InputError, match=r"the download from .* failed"):
        download(tmp_path, site)
    site.content, site.etag = site.content[::-1], '"two"'
    assert download(tmp_path, site) == site.content
    assert site.ranges[-1] is not None


@pytest.mark.parametrize(
    "change",
    [
        lambda site: setattr(site, "knows_ranges", False),
        lambda site: setattr(site, "wrong_ranges", True),
        lambda site: setattr(site, "content", site.content[:200_000]),  # shorter than the partial file: status 416
        lambda site: setattr(site, "content", site.content + b"more"),
    ],
)
def test_a_response_that_does_not_continue_the_partial_file_replaces_it(
    site: FileServer, tmp_path: Path, change: Callable[[FileServer], None]
) -> None:
    site.break_after = [300_000] + [0] * 5
    with pytest.raises(InputError, match=r"the download from .* failed"):
        download(tmp_path, site)
    change(site)
    assert download(tmp_path, site) == site.content


@pytest.mark.parametrize(("has_checksum", "is_resumed"), [(True, True), (False, False)])
def test_without_an_etag_a_partial_file_is_resumed_only_if_a_checksum_is_given(
    site: FileServer, tmp_path: Path, has_checksum: bool, is_resumed: bool
) -> None:
    site.etag, site.break_after = None, [300_000]
    assert download(tmp_path, site, has_checksum) == site.content
    assert (site.ranges[1] is not None) == is_resumed


def test_a_last_modified_date_is_enough_to_resume(site: FileServer, tmp_path: Path) -> None:
    site.etag, site.last_modified, site.break_after = 'W/"weak"', "Sun, 01 Nov 2026 10:00:00 GMT", [300_000]
    assert download(tmp_path, site) == site.content
    assert site.ranges[1] is not None


def test_a_download_that_keeps_breaking_is_given_up_and_the_partial_file_kept(site: FileServer, tmp_path: Path) -> None:
    site.break_after, site.knows_ranges = [300_000] * 99, False
    with pytest.raises(InputError, match=r"from 127\.0\.0\.1 failed .*received so far are kept"):
        download(tmp_path, site)
    assert len(site.ranges) == 6
    assert (tmp_path / "part").read_bytes() == site.content[: (tmp_path / "part").stat().st_size] != b""


def test_a_complete_but_unverified_file_is_not_downloaded_again(site: FileServer, tmp_path: Path) -> None:
    download(tmp_path, site)
    (tmp_path / "got").unlink()  # as if interrupted while pooch verifies it
    assert download(tmp_path, site) == site.content
    assert len(site.ranges) == 1


# Rejected downloads -------------------------------------------------------------------------------------------------


def test_a_wrong_checksum_is_reported_and_nothing_is_left(site: FileServer, tmp_path: Path) -> None:
    expected, found = "0" * 64, hashlib.sha256(site.content).hexdigest()
    with pytest.raises(InputError, match=f"expected sha256:{expected}, got {found}"):
        fetch(site.url("toy.tar"), None, f"SHA256:{expected}")
    assert list(tmp_path.iterdir()) == []


def test_a_damaged_partial_file_is_deleted_and_the_next_call_starts_over(site: FileServer, tmp_path: Path) -> None:
    downloads = tmp_path / ".toy.download"
    with pytest.raises(KeyboardInterrupt):
        fetch(site.url("toy.tar"), None, md5(site.content), interrupt_after(300_000))
    part = bytearray((downloads / "part").read_bytes())
    part[1000] ^= 1
    (downloads / "part").write_bytes(part)
    with pytest.raises(InputError, match="wrong checksum"):
        fetch(site.url("toy.tar"), None, md5(site.content))
    assert not downloads.exists()
    fetch(site.url("toy.tar"), None, md5(site.content))
    assert files_in(Path("toy")) == CONTENT


def interrupt_after(limit_bytes: int) -> Callable[[str, int, int | None], None]:
    def advance(stage: str, done_bytes: int, total_bytes: int | None) -> None:
        if stage == "downloading" and done_bytes > limit_bytes:
            raise KeyboardInterrupt

    return advance


def test_an_interrupted_download_is_resumed_only_for_the_same_file(site: FileServer, tmp_path: Path) -> None:
    for name, has_range in (("toy.tar", False), ("toy.tar", True), ("other/toy.tar", False)):
        with pytest.raises(KeyboardInterrupt):
            fetch(site.url(name), None, None, interrupt_after(100_000))
        assert (site.ranges[-1] is not None) == has_range
        assert not (tmp_path / "toy").exists()


def test_a_file_larger_than_the_disk_is_rejected_before_it_is_written(site: FileServer, tmp_path: Path) -> None:
    site.declared_bytes = 10**18  # and as much again to unpack it
    with pytest.raises(InputError, match=r"not enough disk space .* 2\.0 EB needed .*free"):
        fetch(site.url("toy.tar"))
    assert not list(tmp_path.rglob("part"))


def test_an_archive_too_large_to_unpack_is_kept_and_not_downloaded_again(site: FileServer, tmp_path: Path) -> None:
    member = tarfile.TarInfo("huge.nii")
    member.size = 10**18
    site.content = member.tobuf(format=tarfile.GNU_FORMAT) + bytes(1024)
    for _ in range(2):
        with pytest.raises(InputError, match=r"not enough disk space .* 1\.0 EB needed"):
            fetch(site.url("toy.tar"))
    assert len(site.ranges) == 1
    assert not (tmp_path / "toy").exists()


def test_a_web_page_instead_of_an_archive_is_reported(site: FileServer, tmp_path: Path) -> None:
    site.content = b"<!DOCTYPE html><title>Log in</title>" + bytes(2000)
    with pytest.raises(InputError, match=r"not a tar or zip archive; the file starts with b'<!DOCTYPE html>"):
        fetch(site.url("toy.tar"))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("{address}/nothing/here.tar", "the server returned 404 Not Found; check the URL"),
        ("http://127.0.0.1:9/toy.tar", "cannot reach 127.0.0.1 .*Connection refused.*Is this machine online"),
        ("http://nowhere.invalid/toy.tar", "cannot reach nowhere.invalid"),
        ("http://../toy.tar", "cannot"),
        ("http://[x/toy.tar", "is not a valid URL: Invalid IPv6 URL"),
        ("http://localhost:99999/toy.tar", "cannot download http://localhost:99999/toy.tar"),
        ("ftp://somewhere/toy.tar", "neither a known data set nor an http"),
        ("task9_spleen", "did you mean Task09_Spleen"),
        ("colon", "did you mean Task10_Colon?"),
        ("nonsense", "known data sets: Task01_BrainTumour, Task02_Heart"),
    ],
)
def test_an_invalid_source_is_reported(site: FileServer, tmp_path: Path, url: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        fetch(url.format(address=site.address))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("checksum", ["md5:12", "d41d8cd98f00b204e9800998ecf8427e", "crc:00", f"md5:{'g' * 32}", ""])
def test_an_invalid_checksum_is_rejected(checksum: str) -> None:
    with pytest.raises(InputError, match=r"a checksum must be one of md5:<32 digits>"):
        fetch("Task09_Spleen", None, checksum)


# Existing folders ---------------------------------------------------------------------------------------------------


def test_an_existing_folder_with_other_files_is_left_untouched(site: FileServer, tmp_path: Path) -> None:
    (tmp_path / "toy").mkdir()
    fetch(site.url("toy.tar"))  # an empty folder is filled
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years")
    with pytest.raises(InputError, match="mine already exists and is not a fetched data set"):
        fetch(site.url("toy.tar"), Path("mine"))
    assert files_in(tmp_path / "mine") == {"thesis.txt": b"years"}


@pytest.mark.parametrize(
    ("name", "checksum", "damage", "message"),
    [
        ("toy.tar", None, b"short", "1 of its 3 files are missing or have a different size, such as imagesTr/a.nii.gz"),
        ("other.tar", None, None, r"was fetched from http://127\.0\.0\.1:\d+/data/toy.tar"),
        ("toy.tar?version=2", None, None, "was fetched from"),
        ("toy.tar", f"sha256:{'0' * 64}", None, "was fetched with checksum"),
    ],
)
def test_a_fetched_folder_is_reused_only_if_complete_and_from_the_same_url_and_checksum(
    site: FileServer, name: str, checksum: str | None, damage: bytes | None, message: str
) -> None:
    fetch(site.url("toy.tar"))
    if damage is not None:
        Path("toy/imagesTr/a.nii.gz").write_bytes(damage)
    with pytest.raises(InputError, match=message):
        fetch(site.url(name), Path("toy"), checksum)


@pytest.mark.parametrize(
    ("output", "message"),
    [
        (".", r"\. is the current folder, which cannot be replaced; give a folder inside it, such as --output toy"),
        ("../here", r"here is the current folder, .* such as --output \.\./here/toy"),
        ("../disk", r"disk is a mount point, .* such as --output \.\./disk/toy"),
    ],
)
def test_a_folder_that_cannot_be_replaced_is_refused_before_the_download(
    site: FileServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, output: str, message: str
) -> None:
    for name in ("here", "disk"):
        (tmp_path / name).mkdir()
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setattr(Path, "is_mount", lambda path: path.name == "disk")
    with pytest.raises(InputError, match=message):
        fetch(site.url("toy.tar"), Path(output))
    assert site.ranges == []
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["disk", "here"]


def test_the_checksum_of_the_first_download_verifies_a_folder_that_exists(site: FileServer) -> None:
    checksum = fetch(site.url("toy.tar")).checksum
    assert not fetch(site.url("toy.tar")).is_verified
    for given in (checksum, None):  # the folder remembers it
        again = fetch(site.url("toy.tar"), None, given)
        assert (again.is_verified, again.was_cached, again.checksum) == (True, True, checksum)


def test_a_checksum_that_cannot_be_checked_any_more_is_refused(
    site: FileServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    sha256 = f"sha256:{hashlib.sha256(site.content).hexdigest()}"
    fetch(site.url("toy.tar"))
    with pytest.raises(InputError, match=f"checksum {sha256}, and its archive is gone, so {md5(site.content)} cannot"):
        fetch(site.url("toy.tar"), None, md5(site.content))
    monkeypatch.setattr("spleen.data.download.decathlon._BUCKET", f"{site.address}/data")
    fetch("Task09_Spleen", None, sha256)
    assert fetch("Task09_Spleen").is_verified  # its own MD5 was not asked for


def test_a_marker_file_inside_an_archive_is_ignored(site: FileServer) -> None:
    site.content = pack({"Toy/a": b"1", "Toy/.fetched.json": b"{}"})
    assert fetch(site.url("toy.tar")).n_files == 1
    assert fetch(site.url("toy.tar")).was_cached


def test_two_processes_cannot_fetch_into_the_same_folder(site: FileServer, tmp_path: Path) -> None:
    with folder_lock(tmp_path / ".toy.download"), pytest.raises(InputError, match="another process is using"):
        fetch(site.url("toy.tar"))


def test_credentials_in_a_url_are_neither_stored_nor_shown(site: FileServer, tmp_path: Path) -> None:
    url = f"{site.url('toy.tar')}?signature=SECRET".replace("http://", "http://user:SECRET@")
    with pytest.raises(InputError) as caught:
        fetch(url, None, f"md5:{'0' * 32}")
    assert "SECRET" not in str(caught.value)
    fetch(url)
    marker = (tmp_path / "toy" / ".fetched.json").read_text()
    assert "SECRET" not in marker
    assert json.loads(marker)["files"] == {name: len(text) for name, text in CONTENT.items()}
    assert fetch(url).was_cached
