"""Training runs that end early: real signals to a real `train.py`, a NaN loss, a full disk."""

import json
import math
import os
import resource
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import nibabel
import numpy as np
import pytest
from torch import Tensor

from spleen.data.loading.batches import BalancedBatches
from spleen.errors import InputError
from spleen.models.checkpoint import read_checkpoint
from spleen.models.losses import DiceCrossEntropyLoss
from tests._helpers.small_run import REPOSITORY, SmallCt, rows, small, small_ct, train

BRIGHT = "data.label_values=[3,4]"


@pytest.fixture(scope="module")
def ct(tmp_path_factory: pytest.TempPathFactory) -> SmallCt:
    return small_ct(tmp_path_factory.mktemp("ct"))


@pytest.fixture
def processes() -> Iterator[list[subprocess.Popen[str]]]:
    """Processes that do not outlive the test."""
    started: list[subprocess.Popen[str]] = []
    yield started
    for process in started:
        process.kill()
        process.communicate()


def start(processes: list[subprocess.Popen[str]], *arguments: str) -> subprocess.Popen[str]:
    command = [sys.executable, "train.py", *arguments]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(
        command,
        cwd=REPOSITORY,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    processes.append(process)
    return process


def read_until(process: subprocess.Popen[str], text: str) -> None:
    """Read the output of a process up to a line that contains the text."""
    assert process.stdout is not None
    lines = []
    for line in process.stdout:
        lines.append(line)
        if text in line:
            return
    raise AssertionError("".join(lines))


def overrides(ct: SmallCt, folder: Path, epochs: int, *more: str) -> list[str]:
    settings = small(*ct.overrides, BRIGHT, "loader.slices_per_epoch=16", *more, f"epochs={epochs}")
    return [
        *settings, "trainer.progress=true", f"output_dir={folder}", f"cache_dir={folder / 'cache'}",
        f"hydra.run.dir={folder / 'run'}",
    ]  # fmt: skip


@pytest.mark.slow
def test_sigterm_stops_after_the_step_and_the_printed_command_resumes_the_run(
    ct: SmallCt, tmp_path: Path, processes: list[subprocess.Popen[str]]
) -> None:
    run_folder = tmp_path / "run"
    training = start(
        processes, *overrides(ct, tmp_path, 300, "logger=wandb", "logger.mode=offline", "loader.num_workers=1")
    )
    read_until(training, "epoch 3/300")
    training.send_signal(signal.SIGTERM)
    output, _ = training.communicate(timeout=30)
    assert training.returncode == 143
    kept = len(read_checkpoint(run_folder / "checkpoints" / "last.ckpt")["callbacks"]["EpochRecord"]["rows"])
    assert 2 <= kept < 300
    assert f"{kept} epochs are saved in {run_folder / 'checkpoints' / 'last.ckpt'}" in output
    assert "Traceback" not in output
    assert not (run_folder / "summary.json").exists()

    command = shlex.split(output.rsplit("python train.py ", 1)[1])
    assert command == [f"resume={run_folder}"]
    resumed = start(processes, *command)
    read_until(resumed, f"epoch {kept + 1}/300")
    os.killpg(resumed.pid, signal.SIGINT)  # as Ctrl-C does, to all of its processes
    read_until(resumed, "another Ctrl-C stops immediately")
    output, _ = resumed.communicate(timeout=30)
    assert resumed.returncode == 130
    assert "by SIGINT" in output
    assert [float(row["epoch"]) for row in rows(run_folder / "metrics.csv")][: kept + 1] == list(range(kept + 1))


@pytest.mark.slow
def test_a_signal_before_the_first_saved_epoch_reports_that_the_run_would_start_from_scratch(
    ct: SmallCt, tmp_path: Path, processes: list[subprocess.Popen[str]]
) -> None:
    training = start(processes, *overrides(ct, tmp_path, 2, "loader.slices_per_epoch=100000"))
    read_until(training, "network input")  # the data is loaded and training is about to start
    training.send_signal(signal.SIGINT)
    output, _ = training.communicate(timeout=30)
    assert training.returncode == 130
    assert "no epoch is saved yet, so the run would start from scratch" in output
    assert "Traceback" not in output


@pytest.mark.slow
def test_a_full_disk_ends_the_run_with_a_message_and_keeps_the_last_checkpoint(
    ct: SmallCt, tmp_path: Path, processes: list[subprocess.Popen[str]]
) -> None:
    training = start(processes, *overrides(ct, tmp_path, 300))
    read_until(training, "epoch 3/300")
    # From here on this process cannot write files larger than 64 KiB; a checkpoint is larger.
    resource.prlimit(training.pid, resource.RLIMIT_FSIZE, (65536, 65536))
    output, _ = training.communicate(timeout=30)
    checkpoints = tmp_path / "run" / "checkpoints"
    assert training.returncode == 2
    assert f"{checkpoints / 'last.ckpt'} cannot be written (File too large). Free some space" in output
    assert "Traceback" not in output
    assert sorted(path.name for path in checkpoints.iterdir()) == ["best.ckpt", "last.ckpt"]
    kept = len(read_checkpoint(checkpoints / "last.ckpt")["callbacks"]["EpochRecord"]["rows"])
    assert f"{kept} epochs are saved" in output


def test_an_unwritable_checkpoint_folder_is_reported(ct: SmallCt, tmp_path: Path) -> None:
    run_folder = tmp_path / "outputs" / "small" / "now"
    run_folder.mkdir(parents=True)
    (run_folder / "checkpoints").touch()  # permissions would not stop the superuser
    with pytest.raises(InputError, match=r"/now/checkpoints.* cannot be written"):
        train(tmp_path, *ct.overrides, BRIGHT, "epochs=1", "loader.slices_per_epoch=16")


class NanLossInCall6(DiceCrossEntropyLoss):
    calls = 0

    def forward(self, logits: Tensor, label: Tensor) -> Tensor:
        self.calls += 1
        loss = super().forward(logits, label)
        return loss * math.nan if self.calls == 6 else loss


def test_a_nan_loss_is_reported_with_step_case_and_slices(ct: SmallCt, tmp_path: Path) -> None:
    settings = (*ct.overrides, BRIGHT, "loader.slices_per_epoch=16", "trainer.val_every_epochs=3")
    with pytest.raises(InputError) as caught:
        train(tmp_path, *settings, "loss._target_=tests.training.test_stopping.NanLossInCall6")
    run_folder = tmp_path / "outputs" / "small" / "now"
    (split,) = json.loads((run_folder / "split.json").read_text())["cases"].values()
    train_indices = np.array(split["train"])
    organ = np.isin(np.asanyarray(nibabel.load(ct.label).dataobj), [3, 4]).any(axis=(0, 1))[train_indices]
    batches = BalancedBatches(organ, batch_size=4, slices_per_epoch=16, foreground_fraction=0.5, seed=0)
    batches.set_epoch(1)
    _, second, *_ = batches
    slices = ", ".join(map(str, sorted(set(train_indices[second]))))
    assert (
        f"the loss became nan in step 6 (epoch 2 of 3) on case scan7, slices {slices}, so training was stopped"
        in str(caught.value)
    )
    assert "Try a lower lr (it was 0.03), precision=32 (it was 32-true)" in str(caught.value)
    assert read_checkpoint(run_folder / "checkpoints" / "last.ckpt")["global_step"] == 4  # end of the previous epoch
    assert not (run_folder / "summary.json").exists()
