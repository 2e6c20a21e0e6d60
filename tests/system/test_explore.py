"""`explore` and `spleen explore` end to end: what is paired, printed, written and refused."""

import csv
import gzip
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from matplotlib.image import imread
from typer.testing import CliRunner

from spleen.cli.explore import explore as explore_command
from spleen.cli.explore import parse_organ, run_explore
from spleen.errors import InputError
from spleen.exploration.explore import explore
from spleen.exploration.report.files import to_json
from spleen.exploration.report.page import to_page
from tests._helpers.nifti import ras_affine, save, save_stored_as
from tests._helpers.small_run import REPOSITORY, small_ct
from tests.exploration.test_outliers import write_case

NOTHING = {"--csv": None, "--json": None, "--output": None, "--png": None}


@pytest.fixture(scope="module")
def ct(tmp_path_factory):
    return small_ct(tmp_path_factory.mktemp("ct"), image_axes="LPS", label_axes="RSA")


def command(*arguments):
    import typer

    app = typer.Typer()
    app.command()(explore_command)
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


# One case -----------------------------------------------------------------------------------------------------------


def test_facts_do_not_depend_on_the_stored_orientation(ct, tmp_path):
    plain = small_ct(tmp_path)
    first, second = explore(ct.image, ct.label), explore(plain.image, plain.label)
    assert first.cases[0].labels == second.cases[0].labels
    assert first.cases[0].intensity == second.cases[0].intensity
    assert first.cases[0].image_fingerprint == second.cases[0].image_fingerprint
    assert first.suggestion.settings == second.suggestion.settings


def test_the_text_describes_the_volume_and_each_label_value(ct, monkeypatch):
    monkeypatch.setenv("COLUMNS", "110")
    text = str(explore(ct.image, ct.label))
    for line in (
        "shape         48 × 40 × 24 voxels",
        "data type     float32, 32 bits per voxel, no scaling",
        "units         space: not set, time: not set",
        "orientation   LPS: array axes 0, 1, 2 run to the patient's Left, Posterior, Superior",
        "spleen train data=nifti data.image=",
        "Verdict: 0 errors",
    ):
        assert line in text
    counts = {value: int((ct.values == value).sum()) for value in (3, 4, 7)}
    for value, count in counts.items():
        assert re.search(rf"^\s+{value}\s+{count:,}\s+{count * 1.5 * 1.25 * 3:,.0f}\s", text, re.M)


def test_the_csv_has_one_row_and_the_json_the_full_report(ct, tmp_path):
    outputs = {**NOTHING, "--csv": tmp_path / "new" / "a.csv", "--json": tmp_path / "a.json"}
    assert run_explore([ct.image], [ct.label], "3,4", outputs) is False
    (row,) = csv.DictReader((tmp_path / "new" / "a.csv").read_text().splitlines())
    content = json.loads((tmp_path / "a.json").read_text())
    case = content["cases"]["scan7"]
    volume = (ct.values == 3).sum() * 1.5 * 1.25 * 3
    assert float(row["label_3_volume_mm3"]) == pytest.approx(volume)
    assert case["labels"]["values"][0]["volume_mm3"] == pytest.approx(volume)
    assert float(row["organ_n_voxels"]) == np.isin(ct.values, (3, 4)).sum()
    assert row["label_values"] == "3 4 7"
    assert row["shape"] == "48x40x24"
    assert float(row["axial_spacing_mm"]) == 3
    assert content["suggestion"]["command"] == explore(ct.image, ct.label, (3, 4)).suggestion.command
    assert content["verdict"]["n_errors"] == 0


def test_the_json_is_valid_when_the_header_contains_nan(tmp_path):
    path = save(tmp_path / "ct.nii", np.arange(105.0).reshape(5, 7, 3), ras_affine())
    content = bytearray(path.read_bytes())
    content[80:84] = np.float32(np.nan).tobytes()  # pixdim[1]
    path.write_bytes(content)
    text = to_json(explore(path))
    json.loads(text, parse_constant=lambda name: pytest.fail(name))


def test_the_page_is_self_contained_and_escapes_names(ct, tmp_path):
    folder = tmp_path / "<script>alert(1)</script>&"
    folder.mkdir(parents=True)
    image = folder / "ct.nii.gz"
    image.write_bytes(ct.image.read_bytes())
    page = to_page(explore(image, ct.label))
    assert "<script>alert" not in page
    assert "&lt;script&gt;alert(1)" in page
    assert not re.search(r"(src|href)=[\"'](?!data:)", page)
    assert page.count("<svg viewBox") == 3
    assert page.count("data:image/png;base64,") == 3
    planes = [np.moveaxis(ct.values, axis, 0) for axis in range(3)]
    shown = [stack[np.argmax([(plane > 0).sum() for plane in stack])] for stack in planes]
    n_outlines = sum(len(np.unique(plane[plane > 0])) for plane in shown)
    assert page.count('vector-effect="non-scaling-stroke"') == n_outlines > 3


def test_the_figure_outlines_the_organ(ct, tmp_path):
    run_explore([ct.image], [ct.label], "3,4", {**NOTHING, "--png": tmp_path / "a.png"})
    picture = imread(tmp_path / "a.png")
    assert picture.shape[1] == 1650
    orange = np.abs(picture[..., :3] - np.array([0xE6, 0x9F, 0]) / 255).max(axis=-1) < 0.02
    assert orange.sum() > 200


def test_text_and_page_are_produced_without_a_label(ct):
    exploration = explore(str(ct.image))
    assert "LABEL.nii.gz" in str(exploration)
    assert exploration.verdict.n_errors == 0
    assert to_page(exploration).count("<svg viewBox") == 3


# The command --------------------------------------------------------------------------------------------------------


def test_the_command_exits_with_0_for_warnings_and_1_for_errors(ct, tmp_path):
    fine = command(ct.image, "--label", ct.label)
    assert fine.exit_code == 0
    assert "spatial unit not set" in fine.output
    empty = save(tmp_path / "empty.nii", np.zeros((48, 40, 24), np.uint8), ras_affine((1.5, 1.25, 3.0)))
    bad = command(ct.image, "--label", empty)
    assert bad.exit_code == 1
    assert "Verdict: 1 error" in bad.output
    assert "every voxel of the label is 0" in bad.output
    assert "Suggested settings" not in bad.output


def test_bad_files_do_not_stop_the_others(tmp_path):
    for number in range(6):
        write_case(tmp_path, f"case_{number}", number)
    truncated = tmp_path / "images" / "case_1.nii.gz"
    truncated.write_bytes(truncated.read_bytes()[:-300])
    nib.save(nib.Nifti1Image(np.zeros((4, 4, 4, 3), np.uint8), np.eye(4)), tmp_path / "images" / "case_2.nii.gz")
    with_nan = np.full((12, 11, 9), np.nan, np.float32)
    with_nan[:6] = 40
    with_nan[0] = -1000
    save(tmp_path / "images" / "case_3.nii.gz", with_nan, ras_affine((1.0, 1.0, 3.0)))
    (tmp_path / "labels" / "case_4.nii.gz").write_bytes(gzip.compress(b"no volume"))
    page = tmp_path / "page.html"
    result = command(tmp_path / "images", "--label", tmp_path / "labels", "--output", page, "--csv", tmp_path / "a.csv")
    assert result.exit_code == 1
    assert "Verdict: 4 errors" in result.output
    assert "image cannot be used (2 of 6 cases)" in result.output
    rows = {row["case_id"]: row for row in csv.DictReader((tmp_path / "a.csv").read_text().splitlines())}
    assert [rows[f"case_{number}"]["errors"] for number in range(6)] == [
        "",
        "image cannot be used",
        "image cannot be used",
        "NaN or Inf",
        "label cannot be used",
        "",
    ]
    assert float(rows["case_5"]["label_1_volume_mm3"]) > 0
    assert float(rows["case_1"]["label_1_volume_mm3"]) > 0
    assert rows["case_2"]["shape"] == "4x4x4x3"
    assert "case_5" in page.read_text()


def test_a_verdict_and_a_page_are_produced_even_if_all_files_are_bad(tmp_path):
    for name in ("a.nii", "b.nii.gz"):
        (tmp_path / name).write_bytes(b"no volume at all")
    outputs = {
        "--output": tmp_path / "p.html",
        "--png": tmp_path / "p.png",
        "--json": tmp_path / "p.json",
        "--csv": None,
    }
    assert run_explore([tmp_path], [], None, outputs) is True
    assert json.loads((tmp_path / "p.json").read_text())["suggestion"] is None
    assert (tmp_path / "p.html").exists()
    assert (tmp_path / "p.png").exists()


def test_two_cases_are_summarised_together(tmp_path, capsys):
    for number in range(2):
        write_case(tmp_path, f"case_{number}", number)
    run_explore([tmp_path / "images"], [tmp_path / "labels"], None, {**NOTHING, "--png": tmp_path / "a.png"})
    text = capsys.readouterr().out
    assert "2 cases, 2 with a label" in text
    assert "label 1 volume (mm³)" in text


@pytest.mark.parametrize("text", ["0", "a", "1,,2", "", "1.5"])
def test_an_organ_must_be_a_list_of_positive_whole_numbers(text):
    with pytest.raises(InputError, match="--organ must be whole numbers"):
        parse_organ(text)


def test_an_unwritable_output_is_an_error_before_anything_is_read(ct, tmp_path, capsys):
    (tmp_path / "file").touch()
    for outputs in ({"--csv": tmp_path}, {"--json": tmp_path / "file" / "a.json"}, {"--png": tmp_path / "a.bmp"}):
        with pytest.raises(InputError):
            run_explore([ct.image], [], None, {**NOTHING, **outputs})
    assert capsys.readouterr().out == ""
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


@pytest.mark.slow
def test_a_full_disk_leaves_the_printed_text_and_no_partial_file(ct, tmp_path):
    script = (
        "import resource, sys\n"
        "from spleen.cli.explore import run_explore\n"
        "from spleen.errors import InputError\n"
        "from pathlib import Path\n"
        "import signal; signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000))\n"
        "try:\n"
        "    run_explore([Path(sys.argv[1])], [], None, {'--output': Path(sys.argv[2])})\n"
        "except InputError as error:\n"
        "    print('told:', error)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(ct.image), str(tmp_path / "page.html")],
        capture_output=True,
        text=True,
        cwd=REPOSITORY,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        timeout=120,
        check=True,
    )
    assert "Verdict: 0 errors" in done.stdout
    assert re.search(r"told: .*page\.html could not be written: .*File too large", done.stdout)
    assert list(tmp_path.iterdir()) == []


def test_the_command_module_imports_nothing_heavy():
    script = "import sys, spleen.cli.explore as _; print(*sorted({name.split('.')[0] for name in sys.modules}))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=REPOSITORY, check=True)
    assert "typer" in done.stdout.split()
    assert not set(done.stdout.split()) & {"numpy", "torch", "nibabel", "scipy", "matplotlib"}


def test_an_uncompressed_image_and_a_two_file_label_are_read(tmp_path):
    image = save_stored_as(tmp_path / "ct.nii", "RAS", np.arange(105.0).reshape(5, 7, 3))
    label = np.zeros((5, 7, 3), np.int16)
    label[1:4, 2:5, 1] = 1
    nib.save(nib.Nifti1Pair(label, ras_affine()), tmp_path / "label.hdr")
    exploration = explore(image, tmp_path / "label.hdr")
    assert exploration.cases[0].labels.values[0].n_voxels == 9
    assert isinstance(exploration.cases[0].image, Path)
