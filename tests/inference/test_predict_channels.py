"""Predictions of images in several channels: what was trained on them, and networks of which each channel is known."""

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
from spleen.inference.ensemble_weights import fit_weights
from spleen.inference.export import export
from spleen.inference.loading import TrainedModel, load_ensemble
from spleen.inference.outputs import read_record
from spleen.inference.predict import PredictSettings, predict
from spleen.inference.view import view_probabilities
from tests._helpers.handmade import CPU, PLAIN, Pointwise, intensities, model, probability, view
from tests._helpers.nifti import ras_affine, save, save_stored_as
from tests._helpers.small_run import rows, train
from tests._helpers.trained_runs import file_names, scan, three_views, voxels

SPACING_MM = (1.5, 1.25, 3.0)
AFFINE = ras_affine(SPACING_MM)
SHAPE = (24, 20, 10)
CASES = ("p1", "p2", "p3", "p4", "p5", "p6")
CHANNELS = (0, 1)


# A dataset in two channels ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class TwoChannels:
    """Images of two channels, each case stored along axes of its own: as nnU-Net's files, and as one file each."""

    nnunet: Path
    decathlon: Path
    labels: Path
    values: dict[str, np.ndarray]
    """Labels in RAS."""


def patient(seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A body with two blobs; the first channel shows one, the second, of another scale, the organ."""
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
def two(tmp_path_factory: pytest.TempPathFactory) -> TwoChannels:
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
def run(two: TwoChannels, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run on the two channels of three slices at once."""
    return train(
        tmp_path_factory.mktemp("run"), "data=folder", f"data.images={two.nnunet}", f"data.labels={two.labels}",
        "data.label_values=[1]", "data.channels=2", "intensity=mr", "img_size=24", "context_slices=1", "axis=coronal",
        "epochs=6", "split.val_fraction=0.2", "split.test_fraction=0.4",
    )  # fmt: skip


def dice(mask: np.ndarray, reference: np.ndarray) -> float:
    return 2 * np.count_nonzero(mask & reference) / (np.count_nonzero(mask) + np.count_nonzero(reference))


def spleen(*arguments: str | Path) -> Result:
    """A command in this process."""
    return CliRunner().invoke(app, list(map(str, arguments)))


# The same network as in training ------------------------------------------------------------------------------------


def ras_mask(path: Path) -> np.ndarray:
    return np.asarray(nib.as_closest_canonical(nib.load(path)).dataobj)


@pytest.mark.parametrize("layout", ["nnunet", "decathlon"])
def test_the_mask_is_the_one_that_the_training_scored(two: TwoChannels, run: Path, tmp_path: Path, layout: str) -> None:
    report = predict(run, getattr(two, layout), tmp_path, PredictSettings(precision="32"))
    assert ([case.case_id for case in report.cases], report.failures) == (list(CASES), ())
    scores = rows(run / "cases.csv")
    assert {row["split"] for row in scores} == {"val", "test"}
    assert len(scores) == 3
    for row in scores:
        mask = ras_mask(tmp_path / f"{row['case_id']}.nii.gz")
        assert mask.shape == SHAPE
        assert dice(mask == 1, two.values[row["case_id"]] == 1) == pytest.approx(float(row["dice"]), abs=1e-9)
        assert float(row["dice"]) > 0.5


def test_channels_are_reported_apart_by_their_numbers(two: TwoChannels, run: Path, tmp_path: Path) -> None:
    """In the first channel another blob is as bright as the organ is in the second: exchanged, that one is found."""
    for number in CHANNELS:
        (tmp_path / f"p1_{number:04d}.nii.gz").symlink_to(two.nnunet / f"p1_{1 - number:04d}.nii.gz")
    paths = [tmp_path / "p1_0001.nii.gz", tmp_path / "p1_0000.nii.gz"]  # their order among the inputs says nothing
    assert predict(run, paths, tmp_path / "exchanged.nii").failures == ()
    straight = [two.nnunet / "p1_0001.nii.gz", two.nnunet / "p1_0000.nii.gz"]
    predict(run, straight, tmp_path / "straight.nii")
    organ = two.values["p1"] == 1
    assert dice(voxels(tmp_path / "straight.nii") == 1, organ) > 0.5
    assert dice(voxels(tmp_path / "exchanged.nii") == 1, organ) < 0.1


@pytest.mark.parametrize("layout", ["nnunet", "decathlon", "single channel"])
def test_predicted_folders_are_evaluated_against_their_labels(
    two: TwoChannels, run: Path, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, layout: str
) -> None:
    images, labels = {"nnunet": two.nnunet, "decathlon": two.decathlon}.get(layout, tmp_path / "images"), two.labels
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


# What is written ----------------------------------------------------------------------------------------------------


def test_one_case_is_one_file_with_the_grid_of_its_first_channel(two: TwoChannels, run: Path, tmp_path: Path) -> None:
    report = predict(run, two.nnunet / "p3_*.nii.gz", tmp_path / "out", PredictSettings(probabilities=True))
    (case,) = report.cases
    assert (case.case_id, case.mask) == ("p3", tmp_path / "out" / "p3.nii.gz")
    assert file_names(tmp_path / "out") == {"p3.nii.gz", "p3_probabilities.nii.gz", "predictions.csv"}
    (row,) = read_record(tmp_path / "out" / "predictions.csv")
    files = [str(two.nnunet / f"p3_{number:04d}.nii.gz") for number in CHANNELS]
    assert (row["case_id"], row["image"], row["prediction"]) == ("p3", ";".join(files), "p3.nii.gz")
    stored = nib.load(files[0])
    for name in ("p3", "p3_probabilities"):
        written = nib.load(tmp_path / "out" / f"{name}.nii.gz")
        assert written.shape == stored.shape
        np.testing.assert_array_equal(written.affine, stored.affine)


def test_without_an_output_one_case_is_one_file(
    two: TwoChannels, run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    predict(run, [two.nnunet / f"p1_{number:04d}.nii.gz" for number in CHANNELS])
    assert file_names(tmp_path) == {"out.nii.gz", "predictions.csv"}


def test_a_file_of_four_dimensions_gives_a_mask_of_three(two: TwoChannels, run: Path, tmp_path: Path) -> None:
    nifti = nib.load(two.decathlon / "p1.nii.gz")
    nifti.header.set_zooms((*nifti.header.get_zooms()[:3], 2.5))
    nib.save(nifti, tmp_path / "p1.nii.gz")
    predict(run, tmp_path / "p1.nii.gz", tmp_path / "mask.nii.gz")
    mask = nib.load(tmp_path / "mask.nii.gz")
    assert (mask.shape, float(mask.header["pixdim"][4])) == (SHAPE, 1.0)
    np.testing.assert_array_equal(mask.affine, nifti.affine)


# Cases that fail ----------------------------------------------------------------------------------------------------


def test_a_case_of_other_channels_fails_alone(two: TwoChannels, run: Path, tmp_path: Path) -> None:
    images = tmp_path / "images"
    images.mkdir()
    first, second = (nib.load(two.nnunet / f"p1_{number:04d}.nii.gz") for number in CHANNELS)
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


def test_a_run_of_one_channel_still_refuses_several(
    two: TwoChannels, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    (failure,) = predict(
        three_views(tmp_path_factory)[0], two.decathlon / "p1.nii.gz", tmp_path / "mask.nii.gz"
    ).failures
    assert "p1.nii.gz has 4 dimensions, shape (24, 20, 10, 2); it must be 3D" in failure.reason


def test_runs_on_other_channels_are_not_fused(run: Path, tmp_path: Path) -> None:
    one = train(
        tmp_path, "data=phantom", "data.matrix=32", "data.n_slices=24", "data.organ=organ", "epochs=1", name="phantom"
    )
    with pytest.raises(InputError, match=r"now was trained on 2 channel\(s\), phantom on 1"):
        load_ensemble([run, one])


# Each channel by itself ---------------------------------------------------------------------------------------------


def of_two(trained: TrainedModel, intensity: CtWindow | ZScore = CtWindow(0, 2)) -> TrainedModel:  # noqa: B008
    """The model, as one of two channels."""
    preprocessing = replace(trained.preprocessing, n_channels=2, intensity=intensity)
    return replace(trained, spec=replace(trained.spec, preprocessing=preprocessing))


def found_by(trained: TrainedModel, image: NativeImage) -> np.ndarray:
    """Probabilities of the organ, (i, j, k), of an axial model."""
    parts = [planes[0, :, 0] for _, planes in view_probabilities(trained, image, "mr", PLAIN, CPU, 2)]
    return np.concatenate(parts).transpose(2, 1, 0)


@pytest.mark.parametrize("context", [0, 1])
@pytest.mark.parametrize("img_size", [9, "native"])
def test_a_network_sees_all_channels_of_a_slice_then_those_of_the_next(
    tmp_path: Path, context: int, img_size: int | str
) -> None:
    arrays = [intensities((7, 9, 5), seed) for seed in CHANNELS]
    save(tmp_path / "mr.nii", np.stack(arrays, -1).astype(np.float32), np.diag([1.0, 1, 1, 1]))
    image = read_native(tmp_path / "mr.nii", n_channels=2)
    for place in range(2 * (2 * context + 1)):
        offset, channel = divmod(place, 2)
        trained = of_two(model(Pointwise([3.0], [0.0], place), "axial", img_size, context=context))
        shown = arrays[channel][..., np.clip(np.arange(5) + offset - context, 0, 4)]
        np.testing.assert_allclose(found_by(trained, image), probability(shown, 3.0), atol=1e-6)


def test_each_channel_is_normalised_by_itself(tmp_path: Path) -> None:
    """The second is the first, twenty times as bright and shifted, with a mean and deviation of its own."""
    first = np.rint(intensities((7, 9, 5)) * 64).astype(np.int16)
    paths = [save(tmp_path / "a.nii", first, np.eye(4)), save(tmp_path / "b.nii", first * 20 + 300, np.eye(4))]
    image = read_native(*paths, n_channels=2)
    expected = np.clip((first - first.mean()) / first.std(), -2, 2)
    for channel in CHANNELS:
        trained = of_two(model(Pointwise([2.0], [0.0], channel), "axial", 9), ZScore(2.0))
        np.testing.assert_allclose(found_by(trained, image), probability(expected, 2.0), atol=1e-3)


def test_weights_are_fitted_on_images_of_two_channels(tmp_path: Path) -> None:
    """One view reads the second channel, which shows the organ; the other the first, which shows nothing of it."""
    noise, signal = intensities((9, 9, 5), 1), intensities((9, 9, 5), 2)
    paths = [
        save(tmp_path / f"a_{number:04d}.nii", array.astype(np.float32), np.eye(4))
        for number, array in enumerate((noise, signal))
    ]
    label = save(tmp_path / "a.nii", (signal > 0).astype(np.uint8), np.eye(4))
    views = [view(Pointwise([40.0], [-0.3], channel), "axial", 9) for channel in CHANNELS]
    views = [replace(one, model=of_two(one.model)) for one in views]
    fitted = fit_weights(views, {"a": (ImageFiles("a", tuple(paths)), label)}, 4, lambda *_: None)
    assert fitted.weights[1] > 0.5
    assert fitted.dice == 1.0 > fitted.dice_equal
    with pytest.raises(InputError, match="has 1 channel"):
        fit_weights(views, {"a": (ImageFiles("a", (paths[0],)), label)}, 4, lambda *_: None)


def test_the_command_fits_weights_on_folders_of_channels(two: TwoChannels, run: Path, tmp_path: Path) -> None:
    checkpoint = run / "checkpoints" / "best.ckpt"
    done = spleen(
        "predict", run, checkpoint, two.nnunet / "p1_000?.nii.gz", "-o", tmp_path / "mask.nii.gz",
        "--fit-weights", two.nnunet, two.labels,
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    assert "weights fitted on 6 case(s)" in done.stdout


# Export -------------------------------------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore:.*torch.jit.* is deprecated:DeprecationWarning")
def test_the_metadata_of_an_export_contain_the_channels(run: Path, tmp_path: Path) -> None:
    report = export(run, tmp_path / "net.pt", "torchscript")
    about = json.loads(report.metadata_path.read_text())
    assert (about["channels"], about["context_slices"]) == (2, 1)
    assert about["input"]["shape"] == ["batch", 6, "height", "width"]
    assert {shape[1] for shape in report.shapes} == {6}
    assert report.max_abs_difference < 1e-5


def test_the_help_explains_channels() -> None:
    done = subprocess.run(
        [str(Path(sys.executable).with_name("spleen")), "predict", "--help"], capture_output=True, text=True, check=True
    )
    assert "CASE_0001" in done.stdout
