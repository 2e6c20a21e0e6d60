"""`spleen predict`: messages and exit codes in this process, files left behind in real processes."""

import json
import os
import pty
import re
import resource
import shutil
import signal
import subprocess
import sys
import termios
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from click.testing import Result
from typer.testing import CliRunner

from spleen.cli.main import app
from spleen.errors import InputError
from spleen.inference.model import load_model
from spleen.inference.predict import predict
from spleen.inference.record import read_record
from tests._helpers.forged_checkpoints import forge_network, forge_spec
from tests._helpers.nifti import ras_affine, save
from tests._helpers.small_run import SPACING_MM, SmallCt
from tests._helpers.trained_runs import file_names, scan, three_views, voxels

SPLEEN = str(Path(sys.executable).with_name("spleen"))
AFFINE = ras_affine(SPACING_MM)


@pytest.fixture(scope="module")
def ct(tmp_path_factory: pytest.TempPathFactory) -> SmallCt:
    return scan(tmp_path_factory)


@pytest.fixture(scope="module")
def views(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return three_views(tmp_path_factory)


def spleen_predict(*arguments: str | Path) -> Result:
    """Run the command in this process."""
    return CliRunner().invoke(app, ["predict", *map(str, arguments)])


def run_in_subprocess(
    folder: Path, *arguments: str | Path, prepare: Callable[[], None] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run the command in a real process, in `folder`, without a terminal."""
    return subprocess.run(
        [SPLEEN, "predict", *map(str, arguments)],
        cwd=folder,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=300,
        preexec_fn=prepare,
    )


# Messages -----------------------------------------------------------------------------------------------------------


def test_the_summary_lists_each_case_and_the_speed(ct: SmallCt, views: list[Path], tmp_path: Path) -> None:
    save(tmp_path / "one.nii", ct.hu, AFFINE)
    save(tmp_path / "two.nii.gz", ct.hu, AFFINE)
    done = spleen_predict(views[0], tmp_path / "*.nii*", "--output", tmp_path / "out")
    assert (done.exit_code, done.stderr) == (0, "")
    rows = read_record(tmp_path / "out" / "predictions.csv")
    for row in rows:
        line = next(line for line in done.stdout.splitlines() if line.split()[:1] == [row["case_id"]])
        assert line.split()[1:5] == [
            "bright",
            f"{float(row['volume_mm3']) / 1000:.1f}",
            "1",
            f"{float(row['confidence_score']):.2f}",
        ]
    assert re.search(r"2 predicted, 0 kept, 0 failed: 48 slices in \d+\.\d s, \d+\.\d slices/s", done.stdout)
    assert f"2 masks in {tmp_path / 'out'}, with {tmp_path / 'out' / 'predictions.csv'}" in done.stdout


def test_a_page_beside_each_mask_shows_it_on_request(ct: SmallCt, views: list[Path], tmp_path: Path) -> None:
    done = spleen_predict(views[0], ct.image, "-o", tmp_path / "out", "--page")
    assert done.exit_code == 0, done.output
    (page,) = (tmp_path / "out").glob("*_page.html")
    assert f"1 page(s), such as {page}" in done.output
    assert "Image with its prediction: bright" in page.read_text()
    page.unlink()  # as after an interruption
    done = spleen_predict(views[0], ct.image, "-o", tmp_path / "out", "--page", "--skip-existing")
    assert f"1 page(s), such as {page}" in done.output
    assert page.exists()


def test_each_failed_image_is_listed_once_and_the_exit_code_is_1(
    ct: SmallCt, views: list[Path], tmp_path: Path
) -> None:
    (tmp_path / "images").mkdir()
    for name in "ac":
        save(tmp_path / "images" / f"{name}.nii", ct.hu, AFFINE)
    (tmp_path / "images" / "b.nii").write_bytes(b"no volume")
    done = spleen_predict(views[0], tmp_path / "images", "-o", tmp_path / "out")
    assert done.exit_code == 1
    assert file_names(tmp_path / "out") == {"a.nii.gz", "c.nii.gz", "predictions.csv"}
    assert "2 predicted, 0 kept, 1 failed" in done.stdout
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"failed: {tmp_path / 'images' / 'b.nii'} cannot be read as NIfTI")
    assert "Traceback" not in done.output


def test_fitted_weights_are_reported_and_used(ct: SmallCt, views: list[Path], tmp_path: Path) -> None:
    label = save(tmp_path / "label.nii.gz", ct.values, AFFINE)
    done = spleen_predict(*views, ct.image, "-o", tmp_path / "a.nii.gz", "--fit-weights", ct.image, label)
    assert done.exit_code == 0, done.output
    scores = re.search(r"mean Dice (0\.\d+) there, (0\.\d+) with equal weights", done.stdout)
    assert scores is not None
    assert float(scores[1]) >= float(scores[2])
    again = re.search(r"--weights (\S+)", done.stdout)
    assert again is not None
    assert sum(float(weight) for weight in again[1].split(",")) == pytest.approx(1, abs=1e-4)
    spleen_predict(*views, ct.image, "-o", tmp_path / "b.nii.gz", "--weights", again[1])
    mask = voxels(tmp_path / "a.nii.gz")
    np.testing.assert_array_equal(mask, voxels(tmp_path / "b.nii.gz"))
    reference = np.isin(ct.values, [3, 4])
    dice = 2 * np.count_nonzero((mask == 3) & reference) / (np.count_nonzero(mask) + np.count_nonzero(reference))
    assert dice == pytest.approx(float(scores[1]), abs=1e-3)


def test_all_options_can_be_combined(ct: SmallCt, views: list[Path], tmp_path: Path) -> None:
    done = spleen_predict(
        *views[:2], views[2] / "checkpoints" / "best.ckpt", ct.image, "-o", tmp_path / "m.nii", "--probabilities",
        "--tta", "--flip", "left_right", "--flip", "superior_inferior", "--keep-largest", "bright", "--fill-holes",
        "--min-volume-mm3", "20", "--batch-size", "3", "--device", "cpu", "--precision", "bf16",
        "--allow-custom-code", "--weights", "2,1,1",
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    assert file_names(tmp_path) == {"m.nii", "m_probabilities.nii.gz", "predictions.csv"}
    (row,) = read_record(tmp_path / "predictions.csv")
    assert 0 < float(row["agreement"]) < 1


def sweep(folder: Path, views: list[Path]) -> Path:
    """Copy the axial and coronal runs into a learning-rate sweep in which coronal has the better validation Dice."""
    for view, lr, val in zip(views, (0.03, 0.01), (0.2, 0.9), strict=False):
        shutil.copytree(view, folder / view.name)
        config, summary = folder / view.name / "config.yaml", folder / view.name / "summary.json"
        config.write_text(re.sub(r"(?m)^lr: .*$", f"lr: {lr}", config.read_text()))
        content = json.loads(summary.read_text())
        content["val"]["dice"] = val
        summary.write_text(json.dumps(content))
    return folder


def test_a_sweep_of_several_arms_is_averaged_only_on_request(ct: SmallCt, views: list[Path], tmp_path: Path) -> None:
    study = sweep(tmp_path / "sweep", views)
    refused = spleen_predict(study, ct.image, "-o", tmp_path / "no.nii")
    assert refused.exit_code == 2
    assert "is a sweep of 2 arms, which differ in lr (3e-02, 1e-02), so its 2 runs are not averaged" in refused.stderr
    best = spleen_predict(study, ct.image, "-o", tmp_path / "best.nii", "--best")
    assert best.stdout.startswith(
        "predicting with coronal, the only run of the best of 2 arms by validation Dice (0.9000): lr 1e-02\n"
    )
    spleen_predict(views[1], ct.image, "-o", tmp_path / "coronal.nii")
    np.testing.assert_array_equal(voxels(tmp_path / "best.nii"), voxels(tmp_path / "coronal.nii"))
    every = spleen_predict(study, ct.image, "-o", tmp_path / "all.nii", "--all")
    assert every.stdout.startswith(f"averaging 2 runs: all of {study}\n")
    with pytest.raises(InputError, match="is a sweep of 2 arms"):
        load_model(study)
    with pytest.raises(InputError, match="is a sweep of 2 arms"):
        predict(study, ct.image, tmp_path / "no.nii")
    (network,) = load_model(study, choose="best").networks
    assert network.name == "coronal"
    assert not (tmp_path / "no.nii").exists()


def test_runs_with_different_class_names_are_fused_under_one_name(
    ct: SmallCt, views: list[Path], tmp_path: Path
) -> None:
    other = forge_spec(views[1], tmp_path / "other.ckpt", lambda spec: spec["classes"][0].update(name="organ"))
    done = spleen_predict(views[0], other, ct.image, "-o", tmp_path / "m.nii", "--class", "organ=bright")
    assert done.exit_code == 0, done.output
    assert done.stdout.startswith("averaging 2 runs, as given: axial, other\n")
    (row,) = read_record(tmp_path / "predictions.csv")
    assert row["class_name"] == "bright"


@pytest.mark.parametrize("option", ["--allow-custom-code", "--trust"])  # --trust is the name in earlier versions
def test_custom_code_in_a_checkpoint_runs_only_with_the_option(
    ct: SmallCt, views: list[Path], tmp_path: Path, option: str
) -> None:
    trace = tmp_path / "trace"
    forged = forge_network(views[0], tmp_path / "forged.ckpt", {"_target_": "os.makedirs", "name": str(trace)})
    refused = spleen_predict(forged, ct.image, "-o", tmp_path / "mask.nii")
    assert (refused.exit_code, trace.exists()) == (2, False)
    assert "if you trust this run, add --allow-custom-code" in refused.stderr
    spleen_predict(forged, ct.image, "-o", tmp_path / "mask.nii", option)
    assert trace.exists()


@pytest.mark.parametrize("command", ["predict", "export"])
def test_help_shows_only_the_current_name_of_the_option(command: str) -> None:
    text = CliRunner().invoke(app, [command, "--help"]).stdout
    assert "--allow-custom-code" in text
    assert "--trust" not in text


# Invalid input ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("", "Missing argument"),
        ("RUN", "error: nothing to predict: after the run, give NIfTI files, a folder or a pattern"),
        ("IMAGE RUN", "is neither a run folder nor a checkpoint; give the runs first, then the inputs"),
        ("IMAGE", "is not a checkpoint; give a run folder, or a file that ends in .ckpt"),
        ("nowhere IMAGE", "error: nowhere: no such run folder or checkpoint (relative to "),
        ("RUN nowhere.nii", "error: nowhere.nii: no such file or folder (relative to "),
        ("RUN no*where.nii", "no .nii or .nii.gz file and no DICOM folder matches this pattern"),
        ("RUN EMPTY", "contains no .nii or .nii.gz file"),
        ("EMPTY IMAGE", "is not a run folder: it has no checkpoints/best.ckpt"),
        ("RUN IMAGE OTHER -o m.nii.gz", "2 images cannot all become the one file m.nii.gz; give a folder as --output"),
        ("RUN IMAGE --weights 1,x", "--weights must be numbers separated by commas, such as 2,1,1; got '1,x'"),
        ("RUN IMAGE --weights 1,1", "2 weights were given for 1 runs"),
        ("RUN IMAGE --flip left_right", "--flip mirrors as part of the test-time augmentation; add --tta"),
        ("RUN IMAGE --tta --flip up", "a flip must be among left_right, anterior_posterior, superior_inferior; got"),
        ("RUN IMAGE --keep-largest liver", "keep-largest: no class 'liver'; the run has bright, or give all"),
        ("RUN IMAGE --min-volume-mm3 -1", "min-volume-mm3 must be 0 or more; got -1"),
        ("RUN IMAGE --batch-size 0", "batch-size must be at least 1 slice; got 0"),
        ("RUN IMAGE --device tpu", "'tpu' is not one of"),
        ("RUN IMAGE --overwrite --skip-existing", "give either --overwrite or --skip-existing, not both"),
        ("RUN IMAGE --fit-weights IMAGE LABEL", "fitting weights needs at least two runs"),
        ("RUN RUN2 IMAGE --fit-weights IMAGE LABEL --weights 1,1", "give either --weights or --fit-weights, not both"),
        ("RUN RUN2 IMAGE --fit-weights EMPTY LABEL", "expected two files or two folders"),
        ("RUN RUN2 IMAGE --fit-weights nowhere LABEL", "nowhere: no such file or folder"),
        ("RUN IMAGE --best --all", "give either --best or --all, not both"),
        ("RUN IMAGE --best", "--best chooses among the runs of a folder;"),
        ("RUN IMAGE --class liver=bright", "there is no class 'liver' to rename: the classes are bright"),
        ("RUN IMAGE --class liver", "--class must be the old and the new name of a class, each old one once"),
        ("RUN IMAGE -o FILE/out.nii.gz", "nothing can be written into "),
    ],
)  # fmt: skip
def test_invalid_input_is_reported_in_one_line_with_exit_code_2(
    ct: SmallCt, views: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: str, message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").touch()
    other = save(tmp_path / "other.nii", ct.hu, AFFINE)
    placeholders = {
        "RUN": views[0], "RUN2": views[1], "IMAGE": ct.image, "OTHER": other, "LABEL": ct.label, "EMPTY": "empty",
    }  # fmt: skip
    done = spleen_predict(*(str(placeholders.get(word, word)).replace("FILE", "file") for word in arguments.split()))
    assert done.exit_code == 2, done.output
    assert message in " ".join(re.sub(r"[│╭╮╰╯─]", " ", done.stderr).split())
    assert "Traceback" not in done.output
    assert file_names(tmp_path) == {"empty", "file", "other.nii"}


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (("-o", "m.nii"), "1 of 1 outputs exist already"),
        (("-o", "m.nii/m.nii"), "nothing can be written into m.nii"),
        (("--keep-largest", "liver"), "keep-largest: no class 'liver'"),
        (("--batch-size", "0"), "batch-size must be at least 1 slice"),
        (("--labelled", "labelled.csv"), "nothing says which classes are labelled in scan7"),
    ],
)
def test_wrong_options_are_reported_before_weights_are_fitted(
    ct: SmallCt,
    views: list[Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    wrong: tuple[str, ...],
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "m.nii").touch()
    (tmp_path / "labelled.csv").write_text("case_id,labelled\nother,bright\n")
    done = spleen_predict(*views, ct.image, "--fit-weights", ct.image, ct.label, *wrong)
    assert done.exit_code == 2
    assert message in done.stderr
    assert "weights fitted" not in done.stdout
    assert file_names(tmp_path) == {"m.nii", "labelled.csv"}


# In a real process --------------------------------------------------------------------------------------------------


def test_an_untrusted_network_is_rejected_without_being_built(ct: SmallCt, views: list[Path], tmp_path: Path) -> None:
    trace = tmp_path / "trace"
    network = {"_target_": "os.makedirs", "name": str(trace)}
    evil = forge_network(views[0], tmp_path / "evil.ckpt", network)
    done = run_in_subprocess(tmp_path, evil, ct.image)
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"error: {evil}: its network is 'os.makedirs', and only classes of ")
    assert file_names(tmp_path) == {"evil.ckpt"}


@pytest.mark.slow
def test_a_full_disk_keeps_finished_files_and_leaves_no_partial_ones(
    ct: SmallCt, views: list[Path], tmp_path: Path
) -> None:
    (tmp_path / "images").mkdir()
    save(tmp_path / "images" / "a_small.nii", ct.hu[:16, 12:28, 8:14], AFFINE)
    save(tmp_path / "images" / "b_large.nii", ct.hu, AFFINE)
    save(tmp_path / "images" / "c_small.nii", ct.hu[:16, 12:28, 8:14], AFFINE)

    def fill_the_disk() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))

    done = run_in_subprocess(tmp_path, views[0], "images", "--output", "out", "--probabilities", prepare=fill_the_disk)
    assert done.returncode == 1, done.stderr
    (line,) = done.stderr.splitlines()
    assert line.startswith("failed: images/b_large.nii: ")
    assert "File too large" in line
    written = {f"{name}{kind}.nii.gz" for name in ("a_small", "c_small") for kind in ("", "_probabilities")}
    assert file_names(tmp_path / "out") == {*written, "predictions.csv"}
    assert [row["case_id"] for row in read_record(tmp_path / "out" / "predictions.csv")] == ["a_small", "c_small"]


@pytest.mark.parametrize(("sent", "exit_code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
@pytest.mark.slow
def test_an_interruption_keeps_finished_files_and_leaves_no_partial_ones(
    ct: SmallCt, views: list[Path], tmp_path: Path, sent: signal.Signals, exit_code: int
) -> None:
    (tmp_path / "images").mkdir()
    for number in range(60):
        (tmp_path / "images" / f"{number:02d}.nii.gz").symlink_to(ct.image)
    out = tmp_path / "out"
    command = [SPLEEN, "predict", *map(str, views), "images", "--output", "out", "--probabilities", "--tta"]
    with subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        until = time.monotonic() + 120
        while not (out / "01.nii.gz").exists():
            assert process.poll() is None, process.communicate()
            assert time.monotonic() < until
            time.sleep(0.02)
        process.send_signal(sent)
        _, stderr = process.communicate(timeout=60)
    assert process.returncode == exit_code
    assert stderr == "interrupted; finished files are kept\n"
    masks = sorted(path for path in out.glob("*.nii.gz") if "_probabilities" not in path.name)
    assert 2 <= len(masks) < 60
    for path in out.glob("*.nii.gz"):
        assert np.asarray(nib.load(path).dataobj).any()
    recorded = [row["prediction"] for row in read_record(out / "predictions.csv")]
    assert recorded[:2] == ["00.nii.gz", "01.nii.gz"][: len(recorded)]
    assert len(masks) - len(recorded) in (0, 1)
    assert not [path for path in out.iterdir() if path.name.startswith(".")]


@pytest.mark.slow
def test_progress_is_shown_on_a_terminal(ct: SmallCt, views: list[Path], tmp_path: Path) -> None:
    ours, theirs = pty.openpty()
    termios.tcsetwinsize(theirs, (40, 120))
    command = [SPLEEN, "predict", str(views[0]), str(ct.image), "--output", "m.nii"]
    with subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=theirs) as process:
        os.close(theirs)
        seen = b""
        with suppress(OSError):  # the other end is closed
            while part := os.read(ours, 4096):
                seen += part
    os.close(ours)
    assert process.returncode == 0
    assert re.search(rb"scan7:.*/24 .*slice", seen)


def test_predict_can_be_called_from_python_with_strings_as_paths(
    ct: SmallCt, views: list[Path], tmp_path: Path
) -> None:
    """Neither Lightning, wandb nor matplotlib is imported."""
    code = (
        "import sys; from spleen.inference.predict import predict, PredictSettings\n"
        f"report = predict({str(views[0])!r}, {str(ct.image)!r}, 'm.nii.gz', PredictSettings(tta=True))\n"
        "print(report.cases[0].case_id, sorted({'wandb', 'pytorch_lightning', 'matplotlib'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stdout) == (0, "scan7 []\n"), done.stderr
    assert file_names(tmp_path) == {"m.nii.gz", "predictions.csv"}
