"""Building the slice store for many cases: in parallel, resumed after a failure, with bad cases reported by name."""

import logging
import os
import time
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from spleen.config.datasets import find_dataset
from spleen.config.preprocessing import build_classes, build_preprocessing
from spleen.data.cases import Case
from spleen.data.store.build import LoadedCases, open_cases
from spleen.errors import InputError
from tests._helpers.many_cases import VOXEL_MM3, ManyCases, many_cases, quick_config, relabel
from tests._helpers.nifti import ras_affine, save
from tests._helpers.small_run import SPACING_MM, small_ct


@pytest.fixture
def data(tmp_path: Path) -> ManyCases:
    return many_cases(tmp_path / "data", 6)


def opened(data: ManyCases, folder: Path, *overrides: str, skip_bad: bool = False) -> LoadedCases:
    config = quick_config(folder, *data.decathlon, *overrides)
    settings = build_preprocessing(config, build_classes(config))
    return open_cases(find_dataset(config).cases, settings, folder / "cache", skip_bad)


def entries(folder: Path) -> dict[str, int]:
    """The entries of the store, with the time at which each was written."""
    return {path.name: path.stat().st_mtime_ns for path in (folder / "cache" / "slices").iterdir()}


def test_cases_keep_their_order_and_match_their_files(data: ManyCases, tmp_path: Path) -> None:
    found = opened(data, tmp_path)
    assert [case.case_id for case in found.cases] == ["c0", "c1", "c2", "c3", "c4", "c5"]
    assert found.skipped == {}
    for number, case in enumerate(found.cases):
        assert case.volumes_mm3 == pytest.approx((24 * (number + 2) * VOXEL_MM3,) * 2)
        assert case.foreground.tolist() == [index < number + 2 for index in range(8)]
        assert case.reference.shape == (8, 20, 24)
    assert len({case.fingerprint for case in found.cases}) == 6


def test_the_same_voxels_have_the_same_fingerprint_however_they_are_stored(data: ManyCases, tmp_path: Path) -> None:
    image = nib.load(data.image("c0"))
    copy = nib.Nifti1Image(np.asarray(image.dataobj), image.affine)
    copy.header["descrip"] = b"exported again"
    nib.save(copy, data.image("c1"))
    assert data.image("c1").read_bytes() != data.image("c0").read_bytes()
    found = opened(data, tmp_path)
    assert found.cases[0].fingerprint == found.cases[1].fingerprint
    assert len({case.fingerprint for case in found.cases}) == 5


def test_finished_entries_are_kept_and_only_missing_ones_are_built(data: ManyCases, tmp_path: Path) -> None:
    content = data.image("c3").read_bytes()
    data.image("c3").write_bytes(content[:200])  # as if the download was cut off
    with pytest.raises(InputError, match="1 of 6 cases cannot be used"):
        opened(data, tmp_path)
    built = entries(tmp_path)
    assert len(built) == 5
    abandoned = tmp_path / "cache" / "slices" / ".tmp-1-aa-abandoned"  # as a killed process leaves it
    abandoned.mkdir()
    data.image("c3").write_bytes(content)
    assert len(opened(data, tmp_path).cases) == 6
    after = entries(tmp_path)
    assert len(after) == 7
    assert {name: after[name] for name in built} == built
    yesterday = time.time() - 25 * 60 * 60  # no live process takes a day to build one case
    os.utime(abandoned, (yesterday, yesterday))
    opened(data, tmp_path)
    assert len(entries(tmp_path)) == 6
    assert not abandoned.exists()


@pytest.mark.parametrize("dtype", [np.int16, np.float32])
def test_swapped_image_and_label_are_detected(tmp_path: Path, dtype: type) -> None:
    ct = small_ct(tmp_path)
    image = save(tmp_path / "ct.nii", ct.hu.astype(dtype), ras_affine(SPACING_MM))
    config = quick_config(tmp_path, "data=nifti", *ct.overrides)
    preprocessing = build_preprocessing(config, build_classes(config))
    case = Case("a", (ct.label,), image)
    with pytest.raises(InputError, match=r"image and label seem to be swapped: .*scan7_organs"):
        open_cases([case], preprocessing, tmp_path / "cache", skip_bad=False)


def test_every_bad_case_is_reported_with_its_reason(data: ManyCases, tmp_path: Path) -> None:
    data.image("c1").write_bytes(b"no image")
    label = nib.load(data.label("c4"))
    nib.save(nib.Nifti1Image(np.asarray(label.dataobj)[:, :-1], label.affine), data.label("c4"))
    with pytest.raises(InputError) as caught:
        opened(data, tmp_path)
    first, one, other, advice = str(caught.value).splitlines()
    assert first == "2 of 6 cases cannot be used:"
    assert one.startswith(f"  c1: {data.image('c1')}")
    assert other.startswith("  c4: ")
    assert "24 × 19 × 8" in other or "(24, 19, 8)" in other, other
    assert advice == "Fix them, or skip them with data.skip_bad=true"


def test_bad_cases_can_be_skipped_and_are_listed(
    data: ManyCases, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    data.image("c1").write_bytes(b"no image")
    with caplog.at_level(logging.WARNING):
        found = opened(data, tmp_path, skip_bad=True)
    assert [case.case_id for case in found.cases] == ["c0", "c2", "c3", "c4", "c5"]
    assert list(found.skipped) == ["c1"]
    assert "1 of 6 cases are skipped (data.skip_bad=true):\n  c1: " in caplog.text


def test_skipping_bad_cases_fails_if_none_is_left(data: ManyCases, tmp_path: Path) -> None:
    for case_id in data.labels:
        data.image(case_id).write_bytes(b"no image")
    with pytest.raises(InputError, match=r"none of the 6 cases can be used:\n  c0, c1, c2, c3, c4, c5: "):
        opened(data, tmp_path, skip_bad=True)


def test_a_problem_shared_by_several_cases_is_reported_once(data: ManyCases, tmp_path: Path) -> None:
    for case_id in ("c1", "c3", "c4"):
        relabel(data, case_id, lambda label: label[:5])
    data.image("c5").write_bytes(b"no image")
    with pytest.raises(InputError) as caught:
        opened(data, tmp_path)
    first, shared, other, _ = str(caught.value).splitlines()
    assert first == "4 of 6 cases cannot be used:"
    assert shared.startswith("  c1, c3, c4: ")
    assert f"{data.root}/labelsTr/*.nii.gz" in shared
    assert other.startswith(f"  c5: {data.image('c5')}")


def test_a_case_id_may_equal_a_label_value(data: ManyCases, tmp_path: Path) -> None:
    for path in [*data.root.glob("*/c*.nii.gz")]:
        path.rename(path.with_name(path.name[1:]))
    config = quick_config(tmp_path, *data.folder)
    settings = build_preprocessing(config, build_classes(config))
    with pytest.raises(InputError) as caught:
        open_cases(find_dataset(config).cases, settings, tmp_path / "cache", skip_bad=False)
    (_, shared) = str(caught.value).splitlines()
    folder = f"{data.root}/labelsTr"
    assert shared.startswith(f"  0, 1, 2, 3, 4, 5: {folder}/*.nii.gz: the label contains the values 1, 2, so ")


def test_only_the_first_of_many_bad_cases_are_listed(tmp_path: Path) -> None:
    data = many_cases(tmp_path / "data", 24)
    for number in range(1, 24):  # each bad for a different reason
        relabel(data, f"c{number}", lambda label, size=number: label[:size])
    with pytest.raises(InputError) as caught:
        opened(data, tmp_path)
    lines = str(caught.value).splitlines()
    assert (len(lines), lines[-2]) == (23, "  … and 3 more")


def test_images_that_cannot_be_ct_cause_one_warning_at_each_start(
    data: ManyCases, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    opened(data, tmp_path)
    assert caplog.text == ""
    for case_id in ("c2", "c4"):
        image = nib.load(data.image(case_id))
        values = np.asarray(image.dataobj)
        nib.save(nib.Nifti1Image(values - values.min(), image.affine), data.image(case_id))
    for _ in range(2):  # built, then found in the store
        caplog.clear()
        opened(data, tmp_path)
        (record,) = caplog.records
        message = record.getMessage()
        assert message.startswith(f"{data.image('c2')}: intensities from 0 to ")
        assert "cannot be Hounsfield units (no voxel is negative" in message
        assert "2 of 6 images" in message
        assert "intensity=mr" in message


def test_an_unexpected_exception_is_not_treated_as_a_bad_case(
    data: ManyCases, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise ZeroDivisionError("a bug")

    monkeypatch.setattr("spleen.data.store.build.open_case", fail)
    with pytest.raises(ZeroDivisionError):
        opened(data, tmp_path, skip_bad=True)
