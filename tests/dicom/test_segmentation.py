"""A segmentation made of a mask by hand, read back by libraries that know nothing of the package."""

import signal
import subprocess
import sys
from pathlib import Path

import highdicom
import nibabel as nib
import numpy as np
import pydicom
import pytest
import SimpleITK

from spleen.dicom.codes import codes_of, read_codes
from spleen.dicom.results import write_dataset
from spleen.dicom.segmentation import Algorithm, Segment, build_segmentation, series_number
from spleen.dicom.uids import uid_maker
from spleen.dicom.write_series import write_series
from spleen.imaging.classes import Regions, parse_label_values
from spleen.imaging.dicom.series import Series, read_series
from tests._helpers.dicom_results import errors_of_dciodvfy, sop_uids
from tests._helpers.nifti import SHAPE, counting, ras_affine, stored_as

ROTATED = nib.affines.from_matvec(nib.eulerangles.euler2mat(0.2, -0.15, 0.3), [3, -2, 1])
SEGMENTS = [
    Segment(name, code)
    for name, code in zip(("liver", "Tumour"), codes_of(("liver", "Tumour"), read_codes()), strict=True)
]


def a_mask(series: Series) -> np.ndarray:
    """One liver voxel in the first and three in the second frame of the stack, one of the tumour there."""
    mask = np.zeros(series.shape, np.uint8)
    mask[0, 1, 0] = mask[1, 2:4, 1] = mask[2, 2, 1] = 1
    mask[1, 1, 1] = 2
    return mask


def written(
    series: Series,
    mask: np.ndarray,
    path: Path,
    segments: list[Segment] = SEGMENTS,
    regions: Regions | None = None,
) -> Path:
    algorithm = Algorithm(("fold0",))
    write_dataset(path, build_segmentation(series, mask, segments, algorithm, uid_maker(None), regions=regions))
    return path


@pytest.mark.parametrize("orientation", ["RAS", "LPS", "SRA", "PIL"])
@pytest.mark.parametrize("world", [np.eye(4), ROTATED], ids=["axis-aligned", "oblique"])
def test_simpleitk_puts_the_segmentation_onto_the_series(orientation: str, world: np.ndarray, tmp_path: Path) -> None:
    # GDCM, which reads for SimpleITK, wants whole bytes: 4 × 6 × 8 voxels are some in each direction.
    scan = counting((4, 6, 8), np.int16)
    files = write_series(tmp_path / "case", *stored_as(orientation, scan, world @ ras_affine()))
    series = read_series(tmp_path / "case")
    mask = np.random.default_rng(0).integers(0, 2, series.shape).astype(np.uint8)
    image = SimpleITK.ReadImage(str(written(series, mask, tmp_path / "seg.dcm", SEGMENTS[:1])))
    reader = SimpleITK.ImageSeriesReader()
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(files[0].parent)))
    grid = reader.Execute()
    on_grid = SimpleITK.GetArrayFromImage(SimpleITK.Resample(image, grid, interpolator=SimpleITK.sitkNearestNeighbor))
    found = {tuple(at[::-1].tolist()) for at in np.argwhere(on_grid)}
    places_mm = nib.affines.apply_affine(np.diag([-1, -1, 1, 1]) @ series.stack.affine, np.argwhere(mask))
    assert found == {grid.TransformPhysicalPointToIndex(place) for place in places_mm.tolist()}


def test_each_frame_holds_the_pixels_of_its_segment_and_slice(tmp_path: Path) -> None:
    files = write_series(tmp_path / "case", counting(dtype=np.int16), ras_affine())
    series = read_series(tmp_path / "case")
    read = highdicom.seg.segread(written(series, a_mask(series), tmp_path / "seg.dcm"))
    # RAS rows run to the left in DICOM's own coordinates, and columns to the front, so the stack runs as the files do.
    z = [float(pydicom.dcmread(path).ImagePositionPatient[2]) for path in files]
    assert z == [40, 45, 50]
    frames = {}
    for group, pixels in zip(read.PerFrameFunctionalGroupsSequence, np.atleast_3d(read.pixel_array), strict=True):
        segment = group.SegmentIdentificationSequence[0].ReferencedSegmentNumber
        frames[segment, float(group.PlanePositionSequence[0].ImagePositionPatient[2])] = np.argwhere(pixels).tolist()
    # (row, column) of the voxels (column, row) of the mask.
    assert frames == {(1, 40): [[1, 0]], (1, 45): [[2, 1], [2, 2], [3, 1]], (2, 45): [[1, 1]]}
    assert (read.Rows, read.Columns) == SHAPE[1::-1]
    assert [segment.SegmentLabel for segment in read.SegmentSequence] == ["liver", "Tumour"]
    categories = [each.SegmentedPropertyCategoryCodeSequence[0].CodeMeaning for each in read.SegmentSequence]
    assert categories == ["Anatomical Structure", "Morphologically Abnormal Structure"]
    assert errors_of_dciodvfy(tmp_path / "seg.dcm") == []


def test_a_voxel_of_several_regions_is_in_the_segment_of_each(tmp_path: Path) -> None:
    """The liver with its tumours, the tumours, and a cyst, which is in the liver but no tumour."""
    files = write_series(tmp_path / "case", counting(dtype=np.int16), ras_affine())
    series = read_series(tmp_path / "case")
    regions = parse_label_values({"liver": [1, 2, 3], "tumour": [2], "cyst": [3]}, "", [1, 2, 3]).regions
    mask = a_mask(series)
    mask[3, 3, 1] = mask[2, 5, 2] = 3
    codes = codes_of(("liver", "tumour", "cyst"), read_codes())
    segments = [Segment(name, code) for name, code in zip(("liver", "tumour", "cyst"), codes, strict=True)]
    read = highdicom.seg.segread(written(series, mask, tmp_path / "seg.dcm", segments, regions))
    pixels = read.get_pixels_by_source_instance(
        sop_uids(files), assert_missing_frames_are_empty=True, ignore_spatial_locations=True
    )  # (slice, row, column, segment)
    found = [
        sorted(map(tuple, np.argwhere(segment.transpose(2, 1, 0)).tolist())) for segment in np.moveaxis(pixels, -1, 0)
    ]
    tumour, cyst = [(1, 1, 1)], [(2, 5, 2), (3, 3, 1)]
    rest = [(0, 1, 0), (1, 2, 1), (1, 3, 1), (2, 2, 1)]
    assert found == [sorted([*rest, *tumour, *cyst]), tumour, cyst]
    assert (read.SegmentationType, read.SegmentsOverlap) == ("BINARY", "YES")
    assert errors_of_dciodvfy(tmp_path / "seg.dcm") == []


def test_an_empty_mask_of_regions_is_a_valid_segmentation(tmp_path: Path) -> None:
    files = write_series(tmp_path / "case", counting(dtype=np.int16), ras_affine())
    series = read_series(tmp_path / "case")
    regions = parse_label_values({"liver": [1, 2], "tumour": [2]}, "", [1, 2]).regions
    path = written(series, np.zeros(series.shape, np.uint8), tmp_path / "seg.dcm", regions=regions)
    pixels = highdicom.seg.segread(path).get_pixels_by_source_instance(sop_uids(files), ignore_spatial_locations=True)
    assert pixels.shape == (3, *SHAPE[1::-1], 2)
    assert not pixels.any()
    assert errors_of_dciodvfy(path) == []


def test_one_volume_of_several_refers_to_its_own_frames_only(tmp_path: Path) -> None:
    datasets = []
    for number, path in enumerate(
        write_series(tmp_path / "one", counting(dtype=np.int16), ras_affine(), modality="MR")
    ):
        for echo in (1, 2):
            dataset = pydicom.dcmread(path)
            dataset.EchoTime, dataset.SOPInstanceUID = 10 * echo, f"1.2.3.{echo}.{number}"
            dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
            dataset.FrameOfReferenceUID = "1.2.3"
            datasets.append(dataset)
    (tmp_path / "two").mkdir()
    for dataset in datasets:
        dataset.save_as(tmp_path / "two" / f"{dataset.SOPInstanceUID}.dcm")
    series = read_series(tmp_path / "two#1:2")
    dataset = pydicom.dcmread(written(series, a_mask(series), tmp_path / "seg.dcm"))
    named = [each.ReferencedSOPInstanceUID for each in dataset.SourceImageSequence]
    assert sorted(named) == [f"1.2.3.2.{number}" for number in range(3)]


@pytest.mark.parametrize(
    ("number", "expected"), [("4", 401), ("", 1), ("0", 1), ("-7", 1), ("x", 1), ("21474836", 2147483601)]
)
def test_a_result_has_a_series_number_beside_its_source(number: str, expected: int) -> None:
    assert series_number(number, 1) == expected
    assert series_number("21474837", 1) == 1  # 2147483701 is beyond what DICOM can hold


def test_a_process_that_is_killed_while_writing_leaves_no_part_of_a_result(tmp_path: Path) -> None:
    files = write_series(tmp_path / "case", counting(dtype=np.int16), ras_affine())
    path = tmp_path / "seg.dcm"
    path.write_bytes(b"an earlier one")
    program = (
        "import os, signal, sys, pydicom\n"
        "from pathlib import Path\n"
        "from spleen.dicom.results import write_dataset\n"
        "os.fsync = lambda _: os.kill(os.getpid(), signal.SIGKILL)\n"
        "write_dataset(Path(sys.argv[2]), pydicom.dcmread(sys.argv[1]))\n"
    )
    done = subprocess.run([sys.executable, "-c", program, files[0], path], capture_output=True)
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert path.read_bytes() == b"an earlier one"
    (left,) = [each for each in tmp_path.iterdir() if each.name not in ("case", "seg.dcm")]
    assert left.name.startswith(".tmp-")


def test_a_result_has_the_permissions_of_any_new_file(tmp_path: Path) -> None:
    write_series(tmp_path / "case", counting(dtype=np.int16), ras_affine())
    series = read_series(tmp_path / "case")
    (tmp_path / "other").touch()
    assert written(series, a_mask(series), tmp_path / "seg.dcm").stat().st_mode == (tmp_path / "other").stat().st_mode
