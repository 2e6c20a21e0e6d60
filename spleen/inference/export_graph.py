"""A trained network as a file that runs without this package: ONNX or TorchScript.

ONNX is written by PyTorch's maintained exporter (torch.export and onnxscript), not by the one that traces TorchScript.
TorchScript itself gets no new features from PyTorch any more; it is for programs that load it already.
"""

import io
import logging
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from importlib import import_module
from pathlib import Path
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from spleen.errors import InputError
from spleen.models.padding import PadToMultiple
from spleen.types import ImageBatch

ExportFormat = Literal["onnx", "torchscript"]
Probabilities = Float[Tensor, "b classes h w"]

INPUT, OUTPUT = "slices", "probabilities"
METADATA_KEY = "spleen"
"""Where a file carries its metadata as JSON: in ONNX's metadata_props; in TorchScript's archive with .json behind."""
# Of January 2023, so that every runtime knows it.
_OPSET = 18


class SliceProbabilities(nn.Module):
    """Slices of any height and width to the probabilities of all classes.

    Does what `PadToMultiple` does, written without branches: the exporters follow one way through the code.
    """

    def __init__(self, padded: PadToMultiple) -> None:
        super().__init__()
        self.network = padded.network
        self.multiple = padded.multiple

    def forward(self, slices: ImageBatch) -> Probabilities:
        """Probabilities (b, 1 + classes, h, w), background first; they add up to 1."""
        height, width = slices.shape[-2:]
        # Rounded up in this way, a size is a multiple of `multiple` also to an exporter that knows no numbers yet.
        rows, columns = ((size + self.multiple - 1) // self.multiple * self.multiple for size in (height, width))
        right, bottom = columns - width, rows - height
        logits: Tensor = self.network(F.pad(slices, (0, right, 0, bottom), mode="replicate"))
        return torch.softmax(logits, dim=1).narrow(2, 0, height).narrow(3, 0, width)


def check_installed(file_format: ExportFormat) -> None:
    """Raise InputError where a package that writes or runs this format is missing."""
    for package in ("onnx", "onnxscript", "onnxruntime") if file_format == "onnx" else ():
        try:
            import_module(package)
        except ImportError as error:
            raise InputError(
                f"--format onnx needs the package {package}, which is not installed ({error}); "
                "pip install 'spleen[export]', or choose --format torchscript"
            ) from error


def serialise(graph: SliceProbabilities, n_channels: int, file_format: ExportFormat, metadata: str) -> bytes:
    """The content of the file, with the metadata inside.

    Raises InputError for a network that cannot be written in this format.
    """
    # Any size would do, also one that is no multiple: what depends on it stays a variable.
    example = torch.zeros(2, n_channels, 5 * graph.multiple + 1, 7 * graph.multiple + 1)
    write = {"onnx": _to_onnx, "torchscript": _to_torchscript}[file_format]
    try:
        with _silence(), torch.no_grad():
            return write(graph, example, metadata)
    except Exception as error:  # whatever the code of a network does under an exporter
        name = type(graph.network).__name__
        raise InputError(
            f"the network {name} cannot be written as {file_format}: {_reason(error)}. If its code decides by the size "
            "or the content of its input, rewrite that without a branch; or try the other --format"
        ) from error


def _to_onnx(graph: SliceProbabilities, example: ImageBatch, metadata: str) -> bytes:
    program = torch.onnx.export(
        graph,
        (example,),
        input_names=[INPUT],
        output_names=[OUTPUT],
        opset_version=_OPSET,
        dynamo=True,
        dynamic_shapes=({0: "batch", 2: "height", 3: "width"},),
        verbose=False,
    )
    assert program is not None
    program.model.metadata_props[METADATA_KEY] = metadata
    content: bytes = program.model_proto.SerializeToString()
    return content


def _to_torchscript(graph: SliceProbabilities, example: ImageBatch, metadata: str) -> bytes:
    content = io.BytesIO()
    traced = torch.jit.trace(graph, example, check_trace=False)
    torch.jit.save(traced, content, _extra_files={f"{METADATA_KEY}.json": metadata})
    return content.getvalue()


def largest_difference(
    path: Path, file_format: ExportFormat, graph: SliceProbabilities, shapes: Sequence[tuple[int, int, int, int]]
) -> float:
    """Run the file on random slices of each shape (b, c, h, w); the largest distance from PyTorch's probabilities.

    Infinite where the file cannot run on a shape that the network takes.
    """
    random = torch.Generator().manual_seed(0)
    largest = 0.0
    with _silence(), torch.inference_mode():
        run = _open_onnx(path) if file_format == "onnx" else _open_torchscript(path)
        for shape in shapes:
            slices = 2 * torch.rand(shape, generator=random) - 1
            expected = graph(slices)
            try:
                found = run(slices)
            except Exception:  # the runtimes have no common error; what they say is about the inside of the graph
                return float("inf")
            if found.shape != expected.shape:
                return float("inf")
            largest = max(largest, float((found - expected).abs().max()))
    return largest


def _open_onnx(path: Path) -> Callable[[Tensor], Tensor]:
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return lambda slices: torch.from_numpy(session.run([OUTPUT], {INPUT: slices.numpy()})[0])


def _open_torchscript(path: Path) -> Callable[[Tensor], Tensor]:
    loaded: Callable[[Tensor], Tensor] = torch.jit.load(str(path), map_location="cpu")
    return loaded


@contextmanager
def _silence() -> Iterator[None]:
    """The exporters tell of deprecations and optional packages, about which the user can do nothing.

    Where they fail, they print their whole graph.
    """
    disabled = logging.root.manager.disable
    logging.disable(logging.WARNING)
    nowhere = io.StringIO()
    try:
        with warnings.catch_warnings(), redirect_stdout(nowhere), redirect_stderr(nowhere):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(disabled)


def _reason(error: BaseException) -> str:
    """The first line of what started it; an exporter wraps it in advice for its own developers."""
    while error.__cause__ is not None:
        error = error.__cause__
    return (str(error).strip() or type(error).__name__).splitlines()[0]
