"""`spleen propagate`: fill the rest of a label of which a few slices are drawn."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from spleen.cli.annotation.options import DrawnSlices, IgnoreValue, parse_slices
from spleen.cli.options import AllowCustomCode, parse_classes
from spleen.errors import InputError


def propagate(
    image: Annotated[Path, typer.Argument(metavar="IMAGE", help="NIfTI, or a DICOM folder.")],
    label: Annotated[
        Path,
        typer.Argument(metavar="LABEL", help="A few drawn slices; the rest is the ignored value, or see --drawn."),
    ],
    overrides: Annotated[
        list[str] | None,
        typer.Argument(metavar="[OVERRIDE]...", help="Settings of spleen train, such as epochs=24 img_size=192."),
    ] = None,
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="FILE", help="The filled label, on the grid of LABEL.")
    ] = Path("filled.nii.gz"),
    ignore_value: IgnoreValue = 255,
    axis: Annotated[
        Literal["sagittal", "coronal", "axial"] | None,
        typer.Option(
            help="The axis along which slices were drawn.", show_default="that with the fewest labelled slices"
        ),
    ] = None,
    drawn: DrawnSlices = None,
    classes: Annotated[
        str | None,
        typer.Option(metavar="VALUES", help="Label values to learn, with names: 1=spleen,2=liver.", show_default="all"),
    ] = None,
    run: Annotated[
        Path | None, typer.Option(metavar="RUN", help="Start from the weights and settings of this run.")
    ] = None,
    allow_custom_code: AllowCustomCode = False,
    n_next: Annotated[int, typer.Option("--next", metavar="N", help="How many slices to suggest to label next.")] = 4,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace files that exist.")] = False,
) -> None:
    """Train on the few drawn slices of a label, and fill the rest; what is drawn stays as it is.

    Writes FILE, FILE_slices.csv with the confidence of each slice, and a run folder in outputs/propagate/. Look at the
    filled slices: the confidence is the network's own. Exit code 2 for invalid input.
    """
    from spleen.annotation.propagate import beside, completed_label_path
    from spleen.annotation.propagate import propagate as fill
    from spleen.annotation.text import to_csv_text, to_text
    from spleen.cli.followup.options import check_nifti_name, check_written
    from spleen.reporting.outputs import text_writer, write_outputs

    slices = parse_slices(drawn)
    table = beside(output, "_slices.csv")
    check_nifti_name("--output", output)
    outputs = {"--output": output, "the table": table}
    if slices is not None:
        outputs["the drawn slices"] = completed_label_path(output)
    check_written({"IMAGE": image, "LABEL": label}, outputs, overwrite)
    result = fill(
        image,
        label,
        output,
        *(overrides or ()),
        ignore_value=ignore_value,
        axis=axis,
        drawn=slices,
        classes=_separate(parse_classes(classes)),
        run=run,
        n_next=n_next,
        allow_custom_code=allow_custom_code,
    )
    print(f"\n{to_text(result)}\n\nwrote {result.output}")
    write_outputs({"the table": table}, {"the table": text_writer(lambda: to_csv_text(result))})


def _separate(classes: dict[int, str] | dict[str, tuple[int, ...]] | None) -> dict[int, str] | None:
    """Names by label value; raises InputError for classes that overlap."""
    names = {value: name for value, name in (classes or {}).items() if isinstance(value, int) and isinstance(name, str)}
    if len(names) < len(classes or {}):
        raise InputError("--classes: classes that share label values cannot be propagated; give each value one name")
    return names or None
