"""`load_model(RUN).predict(array, affine)` predicts in memory what `predict` writes for a file with the same voxels."""

from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

from spleen.errors import InputError
from spleen.inference.model import Model, load_model
from spleen.inference.predict import predict
from spleen.inference.settings import PredictSettings
from tests._helpers.nifti import ras_affine, save, stored_as
from tests._helpers.small_run import SPACING_MM, SmallCt
from tests._helpers.trained_runs import TWO_CLASSES, scan, trained, voxels

# Rotated by 11°, -9° and 17°.
OBLIQUE = nib.affines.from_matvec(nib.eulerangles.euler2mat(0.2, -0.15, 0.3), [3, -2, 1]) @ ras_affine(SPACING_MM)


@pytest.fixture(scope="module")
def ct(tmp_path_factory: pytest.TempPathFactory) -> SmallCt:
    return scan(tmp_path_factory)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return trained(tmp_path_factory, "two_classes", *TWO_CLASSES, "split.guard_mm=1")


@pytest.fixture(scope="module")
def model(run: Path) -> Model:
    return load_model(run)


@pytest.mark.parametrize("orientation", ["RAS", "LPS", "SRA", "PIR"])
@pytest.mark.parametrize("dtype", [np.int16, np.float32])
@pytest.mark.parametrize("tta", [False, True])
def test_an_array_gives_the_same_prediction_as_its_file(
    ct: SmallCt, run: Path, model: Model, tmp_path: Path, orientation: str, dtype: type[np.number], tta: bool
) -> None:
    array, affine = stored_as(orientation, ct.hu.astype(dtype), OBLIQUE)
    image = save(tmp_path / "ct.nii.gz", array, affine)
    report = predict(run, image, tmp_path / "mask.nii.gz", PredictSettings(probabilities=True, tta=tta))
    expected, found = nib.load(tmp_path / "mask.nii.gz"), model.predict(array, affine, tta=tta)
    np.testing.assert_array_equal(found.mask, np.asarray(expected.dataobj))
    np.testing.assert_array_equal(found.affine, affine)
    probabilities = voxels(tmp_path / "mask_probabilities.nii.gz")
    np.testing.assert_array_equal(np.moveaxis(found.probabilities, 0, -1), probabilities)
    assert set(np.unique(found.mask)) == {0, 3, 7}  # the label values of the training data
    assert found.class_names == ("dark", "bright")
    assert not np.shares_memory(found.affine, affine)
    voxel_mm3 = SPACING_MM[0] * SPACING_MM[1] * SPACING_MM[2]
    voxel_counts = {name: np.count_nonzero(found.mask == value) for name, value in {"dark": 7, "bright": 3}.items()}
    assert found.volumes_mm3 == pytest.approx(
        {name: voxel_mm3 * count for name, count in voxel_counts.items()}, rel=1e-5
    )
    for in_memory, from_file in zip(found.confidence, report.cases[0].confidence, strict=True):
        assert (in_memory.class_name, in_memory.reasons) == (from_file.class_name, from_file.reasons)
        assert in_memory.confidence_score == pytest.approx(from_file.confidence_score)


def test_a_nibabel_image_uses_its_own_affine(ct: SmallCt, model: Model) -> None:
    array, affine = stored_as("LPS", ct.hu, OBLIQUE)
    in_memory = model.predict(nib.Nifti1Image(array, affine))
    np.testing.assert_array_equal(in_memory.mask, model.predict(array, affine).mask)
    from_file = model.predict(nib.load(ct.image))
    np.testing.assert_array_equal(from_file.mask, model.predict(ct.hu, ras_affine(SPACING_MM)).mask)
    np.testing.assert_array_equal(np.asarray(from_file.to_nibabel().dataobj), from_file.mask)


@pytest.mark.parametrize("scaling", [(None, None), (0.5, -1024)])
def test_an_opened_nibabel_image_gives_the_same_prediction_as_its_file(
    ct: SmallCt, run: Path, model: Model, tmp_path: Path, scaling: tuple[float | None, float | None]
) -> None:
    array, affine = stored_as("LPS", ct.hu.astype(np.int16), ras_affine(SPACING_MM))
    if scaling[0] is not None:
        array = ((array + 1024) * 2).astype(np.int16)
    path = save(tmp_path / "ct.nii.gz", array, affine, *scaling)
    predict(run, path, tmp_path / "mask.nii.gz")
    opened = nib.load(path)
    found = model.predict(opened)
    np.testing.assert_array_equal(found.mask, voxels(tmp_path / "mask.nii.gz"))
    assert np.count_nonzero(found.mask)
    np.testing.assert_array_equal(found.affine, opened.affine)


def test_a_header_in_metres_is_converted_to_mm(ct: SmallCt, model: Model) -> None:
    image = nib.Nifti1Image(ct.hu, np.diag([0.001, 0.001, 0.001, 1]) @ ras_affine(SPACING_MM))
    image.header.set_xyzt_units("meter")
    found, expected = model.predict(image), model.predict(ct.hu, ras_affine(SPACING_MM))
    np.testing.assert_array_equal(found.mask, expected.mask)
    assert found.volumes_mm3 == pytest.approx(expected.volumes_mm3, rel=1e-5)
    np.testing.assert_array_equal(found.affine, image.affine)


def test_settings_have_the_same_effect_as_in_the_command(ct: SmallCt, run: Path, tmp_path: Path) -> None:
    image = save(tmp_path / "ct.nii.gz", ct.hu, ras_affine(SPACING_MM))
    settings: dict[str, Any] = {"keep_largest": ("bright",), "fill_holes": True, "min_volume_mm3": 60.0}
    predict([run, run], image, tmp_path / "mask.nii.gz", PredictSettings(**settings, weights=(1, 3)))
    both = load_model([run, run])
    found = both.predict(ct.hu, ras_affine(SPACING_MM), **settings, weights=[1, 3], probabilities=False)
    np.testing.assert_array_equal(found.mask, voxels(tmp_path / "mask.nii.gz"))
    assert found.probabilities is None
    voxel_mm3 = SPACING_MM[0] * SPACING_MM[1] * SPACING_MM[2]
    voxel_counts = {name: np.count_nonzero(found.mask == value) for name, value in {"dark": 7, "bright": 3}.items()}
    assert found.volumes_mm3 == pytest.approx(
        {name: voxel_mm3 * count for name, count in voxel_counts.items()}, rel=1e-5
    )
    with pytest.raises(InputError, match="keep-largest: no class 'liver'"):
        both.predict(ct.hu, ras_affine(SPACING_MM), keep_largest="liver")


def test_implausible_intensities_give_a_warning(ct: SmallCt, model: Model, caplog: pytest.LogCaptureFixture) -> None:
    found = model.predict(ct.hu + 1100, ras_affine(SPACING_MM))
    assert found.implausible_units is not None
    assert "no voxel is negative" in found.implausible_units
    assert found.implausible_units in caplog.text
    assert model.predict(ct.hu, ras_affine(SPACING_MM)).implausible_units is None


def test_the_array_is_not_modified_and_may_be_read_only_strided_or_byte_swapped(ct: SmallCt, model: Model) -> None:
    affine = ras_affine(SPACING_MM)
    expected = model.predict(ct.hu, affine).mask
    strided = np.repeat(ct.hu, 2, axis=2)[:, :, ::2]
    strided.flags.writeable = False
    np.testing.assert_array_equal(model.predict(strided, affine).mask, expected)
    np.testing.assert_array_equal(strided, ct.hu)
    np.testing.assert_array_equal(model.predict(ct.hu.astype(">f4"), affine).mask, expected)


def test_invalid_images_and_affines_are_reported(ct: SmallCt, model: Model) -> None:
    affine = ras_affine(SPACING_MM)
    with_nan = ct.hu.copy()
    with_nan[0, 0, 0] = np.nan
    invalid: list[tuple[Any, Any, str]] = [
        (ct.hu, None, r"an array needs its affine: predict\(array, affine\)"),
        (nib.Nifti1Image(ct.hu, affine), affine, "a nibabel image has its own affine"),
        (ct.hu[0], affine, r"must be an array \(i, j, k\), or \(c, i, j, k\); got shape \(40, 24\)"),
        (ct.hu, [["a"]], "affine must be a 4 × 4 matrix of numbers"),
        (ct.hu[:, :, :0], affine, r"got shape \(48, 40, 0\)"),
        (np.zeros_like(ct.hu), affine, "the image.*constant"),
        (ct.hu, np.eye(3), r"affine must be a 4 × 4 matrix; got shape \(3, 3\)"),
        (ct.hu, np.zeros((4, 4)), "singular"),
        (np.stack([ct.hu, ct.hu]), affine, r"has 2 channel\(s\), but the run was trained on 1"),
        (with_nan, affine, "1 of 46080 voxels are NaN or Inf"),
        (ct.hu.astype(complex), affine, "intensities must be real numbers"),
    ]
    for image, given_affine, message in invalid:
        with pytest.raises(InputError, match=message):
            model.predict(image, given_affine)


def test_a_model_and_a_prediction_have_a_one_line_repr_and_an_html_table(ct: SmallCt, model: Model) -> None:
    found = model.predict(ct.hu, ras_affine(SPACING_MM))
    assert repr(model) == "Model(two_classes: axial; dark, bright)"
    assert repr(found).startswith("Prediction(48 × 40 × 24 voxels; dark ")
    assert "<td" in model._repr_html_()
    assert "bright" in found._repr_html_()


def test_a_missing_run_is_reported(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such run folder or checkpoint"):
        load_model(tmp_path / "nowhere")
