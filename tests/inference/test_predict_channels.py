"""Predicting multi-channel images, with a trained run and with networks whose use of each channel is known."""

import json
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from click.testing import Result
from typer.testing import CliRunner

from spleen.cli.main import app
from spleen.errors import InputError
from spleen.imaging.files import ImageFiles
from spleen.imaging.intensity import CtWindow, ZScore
from spleen.imaging.native import NativeImage, read_native
from spleen.inference.calibration.ensemble_weights import fit_weights
from spleen.inference.export import export
from spleen.inference.loading import TrainedModel, load_ensemble
from spleen.inference.predict import predict
from spleen.inference.record import read_record
from spleen.inference.settings import PredictSettings
from spleen.inference.views.probabilities import view_probabilities
from tests._helpers.handmade import CPU, PLAIN, Pointwise, intensities, model, probability, view
from tests._helpers.nifti import ras_affine, save, save_stored_as
from tests._helpers.small_run import rows, train
from tests._helpers.trained_runs import file_names, scan, three_views, voxels

SPACING_MM = (1.5, 1.25, 3.0)
AFFINE = ras_affine(SPACING_MM)
SHAPE = (24, 20, 10)
CASES = ("p1", "p2", "p3", "p4", "p5", "p6")
CHANNELS = (0, 1)


# A two-channel dataset ----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class TwoChannels:
    """Two-channel images: in nnU-Net's layout, each case in its own orientation, and as one 4D file per case."""

    nnunet: Path
    decathlon: Path
    labels: Path
    values: dict[str, np.ndarray]
    """Labels in RAS."""


def patient(seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A body with two blobs: one in the first channel; the organ in the second, on another intensity scale."""
    random = np.random.default_rng(seed)
    i, j, k = np.mgrid[: SHAPE[0], : SHAPE[1], : SHAPE[2]].astype(np.float64)
    body = ((i - 11.5) / 11) ** 2 + ((j - 9.5) / 9) ** 2 < 1
    down, right = random.uniform(-1, 1, 2)
    organ = ((i - 7) / 3.5) ** 2 + ((j - 9 - down) / 4.5) ** 2 + ((k - 5) / 4) ** 2 < 1
    other = ((i - 16) / 3.5) ** 2 + ((j - 10 - right) / 4.5) ** 2 + ((k - 5) / 4) ** 2 < 1
    noise = random.normal(0, 0.04, (2, *SHAPE))
    first = np.rint(1000 * (0.4 * body + 0.5 * other + noise[0])).astype(np.int16)
    second = (0.4 * body + 0.5 * organ + noise[1]).astype(np.float32)
    return first, second, organ.astype(np.uint8)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> TwoChannels:
    folder = tmp_path_factory.mktemp("two")
    nnunet, decathlon, labels = (folder / name for name in ("nnunet", "decathlon", "labels"))
    for path in (nnunet, decathlon, labels):
        path.mkdir()
    values = {}
    for seed, (case, axes) in enumerate(zip(CASES, ("RAS", "LPS", "PIR", "RAS", "SAL", "RAS"), strict=True)):
        *channels, values[case] = patient(seed)
        for number, channel in enumerate(channels):
            save_stored_as(nnunet / f"{case}_{number:04d}.nii.gz", axes, channel, AFFINE)
        save(decathlon / f"{case}.nii.gz", np.stack(channels, -1).astype(np.float32), AFFINE)
        save_stored_as(labels / f"{case}.nii.gz", axes, values[case], AFFINE)
    return TwoChannels(nnunet, decathlon, labels, values)


@pytest.fixture(scope="module")
def run(dataset: TwoChannels, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run on both channels with one context slice on each side."""
    return train(
        tmp_path_factory.mktemp("run"), "data=folder", f"data.images={dataset.nnunet}", f"data.labels={dataset.labels}",
        "data.label_values=[1]", "data.channels=2", "intensity=mr", "img_size=24", "context_slices=1", "axis=coronal",
        "epochs=6", "split.val_fraction=0.2", "split.test_fraction=0.4",
    )  # fmt: skip


def dice(mask: np.ndarray, reference: np.ndarray) -> float:
    return 2 * np.count_nonzero(mask & reference) / (np.count_nonzero(mask) + np.count_nonzero(reference))


def spleen(*arguments: str | Path) -> Result:
    """Run a `spleen` command in this process."""
    return CliRunner().invoke(app, list(map(str, arguments)))


# Agreement with training --------------------------------------------------------------------------------------------


def ras_mask(path: Path) -> np.ndarray:
    return np.asarray(nib.as_closest_canonical(nib.load(path)).dataobj)


@pytest.mark.parametrize("layout", ["nnunet", "decathlon"])
def test_the_predicted_mask_has_the_dice_that_training_reported(
    dataset: TwoChannels, run: Path, tmp_path: Path, layout: str
) -> None:
    report = predict(run, getattr(dataset, layout), tmp_path, PredictSettings(precision="32"))
    assert ([case.case_id for case in report.cases], report.failures) == (list(CASES), ())
    scores = rows(run / "cases.csv")
    assert {row["split"] for row in scores} == {"val", "test"}
    assert len(scores) == 3
    for row in scores:
        mask = ras_mask(tmp_path / f"{row['case_id']}.nii.gz")
        assert mask.shape == SHAPE
        assert dice(mask == 1, dataset.values[row["case_id"]] == 1) == pytest.approx(float(row["dice"]), abs=1e-9)
        assert float(row["dice"]) > 0.5


def test_channels_are_identified_by_their_numbers(dataset: TwoChannels, run: Path, tmp_path: Path) -> None:
    """The other blob is as bright in the first channel as the organ in the second: swapped, it is predicted."""
    for number in CHANNELS:
        (tmp_path / f"p1_{number:04d}.nii.gz").symlink_to(dataset.nnunet / f"p1_{1 - number:04d}.nii.gz")
    paths = [tmp_path / "p1_0001.nii.gz", tmp_path / "p1_0000.nii.gz"]  # the order of the inputs does not matter
    assert predict(run, paths, tmp_path / "swapped.nii").failures == ()
    straight = [dataset.nnunet / "p1_0001.nii.gz", dataset.nnunet / "p1_0000.nii.gz"]
    predict(run, straight, tmp_path / "straight.nii")
    organ = dataset.values["p1"] == 1
    assert dice(voxels(tmp_path / "straight.nii") == 1, organ) > 0.5
    assert dice(voxels(tmp_path / "swapped.nii") == 1, organ) < 0.1


@pytest.mark.parametrize("layout", ["nnunet", "decathlon", "single channel"])
def test_predicted_folders_can_be_evaluated_against_their_labels(
    dataset: TwoChannels, run: Path, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, layout: str
) -> None:
    images = {"nnunet": dataset.nnunet, "decathlon": dataset.decathlon}.get(layout, tmp_path / "images")
    labels = dataset.labels
    if layout == "single channel":
        run, ct, labels = three_views(tmp_path_factory)[0], scan(tmp_path_factory), tmp_path / "labels"
        for folder in (images, labels):
            folder.mkdir()
        for name in ("a", "b"):
            (images / f"{name}_0000.nii.gz").symlink_to(ct.image)
            save(
                labels / f"{name}.nii.gz",
                np.where(np.isin(ct.values, [3, 4]), 3, 0).astype(np.uint8),
                ras_affine(SPACING_MM),
            )
    done = spleen("predict", run, images, "--output", tmp_path / "preds")
    assert done.exit_code == 0, done.output
    assert file_names(tmp_path / "preds") == {*file_names(labels), "predictions.csv"}
    evaluated = spleen("evaluate", tmp_path / "preds", labels, "--csv", tmp_path / "scores.csv")
    assert evaluated.exit_code == 0, evaluated.output
    scores = {row["case_id"]: float(row["dice"]) for row in rows(tmp_path / "scores.csv")}
    assert set(scores) == {name.removesuffix(".nii.gz") for name in file_names(labels)}
    assert min(scores.values()) > 0.5


# Outputs ------------------------------------------------------------------------------------------------------------


def test_one_case_gives_one_mask_on_the_grid_of_its_first_channel(
    dataset: TwoChannels, run: Path, tmp_path: Path
) -> None:
    report = predict(run, dataset.nnunet / "p3_*.nii.gz", tmp_path / "out", PredictSettings(probabilities=True))
    (case,) = report.cases
    assert (case.case_id, case.mask) == ("p3", tmp_path / "out" / "p3.nii.gz")
    assert file_names(tmp_path / "out") == {"p3.nii.gz", "p3_probabilities.nii.gz", "predictions.csv"}
    (row,) = read_record(tmp_path / "out" / "predictions.csv")
    files = [str(dataset.nnunet / f"p3_{number:04d}.nii.gz") for number in CHANNELS]
    assert (row["case_id"], row["image"], row["prediction"]) == ("p3", ";".join(files), "p3.nii.gz")
    stored = nib.load(files[0])
    for name in ("p3", "p3_probabilities"):
        written = nib.load(tmp_path / "out" / f"{name}.nii.gz")
        assert written.shape == stored.shape
        np.testing.assert_array_equal(written.affine, stored.affine)


def test_without_an_output_one_case_gives_one_file(
    dataset: TwoChannels, run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    predict(run, [dataset.nnunet / f"p1_{number:04d}.nii.gz" for number in CHANNELS])
    assert file_names(tmp_path) == {"out.nii.gz", "predictions.csv"}


def test_a_4d_image_gives_a_3d_mask(dataset: TwoChannels, run: Path, tmp_path: Path) -> None:
    nifti = nib.load(dataset.decathlon / "p1.nii.gz")
    nifti.header.set_zooms((*nifti.header.get_zooms()[:3], 2.5))
    nib.save(nifti, tmp_path / "p1.nii.gz")
    predict(run, tmp_path / "p1.nii.gz", tmp_path / "mask.nii.gz")
    mask = nib.load(tmp_path / "mask.nii.gz")
    assert (mask.shape, float(mask.header["pixdim"][4])) == (SHAPE, 1.0)
    np.testing.assert_array_equal(mask.affine, nifti.affine)


# Cases that fail ----------------------------------------------------------------------------------------------------


def test_cases_with_wrong_channels_fail_without_stopping_the_others(
    dataset: TwoChannels, run: Path, tmp_path: Path
) -> None:
    images = tmp_path / "images"
    images.mkdir()
    first, second = (nib.load(dataset.nnunet / f"p1_{number:04d}.nii.gz") for number in CHANNELS)
    both = np.stack([np.asarray(first.dataobj), np.asarray(second.dataobj)] * 2, -1)
    moved = AFFINE.copy()
    moved[2, 3] += 2
    for name, array, affine in [
        ("good_0000", first.dataobj, AFFINE), ("good_0001", second.dataobj, AFFINE),
        ("lone_0000", first.dataobj, AFFINE), ("plain", first.dataobj, AFFINE), ("four", both, AFFINE),
        ("gap_0000", first.dataobj, AFFINE), ("gap_0002", first.dataobj, AFFINE),
        ("moved_0000", first.dataobj, AFFINE), ("moved_0001", second.dataobj, moved),
        ("flat_0000", first.dataobj, AFFINE), ("flat_0001", np.zeros(SHAPE, np.int16), AFFINE),
    ]:  # fmt: skip
        save(images / f"{name}.nii.gz", array, affine)
    done = spleen("predict", run, images, "--output", tmp_path / "out")
    assert done.exit_code == 1
    assert "1 predicted, 0 kept, 6 failed" in done.stdout
    assert file_names(tmp_path / "out") == {"good.nii.gz", "predictions.csv"}
    lines = done.stderr.splitlines()
    expected = {
        "flat_0000.nii.gz, channel 1: every voxel has the intensity 0": 1,
        "four.nii.gz has 4 channel(s), but the run was trained on 2": 1,
        "gap_0000.nii.gz: the image 'gap' has the channels 0000, 0002, but the run was trained on 2": 1,
        "lone_0000.nii.gz has 1 channel(s), but the run was trained on 2": 1,
        "moved_0001.nii.gz are on different grids: their affines place the same voxel up to 2 mm apart": 1,
        "plain.nii.gz has 1 channel(s), but the run was trained on 2": 1,
    }
    assert len(lines) == len(expected)
    assert {part: sum(part in line for line in lines) for part in expected} == expected


def test_a_single_channel_run_refuses_a_multi_channel_image(
    dataset: TwoChannels, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    (failure,) = predict(
        three_views(tmp_path_factory)[0], dataset.decathlon / "p1.nii.gz", tmp_path / "mask.nii.gz"
    ).failures
    assert "p1.nii.gz has 4 dimensions, shape (24, 20, 10, 2); it must be 3D" in failure.reason


def test_runs_with_different_numbers_of_channels_are_not_fused(run: Path, tmp_path: Path) -> None:
    one = train(
        tmp_path, "data=phantom", "data.matrix=32", "data.n_slices=24", "data.organ=organ", "epochs=1", name="phantom"
    )
    with pytest.raises(InputError, match=r"now was trained on 2 channel\(s\), phantom on 1"):
        load_ensemble([run, one])


# Individual channels ------------------------------------------------------------------------------------------------


def with_two_channels(trained: TrainedModel, intensity: CtWindow | ZScore = CtWindow(0, 2)) -> TrainedModel:  # noqa: B008
    """The model, changed to take two channels."""
    preprocessing = replace(trained.preprocessing, n_channels=2, intensity=intensity)
    return replace(trained, spec=replace(trained.spec, preprocessing=preprocessing))


def organ_probabilities(trained: TrainedModel, image: NativeImage) -> np.ndarray:
    """Organ probabilities (i, j, k) of an axial model."""
    parts = [planes[0, :, 0] for _, planes in view_probabilities(trained, image, "mr", PLAIN, CPU, 2)]
    return np.concatenate(parts).transpose(2, 1, 0)


@pytest.mark.parametrize("context", [0, 1])
@pytest.mark.parametrize("img_size", [9, "native"])
def test_network_inputs_are_ordered_by_slice_then_channel(tmp_path: Path, context: int, img_size: int | str) -> None:
    arrays = [intensities((7, 9, 5), seed) for seed in CHANNELS]
    save(tmp_path / "mr.nii", np.stack(arrays, -1).astype(np.float32), np.diag([1.0, 1, 1, 1]))
    image = read_native(tmp_path / "mr.nii", n_channels=2)
    for input_index in range(2 * (2 * context + 1)):
        offset, channel = divmod(input_index, 2)
        trained = with_two_channels(model(Pointwise([3.0], [0.0], input_index), "axial", img_size, context=context))
        shown = arrays[channel][..., np.clip(np.arange(5) + offset - context, 0, 4)]
        np.testing.assert_allclose(organ_probabilities(trained, image), probability(shown, 3.0), atol=1e-6)


def test_each_channel_is_normalised_separately(tmp_path: Path) -> None:
    """The second channel is the first, scaled by 20 and shifted: another mean and standard deviation."""
    first = np.rint(intensities((7, 9, 5)) * 64).astype(np.int16)
    paths = [save(tmp_path / "a.nii", first, np.eye(4)), save(tmp_path / "b.nii", first * 20 + 300, np.eye(4))]
    image = read_native(*paths, n_channels=2)
    expected = np.clip((first - first.mean()) / first.std(), -2, 2)
    for channel in CHANNELS:
        trained = with_two_channels(model(Pointwise([2.0], [0.0], channel), "axial", 9), ZScore(2.0))
        np.testing.assert_allclose(organ_probabilities(trained, image), probability(expected, 2.0), atol=1e-3)


def test_weights_are_fitted_on_two_channel_images(tmp_path: Path) -> None:
    """One view reads the second channel, which shows the organ; the other reads the first, which is noise."""
    noise, signal = intensities((9, 9, 5), 1), intensities((9, 9, 5), 2)
    paths = [
        save(tmp_path / f"a_{number:04d}.nii", array.astype(np.float32), np.eye(4))
        for number, array in enumerate((noise, signal))
    ]
    label = save(tmp_path / "a.nii", (signal > 0).astype(np.uint8), np.eye(4))
    views = [view(Pointwise([40.0], [-0.3], channel), "axial", 9) for channel in CHANNELS]
    views = [replace(one, model=with_two_channels(one.model)) for one in views]
    fitted = fit_weights(views, {"a": (ImageFiles("a", tuple(paths)), label)}, 4, lambda *_: None)
    assert fitted.weights[1] > 0.5
    assert fitted.dice == 1.0 > fitted.dice_equal
    with pytest.raises(InputError, match="has 1 channel"):
        fit_weights(views, {"a": (ImageFiles("a", (paths[0],)), label)}, 4, lambda *_: None)


def test_the_command_fits_weights_on_folders_of_two_channel_images(
    dataset: TwoChannels, run: Path, tmp_path: Path
) -> None:
    checkpoint = run / "checkpoints" / "best.ckpt"
    done = spleen(
        "predict", run, checkpoint, dataset.nnunet / "p1_000?.nii.gz", "-o", tmp_path / "mask.nii.gz",
        "--fit-weights", dataset.nnunet, dataset.labels,
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    assert "weights fitted on 6 case(s)" in done.stdout


# Export -------------------------------------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore:.*torch.jit.* is deprecated:DeprecationWarning")
def test_the_metadata_of_an_export_contains_the_channels(run: Path, tmp_path: Path) -> None:
    report = export(run, tmp_path / "net.pt", "torchscript")
    metadata = json.loads(report.metadata_path.read_text())
    assert (metadata["channels"], metadata["context_slices"]) == (2, 1)
    assert metadata["input"]["shape"] == ["batch", 6, "height", "width"]
    assert {shape[1] for shape in report.shapes} == {6}
    assert report.max_abs_difference < 1e-5


def test_the_help_explains_the_file_names_of_channels() -> None:
    done = subprocess.run(
        [str(Path(sys.executable).with_name("spleen")), "predict", "--help"], capture_output=True, text=True, check=True
    )
    assert "CASE_0001" in done.stdout
