"""`spleen register`: align one scan with another, and say how well that went."""

import logging
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from spleen.cli.followup.options import check_nifti_name, check_written, read_label_on, read_scan
from spleen.errors import InputError

if TYPE_CHECKING:
    from spleen.imaging.native import NativeImage
    from spleen.imaging.nifti import Volume
    from spleen.registration.align import Alignment, Kind
    from spleen.registration.resampling import Interpolation
    from spleen.types import LabelVolume

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Scans:
    """What was read: both images, and what belongs to them."""

    fixed_image: "NativeImage"
    fixed: "Volume"
    moving: "Volume"
    mask: "Volume | None"
    label: "Volume | None"
    fixed_label: "Volume | None"


def register(
    moving: Annotated[Path, typer.Argument(metavar="MOVING", help="The image to move: NIfTI or a DICOM folder.")],
    fixed: Annotated[Path, typer.Argument(metavar="FIXED", help="The image that stays, of the same patient.")],
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="FILE", help="MOVING on the grid of FIXED (.nii.gz).")
    ],
    kind: Annotated[
        Literal["rigid", "affine", "deformable"],
        typer.Option(help="rigid turns and shifts; affine also stretches and shears; deformable also bends."),
    ] = "rigid",
    mask: Annotated[
        Path | None, typer.Option(metavar="MASK", help="On the grid of FIXED: align by what lies in it alone.")
    ] = None,
    transform: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Write the transform, from points of FIXED to MOVING (.tfm, .h5)."),
    ] = None,
    inverse: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write its inverse, from points of MOVING to FIXED.")
    ] = None,
    label: Annotated[Path | None, typer.Option(metavar="LABEL", help="The label map of MOVING.")] = None,
    fixed_label: Annotated[
        Path | None, typer.Option(metavar="LABEL", help="That of FIXED: Dice before and after; it does not guide.")
    ] = None,
    moved_label: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write --label on the grid of FIXED, too.")
    ] = None,
    picture: Annotated[
        Path | None, typer.Option(metavar="FILE", help="A checkerboard of both, before and after (.png, .pdf, .svg).")
    ] = None,
    interpolation: Annotated[
        Literal["linear", "cubic", "nearest"], typer.Option(help="Between the voxels of MOVING.")
    ] = "linear",
    label_interpolation: Annotated[
        Literal["nearest", "smooth_labels"],
        typer.Option(help="Between those of --label; smooth_labels leaves fewer steps."),
    ] = "nearest",
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace files that exist.")] = False,
) -> None:
    """Align MOVING with FIXED, two scans of one patient, and write it on the grid of FIXED in one interpolation.

    CT and MR can be aligned with each other. Exit code 2 for invalid input.
    """
    from spleen.registration.grids import require_simpleitk

    require_simpleitk()
    inputs = {"MOVING": moving, "FIXED": fixed, "--mask": mask, "--label": label, "--fixed-label": fixed_label}
    outputs = {
        "--output": output, "--transform": transform, "--inverse": inverse, "--moved-label": moved_label,
        "--picture": picture,
    }  # fmt: skip
    _check_names(inputs, outputs, overwrite)
    from spleen.reporting.outputs import write_outputs
    from spleen.system.progress import announced
    from spleen.system.signals import stop_on_signals

    with ExitStack() as stack:
        stop = stack.enter_context(stop_on_signals())
        scans = _read(inputs)
        stack.enter_context(announced(f"aligning {moving} with {fixed}"))
        found = _align(scans, kind, (str(fixed), str(moving)), lambda _: stop.check())
    moved_labels = _report(scans, found, label_interpolation)
    names = fixed.name, moving.name
    write_outputs(outputs, _writers(scans, found, moved_labels, interpolation, names))


def _check_names(inputs: dict[str, Path | None], outputs: dict[str, Path | None], overwrite: bool) -> None:
    from spleen.registration.transforms import check_transform_name
    from spleen.reporting.outputs import check_outputs

    for option in ("--output", "--moved-label"):
        check_nifti_name(option, outputs[option])
    for option in ("--transform", "--inverse"):
        check_transform_name(option, outputs[option])
    if inputs["--label"] is None and (inputs["--fixed-label"] or outputs["--moved-label"]):
        raise InputError("--fixed-label and --moved-label need the label map of MOVING; add --label")
    if inputs["--label"] is not None and not (inputs["--fixed-label"] or outputs["--moved-label"]):
        raise InputError("--label alone does nothing; add --fixed-label to compare it, or --moved-label to write it")
    check_written(inputs, outputs, overwrite)
    check_outputs({"--picture": outputs["--picture"]}, picture="--picture")


def _read(inputs: dict[str, Path | None]) -> _Scans:
    fixed_path, moving_path = inputs["FIXED"], inputs["MOVING"]
    assert fixed_path is not None
    assert moving_path is not None
    fixed_image, fixed = read_scan(fixed_path)
    _, moving = read_scan(moving_path)

    def on(option: str, path: Path, image: "Volume") -> "Volume | None":
        given = inputs[option]
        return None if given is None else read_label_on(given, path, image)

    return _Scans(
        fixed_image,
        fixed,
        moving,
        mask=on("--mask", fixed_path, fixed),
        label=on("--label", moving_path, moving),
        fixed_label=on("--fixed-label", fixed_path, fixed),
    )


def _align(scans: _Scans, kind: "Kind", names: tuple[str, str], progress: Callable[[str], None]) -> "Alignment":
    from spleen.registration.align import align

    mask = None if scans.mask is None else scans.mask.array != 0
    return align(scans.fixed, scans.moving, kind, mask, names, progress)


def _report(scans: _Scans, found: "Alignment", interpolation: "Interpolation") -> "LabelVolume | None":
    """Print what was found; the label map on the grid of the fixed image, if there is one."""
    from spleen.registration.grids import grid_of
    from spleen.registration.report import fold_warning, label_dice, to_text
    from spleen.registration.resampling import resample_onto

    grid, dice, moved = grid_of(scans.fixed), None, None
    if scans.label is not None:
        moved = resample_onto(scans.label, grid, found.transform, interpolation)
        if scans.fixed_label is not None:
            before = resample_onto(scans.label, grid, interpolation=interpolation)
            reference = scans.fixed_label.array
            dice = label_dice(before, reference), label_dice(moved, reference)
    print(to_text(found, grid, dice))
    if warning := fold_warning(found):
        log.warning("%s", warning)
    return moved


def _writers(
    scans: _Scans,
    found: "Alignment",
    moved_label: "LabelVolume | None",
    interpolation: "Interpolation",
    names: tuple[str, str],
) -> dict[str, Callable[[Path], None]]:
    from spleen.imaging.native import write_like
    from spleen.registration.grids import grid_of
    from spleen.registration.pictures import draw_checkerboard
    from spleen.registration.resampling import resample_onto
    from spleen.registration.transforms import inverse, write_transform

    grid = grid_of(scans.fixed)
    moved = resample_onto(scans.moving, grid, found.transform, interpolation)

    def write_label(path: Path) -> None:
        assert moved_label is not None  # checked with the names
        write_like(path, moved_label, scans.fixed_image)

    def draw(path: Path) -> None:
        draw_checkerboard(path, scans.fixed, resample_onto(scans.moving, grid), moved, names)

    return {
        "--output": lambda path: write_like(path, moved, scans.fixed_image),
        "--transform": lambda path: write_transform(path, found.transform),
        "--inverse": lambda path: write_transform(path, inverse(found.transform, scans.fixed)),
        "--moved-label": write_label,
        "--picture": draw,
    }
