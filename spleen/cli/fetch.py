"""`spleen fetch`: options, a progress bar and a summary."""

import json
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from spleen.errors import InputError, Interrupted

if TYPE_CHECKING:
    from spleen.data.download.fetch import Fetched
    from spleen.data.download.http import Advance
    from spleen.system.progress import ProgressBar

_LIST_SECONDS = 4.0


def fetch(
    source: Annotated[
        str | None,
        typer.Argument(
            metavar="NAME|URL", help="A Decathlon task, such as Task09_Spleen, or the http(s) URL of a tar or zip."
        ),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="The folder to create; named like the task or archive by default."),
    ] = None,
    checksum: Annotated[
        str | None, typer.Option(metavar="md5:…|sha256:…", help="Verify the archive; not needed for the Decathlon.")
    ] = None,
    list_known: Annotated[bool, typer.Option("--list", help="List the Decathlon tasks and their sizes.")] = False,
) -> None:
    """Download a data set, verify it, and unpack it into a folder.

    After a broken connection, Ctrl-C or a kill, the same command resumes the download. A folder that was fetched
    before is kept as it is.
    """
    if list_known:
        _list()
        return
    if source is None:
        raise InputError("give the name of a data set or a URL; `spleen fetch --list` shows the names")
    from spleen.data.download.fetch import fetch as fetch_source
    from spleen.system.progress import ProgressBar
    from spleen.system.signals import stop_on_signals

    try:
        with stop_on_signals() as stop, ProgressBar("B", check=stop.check) as bar:
            fetched = fetch_source(source, output, checksum, _advance(bar))
    except (KeyboardInterrupt, Interrupted):
        print("the part downloaded so far is kept; run the same command again to resume", file=sys.stderr)
        raise
    _print_summary(fetched)


def _list() -> None:
    from rich.filesize import decimal

    from spleen.data.download.decathlon import DECATHLON_ARCHIVES
    from spleen.data.download.http import remote_sizes
    from spleen.reporting.tables import print_table

    archives = DECATHLON_ARCHIVES.values()
    sizes = remote_sizes([archive.url for archive in archives], _LIST_SECONDS)
    rows = []
    for archive in archives:
        reported_bytes, about_bytes = sizes[archive.url], archive.about_bytes
        size = decimal(reported_bytes) if reported_bytes else f"about {decimal(about_bytes)}" if about_bytes else None
        rows.append((archive.name, archive.content, size))
    print_table("Medical Segmentation Decathlon", ["name", "content", "archive"], rows)
    if None in sizes.values():
        print("-: the server did not report the size; is this machine online?", file=sys.stderr)


def _advance(bar: "ProgressBar") -> "Advance":
    """Move the bar on a terminal; elsewhere print a line when something begins."""
    from rich.filesize import decimal

    def advance(name: str, done_bytes: int, total_bytes: int | None) -> None:
        if bar.reach(name, done_bytes, total_bytes) and not bar.is_visible:
            size = "" if total_bytes is None else f" {decimal(total_bytes)}"
            begin = f", {decimal(done_bytes)} are here already" if done_bytes else ""
            print(f"{name}{size}{begin}", file=sys.stderr, flush=True)

    return advance


def _print_summary(fetched: "Fetched") -> None:
    from rich.filesize import decimal

    files = f"{fetched.n_files:,} file{'s' * (fetched.n_files != 1)}, {decimal(fetched.n_bytes)}"
    if fetched.was_cached:
        print(f"{fetched.folder} exists already: {files}; nothing to do")
    else:
        status = f"{fetched.checksum.partition(':')[0]} verified" if fetched.is_verified else "not verified"
        print(f"{fetched.folder}: {files}, {status}")
    if not fetched.is_verified:
        print(
            "the content could not be verified without a checksum; if it is correct, verify it next time with "
            f"--checksum {fetched.checksum}",
            file=sys.stderr,
        )
    if layout := _layout(fetched.folder):
        print(f"next: spleen train data={layout} {shlex.quote(f'data.root={fetched.folder}')}")


def _layout(folder: Path) -> str | None:
    """The value of `data` that reads the folder's dataset.json; None without a readable one."""
    try:
        content = json.loads((folder / "dataset.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    if not isinstance(content, dict):
        return None
    return "nnunet" if "channel_names" in content and "training" not in content else "decathlon"
