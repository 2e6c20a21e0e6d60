"""An exponential moving average of the weights, updated after every optimiser step."""
# ruff: noqa: ARG002  (Lightning gives the hooks their arguments)

from itertools import chain
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import WeightAveraging
from pytorch_lightning.utilities.types import STEP_OUTPUT

from spleen.data.loading.on_device import StepNumbers

_WARM_UP = 9


class AveragedWeights(WeightAveraging):
    """Lightning's average, which begins gently and can also be updated inside a step that a GPU repeats on its own.

    After n steps the decay is min(`decay`, n / (n + 9)), so that the random weights of the beginning are forgotten at
    once and early validations see weights of the last tenth of the steps. This is the warm-up of TensorFlow's
    ExponentialMovingAverage, (1 + n) / (10 + n) after n updates, of which the first one is ours at n = 1.
    """

    def __init__(self, decay: float) -> None:
        super().__init__()
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
        if trainer.global_step > self._latest_update_step and not isinstance(batch, StepNumbers):
            self.update(pl_module)
        self._latest_update_step = trainer.global_step

    @torch.no_grad()
    def update(self, module: pl.LightningModule) -> None:
        """Update the average after one step, without waiting for the device."""
        average = self._average_model
        assert average is not None
        decay = (average.n_averaged / (average.n_averaged + _WARM_UP)).clamp(max=self._decay)
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
                averaged.copy_(decay * averaged + (1 - decay) * current)
        torch._foreach_mul_(floats, decay)
        torch._foreach_add_(floats, torch._foreach_mul(new_floats, 1 - decay))
        average.n_averaged.add_(1)


def averaged_weights(trainer: pl.Trainer) -> AveragedWeights | None:
    """The average of a trainer, if it has one."""
    callbacks: list[pl.Callback] = trainer.callbacks  # type: ignore[attr-defined]
    return next((each for each in callbacks if isinstance(each, AveragedWeights)), None)
