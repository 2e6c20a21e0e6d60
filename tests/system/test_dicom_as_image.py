"""A DICOM series is accepted wherever an image is, with the same numbers as the NIfTI file of the same volume."""

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from spleen.errors import InputError
from spleen.imaging.files import find_volumes
from spleen.inference.predict import predict
from tests._helpers.dicom import write
from tests._helpers.small_run import SmallCt, rows, train
from tests._helpers.trained_runs import BRIGHT, scan, trained, voxels


@pytest.fixture(scope="module")
def ct(tmp_path_factory: pytest.TempPathFactory) -> SmallCt:
    """The small CT in whole HU, as DICOM stores it."""
    folder = tmp_path_factory.mktemp("whole_hu")
    given = scan(tmp_path_factory)
    hu = np.rint(given.hu).clip(-1000).astype(np.int16)
    affine = nib.load(given.image).affine
    nib.save(nib.Nifti1Image(hu, affine), folder / "scan7.nii.gz")
    write(folder / "scan7", hu, affine)
    return SmallCt(folder / "scan7.nii.gz", given.label, hu, given.values)


def series(ct: SmallCt) -> Path:
    return ct.image.with_name("scan7")


def test_a_training_on_a_series_has_the_numbers_of_its_nifti(ct: SmallCt, tmp_path: Path) -> None:
    results = []
    for image in (ct.image, series(ct)):
        overrides = f"data.image={image}", f"data.label={ct.label}", *BRIGHT, "epochs=1"
        results.append(rows(train(tmp_path / image.name, *overrides) / "cases.csv"))
    assert results[0] == results[1]
    assert results[0][0]["case_id"] == "scan7"


def test_a_prediction_of_a_series_is_that_of_its_nifti(
    ct: SmallCt, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    run = trained(tmp_path_factory, "axial", *BRIGHT, "axis=axial", "split.guard_mm=1")
    for image in (ct.image, series(ct)):
        predict(run, image, tmp_path / f"{image.name}.mask.nii.gz")
    expected = nib.load(tmp_path / "scan7.nii.gz.mask.nii.gz")
    found = nib.load(tmp_path / "scan7.mask.nii.gz")
    assert np.count_nonzero(voxels(tmp_path / "scan7.mask.nii.gz")) > 1000
    np.testing.assert_array_equal(
        np.asarray(nib.as_closest_canonical(found).dataobj), np.asarray(nib.as_closest_canonical(expected).dataobj)
    )
    np.testing.assert_allclose(
        nib.as_closest_canonical(found).affine, nib.as_closest_canonical(expected).affine, atol=1e-5
    )


@pytest.mark.slow
def test_folders_of_series_pair_with_labels_and_stand_in_tables(ct: SmallCt, tmp_path: Path) -> None:
    (tmp_path / "labels").mkdir()
    lines = ["image,label"]
    for number, name in enumerate("abcdef"):
        write(tmp_path / "images" / name, ct.hu + np.int16(number), nib.load(ct.image).affine, seed=name)
        label = tmp_path / "labels" / f"{name}.nii.gz"
        label.write_bytes(ct.label.read_bytes())
        lines.append(f"images/{name},labels/{name}.nii.gz")
    (tmp_path / "cases.csv").write_text("\n".join(lines))
    assert [path.name for path in find_volumes([tmp_path / "images"])] == list("abcdef")
    (tmp_path / "labels" / "raw").mkdir()  # beside NIfTI files, folders of DICOM are none of the cases
    write(tmp_path / "labels" / "raw" / "series", ct.hu)
    common = "data.label_values={organ: [3, 4]}", "epochs=1", "split.val_fraction=0.2", "split.test_fraction=0.2"
    folders = f"data.images={tmp_path / 'images'}", f"data.labels={tmp_path / 'labels'}"
    scored = [
        rows(train(tmp_path / data, f"data={data}", *places, *common) / "cases.csv")
        for data, places in (("folder", folders), ("table", (f"data.table={tmp_path / 'cases.csv'}",)))
    ]
    assert scored[0] == scored[1]
    assert {row["case_id"] for row in scored[0]} <= set("abcdef")


def test_uneven_slices_are_predicted_one_by_one_and_never_across(
    ct: SmallCt, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    uneven = write(tmp_path / "uneven", ct.hu, nib.load(ct.image).affine, places=[*range(12), *np.arange(12, 24) * 1.3])
    coronal = trained(tmp_path_factory, "coronal", *BRIGHT, "axis=coronal", "split.guard_mm=1")
    report = predict(coronal, uneven, tmp_path / "mask.nii.gz")
    assert "axial slices are unevenly spaced, and coronal would look across them" in report.failures[0].reason
    axial = trained(tmp_path_factory, "axial", *BRIGHT, "axis=axial", "split.guard_mm=1")
    report = predict(axial, uneven, tmp_path / "mask.nii.gz")
    assert "unevenly spaced, which no regular grid can hold" in report.failures[0].reason
    assert not list(tmp_path.glob("mask*"))
    with pytest.raises(InputError, match="unevenly spaced"):
        train(tmp_path, f"data.image={uneven}", f"data.label={ct.label}", *BRIGHT, "epochs=1")
