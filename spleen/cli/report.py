"""`spleen report`: which page a path asks for, and where it goes."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from spleen.errors import InputError


@dataclass(frozen=True)
class _Request:
    """What was asked for, with the names of the options."""

    path: Path
    label: Path | None
    prediction: Path | None
    images: Path | None
    output: Path | None
    mesh: Path | None
    identifying: bool
    ignore_value: int | None

    def refuse(self, what: str, *options: str) -> None:
        """Raise InputError for options that mean nothing for what the path is."""
        for option in options:
            if getattr(self, option.replace("-", "_")) is not None:
                raise InputError(f"--{option} is not for {what} ({self.path}); leave it out")

    def check_ignore_value(self) -> None:
        """Raise InputError for an ignored value without a reference."""
        if self.ignore_value is not None and self.label is None:
            raise InputError("--ignore-value says where nobody has labelled; add the reference with --label")


def report(
    path: Annotated[
        Path,
        typer.Argument(
            metavar="RUN|STUDY|MASKS|IMAGE",
            help="A run folder, a folder of runs, a folder that spleen predict has written, or a NIfTI image.",
        ),
    ],
    label: Annotated[
        Path | None, typer.Option(metavar="LABEL", help="The reference; of MASKS, a folder of references.")
    ] = None,
    prediction: Annotated[Path | None, typer.Option(metavar="MASK", help="A predicted mask of IMAGE.")] = None,
    images: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="The images of MASKS.", show_default="where predict read them")
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o", metavar="FILE", help="The page.", show_default="CASE.html, or report.html in the folder"
        ),
    ] = None,
    mesh: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Also write the surfaces of the masks: .stl or .glb.")
    ] = None,
    ignore_value: Annotated[
        int | None,
        typer.Option(
            metavar="V",
            help="Value of LABEL where nobody has labelled; hatched and not scored.",
            show_default="ignore in nnU-Net's dataset.json, if any",
        ),
    ] = None,
    identifying: Annotated[
        bool, typer.Option("--identifying", help="Show file paths and header texts, which may name the patient.")
    ] = False,
) -> None:
    """Write one self-contained HTML page of a run, a study, predicted masks or a scan; it needs no network.

    A scan is shown in three linked planes, with its surfaces; masks get an overview, with a page for each case.
    Exit code 1 if the page of a case failed, 2 for invalid input.
    """
    request = _Request(path, label, prediction, images, output, mesh, identifying, ignore_value)
    from spleen.imaging.dicom.location import is_series
    from spleen.imaging.foreign import describe_folder

    if not path.exists() and not is_series(path):
        raise InputError(f"{path}: no such file or folder (relative to {Path.cwd()})")
    for is_one, write in _FOLDERS:
        if path.is_dir() and is_one(path):
            write(request)
            return
    if not path.is_dir() or is_series(path):
        _report_scan(request)
        return

    raise InputError(
        f"{path} is neither a run folder, nor a folder of runs, nor one that spleen predict has written: it holds no "
        f"config.yaml and no predictions.csv; {describe_folder(path)}"
    )


def _report_scan(request: _Request) -> None:
    from spleen.evaluation.scan.case import read_scan
    from spleen.evaluation.scan.mesh_files import check_mesh_name
    from spleen.evaluation.scan.page import to_page
    from spleen.evaluation.scan.viewer import write_scan_mesh
    from spleen.imaging.files import case_name
    from spleen.inference.report.masks import recorded_estimates
    from spleen.reporting.outputs import check_outputs, text_writer, write_outputs
    from spleen.system.signals import stop_on_signals

    request.refuse("an image", "images")
    output = _page_name(request.output) or Path(f"{case_name(request.path)}.html")
    if request.mesh is not None:
        check_mesh_name(request.mesh)
        if request.label is None and request.prediction is None:
            raise InputError("--mesh needs a mask whose surface to write; add --label or --prediction")
    request.check_ignore_value()
    outputs = {"--output": output, "--mesh": request.mesh}
    check_outputs(outputs)
    with stop_on_signals():
        scan = read_scan(request.path, request.label, request.prediction, ignore_value=request.ignore_value)
        notes = [] if request.prediction is None else recorded_estimates(request.prediction)
        write_outputs(
            outputs,
            {
                "--output": text_writer(lambda: to_page(scan, request.identifying, notes=notes)),
                "--mesh": lambda path: write_scan_mesh(path, scan),
            },
        )


def _report_masks(request: _Request) -> None:
    from spleen.cli.options import print_failures
    from spleen.inference.report.masks import read_masks_folder, write_overview
    from spleen.reporting.outputs import check_outputs
    from spleen.system.progress import ProgressBar
    from spleen.system.signals import stop_on_signals

    request.refuse("a folder of masks", "prediction", "mesh")
    request.check_ignore_value()
    output = _page_name(request.output) or request.path / "report.html"
    check_outputs({"--output": output})
    cases = read_masks_folder(request.path, request.images, request.label, request.ignore_value)
    with stop_on_signals() as stop, ProgressBar("case", check=stop.check) as bar:
        failures = write_overview(request.path, cases, output, request.identifying, bar.name_case)
    print(f"wrote {output}, with pages of {len(cases) - len(failures)} cases in {output.with_suffix('')}")
    if failures:
        print_failures(failures)
        raise typer.Exit(code=1)


def _report_run(request: _Request) -> None:
    from spleen.records.folder import RunFolder
    from spleen.runs.report.page import to_page

    output = _page_name(request.output) or RunFolder(request.path).report
    _write_page("a run", request, output, lambda: to_page(request.path, request.identifying))


def _report_study(request: _Request) -> None:
    from spleen.records.folder import RunFolder
    from spleen.runs.results.page import to_page

    if request.identifying:
        raise InputError(f"--identifying is not for a study ({request.path}), whose page holds nothing of the images")
    output = _page_name(request.output) or RunFolder(request.path).report
    _write_page("a study", request, output, lambda: to_page(request.path, output))


def _write_page(what: str, request: _Request, output: Path, make_page: Callable[[], str]) -> None:
    from spleen.reporting.outputs import check_outputs, text_writer, write_outputs

    request.refuse(what, "label", "prediction", "images", "mesh", "ignore-value")
    outputs = {"--output": output}
    check_outputs(outputs)
    write_outputs(outputs, {"--output": text_writer(make_page)})


def _page_name(output: Path | None) -> Path | None:
    if output is not None and not output.is_dir() and output.suffix.lower() not in (".html", ".htm"):
        raise InputError(f"--output: {output} must end in .html")
    return output


def _holds_masks(folder: Path) -> bool:
    from spleen.evaluation.class_names import CSV_NAME

    return (folder / CSV_NAME).is_file()


def _is_run(folder: Path) -> bool:
    from spleen.records.folder import MARKERS

    return any((folder / name).is_file() for name in MARKERS)


def _holds_runs(folder: Path) -> bool:
    from spleen.records.reading import find_runs

    return bool(find_runs(folder))


_FOLDERS: tuple[tuple[Callable[[Path], bool], Callable[[_Request], None]], ...] = (
    (_is_run, _report_run),
    (_holds_masks, _report_masks),
    (_holds_runs, _report_study),
)
"""How each kind of folder is known, and what writes its page; the first that fits counts."""
