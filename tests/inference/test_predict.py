"""`spleen.inference.predict.predict` as a function: what it writes, what it reports, and what it refuses."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy import ndimage

from spleen.errors import InputError
from spleen.inference.calibration.applies import NOT_CALIBRATED
from spleen.inference.loading import load_ensemble, load_trained
from spleen.inference.predict import PredictionReport, predict
from spleen.inference.record import read_record
from spleen.inference.settings import PredictSettings
from spleen.inference.views.build import make_views
from spleen.inference.views.tta import Variant
from spleen.system.hardware import choose_hardware
from tests._helpers.forged_checkpoints import forge_spec
from tests._helpers.nifti import ras_affine, save, save_stored_as
from tests._helpers.small_run import SPACING_MM, SmallCt
from tests._helpers.trained_runs import file_names, scan, three_views, voxels

AFFINE = ras_affine(SPACING_MM)


@pytest.fixture(scope="module")
def ct(tmp_path_factory: pytest.TempPathFactory) -> SmallCt:
    return scan(tmp_path_factory)


@pytest.fixture(scope="module")
def views(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return three_views(tmp_path_factory)


@pytest.fixture(scope="module")
def single_view_probabilities(
    ct: SmallCt, views: list[Path], tmp_path_factory: pytest.TempPathFactory
) -> list[np.ndarray]:
    """The probabilities predicted by each view alone."""
    folder = tmp_path_factory.mktemp("alone")
    for view in views:
        predict(view, ct.image, folder / f"{view.name}.nii", PredictSettings(probabilities=True, precision="32"))
    return [voxels(folder / f"{view.name}_probabilities.nii.gz") for view in views]


# Outputs ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("weights", "expected"), [(None, (1 / 3, 1 / 3, 1 / 3)), ((2, 1, 1), (0.5, 0.25, 0.25)), ((0, 0.5, 0), (0, 1, 0))]
)
def test_runs_are_averaged_with_their_weights(
    ct: SmallCt,
    views: list[Path],
    single_view_probabilities: list[np.ndarray],
    tmp_path: Path,
    weights: tuple[float, ...] | None,
    expected: tuple[float, ...],
) -> None:
    settings = PredictSettings(weights=weights, probabilities=True, precision="32")
    predict(views, ct.image, tmp_path / "mask.nii.gz", settings)
    fused = np.tensordot(expected, single_view_probabilities, axes=1)
    np.testing.assert_allclose(voxels(tmp_path / "mask_probabilities.nii.gz"), fused, atol=1e-6)
    clear = np.abs(fused - 0.5) > 1e-5
    np.testing.assert_array_equal(voxels(tmp_path / "mask.nii.gz")[clear] == 3, (fused > 0.5)[clear])


def test_a_folder_of_runs_predicts_with_all_of_them(ct: SmallCt, views: list[Path], tmp_path: Path) -> None:
    (tmp_path / "study").mkdir()
    for view in views:
        (tmp_path / "study" / view.name).symlink_to(view)
    predict(tmp_path / "study", ct.image, tmp_path / "a.nii.gz")
    predict(views, ct.image, tmp_path / "b.nii.gz")
    np.testing.assert_array_equal(voxels(tmp_path / "a.nii.gz"), voxels(tmp_path / "b.nii.gz"))


def test_test_time_augmentation_adds_shifted_slices(ct: SmallCt, views: list[Path], tmp_path: Path) -> None:
    settings = PredictSettings(tta=True, probabilities=True, precision="32")
    report = predict(views[0], ct.image, tmp_path / "mask.nii", settings)
    (view,) = make_views(load_ensemble([views[0]]), settings)
    assert view.variants == (Variant(), *(Variant(shift=shift) for shift in ((3, 0), (-3, 0), (0, 3), (0, -3))))
    (score,) = report.cases[0].confidence
    assert 0.8 < score.agreement < 1
    predict(views[0], ct.image, tmp_path / "plain.nii", PredictSettings(probabilities=True, precision="32"))
    with_tta, without = (voxels(tmp_path / f"{name}_probabilities.nii.gz") for name in ("mask", "plain"))
    assert 0.001 < np.abs(with_tta - without).mean() < 0.05


def test_post_processing_changes_the_mask_but_not_the_confidence_score(
    ct: SmallCt, views: list[Path], tmp_path: Path
) -> None:
    """The organ and a smaller copy in a volume twice as wide; SciPy counts the components."""
    hu = np.concatenate([ct.hu, np.where(np.indices(ct.hu.shape)[2] < 10, ct.hu, -1000)]).astype(np.float32)
    image = save(tmp_path / "two.nii.gz", hu, AFFINE)
    plain = predict(views[0], image, tmp_path / "plain.nii.gz")
    cleaned = predict(views[0], image, tmp_path / "cleaned.nii.gz", PredictSettings(keep_largest=("bright",)))
    every = predict(views[0], image, tmp_path / "every.nii.gz", PredictSettings(keep_largest=("all",), fill_holes=True))
    components, n_components = ndimage.label(voxels(tmp_path / "plain.nii.gz"), np.ones((3, 3, 3)))
    assert n_components > 1
    largest = np.bincount(components.ravel())[1:].argmax() + 1
    np.testing.assert_array_equal(voxels(tmp_path / "cleaned.nii.gz") == 3, components == largest)
    filled = ndimage.binary_fill_holes(components == largest)
    np.testing.assert_array_equal(voxels(tmp_path / "every.nii.gz") == 3, filled)
    # Compared as text, since NaN != NaN.
    assert str(plain.cases[0].confidence) == str(cleaned.cases[0].confidence) == str(every.cases[0].confidence)
    (score,) = plain.cases[0].confidence
    assert score.n_components == n_components
    assert score.volume_mm3 == pytest.approx(np.count_nonzero(components) * math.prod(SPACING_MM))
    smallest = np.bincount(components.ravel())[1:].min() * math.prod(SPACING_MM)
    settings = PredictSettings(min_volume_mm3=smallest + 1)
    predict(views[0], image, tmp_path / "large.nii.gz", settings)
    _, n_left = ndimage.label(voxels(tmp_path / "large.nii.gz"), np.ones((3, 3, 3)))
    assert n_left < n_components


def test_each_image_gives_one_mask_and_one_row(ct: SmallCt, views: list[Path], tmp_path: Path) -> None:
    for name in ("b", "a", "c"):
        save(tmp_path / f"{name}.nii", ct.hu, AFFINE)
    progress: list[tuple[str, int, int]] = []
    inputs = [tmp_path / "c.nii", str(tmp_path / "[ab].nii")]
    report = predict(str(views[0]), inputs, str(tmp_path / "out"), advance=lambda *step: progress.append(step))
    assert [case.case_id for case in report.cases] == ["c", "a", "b"]
    assert file_names(tmp_path / "out") == {"a.nii.gz", "b.nii.gz", "c.nii.gz", "predictions.csv"}
    assert [row["case_id"] for row in read_record(tmp_path / "out" / "predictions.csv")] == ["c", "a", "b"]
    assert (report.slices, report.kept, report.failures) == (3 * 24, 0, ())
    assert report.seconds > 0
    assert {total for _, _, total in progress} == {24}
    assert sum(done for name, done, _ in progress if name == "a") == 24


def test_without_an_output_the_mask_is_written_to_the_current_folder(
    ct: SmallCt, views: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (case,) = predict(views[0], ct.image).cases
    assert case.mask == Path("out.nii.gz")
    assert file_names(tmp_path) == {"out.nii.gz", "predictions.csv"}


def test_predicted_volumes_are_compared_with_the_training_volumes(
    ct: SmallCt, views: list[Path], tmp_path: Path
) -> None:
    """The whole organ has 2,797 voxels; the first 3 slices have far less than half of it, whatever a network adds."""
    part = save(tmp_path / "part.nii", np.where(np.indices(ct.hu.shape)[2] < 3, ct.hu, -1000), AFFINE)
    (whole,), (partial,) = (predict(views[0], image, tmp_path / "mask.nii.gz", PredictSettings(overwrite=True)).cases
                         for image in (ct.image, part))  # fmt: skip
    organ_mm3 = np.isin(ct.values, [3, 4]).sum() * math.prod(SPACING_MM)
    assert whole.confidence[0].volume_to_training == pytest.approx(whole.confidence[0].volume_mm3 / organ_mm3)
    assert partial.confidence[0].volume_to_training == pytest.approx(partial.confidence[0].volume_mm3 / organ_mm3)
    assert partial.confidence[0].review
    assert "times the volume of any training case" in partial.confidence[0].reasons


# Settings -----------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("without_type_checks")
@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"weights": (1.0, 2.0)}, "2 weights were given for 3 runs"),
        ({"weights": (1.0, -1.0, 1.0)}, "weights must be 0 or more and not all 0; got 1, -1, 1"),
        ({"weights": (0.0, 0.0, 0.0)}, "not all 0; got 0, 0, 0"),
        ({"weights": (math.nan, 1.0, 1.0)}, "weights must be 0 or more"),
        ({"weights": (math.inf, 1.0, 1.0)}, "weights must be 0 or more"),
        ({"keep_largest": ("liver",)}, "keep-largest: no class 'liver'; the run has bright, or give all"),
        ({"min_volume_mm3": -1.0}, "min-volume-mm3 must be 0 or more; got -1"),
        ({"min_volume_mm3": math.nan}, "min-volume-mm3 must be 0 or more; got nan"),
        ({"min_volume_mm3": math.inf}, "got inf"),
        ({"batch_size": 0}, "batch-size must be at least 1 slice; got 0"),
        ({"tta": True, "flips": ("up",)}, "a flip must be among left_right"),
        ({"flips": ("up",)}, "a flip must be among left_right.*; got 'up'"),
        ({"device": "cuda"}, "device must be one of .*'gpu'.*; got 'cuda'"),
        ({"precision": "fp16"}, "precision must be one of .*'16'; got 'fp16'"),
        ({"choose": "every"}, "choose must be one of .*'all'; got 'every'"),
        ({"overwrite": True, "skip_existing": True}, "either --overwrite or --skip-existing"),
        ({"precision": "16", "device": "cpu"}, "precision=16 needs a CUDA GPU"),
    ],
    ids=str,
)
def test_an_invalid_setting_is_reported_before_anything_is_written(
    ct: SmallCt, views: list[Path], tmp_path: Path, settings: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        predict(views, ct.image, tmp_path / "out" / "mask.nii.gz", PredictSettings(**settings))
    assert file_names(tmp_path) == set()


def test_a_run_trained_with_fp16_on_a_gpu_predicts_on_the_cpu(views: list[Path], tmp_path: Path) -> None:
    def change(spec: dict[str, Any]) -> None:
        spec["precision"] = "16"

    model = load_trained(forge_spec(views[0], tmp_path / "gpu.ckpt", change))
    (view,) = make_views([model], PredictSettings(device="cpu"))
    assert view.hardware == choose_hardware("cpu", "auto")
    assert view.hardware.device == torch.device("cpu")


def test_missing_runs_and_images_are_reported(ct: SmallCt, views: list[Path], tmp_path: Path) -> None:
    with pytest.raises(InputError, match="nowhere: no such run folder or checkpoint"):
        predict(tmp_path / "nowhere", ct.image, tmp_path / "mask.nii.gz")
    with pytest.raises(InputError, match=r"nowhere\.nii: no such file or folder"):
        predict(views[0], tmp_path / "nowhere.nii", tmp_path / "mask.nii.gz")
    for runs, inputs in (([], ct.image), (views[0], [])):
        with pytest.raises(InputError, match="give at least one"):
            predict(runs, inputs, tmp_path / "mask.nii.gz")


def test_a_rerun_that_skips_every_image_still_returns_a_report(ct: SmallCt, views: list[Path], tmp_path: Path) -> None:
    predict(views[0], ct.image, tmp_path / "mask.nii.gz")
    report = predict(views[0], ct.image, tmp_path / "mask.nii.gz", PredictSettings(skip_existing=True))
    kept = (tmp_path / "mask.nii.gz",)
    assert report == PredictionReport((), (), 1, 0, 0, report.seconds, NOT_CALIBRATED, kept)


def test_a_mask_keeps_the_name_of_its_image_including_dots(ct: SmallCt, views: list[Path], tmp_path: Path) -> None:
    image = save_stored_as(tmp_path / "scan.v2.nii.gz", "LPS", ct.hu, AFFINE)
    (case,) = predict(views[0], [image, ct.image], tmp_path / "out").cases[:1]
    assert (case.case_id, case.mask) == ("scan.v2", tmp_path / "out" / "scan.v2.nii.gz")
