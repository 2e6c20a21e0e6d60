"""What a page holds of a scan, unpacked again by other means."""

import base64
import gzip

import numpy as np
import pytest

from spleen.errors import InputError
from spleen.evaluation.scan.case import Scan
from spleen.evaluation.scan.embedding import body_box, embed, pack
from spleen.evaluation.scan.errors import worst_slices
from tests._helpers.nifti import ras_affine


def unpacked(text, shape, dtype):
    raw = np.frombuffer(gzip.decompress(base64.b64decode(text)), np.uint8)
    if dtype == np.uint16:
        low, high = raw.reshape(2, -1).astype(np.uint16)
        raw = low + 256 * high
    return raw.reshape(shape, order="F")


def body(shape=(40, 30, 20), noise_hu=0.0):
    """Air with a block of tissue from (5, 6, 2) up to (35, 24, 18), brighter along k."""
    image = np.full(shape, -1000.0, np.float32)
    image[5:35, 6:24, 2:18] = 40 + 10 * np.arange(2, 18)
    return (image + np.random.default_rng(0).normal(0, noise_hu, shape)).round().astype(np.float32)


def test_arrays_are_packed_with_i_running_fastest() -> None:
    masks = np.arange(2 * 3 * 4, dtype=np.uint8).reshape(2, 3, 4)
    levels = (1000 * np.arange(24)).astype(np.uint16).reshape(2, 3, 4)
    assert np.array_equal(unpacked(pack(masks), masks.shape, np.uint8), masks)
    assert np.array_equal(unpacked(pack(levels), levels.shape, np.uint16), levels)


def test_a_small_scan_is_cropped_to_the_body_and_otherwise_unchanged() -> None:
    affine = ras_affine((5.0, 5.0, 5.0))
    embedded = embed(Scan("a", body(), affine, True))
    # 5 mm around the tissue, and at most one voxel more, since every other voxel is looked at.
    for found, (first, last) in zip(embedded.box, ((4, 36), (5, 25), (1, 19)), strict=True):
        assert first - 1 <= found.start <= first
        assert last <= found.stop <= last + 1
    assert embedded.factors == (1, 1, 1)
    shown = body()[embedded.box]
    assert np.array_equal(embedded.low + embedded.step * unpacked(embedded.packed, shown.shape, np.uint16), shown)
    starts = [each.start for each in embedded.box]
    assert embedded.affine @ (0, 0, 0, 1) == pytest.approx(affine @ (*starts, 1))
    assert embedded.from_native((10, 11, 12)) == (10 - starts[0], 11 - starts[1], 12 - starts[2])


def test_a_mask_outside_the_body_is_kept_with_a_margin() -> None:
    mask = np.zeros((40, 30, 20), np.uint8)
    mask[39, 29, 19] = 1
    assert body_box(Scan("a", body(), np.diag([10.0, 10.0, 10.0, 1]), True, ("x",), mask)) == (
        slice(5, 40), slice(5, 30), slice(1, 20)
    )  # fmt: skip


def test_a_single_slice_becomes_coarser_within_its_plane() -> None:
    noise = np.random.default_rng(0).integers(0, 4096, (256, 256, 1)).astype(np.float32)
    assert embed(Scan("a", noise, np.eye(4), False), 1000).factors[:2] >= (8, 8)
    with pytest.raises(InputError):
        embed(Scan("a", noise, np.eye(4), False), 1)


def test_steps_become_coarser_before_voxels_do_and_both_are_true_to_the_image() -> None:
    image = body(noise_hu=12)
    scan = Scan("a", image, np.eye(4), True)
    whole = len(base64.b64decode(embed(scan).packed))
    coarser = embed(scan, whole - 100)
    assert (coarser.factors, coarser.step) == ((1, 1, 1), 2.0)
    shown = coarser.low + coarser.step * coarser.levels
    assert np.abs(shown - image[coarser.box].clip(-1024, 3071)).max() <= 1
    smaller = embed(scan, whole // 8)
    assert smaller.factors == (2, 2, 2)
    i, j, k = smaller.box
    block = image[i.start : i.start + 2, j.start : j.start + 2, k.start : k.start + 2]
    assert smaller.low + smaller.step * smaller.levels[0, 0, 0] == pytest.approx(block.mean(), abs=smaller.step)
    corner = smaller.affine @ (0, 0, 0, 1)
    assert corner[:3] == pytest.approx([i.start + 0.5, j.start + 0.5, k.start + 0.5])
    assert len(base64.b64decode(smaller.packed)) <= whole // 8


def test_what_cannot_be_made_small_enough_is_refused() -> None:
    with pytest.raises(InputError, match="fits 10 bytes"):
        embed(Scan("a", body(noise_hu=12), np.eye(4), True), 10)


def test_single_outliers_do_not_take_the_levels_of_other_images() -> None:
    image = np.random.default_rng(0).integers(0, 1000, (30, 30, 30)).astype(np.float32)
    image[0, 0, 0] = 5e5
    embedded = embed(Scan("a", image, np.eye(4), False))
    assert embedded.step == 1.0
    assert embedded.low + embedded.levels.max() < 1001


def test_the_worst_slices_hold_most_of_the_wrong_voxels() -> None:
    reference = np.zeros((8, 7, 6), np.uint8)
    prediction = reference.copy()
    prediction[2, 1:6, 4] = 1  # a line of five along j
    prediction[5, 3, 0:3] = 1  # a line of three along k
    sagittal, coronal, axial = worst_slices(prediction, reference, np.diag([2.0, 1.0, 5.0, 1.0]))
    assert (sagittal.index, sagittal.n_wrong, sagittal.voxel) == (2, 5, (2, 3, 4))
    assert (coronal.index, coronal.n_wrong) == (3, 4)
    assert (axial.index, axial.n_wrong, axial.voxel) == (4, 5, (2, 3, 4))
    assert axial.volume_ml == pytest.approx(5 * 10 / 1000)
    assert worst_slices(reference, reference, np.eye(4)) == ()
