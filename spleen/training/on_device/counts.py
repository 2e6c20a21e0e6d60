"""How many optimiser steps there are and were, whichever of Lightning's loops makes them."""

from typing import Any

import pytorch_lightning as pl

_AUTOMATIC = "epoch_loop.automatic_optimization.optim_progress"
_MANUAL = "epoch_loop.manual_optimization.optim_step_progress"


def total_steps(trainer: pl.Trainer) -> int | None:
    """Optimiser steps of the whole training; a batch of the trainer may be more than one.

    None without a number of epochs.
    """
    if trainer.max_epochs == -1:
        return None
    batches = trainer.estimated_stepping_batches  # sets up the loader
    sampler = getattr(trainer.train_dataloader, "sampler", None)
    return int(batches) if sampler is None or trainer.max_epochs is None else len(sampler) * trainer.max_epochs


def count_steps(trainer: pl.Trainer, count: int) -> None:
    """Let the trainer know of steps that it has not made itself."""
    progress = trainer.fit_loop.epoch_loop.manual_optimization.optim_step_progress
    for counter in (progress.total, progress.current):
        counter.ready += count
        counter.completed += count


def share_step_counts(loops: dict[str, Any]) -> None:
    """Give both loops of a checkpoint the steps of the one that made them, so that either can continue."""
    fit = loops["fit_loop"]
    automatic, manual = fit[_AUTOMATIC]["optimizer"]["step"], fit[_MANUAL]
    for span in ("total", "current"):
        for state in ("ready", "completed"):
            steps = max(automatic[span][state], manual[span][state])
            automatic[span][state] = manual[span][state] = steps
