"""How many slices the steps have by which a network is timed; the times themselves are those of the machine."""

from collections.abc import Iterator

import pytest
import torch

from spleen.auto.timing import slices_per_second
from spleen.models.unet import UNet
from tests._helpers.small_run import compose_config, small


@pytest.fixture
def batches() -> Iterator[list[int]]:
    """The number of slices that a network was given, step by step."""
    seen: list[int] = []

    def note(module: torch.nn.Module, inputs: tuple[torch.Tensor, ...], _: object) -> None:
        if isinstance(module, UNet) and module.training and torch.is_grad_enabled():  # not the check of its shapes
            seen.append(len(inputs[0]))

    hook = torch.nn.modules.module.register_module_forward_hook(note)
    yield seen
    hook.remove()


def test_without_time_for_a_batch_a_few_slices_have_to_do(batches: list[int]) -> None:
    speed = slices_per_second(compose_config(*small("batch_size=8")), shape=(32, 32), most_seconds=0.0)
    assert speed is not None
    assert speed > 0
    assert batches == [2, 2]


def test_with_time_whole_batches_are_timed_after_a_warm_up(batches: list[int]) -> None:
    slices_per_second(compose_config(*small("batch_size=8")), shape=(32, 32), most_seconds=1e6)
    assert batches == [2, 2, *[8] * 5]


def test_a_batch_of_one_slice_is_timed_as_it_is(batches: list[int]) -> None:
    slices_per_second(compose_config(*small("batch_size=1")), shape=(32, 32), most_seconds=0.0)
    assert batches == [1, 1]
