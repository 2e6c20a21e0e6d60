"""`spleen reformat`: slices of a scan along any plane."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from spleen.cli.followup.options import check_written, read_scan
from spleen.errors import InputError

if TYPE_CHECKING:
    from spleen.registration.grids import Grid
    from spleen.registration.reformat import Basis, Direction
    from spleen.types import AxisName, SpacingMm

_NORMAL_HELP = "Direction perpendicular to the slices, towards right, anterior, superior, such as 0,0.5,1."


def reformat(
    image: Annotated[Path, typer.Argument(metavar="IMAGE", help="NIfTI, or a DICOM folder.")],
    output: Annotated[
        Path,
        typer.Option("--output", "-o", metavar="FILE", help="The stack (.nii.gz), or one slice (.png, .pdf, .svg)."),
    ],
    plane: Annotated[
        Literal["sagittal", "coronal", "axial"] | None, typer.Option(help="The plane to begin with.")
    ] = None,
    about: Annotated[
        list[str] | None,
        typer.Option(
            metavar="AXIS",
            help="Turn --plane about left_right, anterior_posterior or superior_inferior; repeatable, one per --angle.",
        ),
    ] = None,
    angle: Annotated[
        list[float] | None,
        typer.Option(metavar="DEGREES", help="Positive turns like a right hand whose thumb points R, A or S."),
    ] = None,
    normal: Annotated[str | None, typer.Option(metavar="X,Y,Z", help=_NORMAL_HELP)] = None,
    through: Annotated[
        str | None,
        typer.Option(
            metavar="X,Y,Z",
            help="A point of one slice, mm to the right, anterior, superior.",
            show_default="the middle",
        ),
    ] = None,
    spacing_mm: Annotated[
        str | None,
        typer.Option(
            metavar="MM",
            help="Voxel size: 1 for all; 1,3 in the plane, between slices; or 1,1.5,3 along a row, up, between slices.",
            show_default="that of IMAGE",
        ),
    ] = None,
    interpolation: Annotated[
        Literal["linear", "nearest", "cubic"], typer.Option(help="nearest is for label maps.")
    ] = "linear",
    mask: Annotated[bool, typer.Option("--mask", help="IMAGE is a label map: the same as nearest.")] = False,
    window: Annotated[
        str | None,
        typer.Option(metavar="WINDOW", help="Of a picture: abdomen, lung, bone, brain, or LEVEL,WIDTH such as 40,400."),
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a file that exists.")] = False,
) -> None:
    """Cut a scan along any plane: oblique multi-planar reconstruction, in one interpolation.

    Exit code 2 for invalid input.
    """
    from spleen.exploration.window import parse_window
    from spleen.imaging.nifti import write_volume
    from spleen.registration.grids import require_simpleitk
    from spleen.registration.pictures import default_window, draw_slice
    from spleen.registration.reformat import edge_letters, slice_through, stack_grid
    from spleen.registration.resampling import resample_onto
    from spleen.reporting.outputs import write_outputs

    require_simpleitk()
    is_picture = _is_picture(output, window)
    basis = _basis(plane, about or [], angle or [], normal)
    point, spacings = None if through is None else _triple("--through", through), _spacings(spacing_mm)
    shown = None if window is None else parse_window(window)
    check_written({"IMAGE": image}, {"--output": output}, overwrite)
    _, volume = read_scan(image)
    grid = stack_grid(volume, basis, point, spacings)
    if is_picture:
        grid = slice_through(volume, grid, point)
    array = resample_onto(volume, grid, interpolation="nearest" if mask else interpolation)
    print(_description(grid, basis))

    def write(path: Path) -> None:
        if not is_picture:
            write_volume(path, array, grid.affine)
            return
        title = f"{image.name}, perpendicular to {_direction(basis[:, 2])}"
        draw_slice(path, array[..., 0], grid, shown or default_window(volume.array), edge_letters(basis), title)

    write_outputs({"--output": output}, {"--output": write})


def _is_picture(output: Path, window: str | None) -> bool:
    from spleen.imaging.files import SUFFIXES
    from spleen.reporting.outputs import PICTURES

    if output.suffix.lower() in PICTURES:
        return True
    if window is not None:
        raise InputError("--window is for pictures; let --output end in .png, or leave --window out")
    if not output.name.lower().endswith(SUFFIXES):
        raise InputError(f"--output: {output} must end in one of {', '.join((*SUFFIXES, *PICTURES))}")
    return False


def _basis(plane: "AxisName | None", about: Sequence[str], angles: Sequence[float], normal: str | None) -> "Basis":
    from spleen.registration.reformat import basis_of_normal, plane_basis

    if (plane is None) == (normal is None):
        raise InputError("give either --plane, such as --plane coronal, or --normal, such as --normal 0,0.5,1")
    if len(about) != len(angles):
        raise InputError(
            f"each --angle needs its --about, such as --angle 20 --about left_right; got {len(angles)} and {len(about)}"
        )
    if any(not math.isfinite(angle) for angle in angles):
        raise InputError(f"--angle must be a number of degrees; got {angles}")
    if plane is not None:
        return plane_basis(plane, list(zip(about, angles, strict=True)))
    if about:
        raise InputError("--angle and --about turn a --plane; a --normal says the direction already")
    return basis_of_normal(_triple("--normal", normal or ""))


def _triple(option: str, text: str) -> "Direction":
    import numpy as np

    try:
        numbers = np.array([float(part) for part in text.split(",")])
    except ValueError:
        numbers = np.empty(0)
    if numbers.shape != (3,) or not np.isfinite(numbers).all():
        raise InputError(
            f"{option} must be three numbers (right, anterior, superior), such as 10,-25,110.5; got {text!r}"
        )
    return numbers


def _spacings(text: str | None) -> "SpacingMm | None":
    if text is None:
        return None
    try:
        lengths = [float(part) for part in text.split(",")]
    except ValueError:
        lengths = []
    if not 1 <= len(lengths) <= 3 or not all(0 < length < math.inf for length in lengths):
        raise InputError(f"--spacing-mm must be one to three lengths in mm above 0, such as 1 or 1,3; got {text!r}")
    return lengths[0], lengths[len(lengths) // 3], lengths[-1]


def _description(grid: "Grid", basis: "Basis") -> str:
    shape = " × ".join(map(str, grid.shape))
    spacing = " × ".join(f"{mm:.4g}" for mm in grid.spacing_mm)
    return f"{shape} voxels of {spacing} mm; slices perpendicular to {_direction(basis[:, 2])}"


def _direction(normal: "Direction") -> str:
    return ", ".join(f"{letter} {part:.2f}" for letter, part in zip("RAS", normal.round(6) + 0, strict=True))
