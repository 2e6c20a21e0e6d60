"""The parts of an answer by WADO-RS as files, written as they come (RFC 2387)."""

import re
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from spleen.errors import InputError

if TYPE_CHECKING:
    import requests

_PIECE_BYTES = 1 << 20
_MOST_HEADER_BYTES = 64 * 1024
_MOST_PARTS = 100_000
_FREE_BYTES = 512 * 2**20
"""What must be left on the disk."""
_SINGLE = "application/dicom"


def write_parts(response: "requests.Response", folder: Path) -> list[Path]:
    """Write each part of a streamed answer to a file 000001.dcm, … of a folder; returns the files.

    Raises InputError for anything but DICOM, for an answer that breaks off, and before the disk is full.
    """
    kind = response.headers.get("Content-Type", "")
    media = kind.partition(";")[0].strip().lower()
    writer = _Writer(folder, _boundary(kind, media, response.url))
    for piece in response.iter_content(_PIECE_BYTES):
        writer.take(piece)
    return writer.finish()


def _boundary(kind: str, media: str, url: str) -> bytes | None:
    """The boundary between parts; None for a single file, as some servers send it."""
    if media == _SINGLE:
        return None
    match = re.search(r'boundary="?([^";]{1,200})"?', kind, re.IGNORECASE)
    if media != "multipart/related" or match is None:
        raise InputError(
            f"{url} sent {media or 'something without a type'} instead of DICOM; is it a DICOMweb service?"
        )
    return match[1].strip().encode()


class _Writer:
    """Takes an answer in pieces of any length and writes its parts."""

    def __init__(self, folder: Path, boundary: bytes | None) -> None:
        self._folder = folder
        self._mark = None if boundary is None else b"\r\n--" + boundary
        self._buffer = b"\r\n"  # the first mark may stand at the very beginning
        self._files: list[Path] = []
        self._file: BinaryIO | None = None
        self._is_over = False
        self._left = shutil.disk_usage(folder).free - _FREE_BYTES
        if self._mark is None:
            self._buffer = b""
            self._begin()

    def take(self, piece: bytes) -> None:
        self._buffer += piece
        if self._mark is None:
            self._write(len(self._buffer))
            return
        while not self._is_over and self._step(self._mark):
            pass
        if self._is_over:
            self._buffer = b""

    def finish(self) -> list[Path]:
        if self._file is not None:
            self._file.close()
        if self._mark is not None and not self._is_over:
            raise InputError("the answer with the images broke off; try again")
        return self._files

    def _step(self, mark: bytes) -> bool:
        """Go on to the end of the body, or of the header of a part; False where that needs more of the answer."""
        if self._file is None:
            return self._header(mark)
        at = self._buffer.find(mark)
        self._write(at if at >= 0 else max(0, len(self._buffer) - len(mark)))
        if at < 0:
            return False
        self._file.close()
        self._file = None
        return True

    def _header(self, mark: bytes) -> bool:
        at = self._buffer.find(mark)
        start = at + len(mark)
        if at >= 0 and self._buffer[start : start + 2] == b"--":
            self._is_over = True
            return False
        end = self._buffer.find(b"\r\n\r\n", start) if at >= 0 else -1
        if end < 0:
            if len(self._buffer) > _MOST_HEADER_BYTES:
                raise InputError("the answer with the images is no multipart message; is it a DICOMweb service?")
            return False
        self._buffer = self._buffer[end + 4 :]
        self._begin()
        return True

    def _begin(self) -> None:
        if len(self._files) == _MOST_PARTS:
            raise InputError(f"the series has more than {_MOST_PARTS:,} files")
        path = self._folder / f"{len(self._files) + 1:06d}.dcm"
        self._file = path.open("wb")
        self._files.append(path)

    def _write(self, n_bytes: int) -> None:
        assert self._file is not None
        self._left -= n_bytes
        if self._left < 0:
            raise InputError(f"{self._folder}: too little space on the disk for the series; set TMPDIR to a larger one")
        self._file.write(self._buffer[:n_bytes])
        self._buffer = self._buffer[n_bytes:]
