"""Progress display during training; the recorded values are tested on whole runs."""

from pathlib import Path

import pytest

from tests._helpers.small_run import SmallCt, rows, small_ct, train
from tests._helpers.terminal import on_terminal


@pytest.fixture(scope="module")
def ct(tmp_path_factory: pytest.TempPathFactory) -> SmallCt:
    return small_ct(tmp_path_factory.mktemp("ct"))


def train_with_progress(ct: SmallCt, folder: Path, *overrides: str) -> list[dict[str, str]]:
    """Train with progress display; returns the rows of metrics.csv."""
    settings = ("data.label_values=[3,4]", "trainer.progress=true", *overrides)
    return rows(train(folder, *ct.overrides, *settings) / "metrics.csv")


def test_without_a_terminal_each_epoch_prints_one_line_with_loss_and_best_score(
    ct: SmallCt, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    metrics = train_with_progress(ct, tmp_path, "trainer.val_every_epochs=2")
    printed = capsys.readouterr()
    lines = [line for line in printed.out.splitlines() if line.startswith("epoch ")]
    assert len(lines) == 3
    for number, (line, row) in enumerate(zip(lines, metrics, strict=True), start=1):
        assert line.startswith(f"epoch {number}/3")
        assert f"loss {float(row['train/loss']):.4f}" in line
    dice = f"{float(metrics[1]['val/dice']):.4f}"
    assert f"val dice {dice}" in lines[1]
    assert f"best {dice}" in lines[1]
    assert f"best {dice}" in lines[2]  # still known after an epoch without validation
    assert "step" not in printed.err


def test_on_a_terminal_a_progress_bar_shows_steps_loss_and_best_score(
    ct: SmallCt, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = "epochs=2", "loader.slices_per_epoch=16"
    text = on_terminal(monkeypatch, lambda: train_with_progress(ct, tmp_path, *arguments), 160)
    assert "8/8" in text  # 2 epochs of 16 slices in batches of 4
    assert "epoch 1/2" in text
    assert "loss 0." in text or "loss 1." in text
    assert "best val dice" in text
    assert "epoch 1/2" not in capsys.readouterr().out
