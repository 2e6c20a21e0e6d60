"""`python train.py …` as a user runs it: in its own process, with its exit code and its messages."""

import gzip
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

import spleen
from spleen.runs.help import help_text
from tests._helpers.nifti import ras_affine, save_stored_as
from tests._helpers.small_run import REPOSITORY, SPACING_MM, rows, small, small_ct, summary
from tests._helpers.wandb_runs import log_of, records_of

TRAIN = str(REPOSITORY / "train.py")
HEAVY = ("torch", "pytorch_lightning", "wandb", "monai", "matplotlib")


def run_train(folder: Path, *arguments: str, python: tuple[str, ...] = ()) -> subprocess.CompletedProcess[str]:
    """Run the command in `folder`, without a terminal."""
    return subprocess.run(
        [sys.executable, *python, TRAIN, *arguments],
        cwd=folder,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=300,
    )


def imported(done: subprocess.CompletedProcess[str]) -> set[str]:
    """Top-level packages that a process started with -X importtime has imported."""
    lines = [line for line in done.stderr.splitlines() if line.startswith("import time:")]
    return {line.rsplit("|", 1)[1].strip().split(".")[0] for line in lines}


# Commands that do not train -----------------------------------------------------------------------------------------


def test_help_explains_every_value_and_imports_nothing_heavy(tmp_path: Path) -> None:
    done = run_train(tmp_path, "--help", python=("-X", "importtime"))
    assert done.returncode == 0
    assert "hydra" in imported(done)
    assert not imported(done) & set(HEAVY)
    assert "python train.py lr=1e-4 img_size=512" in done.stdout
    for name in ("lr", "img_size", "axis", "batch_size", "epochs", "seed", "context_slices", "guard_mm", "output_dir"):
        line = next(line for line in done.stdout.splitlines() if line.strip().startswith(f"{name}:"))
        assert "#" in line
    assert "intensity=auto|ct|mr|zscore" in done.stdout
    assert "data=decathlon|folder|nifti|nnunet|phantom|table" in done.stdout
    assert "hydra=" not in done.stdout
    for key in ("data.noise_hu", "model.network.width", "loss.ce_weight", "augment.rotation_deg", "logger.project"):
        assert any(line.startswith(f"  {key}: ") for line in done.stdout.splitlines()), key
    chosen = run_train(tmp_path, "--help", "data=table", "model=monai_dynunet").stdout.splitlines()
    assert any(line.startswith("  data.table: ") for line in chosen)
    assert any(line.startswith("  model.network.filters: ") for line in chosen)
    assert not any(line.startswith("  data.noise_hu: ") for line in chosen)
    studies = dict(re.findall(r"^  experiment=(\w+) +(.+)$", done.stdout, re.M))
    assert studies["size_and_rate"].endswith("?")
    assert list(tmp_path.iterdir()) == []


def test_help_shows_the_options_that_would_be_used(tmp_path: Path) -> None:
    def values_of(*arguments: str) -> list[str]:
        return re.findall(r"^Values of (?:data|intensity)=(\w+)$", help_text("spleen train", arguments), re.M)

    assert values_of() == ["ct", "phantom"]
    assert values_of("data=nifti") == ["ct", "nifti"]
    assert values_of("data=decathlon") == ["auto", "decathlon"]  # which chooses the intensity itself
    assert values_of("intensity=mr", "data=nnunet") == ["mr", "nnunet"]
    wrong = run_train(tmp_path, "--help", "data=decatlon")
    assert (wrong.returncode, wrong.stdout) == (2, "")
    assert wrong.stderr == (
        "error: data=decatlon: no such option; available are decathlon, folder, nifti, nnunet, phantom, table\n"
    )


def test_cfg_job_imports_nothing_heavy_and_shows_folders_anchored_to_the_checkout(tmp_path: Path) -> None:
    done = run_train(tmp_path, "--cfg", "job", "--resolve", "lr=1e-4", python=("-X", "importtime"))
    assert done.returncode == 0
    assert not imported(done) & set(HEAVY)
    assert "lr: 0.0001\n" in done.stdout
    assert f"output_dir: {REPOSITORY / 'outputs'}\n" in done.stdout
    assert f"cache_dir: {REPOSITORY / '.cache'}\n" in done.stdout
    assert list(tmp_path.iterdir()) == []


def test_help_into_a_closed_pipe_does_not_blame_output_dir(tmp_path: Path) -> None:
    with subprocess.Popen([sys.executable, TRAIN, "--help"], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert b"output_dir" not in process.stderr.read()


def test_every_command_prints_the_version(tmp_path: Path) -> None:
    spleen_command = str(Path(sys.executable).with_name("spleen"))
    for command in ([sys.executable, TRAIN], [spleen_command], [spleen_command, "train"]):
        done = subprocess.run([*command, "--version"], cwd=tmp_path, capture_output=True, text=True, check=True)
        assert done.stdout == f"spleen {spleen.__version__}\n"


def test_the_shell_completes_settings_and_subcommands(tmp_path: Path) -> None:
    line = "python train.py model.network.wi"
    environment = {**os.environ, "COMP_LINE": line, "COMP_POINT": str(len(line)), "COMP_CWORD": "2"}
    command = [sys.executable, "train.py", "--shell-completion", "query=bash"]
    done = subprocess.run(command, cwd=REPOSITORY, env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["model.network.width="]
    environment = {**os.environ, "COMP_WORDS": "spleen pre", "COMP_CWORD": "1", "_SPLEEN_COMPLETE": "complete_bash"}
    command = [str(Path(sys.executable).with_name("spleen"))]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["predict"]


# Invalid input ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "expected_parts"),
    [
        (
            ["lr=-1", "img_size=3", "axis=axail"],
            ["lr must be", "img_size must be", "sagittal, coronal, axial", "axail"],
        ),
        (["imgsize=64"], ["unknown key 'imgsize'", "did you mean img_size"]),
        (["+anything=x"], ["unknown key 'anything'"]),
        (["data.image=ct.nii.gz"], ["data.image", "data=nifti"]),
        (["lr=fast"], ["lr", "fast"]),
        (["model=resnet"], ["model=resnet", "unet", "monai_segresnet"]),
        (["model=null"], ["model"]),
        (["lr"], ["'lr' is not of the form key=value", "lr=VALUE"]),
        (["lr", "1e-3"], ["'lr' is not of the form key=value", "python train.py lr=1e-3"]),
        (["--lr", "1e-3"], ["--lr is no flag", "python train.py lr=1e-3"]),
        (["--lr=1e-3"], ["--lr=1e-3 is no flag", "python train.py lr=1e-3"]),
        (["lr = 1e-3"], ["without spaces: python train.py lr=1e-3"]),
        (["lr=0.1e"], ["lr must be a number; got '0.1e'"]),
        (["axis=axial,coronal"], ["python train.py -m axis=axial,coronal"]),
        (["logger.name=my (run)"], ["must be in quotes: python train.py \"logger.name='my (run)'\""]),
        (["data=nifti", "data.image=my", "ct.nii.gz"], ['python train.py "data.image=my ct.nii.gz"']),
        (["--cfg", "everything"], ["--cfg", "everything", "--hydra-help"]),
        (["loss=[300]"], ["loss"]),
        (["augment.noise_std=abc"], ["augment.noise_std must be a number; got 'abc'"]),
        (["data=nifti"], ["data.image", "data.label"]),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_invalid_input_gives_one_clear_message_and_exit_code_2(
    tmp_path: Path, arguments: list[str], expected_parts: list[str]
) -> None:
    done = run_train(tmp_path, *arguments, f"output_dir={tmp_path / 'out'}")
    assert done.returncode == 2, done.stderr
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("error: ") == 1
    assert all(part in done.stderr for part in expected_parts), done.stderr
    assert "Traceback" not in done.stderr + done.stdout
    assert "HYDRA_FULL_ERROR" not in done.stderr
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_a_refused_command_creates_no_folder_and_does_not_move_latest(tmp_path: Path) -> None:
    ct = small_ct(tmp_path)
    folders = f"output_dir={tmp_path / 'out'}", f"cache_dir={tmp_path / 'cache'}"
    settings = small(*ct.overrides, "epochs=1", "data.label_values=[3,4]", "study=good", *folders)
    assert run_train(tmp_path, *settings).returncode == 0
    good = (tmp_path / "out" / "latest").resolve()
    for wrong in (
        "lr=-1",
        f"data.image={tmp_path / 'missing.nii.gz'}",
        "model.network.width=abc",
        "augment.flips=[up]",
    ):
        for several in ((), ("-m", "seed=1,2")):
            done = run_train(tmp_path, *small(*ct.overrides, "study=wrong", *folders), wrong, *several)
            assert done.returncode == 2, done.stderr
            assert "Traceback" not in done.stderr
            assert not (tmp_path / "out" / "wrong").exists(), (wrong, several)
    assert (tmp_path / "out" / "latest").resolve() == good
    (tmp_path / "text.nii.gz").write_text("This is not a volume.")
    done = run_train(tmp_path, *settings, f"data.image={tmp_path / 'text.nii.gz'}")
    assert done.returncode == 2, done.stderr
    assert (tmp_path / "out" / "latest").resolve() == good  # which has a checkpoint


@pytest.mark.slow
@pytest.mark.parametrize("debug", ["debug=true", "debug=True"])
def test_debug_shows_the_traceback(tmp_path: Path, debug: str) -> None:
    for wrong in ("lr=-1", "imgsize=64"):  # found by our own checks, and by Hydra
        done = run_train(tmp_path, wrong, debug, f"output_dir={tmp_path / 'out'}")
        assert done.returncode != 0
        assert "Traceback (most recent call last)" in done.stderr, (wrong, debug)


def test_an_unwritable_output_folder_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    done = run_train(tmp_path, f"output_dir={tmp_path / 'file'}")
    assert done.returncode == 2
    assert str(tmp_path / "file") in done.stderr
    assert "output_dir=…" in done.stderr
    assert "Traceback" not in done.stderr


def _invalid_cases(folder: Path) -> dict[str, str]:
    """One folder with image.nii.gz and label.nii.gz for each kind of invalid data, and a part of its message."""
    affine = ras_affine(SPACING_MM)
    ct = small_ct(folder)
    hu, values = ct.hu, np.isin(ct.values, [3, 4]).astype(np.uint8)
    shifted = ras_affine(SPACING_MM, (0.0, 0.0, 0.0))
    bad_voxel = hu.copy()
    bad_voxel[3, 4, 5] = np.nan
    pairs: dict[str, tuple[np.ndarray, np.ndarray, np.ndarray]] = {
        "two_dimensions": (hu[:, :, 0], values, affine),
        "three_channels": (np.stack([hu] * 3, -1), values, affine),
        "not_a_number": (bad_voxel, values, affine),
        "empty_label": (hu, 0 * values, affine),
        "label_of_fractions": (hu, values * np.float32(0.5), affine),
        "label_elsewhere": (hu, values, shifted),
        "label_of_another_size": (hu, values[:-1], affine),
        "thin_organ": (hu, values * (np.arange(24) == 11).astype(np.uint8), affine),
    }
    for name, (image, label, label_affine) in pairs.items():
        (folder / name).mkdir()
        nib.save(nib.Nifti1Image(image, affine), folder / name / "image.nii.gz")
        nib.save(nib.Nifti1Image(label, label_affine), folder / name / "label.nii.gz")
    for name in ("text", "truncated", "huge", "good"):
        (folder / name).mkdir()
        save_stored_as(folder / name / "label.nii.gz", "RAS", values, affine)
    (folder / "text" / "image.nii.gz").write_text("This is not a volume.")
    (folder / "truncated" / "image.nii.gz").write_bytes(ct.image.read_bytes()[:-2000])
    (folder / "good" / "image.nii.gz").write_bytes(ct.image.read_bytes())
    header = nib.Nifti1Header()
    header.set_data_shape((32000, 32000, 32000))
    header.set_data_dtype(np.float32)
    header["vox_offset"], header["magic"] = 352, b"n+1"
    (folder / "huge" / "image.nii.gz").write_bytes(gzip.compress(header.binaryblock + bytes(8)))
    return {
        "two_dimensions": "2 dimensions",
        "three_channels": "single channel",
        "not_a_number": "NaN",
        "empty_label": "empty",
        "label_of_fractions": "must contain integers",
        "label_elsewhere": "mm apart",
        "label_of_another_size": "47 × 40 × 24",
        "thin_organ": "Choose another axis",
        "text": "NIfTI",
        "truncated": "damaged or truncated",
        "huge": "32000 × 32000 × 32000",
    }


@pytest.mark.slow
def test_a_multirun_reports_each_invalid_case_and_trains_the_valid_one(tmp_path: Path) -> None:
    cases = tmp_path / "cases"
    cases.mkdir()
    expected = _invalid_cases(cases)
    names = ",".join([*expected, "good"])
    done = run_train(
        tmp_path,
        "-m",
        *small("epochs=1", f"output_dir={tmp_path / 'out'}", f"cache_dir={tmp_path / 'cache'}", "study=wrong"),
        f"logger.name={names}",
        f"data.image={cases}/${{logger.name}}/image.nii.gz",
        f"data.label={cases}/${{logger.name}}/label.nii.gz",
    )
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr + done.stdout
    (sweep,) = (path for path in (tmp_path / "out" / "wrong").iterdir())
    messages = [json.loads(path.read_text())["message"] for path in sweep.glob("*/failed.json")]
    assert len(messages) == len(expected)
    for name, part in expected.items():
        assert any(part in message and (f"/{name}/" in message or name == "thin_organ") for message in messages), name
    assert all(f"error: {message}" in done.stderr for message in messages)
    listed = done.stderr.split("failed:\n")[1].splitlines()
    assert f"{len(expected)} job(s) of the multirun" in done.stderr
    assert len(listed) == len(expected)
    (finished,) = sweep.glob("*/summary.json")
    assert json.loads(finished.read_text())["status"] == "finished"


# Whole runs ---------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_run_from_another_folder_with_relative_paths_and_without_wandb(tmp_path: Path) -> None:
    small_ct(tmp_path)
    done = run_train(
        tmp_path,
        *small("epochs=1", "data.image=scan7.nii.gz", "data.label=scan7_organs.nii.gz", "data.label_values=[3,4]"),
        *("output_dir=mine", "cache_dir=cache", "study=s", "logger=none"),
        python=("-X", "importtime"),
    )
    assert done.returncode == 0, done.stderr
    assert "torch" in imported(done)
    assert "wandb" not in imported(done)
    (run_folder,) = (tmp_path / "mine" / "s").iterdir()
    assert (tmp_path / "mine" / "latest").resolve() == run_folder.resolve()
    assert str(run_folder) in done.stdout
    assert "Dice" in done.stdout
    assert summary(run_folder)["test"]["n_cases"] == 1
    assert {path.name for path in tmp_path.iterdir()} == {"mine", "cache", "scan7.nii.gz", "scan7_organs.nii.gz"}


def _wandb(run_folder: Path) -> tuple[dict, int]:
    """The start record of the run's only wandb run, and its exit code."""
    records = records_of(log_of(run_folder))
    (start,) = (record["run"] for record in records if record["type"] == "run")
    (end,) = (record["exit"] for record in records if record["type"] == "exit")
    return start, end.get("exit_code", 0)


@pytest.mark.slow
def test_a_multirun_survives_failed_jobs_and_gives_each_job_its_own_folder_and_wandb_run(tmp_path: Path) -> None:
    ct = small_ct(tmp_path)
    # An invalid volume fails when it is read; a loss that takes one argument only fails once training has started.
    (tmp_path / "text.nii.gz").write_text("This is not a volume.")
    done = run_train(
        tmp_path,
        "-m",
        f"data.image={tmp_path / 'text.nii.gz'},{ct.image}",
        "loss._target_=torch.nn.Identity,spleen.models.losses.DiceCrossEntropyLoss",
        *(setting for setting in small(*ct.overrides) if not setting.startswith(("data.image=", "logger", "epochs="))),
        *("epochs=1", "data.label_values=[3,4]", "logger=wandb", "logger.mode=offline", "study=s"),
        *(f"output_dir={tmp_path / 'out'}", f"cache_dir={tmp_path / 'cache'}"),
    )
    assert done.returncode == 2, done.stderr
    assert "3 job(s) of the multirun" in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout.count("wandb sync") + done.stdout.count("wandb leet") >= 2
    (sweep,) = (tmp_path / "out" / "s").iterdir()
    jobs = [path for path in sweep.iterdir() if path.is_dir()]
    assert len(jobs) == 4
    assert sorted("text.nii" in job.name for job in jobs) == [False, False, True, True]
    (good,) = (job for job in jobs if (job / "summary.json").exists())
    (crashed,) = (job for job in jobs if (job / "traceback.txt").exists())
    assert len(list(sweep.glob("*/failed.json"))) == 3
    assert str(crashed / "traceback.txt") in done.stderr
    good_start, good_end = _wandb(good)
    crashed_start, crashed_end = _wandb(crashed)
    assert (good_end, crashed_end) == (0, 1)
    assert good_start["run_id"] != crashed_start["run_id"]
    assert good_start["run_group"] == crashed_start["run_group"] == f"s {sweep.name}"
    assert (good_start["display_name"], crashed_start["display_name"]) == (good.name, crashed.name)
    assert len(list(sweep.glob("*/wandb/offline-run-*"))) == 2
    assert len(rows(good / "metrics.csv")) == 1


@pytest.mark.slow
def test_an_interrupt_keeps_the_written_files_and_marks_the_wandb_run_as_failed(tmp_path: Path) -> None:
    ct = small_ct(tmp_path)
    settings = small(*ct.overrides, "data.label_values=[3,4]", "epochs=100000", "logger=wandb", "study=s")
    folders = f"output_dir={tmp_path / 'out'}", f"cache_dir={tmp_path / 'cache'}"
    with subprocess.Popen(
        [sys.executable, TRAIN, *settings, "logger.mode=offline", *folders],
        cwd=tmp_path,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            while process.poll() is None and not list(tmp_path.glob("out/s/*/checkpoints/last.ckpt")):
                time.sleep(0.1)
            process.send_signal(signal.SIGINT)
            errors = process.communicate(timeout=120)[1]
        finally:
            process.kill()
    assert process.returncode == 130, errors
    assert "interrupted" in errors
    assert "Traceback" not in errors
    (run_folder,) = (tmp_path / "out" / "s").iterdir()
    assert len(rows(run_folder / "metrics.csv")) >= 1
    assert _wandb(run_folder)[1] != 0
