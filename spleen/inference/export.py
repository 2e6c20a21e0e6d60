"""Export of a trained run to a file that runs without this package: `from spleen.inference.export import export`."""

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from spleen import __version__
from spleen.errors import InputError, check_choice
from spleen.imaging.slicing import to_slices
from spleen.inference.export_graph import (
    OUTPUT,
    ExportFormat,
    Graph,
    PatchProbabilities,
    SliceProbabilities,
    check_installed,
    largest_difference,
    serialise,
)
from spleen.inference.loading import TrainedModel, load_trained
from spleen.models.padding import PadToMultiple
from spleen.models.patches import PatchWindows
from spleen.models.windows import OverlappingWindows
from spleen.reporting.outputs import check_outputs
from spleen.system.files import temporary_sibling
from spleen.types import AxisName

log = logging.getLogger(__name__)

TOLERANCE = 1e-3
"""Largest difference allowed between a probability of the exported file and PyTorch's."""
SUFFIXES: Mapping[ExportFormat, str] = {"onnx": ".onnx", "torchscript": ".pt"}
# Raised whenever a key of the metadata changes its meaning; 2 added those of the model specification.
_METADATA_VERSION = 2

Shape = tuple[int, ...]


@dataclass(frozen=True)
class ExportReport:
    """One finished export."""

    path: Path
    metadata_path: Path
    max_abs_difference: float
    """Largest difference between a probability of the file, when run, and PyTorch's."""
    shapes: tuple[Shape, ...]
    """Shapes (b, c, h, w) of the random slices on which they were compared, or (b, c, d, h, w) of patches."""


def export(
    run: str | Path,
    output: str | Path | None = None,
    format: ExportFormat = "onnx",
    allow_custom_code: bool = False,
    overwrite: bool = False,
) -> ExportReport:
    """Write the network of a run folder or checkpoint as ONNX or TorchScript, and its metadata as OUTPUT.json.

    The graph maps preprocessed slices, float32 (b, c, h, w) of any b, h and w, to probabilities (b, 1 + classes, h, w);
    that of a 3D network maps patches (b, c, d, h, w) of the size of the training.
    The metadata describe how a volume becomes such slices and probabilities become a mask; docs/how-to/export.md
    explains each key. The file is run and compared with PyTorch before it appears. The default `output` is model.onnx
    or model.pt in the current folder.
    Raises InputError for an invalid run, another format, custom code without `allow_custom_code`, an existing output, a
    missing package, and a network that the format cannot express.
    """
    check_choice("format", format, SUFFIXES)
    path = Path(f"model{SUFFIXES[format]}" if output is None else output)
    metadata_path = path.with_name(f"{path.name}.json")
    if path.suffix in SUFFIXES.values() and path.suffix != SUFFIXES[format]:
        raise InputError(f"--output {path}: a file in the format {format} is called {path.stem}{SUFFIXES[format]}")
    check_outputs({"--output": path, "its metadata": metadata_path})
    _check_new((path, metadata_path), overwrite)
    check_installed(format)
    model = load_trained(Path(run), allow_custom_code)
    if model.spec.roi is not None:
        log.warning(
            "%s is the second network of a cascade: the file expects the box around the organ, cut out as its metadata "
            "say (roi). Export the coarse run too",
            model.name,
        )
    graph = _graph(model)
    metadata = metadata_of(model)
    content = serialise(graph, model.spec.n_input_channels, format, json.dumps(metadata))
    shapes = _shapes_to_compare(model)
    temporary, temporary_metadata = temporary_sibling(path), temporary_sibling(metadata_path)
    try:
        temporary.write_bytes(content)
        difference = largest_difference(temporary, format, graph, shapes)
        if not difference <= TOLERANCE:
            raise InputError(_differs(model, format, difference))
        compared = {"max_abs_difference": difference, "shapes": shapes}
        temporary_metadata.write_text(_to_text({**metadata, "compared_with_pytorch": compared}), encoding="utf-8")
        temporary_metadata.replace(metadata_path)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
        temporary_metadata.unlink(missing_ok=True)
    return ExportReport(path, metadata_path, difference, shapes)


def metadata_of(model: TrainedModel) -> dict[str, object]:
    """The metadata: the model specification, and the graph. docs/how-to/export.md explains each key."""
    patch = model.spec.patch_size
    sizes: list[str | int] = ["height", "width"] if patch is None else list(patch)
    return {
        "metadata_version": _METADATA_VERSION,
        "run": model.name,
        "input": {
            "name": _graph(model).input_name,
            "shape": ["batch", model.spec.n_input_channels, *sizes],
            "rounded_to": "float16",
        },
        "output": {"name": OUTPUT, "shape": ["batch", 1 + len(model.classes.names), *sizes], **_rule(model)},
        "slice_axes": _slice_axes(model.preprocessing.axis),
        **model.spec.to_content(),
        "written_with": {"spleen": __version__, "torch": torch.__version__},
    }


def _rule(model: TrainedModel) -> dict[str, object]:
    """How overlapping classes become a mask; nothing for others, which become one by their largest probability."""
    if model.classes.regions is None:
        return {}
    order = [values[0] for values in model.classes.values]
    return {"activation": "sigmoid", "threshold": 0.5, "regions_class_order": order}


def _to_text(metadata: Mapping[str, object]) -> str:
    """JSON with one key per line."""
    lines = (f"  {json.dumps(key)}: {json.dumps(value)}" for key, value in metadata.items())
    return "{\n" + ",\n".join(lines) + "\n}\n"


def _without_windows(model: TrainedModel) -> PadToMultiple:
    """The network for one window, or a whole slice."""
    network = model.network.network if isinstance(model.network, OverlappingWindows) else model.network
    assert isinstance(network, PadToMultiple)  # from build_network
    return network


def _graph(model: TrainedModel) -> Graph:
    if isinstance(model.network, PatchWindows):
        return PatchProbabilities(model.network, model.classes.regions).eval()
    return SliceProbabilities(_without_windows(model), model.classes.regions).eval()


def _slice_axes(axis: AxisName) -> list[int]:
    """The axes of a RAS array in the order slice, row, column: the length of each identifies it."""
    return [size - 1 for size in to_slices(np.empty((1, 2, 3)), axis).shape]


def _shapes_to_compare(model: TrainedModel) -> tuple[Shape, ...]:
    """One slice of the training size, and batches of two other sizes, one of which needs padding; patches have one."""
    if model.spec.patch_size is not None:
        return tuple((count, model.spec.n_input_channels, *model.spec.patch_size) for count in (1, 2))
    multiple, channels = model.preprocessing.size_multiple, model.spec.n_input_channels
    size = model.preprocessing.img_size
    whole = 4 * multiple if size == "native" else -(-size // multiple) * multiple
    return (
        (1, channels, whole, whole),
        (3, channels, 2 * multiple, 4 * multiple),
        (2, channels, 4 * multiple + 1, 3 * multiple - 1),
    )


def _check_new(files: Sequence[Path], overwrite: bool) -> None:
    for file in files:
        if file.exists() and not overwrite:
            raise InputError(f"{file} exists already; add --overwrite to replace it, or give another --output")


def _differs(model: TrainedModel, file_format: ExportFormat, difference: float) -> str:
    name = type(_graph(model).network).__name__
    return (
        f"the {file_format} file of {name} was not kept: run on random slices, its probabilities differ from PyTorch's "
        f"by up to {difference:.3g}, more than {TOLERANCE:g}. The network probably branches on the size or values of "
        "its input, which this format cannot express; try the other --format"
    )
