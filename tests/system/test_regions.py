"""A training with overlapping classes, from nnU-Net's layout to masks, scores and an exported graph."""

import json
from pathlib import Path

import highdicom
import nibabel as nib
import numpy as np
import pytest
from scipy import ndimage
from typer.testing import CliRunner

from spleen.cli.main import app
from spleen.dicom.node.prediction import LoadRuns
from spleen.dicom.write_series import write_series
from spleen.errors import InputError
from spleen.evaluation.evaluate import evaluate
from spleen.inference.export import export
from spleen.inference.loading import load_trained
from spleen.inference.model import load_model
from spleen.inference.predict import predict
from spleen.inference.settings import PredictSettings
from spleen.records.cases import read_cases
from tests._helpers.dicom_results import sop_uids
from tests._helpers.many_cases import SPACING_MM, ManyCases, many_cases, quick
from tests._helpers.nifti import ras_affine, save
from tests._helpers.small_run import summary

pytestmark = pytest.mark.slow

VALUES = {"whole": [1, 2], "back": [2]}
SETTING = "data.label_values={whole:[1,2],back:[2]}"
ORDER = "data.regions_class_order=[1,2]"
LEARNS = ("epochs=4", "loader.slices_per_epoch=48", "model.network.width=4", "lr=3e-2", "precision=32", "axis=coronal")


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, ManyCases]:
    folder = tmp_path_factory.mktemp("regions")
    cases = many_cases(folder / "Task", 8)
    return quick(folder, *cases.folder, SETTING, ORDER, *LEARNS), cases


def test_both_regions_are_learned_and_scored(trained: tuple[Path, ManyCases]) -> None:
    run, _ = trained
    test = summary(run)["test"]
    assert test["whole"]["dice"] > 0.6
    assert test["back"]["dice"] > 0.6
    volumes = {(row.case_id, row.class_name) for row in read_cases(run) if row.split == "test"}
    assert {name for _, name in volumes} == {"whole", "back"}


def test_masks_scores_and_probabilities_agree(trained: tuple[Path, ManyCases], tmp_path: Path) -> None:
    """The scores of the training are those of the masks that are written, against each region of the labels."""
    run, cases = trained
    tested = json.loads((run / "split.json").read_text())["test"]
    images = [cases.image(case_id) for case_id in tested]
    predict(run, images, tmp_path / "masks", PredictSettings(probabilities=True))
    written = {row.case_id: row for row in read_cases(run) if row.split == "test" and row.class_name == "whole"}
    for case_id in tested:
        mask = np.asarray(nib.load(tmp_path / "masks" / f"{case_id}.nii.gz").dataobj)
        whole, back = np.moveaxis(
            np.asarray(nib.load(tmp_path / "masks" / f"{case_id}_probabilities.nii.gz").dataobj), -1, 0
        )
        painted = np.zeros(mask.shape, int)
        painted[whole > 0.5] = 1
        painted[back > 0.5] = 2
        np.testing.assert_array_equal(mask, painted)
        found, expected = mask > 0, cases.labels[case_id] > 0
        dice = 2 * (found & expected).sum() / (found.sum() + expected.sum())
        assert written[case_id].dice == pytest.approx(dice, abs=1e-6)
    evaluation = evaluate(tmp_path / "masks", cases.root / "labelsTr", only_predicted=True, surface=False)
    assert evaluation.settings.classes == {"whole": (1, 2), "back": (2,)}
    assert evaluation.summary("whole").metrics["dice"].mean == pytest.approx(summary(run)["test"]["whole"]["dice"])
    assert evaluation.summary("back").metrics["dice"].mean == pytest.approx(summary(run)["test"]["back"]["dice"])


def test_volumes_in_python_are_those_of_regions(trained: tuple[Path, ManyCases]) -> None:
    run, cases = trained
    prediction = load_model(run).predict(nib.load(cases.image("c0")))
    voxel_mm3 = float(np.prod(nib.load(cases.image("c0")).header.get_zooms()))
    assert prediction.volumes_mm3["whole"] == pytest.approx((prediction.mask > 0).sum() * voxel_mm3)
    assert prediction.volumes_mm3["back"] == pytest.approx((prediction.mask == 2).sum() * voxel_mm3)
    assert [each.volume_mm3 for each in prediction.confidence] == pytest.approx([*prediction.volumes_mm3.values()])


def test_an_ensemble_averages_regions(trained: tuple[Path, ManyCases]) -> None:
    run, cases = trained
    twice = load_model([run / "checkpoints" / name for name in ("best.ckpt", "last.ckpt")])
    prediction = twice.predict(nib.load(cases.image("c1")), tta=True)
    assert prediction.probabilities is not None
    np.testing.assert_array_equal(prediction.mask == 2, prediction.probabilities[1] > 0.5)


def test_the_exported_graph_ends_in_sigmoids(trained: tuple[Path, ManyCases], tmp_path: Path) -> None:
    run, _ = trained
    report = export(run, tmp_path / "model.pt", "torchscript")
    output = json.loads(report.metadata_path.read_text())["output"]
    assert output["shape"][1] == 3
    assert (output["activation"], output["threshold"], output["regions_class_order"]) == ("sigmoid", 0.5, [1, 2])
    assert load_trained(run).classes.values == ((1, 2), (2,))


@pytest.mark.parametrize("by_node", [False, True], ids=["predict", "node"])
def test_a_dicom_segmentation_holds_each_region_as_a_whole(
    trained: tuple[Path, ManyCases], tmp_path: Path, by_node: bool
) -> None:
    """The voxels of a segment are those of the NIfTI mask with any of the values of its class."""
    run, cases = trained
    stored = np.rint(np.asarray(nib.load(cases.image("c5")).dataobj)).astype(np.int16)
    files = write_series(tmp_path / "series", stored, ras_affine(SPACING_MM))
    codes = tmp_path / "codes.yaml"
    codes.write_text('whole: {code: "1", meaning: Whole, scheme: 99X}\nback: {code: "2", meaning: Back, scheme: 99X}\n')
    if by_node:
        (tmp_path / "out").mkdir()
        path, _ = LoadRuns((run,), "cpu", codes)()(tmp_path / "series", tmp_path / "out").files
    else:
        path = tmp_path / "out" / "seg.dcm"
        done = CliRunner().invoke(
            app, ["predict", str(run), str(files[0].parent), "-o", str(path), "--codes", str(codes)]
        )
        assert done.exit_code == 0, done.output
    predict(run, save(tmp_path / "c5.nii", stored, ras_affine(SPACING_MM)), tmp_path / "mask.nii.gz")
    mask = np.asarray(nib.load(tmp_path / "mask.nii.gz").dataobj)
    read = highdicom.seg.segread(path)
    assert [segment.SegmentLabel for segment in read.SegmentSequence] == ["whole", "back"]
    whole, back = np.moveaxis(
        read.get_pixels_by_source_instance(
            sop_uids(files), assert_missing_frames_are_empty=True, ignore_spatial_locations=True
        ),
        -1, 0,
    )  # fmt: skip
    assert set(np.unique(mask)) == {0, 1, 2}
    np.testing.assert_array_equal(whole.transpose(2, 1, 0), mask > 0)
    np.testing.assert_array_equal(back.transpose(2, 1, 0), mask == 2)


def largest(mask: np.ndarray) -> np.ndarray:
    parts, _ = ndimage.label(mask, np.ones((3, 3, 3)))
    return np.asarray(parts == 1 + np.bincount(parts.ravel())[1:].argmax())


def test_clean_up_keeps_the_largest_component_of_each_region(trained: tuple[Path, ManyCases], tmp_path: Path) -> None:
    """Beside the organ there is a small second one, of both classes."""
    run, cases = trained
    array = np.asarray(nib.load(cases.image("c5")).dataobj).copy()
    array[17:20, 8:11, 1:5], array[20:23, 8:11, 1:5] = 180, -60
    image = save(tmp_path / "two.nii.gz", array, ras_affine(SPACING_MM))
    predict(run, image, tmp_path / "raw.nii.gz")
    predict(run, image, tmp_path / "clean.nii.gz", PredictSettings(keep_largest=("all",)))
    raw, clean = (np.asarray(nib.load(tmp_path / f"{name}.nii.gz").dataobj) for name in ("raw", "clean"))
    whole = largest(raw > 0)
    assert ((raw > 0) & ~whole).sum() > 10
    expected = np.where(largest((raw == 2) & whole), 2, np.where(whole, 1, 0))
    np.testing.assert_array_equal(clean, expected)


def test_partial_labels_of_regions_are_refused(tmp_path: Path) -> None:
    cases = many_cases(tmp_path / "Task", 4)
    with pytest.raises(InputError, match="need cases that label all of them"):
        quick(tmp_path, *cases.folder, SETTING, ORDER, "data.labelled_classes={c0:[whole]}")


def test_overlap_without_an_order_says_what_to_set(tmp_path: Path) -> None:
    cases = many_cases(tmp_path / "Task", 4)
    with pytest.raises(InputError, match=r"data\.regions_class_order=\[1,2\]"):
        quick(tmp_path, *cases.folder, SETTING)
