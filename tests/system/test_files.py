import errno
import re
import resource

import pytest

from spleen.system.files import new_folder, write_bytes, write_text


def test_a_text_file_is_replaced_atomically(tmp_path):
    path = tmp_path / "new" / "summary.json"
    write_text(path, "old")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))  # like a disk that is full after 1000 bytes
    try:
        with pytest.raises(OSError, match="File too large"):
            write_text(path, "new" * 1000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert path.read_text() == "old"
    write_text(path, "new, then half a character: \ud83d")
    assert path.read_text() == "new, then half a character: \\ud83d"
    assert list(path.parent.iterdir()) == [path]


def test_a_new_folder_appears_only_when_it_is_complete(tmp_path):
    path = tmp_path / "entry"

    def build(content, fail=False):
        with new_folder(path) as folder:
            (folder / "array").write_text(content)
            assert not (path / "array").exists() or (path / "array").read_text() != content
            if fail:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build("half", fail=True)
    assert list(tmp_path.iterdir()) == []
    build("first")
    build("second")  # as if another process had finished first: its folder stays
    assert (path / "array").read_text() == "first"
    assert list(tmp_path.iterdir()) == [path]


def test_a_failed_write_names_the_file_and_keeps_the_old_content(tmp_path):
    path = tmp_path / "last.ckpt"
    write_bytes(path, b"epoch 1")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))  # as on a full disk, a write ends early
    try:
        with pytest.raises(OSError, match=re.escape(str(path))) as caught:
            write_bytes(path, bytes(2000))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert caught.value.errno == errno.EFBIG
    assert path.read_bytes() == b"epoch 1"
    assert list(tmp_path.iterdir()) == [path]
