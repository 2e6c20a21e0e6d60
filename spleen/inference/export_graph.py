"""A trained network as a file that runs without this package: ONNX or TorchScript.

ONNX is written by PyTorch's maintained exporter (torch.export and onnxscript), not by the one that traces TorchScript.
TorchScript is in maintenance mode in PyTorch; it is for programs that already load it.
"""

import io
import logging
import math
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from importlib import import_module
from pathlib import Path
from typing import ClassVar, Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from spleen.errors import InputError
from spleen.imaging.classes import Regions
from spleen.imaging.probabilities import probabilities
from spleen.models.padding import PadToMultiple
from spleen.models.patches import PatchWindows
from spleen.types import ImageBatch, PatchBatch

ExportFormat = Literal["onnx", "torchscript"]
Probabilities = Float[Tensor, "b classes *size"]

OUTPUT = "probabilities"
METADATA_KEY = "spleen"
"""Key of the JSON metadata: in metadata_props of an ONNX file; with the suffix .json in a TorchScript archive."""
# Released in January 2023, so that current runtimes support it.
_OPSET = 18


class SliceProbabilities(nn.Module):
    """Maps slices of any height and width to the probabilities of all classes.

    Pads and crops like `PadToMultiple`, but without branches, since the exporters trace a single path.
    """

    input_name = "slices"
    free_sizes: ClassVar[Mapping[int, str]] = {0: "batch", 2: "height", 3: "width"}

    def __init__(self, padded: PadToMultiple, regions: Regions | None = None) -> None:
        super().__init__()
        self.regions = regions
        self.network = padded.network
        self.multiple = padded.multiple

    def forward(self, slices: ImageBatch) -> Probabilities:
        """Probabilities (b, 1 + classes, h, w), background first; as `spleen.imaging.probabilities`."""
        height, width = slices.shape[-2:]
        # Rounded up like this, a size is provably divisible by `multiple` even when it is symbolic.
        rows, columns = ((size + self.multiple - 1) // self.multiple * self.multiple for size in (height, width))
        right, bottom = columns - width, rows - height
        logits: Tensor = self.network(F.pad(slices, (0, right, 0, bottom), mode="replicate"))
        return probabilities(logits, self.regions).narrow(2, 0, height).narrow(3, 0, width)

    def example(self, n_channels: int) -> ImageBatch:
        """Slices of no special size, so that sizes stay symbolic: any size works, also one that is no multiple."""
        return torch.zeros(2, n_channels, 5 * self.multiple + 1, 7 * self.multiple + 1)


class PatchProbabilities(nn.Module):
    """Maps patches of the size of the training to the probabilities of all classes."""

    input_name = "patches"
    free_sizes: ClassVar[Mapping[int, str]] = {0: "batch"}

    def __init__(self, windows: PatchWindows, regions: Regions | None = None) -> None:
        super().__init__()
        self.regions = regions
        self.network = windows.network
        self.patch_size = windows.patch_size

    def forward(self, patches: PatchBatch) -> Probabilities:
        """Probabilities (b, 1 + classes, d, h, w), background first; as `spleen.imaging.probabilities`."""
        return probabilities(self.network(patches), self.regions)

    def example(self, n_channels: int) -> PatchBatch:
        """Two empty patches."""
        return torch.zeros(2, n_channels, *self.patch_size)


Graph = SliceProbabilities | PatchProbabilities


def check_installed(file_format: ExportFormat) -> None:
    """Raise InputError if a package that writes or runs this format is missing."""
    for package in ("onnx", "onnxscript", "onnxruntime") if file_format == "onnx" else ():
        try:
            import_module(package)
        except ImportError as error:
            raise InputError(
                f"--format onnx needs the package {package}, which is not installed ({error}); "
                "pip install 'spleen[export]', or choose --format torchscript"
            ) from error


def serialise(graph: Graph, n_channels: int, file_format: ExportFormat, metadata: str) -> bytes:
    """The content of the file, including the metadata.

    Raises InputError for a network that cannot be exported to this format.
    """
    write = {"onnx": _to_onnx, "torchscript": _to_torchscript}[file_format]
    try:
        with _silence(), torch.no_grad():
            return write(graph, graph.example(n_channels), metadata)
    except Exception as error:  # arbitrary code of a network, under an exporter
        name = type(graph.network).__name__
        raise InputError(
            f"the network {name} cannot be written as {file_format}: {_reason(error)}. If its code branches on the "
            "size or values of its input, rewrite it without the branch, or try the other --format"
        ) from error


def _to_onnx(graph: Graph, example: Tensor, metadata: str) -> bytes:
    program = torch.onnx.export(
        graph,
        (example,),
        input_names=[graph.input_name],
        output_names=[OUTPUT],
        opset_version=_OPSET,
        dynamo=True,
        dynamic_shapes=(dict(graph.free_sizes),),
        verbose=False,
    )
    assert program is not None
    program.model.metadata_props[METADATA_KEY] = metadata
    content: bytes = program.model_proto.SerializeToString()
    return content


def _to_torchscript(graph: Graph, example: Tensor, metadata: str) -> bytes:
    content = io.BytesIO()
    traced = torch.jit.trace(graph, example, check_trace=False)
    torch.jit.save(traced, content, _extra_files={f"{METADATA_KEY}.json": metadata})
    return content.getvalue()


def largest_difference(path: Path, file_format: ExportFormat, graph: Graph, shapes: Sequence[tuple[int, ...]]) -> float:
    """Run the file on random slices or patches of each shape; the largest difference from PyTorch's probabilities.

    Infinite if the file cannot run on a shape that the network accepts, and where a probability is not a number.
    """
    random = torch.Generator().manual_seed(0)
    largest = 0.0
    with _silence(), torch.inference_mode():
        run = _open_onnx(path, graph.input_name) if file_format == "onnx" else _open_torchscript(path)
        for shape in shapes:
            slices = 2 * torch.rand(shape, generator=random) - 1
            expected = graph(slices)
            try:
                found = run(slices)
            except Exception:  # the runtimes have no common base class; their messages concern the inside of the graph
                return float("inf")
            if found.shape != expected.shape:
                return float("inf")
            difference = float((found - expected).abs().max())
            if not math.isfinite(difference):  # max() would pass over NaN
                return float("inf")
            largest = max(largest, difference)
    return largest


def _open_onnx(path: Path, input_name: str) -> Callable[[Tensor], Tensor]:
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return lambda slices: torch.from_numpy(session.run([OUTPUT], {input_name: slices.numpy()})[0])


def _open_torchscript(path: Path) -> Callable[[Tensor], Tensor]:
    loaded: Callable[[Tensor], Tensor] = torch.jit.load(str(path), map_location="cpu")
    return loaded


@contextmanager
def _silence() -> Iterator[None]:
    """Suppress what the exporters print: deprecations, optional packages and, on failure, their whole graph."""
    disabled = logging.root.manager.disable
    logging.disable(logging.WARNING)
    discarded = io.StringIO()
    try:
        with warnings.catch_warnings(), redirect_stdout(discarded), redirect_stderr(discarded):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(disabled)


def _reason(error: BaseException) -> str:
    """The first line of the root cause, which an exporter wraps in advice for its own developers."""
    while error.__cause__ is not None:
        error = error.__cause__
    return (str(error).strip() or type(error).__name__).splitlines()[0]
