"""The page of a study: its numbers are those of the results, links can be moved, and nothing tells of the machine."""

import html
import json
import math
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from urllib.parse import unquote

import pytest
from omegaconf import OmegaConf
from typer.testing import CliRunner

from spleen.cli.main import app
from spleen.runs.results.page import to_page
from spleen.runs.results.results import results
from spleen.runs.sweeps.outcome import Multirun, report
from tests._helpers.run_folders import set_age, write_config, write_json, write_run


def rows_below(page: str, heading: str) -> list[list[str]]:
    """The cells of the first table below a heading, row by row, as text."""
    part = page.split(f"<h2>{heading}</h2>")[1].split("</table>")[0].split("<tbody>")[1]
    return [[text_of(cell) for cell in re.findall(r"<td.*?</td>", row, re.S)] for row in part.split("<tr")[1:]]


def text_of(markup: str) -> str:
    return html.unescape(re.sub(r"<[^>]*>", "", markup)).strip()


def links_of(page: str) -> list[str]:
    return [html.unescape(address) for address in re.findall(r'<a href="([^"]*)"', page)]


def size_and_rate(folder: Path) -> Path:
    """Two sizes, two rates and two seeds with their pages, one failed run."""
    for number, (size, rate) in enumerate(((64, 1e-4), (64, 1e-3), (128, 1e-4), (128, 1e-3))):
        for seed in (0, 1):
            dice = 0.7 + number / 20 + seed / 100
            cases = [("test", f"case{n}", "spleen", dice + n / 1000) for n in range(7)]
            settings = {"img_size": size, "lr": rate, "seed": seed}
            run = write_run(
                folder / f"{size} px, {rate:g}, #{seed} 100%",
                dice + 0.02,
                dice,
                cases,
                val_by_epoch=[dice / 2, dice],
                **settings,
            )
            (run / "report.html").write_text(f"<title>{run.name}</title>")
    failed = write_config(folder / "too large", img_size=4096)
    write_json(failed / "failed.json", {"message": f"no room for {failed}/store\nmore", "exit_code": 1})
    return folder


# Numbers ------------------------------------------------------------------------------------------------------------


def test_the_numbers_of_each_arm_are_those_of_the_results(tmp_path: Path) -> None:
    study = results(size_and_rate(tmp_path))
    page = to_page(study)
    rows = rows_below(page, "Arms")
    assert len(rows) == 4
    for row, arm in zip(rows, study.arms, strict=True):
        interval = arm.test_dice.interval
        assert interval is not None
        half = (interval.high - interval.low) / 2
        size, rate = arm.settings["img_size"], arm.settings["lr"]
        numbers = [f"{arm.val_dice.mean:.4f}", f"{arm.test_dice.mean:.4f}", f"± {half:.4f}"]
        assert row[2:-2] == [
            str(size),
            {1e-4: "1e-04", 1e-3: "1e-03"}[rate],
            "2",
            *numbers,
            f"{arm.test_jaccard.mean:.4f}",
        ]
        assert f'data-value="{arm.test_dice.mean}"' in page
    # Worked by hand: 128 px and 1e-3 have 0.85 and 0.86 on the test split, 0.02 more on validation.
    assert rows[0][5:7] == ["0.8750", "0.8550"]
    assert [row[0] for row in rows] == ["★", "", "", ""]
    assert "All arms: model <b>unet</b>, axis <b>axial</b>." in page


def test_the_headline_names_the_chosen_arm_and_the_failed_run(tmp_path: Path) -> None:
    page = to_page(size_and_rate(tmp_path))
    assert "8 finished runs in 4 arms, best validation Dice first" in page
    tiles = [text_of(tile) for tile in re.findall(r'<div class="card(?: first)?"><span.*?</div>', page)]
    # t(0.975; 1) = 12.7062; s / √2 = 0.005
    assert tiles == [
        "best by validation128 px, lr 1e-032 runs",
        "test Dice0.855095 % interval 0.7915 to 0.9185, over 2 runs",
        "validation Dice0.8750selected by it, so it is optimistic",
        "gap validation − test+0.0200",
    ]
    assert '<span class="badge error">1 failed</span>' in page
    assert "<li>too large: no room for too large/store</li>" in page


def test_the_best_two_are_compared_in_pairs_of_cases(tmp_path: Path) -> None:
    study = results(size_and_rate(tmp_path))
    page, comparison = to_page(study), study.comparison
    assert comparison is not None
    assert comparison.p_value is not None
    pills = [text_of(pill) for pill in re.findall(r'<span class="pill">.*?</b></span>', page)]
    assert pills[0] == "mean difference+0.0500"
    assert pills[2:] == ["signed-rank p0.016", "higher in7 of 7", "lower in0 of 7"]  # 2 / 2⁷ = 0.015625
    rows = rows_below(page, "The best two, pair by pair")
    assert rows[3] == ["case3", "0.8580", "0.8080", "+0.0500"]


def test_each_class_has_a_column(tmp_path: Path) -> None:
    run = write_run(tmp_path / "a", 0.9, 0.7)
    content = json.loads((run / "summary.json").read_text())
    content["test"] |= {name: {"dice": dice, "jaccard": 0.1} for name, dice in (("<i>", 0.8), ("back", None))}
    write_json(run / "summary.json", content)
    page = to_page(tmp_path)
    assert rows_below(page, "Test Dice by class") == [["★", "unet, axial, 64 px, lr 1e-03", "0.8000", "–"]]
    assert "&lt;i&gt;</th>" in page


# Every kind of study ------------------------------------------------------------------------------------------------


def folds(folder: Path) -> None:
    for axis in ("axial", "coronal"):
        for fold in (0, 1):
            for seed in (0, 1):
                cases = [(split, f"c{fold}", "x", 0.8 + fold / 10) for split in ("val", "test")]
                settings = {"axis": axis, "fold": fold, "seed": seed, "split__seed": 0, "split__folds": 3}
                write_run(folder / f"{axis}{fold}{seed}", 0.8, 0.8, cases, val_by_epoch=[0.5], **settings)


def search(folder: Path) -> None:
    for number in range(30):
        run = write_run(folder / f"trial{number}", 0.5 + number / 100, lr=10 ** (-5 + number / 10), val_by_epoch=[0.5])
        if number % 3 == 0:
            write_json(run / "summary.json", {"status": "pruned"})


def nothing_validated(folder: Path) -> None:
    write_run(folder / "a", None, 0.6, lr=1e-3)
    write_run(folder / "b", None, 0.9, lr=1e-4)


def nothing_tested(folder: Path) -> None:
    write_run(folder / "a", 0.6, None, lr=1e-3)
    write_run(folder / "b", 0.9, None, lr=1e-4)


def no_score(folder: Path) -> None:
    write_run(folder / "a", None, None, minutes=math.nan, lr=1e-3)
    write_run(folder / "b", None, None, lr=1e-4)


def one_arm(folder: Path) -> None:
    write_run(folder / "a", 1.0, 1.0, val_by_epoch=[1.0])


def only_failures(folder: Path) -> None:
    write_json(write_config(folder / "a") / "failed.json", {"message": "out of memory", "exit_code": 1})
    (folder / "b").mkdir()
    (folder / "b" / "config.yaml").write_text("a: [")


def repeated_and_old(folder: Path) -> None:
    """A run of an earlier version, with little in its folder, and the same run again."""
    for number, name in enumerate(("first", "second")):
        (folder / name).mkdir(parents=True)
        (folder / name / "config.yaml").write_text("lr: 1e-3\nimg_size: 64\n")
        means = {"dice": 0.5, "jaccard": 0.4}
        write_json(folder / name / "summary.json", {"status": "finished", "val": means, "test": means})
        set_age(folder / name / "summary.json", 60 * number)


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (size_and_rate, ["<h2>Image size and learning rate</h2>", "<h2>Settings and Dice</h2>"]),
        (folds, ["folds are missing", "2 of 3 folds are complete; missing: 2.", "95 % interval"]),
        (search, ["10 pruned</span>", "10 runs pruned: stopped early by the search", "trial0: 1 of 4 epochs"]),
        (nothing_validated, ["nothing validated", "so no arm is chosen", "coloured by test Dice"]),
        (nothing_tested, ["coloured by validation Dice", "best by validation"]),
        (no_score, ["2 finished runs in 2 arms, nothing validated"]),
        (one_arm, ["the only arm", "<h2>Learning curves</h2>"]),
        (only_failures, ["No finished run", "1 failed", "1 broken", "a: out of memory"]),
        (repeated_and_old, ["1 repeated", "second: first is a newer run with the same settings"]),
    ],
)
def test_every_kind_of_study_has_a_page_without_the_machines_folders(
    tmp_path: Path, make: Callable[[Path], object], expected: list[str]
) -> None:
    make(tmp_path)
    page = to_page(tmp_path)
    assert [text for text in expected if text not in page] == []
    assert str(tmp_path) not in page
    assert "/tmp/" not in page
    assert "nan" not in re.sub(r"<script>.*?</script>", "", page, flags=re.S)


def test_settings_that_are_paths_keep_only_their_names(tmp_path: Path) -> None:
    write_run(tmp_path / "a", data__image="/home/someone/scans/first.nii.gz")
    write_run(tmp_path / "b", data__image="scans/second.nii.gz")
    page = to_page(tmp_path)
    assert "…/first.nii.gz" in page
    assert "someone" not in page


# Links --------------------------------------------------------------------------------------------------------------


def test_links_lead_to_the_pages_of_runs_also_after_a_move(tmp_path: Path) -> None:
    study = size_and_rate(tmp_path / "study")
    (study / "64 px, 0.001, #1 100%" / "report.html").unlink()
    (study / "report.html").write_text(to_page(study))
    moved = Path(shutil.move(study, tmp_path / "moved"))
    links = links_of((moved / "report.html").read_text())
    assert len(links) == 2 * 7  # in the table of arms and in that of runs
    for link in links:
        target = moved / unquote(link)
        assert not link.startswith(("/", ".."))
        assert target.read_text() == f"<title>{target.parent.name}</title>"


def test_links_are_relative_to_where_the_page_is_written(tmp_path: Path) -> None:
    study = size_and_rate(tmp_path / "study")
    output = tmp_path / "for a colleague" / "page.html"
    done = CliRunner().invoke(app, ["results", str(study), "--html", str(output)])
    assert done.exit_code == 0, done.output
    assert f"wrote {output}" in done.output
    links = links_of(output.read_text())
    assert links[0].startswith("../study/")
    assert all((output.parent / unquote(link)).is_file() for link in links)


# At the end of a multirun -------------------------------------------------------------------------------------------


@pytest.fixture
def multirun(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A finished multirun of two arms, as its process knows it."""
    for name in ("sweep_folder", "writes_page"):
        monkeypatch.setattr(Multirun, name, getattr(Multirun, name))
    monkeypatch.setattr(Multirun, "jobs", None)
    write_run(tmp_path / "a", 0.9, lr=1e-3)
    write_run(tmp_path / "b", 0.8, lr=1e-4)
    return tmp_path


def started(folder: Path, **settings: object) -> None:
    Multirun().on_multirun_start(OmegaConf.create({"hydra": {"sweep": {"dir": str(folder)}}, **settings}))


def test_the_page_is_written_at_the_end_of_a_multirun(multirun: Path, capsys: pytest.CaptureFixture[str]) -> None:
    started(multirun)
    assert report() == 0
    assert "2 finished runs in 2 arms" in (multirun / "report.html").read_text()
    assert f"{multirun / 'report.html'}  shows them in a browser" in capsys.readouterr().out


def test_no_page_is_written_with_report_false(multirun: Path) -> None:
    started(multirun, report=False)
    assert report() == 0
    assert not (multirun / "report.html").exists()


def test_a_page_that_cannot_be_written_is_a_warning(multirun: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (multirun / "report.html").mkdir()
    started(multirun)
    assert report() == 0
    assert f"warning: {multirun / 'report.html'} was not written" in capsys.readouterr().err


def test_no_page_is_written_where_every_job_was_refused(
    multirun: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "refused").mkdir()
    started(multirun / "refused")
    assert report() == 0
    assert capsys.readouterr().err == ""
    assert list((multirun / "refused").iterdir()) == []
