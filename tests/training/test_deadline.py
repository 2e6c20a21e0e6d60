"""Trainings that end by the clock: the schedule against hand-worked values, and real short trainings."""

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from torch.utils.data import DataLoader

from spleen.data.loading.on_device import StepNumbers
from spleen.errors import InputError
from spleen.training.optimiser import lr_factor_by_time
from spleen.training.timing.deadline import Deadline, deadline_of, reserved_seconds, training_progress
from tests._helpers.small_run import SmallCt, rows, small_ct, summary, train


@pytest.fixture(scope="module")
def ct(tmp_path_factory: pytest.TempPathFactory) -> SmallCt:
    return small_ct(tmp_path_factory.mktemp("ct"))


class Clock:
    """Seconds of a run, set by hand."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def at_step(deadline: Deadline, clock: Clock, trainer: pl.Trainer, step: int, now: float) -> float:
    clock.now = now
    return deadline.progress_at(step, trainer)


@pytest.fixture
def trainer() -> pl.Trainer:
    return pl.Trainer(accelerator="cpu", devices=1, max_epochs=-1, logger=False, enable_checkpointing=False)


@pytest.mark.parametrize(("elapsed", "expected"), [(5, 0.0), (20, 0.0), (60, 0.25), (100, 0.5), (180, 1.0), (500, 1.0)])
def test_progress_runs_from_the_first_step_to_the_end_of_training(elapsed: float, expected: float) -> None:
    assert training_progress(elapsed, start=20, end=180) == expected


def test_without_time_between_start_and_end_training_is_over() -> None:
    assert training_progress(10, start=30, end=25) == 1.0


def test_the_end_of_a_run_is_reserved_for_a_validation_the_scoring_and_the_report() -> None:
    # 0.2 s · 40 + 1.1 · 0.2 s · (40 + 100) + 6 s.
    assert reserved_seconds(0.2, val_passes=40, test_passes=100) == pytest.approx(44.8)
    assert reserved_seconds(0.0, val_passes=40, test_passes=100) == 6.0


@pytest.mark.parametrize(
    ("kind", "progress", "expected"),
    [
        ("cosine", 0.05, 0.5),
        ("cosine", 0.1, 1.0),
        ("cosine", 0.55, 0.01 + 0.99 * 0.5),
        ("cosine", 0.325, 0.01 + 0.99 * 0.85355339),
        ("cosine", 1.0, 0.01),
        ("polynomial", 0.55, 0.01 + 0.99 * 0.25),
        ("polynomial", 1.0, 0.01),
        ("constant", 0.7, 1.0),
    ],
)
def test_the_schedule_follows_the_time(kind: str, progress: float, expected: float) -> None:
    factor = lr_factor_by_time(progress, warmup_fraction=0.1, kind=kind, power=2.0, final_factor=0.01)
    assert factor == pytest.approx(expected, abs=2e-4)


def test_the_time_for_the_end_is_measured_and_progress_never_falls(trainer: pl.Trainer) -> None:
    clock = Clock()
    deadline = Deadline(206.0, clock, val_passes=10, test_passes=20)
    module = pl.LightningModule()
    clock.now = 20.0
    deadline.on_train_start(trainer, module)
    assert at_step(deadline, clock, trainer, 1, 110.0) == pytest.approx(0.5)  # training ends at 206 − 6 = 200
    clock.now = 120.0
    deadline.on_validation_start(trainer, module)
    clock.now = 130.0
    deadline.on_validation_end(trainer, module)
    # 10 + 1.1 · (10 + 20) + 6 = 49 s are reserved: training ends at 157.
    assert deadline.seconds_left() == pytest.approx(27.0)
    assert at_step(deadline, clock, trainer, 2, 150.15) == pytest.approx(0.95)
    deadline.on_train_epoch_end(trainer, module)
    assert not trainer.should_stop
    clock.now = 157.0
    deadline.on_train_epoch_end(trainer, module)
    assert trainer.should_stop


def test_before_the_first_validation_its_time_is_estimated_from_the_fastest_step(trainer: pl.Trainer) -> None:
    clock, module = Clock(), pl.LightningModule()
    deadline = Deadline(506.0, clock, val_passes=100, test_passes=0)
    deadline.on_train_start(trainer, module)
    batch = StepNumbers((np.arange(4),))
    for seconds in (20, 9, 2, 2, 2, 2, 2):  # the first steps of a network are slow
        clock.now += seconds
        deadline.on_train_batch_end(trainer, module, None, batch, 0)
    assert deadline.seconds_left() == 500.0 - 39.0
    clock.now += 2
    deadline.on_train_batch_end(trainer, module, None, batch, 0)
    # 2 s for 4 slices are 50 s for 100, of which a forward pass takes a third: once for a validation, 1.1 times for the
    # scoring.
    assert deadline.seconds_left() == pytest.approx(500.0 - 2.1 * 50 / 3 - 41.0)


def test_without_validation_the_scoring_of_the_test_split_is_estimated_from_the_fastest_step(
    trainer: pl.Trainer, caplog: pytest.LogCaptureFixture
) -> None:
    clock, module = Clock(), pl.LightningModule()
    deadline = Deadline(306.0, clock, val_passes=0, test_passes=300)
    deadline.on_train_start(trainer, module)
    batch = StepNumbers((np.arange(6),))
    with caplog.at_level("INFO"):
        for seconds in (30, 9, 3, 4, 5, 6, 4, 4):
            clock.now += seconds
            deadline.on_train_batch_end(trainer, module, None, batch, 0)
    # A step of 3 s for 6 slices; a forward pass takes a third of that, and the scoring 1.1 times 300 passes.
    reserved = 1.1 * 300 * 0.5 / 3 + 6
    assert deadline.seconds_left() == pytest.approx(306.0 - reserved - 65.0)
    assert "61 s at the end are reserved for scoring and the report" in caplog.text


class Paced(pl.LightningModule):
    """A training of 10 epochs of 30 steps, in which a step takes 10 seconds of the clock and a validation 5."""

    def __init__(self, clock: Clock) -> None:
        super().__init__()
        self.clock, self.weight = clock, torch.nn.Parameter(torch.zeros(1))
        self.validated: list[float] = []

    def training_step(self, batch: StepNumbers, index: int) -> torch.Tensor:
        deadline = deadline_of(self.trainer)
        assert deadline is not None
        deadline.progress_at(self.global_step, self.trainer)  # as the schedule does
        self.clock.now += 10
        return self.weight.sum()

    def validation_step(self, batch: StepNumbers, index: int) -> None:
        self.clock.now += 5
        self.validated.append(self.clock.now)

    def train_dataloader(self) -> DataLoader[int]:
        return DataLoader(range(60), batch_size=2, collate_fn=lambda numbers: StepNumbers((np.array(numbers),)))

    def val_dataloader(self) -> DataLoader[int]:
        return DataLoader(range(1))

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), 0.0)


@pytest.mark.parametrize("every", [1, 2])
def test_a_first_estimate_that_was_too_high_does_not_end_the_training(every: int) -> None:
    """From its first steps a validation seems to take 167 s, and 356 s are reserved, so it comes after the next step.

    It takes 5 s, so that 5 + 1.1 · 5 + 6 s are reserved and training goes on until second 375, and the step then.
    """
    clock = Clock()
    module, deadline = Paced(clock), Deadline(391.5, clock, val_passes=100, test_passes=0)
    trainer = pl.Trainer(
        accelerator="cpu", devices=1, max_epochs=10, logger=False, enable_checkpointing=False, callbacks=[deadline],
        num_sanity_val_steps=0, check_val_every_n_epoch=every, enable_progress_bar=False, enable_model_summary=False,
    )  # fmt: skip
    trainer.fit(module)
    assert module.validated == [95.0, 390.0]
    assert deadline.progress_at(-2, trainer) == 1.0


def test_a_resumed_training_continues_with_what_remains(trainer: pl.Trainer) -> None:
    clock = Clock()
    first = Deadline(206.0, clock, val_passes=10, test_passes=20)
    clock.now = 20.0
    first.on_train_start(trainer, pl.LightningModule())
    assert at_step(first, clock, trainer, 9, 110.0) == pytest.approx(0.5)
    second = Deadline(206.0, clock, val_passes=10, test_passes=20)
    second.load_state_dict(first.state_dict())
    clock.now = 120.0  # 110 s until the checkpoint, and 10 s to start again
    second.on_train_start(trainer, pl.LightningModule())
    assert at_step(second, clock, trainer, 9, 128.0) == pytest.approx(0.6)


def test_a_trainer_without_a_deadline_has_none(trainer: pl.Trainer) -> None:
    assert deadline_of(trainer) is None


def test_too_few_minutes_are_refused_with_the_least(tmp_path, ct: SmallCt) -> None:
    with pytest.raises(InputError, match=r"max_minutes=0.001 leaves no time .* Use at least 0\.\d"):
        train(tmp_path, *ct.overrides, "data.label_values=[3,4]", "max_minutes=0.001")


@pytest.mark.slow
@pytest.mark.parametrize("options", [(), ("optimiser.ema_decay=0.9", "loader.on_device=true")], ids=str)
def test_a_run_ends_validated_with_its_schedule_complete_whatever_epochs_says(tmp_path, ct, options) -> None:
    settings = (*ct.overrides, "data.label_values=[3,4]", "max_minutes=0.3", "epochs=1", "schedule=cosine")
    run = train(tmp_path, *settings, "trainer.val_every_epochs=2", *options)
    epochs = rows(run / "metrics.csv")
    assert len(epochs) > 1
    assert epochs[-1]["val/dice"]
    assert float(epochs[-1]["lr"]) == pytest.approx(3e-4, rel=0.1)  # a hundredth of the peak
    assert summary(run)["status"] == "finished"
    (run / "summary.json").unlink()  # as if it had been killed in the report
    train(tmp_path, *settings, "trainer.val_every_epochs=2", *options)
    assert rows(run / "metrics.csv") == epochs
    assert summary(run)["status"] == "finished"
