"""`spleen dicom serve`, `status` and `release`: a node in a DICOM network."""

import importlib.util
import logging
import sys
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from spleen.errors import InputError, Interrupted

FOLDER = Path("dicom_node")
Folder = Annotated[Path, typer.Argument(metavar="[FOLDER]", help="The node's folder.", show_default=True)]


def serve(
    config: Annotated[
        Path | None, typer.Argument(help="Settings (YAML), see docs/how-to/dicom_node.md; options replace its keys.")
    ] = None,
    run: Annotated[
        list[Path] | None, typer.Option("--run", help="Run folder or checkpoint; several are averaged.")
    ] = None,
    to: Annotated[
        list[str] | None, typer.Option("--to", metavar="AE@HOST:PORT", help="Where results go; may be repeated.")
    ] = None,
    ae_title: Annotated[str | None, typer.Option(help="The node's own AE title. [SPLEEN]")] = None,
    host: Annotated[str | None, typer.Option(help="Address to listen on. [127.0.0.1: this machine only]")] = None,
    port: Annotated[int | None, typer.Option(help="Port to listen on. [11112]")] = None,
    folder: Annotated[Path | None, typer.Option(help="Folder of the queue. [dicom_node]")] = None,
    quiet_seconds: Annotated[
        float | None, typer.Option(help="A series is whole when nothing of it arrives for so long. [30]")
    ] = None,
    codes: Annotated[Path | None, typer.Option(help="File with the SNOMED CT codes of further classes.")] = None,
    review: Annotated[
        Literal["send", "hold"] | None, typer.Option(help="Results of low confidence: send, marked, or hold. [send]")
    ] = None,
) -> None:
    """Receive DICOM series by C-STORE, segment them, and send segmentation and report to other nodes.

    Runs until it is stopped (Ctrl-C, SIGTERM); it may also be killed, and goes on where it was. For research use only.
    """
    _check_installed()
    from spleen.dicom.node.server import serve as serve_node
    from spleen.dicom.node.settings import parse_peer, read_settings, settings_of
    from spleen.system.signals import stop_on_signals

    given: dict[str, Any] = {
        "runs": run,
        "destinations": [parse_peer(text) for text in to] if to else None,
        "ae_title": ae_title,
        "host": host,
        "port": port,
        "folder": folder,
        "quiet_seconds": quiet_seconds,
        "codes": codes,
        "review": review,
    }
    given = {key: value for key, value in given.items() if value is not None}
    if config is None and not run:
        raise InputError("give a CONFIG, or --run RUN and --to AE@HOST:PORT")
    settings = read_settings(config, given) if config is not None else settings_of({"destinations": [], **given})
    logging.basicConfig(
        format="%(asctime)s %(levelname)s: %(message)s", level=logging.WARNING, force=True
    )  # fmt: skip
    logging.getLogger("spleen.dicom.node").setLevel(logging.INFO)
    try:
        with stop_on_signals() as stop:
            serve_node(settings, stop.check)
    except Interrupted as interrupt:
        print("stopped; the series in the queue go on at the next start", file=sys.stderr)
        raise typer.Exit(interrupt.exit_code) from None


def status(folder: Folder = FOLDER) -> None:
    """Show the queue of a node: series by state, ages, last errors, and whether the node answers C-ECHO.

    Exit code 1 if it does not answer.
    """
    _check_installed()
    from spleen.dicom.node.status import as_text, read_status

    found = read_status(folder)
    print(as_text(found))
    if found.problem or not found.address:
        raise typer.Exit(code=1)


def release(
    series: Annotated[str, typer.Argument(help="Series Instance UID, as status shows it.")], folder: Folder = FOLDER
) -> None:
    """Let a held result be sent, or a failed series be tried again."""
    _check_installed()
    from spleen.dicom.node.queue import release as release_series

    print(f"{series}: {release_series(folder, series)}")


def _check_installed() -> None:
    missing = [name for name in ("pynetdicom", "highdicom") if importlib.util.find_spec(name) is None]
    if missing:
        raise InputError(f"a DICOM node needs {' and '.join(missing)}; install it with: pip install 'spleen[dicom]'")
