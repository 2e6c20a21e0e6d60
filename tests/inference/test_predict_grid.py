"""A prediction is on the grid of its image, whatever that grid is, and is the one that the training scored."""

import json
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import nibabel as nib
import numpy as np
import pytest

from spleen.inference.predict import PredictSettings, predict
from tests._helpers.forged_checkpoints import forge_spec
from tests._helpers.nifti import ORIENTATIONS, ras_affine, save, save_stored_as, stored_as
from tests._helpers.small_run import SPACING_MM, SmallCt, rows
from tests._helpers.trained_runs import TWO_CLASSES, scan, three_views, trained, voxels

# By 11°, -9° and 17°.
OBLIQUE = ras_affine(SPACING_MM) @ nib.affines.from_matvec(nib.eulerangles.euler2mat(0.2, -0.15, 0.3), [3, -2, 1])
AFFINES = {"straight": ras_affine(SPACING_MM), "oblique": OBLIQUE}


@pytest.fixture(scope="module")
def ct(tmp_path_factory: pytest.TempPathFactory) -> SmallCt:
    return scan(tmp_path_factory)


@pytest.fixture(scope="module")
def views(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return three_views(tmp_path_factory)


def predicted(run: Path | list[Path], image: Path, **settings: Any) -> nib.Nifti1Image:
    """The mask of one image, in a folder of its own."""
    mask = Path(mkdtemp(dir=image.parent)) / "mask.nii.gz"
    report = predict(run, image, mask, PredictSettings(**settings))
    assert report.failures == ()
    return nib.load(mask)


def shares_beside(mask: nib.Nifti1Image) -> nib.Nifti1Image:
    """The probabilities that were written with a mask."""
    return nib.load(Path(mask.get_filename()).with_name("mask_probabilities.nii.gz"))


# Orientation --------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module", params=list(AFFINES))
def turned(
    request: pytest.FixtureRequest, ct: SmallCt, views: list[Path], tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, np.ndarray, np.ndarray]:
    """Predictions of the same voxels stored in all 48 ways; the RAS one; the affine."""
    folder, affine = tmp_path_factory.mktemp("turned"), AFFINES[request.param]
    for orientation in ORIENTATIONS:
        save_stored_as(folder / f"{orientation}.nii", orientation, ct.hu, affine)
    report = predict(views[0], folder, folder / "masks")
    assert len(report.cases) == len(ORIENTATIONS)
    mask = voxels(folder / "masks" / "RAS.nii.gz")
    assert 1000 < np.count_nonzero(mask) < 6000  # the organ fills 2,800 voxels
    return folder, mask, affine


@pytest.mark.parametrize("orientation", ORIENTATIONS)
def test_the_mask_of_a_turned_file_is_the_turned_mask(
    turned: tuple[Path, np.ndarray, np.ndarray], orientation: str
) -> None:
    folder, mask, affine = turned
    found = nib.load(folder / "masks" / f"{orientation}.nii.gz")
    expected, expected_affine = stored_as(orientation, mask, affine)
    np.testing.assert_array_equal(np.asarray(found.dataobj), expected)
    np.testing.assert_allclose(found.affine, expected_affine, atol=1e-4)
    np.testing.assert_array_equal(found.affine, nib.load(folder / f"{orientation}.nii").affine)


@pytest.mark.parametrize("orientation", ["LPS", "SRA", "IAL", "PIR"])
@pytest.mark.parametrize("affine", AFFINES.values(), ids=list(AFFINES))
def test_so_is_that_of_three_views_with_shifts_and_flips(
    ct: SmallCt, views: list[Path], tmp_path: Path, orientation: str, affine: np.ndarray
) -> None:
    settings = {"tta": True, "flips": ("left_right", "superior_inferior"), "probabilities": True}
    straight = predicted(views, save(tmp_path / "ras.nii", ct.hu, affine), **settings)
    found = predicted(views, save_stored_as(tmp_path / "turned.nii", orientation, ct.hu, affine), **settings)
    expected, _ = stored_as(orientation, np.asarray(straight.dataobj), affine)
    np.testing.assert_array_equal(np.asarray(found.dataobj), expected)
    assert expected.any()


# The header ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("codes", [(1, 0), (0, 1), (2, 1), (0, 0)], ids=lambda codes: "s{} q{}".format(*codes))
@pytest.mark.parametrize("unit", ["mm", "micron", "unknown"])
def test_codes_units_and_shape_are_those_of_the_image(
    ct: SmallCt, views: list[Path], tmp_path: Path, codes: tuple[int, int], unit: str
) -> None:
    """The micrometres are the same scan: its numbers are a thousand times as large."""
    scale = np.diag([1000.0] * 3 + [1]) if unit == "micron" else np.eye(4)
    image = nib.Nifti1Image(ct.hu[..., None], None)
    image.set_qform(scale @ AFFINES["straight"], codes[1])
    image.set_sform(scale @ AFFINES["straight"], codes[0])
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
    if codes != (0, 0):  # else the header does not say which way the patient lies
        alone = predicted(views[0], ct.image)
        np.testing.assert_array_equal(np.asarray(mask.dataobj)[..., 0], np.asarray(alone.dataobj))


@pytest.mark.parametrize("name", ["ct.nii", "ct.nii.gz", "ct.img", "ct2.nii"])
def test_every_kind_of_nifti_file_gives_the_same_mask(
    ct: SmallCt, views: list[Path], tmp_path: Path, name: str
) -> None:
    kind = {"ct.img": nib.Nifti1Pair, "ct2.nii": nib.Nifti2Image}.get(name, nib.Nifti1Image)
    nib.save(kind(ct.hu, AFFINES["straight"]), tmp_path / name)
    mask = predicted(views[0], tmp_path / name)
    np.testing.assert_array_equal(np.asarray(mask.dataobj), np.asarray(predicted(views[0], ct.image).dataobj))
    assert isinstance(mask, nib.Nifti2Image) == (name == "ct2.nii")


@pytest.mark.parametrize("intensity", ["ct", "mr", "zscore"])
def test_scaled_integers_are_predicted_as_the_intensities_that_they_stand_for(
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
    scaled = save(tmp_path / "scaled.nii.gz", stored, AFFINES["straight"], slope=0.25, inter=-1024)
    floats = save(tmp_path / "floats.nii.gz", (stored * 0.25 - 1024).astype(np.float32), AFFINES["straight"])
    integers = save(tmp_path / "int.nii.gz", np.rint(ct.hu).astype(np.int16), AFFINES["straight"])
    rounded = save(tmp_path / "rounded.nii.gz", np.rint(ct.hu).astype(np.float32), AFFINES["straight"])
    for first, second in ((scaled, floats), (integers, rounded)):
        masks = [predicted(run, image, probabilities=True) for image in (first, second)]
        shares = [np.asarray(shares_beside(mask).dataobj) for mask in masks]
        np.testing.assert_allclose(*shares, atol=1e-5)
        assert np.ptp(shares[0]) > 0.1


# Values -------------------------------------------------------------------------------------------------------------


def test_a_class_of_several_values_gets_the_first_of_them(ct: SmallCt, views: list[Path]) -> None:
    assert np.unique(predicted(views[0], ct.image).dataobj).tolist() == [0, 3]


@pytest.mark.parametrize(
    ("value", "dtype"), [(1, np.uint8), (255, np.uint8), (300, np.uint16), (70_000, np.uint32), (-5, np.int32)]
)
def test_the_smallest_type_that_holds_the_values_is_written(
    ct: SmallCt, views: list[Path], tmp_path: Path, value: int, dtype: type[np.integer]
) -> None:
    def change(spec: dict[str, Any]) -> None:
        spec["classes"][0]["label_values"] = [value, 2]

    mask = predicted(forge_spec(views[0], tmp_path / "run.ckpt", change), ct.image)
    assert mask.get_data_dtype() == dtype
    assert sorted(np.unique(mask.dataobj).tolist()) == sorted([0, value])


def test_probabilities_lie_on_the_same_grid_and_decide_the_mask(ct: SmallCt, views: list[Path], tmp_path: Path) -> None:
    image = save_stored_as(tmp_path / "ct.nii.gz", "PIR", ct.hu, OBLIQUE)
    mask = predicted(views[0], image, probabilities=True)
    shares = shares_beside(mask)
    assert (shares.get_data_dtype(), shares.shape) == (np.float32, mask.shape)
    np.testing.assert_array_equal(shares.affine, mask.affine)
    values = np.asarray(shares.dataobj)
    np.testing.assert_array_equal(values > 0.5, np.asarray(mask.dataobj) == 3)
    assert 0 <= values.min() < 0.1 < 0.9 < values.max() <= 1


def test_several_classes_are_the_fourth_dimension(
    ct: SmallCt, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    settings = (*TWO_CLASSES, "axis=coronal", "context_slices=1", "resize=stretch")
    run = trained(tmp_path_factory, "two_classes", *settings)
    image = save_stored_as(tmp_path / "ct.nii.gz", "LAS", ct.hu, AFFINES["straight"])
    mask = predicted(run, image, probabilities=True)
    shares = np.asarray(shares_beside(mask).dataobj)
    assert shares.shape == (*ct.hu.shape, 2)
    background = 1 - shares.sum(-1, keepdims=True)
    likeliest = np.concatenate([background, shares], axis=-1).argmax(-1)
    np.testing.assert_array_equal(np.asarray(mask.dataobj), np.array([0, 7, 3])[likeliest])
    assert set(np.unique(mask.dataobj)) == {0, 3, 7}


# The same network as in training ------------------------------------------------------------------------------------


@pytest.mark.parametrize("axis", ["axial", "coronal", "sagittal", "two classes"])
def test_the_mask_is_the_one_that_the_training_scored(
    ct: SmallCt, views: list[Path], tmp_path_factory: pytest.TempPathFactory, axis: str
) -> None:
    run = {view.name: view for view in views}.get(axis)
    if run is None:
        settings = (*TWO_CLASSES, "axis=coronal", "context_slices=1", "resize=stretch")
        run = trained(tmp_path_factory, "two_classes", *settings)
    along = {"axial": 2, "coronal": 1, "sagittal": 0}.get(axis, 1)
    mask = np.asarray(predicted(run, ct.image, precision="32").dataobj)
    (split,) = json.loads((run / "split.json").read_text())["cases"].values()
    scores = rows(run / "cases.csv")
    assert len(scores) == (4 if axis == "two classes" else 2)
    for row in scores:
        values = [7] if row["class_name"] == "dark" else [3, 4]
        here = np.take(mask, split[row["split"]], along) == values[0]
        reference = np.isin(np.take(ct.values, split[row["split"]], along), values)
        dice = 2 * np.count_nonzero(here & reference) / (np.count_nonzero(here) + np.count_nonzero(reference))
        assert dice == pytest.approx(float(row["dice"]), abs=1e-9)
