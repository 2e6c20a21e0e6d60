"""Damaged NIfTI files: any damage raises the same exception type, in little time and memory."""

import gzip
import struct
import time
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import psutil
import pytest

from spleen.errors import InputError
from spleen.evaluation.evaluate import evaluate
from spleen.exploration.explore import explore
from spleen.imaging.native import read_native
from spleen.imaging.nifti import read_image, read_label, read_shape
from tests._helpers.nifti import counting, ras_affine, save

READERS: list[Callable[[Path], object]] = [read_image, read_label, read_native, read_shape]
OFFSET = 108  # of vox_offset in a NIfTI-1 header


def with_offset(folder: Path, offset: float, suffix: str = ".nii") -> Path:
    path = save(folder / f"ct{suffix}", counting(dtype=np.int16), ras_affine())
    content = bytearray(gzip.decompress(path.read_bytes()) if suffix == ".nii.gz" else path.read_bytes())
    struct.pack_into("<f", content, OFFSET, offset)
    path.write_bytes(gzip.compress(content) if suffix == ".nii.gz" else content)
    return path


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
@pytest.mark.parametrize("offset", [0, -16, 176, 352.5, np.inf, -np.inf, np.nan, 1e38])
def test_an_invalid_voxel_offset_is_rejected(tmp_path: Path, offset: float, suffix: str) -> None:
    path = with_offset(tmp_path, offset, suffix)
    for read in READERS:
        with pytest.raises(InputError, match=r"vox_offset|cannot hold"):
            read(path)


def test_a_file_with_a_header_extension_is_read(tmp_path: Path) -> None:
    nifti = nib.Nifti1Image(counting(dtype=np.int16), ras_affine())
    nifti.header.extensions.append(nib.nifti1.Nifti1Extension("comment", b"a comment of some length"))
    nib.save(nifti, tmp_path / "ct.nii.gz")
    assert nib.load(tmp_path / "ct.nii.gz").dataobj.offset > 352
    np.testing.assert_array_equal(read_image(tmp_path / "ct.nii.gz").array, counting())


@pytest.mark.parametrize("kind", [nib.Nifti1Image, nib.Nifti2Image])
@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
def test_a_header_declaring_more_voxels_than_the_file_holds_is_rejected_without_allocating(
    tmp_path: Path, kind: type[nib.Nifti1Image], suffix: str
) -> None:
    nifti = kind(np.zeros((4, 4, 4), np.int16), ras_affine())
    nib.save(nifti, tmp_path / f"small{suffix}")
    small = (tmp_path / f"small{suffix}").read_bytes()
    content = gzip.decompress(small) if suffix == ".nii.gz" else small
    header = nifti.header.copy()
    header.set_data_shape((800, 800, 400))  # half a gigabyte of int16
    header["vox_offset"] = nib.load(tmp_path / f"small{suffix}").dataobj.offset
    header["magic"] = b"n+1" if kind is nib.Nifti1Image else b"n+2"
    forged = header.binaryblock + content[len(header.binaryblock) :]
    path = tmp_path / f"forged{suffix}"
    path.write_bytes(gzip.compress(forged) if suffix == ".nii.gz" else forged)
    process = psutil.Process()
    for read in READERS:
        before = process.memory_info().rss
        with pytest.raises(InputError, match=r"declares 800 × 800 × 400 voxels of int16, 512,000,\d+ bytes"):
            read(path)
        assert process.memory_info().rss - before < 20e6


def test_one_damaged_prediction_does_not_prevent_scoring_the_others(tmp_path: Path) -> None:
    for folder in ("predictions", "references"):
        (tmp_path / folder).mkdir()
        for name in "abc":
            save(tmp_path / folder / f"{name}.nii.gz", (counting() > 50).astype(np.uint8), ras_affine())
    bad = tmp_path / "predictions" / "b.nii.gz"
    content = bytearray(gzip.decompress(bad.read_bytes()))
    struct.pack_into("<f", content, OFFSET, np.inf)
    bad.write_bytes(gzip.compress(content))
    evaluation = evaluate(tmp_path / "predictions", tmp_path / "references")
    assert {score.case_id for score in evaluation.scores} == {"a", "c"}
    (failure,) = evaluation.failures
    assert failure.case_id == "b"
    assert "vox_offset" in failure.reason


def test_too_much_data_after_the_voxels_is_rejected(tmp_path: Path) -> None:
    path = save(tmp_path / "ct.nii", counting(dtype=np.int16), ras_affine())
    compressed = gzip.compress(path.read_bytes() + bytes(200 << 20), 1)
    (tmp_path / "ct.nii.gz").write_bytes(compressed)
    with pytest.raises(InputError, match="far fewer voxels than the file holds"):
        read_image(tmp_path / "ct.nii.gz")


# Fuzzing ------------------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(4))
def test_500_mutated_files_raise_only_input_errors(tmp_path: Path, seed: int) -> None:
    random = np.random.default_rng(seed)
    process = psutil.Process()
    outcomes = {"read": 0, "rejected": 0}
    for number in range(500):
        path = tmp_path / f"f{number}{('.nii', '.nii.gz')[number % 2]}"
        path.write_bytes(_mutated(random, path.suffix == ".gz", tmp_path))
        for read in READERS:
            started, before = time.perf_counter(), process.memory_info().rss
            try:
                read(path)
                outcomes["read"] += 1
            except InputError as error:
                assert path.name in str(error), error  # noqa: PT017  (both outcomes are valid)
                outcomes["rejected"] += 1
            assert process.memory_info().rss - before < 200e6, path
            assert time.perf_counter() - started < 2, path
        explore(path)
        path.unlink()
    assert min(outcomes.values()) > 200  # so both outcomes were exercised


def _mutated(random: np.random.Generator, compressed: bool, folder: Path) -> bytes:
    kind = (nib.Nifti1Image, nib.Nifti2Image)[int(random.integers(2))]
    dtype = (np.int16, np.uint8, np.float32, np.float64, np.uint32)[int(random.integers(5))]
    shape = tuple(random.integers(1, 9, 3).tolist())
    nifti = kind(random.integers(0, 4, shape).astype(dtype), ras_affine())
    nib.save(nifti, folder / "seed.nii")
    content = bytearray((folder / "seed.nii").read_bytes())
    length = 348 if kind is nib.Nifti1Image else 540
    for _ in range(int(random.integers(1, 4))):
        match int(random.integers(5)):
            case 0:  # any byte of the header
                content[int(random.integers(min(length, len(content))))] = int(random.integers(256))
            case 1:  # an extreme number anywhere
                at = 2 * int(random.integers(length // 2 - 4))
                form, value = _EXTREMES[int(random.integers(len(_EXTREMES)))]
                struct.pack_into(form, content, at, value)
            case 2:  # a field of the shape, type or offset
                at = int(random.choice([40, 42, 44, 46, 70, 72, 108, 123, 252, 254] if length == 348 else _FIELDS_OF_2))
                struct.pack_into("<h", content, at, int(random.integers(-(2**15), 2**15)))
            case 3:  # truncated voxels
                content = content[: int(random.integers(length, len(content) + 1))]
            case _:  # any byte
                content[int(random.integers(len(content)))] ^= 1 << int(random.integers(8))
    if not compressed:
        return bytes(content)
    packed = bytearray(gzip.compress(content))
    if random.random() < 0.3:
        packed[int(random.integers(len(packed)))] ^= 1 << int(random.integers(8))
    return bytes(packed[: int(random.integers(len(packed)))] if random.random() < 0.1 else packed)


_FIELDS_OF_2 = [12, 14, 16, 24, 32, 40, 168, 344, 348, 500]
_EXTREMES: list[tuple[str, float]] = [
    ("<f", np.inf),
    ("<f", np.nan),
    ("<f", -1e38),
    ("<f", 0.0),
    ("<i", -1),
    ("<i", 2**31 - 1),
    ("<h", -(2**15)),
    ("<h", 2**15 - 1),
    ("<q", 2**62),
    ("<d", 1e308),
]
