"""Unpacking archives, malicious ones included; the standard library's tarfile.data_filter is the independent check."""

import bz2
import gzip
import io
import lzma
import subprocess
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from spleen.data.download.archive import UnsafeArchive, unpack
from spleen.errors import InputError

NOISE = np.random.default_rng(0).bytes(100_000)
CONTENT = {"dataset.json": b"{}", "imagesTr/a b.nii.gz": b"image", "imagesTr/ü.nii.gz": b""}


def silent(stage: str, done_bytes: int, total_bytes: int | None) -> None:
    del stage, done_bytes, total_bytes


def member(name: str, kind: bytes = tarfile.REGTYPE, target: str = "", size_bytes: int = 0) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname, info.size = kind, target, size_bytes
    return info


def make_tar(*members: tarfile.TarInfo | tuple[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for entry in members:
            if isinstance(entry, tuple):
                tar.addfile(member(entry[0], size_bytes=len(entry[1])), io.BytesIO(entry[1]))
            else:
                tar.addfile(entry)
    return buffer.getvalue()


def make_zip(*members: tuple[str | zipfile.ZipInfo, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as zipped:
        for name, text in members:
            zipped.writestr(name, text)
    return buffer.getvalue()


def with_mode(name: str, mode: int) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo(name)
    info.create_system, info.external_attr = 3, mode << 16
    return info


def unpack_bytes(archive: bytes, tmp_path: Path) -> Path:
    (tmp_path / "archive").write_bytes(archive)
    unpack(tmp_path / "archive", tmp_path / "deep" / "out", silent)
    return tmp_path / "deep" / "out"


def files_in(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(autouse=True)
def _deep(tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()


# Accepted archives --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("compress", [bytes, gzip.compress, bz2.compress, lzma.compress])
@pytest.mark.parametrize("top", ["", "Task/", "./Task/", "./"])
def test_a_tar_is_unpacked_without_its_top_folder(tmp_path: Path, compress: Callable[[bytes], bytes], top: str) -> None:
    files = [(top + name, text) for name, text in CONTENT.items()]
    folders = [member(top, tarfile.DIRTYPE)] if top else []
    archive = make_tar(("._Task", b"mac"), *folders, *files, (f"{top}imagesTr/._a.nii.gz", b"mac"))
    assert files_in(unpack_bytes(compress(archive), tmp_path)) == CONTENT


@pytest.mark.parametrize("top", ["", "Task/"])
def test_a_zip_is_unpacked_without_its_top_folder(tmp_path: Path, top: str) -> None:
    files = [(top + name, text) for name, text in CONTENT.items()]
    archive = make_zip(*files, (f"{top}imagesTr/", b""), ("__MACOSX/._Task", b"mac"), (f"{top}.DS_Store", b"mac"))
    assert files_in(unpack_bytes(archive, tmp_path)) == CONTENT


def test_two_top_folders_or_a_single_file_keep_their_paths(tmp_path: Path) -> None:
    assert files_in(unpack_bytes(make_tar(("a/x", b"1"), ("b/x", b"2")), tmp_path)) == {"a/x": b"1", "b/x": b"2"}
    (tmp_path / "other" / "deep").mkdir(parents=True)
    assert files_in(unpack_bytes(make_tar(("only.nii", b"1")), tmp_path / "other")) == {"only.nii": b"1"}


def test_a_tar_whose_last_file_is_a_zip_is_unpacked_as_a_tar(tmp_path: Path) -> None:
    inner = make_zip(("x", b"1"))
    assert files_in(unpack_bytes(make_tar(("a/inner.zip", inner)), tmp_path)) == {"inner.zip": inner}


def test_a_later_file_of_the_same_name_replaces_the_earlier_one_as_in_tar(tmp_path: Path) -> None:
    assert files_in(unpack_bytes(make_tar(("a/x", b"long"), ("a/x", b"2")), tmp_path)) == {"x": b"2"}


def test_links_inside_the_folder_are_kept(tmp_path: Path) -> None:
    out = unpack_bytes(
        make_tar(
            member("T/labels/up", tarfile.SYMTYPE, "../images/a"),
            ("T/images/a", b"image"),
            member("T/same", tarfile.LNKTYPE, "T/images/a"),
            member("T/folder", tarfile.SYMTYPE, "images"),
        ),
        tmp_path,
    )
    assert (out / "labels" / "up").readlink() == Path("../images/a")
    assert (out / "labels" / "up").read_bytes() == (out / "same").read_bytes() == b"image"
    assert (out / "folder" / "a").read_bytes() == b"image"
    (tmp_path / "zip" / "deep").mkdir(parents=True)
    zipped = make_zip(("T/a", b"image"), (with_mode("T/b", 0o120777), b"a"))
    assert (unpack_bytes(zipped, tmp_path / "zip") / "b").readlink() == Path("a")


# Rejected archives --------------------------------------------------------------------------------------------------

ORDINARY = ("T/ordinary", b"1")
MALICIOUS_TARS = {
    "parent": ([("../evil", b"")], "points outside the folder"),
    "parent from a subfolder": ([("T/../../evil", b"")], "points outside the folder"),
    "parent inside the archive": ([("T/a/../b", b"")], "points outside the folder"),
    "Windows parent": ([("T\\..\\..\\evil", b"")], "points outside the folder"),
    "absolute": ([("/tmp/evil", b"")], "has an absolute path"),
    "double slash": ([("//tmp/evil", b"")], "has an absolute path"),
    "drive letter": ([("C:\\evil", b"")], "has an absolute path"),
    "folder in parent": ([member("../evil", tarfile.DIRTYPE)], "points outside the folder"),
    "symlink to parent": ([member("T/l", tarfile.SYMTYPE, "../../evil")], "points outside the folder"),
    "symlink to the stripped top folder": ([member("T/l", tarfile.SYMTYPE, "..")], "points outside the folder"),
    "symlink through the top folder": ([member("T/l", tarfile.SYMTYPE, "../T/ordinary")], "points outside the folder"),
    "absolute symlink": ([member("T/l", tarfile.SYMTYPE, "/etc/passwd")], "not a path inside the folder"),
    "empty symlink": ([member("T/l", tarfile.SYMTYPE, "")], "not a path inside the folder"),
    "symlink down and up": ([member("T/l", tarfile.SYMTYPE, "a/../../../evil")], "may point outside the folder"),
    "hard link to an absolute path": ([member("T/l", tarfile.LNKTYPE, "/etc/passwd")], "not a file in the archive"),
    "hard link to parent": ([member("T/l", tarfile.LNKTYPE, "T/../../evil")], "not a file in the archive"),
    "hard link to a symlink": (
        [member("T/a", tarfile.SYMTYPE, "ordinary"), member("T/b", tarfile.LNKTYPE, "T/a")],
        "not a file in the archive",
    ),
    "member below a symlink": ([member("T/l", tarfile.SYMTYPE, "."), ("T/l/evil", b"")], "is below 'l'"),
    "member over a symlink": ([member("T/l", tarfile.SYMTYPE, "ordinary"), ("T/l", b"evil")], "appears twice"),
    "symlink through a symlink": (
        [member("T/a", tarfile.SYMTYPE, "x/y"), member("T/b", tarfile.SYMTYPE, "a/z")],
        "passes through another link",
    ),
    "member below a file": ([("T/ordinary/evil", b"")], "is below 'ordinary'"),
    "folder over a file": ([member("T/ordinary", tarfile.DIRTYPE)], "appears twice"),
    "character device": ([member("T/d", tarfile.CHRTYPE)], "not a file, folder or link"),
    "block device": ([member("T/d", tarfile.BLKTYPE)], "not a file, folder or link"),
    "pipe": ([member("T/d", tarfile.FIFOTYPE)], "not a file, folder or link"),
}


@pytest.mark.parametrize("name", MALICIOUS_TARS)
def test_a_malicious_tar_is_rejected_before_anything_is_written(tmp_path: Path, name: str) -> None:
    members, reason = MALICIOUS_TARS[name]
    with pytest.raises(UnsafeArchive, match=reason):
        unpack_bytes(make_tar(ORDINARY, *members), tmp_path)
    assert {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*")} == {"archive", "deep"}


@pytest.mark.parametrize("name", MALICIOUS_TARS)
def test_everything_that_tarfile_rejects_is_rejected(tmp_path: Path, name: str) -> None:
    """Independent check of the list above: no member that tarfile's own filter rejects is accepted."""
    members, _ = MALICIOUS_TARS[name]
    with tarfile.open(fileobj=io.BytesIO(make_tar(ORDINARY, *members))) as tar:
        try:
            for entry in tar:
                tarfile.data_filter(entry, str(tmp_path))
        except tarfile.FilterError:
            with pytest.raises(UnsafeArchive):
                unpack_bytes(make_tar(ORDINARY, *members), tmp_path)


@pytest.mark.parametrize(
    ("member_name", "text", "reason"),
    [
        ("../evil", b"", "points outside the folder"),
        ("T/..\\..\\evil", b"", "points outside the folder"),
        ("/tmp/evil", b"", "has an absolute path"),
        ("C:/evil", b"", "has an absolute path"),
        (with_mode("T/l", 0o120777), b"../../evil", "points outside the folder"),
        (with_mode("T/l", 0o120777), b"/etc/passwd", "not a path inside the folder"),
        (with_mode("T/d", 0o020666), b"", "not a file, folder or link"),
        (with_mode("T/d", 0o010666), b"", "not a file, folder or link"),
    ],
)
def test_a_malicious_zip_is_rejected(
    tmp_path: Path, member_name: str | zipfile.ZipInfo, text: bytes, reason: str
) -> None:
    with pytest.raises(UnsafeArchive, match=reason):
        unpack_bytes(make_zip(ORDINARY, (member_name, text)), tmp_path)
    assert not (tmp_path / "deep" / "out").exists()


def test_a_tar_bomb_is_rejected_by_its_declared_size(tmp_path: Path) -> None:
    header = member("T/huge", size_bytes=10**18).tobuf(format=tarfile.GNU_FORMAT)
    with pytest.raises(InputError, match=r"not enough disk space .* 1\.0 EB needed"):
        unpack_bytes(gzip.compress(header + bytes(10_000)), tmp_path)
    assert not (tmp_path / "deep" / "out").exists()


def test_a_tar_bomb_of_many_files_is_rejected_by_their_number(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("spleen.data.download.archive._MAX_ENTRIES", 100)
    with pytest.raises(UnsafeArchive, match="more than 100 entries"):
        unpack_bytes(make_tar(*((f"T/{number}", b"") for number in range(101))), tmp_path)


@pytest.mark.parametrize("declared_bytes", [1, 99_999])
def test_a_zip_that_understates_a_size_is_rejected_and_writes_no_more_than_declared(
    tmp_path: Path, declared_bytes: int
) -> None:
    archive = make_zip(ORDINARY, ("T/x", bytes(100_000)))
    where = archive.rindex((100_000).to_bytes(4, "little"))  # in the central directory
    lying = archive[:where] + declared_bytes.to_bytes(4, "little") + archive[where + 4 :]
    with pytest.raises(UnsafeArchive, match="damaged"):
        unpack_bytes(lying, tmp_path)
    assert (tmp_path / "deep" / "out" / "x").stat().st_size <= declared_bytes


@pytest.mark.parametrize("compress", [bytes, gzip.compress, bz2.compress, lzma.compress])
@pytest.mark.parametrize("kept_fraction", [0.3, 0.9])
def test_a_truncated_tar_is_rejected(tmp_path: Path, compress: Callable[[bytes], bytes], kept_fraction: float) -> None:
    archive = compress(make_tar(("T/x", NOISE)))
    with pytest.raises(UnsafeArchive, match=r"damaged|not a tar or zip archive"):
        unpack_bytes(archive[: int(kept_fraction * len(archive))], tmp_path)


@pytest.mark.parametrize(
    "compressed", [gzip.compress(make_tar(("T/x", NOISE)), mtime=0), make_zip(("T/x", NOISE))], ids=["tar.gz", "zip"]
)
def test_damage_inside_a_compressed_archive_is_rejected(tmp_path: Path, compressed: bytes) -> None:
    damaged = compressed[:50_000] + bytes([compressed[50_000] ^ 255]) + compressed[50_001:]
    with pytest.raises(UnsafeArchive, match="damaged"):
        unpack_bytes(damaged, tmp_path)


def test_an_encrypted_zip_is_rejected(tmp_path: Path) -> None:
    archive = bytearray(make_zip(("x", b"1")))
    archive[archive.index(b"PK\x01\x02") + 8] |= 1
    with pytest.raises(UnsafeArchive, match="'x' is encrypted"):
        unpack_bytes(bytes(archive), tmp_path)


@pytest.mark.parametrize("archive", [make_tar(), make_tar(member("T", tarfile.DIRTYPE)), make_tar(("._x", b"mac"))])
def test_an_archive_without_files_is_rejected(tmp_path: Path, archive: bytes) -> None:
    with pytest.raises(UnsafeArchive, match="contains no files"):
        unpack_bytes(archive, tmp_path)


# Sparse files and long names ----------------------------------------------------------------------------------------


def sparse_tar(folder: Path, size_bytes: int, tar_format: str) -> Path:
    """A tar by GNU tar of a sparse file with 4 KiB of data between holes."""
    with (folder / "sparse.nii").open("wb") as file:
        file.truncate(size_bytes)
        file.seek(size_bytes // 2)
        file.write(b"x" * 4096)
    archive = folder / "sparse.tar"
    command = ["tar", "--sparse", f"--format={tar_format}", "-cf", str(archive), "-C", str(folder), "sparse.nii"]
    subprocess.run(command, check=True)
    return archive


@pytest.mark.parametrize("tar_format", ["gnu", "posix"])
def test_a_sparse_file_is_unpacked_unless_it_declares_far_more_than_it_holds(tmp_path: Path, tar_format: str) -> None:
    small = sparse_tar(tmp_path, 1 << 20, tar_format)
    assert small.stat().st_size < 1 << 17
    unpack(small, tmp_path / "small", silent)
    assert (tmp_path / "small" / "sparse.nii").read_bytes() == (tmp_path / "sparse.nii").read_bytes()
    with pytest.raises(UnsafeArchive, match=r"'sparse\.nii' .* is a sparse file that declares .*GB and holds .*kB"):
        unpack(sparse_tar(tmp_path, 5 << 30, tar_format), tmp_path / "large", silent)
    assert not (tmp_path / "large").exists()


@pytest.mark.parametrize(
    "name",
    ["a" * 256, "é" * 128, f"folder/{'b' * 300}.nii.gz", "/".join(["c" * 200] * 20)],
    ids=["256 bytes", "128 characters of 2 bytes", "in a folder", "a path of 4 kB"],
)
@pytest.mark.parametrize("make", [make_tar, make_zip], ids=["tar", "zip"])
def test_a_name_too_long_for_the_file_system_is_rejected_before_anything_is_written(
    tmp_path: Path, make: Callable[..., bytes], name: str
) -> None:
    with pytest.raises(UnsafeArchive, match=r"contains a name of \d+ bytes, .* take names of 255 and paths of 2048"):
        unpack_bytes(make((name, b"x"), ("other.nii", b"y")), tmp_path)


def test_a_name_of_255_bytes_is_accepted(tmp_path: Path) -> None:
    assert files_in(unpack_bytes(make_tar(("a" * 255, b"x"), ("b", b"y")), tmp_path)) == {"a" * 255: b"x", "b": b"y"}
