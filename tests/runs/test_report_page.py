"""The page of a run: what it shows is what the run folder records, in a real browser and without a network."""

import json
import math
import shlex
import shutil
from dataclasses import asdict
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
import yaml
from monai.metrics import compute_hausdorff_distance
from PIL import Image

import spleen
from spleen.config.identity import settings_with_effect
from spleen.errors import InputError
from spleen.runs.report.page import to_page
from spleen.runs.report.reproduction import command, compare_with_defaults
from tests._helpers.browser import opened, print_faults
from tests._helpers.many_cases import many_cases, quick
from tests._helpers.run_folders import write_config
from tests._helpers.small_run import SmallCt, compose_config, rows, small, summary, train
from tests._helpers.trained_runs import TWO_CLASSES, scan, trained

HOSTILE = "<script>document.title='hacked'</script>"


@pytest.fixture(scope="module")
def ct(tmp_path_factory: pytest.TempPathFactory) -> SmallCt:
    return scan(tmp_path_factory)


@pytest.fixture(scope="module")
def one_volume(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run on the small CT with two classes, split into blocks of slices."""
    return trained(tmp_path_factory, "two_classes", *TWO_CLASSES, "report=true")


@pytest.fixture(scope="module")
def cases(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run on twelve cases, four of them tested; the first class has a hostile name."""
    dataset = many_cases(tmp_path_factory.mktemp("many") / "set", 12, names=(HOSTILE, "back"))
    return quick(
        tmp_path_factory.mktemp("runs"), *dataset.decathlon, "epochs=2", "split.test_fraction=0.34", "report=true"
    )


def test_the_run_leaves_its_page_beside_its_scores(one_volume: Path) -> None:
    assert (one_volume / "report.html").read_text() == to_page(one_volume)


def test_report_false_leaves_no_page_but_all_that_a_later_one_needs(tmp_path: Path, ct: SmallCt) -> None:
    folder = train(tmp_path, *ct.overrides, "data.label_values=[3,4]", "epochs=1", "report=false")
    assert not (folder / "report.html").exists()
    assert "so there are no" not in to_page(folder)


def test_a_page_that_fails_costs_a_warning_and_no_run(
    tmp_path: Path, ct: SmallCt, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(_: Path) -> None:
        raise RuntimeError("no page today")

    monkeypatch.setattr("spleen.runs.train.write_page", fail)
    folder = train(tmp_path, *ct.overrides, "data.label_values=[3,4]", "epochs=1", "report=true")
    assert summary(folder)["status"] == "finished"
    assert "report.html could not be written (RuntimeError: no page today); the scores are kept" in caplog.text


def test_the_table_of_cases_holds_the_numbers_of_cases_csv(cases: Path) -> None:
    with opened(cases / "report.html") as page:
        table = page.locator("#cases ~ .card table.sortable").first
        heads = table.locator("th").all_inner_texts()
        body = table.locator("tbody tr")
        shown = {}
        for number in range(body.count()):
            cells = body.nth(number).locator("td")
            texts = cells.all_inner_texts()
            values = cells.evaluate_all("cells => cells.map(cell => cell.dataset.value)")
            shown[texts[0], texts[1], texts[2]] = dict(zip(heads, values, strict=True))
    recorded = rows(cases / "cases.csv")
    assert len(recorded) == len(shown) > 8
    for row in recorded:
        of_row = shown[{"val": "validation", "test": "test"}[row["split"]], row["case_id"], row["class_name"]]
        for column, name in (("dice", "Dice"), ("jaccard", "Jaccard"), ("precision", "precision")):
            assert float(of_row[name]) == pytest.approx(float(row[column]), rel=1e-12)
        predicted, expected = float(row["volume_prediction_mm3"]), float(row["volume_reference_mm3"])
        assert float(of_row["reference, ml"]) == pytest.approx(expected / 1000)
        assert float(of_row["error, %"]) == pytest.approx(100 * (predicted - expected) / expected)


def test_the_headline_is_the_mean_over_cases_with_its_interval_and_the_worst_case(cases: Path) -> None:
    recorded = [row for row in rows(cases / "cases.csv") if row["split"] == "test"]
    by_case: dict[str, list[float]] = {}
    for row in recorded:
        by_case.setdefault(row["case_id"], []).append(float(row["dice"]))
    means = {case_id: np.mean(values) for case_id, values in by_case.items()}
    with opened(cases / "report.html") as page:
        test, _, worst, _ = page.locator(".tile").all_inner_texts()
    assert test.splitlines()[:2] == ["Test Dice", f"{np.mean(list(means.values())):.4f}"]
    assert f"{len(means)} cases" in test
    assert "95 % interval" in test
    lowest = min(means.values())
    assert worst.splitlines()[1] == f"{lowest:.4f}"
    assert worst.splitlines()[2].split(",")[0] in [case_id for case_id, mean in means.items() if mean == lowest]


def test_the_curves_hold_one_point_per_epoch_with_the_value_of_metrics_csv(one_volume: Path) -> None:
    epochs = rows(one_volume / "metrics.csv")
    with opened(one_volume / "report.html") as page:
        titles = page.locator("#curves ~ .curves circle title").all_text_contents()
    for number, row in enumerate(epochs, start=1):
        assert f"epoch {number}, training {float(row['train/loss']):.4g}" in titles
        assert f"epoch {number}, Dice, bright {float(row['val/bright/dice']):.4g}" in titles
    assert len(titles) == len(epochs) * (2 + 4 + 1)  # losses; Dice, Jaccard and two classes; learning rate


def test_the_counts_of_slices_are_those_of_the_predicted_mask(one_volume: Path, ct: SmallCt) -> None:
    affine = np.diag([1.5, 1.25, 3.0, 1.0])
    mask = spleen.load_model(one_volume).predict(ct.hu, affine).mask
    reference = np.select([ct.values == 7, np.isin(ct.values, (3, 4))], [1, 2])
    split = json.loads((one_volume / "split.json").read_text())["cases"]["scan7"]
    expected = {}
    for part in ("val", "test"):
        for k in split[part]:
            for value, name, labels in ((1, "dark", [7]), (2, "bright", [3, 4])):
                a, b = reference[:, :, k] == value, np.isin(mask[:, :, k], labels)
                if a.any() or b.any():
                    expected[part, "scan7", name, str(k)] = int(a.sum()), int(b.sum()), int((a & b).sum())
    recorded = {
        (row["split"], row["case_id"], row["class_name"], row["slice_index"]): (
            int(row["reference_voxels"]),
            int(row["prediction_voxels"]),
            int(row["overlap_voxels"]),
        )
        for row in rows(one_volume / "slices.csv")
    }
    assert recorded == expected
    assert sum(overlap for *_, overlap in recorded.values()) > 100


def test_the_slices_of_a_case_sum_up_to_its_volume_and_dice(cases: Path) -> None:
    sums: dict[tuple[str, str, str], np.ndarray] = {}
    for row in rows(cases / "slices.csv"):
        counts = np.array([int(row[f"{what}_voxels"]) for what in ("reference", "prediction", "overlap")])
        key = row["split"], row["case_id"], row["class_name"]
        sums[key] = sums.get(key, np.zeros(3, int)) + counts
    for row in rows(cases / "cases.csv"):
        expected, predicted, overlap = sums[row["split"], row["case_id"], row["class_name"]]
        assert float(row["dice"]) == pytest.approx(2 * overlap / (expected + predicted))
        assert float(row["volume_reference_mm3"]) == pytest.approx(expected * 1.5 * 1.25 * 3.0)


def test_surface_scores_are_those_of_monai_on_the_predicted_masks(cases: Path) -> None:
    reference = json.loads((cases / "split.json").read_text())["test"]
    recorded = {(row["case_id"], row["class_name"]): row for row in rows(cases / "surface.csv")}
    assert {case_id for case_id, _ in recorded} == set(reference)
    root = Path(yaml.safe_load((cases / "config.yaml").read_text())["data"]["root"])
    model = spleen.load_model(cases)
    for case_id in reference:
        image, label = (nib.load(root / folder / f"{case_id}.nii.gz") for folder in ("imagesTr", "labelsTr"))
        mask = model.predict(np.asarray(image.dataobj), image.affine).mask
        for value, name in ((1, HOSTILE), (2, "back")):
            masks = [torch.from_numpy(np.asarray(each) == value)[None, None] for each in (mask, label.dataobj)]
            expected = compute_hausdorff_distance(
                *masks, include_background=True, percentile=95, spacing=(1.5, 1.25, 3.0)
            )
            assert float(recorded[case_id, name]["hausdorff95_mm"]) == pytest.approx(float(expected), rel=1e-5)


def test_data_json_holds_the_geometry_and_how_much_the_window_clips(one_volume: Path, ct: SmallCt) -> None:
    content = json.loads((one_volume / "data.json").read_text())
    split = json.loads((one_volume / "split.json").read_text())["cases"]["scan7"]
    (case,) = content["cases"]
    assert (case["axis"], case["slices"], case["plane_voxels"]) == ("axial", 24, [40, 48])
    assert case["spacing_mm"] == [3.0, 1.25, 1.5]
    assert case["split_slices"] == {part: len(indices) for part, indices in split.items()}
    with_organ = (ct.values > 0).any(axis=(0, 1))
    assert case["foreground_slices"] == with_organ.sum()
    histogram = content["histogram"]
    assert (histogram["low"], histogram["high"], histogram["unit"]) == (-150, 250, "HU")
    image = histogram["image"]
    total = image["below"] + image["above"] + sum(image["counts"])
    windowed = np.clip((ct.hu[:, :, with_organ] - 50) / 200, -1, 1).astype(np.float32)
    # 50 × 72 mm on 22 × 32 pixels, by Pillow; the noise keeps air below the window and the body within it.
    planes = [
        Image.fromarray(plane.T).resize((32, 22), Image.Resampling.BILINEAR) for plane in np.moveaxis(windowed, 2, 0)
    ]
    clipped = np.mean([np.asarray(plane) < -0.9999 for plane in planes])
    assert image["below"] / total == pytest.approx(clipped, abs=0.01)
    lower, upper = sum(histogram["organ"]["counts"][:40]), sum(histogram["organ"]["counts"][40:])
    assert min(lower, upper) > 0.2 * (lower + upper)  # a dark and a bright organ, on either side of 50 HU


def test_errors_along_the_axis_stand_beside_the_blocks_of_the_split(one_volume: Path) -> None:
    split = json.loads((one_volume / "split.json").read_text())["cases"]["scan7"]
    with opened(one_volume / "report.html") as page:
        section = page.locator("#axis ~ .card .wide").first
        bands = {
            kind: section.locator("svg.xy").first.locator(f"rect.band.{kind}").count()
            for kind in ("validation", "test", "guard")
        }
        bars = section.locator("svg.xy").nth(1).locator("rect.bar title").all_text_contents()
    parts = {"validation": "val", "test": "test", "guard": "guard"}
    blocks = {kind: 1 + int((np.diff(split[part]) > 1).sum()) for kind, part in parts.items()}
    assert bands == blocks
    wrong = {}
    for row in rows(one_volume / "slices.csv"):
        index = int(row["slice_index"])
        missed = int(row["reference_voxels"]) - int(row["overlap_voxels"])
        wrong[index] = wrong.get(index, 0) + missed
    for index, voxels in wrong.items():
        if voxels:
            assert f"slice {index}: false negatives {voxels * 1.5 * 1.25:.4g} mm²" in bars


def test_a_click_sorts_the_cases_and_the_page_fits_a_phone(cases: Path) -> None:
    with opened(cases / "report.html", width=400) as page:
        table = page.locator("#cases ~ .card table.sortable").first
        table.get_by_text("Dice", exact=True).click()
        column = table.locator("th").all_inner_texts().index("Dice") + 1
        cells = table.locator(f"tbody td:nth-child({column})")
        values = [float(v) for v in cells.evaluate_all("cells => cells.map(c => c.dataset.value)")]
        assert values == sorted(values)
        assert page.evaluate("document.documentElement.scrollWidth") == 400


def test_a_hostile_class_name_stays_text(cases: Path) -> None:
    with opened(cases / "report.html") as page:
        assert "hacked" not in page.title().split(" – ")[-1]
        assert page.locator("h1").inner_text() == f"{HOSTILE}, back"


def test_no_path_is_on_the_page_unless_asked_for(one_volume: Path, ct: SmallCt) -> None:
    page = to_page(one_volume)
    for path in (one_volume, ct.image, ct.label, one_volume.parents[2] / "cache"):
        assert str(path.parent) not in page
    assert ct.image.name not in page
    assert ct.label.name not in page
    assert "data.image=IMAGE" in page
    assert str(ct.image) in to_page(one_volume, identifying=True)


def test_an_older_run_folder_gives_a_page_that_says_what_is_missing(one_volume: Path, tmp_path: Path) -> None:
    folder = tmp_path / "old"
    shutil.copytree(one_volume, folder)
    for name in ("slices.csv", "data.json", "figures/overlays.png"):
        (folder / name).unlink()
    page = to_page(folder)
    assert "slices.csv is missing, so there are no errors along the axis" in page
    assert "data.json is missing, so geometry and intensities are unknown" in page
    (folder / "metrics.csv").write_text("epoch,train/loss\n0,much\n")
    (folder / "summary.json").write_text("{")
    page = to_page(folder)
    assert "metrics.csv is damaged" in page
    assert "summary.json is no valid JSON" in page


def test_a_run_that_has_only_begun_gives_a_page_and_another_folder_none(tmp_path: Path) -> None:
    page = to_page(write_config(tmp_path / "begun"))
    assert ">unfinished<" in page
    assert "cases.csv is missing, so there are no scores" in page
    with pytest.raises(InputError, match="no run folder"):
        to_page(tmp_path)


def test_bland_altman_draws_the_mean_difference_and_its_limits(tmp_path: Path) -> None:
    folder = write_config(tmp_path / "run")
    lines = ["split,case_id,class_name,dice,volume_prediction_mm3,volume_reference_mm3"]
    errors_ml = (1, -1, 3, 1)  # mean 1; their standard deviation is √(8/3) = 1.633, so the limits are 1 ± 3.2006
    lines += [f"test,c{n},liver,0.9,{1000 * (20 + error)},20000" for n, error in enumerate(errors_ml)]
    (folder / "cases.csv").write_text("\n".join(lines) + "\n")
    page = to_page(folder)
    assert "mean difference +1 ml, limits of agreement −2.2 to +4.2 ml" in page
    assert "c2: 20 ml in the reference, 23 ml predicted" in page


@pytest.mark.parametrize(
    "overrides",
    [
        (),
        ("lr=1e-4", "img_size=native", "axis=axial", "optimiser.gradient_clip=null", "seed=3"),
        ("model=monai_dynunet", "loss=tversky", "augment=strong", "schedule=polynomial", "intensity=zscore"),
        (
            "data=nifti",
            "data.image='/a b/it\\'s.nii.gz'",
            "data.label=l.nii.gz",
            "data.label_values={left: 1, b: [2, 5]}",
        ),
        ("data=decathlon", "data.root=/d", "intensity=mr", "fold=2", "crop_size=64", "+model.network.extra=[1,x]"),
        ("trainer=ddp", "trainer.devices=2", "loader.slices_per_epoch=null", "split.seed=7"),
    ],
    ids=lambda overrides: overrides[0] if overrides else "defaults",
)
def test_the_command_of_a_run_gives_its_settings_again(overrides: tuple[str, ...]) -> None:
    config = compose_config(*overrides)
    words = shlex.split(command(asdict(config), identifying=True))
    again = compose_config(*words[words.index("train") + 1 :])
    assert settings_with_effect(again) == settings_with_effect(config)
    assert (again.data, again.split) == (config.data, config.split)


def test_only_what_differs_from_the_shipped_defaults_is_marked() -> None:
    assert not [each for each in compare_with_defaults(asdict(compose_config()), False) if each.differs]
    config = asdict(compose_config(*small("seed=5")))
    changed = {each.key: (each.value, each.default) for each in compare_with_defaults(config, False) if each.differs}
    assert changed["seed"] == ("5", "0")
    assert changed["lr"] == ("0.03", "0.002")
    assert "split.seed" not in changed
    assert "batch_size" not in changed


def test_a_missing_score_is_a_dash_and_not_a_number(tmp_path: Path) -> None:
    folder = write_config(tmp_path / "run")
    (folder / "cases.csv").write_text("split,case_id,class_name,dice\nval,c0,liver,nan\nval,c1,liver,0.5\n")
    page = to_page(folder)
    assert "nan" not in page.replace("nan=", "")
    assert math.isclose(0.5, float(page.split('data-value="')[1].split('"')[0]))


def test_on_paper_nothing_is_cut_off_and_there_are_no_controls(cases: Path, one_volume: Path) -> None:
    for folder in (cases, one_volume):
        with opened(folder / "report.html", dark=True) as page:
            assert print_faults(page) == []
            assert page.evaluate("getComputedStyle(document.querySelector('h1')).color") == "rgb(27, 31, 36)"
