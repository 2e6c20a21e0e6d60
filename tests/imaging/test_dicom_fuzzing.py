"""Reading damaged DICOM: each file is read or refused in words, in bounded time and memory, and nothing ends Python.

The files are read in a process of their own, since decoders written in C may end it.
"""

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("openjpeg")
pytest.importorskip("jpeg_ls")
pytest.importorskip("gdcm")

ROOT = Path(__file__).parents[2]


def outcomes(folder: Path) -> dict[str, str]:
    """How reading each tried mutant ended; one that ended the process is said to have done so."""
    done = subprocess.run(
        [sys.executable, "-m", "tests._helpers.dicom_damage", str(folder)],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    found = {line["name"]: line["ended"] for line in lines if "ended" in line}
    if done.returncode:
        found[lines[-1].get("trying", "?") if lines else "start"] = f"ended the process: {done.stderr[-2000:]}"
    return found


@pytest.mark.slow
def test_1700_damaged_files_are_read_or_refused(tmp_path: Path) -> None:
    found = outcomes(tmp_path)
    assert len(found) > 1700
    assert {name: ended for name, ended in found.items() if ended not in ("read", "refused")} == {}
    sound = {name: ended for name, ended in found.items() if name.startswith("sound")}
    assert len(sound) == 6
    assert set(sound.values()) == {"read"}
    assert list(found.values()).count("refused") > len(found) / 3
