"""`spleen export`: options and a summary."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from spleen.cli.options import AllowCustomCode, FormerTrust


def export(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A run folder or a checkpoint.", show_default=False)],
    format: Annotated[Literal["onnx", "torchscript"], typer.Option("--format", help="What to write.")] = "onnx",
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="The file to write; model.onnx or model.pt by default.")
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a file that exists.")] = False,
    allow_custom_code: AllowCustomCode = False,
    trust: FormerTrust = False,
) -> None:
    """Write a trained network as ONNX or TorchScript, to run it without this package.

    Beside it stands OUTPUT.json: how a volume becomes the network's slices, and its answer a mask
    (docs/how-to/export.md). The file is run and compared with PyTorch before it appears.
    """
    from spleen.inference.export import export as export_run

    report = export_run(run, output, format, allow_custom_code or trust, overwrite)
    sizes = ", ".join(" × ".join(map(str, size)) for _, _, *size in report.shapes)
    print(
        f"{report.path} ({report.path.stat().st_size / 1e6:.1f} MB) and {report.metadata_path}\n"
        f"largest difference from PyTorch: {report.max_abs_difference:.2g} (random slices of {sizes} pixels)"
    )
