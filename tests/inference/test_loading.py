"""Loading trained networks: valid files give the trained network; invalid or malicious ones are refused, never run."""

import pickle
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch

from spleen.errors import InputError
from spleen.imaging.intensity import CtWindow
from spleen.inference.choice import find_checkpoints
from spleen.inference.loading import load_ensemble, load_trained
from spleen.models.unet import UNet
from tests._helpers.forged_checkpoints import Bait, forge, forge_network, forge_spec
from tests._helpers.trained_runs import TWO_CLASSES, three_views, trained

BEST = Path("checkpoints", "best.ckpt")


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return three_views(tmp_path_factory)[0]


# Valid runs ---------------------------------------------------------------------------------------------------------


def test_a_run_loads_its_best_network_in_eval_mode(run_folder: Path) -> None:
    model = load_trained(run_folder)
    weights = torch.load(run_folder / BEST, weights_only=True)["state_dict"]
    expected = UNet(1, 2, width=4, depth=2)
    expected.load_state_dict({name.removeprefix("network.network."): value for name, value in weights.items()})
    image = torch.randn(2, 1, 20, 32, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        torch.testing.assert_close(model.network(image), expected.eval()(image))
    assert not model.network.training


def test_a_run_loads_its_preprocessing_and_classes(run_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    model = load_trained(run_folder)
    spec, preprocessing = model.spec, model.preprocessing
    assert (model.name, spec.context_slices, spec.precision, spec.trained_flips) == ("axial", 0, "32", ())
    assert (preprocessing.axis, preprocessing.img_size, preprocessing.resize) == ("axial", 32, "keep_aspect")
    assert preprocessing.intensity == CtWindow(50, 400)
    assert (model.classes.names, model.classes.values) == (("bright",), ((3, 4),))
    settings = (*TWO_CLASSES, "axis=coronal", "context_slices=1", "resize=stretch")
    several = load_trained(trained(tmp_path_factory, "two_classes", *settings))
    assert (several.spec.context_slices, several.preprocessing.resize) == (1, "stretch")
    assert (several.classes.names, several.classes.values) == (("dark", "bright"), ((7,), (3, 4)))


def test_the_training_flips_are_loaded(run_folder: Path, tmp_path: Path) -> None:
    def flip(spec: dict[str, Any]) -> None:
        spec["trained_flips"] = ["left_right"]

    assert load_trained(forge_spec(run_folder, tmp_path / "flipped.ckpt", flip)).spec.trained_flips == ("left_right",)


def test_a_checkpoint_loads_without_its_run_folder(run_folder: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copy(run_folder / BEST, tmp_path / "abdomen.ckpt"))
    assert load_trained(copy).name == "abdomen"
    assert load_trained(run_folder / BEST).name == "axial"
    assert load_trained(run_folder / "checkpoints" / "last.ckpt").name == "axial"


def test_a_folder_of_runs_loads_as_an_ensemble_of_all_of_them(tmp_path_factory: pytest.TempPathFactory) -> None:
    views = three_views(tmp_path_factory)
    folder = tmp_path_factory.mktemp("study")
    for view in views:
        shutil.copytree(view, folder / view.name)
    (folder / "figures").mkdir()
    assert find_checkpoints(folder) == [folder / view.name / BEST for view in views]
    models = load_ensemble([folder])
    assert [model.preprocessing.axis for model in models] == ["axial", "coronal", "sagittal"]
    assert [model.name for model in load_ensemble([views[2], views[0]])] == ["sagittal", "axial"]
    with pytest.raises(InputError, match=r"contains 3 runs; give one of them: .*axial"):
        load_trained(folder)


@pytest.mark.parametrize(
    ("change", "classes"),
    [
        ({"name": "left"}, r"left=\[3, 4\]"),
        ({"label_values": [3]}, r"bright=\[3\]"),
    ],
    ids=["different name", "different values"],
)
def test_runs_with_different_classes_are_not_fused(
    run_folder: Path, tmp_path: Path, change: dict[str, Any], classes: str
) -> None:
    other = forge_spec(run_folder, tmp_path / "other.ckpt", lambda spec: spec["classes"][0].update(change))
    with pytest.raises(InputError, match=rf"axial has bright=\[3, 4\], other has {classes}"):
        load_ensemble([run_folder, other])


def test_runs_that_name_a_class_differently_are_fused_after_renaming(run_folder: Path, tmp_path: Path) -> None:
    other = forge_spec(run_folder, tmp_path / "other.ckpt", lambda spec: spec["classes"][0].update(name="organ"))
    with pytest.raises(InputError, match=r"If they mean the same, add --class organ=bright$"):
        load_ensemble([run_folder, other])
    models = load_ensemble([run_folder, other], new_names={"organ": "bright"})
    assert [model.classes.names for model in models] == [("bright",), ("bright",)]
    assert [model.trained_names for model in models] == [("bright",), ("organ",)]
    with pytest.raises(InputError, match="no class 'liver' to rename: the classes are bright, organ"):
        load_ensemble([run_folder, other], new_names={"liver": "bright"})


# Code in a file is never run ----------------------------------------------------------------------------------------


def as_zip(bait: Bait, run_folder: Path, path: Path) -> None:
    torch.save(bait, path)


def in_the_legacy_format(bait: Bait, run_folder: Path, path: Path) -> None:
    torch.save({"spleen": bait}, path, _use_new_zipfile_serialization=False)


def as_bare_pickle(bait: Bait, run_folder: Path, path: Path) -> None:
    path.write_bytes(pickle.dumps(bait))


def in_an_extra_entry(bait: Bait, run_folder: Path, path: Path) -> None:
    forge(run_folder, path, lambda content: content.update(extra=bait))


def in_the_weights(bait: Bait, run_folder: Path, path: Path) -> None:
    forge(run_folder, path, lambda content: content["state_dict"].update({"network.extra": bait}))


def in_the_specification(bait: Bait, run_folder: Path, path: Path) -> None:
    forge(run_folder, path, lambda content: content.update(model_spec=bait))


@pytest.mark.parametrize(
    "hide", [as_zip, in_the_legacy_format, as_bare_pickle, in_an_extra_entry, in_the_weights, in_the_specification]
)
@pytest.mark.parametrize("allow_custom_code", [False, True])
def test_a_malicious_pickle_is_refused_and_not_run(
    run_folder: Path, tmp_path: Path, hide: Callable[[Bait, Path, Path], None], allow_custom_code: bool
) -> None:
    checkpoint, trace = tmp_path / "evil.ckpt", tmp_path / "trace"
    hide(Bait(trace), run_folder, checkpoint)
    with pytest.raises(InputError, match=r"names posix\.system|is not a checkpoint of `spleen train`"):
        load_trained(checkpoint, allow_custom_code)
    assert not trace.exists()
    if hide is as_bare_pickle:
        pickle.loads(checkpoint.read_bytes())
    else:
        torch.load(checkpoint, weights_only=False)
    assert trace.exists()  # the bait does work


@pytest.mark.parametrize("nested", [False, True])
def test_a_malicious_target_is_refused_and_not_run(run_folder: Path, tmp_path: Path, nested: bool) -> None:
    trace = tmp_path / "trace"
    network = {"_target_": "os.makedirs", "name": str(trace)}
    if nested:
        network = {"_target_": "torch.nn.Conv2d", "in_channels": 1, "out_channels": 2, "kernel_size": network}
    evil = forge_network(run_folder, tmp_path / "evil.ckpt", network)
    with pytest.raises(InputError, match=r"evil\.ckpt: its network is 'os\.makedirs', .* add --allow-custom-code"):
        load_trained(evil)
    assert not trace.exists()
    with pytest.raises(InputError, match=r"cannot be built|gives NoneType"):
        load_trained(evil, allow_custom_code=True)
    assert trace.exists()  # the bait does work


OWN_NETWORK = """
import psutil
import torch
class Own(torch.nn.Module):
    def __init__(self, in_channels, out_channels):
        super().__init__()
        self.layer = torch.nn.Conv2d(in_channels, out_channels, 1)
    def forward(self, image):
        return self.layer(image)
"""


def test_allow_custom_code_builds_the_users_own_network(
    run_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "own_networks.py").write_text(OWN_NETWORK)
    monkeypatch.syspath_prepend(tmp_path)

    def change(content: dict[str, Any]) -> None:
        content["state_dict"] = {
            "network.network.layer.weight": torch.tensor([[[[1.0]]], [[[-2.0]]]]),
            "network.network.layer.bias": torch.tensor([0.5, 0.0]),
        }

    network = {"_target_": "own_networks.Own", "in_channels": 1, "out_channels": 2}
    forged = forge_network(run_folder, tmp_path / "a" / "checkpoints" / "best.ckpt", network)
    own = forge(forged.parents[1], tmp_path / "own.ckpt", change)
    with pytest.raises(InputError, match=r"its network is 'own_networks\.Own'"):
        load_trained(own)
    output = load_trained(own, allow_custom_code=True).network(torch.full((1, 1, 4, 4), 3.0))
    assert output[0, :, 0, 0].tolist() == [3.5, -6.0]

    load_trained(own, own_network={"_target_": "own_networks.Own"})
    with pytest.raises(
        InputError, match=r"'own_networks\.Own'.*a network of your own is taken where model\.network is"
    ):
        load_trained(own, own_network={"_target_": "own_networks.Another"})


# Damaged and foreign files ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kept_fraction", [0.0, 0.01, 0.5, 0.99, 0.9999])
def test_a_truncated_checkpoint_is_reported(run_folder: Path, tmp_path: Path, kept_fraction: float) -> None:
    whole = (run_folder / BEST).read_bytes()
    path = tmp_path / "cut.ckpt"
    path.write_bytes(whole[: int(kept_fraction * len(whole))])
    with pytest.raises(
        InputError, match=r"cut\.ckpt is not a checkpoint of `spleen train`, or it is truncated; copy it again"
    ):
        load_trained(path)


@pytest.mark.parametrize("damage", [b"\xff\x52\x00\x68", b"\x85R", b"QQQ", b"K\x01K\x02"], ids=bytes.hex)
def test_damage_to_a_checkpoint_is_reported_and_never_crashes(run_folder: Path, tmp_path: Path, damage: bytes) -> None:
    """The first bytes of the file are pickled names; damage to them fails in many different ways."""
    whole, path, n_refused = (run_folder / BEST).read_bytes(), tmp_path / "damaged.ckpt", 0
    for start in range(60, 400, 20):
        path.write_bytes(whole[:start] + damage + whole[start + len(damage) :])
        try:
            load_trained(path)
        except InputError as error:
            assert "damaged.ckpt" in str(error)  # noqa: PT017 (some damage goes unnoticed, so nothing may be raised)
            n_refused += 1
    assert n_refused > 5


@pytest.mark.parametrize(
    "content", [torch.ones(3), {"state_dict": {}}, {"spleen": "{}"}, [], {"spleen": "x", "state_dict": 3}], ids=repr
)
def test_checkpoints_of_other_programs_are_reported(tmp_path: Path, content: object) -> None:
    torch.save(content, tmp_path / "other.ckpt")
    with pytest.raises(InputError, match=r"other\.ckpt:? (it )?was not written by `spleen train`"):
        load_trained(tmp_path / "other.ckpt")


@pytest.mark.parametrize("name", ["best.ckpt", "last.ckpt"])
def test_a_flipped_bit_in_the_weights_is_reported(run_folder: Path, tmp_path: Path, name: str) -> None:
    source = run_folder / "checkpoints" / name
    with zipfile.ZipFile(source) as archive:
        largest = max(archive.infolist(), key=lambda entry: entry.file_size)
        start = source.read_bytes().index(archive.read(largest))
    content = bytearray(source.read_bytes())
    content[start + largest.file_size // 2] ^= 1 << 6
    (tmp_path / name).write_bytes(content)
    with pytest.raises(
        InputError, match=rf"{name} is damaged: the content of archive/data.* does not match its checksum"
    ):
        load_trained(tmp_path / name)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_nan_or_infinite_weights_are_refused(run_folder: Path, tmp_path: Path, value: float) -> None:
    def spoil(content: dict[str, Any]) -> None:
        next(iter(content["state_dict"].values())).flatten()[0] = value

    with pytest.raises(
        InputError, match=r"diverged\.ckpt: its weights contain NaN or Inf \(.*\): the training diverged"
    ):
        load_trained(forge(run_folder, tmp_path / "diverged.ckpt", spoil))


def test_a_specification_of_a_giant_network_allocates_no_memory(run_folder: Path, tmp_path: Path) -> None:
    giant = {"_target_": "spleen.models.unet.UNet", "in_channels": 1, "out_channels": 2, "width": 200_000, "depth": 2}
    before = psutil.Process().memory_info().rss
    with pytest.raises(InputError, match=r"(?s)giant\.ckpt: .*size mismatch"):
        load_trained(forge_network(run_folder, tmp_path / "giant.ckpt", giant))
    assert psutil.Process().memory_info().rss - before < 200e6


def test_weights_that_do_not_match_the_network_are_reported(run_folder: Path, tmp_path: Path) -> None:
    wider = {"_target_": "spleen.models.unet.UNet", "in_channels": 1, "out_channels": 2, "width": 8, "depth": 2}
    with pytest.raises(InputError, match=r"(?s)wider\.ckpt: .*size mismatch"):
        load_trained(forge_network(run_folder, tmp_path / "wider.ckpt", wider))
    lacking = forge(run_folder, tmp_path / "lacking.ckpt", lambda content: content["state_dict"].popitem())
    with pytest.raises(InputError, match=r"(?s)lacking\.ckpt: .*Missing key"):
        load_trained(lacking)


def test_a_path_without_a_run_is_reported(tmp_path: Path, run_folder: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "notes.txt").touch()
    (tmp_path / "stopped" / "checkpoints").mkdir(parents=True)
    shutil.copy(run_folder / "checkpoints" / "last.ckpt", tmp_path / "stopped" / "checkpoints")
    for name, message in {
        "nowhere": "no such run folder or checkpoint",
        "empty": "is not a run folder: it has no checkpoints/best.ckpt",
        "notes.txt": "is not a checkpoint; give a run folder, or a file that ends in .ckpt",
        "stopped": r"did not complete an epoch with validation; .*last\.ckpt can be used",
    }.items():
        with pytest.raises(InputError, match=message):
            load_trained(tmp_path / name)
        assert find_checkpoints(tmp_path / name) == []
        with pytest.raises(InputError, match=message):
            load_ensemble([run_folder, tmp_path / name])
