"""A prediction lies on the grid of its image, whatever that grid is, and has the Dice that training reported."""

import json
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import nibabel as nib
import numpy as np
import pytest

from spleen.inference.predict import predict
from spleen.inference.settings import PredictSettings
from tests._helpers.forged_checkpoints import forge_spec
from tests._helpers.nifti import ORIENTATIONS, ras_affine, save, save_stored_as, stored_as
from tests._helpers.small_run import SPACING_MM, SmallCt, rows
from tests._helpers.trained_runs import TWO_CLASSES, scan, three_views, trained, voxels

pytestmark = pytest.mark.slow

# Rotated by 11°, -9° and 17°.
OBLIQUE = ras_affine(SPACING_MM) @ nib.affines.from_matvec(nib.eulerangles.euler2mat(0.2, -0.15, 0.3), [3, -2, 1])
AFFINES = {"axis-aligned": ras_affine(SPACING_MM), "oblique": OBLIQUE}


@pytest.fixture(scope="module")
def ct(tmp_path_factory: pytest.TempPathFactory) -> SmallCt:
    return scan(tmp_path_factory)


@pytest.fixture(scope="module")
def views(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return three_views(tmp_path_factory)


def predicted(run: Path | list[Path], image: Path, **settings: Any) -> nib.Nifti1Image:
    """The predicted mask of one image, written to a new folder."""
    mask = Path(mkdtemp(dir=image.parent)) / "mask.nii.gz"
    report = predict(run, image, mask, PredictSettings(**settings))
    assert report.failures == ()
    return nib.load(mask)


def probabilities_beside(mask: nib.Nifti1Image) -> nib.Nifti1Image:
    """The probabilities written beside a mask."""
    return nib.load(Path(mask.get_filename()).with_name("mask_probabilities.nii.gz"))


# Orientation --------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module", params=list(AFFINES))
def reoriented(
    request: pytest.FixtureRequest, ct: SmallCt, views: list[Path], tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, np.ndarray, np.ndarray]:
    """A folder with predictions of one volume in all 48 orientations; the mask and the affine in RAS."""
    folder, affine = tmp_path_factory.mktemp("reoriented"), AFFINES[request.param]
    for orientation in ORIENTATIONS:
        save_stored_as(folder / f"{orientation}.nii", orientation, ct.hu, affine)
    report = predict(views[0], folder, folder / "masks")
    assert len(report.cases) == len(ORIENTATIONS)
    mask = voxels(folder / "masks" / "RAS.nii.gz")
    assert (
        1000 < np.count_nonzero(mask) < mask.size / 2
    )  # the organ fills 2,800 voxels; how well it is found does not matter
    return folder, mask, affine


@pytest.mark.parametrize("orientation", ORIENTATIONS)
def test_the_mask_of_a_reoriented_image_is_the_reoriented_mask(
    reoriented: tuple[Path, np.ndarray, np.ndarray], orientation: str
) -> None:
    folder, mask, affine = reoriented
    found = nib.load(folder / "masks" / f"{orientation}.nii.gz")
    expected, expected_affine = stored_as(orientation, mask, affine)
    np.testing.assert_array_equal(np.asarray(found.dataobj), expected)
    np.testing.assert_allclose(found.affine, expected_affine, atol=1e-4)
    np.testing.assert_array_equal(found.affine, nib.load(folder / f"{orientation}.nii").affine)


@pytest.mark.parametrize("orientation", ["LPS", "SRA", "IAL", "PIR"])
@pytest.mark.parametrize("affine", AFFINES.values(), ids=list(AFFINES))
def test_an_ensemble_with_shifts_and_flips_predicts_the_reoriented_mask(
    ct: SmallCt, views: list[Path], tmp_path: Path, orientation: str, affine: np.ndarray
) -> None:
    settings = {"tta": True, "flips": ("left_right", "superior_inferior"), "probabilities": True}
    ras = predicted(views, save(tmp_path / "ras.nii", ct.hu, affine), **settings)
    found = predicted(views, save_stored_as(tmp_path / "reoriented.nii", orientation, ct.hu, affine), **settings)
    expected, _ = stored_as(orientation, np.asarray(ras.dataobj), affine)
    np.testing.assert_array_equal(np.asarray(found.dataobj), expected)
    assert expected.any()


# The header ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("codes", [(1, 0), (0, 1), (2, 1), (0, 0)], ids=lambda codes: "s{} q{}".format(*codes))
@pytest.mark.parametrize("unit", ["mm", "micron", "unknown"])
def test_the_mask_keeps_the_form_codes_units_and_shape_of_its_image(
    ct: SmallCt, views: list[Path], tmp_path: Path, codes: tuple[int, int], unit: str
) -> None:
    """In micrometres the scan is the same, with an affine a thousand times as large."""
    scale = np.diag([1000.0] * 3 + [1]) if unit == "micron" else np.eye(4)
    image = nib.Nifti1Image(ct.hu[..., None], None)
    image.set_qform(scale @ AFFINES["axis-aligned"], codes[1])
    image.set_sform(scale @ AFFINES["axis-aligned"], codes[0])
    image.header.set_xyzt_units(unit, "sec")
    nib.save(image, tmp_path / "ct.nii.gz")
    mask = predicted(views[0], tmp_path / "ct.nii.gz")
    assert mask.get_data_dtype() == np.uint8
    assert mask.shape == (*ct.hu.shape, 1)
    assert (int(mask.header["sform_code"]), int(mask.header["qform_code"])) == codes
    assert mask.header.get_xyzt_units() == (unit, "sec")
    for name in ("pixdim", "srow_x", "srow_y", "srow_z", "quatern_b", "qoffset_x"):
        np.testing.assert_array_equal(mask.header[name], image.header[name])
    np.testing.assert_array_equal(mask.affine, nib.load(tmp_path / "ct.nii.gz").affine)
    if codes != (0, 0):  # otherwise the header does not define the orientation
        alone = predicted(views[0], ct.image)
        np.testing.assert_array_equal(np.asarray(mask.dataobj)[..., 0], np.asarray(alone.dataobj))


@pytest.mark.parametrize("name", ["ct.nii", "ct.nii.gz", "ct.img", "ct2.nii"])
def test_every_nifti_format_gives_the_same_mask(ct: SmallCt, views: list[Path], tmp_path: Path, name: str) -> None:
    kind = {"ct.img": nib.Nifti1Pair, "ct2.nii": nib.Nifti2Image}.get(name, nib.Nifti1Image)
    nib.save(kind(ct.hu, AFFINES["axis-aligned"]), tmp_path / name)
    mask = predicted(views[0], tmp_path / name)
    np.testing.assert_array_equal(np.asarray(mask.dataobj), np.asarray(predicted(views[0], ct.image).dataobj))
    assert isinstance(mask, nib.Nifti2Image) == (name == "ct2.nii")


@pytest.mark.parametrize("intensity", ["ct", "mr", "zscore"])
def test_scaled_integers_give_the_same_prediction_as_equal_floats(
    ct: SmallCt, views: list[Path], tmp_path: Path, intensity: str
) -> None:
    def change(spec: dict[str, Any]) -> None:
        kinds = {
            "ct": {"window_level": 50.0, "window_width": 400.0},
            "mr": {"low_percentile": 1.0, "high_percentile": 99.0},
            "zscore": {"clip": 5.0},
        }
        spec["intensity"] = {"kind": intensity, **kinds[intensity]}

    run = forge_spec(views[0], tmp_path / "run.ckpt", change)
    stored = np.rint((ct.hu + 1024) * 4).astype(np.uint16)
    scaled = save(tmp_path / "scaled.nii.gz", stored, AFFINES["axis-aligned"], slope=0.25, inter=-1024)
    floats = save(tmp_path / "floats.nii.gz", (stored * 0.25 - 1024).astype(np.float32), AFFINES["axis-aligned"])
    integers = save(tmp_path / "int.nii.gz", np.rint(ct.hu).astype(np.int16), AFFINES["axis-aligned"])
    rounded = save(tmp_path / "rounded.nii.gz", np.rint(ct.hu).astype(np.float32), AFFINES["axis-aligned"])
    for first, second in ((scaled, floats), (integers, rounded)):
        masks = [predicted(run, image, probabilities=True) for image in (first, second)]
        probabilities = [np.asarray(probabilities_beside(mask).dataobj) for mask in masks]
        np.testing.assert_allclose(*probabilities, atol=1e-5)
        assert np.ptp(probabilities[0]) > 0.1


# Mask values --------------------------------------------------------------------------------------------------------


def test_a_class_with_several_label_values_is_written_as_the_first(ct: SmallCt, views: list[Path]) -> None:
    assert np.unique(predicted(views[0], ct.image).dataobj).tolist() == [0, 3]


@pytest.mark.parametrize(
    ("value", "dtype"), [(1, np.uint8), (255, np.uint8), (300, np.uint16), (70_000, np.uint32), (-5, np.int32)]
)
def test_the_mask_has_the_smallest_dtype_that_holds_its_values(
    ct: SmallCt, views: list[Path], tmp_path: Path, value: int, dtype: type[np.integer]
) -> None:
    def change(spec: dict[str, Any]) -> None:
        spec["classes"][0]["label_values"] = [value, 2]

    mask = predicted(forge_spec(views[0], tmp_path / "run.ckpt", change), ct.image)
    assert mask.get_data_dtype() == dtype
    assert sorted(np.unique(mask.dataobj).tolist()) == sorted([0, value])


def test_probabilities_lie_on_the_grid_of_the_mask_and_determine_it(
    ct: SmallCt, views: list[Path], tmp_path: Path
) -> None:
    image = save_stored_as(tmp_path / "ct.nii.gz", "PIR", ct.hu, OBLIQUE)
    mask = predicted(views[0], image, probabilities=True)
    probabilities = probabilities_beside(mask)
    assert (probabilities.get_data_dtype(), probabilities.shape) == (np.float32, mask.shape)
    np.testing.assert_array_equal(probabilities.affine, mask.affine)
    values = np.asarray(probabilities.dataobj)
    np.testing.assert_array_equal(values > 0.5, np.asarray(mask.dataobj) == 3)
    assert 0 <= values.min() < 0.1 < 0.9 < values.max() <= 1


def test_probabilities_of_several_classes_form_a_fourth_dimension(
    ct: SmallCt, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    settings = (*TWO_CLASSES, "axis=coronal", "context_slices=1", "resize=stretch")
    run = trained(tmp_path_factory, "two_classes", *settings)
    image = save_stored_as(tmp_path / "ct.nii.gz", "LAS", ct.hu, AFFINES["axis-aligned"])
    mask = predicted(run, image, probabilities=True)
    probabilities = np.asarray(probabilities_beside(mask).dataobj)
    assert probabilities.shape == (*ct.hu.shape, 2)
    background = 1 - probabilities.sum(-1, keepdims=True)
    likeliest = np.concatenate([background, probabilities], axis=-1).argmax(-1)
    np.testing.assert_array_equal(np.asarray(mask.dataobj), np.array([0, 7, 3])[likeliest])
    assert set(np.unique(mask.dataobj)) == {0, 3, 7}


# Agreement with training --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("axis", ["axial", "coronal", "sagittal", "two classes"])
def test_the_predicted_mask_has_the_dice_that_training_reported(
    ct: SmallCt, views: list[Path], tmp_path_factory: pytest.TempPathFactory, axis: str
) -> None:
    run = {view.name: view for view in views}.get(axis)
    if run is None:
        settings = (*TWO_CLASSES, "axis=coronal", "context_slices=1", "resize=stretch")
        run = trained(tmp_path_factory, "two_classes", *settings)
    array_axis = {"axial": 2, "coronal": 1, "sagittal": 0}.get(axis, 1)
    mask = np.asarray(predicted(run, ct.image, precision="32").dataobj)
    (split,) = json.loads((run / "split.json").read_text())["cases"].values()
    scores = rows(run / "cases.csv")
    assert len(scores) == (4 if axis == "two classes" else 2)
    for row in scores:
        values = [7] if row["class_name"] == "dark" else [3, 4]
        prediction = np.take(mask, split[row["split"]], array_axis) == values[0]
        reference = np.isin(np.take(ct.values, split[row["split"]], array_axis), values)
        dice = (
            2 * np.count_nonzero(prediction & reference) / (np.count_nonzero(prediction) + np.count_nonzero(reference))
        )
        assert dice == pytest.approx(float(row["dice"]), abs=1e-9)
