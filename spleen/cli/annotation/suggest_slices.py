"""`spleen suggest-slices`: which slices of a scan to label next."""

import shlex
from pathlib import Path
from typing import Annotated, Literal

import typer

from spleen.cli.annotation.options import DrawnSlices, IgnoreValue, parse_slices
from spleen.cli.options import AllowCustomCode

_TEMPLATE_HELP = "Write a label on the grid of IMAGE to draw in (.nii.gz): every voxel has the ignored value."


def suggest_slices(
    image: Annotated[Path, typer.Argument(metavar="IMAGE", help="NIfTI, or a DICOM folder.")],
    label: Annotated[
        Path | None, typer.Option(metavar="LABEL", help="What is labelled so far; the rest has the ignored value.")
    ] = None,
    run: Annotated[
        list[Path] | None,
        typer.Option("--run", metavar="RUN", help="Suggest what this run is least sure of; repeatable for several."),
    ] = None,
    allow_custom_code: AllowCustomCode = False,
    n_slices: Annotated[int, typer.Option("--slices", "-n", metavar="N", help="How many slices to suggest.")] = 8,
    axis: Annotated[
        Literal["sagittal", "coronal", "axial"] | None,
        typer.Option(help="The axis along which slices are drawn.", show_default="that of LABEL, or coronal"),
    ] = None,
    ignore_value: IgnoreValue = 255,
    drawn: DrawnSlices = None,
    csv: Annotated[Path | None, typer.Option(metavar="FILE", help="Write the table as CSV.")] = None,
    json: Annotated[Path | None, typer.Option(metavar="FILE", help="Write everything as JSON.")] = None,
    template: Annotated[Path | None, typer.Option(metavar="FILE", help=_TEMPLATE_HELP)] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace files that exist.")] = False,
) -> None:
    """Suggest which slices of a scan to label next: spread evenly, or with a run those it is least sure of.

    Exit code 2 for invalid input.
    """
    from spleen.annotation.labelled import UNKNOWN_VALUE
    from spleen.annotation.suggest import suggest_slices as suggest
    from spleen.annotation.suggest import write_template
    from spleen.cli.followup.options import check_nifti_name, check_written
    from spleen.reporting.outputs import text_writer, write_outputs

    outputs = {"--csv": csv, "--json": json, "--template": template}
    check_nifti_name("--template", template)
    check_written({"IMAGE": image, "LABEL": label}, outputs, overwrite)
    suggestion = suggest(
        image,
        label,
        runs=run or (),
        n_slices=n_slices,
        axis=axis,
        ignore_value=ignore_value,
        drawn=parse_slices(drawn),
        allow_custom_code=allow_custom_code,
    )
    print(suggestion.to_text())
    write_outputs(
        outputs,
        {
            "--csv": text_writer(suggestion.to_csv),
            "--json": text_writer(suggestion.to_json),
            "--template": lambda path: write_template(path, image, ignore_value),
        },
    )
    if template is not None:
        listed = ",".join(str(each.slice_index) for each in sorted(suggestion.slices, key=lambda s: s.slice_index))
        files = shlex.join(["spleen", "propagate", str(image), str(template)])
        ignored = "" if ignore_value == UNKNOWN_VALUE else f" --ignore-value={ignore_value}"
        options = f"--axis {suggestion.axis} --drawn {listed}{ignored}"
        print(f"draw on these slices, then: {files} -o FILLED.nii.gz {options}")
