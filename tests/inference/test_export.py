"""Exported networks, run with onnxruntime and torch.jit, reproduce PyTorch's probabilities and predicted masks."""

import json
import math
import re
import resource
import subprocess
import sys
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import nn

from spleen.config.factory import build_spec
from spleen.errors import InputError
from spleen.imaging.intensity import CtWindow, MrPercentiles, ZScore
from spleen.imaging.native import read_native, write_like
from spleen.inference.ensemble import predict_volume
from spleen.inference.export import ExportReport, export, metadata_of
from spleen.inference.export_graph import PatchProbabilities, SliceProbabilities, largest_difference, serialise
from spleen.inference.loading import TrainedModel, load_trained
from spleen.inference.outputs import to_label_values
from spleen.inference.predict import predict
from spleen.inference.settings import PredictSettings
from spleen.inference.views.build import make_views
from spleen.models.factory import build_network
from spleen.models.padding import PadToMultiple
from spleen.models.unet import UNet
from tests._helpers.small_run import REPOSITORY, SmallCt, compose_config, small_ct, train
from tests._helpers.smp import models

# TorchScript gets no new features from PyTorch, as docs/how-to/export.md explains.
pytestmark = pytest.mark.filterwarnings("ignore:.*torch.jit.* is deprecated:DeprecationWarning")

COMMAND = "import typer; from spleen.cli.export import export; typer.run(export)"
FORMATS = ["onnx", "torchscript"]
MODELS = sorted(path.stem for path in (REPOSITORY / "conf" / "model").glob("*.yaml"))


@pytest.fixture(scope="module")
def ct(tmp_path_factory: pytest.TempPathFactory) -> SmallCt:
    """A CT whose array axes differ from RAS in both direction and order."""
    return small_ct(tmp_path_factory.mktemp("ct"), "PIR", "PIR")


@pytest.fixture(scope="module")
def run(ct: SmallCt, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A two-class run with one context slice on each side."""
    return train(
        tmp_path_factory.mktemp("run"), *ct.overrides, "data.label_values={dark: 7, bright: [3, 4]}",
        "context_slices=1", "axis=coronal",
    )  # fmt: skip


@pytest.fixture(scope="module")
def command(run: Path, tmp_path_factory: pytest.TempPathFactory) -> subprocess.CompletedProcess[str]:
    """The export command with its default options, in a new process."""
    folder = tmp_path_factory.mktemp("onnx")
    done = subprocess.run([sys.executable, "-c", COMMAND, str(run)], cwd=folder, capture_output=True, text=True)
    done.args = folder
    return done


@pytest.fixture(scope="module")
def onnx_file(command: subprocess.CompletedProcess[str]) -> Path:
    return Path(command.args) / "model.onnx"


@pytest.fixture(scope="module")
def torchscript(run: Path, tmp_path_factory: pytest.TempPathFactory) -> ExportReport:
    return export(run, tmp_path_factory.mktemp("torchscript") / "deep" / "net.pt", "torchscript")


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The example program from the documentation."""
    (code,) = re.findall(r"```python\n(.*?)```", (REPOSITORY / "docs" / "how-to" / "export.md").read_text(), re.DOTALL)
    path = tmp_path_factory.mktemp("program") / "mask.py"
    path.write_text(code)
    return path


def saved_network(run_folder: Path) -> UNet:
    checkpoint = torch.load(run_folder / "checkpoints" / "best.ckpt", weights_only=True)
    network = UNet(3, 3, width=4, depth=2)
    prefix = "network.network."
    network.load_state_dict({name.removeprefix(prefix): value for name, value in checkpoint["state_dict"].items()})
    return network.eval()


def run_onnx(path: Path, slices: np.ndarray) -> np.ndarray:
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    (probabilities,) = session.run(["probabilities"], {"slices": slices})
    return probabilities


# The graph ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("file_format", FORMATS)
@pytest.mark.parametrize("shape", [(1, 32, 32), (5, 12, 40), (2, 23, 30), (3, 1, 5)])
def test_exported_networks_reproduce_the_saved_weights_for_slices_of_any_size(
    run: Path, onnx_file: Path, torchscript: ExportReport, file_format: str, shape: tuple[int, int, int]
) -> None:
    batch, height, width = shape
    slices = np.random.default_rng(0).uniform(-1, 1, (batch, 3, height, width)).astype(np.float32)
    padded = np.pad(slices, ((0, 0), (0, 0), (0, -height % 4), (0, -width % 4)), mode="edge")
    with torch.no_grad():
        expected = saved_network(run)(torch.from_numpy(padded)).softmax(1)[:, :, :height, :width].numpy()
    if file_format == "onnx":
        found = run_onnx(onnx_file, slices)
    else:
        found = torch.jit.load(torchscript.path)(torch.from_numpy(slices)).detach().numpy()
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, atol=2e-5)


def test_the_onnx_file_is_valid_and_names_its_dynamic_dimensions(onnx_file: Path) -> None:
    onnx.checker.check_model(str(onnx_file), full_check=True)
    session = onnxruntime.InferenceSession(str(onnx_file), providers=["CPUExecutionProvider"])
    (slices,), (probabilities,) = session.get_inputs(), session.get_outputs()
    assert (slices.name, slices.type, slices.shape) == ("slices", "tensor(float)", ["batch", 3, "height", "width"])
    assert (probabilities.name, probabilities.shape) == ("probabilities", ["batch", 3, "height", "width"])
    assert [path.name for path in sorted(onnx_file.parent.iterdir())] == ["model.onnx", "model.onnx.json"]


def test_a_monai_network_is_exported(tmp_path: Path) -> None:
    assert _difference("monai_basic_unet", "torchscript", tmp_path, "model.network.features=[4,4,8,8,16,4]") < 1e-5


@pytest.mark.slow
@pytest.mark.parametrize("file_format", FORMATS)
@pytest.mark.parametrize("model", models(model for model in MODELS if not model.endswith("3d")))
def test_every_shipped_network_is_exported(model: str, file_format: str, tmp_path: Path) -> None:
    assert _difference(model, file_format, tmp_path) < 1e-5


@pytest.mark.slow
@pytest.mark.parametrize("file_format", FORMATS)
@pytest.mark.parametrize(
    ("model", "own"), [("unet3d", ()), ("monai_dynunet3d", ("model.network.upsample_kernel_size=[[1,2,2],[2,2,2]]",))]
)
def test_every_3d_network_is_exported_for_its_patches(
    model: str, own: tuple[str, ...], file_format: str, tmp_path: Path
) -> None:
    levels = "model.network.kernel_size=[[1,3,3],[3,3,3],[3,3,3]]", "model.network.strides=[1,[1,2,2],2]"
    config = compose_config(
        "data=nifti", f"model={model}", "context_slices=0", "crop_size=[8,16,24]", *levels, *own,
        "model.network.filters=[4,8,8]",
    )  # fmt: skip
    torch.manual_seed(0)
    graph = PatchProbabilities(build_network(build_spec(config))).eval()
    path = tmp_path / "network"
    path.write_bytes(serialise(graph, 1, file_format, "{}"))
    assert largest_difference(path, file_format, graph, [(1, 1, 8, 16, 24), (3, 1, 8, 16, 24)]) < 1e-5


def _difference(model: str, file_format: str, folder: Path, *overrides: str) -> float:
    config = compose_config(
        "data=nifti", "data.label_values={front: 1, back: 2}", f"model={model}", "context_slices=1", *overrides
    )
    torch.manual_seed(0)
    graph = SliceProbabilities(build_network(build_spec(config))).eval()
    path = folder / "network"
    path.write_bytes(serialise(graph, 3, file_format, "{}"))
    return largest_difference(path, file_format, graph, [(1, 3, 64, 48), (2, 3, 33, 71), (3, 3, 16, 16)])


def test_a_file_that_gives_nan_is_infinitely_far_from_pytorch(tmp_path: Path) -> None:
    padded = build_network(build_spec(compose_config("data=nifti", "context_slices=0", "model.network.width=2")))
    graph, broken = SliceProbabilities(padded).eval(), SliceProbabilities(deepcopy(padded)).eval()
    for weights in broken.parameters():
        weights.data.fill_(math.nan)
    path = tmp_path / "net.pt"
    path.write_bytes(serialise(broken, 1, "torchscript", "{}"))
    assert largest_difference(path, "torchscript", graph, [(1, 1, 32, 32)]) == math.inf


# The metadata -------------------------------------------------------------------------------------------------------


def test_the_metadata_contains_the_training_settings(torchscript: ExportReport) -> None:
    metadata = json.loads(torchscript.metadata_path.read_text())
    assert torchscript.metadata_path == torchscript.path.with_name("net.pt.json")
    assert [{key: entry[key] for key in ("index", "name", "label_values")} for entry in metadata["classes"]] == [
        {"index": 1, "name": "dark", "label_values": [7]},
        {"index": 2, "name": "bright", "label_values": [3, 4]},
    ]
    assert metadata["input"] == {"name": "slices", "shape": ["batch", 3, "height", "width"], "rounded_to": "float16"}
    assert metadata["output"] == {"name": "probabilities", "shape": ["batch", 3, "height", "width"]}
    assert metadata["intensity"] == {"kind": "ct", "window_level": 50.0, "window_width": 400.0}
    assert (metadata["axis"], metadata["slice_axes"]) == ("coronal", [1, 2, 0])
    assert (metadata["channels"], metadata["context_slices"]) == (1, 1)
    assert (metadata["img_size"], metadata["resize"], metadata["size_multiple"]) == (32, "keep_aspect", 4)
    assert (metadata["metadata_version"], metadata["run"]) == (2, "now")
    assert metadata["crop_size"] is None
    compared = metadata["compared_with_pytorch"]
    assert compared["max_abs_difference"] == torchscript.max_abs_difference < 1e-5
    assert len({tuple(shape[2:]) for shape in compared["shapes"]}) >= 2


def test_a_run_trained_on_crops_exports_the_network_of_a_single_crop(ct: SmallCt, tmp_path: Path) -> None:
    values = "data.label_values={dark: 7, bright: [3, 4]}"
    run = train(tmp_path / "run", *ct.overrides, values, "context_slices=1", "axis=coronal", "crop_size=16")
    report = export(run, tmp_path / "net.pt", "torchscript")
    assert json.loads(report.metadata_path.read_text())["crop_size"] == 16
    crop = torch.rand(1, 3, 16, 16)
    with torch.no_grad():
        expected = torch.softmax(load_trained(run).network(crop), dim=1)
        found = torch.jit.load(report.path)(crop)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)


def test_both_formats_embed_their_metadata(onnx_file: Path, torchscript: ExportReport) -> None:
    extra = {"spleen.json": ""}
    torch.jit.load(torchscript.path, _extra_files=extra)
    (embedded,) = [prop.value for prop in onnx.load(onnx_file).metadata_props if prop.key == "spleen"]
    for path, text in ((torchscript.path, extra["spleen.json"]), (onnx_file, embedded)):
        sidecar = json.loads(path.with_name(f"{path.name}.json").read_text())
        del sidecar["compared_with_pytorch"]
        assert json.loads(text) == sidecar


def test_the_documentation_explains_every_metadata_key(torchscript: ExportReport) -> None:
    documented = set(
        re.findall(r"^\| .*? \|", (REPOSITORY / "docs" / "how-to" / "export.md").read_text(), re.MULTILINE)
    )
    named = {key for cell in documented for key in re.findall(r"`(\w+)`", cell)}
    assert set(json.loads(torchscript.metadata_path.read_text())) <= named


# From an image file to its mask -------------------------------------------------------------------------------------


def test_the_documented_program_reproduces_the_mask_of_predict(
    ct: SmallCt, run: Path, onnx_file: Path, program: Path, tmp_path: Path
) -> None:
    predict(run, ct.image, tmp_path / "expected.nii.gz", PredictSettings(precision="32", device="cpu"))
    assert_same_mask(program, onnx_file, ct.image, tmp_path)


def test_the_documented_program_reproduces_the_mask_of_a_real_ct(
    spleen_ct: Path, run: Path, onnx_file: Path, program: Path, tmp_path: Path
) -> None:
    image = spleen_ct / "image.nii.gz"
    predict(run, image, tmp_path / "expected.nii.gz", PredictSettings(precision="32", device="cpu"))
    assert_same_mask(program, onnx_file, image, tmp_path)


@pytest.mark.parametrize(
    "changes",
    [
        {"intensity": MrPercentiles(5.0, 99.5), "axis": "axial", "resize": "stretch", "img_size": 50},
        {"intensity": ZScore(3.0), "axis": "sagittal", "img_size": 27},
        {"intensity": CtWindow(0.0, 300.0), "img_size": 45, "size_multiple": 16},
        {"axis": "axial", "img_size": "native", "size_multiple": 16},
    ],
)
def test_the_documented_program_follows_the_metadata(
    ct: SmallCt, run: Path, onnx_file: Path, program: Path, tmp_path: Path, changes: dict
) -> None:
    """The same network with other preprocessing."""
    model = load_trained(run)
    spec = replace(model.spec, preprocessing=replace(model.preprocessing, **changes))
    model = replace(model, spec=spec)
    changed = onnx.load(onnx_file)
    onnx.helper.set_model_props(changed, {"spleen": json.dumps(metadata_of(model))})
    onnx.save(changed, tmp_path / "changed.onnx")
    write_prediction(model, ct.image, tmp_path / "expected.nii.gz")
    assert_same_mask(program, tmp_path / "changed.onnx", ct.image, tmp_path)


@pytest.mark.slow
def test_the_documented_program_paints_overlapping_classes_as_predict_does(
    ct: SmallCt, program: Path, tmp_path: Path
) -> None:
    """Both organs, and the upper half of the bright one; for each class also its own voxels in onnxruntime's output."""
    overlap = "data.label_values={both: [3, 4, 7], upper: [4]}", "data.regions_class_order=[3,4]"
    run = train(tmp_path / "regions", *ct.overrides, *overlap, "axis=coronal", "epochs=6")
    path = export(run, tmp_path / "model.onnx").path
    predict(run, ct.image, tmp_path / "expected.nii.gz", PredictSettings(precision="32", device="cpu"))
    assert set(np.unique(np.asarray(nib.load(tmp_path / "expected.nii.gz").dataobj))) == {0, 3, 4}
    assert_same_mask(program, path, ct.image, tmp_path)
    probabilities = run_onnx(path, np.random.default_rng(1).uniform(-1, 1, (3, 1, 20, 32)).astype(np.float32))
    np.testing.assert_allclose(probabilities[:, 0], 1 - probabilities[:, 1:].max(axis=1), atol=1e-6)


def write_prediction(model: TrainedModel, image_path: Path, output: Path) -> None:
    views = make_views([model], PredictSettings(precision="32", device="cpu"))
    image = read_native(image_path)
    mask = predict_volume(views, image, "image", 8, False, lambda done: None).mask
    write_like(output, to_label_values(mask, model.classes), image)


def assert_same_mask(program: Path, model: Path, image: Path, folder: Path) -> None:
    """Assert that the program, which runs without this package, reproduces expected.nii.gz in `folder`."""
    found_path = folder / "found.nii.gz"
    subprocess.run([sys.executable, str(program), str(model), str(image), str(found_path)], check=True, cwd=folder)
    found, expected = nib.load(found_path), nib.load(folder / "expected.nii.gz")
    np.testing.assert_allclose(found.affine, expected.affine)
    found_labels, labels = np.asarray(found.dataobj), np.asarray(expected.dataobj)
    assert len(np.unique(labels)) >= 2
    # A voxel may get either class where two are equally likely.
    assert np.count_nonzero(found_labels != labels) <= 1e-4 * labels.size


# The command, and invalid input -------------------------------------------------------------------------------------


def test_the_command_prints_what_it_wrote_and_nothing_else(command: subprocess.CompletedProcess[str]) -> None:
    assert command.returncode == 0
    assert command.stderr == ""
    first, second = command.stdout.splitlines()
    assert re.fullmatch(r"model\.onnx \(\d\.\d MB\) and model\.onnx\.json", first)
    difference = re.fullmatch(r"largest difference from PyTorch: (\S+) \(random slices of 32 × 32, .* pixels\)", second)
    assert difference is not None
    assert float(difference[1]) < 1e-4


def test_an_existing_output_is_replaced_only_with_overwrite(run: Path, tmp_path: Path) -> None:
    path = tmp_path / "net.pt"
    for existing in (path, tmp_path / "net.pt.json"):
        existing.write_text("mine")
        with pytest.raises(InputError, match=rf"{existing} exists already; add --overwrite"):
            export(run, path, "torchscript")
        assert existing.read_text() == "mine"
        if existing == path:
            existing.unlink()
    path.write_text("mine")
    report = export(run, path, "torchscript", overwrite=True)
    torch.jit.load(path)
    assert json.loads(report.metadata_path.read_text())["run"] == "now"


def test_the_run_and_the_output_may_be_strings(run: Path, tmp_path: Path) -> None:
    assert export(str(run), str(tmp_path / "net.pt"), "torchscript").path == tmp_path / "net.pt"


def test_the_name_of_the_other_format_and_a_place_without_room_are_refused(run: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"net\.pt: a file in the format onnx is called net\.onnx"):
        export(run, tmp_path / "net.pt")
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match=r"--output: .*net\.onnx cannot be written"):
        export(run, tmp_path / "file" / "net.onnx")


@pytest.mark.usefixtures("without_type_checks")
@pytest.mark.parametrize("file_format", ["ONNX", "onxn", ["onnx"]])
def test_an_unknown_format_is_reported_with_the_known_ones(tmp_path: Path, file_format: Any) -> None:
    message = f"format must be one of 'onnx', 'torchscript'; got {file_format!r}"
    with pytest.raises(InputError, match=re.escape(message)):
        export(tmp_path, tmp_path / "net.onnx", file_format)


def test_a_folder_is_refused_as_output(run: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"is a folder; give the name of a file"):
        export(run, tmp_path, "torchscript", overwrite=True)


@pytest.mark.parametrize("package", ["onnx", "onnxscript", "onnxruntime"])
def test_a_missing_package_is_reported_with_the_command_that_installs_it(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, package: str
) -> None:
    monkeypatch.setitem(sys.modules, package, None)  # makes the import fail
    with pytest.raises(InputError, match=rf"package {package}, .*pip install 'spleen\[export\]'"):
        export(run, tmp_path / "net.onnx")
    assert not list(tmp_path.iterdir())


def test_a_full_disk_leaves_the_old_files_untouched(run: Path, torchscript: ExportReport, tmp_path: Path) -> None:
    (tmp_path / "net.pt").write_text("old")
    (tmp_path / "net.pt.json").write_text("old")
    unlimited = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (torchscript.path.stat().st_size // 2, unlimited[1]))
    try:
        with pytest.raises(OSError, match="File too large"):
            export(run, tmp_path / "net.pt", "torchscript", overwrite=True)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, unlimited)
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {"net.pt": "old", "net.pt.json": "old"}


class BySize(nn.Module):
    """Scales its logits by the input width, which tracing freezes into a constant."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(inputs, outputs, 1)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return self.convolution(image) * (8.0 / int(image.shape[3]))


class ByContent(BySize):
    """Branches on the values of its input, which cannot be exported."""

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        logits = self.convolution(image)
        return logits if bool(image.mean() > 0) else -logits


@pytest.fixture
def by_size(run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run's checkpoint with BySize as its network."""
    content = torch.load(run / "checkpoints" / "best.ckpt", weights_only=True)
    spec = json.loads(content["model_spec"])
    spec["network"] = {"_target_": f"{__name__}.BySize", "inputs": 3, "outputs": 3}
    weights = {f"network.network.{name}": value for name, value in BySize(3, 3).state_dict().items()}
    path = tmp_path_factory.mktemp("by_size") / "custom.ckpt"
    torch.save(content | {"model_spec": json.dumps(spec), "state_dict": weights}, path)
    return path


def test_an_export_that_differs_from_pytorch_is_not_kept(by_size: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"BySize was not kept: .* differ from PyTorch's by up to \d"):
        export(by_size, tmp_path / "net.pt", "torchscript", allow_custom_code=True)
    assert not list(tmp_path.iterdir())


def test_a_custom_network_is_refused_without_allow_custom_code(by_size: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"add --allow-custom-code"):
        export(by_size, tmp_path / "net.pt", "torchscript")
    assert not list(tmp_path.iterdir())


def test_a_network_that_cannot_be_exported_is_reported_in_one_line(capfd: pytest.CaptureFixture[str]) -> None:
    graph = SliceProbabilities(PadToMultiple(ByContent(1, 2), 4))
    with pytest.raises(InputError, match=r"^the network ByContent cannot be written as onnx: [^\n]+$"):
        serialise(graph, 1, "onnx", "{}")
    assert capfd.readouterr() == ("", "")
