"""Steps that the module makes itself: on a CPU the numbers of the trainer's own steps, on a GPU one graph each."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import cast

import numpy as np
import pytest
import torch
from torch._subclasses.fake_tensor import DataDependentOutputException, FakeTensorMode

import spleen.training.module
import spleen.training.on_device.graphs
from spleen.config.factory import build_augment_settings, build_loss
from spleen.data.augmentation.crop import CropSettings
from spleen.data.loading.batches import SliceTable
from spleen.data.loading.on_device import DeviceSlices
from spleen.errors import InputError
from spleen.models.losses import DiceCrossEntropyLoss
from spleen.models.unet import UNet
from spleen.training.on_device.graphs import GraphedSteps, packed, packed_bytes, unpacked
from spleen.training.on_device.steps import Steps, StepSettings
from spleen.training.scores import SplitScores
from tests._helpers.small_run import SmallCt, compose_config, rows, small_ct, summary, train
from tests._helpers.stored_slices import case_slices

RUN = ("data.label_values=[3,4]", "epochs=2", "loader.slices_per_epoch=40")
NEEDS_GPU = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")


@pytest.fixture(scope="module")
def ct(tmp_path_factory: pytest.TempPathFactory) -> SmallCt:
    return small_ct(tmp_path_factory.mktemp("ct"))


def _state(run_folder: Path, *parts: str) -> dict[str, object]:
    content = torch.load(run_folder / "checkpoints" / "last.ckpt", weights_only=True)
    return {part: content.get(part) for part in parts}


@pytest.mark.parametrize(
    "settings",
    [
        ("augment=none",),
        ("augment=strong", "augment.flips=[left_right]", "optimiser.ema_decay=0.9", "model.network.dropout=0.2"),
        ("img_size=native", "crop_size=16", "context_slices=1", "precision=bf16", "optimiser.gradient_clip=null"),
    ],
    ids=["plain", "augmented_and_averaged", "windows_in_bf16"],
)
def test_on_a_cpu_every_number_is_that_of_the_trainers_own_steps(
    ct: SmallCt, tmp_path: Path, settings: tuple[str, ...]
) -> None:
    folders = [
        train(tmp_path, *ct.overrides, *RUN, *settings, f"loader.on_device={on}", name=on) for on in ("false", "true")
    ]
    for name in ("metrics.csv", "cases.csv", "split.json"):
        assert (folders[0] / name).read_bytes() == (folders[1] / name).read_bytes(), name
    kept = ("state_dict", "current_model_state", "optimizer_states", "lr_schedulers", "global_step")
    wanted, found = (_state(folder, *kept) for folder in folders)
    torch.testing.assert_close(found, wanted, rtol=0, atol=0)
    assert len(rows(folders[1] / "metrics.csv")) == 2
    assert float(rows(folders[1] / "metrics.csv")[-1]["step"]) == 20


@pytest.mark.slow
@pytest.mark.parametrize(("before", "after"), [("true", "true"), ("false", "true"), ("true", "false")])
def test_a_run_is_resumed_exactly_by_either_way_of_making_steps(
    ct: SmallCt, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, before: str, after: str
) -> None:
    settings = (*ct.overrides, *RUN, "optimiser.ema_decay=0.9")
    expected = train(tmp_path, *settings, name="uninterrupted")

    class Killed(BaseException):
        """Stands for a kill of the process."""

    def killed(*_: object) -> None:
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr("spleen.training.scores.SplitScores.finish", _on_call(2, killed))
        with pytest.raises(Killed):
            train(tmp_path, *settings, f"loader.on_device={before}")
    found = train(tmp_path, *settings, f"loader.on_device={after}")
    assert summary(found)["resumed"] == 1
    for name in ("metrics.csv", "cases.csv"):
        assert (found / name).read_bytes() == (expected / name).read_bytes(), name


def _on_call(number: int, instead: Callable[[], None]) -> Callable[[SplitScores], object]:
    function, calls = SplitScores.finish, 0

    def counted(self: SplitScores) -> object:
        nonlocal calls
        calls += 1
        return instead() if calls == number else function(self)

    return counted


def test_a_loss_that_is_not_finite_is_reported_with_its_step_and_slices(
    ct: SmallCt, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    messages = []
    for on_device in ("false", "true"):
        steps = 0

        def broken(self: DiceCrossEntropyLoss, logits: torch.Tensor, label: torch.Tensor) -> torch.Tensor:
            nonlocal steps
            steps += 1
            return logits.mean() * (math.nan if steps == 6 else 1.0)

        monkeypatch.setattr(DiceCrossEntropyLoss, "forward", broken)
        with pytest.raises(InputError) as error:
            train(tmp_path, *ct.overrides, *RUN, f"loader.on_device={on_device}", name=on_device)
        messages.append(str(error.value))
    assert messages[0] == messages[1]
    assert "the loss became nan in step 6 (epoch 1 of 2) on case scan7, slices " in messages[0]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (("trainer=ddp", "trainer.accelerator=cpu"), r"loader\.on_device=true needs one process .* trainer\.devices=2"),
        (("loader.on_device=maybe",), r"loader\.on_device must be auto, true or false; got maybe"),
    ],
)
def test_what_cannot_be_done_on_the_device_is_refused(
    ct: SmallCt, tmp_path: Path, settings: tuple[str, ...], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        train(tmp_path, *ct.overrides, *RUN, "loader.on_device=true", *settings)


@pytest.mark.parametrize("preset", ["none", "light", "strong"])
def test_a_step_for_a_graph_reads_no_value_of_a_tensor(tmp_path: Path, preset: str) -> None:
    config = compose_config(f"augment={preset}", "augment.flips=[left_right,superior_inferior]")
    settings = StepSettings(build_augment_settings(config), "coronal", (0, 2, 1), CropSettings(8, 0.5), 1.0, True)
    slices = DeviceSlices(SliceTable(case_slices(tmp_path, n_channels=1), context_slices=1), torch.device("cpu"))
    numbers, size = np.array([0, 11, 20]), (16, 16)
    with FakeTensorMode() as mode:  # tensors without content: whoever asks for a value gets an exception
        network, loss_of = UNet(3, 3, width=4, depth=2, dropout=0.1), build_loss(config)
        optimiser = torch.optim.SGD(network.parameters(), 0.1)
        steps = Steps(lambda image, label: loss_of(network(image), label), optimiser, slices, settings)
    inputs = {**slices.rows(numbers)._asdict(), **steps._draw(len(numbers), size, torch.Generator().manual_seed(0))}
    inputs.pop("noise", None)  # a GPU draws its own
    steps._graphs = cast(GraphedSteps, object())  # as on a GPU: nothing may be decided on the CPU
    with mode:
        slices.pixels, slices.labels = mode.from_tensor(slices.pixels), mode.from_tensor(slices.labels)
        inputs = {name: mode.from_tensor(value) for name, value in inputs.items()} | {"lr": torch.tensor(0.1)}
        assert steps._compute(inputs, size).shape == ()
        with pytest.raises(DataDependentOutputException):
            float(steps._compute(inputs, size))


def test_tensors_of_all_types_come_back_from_one_buffer() -> None:
    random = np.random.default_rng(0)
    inputs = {
        "flags": torch.from_numpy(random.random(5) > 0.5),
        "numbers": torch.from_numpy(random.integers(0, 2**62, (3, 2))),
        "rate": torch.tensor(0.25),
        "nothing": torch.zeros(0, 3),
        "classes": torch.from_numpy(random.integers(0, 255, 7).astype(np.uint8)),
    }
    buffer = packed(inputs)
    assert len(buffer) == packed_bytes(inputs.values()) == 5 + 3 * 2 * 8 + 4 + 0 + 7
    views = unpacked(buffer, inputs)
    assert views.keys() == inputs.keys()
    assert all(torch.equal(views[name], value) for name, value in inputs.items())


@NEEDS_GPU
@pytest.mark.parametrize("settings", [("augment=none",), ("augment=strong", "optimiser.ema_decay=0.9")])
def test_a_graph_makes_the_same_steps_as_its_eager_form(
    ct: SmallCt, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, settings: tuple[str, ...]
) -> None:
    run = (*ct.overrides, *RUN, "trainer=gpu", "trainer.progress=false", *settings)
    graphed = train(tmp_path, *run, name="graphed")
    monkeypatch.setattr(spleen.training.on_device.graphs, "_EAGER_STEPS", 1_000_000)
    eager = train(tmp_path, *run, name="eager")
    for found, wanted in zip(rows(graphed / "metrics.csv"), rows(eager / "metrics.csv"), strict=True):
        assert float(found["train/loss"]) == pytest.approx(float(wanted["train/loss"]), rel=1e-3)
        assert float(found["step"]) == float(wanted["step"])


@NEEDS_GPU
def test_a_network_that_reads_the_device_trains_without_a_graph(
    ct: SmallCt, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    forward = spleen.training.module.SegmentationModule.forward

    def reading(self, image):
        return forward(self, image) * (1.0 if float(image.mean()) > -1e9 else 0.0)

    monkeypatch.setattr(spleen.training.module.SegmentationModule, "forward", reading)
    run_folder = train(tmp_path, *ct.overrides, *RUN, "trainer=gpu", "trainer.progress=false")
    assert "cannot be recorded as a CUDA graph" in capsys.readouterr().out
    assert len(rows(run_folder / "metrics.csv")) == 2
