"""The report of a study: table, conclusions, files and figures. Every expected text is written by hand."""

import csv
import math
import re
from pathlib import Path

import numpy as np
import pytest
from matplotlib import colormaps
from matplotlib.colors import to_rgb

from spleen.errors import InputError
from spleen.runs.results.curves import draw_validation_curves
from spleen.runs.results.files import as_csv, as_latex, as_markdown, escape_latex, output_files, write_results
from spleen.runs.results.heat_map import COLOURS, draw_heat_map, text_colour
from spleen.runs.results.results import StudyResults, results
from spleen.runs.results.text import conclusions, listing, print_results
from tests._helpers.run_folders import write_config, write_run


@pytest.fixture
def study(tmp_path: Path) -> StudyResults:
    """Three arms: 64 px with two seeds, 128 px and 512 px with one; one run unfinished."""
    folder = tmp_path / "study_1"
    for seed, (val, test) in enumerate([(0.80, 0.70), (0.82, 0.74)]):
        write_run(folder / f"b{seed}", val, test, lr=1e-4, img_size=64, seed=seed, minutes=1.0, axis="coronal")
    cases = [("test", "a", "x", 0.9)]
    write_run(folder / "a", 0.9, 0.65, cases=cases, img_size=128, lr=1.5e-3, axis="coronal")
    write_run(folder / "c", None, None, img_size=512, axis="coronal")
    write_config(folder / "d_late")
    return results(folder)


def lines_with(text: str, *words: str) -> list[str]:
    return [line for line in text.splitlines() if all(word in line for word in words)]


# Terminal -----------------------------------------------------------------------------------------------------------


def test_the_table_lists_the_best_arm_first(
    study: StudyResults, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    print_results(study)
    shown = capsys.readouterr().out
    assert f"{study.folder}: 4 finished runs in 3 arms, best validation Dice first" in shown
    rows = [line.split() for line in lines_with(shown, "unet", "coronal")]
    # t(0.975; 1) = 12.7062; s / √2 = 0.02
    assert rows == [
        ["*", "unet", "coronal", "128", "1.5e-03", "1", "0.9000", "0.6500", "-", "0.3250", "2.0"],
        ["unet", "coronal", "64", "1e-04", "2", "0.8100", "0.7200", "0.2541", "0.3600", "1.0"],
        ["unet", "coronal", "512", "1e-03", "1", "n/a", "n/a", "-", "n/a", "2.0"],
    ]
    assert "  d_late: 0 of 4 epochs" in shown.splitlines()


def test_on_a_narrow_terminal_shared_settings_are_printed_above_the_table(
    study: StudyResults, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    print_results(study)
    shown = capsys.readouterr().out
    assert "all: model unet, axis coronal" in shown
    table = shown[shown.index("all: model") : shown.index("Chosen by")]
    assert max(map(len, table.splitlines())) <= 80
    assert ["*", "128", "1.5e-03", "1", "0.9000", "0.6500"] in [line.split()[:6] for line in table.splitlines()]


def test_the_conclusions_state_the_chosen_arm_its_gap_and_the_comparison(study: StudyResults) -> None:
    chosen, next_arm, reading = conclusions(study)
    assert chosen == (
        "Chosen by validation (*): 128 px, lr 1.5e-03. Validation Dice 0.9000, test Dice 0.6500; gap validation − test "
        "+0.2500. It has 1 run where others have 2."
    )
    assert next_arm.startswith("Against the next, 64 px, lr 1e-04: not compared")
    assert reading.startswith("Arms are chosen by validation Dice; the number to report is the test Dice")
    assert "t-interval of the mean over seeds" in reading


@pytest.mark.parametrize(
    ("n_pairs", "message"),
    [
        (1, "test Dice +0.1000, from 1 pair of cases: too few to tell them apart, 6 are needed."),
        (2, "test Dice +0.1500, 95 % interval −0.4853 to +0.7853, from 2 pairs of cases: too few"),
        (8, "test Dice +0.4500, 95 % interval +"),
        (8, "8 pairs of cases, signed-rank p = 0.0078: distinguishable."),
    ],
)
def test_the_comparison_states_its_number_of_pairs(tmp_path: Path, n_pairs: int, message: str) -> None:
    # Differences 0.1, 0.2, …; of eight with one sign p is 2 / 2⁸ = 0.0078. For two s / √2 is 0.05.
    ours = [("test", f"c{number}", "x", 0.1 * (number + 1)) for number in range(n_pairs)]
    write_run(tmp_path / "a", 0.9, lr=1e-3, cases=ours)
    write_run(tmp_path / "b", 0.8, lr=1e-4, cases=[(stage, case, name, 0.0) for stage, case, name, _ in ours])
    assert message in conclusions(results(tmp_path))[1]


def test_different_test_slices_are_reported(tmp_path: Path) -> None:
    for axis, val in (("axial", 0.9), ("coronal", 0.8)):
        write_run(tmp_path / axis, val, axis=axis, cases=[("test", "a", "x", val)])
    assert "tested on different slices" in conclusions(results(tmp_path))[1]


def test_a_long_list_of_unfinished_runs_is_shortened(tmp_path: Path) -> None:
    for number in range(25):
        write_config(tmp_path / f"run{number:02}")
    ((heading, lines),) = listing(results(tmp_path))
    assert heading.startswith("25 runs unfinished")
    assert lines[0].startswith("run00: ")
    assert lines[-1] == "and 5 more"
    assert len(lines) == 21


# Files --------------------------------------------------------------------------------------------------------------


def test_markdown_links_figures_relative_to_its_own_folder(
    study: StudyResults, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_results(study, output_files(markdown=tmp_path / "docs" / "table.md", plots=tmp_path / "my plots"))
    written = [Path(line.removeprefix("wrote ")) for line in capsys.readouterr().out.splitlines()]
    assert [path.name for path in written] == ["validation_curves.png", "test_dice_by_size_and_rate.png", "table.md"]
    text = (tmp_path / "docs" / "table.md").read_text()
    links = re.findall(r"!\[[^\]]+\]\(([^)]+)\)", text)
    assert links == [f"../my%20plots/{path.name}" for path in written[:2]]
    assert all((tmp_path / "my plots" / path.name).read_bytes().startswith(b"\x89PNG") for path in written[:2])
    (row,) = lines_with(text, "1.5e-03", "| *")
    assert [cell.strip() for cell in row.strip("|").split("|")][:6] == ["*", "unet", "coronal", "128", "1.5e-03", "1"]
    assert r"study\_1: 4 finished runs" in text
    assert r"- d\_late: 0 of 4 epochs" in text.splitlines()


def test_csv_contains_every_setting_and_both_interval_bounds(study: StudyResults, tmp_path: Path) -> None:
    first, second, third = csv.DictReader(as_csv(study).splitlines())
    assert (first["selected"], second["selected"]) == ("true", "false")
    assert (second["model.name"], second["img_size"], float(second["lr"]), second["seeds"]) == ("unet", "64", 1e-4, "2")
    assert float(second["test_dice"]) == pytest.approx(0.72)
    assert float(second["test_dice_low"]) == pytest.approx(0.72 - 12.7062 * 0.02, abs=1e-5)
    assert float(second["val_dice_high"]) == pytest.approx(0.81 + 12.7062 * 0.01, abs=1e-5)
    assert (first["test_dice_low"], third["test_dice"]) == ("", "")


def test_latex_is_a_booktabs_table_with_the_best_values_bold(study: StudyResults) -> None:
    text = as_latex(study)
    for rule in (r"\toprule", r"\midrule", r"\bottomrule", r"\begin{tabular}{llrrrrrrr}"):
        assert text.count(rule) == 1
    assert (
        r"Model & Axis & Image size & Learning rate & Seeds & Val Dice & Test Dice $\pm$ 95\,\% & Test Jaccard" in text
    )
    first, second, third = (line.strip() for line in lines_with(text, "unet"))
    assert first == (
        r"unet\textsuperscript{*} & coronal & 128 & $1.5 \times 10^{-3}$ & 1 "
        r"& \textbf{0.9000} & 0.6500 & 0.3250 & 2.0 \\"
    )
    assert second == (
        r"unet & coronal & 64 & $10^{-4}$ & 2 & 0.8100 & \textbf{0.7200} $\pm$ 0.2541 & \textbf{0.3600} & 1.0 \\"
    )
    assert third == r"unet & coronal & 512 & $10^{-3}$ & 1 & -- & -- & -- & 2.0 \\"


def test_latex_special_characters_are_escaped(tmp_path: Path) -> None:
    assert escape_latex(r"a_b & 50% #1 $x {y} ~ ^ \z") == (
        r"a\_b \& 50\% \#1 \$x \{y\} \textasciitilde{} \textasciicircum{} \textbackslash{}z"
    )
    write_run(tmp_path / "a", model={"name": "unet_wide"}, batch_size=4)
    write_run(tmp_path / "b", model={"name": "unet_wide"}, batch_size=8)
    text = as_latex(results(tmp_path))
    assert r"unet\_wide" in text
    assert r"Batch\_size" in text


def test_folds_are_shown_with_an_interval_over_cases(tmp_path: Path) -> None:
    for fold in (0, 1):
        cases = [("test", f"c{fold}{number}", "x", 0.5 + 0.05 * number) for number in range(4)]
        write_run(tmp_path / f"fold{fold}", 0.5, 0.5, cases=[*cases, ("val", "v", "x", 0.5)], fold=fold)
    study = results(tmp_path)
    (row,) = lines_with(as_markdown(study), "unet", "|")
    cells = [cell.strip() for cell in row.strip("|").split("|")]
    assert cells[5:10] == ["1", "2", "8", "0.5000", "0.5750"]
    low, high = (float(end) for end in cells[10].split(" to "))
    assert 0.5 < low < 0.575 < high < 0.65
    assert "bootstrapped over cases" in conclusions(study)[-1]
    assert re.search(r"0\.5750\} \[0\.5\d+, 0\.6\d+\]", as_latex(study))


def test_a_file_that_cannot_be_written_does_not_cost_the_others(
    study: StudyResults, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("")
    markdown, latex = tmp_path / "t.md", tmp_path / "t.tex"
    outputs = output_files(markdown, csv=tmp_path / "file" / "t.csv", latex=latex, plots=tmp_path / "file")
    with pytest.raises(InputError, match="could not be written") as caught:
        write_results(study, outputs)
    failed = [line.split(": ")[0] for line in str(caught.value).splitlines()[:-1]]
    assert failed == ["--plots, curves", "--plots, heat map", "--csv"]
    assert capsys.readouterr().out.splitlines() == [f"wrote {markdown}", f"wrote {latex}"]
    assert r"\toprule" in latex.read_text()
    assert "![" not in markdown.read_text()  # no link to a figure that is not there


# Figures: an SVG contains each line of text as a comment too --------------------------------------------------------


def texts(path: Path) -> list[str]:
    return re.findall(r"<!-- (.*) -->", path.read_text())


def test_curves_label_the_best_twelve_arms_in_order(tmp_path: Path) -> None:
    for number in range(14):
        write_run(tmp_path / f"r{number}", 0.9 - 0.01 * number, batch_size=number + 1, val_by_epoch=[0.1, 0.2])
    draw_validation_curves(results(tmp_path), tmp_path / "curves.svg")
    shown = [text for text in texts(tmp_path / "curves.svg") if "batch" in text]
    assert shown == [f"{0.9 - 0.01 * number:.4f}  batch_size {number + 1}" for number in range(12)]
    assert "grey: 2 more, of lower validation Dice" in texts(tmp_path / "curves.svg")


def test_curves_are_drawn_even_for_runs_without_epochs(tmp_path: Path) -> None:
    write_run(tmp_path / "a", lr=1e-3)
    (write_run(tmp_path / "b", lr=1e-4) / "metrics.csv").unlink()
    (write_run(tmp_path / "c", lr=1e-5) / "metrics.csv").write_text("epoch,val/dice\nx,y\n")
    draw_validation_curves(results(tmp_path), tmp_path / "curves.svg")
    assert "epoch" in texts(tmp_path / "curves.svg")


def test_the_heat_map_has_a_panel_per_axis_and_every_value(tmp_path: Path) -> None:
    values = {}
    for axis, start in (("axial", 0.5), ("coronal", 0.6)):
        for number, (size, rate) in enumerate([(64, 1e-3), (64, 1e-4), (128, 1e-3)]):
            values[axis, size, rate] = start + 0.0123 * number
            write_run(tmp_path / f"{axis}{number}", 0.5, start + 0.0123 * number, axis=axis, img_size=size, lr=rate)
    assert draw_heat_map(results(tmp_path), tmp_path / "map.svg")
    shown = texts(tmp_path / "map.svg")
    assert {"unet, axial", "unet, coronal", "64", "128", "1e-03", "1e-04"} <= set(shown)
    assert {f"{value:.4f}" for value in values.values()} <= set(shown)
    assert shown.count("–") == 2  # 128 px with 1e-4 is missing in both


def test_every_number_of_the_heat_map_contrasts_with_its_cell() -> None:
    for level in np.linspace(0, 1, 256):
        channels = np.array([to_rgb(each) for each in (colormaps[COLOURS](level), text_colour(level))])
        linear = np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)
        darker, lighter = sorted(linear @ (0.2126, 0.7152, 0.0722))
        assert (lighter + 0.05) / (darker + 0.05) >= 4.5  # which WCAG 2.2 asks for small text
    assert text_colour(math.nan) == "black"


@pytest.mark.parametrize("settings", [[(64, 1e-3), (128, 1e-3)], [(64, 1e-3), (64, 1e-4)], [(64, 1e-3)]])
def test_without_several_sizes_and_learning_rates_there_is_no_heat_map(
    tmp_path: Path, settings: list[tuple[int, float]]
) -> None:
    for size, rate in settings:
        write_run(tmp_path / f"{size}_{rate}", img_size=size, lr=rate)
    assert not draw_heat_map(results(tmp_path), tmp_path / "map.png")
    assert not (tmp_path / "map.png").exists()
