"""The moving average of the weights, against values worked out by hand."""

import pytest
import pytorch_lightning as pl
import torch
from torch.utils.data import DataLoader

from spleen.training.on_device.averaging import AveragedWeights


class Counting(pl.LightningModule):
    """A training after whose nth step the only weight is n."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))

    def training_step(self, batch: torch.Tensor, index: int) -> torch.Tensor:
        return -self.weight.sum()

    def train_dataloader(self) -> DataLoader[int]:
        return DataLoader(range(4))

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=1.0)


@pytest.mark.parametrize(
    ("decay", "expected"),
    [
        # Decays of 0, 1/10, 2/11 and 3/12: averages of 1, 1.9, 2.8 and 3.7.
        (0.998, 3.7),
        # The last decay is 0.2: 0.2 · 2.8 + 0.8 · 4.
        (0.2, 3.76),
    ],
)
def test_the_decay_grows_with_the_steps_up_to_its_value(decay: float, expected: float) -> None:
    module = Counting()
    trainer = pl.Trainer(
        accelerator="cpu", devices=1, max_epochs=1, logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, callbacks=[AveragedWeights(decay)],
    )  # fmt: skip
    trainer.fit(module)  # at its end the module gets the average
    assert module.weight.item() == pytest.approx(expected, rel=1e-6)
