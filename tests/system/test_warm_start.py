"""Runs that begin with the weights of another one: real trainings of a second each."""

import json
import logging
import shutil
from pathlib import Path

import pytest
import torch
from torch import Tensor

import spleen.training.checkpoints
from spleen.config.datasets import find_dataset
from spleen.config.identity import identity
from spleen.errors import InputError
from spleen.inference.loading import load_trained
from spleen.inference.predict import predict
from spleen.training.checkpoints import WholeCheckpoints
from tests._helpers.many_cases import ManyCases, many_cases, quick, quick_config
from tests._helpers.small_run import compose_config, summary

pytestmark = pytest.mark.slow  # several trainings each


@pytest.fixture(scope="module")
def others(tmp_path_factory: pytest.TempPathFactory) -> ManyCases:
    """Cases of the source: only with the class "front"; the first voxels differ from those of `data`."""
    cases = many_cases(tmp_path_factory.mktemp("others"), 11)
    for number in range(6):  # those that are the same as in `data`
        cases.image(f"c{number}").unlink()
        cases.label(f"c{number}").unlink()
    content = json.loads((cases.root / "dataset.json").read_text())
    content["training"] = content["training"][6:]
    (cases.root / "dataset.json").write_text(json.dumps(content))
    return cases


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> ManyCases:
    return many_cases(tmp_path_factory.mktemp("data"), 6)


@pytest.fixture(scope="module")
def source(others: ManyCases, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return quick(tmp_path_factory.mktemp("source"), *others.decathlon, "data.label_values={front:[1]}", "seed=5")


def weights(run: Path, name: str = "best.ckpt") -> dict[str, Tensor]:
    state = torch.load(run / "checkpoints" / name, weights_only=True)["state_dict"]
    return {key.removeprefix("network."): value for key, value in state.items() if key.startswith("network.")}


def groups(run: Path) -> list[dict]:
    return torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)["optimizer_states"][0]["param_groups"]


def of_encoder(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: value for name, value in state.items() if name.startswith("network.encoder.")}


def test_a_run_starts_from_another_with_other_classes_and_context(
    data: ManyCases, source: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """At a negligible learning rate, what is carried over is still there at the end."""
    with caplog.at_level(logging.INFO):
        run = quick(tmp_path, *data.decathlon, f"init_from={source}", "lr=1e-12", "context_slices=1")
    before, after = weights(source), weights(run)
    conv = "network.encoder.0.0.weight"
    torch.testing.assert_close(after[conv][:, 1:2], before[conv], rtol=0, atol=1e-9)
    assert after[conv][:, [0, 2]].abs().max() < 1e-9
    torch.testing.assert_close(after["network.head.weight"][:2], before["network.head.weight"], rtol=0, atol=1e-9)
    torch.testing.assert_close(after["network.up.0.weight"], before["network.up.0.weight"], rtol=0, atol=1e-9)
    assert "encoder.0.0: 1 of 3 input channels carried over, 2 new start at zero" in caplog.text
    assert "head: classes background, front carried over, back fresh" in caplog.text
    record = json.loads((run / "warm_start.json").read_text())
    assert record["source"] == source.name
    assert record["layers"]["head"] == "classes background, front carried over, back fresh"
    assert record["layers"]["decoder.0.0"] == "carried over"


def test_a_frozen_encoder_stays_bit_for_bit_and_in_the_average_but_for_rounding(
    data: ManyCases, source: Path, tmp_path: Path
) -> None:
    for number, average in enumerate(("null", "0.7")):
        for on_device in ("false", "true"):
            settings = f"optimiser.ema_decay={average}", f"loader.on_device={on_device}", "epochs=2"
            run = quick(
                tmp_path,
                *data.decathlon,
                f"init_from={source}",
                "freeze=encoder",
                *settings,
                name=f"{number}{on_device}",
            )
            before, after = weights(source), weights(run)
            names = [name for name in of_encoder(before) if average == "null" or "num_batches" not in name]
            assert len(names) >= 24
            for name in names:
                rtol = 0 if average == "null" else 1e-6
                torch.testing.assert_close(after[name], before[name], rtol=rtol, atol=0)
            assert not torch.equal(after["network.up.0.weight"], before["network.up.0.weight"])
            (group,) = groups(run)
            assert len(group["params"]) == len([name for name in before if _is_parameter(name)]) - len(
                [name for name in of_encoder(before) if _is_parameter(name)]
            )


def _is_parameter(name: str) -> bool:
    return name.endswith((".weight", ".bias"))


def test_the_carried_over_part_has_its_own_learning_rate(data: ManyCases, source: Path, tmp_path: Path) -> None:
    run = quick(
        tmp_path, *data.decathlon, f"init_from={source}", "init_lr_factor=0.25", "lr=0.04", "model.network.depth=3",
        "model.size_multiple=8",
    )  # fmt: skip
    fresh, carried = groups(run)
    assert (fresh["initial_lr"], carried["initial_lr"]) == (0.04, 0.01)
    record = json.loads((run / "warm_start.json").read_text())
    assert len(carried["params"]) == len(record["carried_over"])
    assert len(fresh["params"]) + len(carried["params"]) == len([name for name in weights(run) if _is_parameter(name)])
    (only,) = groups(quick(tmp_path, *data.decathlon, f"init_from={source}", "lr=0.04", name="equal"))
    assert only["initial_lr"] == 0.04


class Killed(BaseException):
    """Stands for a kill of the process."""


def test_a_run_is_resumed_exactly_and_without_its_source(
    data: ManyCases, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    alone = tmp_path / "alone.ckpt"
    shutil.copy(source / "checkpoints" / "best.ckpt", alone)
    settings = *data.decathlon, f"init_from={alone}", "init_lr_factor=0.5", "freeze=encoder", "epochs=3"
    expected = quick(tmp_path, *settings, name="uninterrupted")
    save, calls = WholeCheckpoints.save_checkpoint, 0

    def killed(self: WholeCheckpoints, *arguments: object, **named: object) -> None:
        nonlocal calls
        calls += 1
        if calls == 2:
            raise Killed
        save(self, *arguments, **named)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr(spleen.training.checkpoints.WholeCheckpoints, "save_checkpoint", killed)
        with pytest.raises(Killed):
            quick(tmp_path, *settings)
    with pytest.raises(InputError, match=r"other settings: .*init_from was .*alone\.ckpt.* and is now not set"):
        quick(tmp_path, *settings, "init_from=null", "init_lr_factor=1", "freeze=null")
    alone.unlink()
    found = quick(tmp_path, *settings)
    assert summary(found)["resumed"] == 1
    for name in ("metrics.csv", "cases.csv"):
        assert (found / name).read_bytes() == (expected / name).read_bytes()
    torch.testing.assert_close(weights(found, "last.ckpt"), weights(expected, "last.ckpt"), rtol=0, atol=0)
    assert load_trained(found).spec.seen_images == load_trained(expected).spec.seen_images


def test_a_run_has_seen_the_images_of_its_source(
    data: ManyCases, others: ManyCases, source: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run = quick(tmp_path, *data.decathlon, f"init_from={source}")
    again = quick(tmp_path, *data.decathlon, f"init_from={run}", "fold=0", "allow_seen_test=true", name="again")
    seen = set(load_trained(source).spec.seen_images)
    for each in (run, again):
        assert seen < set(load_trained(each).spec.seen_images)
    trained_on = json.loads((source / "split.json").read_text())["train"][0]
    renamed = tmp_path / "patient.nii.gz"
    shutil.copy(others.image(trained_on), renamed)
    with caplog.at_level(logging.WARNING):
        predict(run, renamed, tmp_path / "mask.nii.gz")
    assert "1 of 1 images are, voxel by voxel, images that these runs were trained on: patient" in caplog.text


def test_of_a_source_with_other_channels_it_is_said_that_its_images_are_not_recognised(
    source: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    two = many_cases(tmp_path / "two", 6, channels=2)
    with caplog.at_level(logging.WARNING):
        quick(tmp_path, *two.decathlon, f"init_from={source}")
    assert "trained on images of 1 channel(s), and these have 2, so it cannot be told which" in caplog.text


def test_a_source_that_was_trained_on_test_images_is_refused(
    data: ManyCases, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folds = [quick(tmp_path, *data.decathlon, "split.folds=3", f"fold={fold}", name=f"fold{fold}") for fold in (0, 1)]
    settings = *data.decathlon, "split.folds=3", f"init_from={folds[0]}"
    with pytest.raises(InputError, match=r"2 of 2 test images were .* fold0 .*the same fold.*allow_seen_test=true"):
        quick(tmp_path, *settings, "fold=1", name="leaking")
    with caplog.at_level(logging.WARNING):
        quick(tmp_path, *settings, "fold=0", name="same")
        assert "test images" not in caplog.text
        assert "1 of 1 val images were train or val images of fold0" in caplog.text
        quick(tmp_path, *settings, "fold=1", "allow_seen_test=true", name="allowed")
    assert "2 of 2 test images were train or val images of fold0" in caplog.text


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (("init_from=nowhere",), r"init_from=.*nowhere: no such run folder; give the folder of a finished run"),
        (("init_from={data}",), r"it is not a run with a checkpoints/best\.ckpt, or a \.ckpt file; give"),
        (("freeze=encoder",), r"freeze=encoder needs the weights of another run: set init_from=RUN"),
        (("init_lr_factor=0.5",), r"init_lr_factor=0\.5 needs the weights of another run"),
        (("init_from={source}", "init_lr_factor=0"), r"init_lr_factor must be above 0 to 1; got 0"),
        (("init_from={source}", "freeze=decoder"), r"freeze must be one of encoder; got 'decoder'"),
        (("init_from={source}", "model.network.width=3"), r"best\.ckpt: none of its layers fits: it is a UNet"),
        (
            ("init_from={source}", "freeze=encoder", "context_slices=1"),
            r"encoder that is carried over as a whole, .*encoder\.0\.0 \(1 of 3 input channels .*context_slices of",
        ),
    ],
)
def test_wrong_settings_are_refused_before_anything_is_written(
    data: ManyCases, source: Path, tmp_path: Path, settings: tuple[str, ...], message: str
) -> None:
    filled = [text.format(source=source, data=data.root) for text in settings]
    with pytest.raises(InputError, match=message):
        quick(tmp_path, *data.decathlon, *filled)
    run = tmp_path / "outputs" / "study" / "now"
    assert not run.exists() or not list(run.iterdir())


def test_a_damaged_checkpoint_is_refused(data: ManyCases, source: Path, tmp_path: Path) -> None:
    damaged = tmp_path / "damaged.ckpt"
    content = (source / "checkpoints" / "best.ckpt").read_bytes()
    damaged.write_bytes(content[: len(content) // 2])
    with pytest.raises(InputError, match=r"damaged\.ckpt is not a checkpoint of `spleen train`, or it is truncated"):
        quick(tmp_path, *data.decathlon, f"init_from={damaged}")


def test_the_source_counts_by_its_content(data: ManyCases, source: Path, tmp_path: Path) -> None:
    def identity_of(*overrides: str) -> str:
        config = quick_config(tmp_path, *data.decathlon, *overrides)
        return identity(config, find_dataset(config).cases)

    copy, changed = tmp_path / "copy.ckpt", tmp_path / "changed.ckpt"
    shutil.copy(source / "checkpoints" / "best.ckpt", copy)
    changed.write_bytes(copy.read_bytes() + b"\0")
    warm = identity_of(f"init_from={source}")
    assert identity_of(f"init_from={copy}") == warm
    different = [
        identity_of(),
        identity_of(f"init_from={changed}"),
        identity_of(f"init_from={source}", "init_lr_factor=0.5"),
        identity_of(f"init_from={source}", "freeze=encoder"),
    ]
    assert len({warm, *different}) == 5


def test_a_link_to_the_latest_run_is_followed_when_the_run_begins(source: Path, tmp_path: Path) -> None:
    link = tmp_path / "latest"
    link.symlink_to(source, target_is_directory=True)
    assert compose_config(f"init_from={link}", f"cache_dir={tmp_path}", f"output_dir={tmp_path}").init_from == str(
        source.resolve()
    )
