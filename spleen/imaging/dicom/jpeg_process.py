"""JPEG and JPEG-LS in a process of their own.

Some damaged frames make GDCM end the process that it runs in, and CharLS run on for an unpredictable time.
"""

import json
import os
import subprocess
import sys
from pathlib import Path
from threading import Timer
from typing import IO

import numpy as np

from spleen.errors import InputError
from spleen.imaging.dicom.header import read_whole

_SECONDS_PER_FRAME = 20.0


class JpegProcess:
    """Decodes frames in a child process, which starts with the first one."""

    def __init__(self) -> None:
        self._child: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> "JpegProcess":
        return self

    def __exit__(self, *_: object) -> None:
        if self._child is not None:
            self._child.kill()
            self._child.communicate()

    def frame(self, path: Path, index: int, decoder: str) -> np.ndarray:
        """The stored values of one frame of a file, by a plugin of pydicom.

        Raises InputError for one that cannot be decoded, or not within 20 seconds.
        """
        if self._child is None:
            self._child = _start()
        requests, answers = self._child.stdin, self._child.stdout
        assert requests is not None
        assert answers is not None
        timer = Timer(_SECONDS_PER_FRAME, self._child.kill)
        timer.start()
        try:
            requests.write(json.dumps([str(path.absolute()), index, decoder]).encode() + b"\n")
            requests.flush()
            answer = json.loads(answers.readline() or b"null")
            content = answers.read(answer["bytes"]) if answer else b""
        except BrokenPipeError:
            answer, content = None, b""
        finally:
            timer.cancel()
        if answer is None or len(content) < answer["bytes"]:
            raise InputError(f"{path} is damaged: its JPEG decoder broke down over frame {index + 1}; copy it again")
        if "error" in answer:
            raise InputError(f"{path} is damaged: {answer['error']}; copy it again")
        return np.frombuffer(content, answer["dtype"]).reshape(answer["shape"])


def _start() -> "subprocess.Popen[bytes]":
    # It imports what this process would, and nothing else that lies in the current folder.
    search_path = os.pathsep.join(each or str(Path.cwd()) for each in sys.path)
    child = subprocess.Popen(
        [sys.executable, "-P", "-m", __name__],
        env={**os.environ, "PYTHONPATH": search_path},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    assert child.stdout is not None
    child.stdout.readline()  # it has imported what it needs, however long that took
    return child


def _answer(requests: IO[bytes], answers: IO[bytes]) -> None:
    """Decode what is asked for, line by line, until the other end closes."""
    from pydicom.pixels.utils import pixel_array

    answers.write(b"ready\n")
    answers.flush()
    last, dataset = None, None
    for line in requests:
        path, index, decoder = json.loads(line)
        try:
            if path != last:
                last, dataset = path, read_whole(Path(path))
            assert dataset is not None
            values = pixel_array(dataset, index=index, raw=True, decoding_plugin=decoder)
            head, content = {"dtype": values.dtype.str, "shape": values.shape}, values.tobytes()
        except Exception as error:  # whatever pydicom and the decoder raise for a damaged file
            head, content = {"error": str(error) or type(error).__name__}, b""
        answers.write(json.dumps({**head, "bytes": len(content)}).encode() + b"\n" + content)
        answers.flush()


if __name__ == "__main__":
    with os.fdopen(os.dup(1), "wb") as _answers:
        os.dup2(2, 1)  # what the decoder prints must not come between the answers
        _answer(sys.stdin.buffer, _answers)
