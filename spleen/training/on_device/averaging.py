"""An exponential moving average of the weights, updated after every optimiser step."""

from itertools import chain
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import EMAWeightAveraging
from pytorch_lightning.utilities.types import STEP_OUTPUT

from spleen.data.loading.on_device import StepNumbers


class AveragedWeights(EMAWeightAveraging):
    """Lightning's average, which can also be updated inside a step that a GPU repeats on its own."""

    def __init__(self, decay: float) -> None:
        super().__init__(decay=decay)
        self._decay = decay

    @property
    def state_key(self) -> str:
        """The name of its state in checkpoints, whatever the class is called."""
        return "EMAWeightAveraging"

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Keep the average where the weights will be: Lightning asks before it has moved them there."""
        self._device = trainer.strategy.root_device
        super().setup(trainer, pl_module, stage)

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: STEP_OUTPUT, batch: Any, batch_idx: int
    ) -> None:
        """Update the average, unless the steps have done it themselves."""
        if isinstance(batch, StepNumbers):
            self._latest_update_step = trainer.global_step
        else:
            super().on_train_batch_end(trainer, pl_module, outputs, batch, batch_idx)

    @torch.no_grad()
    def update(self, module: pl.LightningModule) -> None:
        """Update the average after one step, without waiting for the device once it has begun."""
        average = self._average_model
        assert average is not None
        if not self._latest_update_step:  # the first step of a training copies the weights
            average.update_parameters(module)
            self._latest_update_step = 1
            return
        pairs = zip(
            chain(average.module.parameters(), average.module.buffers()),
            chain(module.parameters(), module.buffers()),
            strict=True,
        )
        floats, new_floats = [], []
        for averaged, current in pairs:
            if averaged.is_floating_point():
                floats.append(averaged.detach())
                new_floats.append(current.detach())
            else:
                averaged.copy_(self._decay * averaged + (1 - self._decay) * current)
        torch._foreach_mul_(floats, self._decay)
        torch._foreach_add_(floats, torch._foreach_mul(new_floats, 1 - self._decay))
        average.n_averaged.add_(1)


def averaged_weights(trainer: pl.Trainer) -> AveragedWeights | None:
    """The average of a trainer, if it has one."""
    callbacks: list[pl.Callback] = trainer.callbacks  # type: ignore[attr-defined]
    return next((each for each in callbacks if isinstance(each, AveragedWeights)), None)
