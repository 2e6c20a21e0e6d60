"""Training in two real processes on this machine (gloo), compared with the same training in one process."""

import csv
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import psutil
import pytest
import torch
from torch import Tensor

import spleen.runs.train
from spleen.config import factory as build
from spleen.config.datasets import find_dataset
from spleen.config.identity import identity
from spleen.config.preprocessing import build_classes, build_preprocessing
from spleen.data.loading.batches import BalancedBatches, CaseSlices, ScoredSlices
from spleen.errors import InputError, Interrupted
from spleen.inference.loading import load_trained
from spleen.models.losses import DiceCrossEntropyLoss
from spleen.runs.data import open_data
from spleen.runs.launch_environment import check_launched, launch_environment
from spleen.runs.naming import run_stamp
from spleen.runs.summary import write_cases
from spleen.training.fit import load_best, make_trainer, quiet
from spleen.training.ranks import ProcessRank
from tests._helpers.small_run import REPOSITORY, SmallCt, compose_config, rows, small, small_ct, train
from tests.config.test_parsing_and_checks import refusal

pytestmark = pytest.mark.slow

# Nothing depends on which slices share a batch, so two processes compute the same as one, up to rounding.
SETTINGS = (
    "data.label_values=[3,4]", "epochs=2", "augment=none", "model.network.norm=instance", "loss.dice_weight=0",
    "loss.ce_weight=1", "lr=3e-3",
)  # fmt: skip
TWO_PROCESSES = ("trainer=ddp", "trainer.devices=2", "trainer.accelerator=cpu", "trainer.progress=false")


@pytest.fixture(scope="module")
def ct(tmp_path_factory: pytest.TempPathFactory) -> SmallCt:
    return small_ct(tmp_path_factory.mktemp("ct"))


@pytest.fixture(scope="module")
def one_process(ct: SmallCt, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train(tmp_path_factory.mktemp("one_process"), *ct.overrides, *SETTINGS)


@pytest.fixture(scope="module")
def two_processes(ct: SmallCt, tmp_path_factory: pytest.TempPathFactory) -> Path:
    wandb = "logger=wandb", "logger.mode=offline"
    return train(tmp_path_factory.mktemp("two_processes"), *ct.overrides, *SETTINGS, *TWO_PROCESSES, *wandb)


@pytest.fixture(autouse=True)
def no_process_is_left() -> Iterator[None]:
    yield
    left = [child for child in psutil.Process().children() if "spleen.runs.worker" in child.cmdline()]
    assert not left
    assert not torch.distributed.is_initialized()


def assert_same_epochs(run_folder: Path, expected: Path) -> None:
    found, wanted = rows(run_folder / "metrics.csv"), rows(expected / "metrics.csv")
    assert [list(row) for row in found] == [list(row) for row in wanted]
    for row, other in zip(found, wanted, strict=True):
        assert (row["epoch"], row["step"], row["lr"]) == (other["epoch"], other["step"], other["lr"])
        for name in set(row) - {"val/loss"}:  # its batches are split differently
            assert float(row[name]) == pytest.approx(float(other[name]), rel=2e-3, abs=2e-3), name


@pytest.mark.slow
def test_two_processes_train_the_same_network_as_one(two_processes: Path, one_process: Path) -> None:
    assert_same_epochs(two_processes, one_process)
    found, wanted = (
        torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
        for folder in (two_processes, one_process)
    )
    for name, weights in wanted.items():
        torch.testing.assert_close(found[name], weights, rtol=0, atol=5e-3)


@pytest.mark.slow
def test_two_processes_write_one_run_folder_and_one_wandb_run(two_processes: Path, one_process: Path) -> None:
    def files(run_folder: Path) -> list[str]:
        return sorted(str(path.relative_to(run_folder)) for path in run_folder.rglob("*") if "wandb" not in path.parts)

    assert files(two_processes) == files(one_process)
    assert len(list(two_processes.glob("wandb/offline-run-*"))) == 1
    assert [path.name for path in two_processes.parent.iterdir()] == [two_processes.name]


@pytest.mark.slow
@quiet()
def test_a_checkpoint_of_two_processes_gets_the_same_scores_in_one(
    ct: SmallCt, two_processes: Path, tmp_path: Path
) -> None:
    """A checkpoint that two processes scored is scored again by one: no slice was counted twice or left out."""
    folders = f"output_dir={tmp_path}", f"cache_dir={two_processes.parents[2] / 'cache'}"
    config = compose_config(*small(*ct.overrides, *SETTINGS, *folders))
    parts = build.build_parts(config)
    data = open_data(config, find_dataset(config).cases, parts.spec.preprocessing).slices
    module = build.build_module(config, parts, data)
    settings = build.build_fit_settings(config)
    scorer = make_trainer(settings, tmp_path, [])
    load_best(module, parts.spec, two_processes / "checkpoints" / "best.ckpt", settings)
    scorer.validate(module, data, verbose=False)
    scorer.test(module, data, verbose=False)
    write_cases(tmp_path / "cases.csv", module.scores)
    assert (tmp_path / "cases.csv").read_text() == (two_processes / "cases.csv").read_text()


def test_the_weights_of_two_processes_load_without_a_ddp_prefix(two_processes: Path) -> None:
    assert not any(name.startswith("module.") for name in load_trained(two_processes).network.state_dict())


@pytest.mark.slow
def test_ctrl_c_stops_both_processes_and_a_single_process_resumes_the_run(
    ct: SmallCt, one_process: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log_epoch = spleen.runs.train._log_epoch

    def log_then_interrupt(*arguments: object) -> None:
        log_epoch(*arguments)  # type: ignore[arg-type]
        os.kill(os.getpid(), signal.SIGINT)

    with monkeypatch.context() as patch:
        patch.setattr(spleen.runs.train, "_log_epoch", log_then_interrupt)
        with pytest.raises(Interrupted, match="by SIGINT; 1 epoch is saved"):
            train(tmp_path, *ct.overrides, *SETTINGS, *TWO_PROCESSES)
    assert_same_epochs(train(tmp_path, *ct.overrides, *SETTINGS), one_process)


class FailingLoss(DiceCrossEntropyLoss):
    """A loss that fails in the second process at its third call: killed, or with a NaN."""

    def __init__(self, how: str, **settings: float) -> None:
        super().__init__(**settings)  # type: ignore[arg-type]
        self._how = how
        self._calls = 0

    def forward(self, logits: Tensor, label: Tensor) -> Tensor:
        loss = super().forward(logits, label)
        self._calls += 1
        if torch.distributed.is_initialized() and torch.distributed.get_rank() == 1 and self._calls == 3:
            if self._how == "die":
                os.kill(os.getpid(), signal.SIGKILL)
            return loss * float("nan")
        return loss


@pytest.mark.slow
@pytest.mark.parametrize(
    ("how", "error", "message"),
    [
        ("die", RuntimeError, "^process 2 of 2 was killed by signal 9"),
        ("nan", InputError, "the loss became nan in step 3 .*on case scan7, slices"),
    ],
)
def test_a_failing_process_ends_the_training_and_the_cause_is_reported(
    how: str, error: type[Exception], message: str, ct: SmallCt, tmp_path: Path
) -> None:
    start = time.monotonic()
    failing = f"loss._target_={__name__}.FailingLoss", f"+loss.how='{how}'"
    with pytest.raises(error, match=message):
        train(tmp_path, *ct.overrides, "data.label_values=[3,4]", *TWO_PROCESSES, *failing)
    assert time.monotonic() - start < 100


@pytest.mark.parametrize("n_ranks", [2, 4])
def test_every_batch_is_split_evenly_among_the_processes(n_ranks: int) -> None:
    foreground = np.arange(30) < 10
    whole = list(BalancedBatches(foreground, 8, 64, foreground_fraction=0.5, seed=5))
    per_rank = [
        list(BalancedBatches(foreground, 8, 64, foreground_fraction=0.5, seed=5, rank=rank, n_ranks=n_ranks))
        for rank in range(n_ranks)
    ]
    for number, batch in enumerate(whole):
        parts = [batches[number] for batches in per_rank]
        assert [len(part) for part in parts] == [8 // n_ranks] * n_ranks
        assert sorted(np.concatenate(parts)) == sorted(batch)
        assert all((foreground[part]).mean() >= 0.5 for part in parts)


def test_batches_that_cannot_be_split_evenly_are_refused() -> None:
    with pytest.raises(
        InputError, match=r"a global batch of 3 slices cannot be divided evenly among 2 processes.*3 training"
    ):
        BalancedBatches(np.ones(3, dtype=bool), 4, None, 0.5, 0, rank=0, n_ranks=2)


@pytest.mark.parametrize("n_ranks", [1, 2, 3, 5, 11])
def test_each_scored_slice_goes_to_one_process_and_all_get_the_same_number_of_batches(
    ct: SmallCt, tmp_path: Path, n_ranks: int
) -> None:
    config = compose_config(*small(*ct.overrides, *SETTINGS, f"cache_dir={tmp_path}"))
    preprocessing = build_preprocessing(config, build_classes(config))
    case = open_data(config, find_dataset(config).cases, preprocessing).slices.cases[0]
    parts = [CaseSlices(case, np.arange(2, 9)), CaseSlices(case, np.arange(4, 8))]  # 11 slices
    per_rank = [ScoredSlices(parts, 0, 3, rank, n_ranks) for rank in range(n_ranks)]
    assert len({len(batches) for batches in per_rank}) == 1
    batches = [scored[number] for scored in per_rank for number in range(len(scored))]
    scored_slices = [(batch.case_index, int(index)) for batch in batches for index in batch.slice_index]
    assert sorted(scored_slices) == [(0, index) for index in range(2, 9)] + [(1, index) for index in range(4, 8)]
    with pytest.raises(InputError, match="11 slices to score are too few for 12 processes"):
        ScoredSlices(parts, 0, 3, 0, 12)


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        (["trainer.devices=2"], ["got 2", "trainer.strategy=ddp trainer.devices=2"]),
        (["trainer.num_nodes=2"], ["2 nodes", "trainer.strategy=ddp"]),
        (["trainer=ddp", "trainer.devices=3"], ["batch_size=4", "3 processes", "a multiple of 3"]),
        (["trainer=ddp", "trainer.num_nodes=3", "batch_size=8"], ["6 processes", "a multiple of 6"]),
        (["trainer=ddp", "trainer.devices=0"], ["trainer.devices", "got 0"]),
        (["trainer=ddp", "trainer.devices=[1,1]"], ["trainer.devices", "[1, 1]"]),
        (["trainer=ddp", "trainer.accelerator=mps"], ["mps", "cpu or gpu"]),
        (["trainer=fsdp", "trainer.accelerator=cpu"], ["fsdp needs GPUs", "trainer=ddp"]),
        (["trainer=fsdp", "optimiser.ema_decay=0.9"], ["optimiser.ema_decay", "trainer=ddp"]),
        (["trainer=fsdp", "img_size=native", "crop_size=64"], ["crop_size", "img_size=native", "trainer=ddp"]),
        (["trainer.strategy=dp"], ["auto, ddp, fsdp", "dp"]),
    ],
    ids=lambda value: " ".join(value),
)
def test_invalid_settings_for_several_processes_are_reported(overrides: list[str], expected: list[str]) -> None:
    message = refusal(*overrides)
    assert all(part in message for part in expected), message


def test_only_the_total_number_of_processes_changes_the_identity() -> None:
    def identity_of(*overrides: str) -> str:
        config = compose_config("trainer=ddp", "trainer.accelerator=cpu", *overrides)
        return identity(config, find_dataset(config).cases)

    single = compose_config("trainer=cpu")
    assert identity_of("trainer.devices=1") == identity(single, find_dataset(single).cases)
    assert (
        identity_of("trainer.devices=2", "trainer.num_nodes=2")
        == identity_of("trainer.devices=4")
        != identity_of("trainer.devices=2")
    )


SLURM = {"SLURM_PROCID": "5", "SLURM_LOCALID": "1", "SLURM_NODEID": "2", "SLURM_STEP_NUM_TASKS": "6"}
TORCHRUN = {"RANK": "1", "LOCAL_RANK": "1", "GROUP_RANK": "0", "WORLD_SIZE": "2"}


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    for name in [*SLURM, *TORCHRUN]:
        monkeypatch.delenv(name, raising=False)
    return monkeypatch


def test_the_rank_of_a_process_is_read_from_its_launcher(environment: pytest.MonkeyPatch) -> None:
    assert launch_environment() is None
    for name, value in SLURM.items():
        environment.setenv(name, value)
    launched = launch_environment()
    assert launched is not None
    assert (launched.launcher, launched.process_rank, launched.count) == ("srun", ProcessRank(5, 1, 2), 6)
    environment.setenv("SLURM_JOB_ID", "4711")
    environment.setenv("SLURM_STEP_ID", "0")
    assert run_stamp() == "slurm-4711.0"
    with pytest.raises(InputError, match="srun has started 6 processes, but the configuration requests 4"):
        check_launched(compose_config("trainer=ddp", "trainer.num_nodes=2").trainer)
    environment.setenv("SLURM_STEP_NUM_TASKS", "1")  # a job of a sweep
    assert launch_environment() is None
    with pytest.raises(InputError, match="with several nodes, srun or torchrun must start the processes"):
        check_launched(compose_config("trainer=ddp", "trainer.num_nodes=2").trainer)


@pytest.mark.slow
def test_torchrun_gives_the_same_training_in_one_run_folder(ct: SmallCt, two_processes: Path, tmp_path: Path) -> None:
    folders = f"output_dir={tmp_path}", f"cache_dir={tmp_path / 'cache'}"
    done = subprocess.run(
        [
            sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "train.py",
            *small(*ct.overrides, *SETTINGS, *TWO_PROCESSES, *folders),
        ],
        cwd=REPOSITORY,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=200,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    (run_folder,) = (path.parent for path in tmp_path.glob("train/*/metrics.csv"))
    assert run_folder.joinpath("metrics.csv").read_text() == (two_processes / "metrics.csv").read_text()
    with (run_folder / "cases.csv").open(newline="") as ours, (two_processes / "cases.csv").open(newline="") as theirs:
        assert list(csv.reader(ours)) == list(csv.reader(theirs))
