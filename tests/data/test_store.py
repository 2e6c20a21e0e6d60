import hashlib
import os
import shutil
import signal
import sys
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, replace
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import psutil
import pytest

from spleen.data.cases import Case
from spleen.data.loading.batches import CaseSlices, TrainingSlices
from spleen.data.store import store
from spleen.data.store.store import open_case
from spleen.errors import InputError
from spleen.imaging.classes import ClassMap
from spleen.imaging.intensity import CtWindow, MrPercentiles, ZScore
from spleen.imaging.preprocessing import Preprocessing
from spleen.imaging.slicing import to_slices
from spleen.system.hashing import content_hash
from tests._helpers.nifti import SHAPE, box, counting, ras_affine, save, save_stored_as

# Axial planes of 7 × 5 pixels, which img_size=7 does not resample; a window of ±100 HU is mapped to -1 … 1.
SETTINGS = Preprocessing(
    axis="axial",
    img_size=7,
    resize="keep_aspect",
    size_multiple=4,
    intensity=CtWindow(window_level=0.0, window_width=200.0),
    classes=ClassMap(("organ",), ((1,),)),
    grid_tolerance_mm=0.1,
)
HU = counting() - 60

_listeners: list[list[str]] = []


def _notify_listeners(event, arguments):
    if event == "open":
        for listener in _listeners:
            listener.append(str(arguments[0]))


sys.addaudithook(_notify_listeners)


@contextmanager
def opened_files():
    """The paths of all files opened meanwhile by any code, as Python's audit hook reports them."""
    opened: list[str] = []
    _listeners.append(opened)
    try:
        yield opened
    finally:
        _listeners.remove(opened)


@pytest.fixture
def case(tmp_path):
    return Case(
        "liver-3",
        (save(tmp_path / "ct.nii.gz", HU.astype(np.int16), ras_affine()),),
        save(tmp_path / "seg.nii.gz", box(), ras_affine()),
    )


@pytest.fixture
def cache(tmp_path):
    return tmp_path / "cache"


def _entries(cache: Path):
    return sorted(path for path in (cache / "slices").iterdir() if not path.name.startswith("."))


def test_an_entry_contains_the_slices_of_the_volume(case, cache):
    stored = open_case(case, SETTINGS, cache)
    assert (stored.case_id, stored.axis, stored.n_slices) == ("liver-3", "axial", 3)
    assert stored.spacing_mm == pytest.approx((5.0, 0.8, 0.8))
    assert stored.voxel_volume_mm3 == pytest.approx(3.2)
    assert stored.foreground.tolist() == [True, True, False]
    np.testing.assert_array_equal(stored.reference, to_slices(box(), "axial"))
    np.testing.assert_array_equal(stored.labels[:, :7, :5], to_slices(box(), "axial"))
    # float16 rounds values below 1 by at most half a step of 2⁻¹¹, less than one HU in any usual window.
    np.testing.assert_allclose(stored.images[:, 0, :7, :5], to_slices(HU / 100, "axial"), rtol=0, atol=2**-12)


def test_images_are_padded_with_their_minimum_and_labels_with_background(case, cache):
    stored = open_case(case, SETTINGS, cache)
    assert stored.images.shape == (3, 1, 8, 8)
    assert stored.labels.shape == (3, 8, 8)
    assert (stored.images[:, 0, 7:] == np.float16(-0.6)).all()
    assert (stored.images[:, 0, :, 5:] == np.float16(-0.6)).all()
    assert not stored.labels[:, 7:].any()
    assert not stored.labels[:, :, 5:].any()


def test_many_slices_of_several_classes_keep_their_order(tmp_path, cache):
    """More slices than are resampled at once, each with its own value."""
    shape = (40, 5, 7)
    image = np.broadcast_to(np.arange(40, dtype=np.float32)[:, None, None], shape)
    label = np.broadcast_to(np.array([0, 4, 9, 2] * 10, dtype=np.uint8)[:, None, None], shape)
    affine = ras_affine((5.0, 0.8, 0.8))
    case = Case("c", (save(tmp_path / "i.nii", image, affine),), save(tmp_path / "l.nii", label, affine))
    classes = ClassMap(("a", "b"), ((9,), (2, 4)))
    stored = open_case(case, replace(SETTINGS, axis="sagittal", img_size=12, classes=classes), cache)
    assert stored.grid.resampled == (12, 9)  # 5.6 mm high, 4 mm wide
    np.testing.assert_allclose(stored.images[:, 0, 4, 3], np.arange(40) / 100, atol=2**-12)
    assert stored.labels[:, 4, 3].tolist() == [0, 2, 1, 2] * 10


def test_opening_a_case_reads_no_plane_and_keeps_no_file_open(case, cache):
    stored = open_case(case, SETTINGS, cache)
    before = len(psutil.Process().open_files())
    for name, dtype in (("images", np.float16), ("labels", np.uint8), ("reference", np.uint8)):
        array = getattr(stored, name)
        assert array.dtype == dtype
        assert array[np.array([2, 0])].shape == (2, *array.shape[1:])
        assert not isinstance(array[0], np.memmap)  # a copy: nothing stays mapped
    (images,) = (cache / "slices").glob("*/images.npy")
    assert str(images) not in {mapped.path for mapped in psutil.Process().memory_maps()}
    assert len(psutil.Process().open_files()) == before


@pytest.mark.parametrize("layout", ["one file", "one file per channel"])
def test_each_channel_is_normalised_separately(tmp_path, cache, layout):
    channels = [counting().astype(np.float32), 7 * counting()[::-1].astype(np.float32)]
    label = save(tmp_path / "seg.nii", box(), ras_affine())
    if layout == "one file":
        images = (save(tmp_path / "both.nii", np.stack(channels, axis=-1), ras_affine()),)
    else:
        images = tuple(save(tmp_path / f"c_{n:04}.nii", channel, ras_affine()) for n, channel in enumerate(channels))
    settings = replace(SETTINGS, intensity=MrPercentiles(0.0, 100.0), n_channels=2)
    stored = open_case(Case("c", images, label), settings, cache)
    assert stored.images.shape == (3, 2, 8, 8)
    for number, channel in enumerate(channels):
        signal = channel[channel != 0]
        expected = 2 * (channel - signal.min()) / (signal.max() - signal.min()) - 1
        found = stored.images[:, number, :7, :5]
        np.testing.assert_allclose(found, to_slices(expected.clip(-1, 1), "axial"), atol=2**-10)
    with pytest.raises(InputError, match=r"has 2 channels, expected 3 \(data.channels\)"):
        open_case(Case("c", images, label), replace(settings, n_channels=3), cache)


def test_channels_on_different_grids_are_rejected(tmp_path, cache):
    images = (
        save(tmp_path / "c_0000.nii", counting(), ras_affine()),
        save(tmp_path / "c_0001.nii", counting(), ras_affine((0.8, 0.8, 6.0))),
    )
    label = save(tmp_path / "seg.nii", box(), ras_affine())
    with pytest.raises(InputError, match=r"c_0000\.nii and .*c_0001\.nii are on different grids"):
        open_case(Case("c", images, label), replace(SETTINGS, n_channels=2), cache)


def test_the_volumes_are_not_opened_again_on_the_second_start(case, cache):
    volumes = {str(case.images[0]), str(case.label)}
    with opened_files() as opened_first:
        first = open_case(case, SETTINGS, cache)
    assert volumes <= set(opened_first)
    with opened_files() as opened_second:
        second = open_case(case, SETTINGS, cache)
    assert opened_second
    assert not volumes & set(opened_second)
    np.testing.assert_array_equal(first.images, second.images)
    assert first.grid == second.grid
    assert len(_entries(cache)) == 1


def test_every_setting_that_affects_the_arrays_creates_its_own_entry(case, cache):
    changes = {
        "axis": "coronal",
        "img_size": 8,
        "resize": "stretch",
        "size_multiple": 2,
        "intensity": CtWindow(0.0, 201.0),
        "classes": ClassMap(("organ",), ((1, 2),)),
        "grid_tolerance_mm": 0.2,
        "ignore_value": 2,
    }
    assert {*changes, "n_channels"} == asdict(SETTINGS).keys()  # another number of channels needs other files
    others = [{"intensity": MrPercentiles(0.0, 99.0)}, {"intensity": ZScore(3.0)}]
    for change in [{}, *({name: value} for name, value in changes.items()), *others]:
        open_case(case, replace(SETTINGS, **change), cache)
    open_case(case, SETTINGS, cache, allow_empty_label=True)
    assert len(_entries(cache)) == 2 + len(changes) + len(others)


@pytest.mark.parametrize("changed", ["image", "label"])
def test_changed_file_content_creates_a_new_entry(case, cache, changed):
    before = open_case(case, SETTINGS, cache)
    if changed == "image":
        save(case.images[0], (HU + 1).astype(np.int16), ras_affine())
    else:
        save(case.label, box(high=(3, 5, 2)), ras_affine())
    after = open_case(case, SETTINGS, cache)
    assert len(_entries(cache)) == 2
    assert (before.images[:] != after.images[:]).any() == (changed == "image")
    assert (before.reference[:] != after.reference[:]).any() == (changed == "label")


def test_image_and_label_may_be_stored_in_different_orientations(tmp_path, cache):
    image = save_stored_as(tmp_path / "ct.nii.gz", "LPS", HU.astype(np.int16))
    label = save_stored_as(tmp_path / "seg.nii.gz", "LAS", box())
    stored = open_case(Case("c", (image,), label), SETTINGS, cache)
    np.testing.assert_array_equal(stored.reference, to_slices(box(), "axial"))
    np.testing.assert_allclose(stored.images[:, 0, :7, :5], to_slices(HU / 100, "axial"), atol=2**-12)


@pytest.mark.parametrize(
    ("shape", "shift_mm", "message"),
    [
        (SHAPE, 1.0, r"ct\.nii\.gz and .*off\.nii\.gz are on different grids.* 1 mm apart, the tolerance is 0\.1 mm"),
        ((5, 7, 4), 0.0, r"their shapes are 5 × 7 × 3 and 5 × 7 × 4"),
    ],
)
def test_a_label_on_a_different_grid_is_rejected_and_leaves_no_entry(case, cache, shape, shift_mm, message):
    affine = ras_affine()
    affine[1, 3] += shift_mm
    label = save(case.label.with_name("off.nii.gz"), box(shape), affine)
    with pytest.raises(InputError, match=message):
        open_case(replace(case, label=label), SETTINGS, cache)
    assert list((cache / "slices").iterdir()) == []


def test_an_empty_label_is_rejected_unless_allowed(case, cache):
    save(case.label, box(value=0), ras_affine())
    with pytest.raises(InputError, match=r"seg\.nii\.gz: the label is empty"):
        open_case(case, SETTINGS, cache)
    stored = open_case(case, SETTINGS, cache, allow_empty_label=True)
    assert (stored.volumes_mm3, stored.label_values) == ((0.0,), ((1,),))


@pytest.mark.parametrize("missing", ["image", "label"])
def test_a_missing_file_is_reported(case, cache, missing):
    path = case.images[0] if missing == "image" else case.label
    path.unlink()
    with pytest.raises(InputError, match=rf"{path}: no such file \(case 'liver-3'\)"):
        open_case(case, SETTINGS, cache)


def test_an_unwritable_cache_is_reported_with_the_setting_to_change(case, tmp_path):
    in_the_way = tmp_path / "cache"
    in_the_way.write_text("a file where the folder should be")
    with pytest.raises(InputError, match=rf"cannot use the slice store under {in_the_way}: .*cache_dir="):
        open_case(case, SETTINGS, in_the_way)


def _open_in_subprocess(case, cache, until, barrier):
    """In a separate process: when the unfinished file `until` is opened, wait at the barrier or, without one, die."""

    def stop(event, arguments):
        if event == "open" and Path(str(arguments[0])).name == until and ".tmp-" in str(arguments[0]):
            if barrier is None:
                os.kill(os.getpid(), signal.SIGKILL)
            barrier.wait(60)

    sys.addaudithook(stop)
    np.testing.assert_array_equal(open_case(case, SETTINGS, cache).reference, to_slices(box(), "axial"))


def _run(*processes):
    for process in processes:
        process.start()
    for process in processes:
        process.join(90)
    return [process.exitcode for process in processes]


def test_a_killed_process_leaves_no_entry_and_two_concurrent_ones_leave_one(case, cache):
    processes = get_context("forkserver")  # imports once, and inherits none of this process's open files
    processes.set_forkserver_preload([__name__])
    killed = processes.Process(target=_open_in_subprocess, args=(case, cache, "labels.npy", None))
    assert _run(killed) == [-signal.SIGKILL]
    assert _entries(cache) == []
    assert list((cache / "slices").glob(".tmp-*/images.npy"))  # it was killed halfway

    barrier = processes.Barrier(2)  # both have written their arrays before either finishes
    arguments = (case, cache, "entry.json", barrier)
    together = [processes.Process(target=_open_in_subprocess, args=arguments) for _ in range(2)]
    assert _run(*together) == [0, 0]
    assert len(_entries(cache)) == 1
    with opened_files() as opened:
        stored = open_case(case, SETTINGS, cache)
    assert str(case.images[0]) not in opened
    np.testing.assert_allclose(stored.images[:, 0, :7, :5], to_slices(HU / 100, "axial"), atol=2**-12)


def test_a_content_hash_is_sha256_and_reads_the_file_once(tmp_path):
    path, hashes = tmp_path / "ct.nii.gz", tmp_path / "hashes"
    path.write_bytes(b"voxels")
    with opened_files() as opened:
        assert content_hash(path, hashes) == hashlib.sha256(b"voxels").hexdigest()
    assert str(path) in opened
    with opened_files() as opened:
        assert content_hash(path, hashes) == hashlib.sha256(b"voxels").hexdigest()
    assert str(path) not in opened


def test_a_content_hash_detects_a_change_that_keeps_size_and_modification_time(tmp_path):
    path, hashes = tmp_path / "ct.nii.gz", tmp_path / "hashes"
    path.write_bytes(b"voxels")
    content_hash(path, hashes)
    before = path.stat()
    while path.stat().st_ctime_ns == before.st_ctime_ns:  # file system timestamps have millisecond resolution
        path.write_bytes(b"VOXELS")
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert path.stat().st_mtime_ns == before.st_mtime_ns
    assert content_hash(path, hashes) == hashlib.sha256(b"VOXELS").hexdigest()


@pytest.mark.parametrize("damage", [b"", b"[]", b'{"signature": 1}', b"\xff\x00"])
def test_a_damaged_hash_cache_is_rewritten(tmp_path, damage):
    path, hashes = tmp_path / "ct.nii.gz", tmp_path / "hashes"
    path.write_bytes(b"voxels")
    content_hash(path, hashes)
    (note,) = hashes.iterdir()
    note.write_bytes(damage)
    assert content_hash(path, hashes) == hashlib.sha256(b"voxels").hexdigest()
    assert note.read_bytes() != damage


# Deleted while in use -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kept", [(), ("labels.npy", "entry.json")], ids=["whole cache", "half deleted"])
def test_a_cache_deleted_while_in_use_is_rebuilt(case, cache, caplog, kept):
    stored = open_case(case, SETTINGS, cache)
    before = [np.array(array) for array in (stored.images, stored.labels, stored.reference)]
    (entry,) = _entries(cache)
    for path in entry.iterdir():
        if path.name not in kept:
            path.unlink()
    if not kept:
        shutil.rmtree(cache)
    for array, expected in zip((stored.images, stored.labels, stored.reference), before, strict=True):
        np.testing.assert_array_equal(np.array(array), expected)
    assert "was deleted while it was in use, and is rebuilt" in caplog.text


def test_a_deleted_cache_is_not_rebuilt_from_changed_files(case, cache):
    stored = open_case(case, SETTINGS, cache)
    shutil.rmtree(cache)
    save(case.label, np.roll(box(), 1, axis=2), ras_affine())
    with pytest.raises(InputError, match=r"cache of case 'liver-3' was deleted .*seg\.nii\.gz has changed since"):
        stored.images[0]
    case.label.unlink()
    with pytest.raises(InputError, match=r"cache of case 'liver-3' was deleted .*seg\.nii\.gz: no such file"):
        stored.images[0]


def _read_all(stored):
    return float(np.array(stored.images).sum())


@pytest.mark.slow
def test_several_processes_rebuild_a_deleted_cache_together(case, cache):
    stored = open_case(case, SETTINGS, cache)
    expected = _read_all(stored)
    with ProcessPoolExecutor(4, mp_context=get_context("spawn")) as pool:
        assert list(pool.map(_read_all, [stored] * 4)) == [expected] * 4  # all have started
        shutil.rmtree(cache)
        assert list(pool.map(_read_all, [stored] * 16)) == [expected] * 16
    assert len(_entries(cache)) == 1


# Damaged entries ----------------------------------------------------------------------------------------------------


def _flip(path: Path, keep_time: bool, place: float = 0.9) -> None:
    """Flip one bit of a file, optionally keeping its modification time."""
    before, content = path.stat(), bytearray(path.read_bytes())
    content[int(place * len(content))] ^= 1 << 4
    path.write_bytes(content)
    if keep_time:
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


@pytest.mark.parametrize("name", ["images.npy", "labels.npy", "reference.npy", "entry.json"])
@pytest.mark.parametrize("place", [0.05, 0.5, 0.95])
def test_a_modified_file_of_an_entry_is_detected_and_the_entry_rebuilt(case, cache, caplog, name, place):
    expected = open_case(case, SETTINGS, cache)
    arrays = [np.asarray(array) for array in (expected.images, expected.labels, expected.reference)]
    _flip(expected.images.path.with_name(name), keep_time=False, place=place)
    found = open_case(case, SETTINGS, cache)
    assert "is damaged" in caplog.text
    assert "and is rebuilt" in caplog.text
    for array, before in zip((found.images, found.labels, found.reference), arrays, strict=True):
        np.testing.assert_array_equal(np.asarray(array), before)
    caplog.clear()
    open_case(case, SETTINGS, cache, verify=True)
    assert caplog.text == ""


def test_a_damaged_entry_that_another_process_has_replaced_is_kept(case, cache, monkeypatch):
    """Two jobs find the same damaged entry; the other one is faster, and rebuilds it before this one removes it."""
    expected = open_case(case, SETTINGS, cache)
    _flip(expected.images.path, keep_time=False)
    monkeypatch.setattr(store.log, "warning", _once(lambda: open_case(case, SETTINGS, cache)))
    found = open_case(case, SETTINGS, cache)
    np.testing.assert_array_equal(np.asarray(found.images), np.asarray(open_case(case, SETTINGS, cache).images))
    assert sorted(path.name for path in expected.images.path.parent.parent.iterdir()) == [
        expected.images.path.parent.name
    ]


def _once(act):
    """A function of any arguments that acts at its first call only."""
    calls = []

    def called(*_):
        calls.append(1)
        if len(calls) == 1:
            act()

    return called


def test_silent_disk_corruption_is_found_with_verify(case, cache, caplog):
    entry = open_case(case, SETTINGS, cache)
    _flip(entry.images.path, keep_time=True)
    open_case(case, SETTINGS, cache)
    assert caplog.text == ""
    open_case(case, SETTINGS, cache, verify=True)
    assert "images.npy does not match its checksum" in caplog.text


def test_an_invalid_class_index_never_reaches_the_loss(case, cache):
    entry = open_case(case, SETTINGS, cache)
    labels = entry.labels.path
    content = bytearray(labels.read_bytes())
    content[-1] = 200
    labels.write_bytes(content)
    slices = TrainingSlices([CaseSlices(entry, np.arange(entry.n_slices))], context_slices=0)
    with pytest.raises(
        InputError, match=r"labels\.npy is damaged: it holds the class index 200; verify=true rebuilds it"
    ):
        slices[np.arange(entry.n_slices)]
